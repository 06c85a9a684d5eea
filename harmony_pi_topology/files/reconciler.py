"""Files, reconciled by POSIX calls beneath one root.

    record (`.records`)  whose each file is, and what was there before, durable before any effect
    observe              every file of the batch, in one call in a thread (`.batch`)
    fetch                an asset or download that is to be written, and is not here: NotReady until it is
    plan    (`.plan`)    what is to be done, in words and as a diff -> a dry run ends here
    apply                what is not right is written together, so the dear part of durability is paid once
    check                what stands there then is the answer, and has to be as desired

Of each file it is recorded, before it is first touched, whether it was there already. By that `remove`
knows what may go (`.removal`): a file that we made; what we found is left, or what it was is put back;
and directories that we made on the way go once they are empty. What is recorded of ``file:PATH``::

    existed   it was there before us
    prior     its mode, owner and group then; its content is kept apart
    wrote     hashes of what we wrote there since
    secret    its content is a secret, or may still be the one it was: not even its hash is told
    left      we have let go of it
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import TypeAlias

import attrs

from harmony_core.assets import Assets, NoAssets
from harmony_core.change import Change, NotReady
from harmony_core.errors import AssetDamaged, CapabilityError
from harmony_core.reconciler import Availability, Backups, JsonRecord, OnChange, Records
from harmony_core.resources import Asset, Download, File, FileState, resource_id
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.common.batching import Batcher
from harmony_pi_topology.common.making_way import is_all_ours, makes_way
from harmony_pi_topology.common.path_calls import PATIENCE_S, PathCalls, Turns
from harmony_pi_topology.common.path_identities import PathIdentities
from harmony_pi_topology.common.path_watch import PathWatcher, watch_itself
from harmony_pi_topology.directories.made import id_of_made_directory, made_above, note_made
from harmony_pi_topology.posix.root import Root

from .batch import BatchResult, FileBatches, FileRequest
from .records import FileBackups
from .removal import Removal, Removed, remove_all, state_of

__all__ = ["PosixFiles"]

Result: TypeAlias = Change | Exception

_AVAILABILITY_TIMEOUT_S = 5.0


@attrs.frozen
class _Before:
    """What there was before we touched anything."""

    existed: Mapping[str, bool]
    """By path; without those that may not be touched at all."""
    missing: Sequence[str]
    """Directories that must be made."""


@attrs.frozen
class _Known:
    is_secret: bool
    existed: bool


class PosixFiles:
    """A `FileSystemHost`'s reconciler. ``root`` is / or a folder that stands for a device.

    With *owner_checked* (the default for /) owner and group are part of what is brought about, and root's
    rights are needed to give files away. Without (the default for a folder) files belong to whoever
    runs this, and that is what is told of them, whatever owner was wished for. A file system that does not
    answer for *patience_s* is left alone until it does, and all others are not kept waiting by it.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        records: Records,
        backups: Backups,
        secrets_directory: str = "/etc/harmony/secrets",
        secret_values: SecretValues | None = None,
        assets: Assets | None = None,
        owner_checked: bool | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._root = Root(root)
        self._records = records
        self._backups = backups
        self._assets = assets or NoAssets()
        self._passes = FileBatches(
            self._root,
            is_ours=self._is_ours,
            was_secret=self._was_secret,
            makes_way=self._makes_way,
            secrets_directory=secrets_directory,
            secret_values=secret_values or SecretValues(),
            assets=self._assets,
            owner_checked=root == "/" if owner_checked is None else owner_checked,
        )
        self._calls = PathCalls("the file system", root, at_once=2, patience_s=patience_s)
        self._identities = PathIdentities(self._root, self._calls)
        self._file_backups = FileBackups(
            self._root,
            self._calls,
            records=records,
            backups=backups,
            sha256_of=self._passes.sha256_desired,
        )
        self._passing = Turns()
        self._recorded: dict[str, _Known] = {}
        """What is known of the paths that are in the records."""
        self._made: set[str] = set()
        """Directories that were made and are not gone: who notes that later must not undo what came after."""
        self._gathered: Batcher[FileRequest, Result] = Batcher(self._converge)
        self._removals: Batcher[str, Result] = Batcher(partial(self._remove_all, apply=True))
        self._watcher = PathWatcher(
            root, watch_itself, name="watching files", patience_s=patience_s
        )

    @property
    def resource_class(self) -> type[File]:
        return File

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. Calls made at the same time share one pass."""
        return await self._gathered.submit([FileRequest(file, apply) for file in resources])

    async def prepare(self, resources: Sequence[File]) -> None:
        """Fetch the assets and downloads of those files that are not as desired."""
        for error in (await self._fetch([FileRequest(file, True) for file in resources])).values():
            raise error

    async def observe(self, key: str) -> FileState | None:
        """Observe *key*. The content is read; nothing remembered is relied on."""
        hidden = "secret" in (self._records.get(_rid(key)) or {})
        return await self._calls.run(self._observe_one, key, hidden)

    async def identities(self, resource: File) -> frozenset[str]:
        """Return the claims by which the kernel knows this path; see `Root.identities`."""
        return await self._identities.look(resource.path)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. Calls made at the same time share one pass. This needs only the records."""
        if not apply:
            return await self._remove_all(keys, apply=False)
        return await self._removals.submit(keys)

    async def availability(self) -> Availability:
        """Return whether the file system answers at all."""
        await self._watcher.mend()
        try:
            await self._calls.run_within(_AVAILABILITY_TIMEOUT_S, os.statvfs, self._root.path)
        except CapabilityError as error:
            return Availability(available=False, reason=error.message)
        except OSError as error:
            return Availability(available=False, reason=f"{self._root.path}: {error.strerror}")
        return Availability(available=True)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys* by inotify. A write through another name of the same file is not noticed."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        await self._watcher.close()
        self._calls.close()
        self._root.close()

    async def _converge(self, all_desired: Sequence[FileRequest]) -> Sequence[Result]:
        return await self._calls.sparing(
            [(desired.file.path,) for desired in all_desired],
            lambda some: self._converge_all([all_desired[index] for index in some]),
        )

    async def _remove_all(self, keys: Sequence[str], *, apply: bool) -> Sequence[Result]:
        return await self._calls.sparing(
            [(key,) for key in keys],
            lambda some: self._remove_these([keys[index] for index in some], apply),
        )

    async def _remove_these(self, keys: Sequence[str], apply: bool) -> Sequence[Result]:
        removals = [await self._removal(key) for key in keys]
        removed = await self._calls.run(self._remove, removals, apply)
        # Side by side, so that the records share a flush to disk.
        await asyncio.gather(*map(self._forget, removals, removed))
        return [each.result for each in removed]

    async def _fetch(self, all_desired: Sequence[FileRequest]) -> Mapping[str, Exception]:
        """Fetch what is about to be written. Return by path what it waits for, or what is wrong."""
        due = {
            desired.file.path: FileRequest(desired.file, False)
            for desired in all_desired
            if desired.apply and isinstance(desired.file.content, Asset | Download)
        }
        if not due:
            return {}
        planned = await self._calls.run(self._pass, [*due.values()])
        wanted = [
            desired
            for desired, result in zip(due.values(), planned.results, strict=True)
            if isinstance(result, Change) and result.changed
        ]
        # Side by side: each tells within a second how far it is.
        fetched = await asyncio.gather(*map(self._fetch_one, wanted))
        return {
            desired.file.path: error
            for desired, error in zip(wanted, fetched, strict=True)
            if error is not None
        }

    async def _fetch_one(self, desired: FileRequest) -> Exception | None:
        assert isinstance(desired.file.content, Asset | Download)
        if self._assets.find(desired.file.content) is None:
            self._passes.note_fetching(desired.file.content.sha256)
        try:
            await self._assets.fetch(desired.file.content, resource=desired.file.id)
        except (CapabilityError, NotReady) as error:
            return error
        return None

    async def _converge_all(self, all_desired: Sequence[FileRequest]) -> Sequence[Result]:
        if waits := await self._fetch(all_desired):
            rest = [desired for desired in all_desired if desired.file.path not in waits]
            results = iter(await self._converge_here(rest) if rest else ())
            return [waits.get(desired.file.path) or next(results) for desired in all_desired]
        return await self._converge_here(all_desired)

    async def _converge_here(self, all_desired: Sequence[FileRequest]) -> Sequence[Result]:
        first = {
            desired.file.path: desired.file
            for desired in all_desired
            if self._is_new_to_us(desired)
        }
        if first:
            before = await self._calls.run(self._before, list(first))
            # Durable before the effect: a file found later without a record would pass for a stranger's.
            await self._record(first, before)
        errors = await self._keep_backups(all_desired)
        rest = (
            [desired for desired in all_desired if desired.file.path not in errors]
            if errors
            else all_desired
        )
        passed = await self._calls.run(self._pass, rest)
        for desired, result in zip(rest, passed.results, strict=True):
            if isinstance(result, AssetDamaged) and isinstance(
                desired.file.content, Asset | Download
            ):
                await self._assets.drop(desired.file.content)
        await self._note_directories(passed.made_directories)
        await self._note_secrets_gone(rest, passed.results)
        if not errors:
            return passed.results
        results = iter(passed.results)
        return [errors.get(desired.file.path) or next(results) for desired in all_desired]

    def _is_new_to_us(self, desired: FileRequest) -> bool:
        if not desired.apply:
            return False
        file = desired.file
        known = self._recorded.get(file.path) or self._load_record(file)
        if known is None or (file.has_secret and not known.is_secret):
            return True
        return known.existed and file.discard_previous and "prior" not in self._record_of(file)

    def _load_record(self, file: File) -> _Known | None:
        record = self._records.get(file.id)
        if record is None or "left" in record:
            return None
        known = _Known("secret" in record, bool(record["existed"]))
        self._recorded[file.path] = known
        return known

    def _makes_way(self, path: str) -> bool:
        return makes_way(self._records, File.resource_type, path) and is_all_ours(
            self._records, self._root.list_below(path)
        )

    def _is_ours(self, file: File) -> bool:
        record = self._records.get(file.id)
        if record is None or "left" in record:
            return False
        return "wrote" in record or not record["existed"]

    def _was_secret(self, file: File) -> bool:
        return "secret" in self._record_of(file)

    def _record_of(self, file: File) -> JsonRecord:
        return self._records.get(file.id) or {}

    async def _keep_backups(self, all_desired: Sequence[FileRequest]) -> Mapping[str, Exception]:
        """Keep a backup of what was there before us and is about to be changed. Return the errors by path.

        What could not be looked at is not touched now: at a second look it could be seen, and be overwritten
        without a backup.
        """
        found = [
            desired
            for desired in all_desired
            if desired.apply and self._exists_already(desired.file.path)
        ]
        if not found:
            return {}
        planned = await self._calls.run(
            self._pass, [FileRequest(desired.file, False) for desired in found]
        )
        due = {
            desired.file.path: desired.file
            for desired, result in zip(found, planned.results, strict=True)
            if isinstance(result, Change) and result.changed
        }
        unseen = {
            desired.file.path: result
            for desired, result in zip(found, planned.results, strict=True)
            if isinstance(result, Exception)
        }
        for path in due:
            self._recorded.pop(path, None)  # it may not have existed after all
        return {**await self._file_backups.keep(list(due.values())), **unseen}

    def _exists_already(self, path: str) -> bool:
        known = self._recorded.get(path)
        return known is not None and known.existed

    async def _record(self, files: Mapping[str, File], before: _Before) -> None:
        touched = [file for path, file in files.items() if path in before.existed]
        first = {file: self._first_record(file, before.existed[file.path]) for file in touched}
        await asyncio.gather(
            *(self._records.put(file.id, record) for file, record in first.items()),
            note_made(self._records, before.missing),
        )
        self._recorded.update(
            (file.path, _Known("secret" in record, record["existed"]))
            for file, record in first.items()
        )

    def _first_record(self, file: File, existed: bool) -> JsonRecord:
        known = dict(self._record_of(file))
        # What is there stays a secret until something else was written.
        secret = {"secret": True} if file.has_secret or "secret" in known else {}
        if "left" in known:
            known = {}
        existed = bool(known.get("existed", existed))
        if file.discard_previous and "prior" not in known:
            existed = False
        return {**known, "existed": existed, **secret}

    async def _note_secrets_gone(
        self, all_desired: Sequence[FileRequest], results: Sequence[Result]
    ) -> None:
        """Show everything again of what was a secret and has been overwritten with what is none."""
        written = [
            desired.file
            for desired, result in zip(all_desired, results, strict=True)
            if desired.apply and isinstance(result, Change) and not desired.file.has_secret
        ]
        for file in written:
            if "secret" in (record := dict(self._record_of(file))):
                del record["secret"]
                await self._records.put(file.id, record)
                self._recorded.pop(file.path, None)

    async def _note_directories(self, made: Sequence[str]) -> None:
        """Record those directories that vanished between being found and being needed, and so were made by
        us."""
        unknown = [
            path
            for path in made
            if path in self._made and self._records.get(id_of_made_directory(path)) is None
        ]
        await note_made(self._records, unknown)

    async def _removal(self, key: str) -> Removal:
        made = made_above(self._records, key)
        record = self._records.get(_rid(key))
        had_backup = record is not None and "prior" in record and "left" not in record
        backup = await self._backups.get(_rid(key)) if had_backup else None
        return Removal(path=key, record=record, made_directories=made, backup=backup)

    async def _forget(self, removal: Removal, removed: Removed) -> None:
        rid = _rid(removal.path)
        self._recorded.pop(removal.path, None)
        if removed.is_gone:
            await self._records.forget(rid)
        if removed.is_released and removal.record is not None:
            await self._records.put(rid, {**removal.record, "left": True})
        if removal.may_have_backup and self._is_let_go(rid):
            # Last: it is found again as long as the record says so. Also one that no record ever spoke of,
            # or does not any more: whoever was here before may have been killed in between.
            await self._backups.forget(rid)
        gone = [*removed.gone_directories, *await self._remove_let_go(removal, removed)]
        await asyncio.gather(*map(self._forget_directory, gone))

    async def _forget_directory(self, path: str) -> None:
        # Looked at in the step in which it is forgotten: it may have been made again since it went.
        if path not in self._made:
            await self._records.forget(id_of_made_directory(path))

    async def _remove_let_go(self, removal: Removal, removed: Removed) -> Sequence[str]:
        """Remove those directories that were released while the file was removed. Return those that are gone
        now."""
        made = made_above(self._records, removal.path)
        if not removed.is_gone or set(made) <= set(removal.made_directories):
            return ()
        return await self._calls.run(self._root.remove_empty, made)

    def _is_let_go(self, rid: str) -> bool:
        record = self._records.get(rid)
        return record is None or "left" in record

    # From here on in a thread.

    def _pass(self, all_desired: Sequence[FileRequest]) -> BatchResult:
        with self._passing.take():
            passed = self._passes.converge(all_desired)
            self._made.update(passed.made_directories)
            return passed

    def _before(self, paths: Sequence[str]) -> _Before:
        found = dict(zip(paths, self._root.look_many(paths), strict=True))
        existed = {
            path: each is not None
            for path, each in found.items()
            if not isinstance(each, Exception)
        }
        missing: set[str] = set()
        for path, exists in existed.items():
            if not exists:
                missing.update(self._missing_above(path, missing))
        return _Before(existed, sorted(missing))

    def _missing_above(self, path: str, known: set[str]) -> Iterator[str]:
        with suppress(CapabilityError):  # then the pass itself will say so
            for parent in map(str, PurePosixPath(path).parents[:-1]):
                if parent in known or self._root.look(parent) is not None:
                    return
                yield parent

    def _observe_one(self, path: str, hidden: bool) -> FileState | None:
        found = self._root.look(path)
        if found is None:
            return None
        try:
            return state_of(self._root, self._passes.owners(), path, found, hidden=hidden)
        except FileNotFoundError:
            return None  # gone between the two looks

    def _remove(self, removals: Sequence[Removal], apply: bool) -> list[Removed]:
        with self._passing.take():
            if apply:
                self._root.sweep(directory for each in removals for directory in each.directories)
            removed = remove_all(self._root, self._passes.owners(), removals, apply=apply)
            for removal, each in zip(removals, removed, strict=True):
                self._made.difference_update(each.gone_directories)
                if each.is_gone or each.is_released:
                    self._passes.forget(removal.path)
            return removed


def _rid(path: str) -> str:
    return resource_id(File.resource_type, path)
