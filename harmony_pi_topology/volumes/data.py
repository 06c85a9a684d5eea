"""The data of a volume, saved and replaced: so that nobody writes meanwhile, and nothing is half done.

    save:  recorded -> who has it is paused, or stopped -> read -> they go on -> recorded no more
    load:  looked through -> recorded -> extracted beside -> who has it is stopped
           -> the two directories are exchanged -> they are started, and stay up
           -> the previous data is deleted, or kept -> recorded no more

Which directory is there tells how far a load has come, whatever was being done when the agent was killed: its
number is in the record before it is exchanged. What was cut short before that is taken away, and what was cut
short later is finished, by `recover`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from harmony_core.errors import (
    ArchiveRefused,
    CapabilityError,
    CapabilityUnavailable,
    HarmonyError,
    LedgerUnusable,
    LoadTakenBack,
    TimedOut,
    VolumeBusy,
)
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import Container, resource_id
from harmony_core.volumes import ArchivedVolume, LoadedVolume, TellBytes
from harmony_pi_topology.common.worker import Worker
from harmony_pi_topology.containers.podman_reply import ENDED, FoundContainer
from harmony_pi_topology.containers.quiet import TRANSFER
from harmony_pi_topology.containers.spec import RESOURCE_LABEL
from harmony_pi_topology.posix.errors import translate_errors

from .archive import (
    Cut,
    Extent,
    count_bytes,
    exchange,
    extract,
    look_through,
    remove,
    write_archive,
)

__all__ = ["Settle", "VolumeData", "VolumeDisk", "VolumeHolders"]

log = logging.getLogger(__name__)

Settle: TypeAlias = Callable[[], Awaitable[None]]
P = ParamSpec("P")
T = TypeVar("T")

NEW, PREVIOUS = "harmony-new", "harmony-previous"
"""Beside the directory of the data; podman deletes them with the volume."""
_LOOKS_MOST = 5
"""So often somebody else may bring another container, before it is given up."""
_STAYS_UP_S = 3.0
_COMES_BACK_S = 1.5
"""Within it, podman starts again what it starts again at all."""
_LOOK_AGAIN_S = 0.25
_ANY_LENGTH_S = 86_400.0
_OURS_ALONE = (CapabilityUnavailable, TimedOut, LedgerUnusable)
"""What says that podman does not answer, or that nothing can be noted: it is tried again later."""


class VolumeHolders(Protocol):
    """What the rules need of podman."""

    async def find_place(self, volume: str) -> Path:
        """Return the directory of its data. `VolumeMissing`, `VolumeBusy` where that is mounted from
        elsewhere."""
        ...

    async def list_holders(self, volume: str) -> Sequence[FoundContainer]:
        """Return the containers that have it, running or not."""
        ...

    async def look(self, name: str) -> FoundContainer | None: ...

    async def pause(self, found: FoundContainer) -> None: ...

    async def stop(self, found: FoundContainer) -> None:
        """Return once it runs no more; it gets the time that it is given."""

    async def end(self, found: FoundContainer) -> None:
        """Return once it is ended, and stays so, also where podman was about to start it again."""

    async def start(self, found: FoundContainer) -> None:
        """Start it, or have it go on where it is paused."""


class VolumeDisk:
    """What blocks, in a thread. Each call can be repeated, and what it has done is on the disk."""

    def __init__(self) -> None:
        self._worker = Worker("volume data", threads=1, timeout_s=_ANY_LENGTH_S)

    async def count(self, place: Path) -> int:
        """Return how many bytes are in *place*; see `count_bytes`."""
        return await self._cut_short(count_bytes, place)

    async def write_archive(
        self, place: Path, into: Path, of_bytes: int, tell: TellBytes
    ) -> ArchivedVolume:
        """Write the content of *place* to an archive, and stop when the caller is cancelled; see
        `harmony_pi_topology.volumes.archive.write_archive`."""
        return await self._cut_short(write_archive, place, into, of_bytes, tell)

    async def look_through(self, archive: Path) -> Extent:
        """Return what *archive* contains, and stop when the caller is cancelled; see `look_through` of the
        archive module."""
        return await self._cut_short(look_through, archive)

    async def extract(self, archive: Path, into: Path, extent: Extent, like: Path) -> None:
        """Extract *archive*, and stop when the caller is cancelled; see `extract` of the archive module."""
        await self._cut_short(extract, archive, into, extent, like)

    async def exchange(self, one: Path, other: Path) -> None:
        """Exchange two directories of one parent, at one instant and durably."""
        await self._run(exchange, one, other)

    async def identify(self, path: Path) -> int | None:
        """Return the number of a directory; None where there is none."""
        return await self._run(_identify, path)

    async def rename(self, path: Path, name: str) -> None:
        """Rename it to *name*, if it is there."""
        await self._run(_rename, path, name)

    async def remove(self, path: Path) -> None:
        """Delete *path*, if it is there, with all that is in it, but not what is mounted there. Raise
        `WriteFailed`."""
        await self._run(remove, path)

    def close(self) -> None:
        """Accept no more calls."""
        self._worker.close()

    async def _run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._worker.run(func, *args, **kwargs)

    async def _cut_short(self, func: Callable[..., T], /, *args: Any) -> T:
        cut = Cut()
        try:
            return await self._worker.run(func, *args, cut)
        finally:
            cut.cut()


class VolumeData:
    """The verbs of `KeepsVolumeData`, over *holders* and a *disk*."""

    def __init__(
        self,
        holders: VolumeHolders,
        disk: VolumeDisk,
        records: Records,
        *,
        stays_up_s: float = _STAYS_UP_S,
        comes_back_s: float = _COMES_BACK_S,
    ) -> None:
        self._holders = holders
        self._disk = disk
        self._records = records
        self._stays_up_s = stays_up_s
        self._comes_back_s = comes_back_s
        self._one_at_a_time = asyncio.Lock()

    async def save(
        self, volume: str, into: Path, *, stop: bool, settle: Settle, tell: TellBytes
    ) -> ArchivedVolume:
        """Save *volume* to *into*; see `KeepsVolumeData.save_volume`."""
        async with self._alone():
            place = await self._holders.find_place(volume)
            of_bytes = await self._disk.count(place)
            record = _begin("save", volume, place, stop=stop)
            async with self._at_rest(record, settle) as rested:
                saved = await self._disk.write_archive(place, into, of_bytes, tell)
            try:
                await self._disk.look_through(into)
            except ArchiveRefused as error:
                raise ArchiveRefused(
                    f"what is in volume {volume} could be saved, but never loaded again: {error.message}"
                ) from error
            return ArchivedVolume(
                size_bytes=saved.size_bytes, sha256=saved.sha256, rested=tuple(sorted(rested))
            )

    async def load(
        self, volume: str, archive: Path, *, keep_previous: bool, settle: Settle
    ) -> LoadedVolume:
        """Load *archive* into *volume*; see `KeepsVolumeData.load_volume`."""
        async with self._alone():
            place = await self._holders.find_place(volume)
            extent = await self._disk.look_through(archive)
            holders = await self._holders.list_holders(volume)
            self._refuse_strangers([each for each in holders if each.alive], volume)
            new = place.with_name(NEW)
            record = {**_begin("load", volume, place, stop=True), "keep": keep_previous}
            await self._records.put(TRANSFER, record)
            try:
                await self._disk.remove(new)
                await self._disk.extract(archive, new, extent, place)
                record = {**record, "new": await self._disk.identify(new)}
                await self._records.put(TRANSFER, record)
                await self._bring_to_rest(settle)
                await self._disk.exchange(place, new)
            except Exception:
                if (loaded := await self._finish()) is None:
                    raise
                return loaded
            except BaseException:
                await self._finish()
                raise
            loaded = await self._finish()
            assert loaded is not None, "the directories were exchanged"
            return loaded

    async def recover(self) -> str:
        """Finish what was interrupted; see `KeepsVolumeData.recover_volumes`."""
        if self._records.get(TRANSFER) is None:
            return ""
        self._require_free()
        async with self._one_at_a_time:
            return await self._finish_recorded()

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Let nobody else do this within the block, and finish what an earlier one left undone."""
        self._require_free()
        async with self._one_at_a_time:
            if (record := self._records.get(TRANSFER)) is not None:
                try:
                    log.warning("%s", await self._finish_recorded())
                except HarmonyError as error:
                    raise VolumeBusy(
                        f"an earlier transfer, of volume {record['volume']}, is still to be finished, which "
                        f"is tried again and again: {error.message}; ask again once it is done"
                    ) from error
            yield

    def _require_free(self) -> None:
        if self._one_at_a_time.locked():
            raise VolumeBusy("another volume is being saved or loaded; ask again once it is done")

    async def _finish_recorded(self) -> str:
        """Finish what is recorded, at whatever step it is. Return the result; "" where nothing is
        recorded."""
        record = self._records.get(TRANSFER)
        if record is None:
            return ""
        volume = record["volume"]
        try:
            if record["op"] == "save":
                await self._wake()
                return f"volume {volume} was being saved: who has it goes on"
            loaded = await self._finish()
        except LoadTakenBack as error:
            return error.message
        if loaded is None:
            return f"volume {volume} was about to be loaded: it has its data from before"
        return f"volume {volume} was being loaded: it has its new data"

    @asynccontextmanager
    async def _at_rest(
        self, record: JsonRecord, settle: Settle
    ) -> AsyncGenerator[Mapping[str, Any]]:
        """Stop or pause those who have the volume, within the block. Raise `VolumeBusy` at its end if one of
        them ran."""
        await self._records.put(TRANSFER, record)
        try:
            rested = await self._bring_to_rest(settle)
            before = await self._list_facts(record["volume"])
            yield rested
            after = await self._list_facts(record["volume"])
            if stirred := sorted(name for name, fact in after.items() if before.get(name) != fact):
                raise VolumeBusy(
                    f"volume {record['volume']} was read while {', '.join(stirred)} ran or came to be; find "
                    "out who starts it, or stop it by hand meanwhile (podman stop), and ask again"
                )
        finally:
            await self._wake()

    async def _list_facts(self, volume: str) -> Mapping[str, object]:
        """Return, by the name of each holder, what changes whenever it runs."""
        return {
            each.name: (each.id, each.started_at, each.alive, each.status == "paused")
            for each in await self._holders.list_holders(volume)
            if each.status != "created"
        }

    async def _bring_to_rest(self, settle: Settle) -> Mapping[str, Any]:
        """Pause or stop those who have the volume, and record each before. Return who they are."""
        record = dict(self._records.get(TRANSFER) or {})
        volume, stop = record["volume"], record["stop"]
        rested: dict[str, str] = {}
        dormant: dict[str, object] = {}
        for _ in range(_LOOKS_MOST):
            # Whoever looks at it from now on leaves it alone; whoever has looked already comes to an end.
            await settle()
            awake: list[FoundContainer] = []
            for each in await self._holders.list_holders(volume):
                if each.alive:
                    if stop or each.status != "paused":
                        awake.append(each)
                elif _may_come_back(each) and dormant.get(each.id) != each.started_at:
                    if (now := await self._see_it_start(each)) is None:
                        dormant[each.id] = each.started_at
                    else:
                        awake.append(now)
            if not awake:
                return rested
            if stop:
                self._refuse_strangers(awake, volume)
            once_more = rested.keys() & {each.name for each in awake}
            rested |= {each.name: each.id for each in awake}
            record = {**record, "containers": dict(rested)}
            await self._records.put(TRANSFER, record)
            for each in awake:
                await self._rest(each, stop=stop, once_more=each.name in once_more)
        instead = "" if stop else "ask again with --stop, or "
        raise VolumeBusy(
            f"containers that have volume {volume} do not come to rest, since somebody starts them again and "
            f"again: {', '.join(sorted(rested))}; {instead}find out who, and ask again"
        )

    async def _see_it_start(self, found: FoundContainer) -> FoundContainer | None:
        """Return *found*, which has ended, once podman has started it again; None where it does not, or
        where it is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._comes_back_s
        while loop.time() < until:
            await asyncio.sleep(min(_LOOK_AGAIN_S, self._comes_back_s))
            now = await self._holders.look(found.name)
            if now is None or now.id != found.id:
                return None
            if now.alive or now.started_at != found.started_at:
                return now
        return None

    async def _rest(self, found: FoundContainer, *, stop: bool, once_more: bool) -> None:
        try:
            if not stop:
                await self._holders.pause(found)
            elif found.alive and not once_more:
                await self._holders.stop(found)
            else:
                # podman starts it again and again: a stop in between would be lost.
                await self._holders.end(found)
        except _OURS_ALONE:
            raise
        except CapabilityError as error:
            now = await self._holders.look(found.name)
            if now is None or now.id != found.id or not now.alive:
                return  # it has ended meanwhile
            raise VolumeBusy(
                f"{error.message}; ask again with --stop, or stop it by hand meanwhile"
            ) from error

    def _refuse_strangers(self, found: Sequence[FoundContainer], volume: str) -> None:
        """Raise `VolumeBusy` where one of these, which run, is not ours: it is not stopped."""
        theirs = sorted(each.name for each in found if not _is_ours(each))
        if theirs:
            raise VolumeBusy(
                f"volume {volume} is used by what Harmony did not make, and so does not stop: "
                f"{', '.join(theirs)}; stop it by hand (podman stop {theirs[0]}), and ask again"
            )

    async def _wake(self) -> None:
        """Start or resume those who were stopped or paused, then forget that anything was under way.

        Where podman does not answer, keep the record, and raise.
        """
        record = self._records.get(TRANSFER)
        if record is None:
            return
        for name, container_id in record["containers"].items():
            await self._start_again(name, container_id, stopped=record["stop"])
        await self._records.forget(TRANSFER)

    async def _start_again(self, name: str, container_id: str, *, stopped: bool) -> str:
        """Return why it does not start again; "" where it does, or is gone."""
        found = await self._holders.look(name)
        if found is None or found.id != container_id:
            return ""
        if found.status != "paused" and (found.alive or not stopped):
            return ""
        try:
            await self._holders.start(found)
        except _OURS_ALONE:
            raise
        except CapabilityError as error:
            log.warning("%s does not go on: %s", name, error.message)
            return error.message
        return ""

    async def _finish(self) -> LoadedVolume | None:
        """Finish a load at whatever step it is. Return None where nothing was exchanged."""
        record = self._records.get(TRANSFER)
        assert record is not None
        place = Path(record["place"])
        new = place.with_name(NEW)
        is_exchanged = record.get("new") is not None and (
            await self._disk.identify(place) == record["new"]
        )
        if not is_exchanged:
            await self._clear(new)
            await self._wake()
            return None
        if not record.get("up"):
            why_not = record.get("back") or await self._start_with_new()
            if why_not:
                await self._take_back({**record, "back": why_not}, place, new)
                raise LoadTakenBack(
                    f"volume {record['volume']} has its data from before: {why_not}"
                )
            await self._records.put(TRANSFER, {**record, "up": True})
        kept = await self._keep(new) if record["keep"] else None
        if kept is None:
            await self._clear(new)
        await self._records.forget(TRANSFER)
        return LoadedVolume(
            rested=tuple(sorted(record["containers"])),
            previous=str(kept) if kept is not None else "",
        )

    async def _keep(self, new: Path) -> Path:
        """Return where the data from before is kept: in place of what was kept earlier, where that can be
        deleted."""
        previous = new.with_name(PREVIOUS)
        if await self._disk.identify(new) is None:
            return previous  # it was done before
        if not await self._clear(previous):
            return new
        await self._disk.rename(new, PREVIOUS)
        return previous

    async def _clear(self, path: Path) -> bool:
        """Delete what is no longer needed. Return whether it is gone.

        Nobody waits for what cannot be deleted: the next load tries it again, or is refused.
        """
        try:
            await self._disk.remove(path)
        except HarmonyError as error:
            log.warning("what is left of a volume's load stays there: %s", error.message)
            return False
        return True

    async def _start_with_new(self) -> str:
        """Start those who were stopped, and check whether they stay up. Return why one does not."""
        record = self._records.get(TRANSFER)
        assert record is not None
        containers: Mapping[str, str] = record["containers"]
        for name, container_id in containers.items():
            if why := await self._start_again(name, container_id, stopped=True):
                return why
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._stays_up_s if containers else 0.0)
        begun: dict[str, object] = {}
        while True:
            for name, container_id in containers.items():
                found = await self._holders.look(name)
                if found is None or found.id != container_id:
                    continue
                if not found.running:
                    if found.exit_code == 0 and not found.alive:
                        continue  # it has done what it is for
                    return f"{name} has ended with the new data (exit code {found.exit_code})"
                if begun.setdefault(name, found.started_at) != found.started_at:
                    return f"{name} ends again and again with the new data"
            if loop.time() >= until:
                return ""
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _take_back(self, record: JsonRecord, place: Path, new: Path) -> None:
        """Restore the data from before. Record that first, so that it is not tried again in between."""
        await self._records.put(TRANSFER, record)
        for name, container_id in record["containers"].items():
            found = await self._holders.look(name)
            if found is not None and found.id == container_id:
                await self._holders.end(found)
        await self._disk.exchange(place, new)
        await self._clear(new)
        await self._wake()


def _begin(op: Literal["save", "load"], volume: str, place: Path, *, stop: bool) -> dict[str, Any]:
    return {"op": op, "volume": volume, "place": str(place), "stop": stop, "containers": {}}


def _is_ours(found: FoundContainer) -> bool:
    return found.labels.get(RESOURCE_LABEL) == resource_id(Container.resource_type, found.name)


def _may_come_back(found: FoundContainer) -> bool:
    """Return whether podman may start *found*, which does not run, again by itself."""
    if found.status not in ENDED or found.stopped_by_user or found.in_force is None:
        return False
    restart = found.in_force.restart or "no"
    return restart != "no" and not (restart == "on-failure" and found.exit_code == 0)


def _identify(path: Path) -> int | None:
    with translate_errors(str(path), doing="read"), suppress(FileNotFoundError):
        return os.lstat(path).st_ino
    return None


def _rename(path: Path, name: str) -> None:
    with translate_errors(str(path), doing="renamed"), suppress(FileNotFoundError):
        path.rename(path.with_name(name))
