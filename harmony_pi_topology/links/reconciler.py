"""Links, reconciled: the whole of it but for the disk, so that every reconciler of them judges alike.

    look -> not there        -> recorded as ours -> made, with the directories above
         -> a link           -> recorded with its target, if it is not ours -> replaced in one step
                             -> looked at again: `DidNotStick` where that is not as desired
         -> an empty directory, where a link of ours was -> it goes, and the link is made
         -> anything else    -> UnsafePath, and left

    removal: ours                -> removed
             there before us     -> leads again to what it led to, if it is as we set it

What is recorded of ``link:PATH``: ``prior``, what it led to before us, with its owner, or null where we made
it; ``set``, the last two targets that we gave it; ``left``, that we have let go of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotOurs, UnsafePath
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import LinkAt, LinkState, NotALink, SymbolicLink, resource_id
from harmony_core.steps import Changed, Created, PutBack, Removed, Step
from harmony_pi_topology.common.check import did_it_stick
from harmony_pi_topology.common.making_way import is_all_ours, makes_way
from harmony_pi_topology.directories.made import id_of_made_directory, made_above, note_made
from harmony_pi_topology.files.plan import CHANGED_SINCE, LEFT, REMOVED

__all__ = ["FoundLink", "LinkDisk", "Links"]

_REMEDY = "its file system keeps no such link, or somebody else sets it; choose a path on another file system"


@attrs.frozen(kw_only=True)
class FoundLink:
    """What is found of a link: all that is given back. An owner of -1 is whoever runs this."""

    target: str
    uid: int = -1
    gid: int = -1

    @property
    def state(self) -> LinkAt:
        return LinkAt(target=self.target)


class LinkDisk(Protocol):
    """What the rules need of a file system. Every verb: a `CapabilityError` for what it will not do."""

    async def look(self, path: str) -> FoundLink | NotALink | None: ...

    async def is_empty_directory(self, path: str) -> bool: ...

    async def list_below(self, path: str) -> Sequence[str]:
        """Return every path below the directory *path*; none where it is no directory."""
        ...

    async def missing_above(self, path: str) -> Sequence[str]:
        """Return the directories above *path* that are not there."""
        ...

    async def put(self, path: str, link: FoundLink) -> None:
        """Make the link, in place of a link or an empty directory, durably; and the directories above it."""

    async def remove(self, path: str) -> None:
        """Remove a link, durably."""

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        """Remove those directories that are empty, deepest first. Return those that are gone now."""
        ...


class Links:
    """The verbs of a `Reconciler` of links, but for who is told of changes."""

    def __init__(self, disk: LinkDisk, records: Records) -> None:
        self.disk = disk
        self.records = records

    @property
    def resource_class(self) -> type[SymbolicLink]:
        return SymbolicLink

    async def observe(self, key: str) -> LinkState | None:
        found = await self.disk.look(key)
        return found.state if isinstance(found, FoundLink) else found

    async def converge(
        self, resources: Sequence[SymbolicLink], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [await self._converge_one(each, apply=apply) for each in resources]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [await self._remove_one(each, apply=apply) for each in keys]

    async def _converge_one(self, link: SymbolicLink, *, apply: bool) -> Change | Exception:
        try:
            found = await self._find(link, apply=apply)
            desired = LinkAt(target=link.target)
            change = Change(
                resource=link.id,
                steps=await self._steps_due(link, found),
                before=found.state if isinstance(found, FoundLink) else found,
                after=desired,
            )
            if apply:
                await self._note(link, found)
            if apply and change.changed:
                await self.disk.put(link.path, FoundLink(target=link.target))
                change = attrs.evolve(change, after=await self._look_afterwards(link.path, desired))
        except CapabilityError as error:
            error.resource = link.id
            return error
        return change

    async def _find(self, link: SymbolicLink, *, apply: bool) -> FoundLink | NotALink | None:
        """Return what is there; None for what may be removed."""
        try:
            found = await self.disk.look(link.path)
        except UnsafePath:
            if apply or not makes_way(self.records, link.resource_type, link.path):
                raise
            return None
        if (
            apply
            or not isinstance(found, NotALink)
            or not makes_way(self.records, link.resource_type, link.path)
        ):
            return found
        below = await self.disk.list_below(link.path)
        return None if is_all_ours(self.records, below) else found

    async def _steps_due(
        self, link: SymbolicLink, found: FoundLink | NotALink | None
    ) -> tuple[Step, ...]:
        match found:
            case None:
                return (Created(),)
            case FoundLink(target=target):
                step = Changed("target", target, link.target)
                return () if target == link.target else (step,)
            case NotALink(kind=kind):
                if self._is_ours(link.id) and await self.disk.is_empty_directory(link.path):
                    return (Removed(f"a {kind} that had taken its place"), Created())
                raise UnsafePath(
                    f"{link.path} is a {kind}, not a link; move it away, or choose another path"
                )

    def _is_ours(self, rid: str) -> bool:
        record = self.records.get(rid)
        return record is not None and "left" not in record

    async def _look_afterwards(self, path: str, desired: LinkAt) -> LinkAt:
        return did_it_stick(path, desired, await self.observe(path), remedy=_REMEDY)

    async def _note(self, link: SymbolicLink, found: FoundLink | NotALink | None) -> None:
        """Record, before it is touched, whose it is and what it led to."""
        known = self.records.get(link.id)
        if known is None or "left" in known:
            prior = attrs.asdict(found) if isinstance(found, FoundLink) else None
            were: Sequence[str] = ()
        else:
            prior, were = known["prior"], known["set"]
        # The one before, too: who is killed in between has set that one.
        others = [each for each in were if each != link.target]
        record = {"prior": prior, "set": [*others[-1:], link.target]}
        missing = await self.disk.missing_above(link.path) if found is None else ()
        await asyncio.gather(self.records.put(link.id, record), note_made(self.records, missing))

    async def _remove_one(self, path: str, *, apply: bool) -> Change | Exception:
        rid = resource_id(SymbolicLink.resource_type, path)
        try:
            return await self._take_away(path, rid, apply=apply)
        except CapabilityError as error:
            error.resource = rid
            return error

    async def _take_away(self, path: str, rid: str, *, apply: bool) -> Change:
        found, record = await self.disk.look(path), self.records.get(rid)
        state = found.state if isinstance(found, FoundLink) else found
        if record is None:
            if found is None:
                return Change(resource=rid)
            raise NotOurs(f"{path} was not made by Harmony; remove it by hand if it is to go")
        if "left" in record:
            return Change(resource=rid, before=state, after=state)
        if not isinstance(found, FoundLink):
            await self._forget(path, rid, apply=apply)
            return Change(resource=rid, steps=(LEFT,) if found else (), before=state, after=state)
        if record["prior"] is None:
            if apply:
                await self.disk.remove(path)
            await self._forget(path, rid, apply=apply)
            return Change(resource=rid, steps=(REMOVED,), before=state)
        return await self._give_back(path, rid, found, record, apply=apply)

    async def _give_back(
        self, path: str, rid: str, found: FoundLink, record: JsonRecord, *, apply: bool
    ) -> Change:
        prior = FoundLink(**record["prior"])
        is_ours = found.target in record["set"] and found.target != prior.target
        step: Step = PutBack(f"the link to {prior.target}") if is_ours else CHANGED_SINCE
        if found.target == prior.target:
            step = LEFT
        after = prior.state if is_ours else found.state
        if apply:
            if is_ours:
                await self.disk.put(path, prior)
                after = await self._look_afterwards(path, prior.state)
            await self.records.put(rid, {**record, "left": True})
        return Change(resource=rid, steps=(step,), before=found.state, after=after)

    async def _forget(self, path: str, rid: str, *, apply: bool) -> None:
        if not apply:
            return
        # Looked for once it is gone: whoever lets go of one of them meanwhile leaves it to us, or we to them.
        gone = await self.disk.remove_empty(made_above(self.records, path))
        forgets: list[Any] = [self.records.forget(id_of_made_directory(each)) for each in gone]
        await asyncio.gather(self.records.forget(rid), *forgets)
