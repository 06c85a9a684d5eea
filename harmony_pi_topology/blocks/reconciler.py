"""Parts of files, reconciled: all of it but for the disk, so that every reconciler of them judges alike.

    read the file -> find each part (`.text`)  -> as wished: nothing
                                               -> else: what it was is kept, the file is put together anew
                  -> written once for all its parts, safely, unless it changed since it was read
                  -> read again, and each part looked for: `DidNotStick` where it is not as wished

    removal: not there before us  -> taken out, with the header and the file that were made for it
             there before us      -> what it was stands there again, if it is as we set it

Of one file only one thing is done at a time, whoever asks. What is recorded of ``block:PATH#PART``::

    existed   it was there before us
    prior     what it was is among the backups
    wrote     hashes of what we wrote there, the last two
    boot      for what is read at boot: the boot in which it was last changed, and its hash at that boot
    left      we have let go of it

and of ``block-file:PATH``, for all parts of ours in it: ``parts``, their keys; ``made``, that there was no
file; ``sections``, whose headers we made; ``joined``, the hash of the last line that had no end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotInForce, NotOurs, UnsafePath
from harmony_core.reconciler import Backups, JsonRecord, Records
from harmony_core.resources import Block, BlockAt, Word, WordValue, resource_id
from harmony_core.resources.block import split_block_key
from harmony_core.steps import Changed, Created, Did, PutBack, Step, Wrote
from harmony_pi_topology.common.check import did_it_stick
from harmony_pi_topology.directories.made import id_of_made_directory, made_above, note_made
from harmony_pi_topology.files.plan import (
    CHANGED_SINCE,
    COMPARED_MAX_BYTES,
    LEFT,
    REMOVED,
    diff_of,
)

from .text import has_section, is_section_empty, part_of, take_header, wanted_text

__all__ = ["BlockDisk", "Blocks", "TextFile"]

_SHOWN_MAX = 100
_REMEDY = "its file system does not keep it, or somebody else writes the file; look at who does"
_AT_BOOT = Did("in force until the next boot")


@attrs.frozen(kw_only=True)
class TextFile:
    """A file as it was read."""

    content: bytes = attrs.field(repr=False)
    is_open: bool
    """Whether everybody may read it."""
    seen: object = None
    """What the disk knows it by again."""


class BlockDisk(Protocol):
    """What the rules need of a file system. Every verb: a `CapabilityError` for what it will not do."""

    async def read(self, path: str) -> TextFile | None:
        """Return the file; None where there is none. Raise `UnsafePath` for what is no file, or too large."""
        ...

    async def write(
        self,
        path: str,
        content: bytes,
        *,
        in_place_of: TextFile | None,
        keep_previous: bool,
        made_for: str | None = None,
    ) -> None:
        """Replace the file, or make one, and the directories above it; safely, with mode, owner and all else.

        A new file belongs to root and everybody may read it; or it is *made_for* one user alone.

        Raise `WriteFailed` where it has changed since it was read; `UnsafePath` where it could not be
        replaced without a loss.
        """

    async def remove(self, path: str) -> None:
        """Remove the file, durably."""

    async def missing_above(self, path: str) -> Sequence[str]:
        """Return the directories above *path* that are not there."""
        ...

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        """Remove those directories that are empty, deepest first. Return those that are gone now."""
        ...

    def boot_id(self) -> str:
        """Return an id that differs for each boot."""
        ...

    def kernel_words(self) -> frozenset[str]:
        """Return the words of the line with which the kernel was booted."""
        ...


@attrs.frozen(kw_only=True)
class _Due:
    """One part that is to become another."""

    block: Block
    change: Change
    found: bytes | None
    text: bytes


@attrs.define
class _Content:
    """What becomes of a file, one part after the other."""

    content: bytes
    sections: list[str] = attrs.field(factory=list[str])
    joined: str | None = None


class Blocks:
    """The verbs of a `Reconciler` of parts of files, but for who is told of changes."""

    def __init__(self, disk: BlockDisk, records: Records, backups: Backups) -> None:
        self.disk = disk
        self.records = records
        self.backups = backups
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def resource_class(self) -> type[Block]:
        return Block

    async def converge(
        self, resources: Sequence[Block], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. The parts of one file are written together."""
        of_file: defaultdict[str, list[int]] = defaultdict(list)
        for index, each in enumerate(resources):
            of_file[each.path].append(index)
        results: dict[int, Change | Exception] = {}
        for path, indices in of_file.items():
            blocks = [resources[index] for index in indices]
            async with self._locks[path]:
                try:
                    answers = await self._converge_file(path, blocks, apply=apply)
                except CapabilityError as error:
                    answers = [error.with_resource(each.id) for each in blocks]
            results.update(zip(indices, answers, strict=True))
        return [results[index] for index in range(len(resources))]

    async def observe(self, key: str) -> BlockAt | None:
        file = await self.disk.read(split_block_key(key)[0])
        found = None if file is None else part_of(key).find(file.content)
        return None if file is None or found is None else self._state(key, found, file)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        results: list[Change | Exception] = []
        for key in keys:
            path, rid = split_block_key(key)[0], resource_id(Block.resource_type, key)
            async with self._locks[path]:
                try:
                    results.append(await self._take_away(path, key, rid, apply=apply))
                except CapabilityError as error:
                    results.append(error.with_resource(rid))
        return results

    async def _converge_file(
        self, path: str, blocks: Sequence[Block], *, apply: bool
    ) -> list[Change | Exception]:
        file = await self.disk.read(path)
        becomes = _Content(b"" if file is None else file.content)
        results: list[Change | Exception] = []
        due: list[_Due] = []
        for block in blocks:
            try:
                planned = self._plan(block, file, becomes)
                if not planned.change.changed:
                    self._refuse_booted_without(block)
            except CapabilityError as error:
                results.append(error.with_resource(block.id))
                continue
            results.append(planned.change)
            if apply:
                await self._note(planned)
            if planned.change.changed:
                due.append(planned)
        if not apply or not due:
            return results
        await self._note_file(path, file, becomes, due)
        try:
            await self.disk.write(
                path,
                becomes.content,
                in_place_of=file,
                keep_previous=any(each.block.keep_previous for each in due),
                made_for=next((each.block.made_for for each in due if each.block.made_for), None),
            )
        except CapabilityError as error:
            done: Mapping[str, Change | Exception] = {
                each.block.id: error.with_resource(each.block.id) for each in due
            }
        else:
            done = await self._look_again(path, due)
        return [
            each if isinstance(each, Exception) else done.get(each.resource, each)
            for each in results
        ]

    def _plan(self, block: Block, file: TextFile | None, becomes: _Content) -> _Due:
        part = part_of(block.key)
        is_word = isinstance(block.part, Word | WordValue)
        if file is None and (is_word or not block.create):
            why = "words are put on a line that is there" if is_word else "it is not to be made"
            raise UnsafePath(f"{block.path} is not there, and {why}; name the file that is")
        before = becomes.content
        found = part.find(before)
        text = wanted_text(block, found)
        state = None if found is None else self._state(block.key, found, file)
        is_open = file is None or file.is_open
        if text == found:
            change = Change(resource=block.id, before=state, after=state)
            return _Due(block=block, change=change, found=found, text=text)
        if part.section and not has_section(
            before, part.section, and_top=getattr(part, "and_top", False)
        ):
            becomes.sections.append(part.section)
        if found is None and before and not before.endswith((b"\n", b"\r")) and not is_word:
            becomes.joined = becomes.joined or _sha256(before.splitlines()[-1])
        becomes.content = part.put(before, text)
        is_shown = is_open and max(len(before), len(becomes.content)) <= COMPARED_MAX_BYTES
        change = Change(
            resource=block.id,
            steps=_steps_due(found, text, is_open=is_open),
            before=state,
            after=self._will_be(block, found, text, is_open=is_open),
            diff=diff_of(block.path, before, becomes.content) if is_shown else None,
        )
        return _Due(block=block, change=change, found=found, text=text)

    def _refuse_booted_without(self, block: Block) -> None:
        """Raise where the device was booted without the words of *block*, which were in the file by then.

        This is only for a file from which the device was seen to boot: all of it was on the kernel's line
        once.
        """
        record, boot = self.records.get(block.id) or {}, self.disk.boot_id()
        if "boot" not in record or record["boot"]["id"] == boot:
            return
        if not isinstance(block.part, Word | WordValue):
            return
        if not (self.records.get(_file_id(block.path)) or {}).get("booted_by"):
            return
        lacking = sorted(_keep_unchanged_words(block.part.written) - self.disk.kernel_words())
        if lacking:
            raise NotInForce(
                f"{block.path} has {' '.join(lacking)}, and the device was booted without: /proc/cmdline "
                "does not have it; look whether config.txt names another file (cmdline=), or whether it was "
                "booted from another disk"
            )

    def _state(self, key: str, found: bytes, file: TextFile | None) -> BlockAt:
        record = self.records.get(resource_id(Block.resource_type, key)) or {}
        boot: JsonRecord = record.get("boot") or {"id": "", "was": ""}
        return BlockAt(
            sha256=_sha256(found),
            text=_shown(found) if file is None or file.is_open else "",
            awaits_reboot=boot["id"] == self.disk.boot_id() and boot["was"] != _sha256(found),
        )

    def _will_be(self, block: Block, found: bytes | None, text: bytes, *, is_open: bool) -> BlockAt:
        awaits = False
        if block.read_at_boot:
            record = self.records.get(block.id) or {}
            awaits = self._boot(record, found)["was"] != _sha256(text)
        return BlockAt(
            sha256=_sha256(text), text=_shown(text) if is_open else "", awaits_reboot=awaits
        )

    def _boot(self, record: JsonRecord, found: bytes | None) -> JsonRecord:
        """Return what the device was booted with: the part as it was before it was first changed since."""
        boot: JsonRecord | None = record.get("boot")
        if boot is not None and boot["id"] == self.disk.boot_id():
            return boot
        return {"id": self.disk.boot_id(), "was": "" if found is None else _sha256(found)}

    async def _note(self, due: _Due) -> None:
        """Record, before it is touched, whose it is and what it was."""
        rid, found = due.block.id, due.found
        record: dict[str, Any] = dict(self.records.get(rid) or {})
        if not record or "left" in record:
            record = {"existed": found is not None}
        if due.change.changed:
            if record["existed"] and "prior" not in record:
                if found is None:
                    record["existed"] = False  # taken away by somebody before we ever changed it
                else:
                    await self.backups.keep(rid, found)
                    record["prior"] = True
            sha256 = _sha256(due.text)
            others = [each for each in record.get("wrote", ()) if each != sha256]
            record["wrote"] = [*others[-1:], sha256]
            if due.block.read_at_boot:
                record["boot"] = self._boot(record, found)
        await self.records.put(rid, record)

    async def _note_file(
        self, path: str, file: TextFile | None, becomes: _Content, due: Sequence[_Due]
    ) -> None:
        before = self.records.get(_file_id(path)) or {}
        keys = [each.block.key for each in due]
        record: dict[str, Any] = {
            "parts": [*(key for key in before.get("parts", ()) if key not in keys), *keys],
            "made": bool(before.get("made", False)) or file is None,
            "sections": list(dict.fromkeys([*before.get("sections", ()), *becomes.sections])),
            "joined": before.get("joined") or becomes.joined,
        }
        if any(each.block.read_at_boot for each in due) and file is not None:
            words = _keep_unchanged_words(file.content.decode(errors="replace").split())
            was_booted_by = bool(words) and words <= self.disk.kernel_words()
            record["booted_by"] = before.get("booted_by", False) or was_booted_by
        missing = await self.disk.missing_above(path) if file is None else ()
        await asyncio.gather(
            self.records.put(_file_id(path), record), note_made(self.records, missing)
        )

    async def _look_again(self, path: str, due: Sequence[_Due]) -> Mapping[str, Change | Exception]:
        """Return what is found of each part after the change."""
        results: dict[str, Change | Exception] = {}
        for each in due:
            wanted = each.change.after
            assert isinstance(wanted, BlockAt)
            try:
                found = await self.observe(each.block.key)
                what = f"{path} ({each.block.part.selector})"
                after = did_it_stick(what, wanted, found, remedy=_REMEDY, fields=("sha256",))
            except CapabilityError as error:
                results[each.block.id] = error.with_resource(each.block.id)
            else:
                results[each.block.id] = attrs.evolve(each.change, after=after)
        return results

    async def _take_away(self, path: str, key: str, rid: str, *, apply: bool) -> Change:
        file, record = await self.disk.read(path), self.records.get(rid)
        found = None if file is None else part_of(key).find(file.content)
        if record is None:
            if found is None:
                return Change(resource=rid)
            raise NotOurs(
                f"{path} has it already, and Harmony has not put it there; take it out by hand"
            )
        if file is None or found is None:
            if apply:
                await self._forget(path, key, rid, file)
            return Change(resource=rid)
        state = self._state(key, found, file)
        if "left" in record:
            return Change(resource=rid, before=state, after=state)
        backup = await self.backups.get(rid) if "prior" in record else None
        if record["existed"] and (backup is None or _sha256(found) not in record["wrote"]):
            is_as_before = backup is None or backup == found
            why = LEFT if is_as_before else CHANGED_SINCE
            if apply:
                await self._forget(path, key, rid, file, left=record)
            return Change(resource=rid, steps=(why,), before=state, after=state)
        return await self._undo(path, key, file, found, backup, record, apply=apply)

    async def _undo(
        self,
        path: str,
        key: str,
        file: TextFile,
        found: bytes,
        backup: bytes | None,
        record: JsonRecord,
        *,
        apply: bool,
    ) -> Change:
        rid, part = resource_id(Block.resource_type, key), part_of(key)
        taken = part.take(file.content) if backup is None else part.put(file.content, backup)
        change = Change(
            resource=rid,
            steps=(
                REMOVED if backup is None else PutBack("what was there before"),
                *self._steps_at_boot(record, found, backup),
            ),
            before=self._state(key, found, file),
            after=None,
        )
        if backup is not None:
            text = _shown(backup) if file.is_open else ""
            change = attrs.evolve(change, after=BlockAt(sha256=_sha256(backup), text=text))
        if apply:
            content = self._without_made(path, taken)
            of_file = self.records.get(_file_id(path)) or {}
            if not content and of_file.get("made"):
                await self.disk.remove(path)
            else:
                # As it was told when it was put there: what is read at boot has its copy beside it.
                await self.disk.write(
                    path, content, in_place_of=file, keep_previous="boot" in record
                )
            after = await self.disk.read(path)
            there = None if after is None else part.find(after.content)
            if there != backup:
                raise UnsafePath(
                    f"{path} has the part again the moment it was taken out: somebody else writes it; "
                    "look at who does"
                )
            await self._forget(path, key, rid, after, left=None if backup is None else record)
        return change

    def _steps_at_boot(
        self, record: JsonRecord, found: bytes, backup: bytes | None
    ) -> tuple[Step, ...]:
        """Return whether the device uses the part as it was until the next reboot."""
        if "boot" not in record:
            return ()
        is_back = self._boot(record, found)["was"] == ("" if backup is None else _sha256(backup))
        return () if is_back else (_AT_BOOT,)

    def _without_made(self, path: str, content: bytes) -> bytes:
        """Return *content* without the headers that were made for our parts, and are empty now."""
        record = self.records.get(_file_id(path)) or {}
        for section in record.get("sections", ()):
            if is_section_empty(content, section):
                content = take_header(content, section)
        lines = content.splitlines(keepends=True)
        if (
            record.get("joined")
            and lines
            and _sha256(lines[-1].rstrip(b"\r\n")) == record["joined"]
        ):
            content = content.rstrip(b"\r\n")
        return content

    async def _forget(
        self,
        path: str,
        key: str,
        rid: str,
        file: TextFile | None,
        *,
        left: JsonRecord | None = None,
    ) -> None:
        """Release a part: if it stays there, remember that it is no longer ours."""
        record = self.records.get(_file_id(path))
        if record is not None:
            parts = [each for each in record["parts"] if each != key]
            if parts:
                await self.records.put(_file_id(path), {**record, "parts": parts})
            else:
                await self.records.forget(_file_id(path))
        if left is None:
            await self.records.forget(rid)
        else:
            await self.records.put(rid, {**left, "left": True})
        await self.backups.forget(rid)  # last: it is found again as long as the record says so
        if file is None:
            gone = await self.disk.remove_empty(made_above(self.records, path))
            await asyncio.gather(
                *(self.records.forget(id_of_made_directory(each)) for each in gone)
            )


def _file_id(path: str) -> str:
    return resource_id("block-file", path)


def _keep_unchanged_words(words: Iterable[str]) -> set[str]:
    """Return those of *words* that are on the kernel's line as they are in the file.

    A Pi's firmware replaces serial0 and serial1 by the name of the port.
    """
    return {word for word in words if "serial0" not in word and "serial1" not in word}


def _steps_due(found: bytes | None, text: bytes, *, is_open: bool) -> tuple[Step, ...]:
    if found is None:
        return (Created(),)
    before, after = _shown(found), _shown(text)
    if is_open and before and after:
        return (Changed("text", before, after),)
    return (Wrote(f"{len(found)} → {len(text)} bytes"),)


def _shown(text: bytes) -> str:
    """Return *text* where it is one short line of plain text, without spaces around it; else nothing."""
    try:
        line = text.decode().strip()
    except UnicodeDecodeError:
        return ""
    return line if line.isprintable() and len(line) <= _SHOWN_MAX else ""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
