"""Directories, reconciled: the whole of it but for the disk, so that every reconciler of them judges alike.

    look -> not there         -> recorded as ours -> made, with the directories above
         -> a directory       -> recorded with its mode and owner, if it is not ours -> mode and owner set
                              -> looked at again: `DidNotStick` where that is not as desired
         -> anything else     -> UnsafePath, and left

    removal: ours and empty   -> removed
             ours, not empty  -> left until what is in it goes, as a directory made on the way to a file
             there before us  -> gets back its mode and owner, if they are what we set

What is recorded of ``directory:PATH``: ``prior``, the mode, owner and group before us, or null where we
made it; ``set``, what we set them to; ``left``, that we have let go of it. A directory made on the way to
another, or to a file, is ``made-directory:PATH``: nobody's, and gone once it is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotOurs, UnsafePath
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import (
    Directory,
    DirectoryAt,
    DirectoryState,
    NotADirectory,
    resource_id,
)
from harmony_core.steps import Changed, Created, Left, PutBack, Step
from harmony_pi_topology.common.check import did_it_stick, name_as_desired
from harmony_pi_topology.common.making_way import makes_way
from harmony_pi_topology.files.plan import CHANGED_SINCE, LEFT, REMOVED

from .made import id_of_made_directory, made_above, note_made

__all__ = ["Directories", "DirectoryDisk"]

_OTHERS_MAY_WRITE = 0o022
RESTORED = PutBack("its mode and owner")
NOT_EMPTY = Left("it is not empty")
_REMEDY = (
    "its file system does not keep that, or somebody else sets it; ask for what is found, or choose a path "
    "on another file system"
)


class DirectoryDisk(Protocol):
    """What the rules need of a file system. Every verb: a `CapabilityError` for what it will not do."""

    async def look(self, path: str) -> DirectoryState | None: ...

    async def resolve_desired(self, directory: Directory) -> DirectoryAt:
        """Return the state that it will have when it is as desired; where owners cannot be changed, with the
        owner that it will have."""
        ...

    async def find_home(self, user: str) -> str | None:
        """Return the home of *user*; None where this place has no users. Raise `WriteFailed` for an unknown
        one."""
        ...

    async def missing_above(self, path: str) -> Sequence[str]:
        """Return the directories above *path* that are not there."""
        ...

    async def make(self, path: str) -> None:
        """Make the directory, and those above it that are missing; everybody may read them."""

    async def change(self, path: str, to: DirectoryAt) -> None:
        """Set mode, owner and group, durably."""

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        """Remove those that are empty, deepest first. Return those that are gone now.

        One that is not empty stays. Raise an error if another reason keeps one from being removed.
        """
        ...


class Directories:
    """The verbs of a `Reconciler` of directories, but for who is told of changes."""

    def __init__(self, disk: DirectoryDisk, records: Records) -> None:
        self.disk = disk
        self.records = records

    @property
    def resource_class(self) -> type[Directory]:
        return Directory

    async def observe(self, key: str) -> DirectoryState | None:
        return await self.disk.look(key)

    async def converge(
        self, resources: Sequence[Directory], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. A directory comes before those in it."""
        results: dict[int, Change | Exception] = {}
        for index in sorted(range(len(resources)), key=lambda n: resources[n].path):
            results[index] = await self._converge_one(resources[index], apply=apply)
        return [results[index] for index in range(len(resources))]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*, and never what is in one. A directory comes after those in it."""
        results = {
            key: await self._remove_one(key, apply=apply) for key in sorted(keys, reverse=True)
        }
        return [results[key] for key in keys]

    async def _converge_one(self, directory: Directory, *, apply: bool) -> Change | Exception:
        try:
            found = await self._find(directory, apply=apply)
            if directory.in_home_of is not None:
                await self._refuse_other_home(directory.path, directory.in_home_of)
            desired = await self.disk.resolve_desired(directory)
            change = Change(
                resource=directory.id, steps=_steps_due(found, desired), before=found, after=desired
            )
            if apply:
                await self._bring_about(directory, found, desired)
            if apply and change.changed:
                change = attrs.evolve(
                    change, after=await self._look_afterwards(directory.path, desired)
                )
        except CapabilityError as error:
            told = name_as_desired(error, owner=directory.owner, group=directory.group)
            told.resource = directory.id
            return told
        return change

    async def _find(self, directory: Directory, *, apply: bool) -> DirectoryAt | None:
        """Return the directory that is there. Raise `UnsafePath` for anything else, unless it may be
        removed."""
        try:
            found = await self.disk.look(directory.path)
            if not isinstance(found, NotADirectory):
                return found
        except UnsafePath as error:
            refusal = error
        else:
            refusal = UnsafePath(
                f"{directory.path} is a {found.kind}, not a directory; move it away, or choose another path"
            )
        if apply or not makes_way(self.records, directory.resource_type, directory.path):
            raise refusal
        return None

    async def _refuse_other_home(self, path: str, user: str) -> None:
        """Raise where *path* is not directly in the home of *user*, or others may replace it."""
        home = await self.disk.find_home(user)
        if home is None:
            return
        if path.rpartition("/")[0] != home.rstrip("/"):
            raise UnsafePath(
                f"{path} is not in the home of {user}, which is {home}; write that in the Score, or have a "
                "UserScore set it"
            )
        found = await self.disk.look(home)
        if not isinstance(found, DirectoryAt):
            raise UnsafePath(
                f"{home}, the home of {user}, is no directory; make it by a DirectoryScore with this owner"
            )
        if found.owner not in {user, "root"} or int(found.mode, 8) & _OTHERS_MAY_WRITE:
            raise UnsafePath(
                f"{home} belongs to {found.owner} and has mode {found.mode}, by which others than {user} "
                f"could change what is in it; run: chown {user} {home} && chmod go-w {home}"
            )

    async def _bring_about(
        self, directory: Directory, found: DirectoryAt | None, desired: DirectoryAt
    ) -> None:
        await self._note(directory, found, desired)
        if found is None:
            await self.disk.make(directory.path)
            found = await self._directory_at(directory.path)
        if found != desired:
            await self.disk.change(directory.path, desired)

    async def _look_afterwards(self, path: str, desired: DirectoryAt) -> DirectoryAt:
        """Return what is at *path* after the change, which is as desired; else raise `DidNotStick`."""
        return did_it_stick(path, desired, await self.disk.look(path), remedy=_REMEDY)

    async def _directory_at(self, path: str) -> DirectoryAt | None:
        found = await self.disk.look(path)
        return found if isinstance(found, DirectoryAt) else None

    async def _note(
        self, directory: Directory, found: DirectoryAt | None, desired: DirectoryAt
    ) -> None:
        """Record, before it is touched, whose it is and how it was."""
        known = self.records.get(directory.id)
        made = self.records.get(id_of_made_directory(directory.path)) is not None
        if known is None or "left" in known:
            known = {"prior": None if found is None or made else attrs.asdict(found)}
        missing = await self.disk.missing_above(directory.path) if not found else ()
        await asyncio.gather(
            self.records.put(directory.id, {**known, "set": attrs.asdict(desired)}),
            note_made(self.records, missing),
        )
        if made:
            await self.records.forget(id_of_made_directory(directory.path))

    async def _remove_one(self, path: str, *, apply: bool) -> Change | Exception:
        rid = resource_id(Directory.resource_type, path)
        try:
            return await self._take_away(path, rid, apply=apply)
        except CapabilityError as error:
            error.resource = rid
            return error

    async def _take_away(self, path: str, rid: str, *, apply: bool) -> Change:
        found, record = await self.disk.look(path), self.records.get(rid)
        if record is None:
            if found is None or self.records.get(id_of_made_directory(path)) is not None:
                return Change(resource=rid, before=found, after=found)
            raise NotOurs(f"{path} was not made by Harmony; remove it by hand if it is to go")
        if "left" in record:
            return Change(resource=rid, before=found, after=found)
        if not isinstance(found, DirectoryAt):
            if apply and self.records.get(id_of_made_directory(path)) is not None:
                await self.records.forget(id_of_made_directory(path))  # killed right after it went
            await self._forget(path, apply=apply)
            steps = (LEFT,) if found is not None else ()
            return Change(resource=rid, steps=steps, before=found, after=found)
        if record["prior"] is None:
            return await self._ours_away(path, rid, found, apply=apply)
        return await self._give_back(path, rid, found, record, apply=apply)

    async def _ours_away(self, path: str, rid: str, found: DirectoryAt, *, apply: bool) -> Change:
        if not apply:
            return Change(resource=rid, steps=(REMOVED,), before=found)
        # Whatever is in it may be ours, and go later; then it goes, too. Noted before it is tried: another
        # Score may take away the last thing in it at the same time, and looks there once that is gone. So
        # one of the two always finds it empty.
        await self.records.put(id_of_made_directory(path), {})
        if path in await self.disk.remove_empty([path]):
            await self.records.forget(id_of_made_directory(path))
            await self._forget(path, apply=True)
            return Change(resource=rid, steps=(REMOVED,), before=found)
        await self.records.forget(rid)
        return Change(resource=rid, steps=(NOT_EMPTY,), before=found, after=found)

    async def _give_back(
        self, path: str, rid: str, found: DirectoryAt, record: JsonRecord, *, apply: bool
    ) -> Change:
        backup = DirectoryAt(**record["prior"])
        is_ours = found == DirectoryAt(**record["set"]) != backup
        why = RESTORED if is_ours else LEFT if found == backup else CHANGED_SINCE
        after = backup if is_ours else found
        if apply:
            if is_ours:
                await self.disk.change(path, backup)
                after = await self._look_afterwards(path, backup)
            await self.records.put(rid, {**record, "left": True})
        return Change(resource=rid, steps=(why,), before=found, after=after)

    async def _forget(self, path: str, *, apply: bool) -> None:
        if not apply:
            return
        gone = await self.disk.remove_empty(made_above(self.records, path))
        for each in gone:
            await self.records.forget(id_of_made_directory(each))
        await self.records.forget(resource_id(Directory.resource_type, path))


def _steps_due(found: DirectoryAt | None, desired: DirectoryAt) -> tuple[Step, ...]:
    if found is None:
        return (Created(),)
    attributes = (
        Changed("mode", found.mode, desired.mode),
        Changed("owner", found.owner, desired.owner),
        Changed("group", found.group, desired.group),
    )
    return tuple(each for each in attributes if each.before != each.after)
