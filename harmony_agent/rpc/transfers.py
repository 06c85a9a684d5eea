"""Archives of volumes on their way to an operator, or from one: kept in files of the device meanwhile.

    save:  policy -> the volume's archive, in the spool -> read in pieces, each sealed to who asked -> deleted
    load:  policy -> written in pieces, each sealed to this device -> SHA-256 -> into the volume -> deleted

The spool is for root alone, and empty at each start of the agent. What nobody has asked for in
`KEPT_FOR_S` is deleted. What is begun goes on when who asked has gone; asked again by its number, it is told
how far it is. Of what is sent, no more than one answer is in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, assert_never

import attrs

from harmony_agent.plan.device import find_reconciler
from harmony_agent.store.ledger import Ledger
from harmony_core.change import Change
from harmony_core.errors import (
    HarmonyError,
    InvalidRequest,
    LoadTakenBack,
    NoRoom,
    RequestFailed,
    TransferDamaged,
    UnknownTransfer,
    VolumeBusy,
    WriteFailed,
)
from harmony_core.reconciler import Offers
from harmony_core.resources import Volume, resource_id
from harmony_core.room import ROOM_KEPT_BYTES
from harmony_core.steps import LoadedData, SavedData, Step
from harmony_core.volumes import ArchivedVolume, KeepsVolumeData, LoadedVolume
from harmony_core.wire.envelope import SigningKey, VerifyKey
from harmony_core.wire.replies import (
    JsonItem,
    VolumeArchived,
    VolumeLoaded,
    VolumePiece,
    VolumeProgress,
    to_item,
)
from harmony_core.wire.requests import (
    PIECE_MAX_BYTES,
    READ_MAX_BYTES,
    VolumeEnd,
    VolumeLoad,
    VolumeRead,
    VolumeSave,
    VolumeWrite,
)
from harmony_core.wire.sealed import open_box, seal_box

__all__ = ["KEPT_FOR_S", "RecordRequest", "VolumeTransfers"]

log = logging.getLogger(__name__)

KEPT_FOR_S = 600.0
"""Nobody has asked for it in so long: it is deleted."""
TRANSFERS_MOST = 4
TOLD_FOR_S = 30.0
"""Who asks how far one is, hears of it for so long, and asks again."""
_TOLD_EVERY_S = 0.5
_FRAME_BYTES = 32 * 1024
"""Of one piece that is read: sealed and in base64 it has to be smaller than a frame."""
_HASHED_BYTES = 1024 * 1024
_RECOVERED_AGAIN_S = 5.0

TransferAsk: TypeAlias = VolumeSave | VolumeRead | VolumeWrite | VolumeLoad | VolumeEnd
RecordRequest: TypeAlias = Callable[[str, Change, Sequence[str]], None]


@attrs.define(eq=False, kw_only=True)
class _Transfer:
    """One, from its first request to its last."""

    id: str
    op: Literal["save", "load"]
    volume: str
    keyids: frozenset[str]
    """Who has begun it: nobody else goes on with it."""
    path: Path
    seal_to: VerifyKey | None = None
    done_bytes: int = 0
    of_bytes: int | None = None
    task: asyncio.Task[ArchivedVolume | LoadedVolume] | None = None
    expiry: asyncio.TimerHandle | None = None
    order: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    """Of two pieces that come at once, the second waits."""

    def tell(self, done_bytes: int, of_bytes: int) -> None:
        self.done_bytes, self.of_bytes = done_bytes, of_bytes


class VolumeTransfers:
    """Those of one device, in the directory *spool*.

    *permit* raises where these keys may not have the data of this volume. *settle* is that of
    `KeepsVolumeData`. *aside* calls what blocks, in a thread. *record* notes who has asked for what.
    """

    def __init__(
        self,
        *,
        offers: Offers,
        ledger: Ledger,
        spool: Path,
        key: SigningKey,
        permit: Callable[[str, Sequence[str]], None],
        settle: Callable[[], Awaitable[None]],
        aside: Callable[..., Awaitable[Any]],
        record: RecordRequest,
        kept_for_s: float = KEPT_FOR_S,
    ) -> None:
        self._offers = offers
        self._ledger = ledger
        self._spool = spool
        self._key = key
        self._permit = permit
        self._settle = settle
        self._aside = aside
        self._record = record
        self._kept_for_s = kept_for_s
        self._transfers: dict[str, _Transfer] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_recovering = False

    async def recover(self) -> None:
        """Finish what the last agent has begun, as soon as podman answers, and delete what it has left.

        Call this once, before any other method.
        """
        await self._aside(_empty, self._spool)
        await self._recover()

    async def close(self) -> None:
        """Give up what is under way, and resume what was paused or stopped for it."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def of(self, ask: TransferAsk, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        """Yield the items of the answer to *ask*, signed by *keyids*."""
        match ask:
            case VolumeSave():
                answer = self._save(ask, keyids)
            case VolumeRead():
                answer = self._read(ask, keyids)
            case VolumeWrite():
                answer = self._write(ask, keyids)
            case VolumeLoad():
                answer = self._load(ask, keyids)
            case VolumeEnd():
                answer = self._end(ask, keyids)
            case _:
                assert_never(ask)
        return answer

    async def _save(self, ask: VolumeSave, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        self._permit(ask.volume, keyids)
        host = self._require_host()
        seal_to = VerifyKey.from_text(ask.seal_to)
        if ask.transfer not in self._transfers:
            await self._begin(ask.transfer, "save", ask.volume, keyids)
        transfer = self._find(ask.transfer, "save", ask.volume, keyids)
        if transfer.task is None:  # of two that ask at once, the first
            transfer.seal_to = seal_to
            transfer.task = self._begin_task(self._archive(host, transfer, stop=ask.stop))
        async for item in self._follow(transfer):
            yield item

    async def _archive(
        self, host: KeepsVolumeData, transfer: _Transfer, *, stop: bool
    ) -> ArchivedVolume:
        saved = await host.save_volume(
            transfer.volume, transfer.path, stop=stop, settle=self._settle, tell=transfer.tell
        )
        self._note(transfer, SavedData(transfer.volume, saved.size_bytes))
        return saved

    async def _read(self, ask: VolumeRead, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        transfer = self._find(ask.transfer, "save", None, keyids)
        self._permit(transfer.volume, keyids)
        if transfer.task is None or not transfer.task.done() or transfer.seal_to is None:
            raise InvalidRequest(f"transfer {ask.transfer} has no archive yet; wait for it")
        for offset in range(ask.offset, ask.offset + READ_MAX_BYTES, _FRAME_BYTES):
            piece: bytes = await self._aside(_read_at, transfer.path, offset)
            if not piece:
                return
            yield to_item(VolumePiece(offset=offset, box=seal_box(piece, transfer.seal_to)))

    async def _write(self, ask: VolumeWrite, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        self._permit(ask.volume, keyids)
        self._require_host()
        if ask.transfer not in self._transfers and ask.offset == 0:
            await self._begin(ask.transfer, "load", ask.volume, keyids)
        transfer = self._find(ask.transfer, "load", ask.volume, keyids)
        async with transfer.order:
            await self._add(transfer, ask)
        yield to_item(VolumeProgress(done_bytes=transfer.done_bytes))

    async def _add(self, transfer: _Transfer, ask: VolumeWrite) -> None:
        if transfer.task is not None:
            raise InvalidRequest(
                f"transfer {transfer.id} is being loaded; nothing is added any more"
            )
        if ask.offset > transfer.done_bytes:
            raise InvalidRequest(
                f"offset: {ask.offset} leaves out what comes after {transfer.done_bytes}; send that first"
            )
        try:
            piece = open_box(ask.box, self._key)
        except ValueError as error:
            raise TransferDamaged(
                "a piece does not open with this device's key; was it let in anew? begin again"
            ) from error
        if len(piece) > PIECE_MAX_BYTES:
            raise InvalidRequest(f"box: a piece has at most {PIECE_MAX_BYTES} bytes")
        if ask.offset < transfer.done_bytes:
            return  # it has come before, and its answer was lost
        await self._aside(_append, transfer.path, ask.offset, piece)
        transfer.done_bytes += len(piece)

    async def _load(self, ask: VolumeLoad, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        self._permit(ask.volume, keyids)
        host = self._require_host()
        transfer = self._find(ask.transfer, "load", ask.volume, keyids)
        if transfer.task is None:
            async with transfer.order:
                if transfer.task is None:
                    transfer.task = self._begin_task(self._put_in(host, transfer, ask))
        async for item in self._follow(transfer):
            yield item

    async def _put_in(
        self, host: KeepsVolumeData, transfer: _Transfer, ask: VolumeLoad
    ) -> LoadedVolume:
        size_bytes, sha256 = await self._aside(_hash, transfer.path)
        if (size_bytes, sha256) != (ask.size_bytes, ask.sha256):
            raise TransferDamaged(
                f"what has arrived ({size_bytes} bytes) is not what was sent ({ask.size_bytes} bytes), by "
                "its SHA-256; begin again"
            )
        try:
            loaded = await host.load_volume(
                transfer.volume, transfer.path, keep_previous=ask.keep_previous, settle=self._settle
            )
        except LoadTakenBack:
            self._note(transfer, LoadedData(transfer.volume, size_bytes, taken_back=True))
            raise
        self._note(transfer, LoadedData(transfer.volume, size_bytes, loaded.previous))
        return loaded

    async def _end(self, ask: VolumeEnd, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        if ask.transfer in self._transfers:
            transfer = self._find(ask.transfer, None, None, keyids)
            if transfer.task is not None and not transfer.task.done() and transfer.op == "save":
                transfer.task.cancel()
                await asyncio.wait({transfer.task})
            await self._forget(transfer)
        nothing: Sequence[JsonItem] = ()
        for item in nothing:
            yield item

    async def _follow(self, transfer: _Transfer) -> AsyncGenerator[JsonItem]:
        """Report the progress, for a while; and the result, once there is one."""
        task = transfer.task
        assert task is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + TOLD_FOR_S
        while not task.done() and loop.time() < until:
            yield to_item(
                VolumeProgress(done_bytes=transfer.done_bytes, of_bytes=transfer.of_bytes)
            )
            await asyncio.wait({task}, timeout=_TOLD_EVERY_S)
        if not task.done():
            return
        if task.cancelled() or task.exception() is not None:
            await self._forget(transfer)
        if task.cancelled():
            raise UnknownTransfer(f"transfer {transfer.id} was given up; begin again")
        match task.result():
            case ArchivedVolume() as saved:
                yield to_item(
                    VolumeArchived(
                        size_bytes=saved.size_bytes, sha256=saved.sha256, rested=saved.rested
                    )
                )
            case LoadedVolume() as loaded:
                yield to_item(VolumeLoaded(rested=loaded.rested, previous=loaded.previous))

    def _require_host(self) -> KeepsVolumeData:
        reconciler: object = find_reconciler(self._offers, Volume.resource_type)
        if not isinstance(reconciler, KeepsVolumeData):
            raise RequestFailed(
                "the data of volumes cannot be read or replaced here: podman is not installed on this device"
            )
        return reconciler

    async def _begin(
        self, transfer_id: str, op: Literal["save", "load"], volume: str, keyids: Sequence[str]
    ) -> None:
        """Record it, once there is a place for it; do nothing where another one has that number by then."""
        await self._aside(_make_directory, self._spool)
        if transfer_id in self._transfers:
            return
        if len(self._transfers) >= TRANSFERS_MOST:
            raise VolumeBusy(
                f"{TRANSFERS_MOST} volumes are on their way already; ask again in a moment"
            )
        path = self._spool / f"{transfer_id}.tar"
        made = _Transfer(id=transfer_id, op=op, volume=volume, keyids=frozenset(keyids), path=path)
        self._transfers[transfer_id] = made
        self._touch(made)

    def _find(
        self,
        transfer_id: str,
        op: Literal["save", "load"] | None,
        volume: str | None,
        keyids: Sequence[str],
    ) -> _Transfer:
        """Return what is under way by that number. Raise `UnknownTransfer`, also where it is somebody
        else's."""
        found = self._transfers.get(transfer_id)
        if (
            found is None
            or op not in {None, found.op}
            or volume not in {None, found.volume}
            or not found.keyids & set(keyids)
        ):
            raise UnknownTransfer(
                f"there is no transfer {transfer_id} here (any more): its agent was started anew, or nobody "
                f"asked for it in {self._kept_for_s:g} s; begin again"
            )
        self._touch(found)
        return found

    def _touch(self, transfer: _Transfer) -> None:
        if transfer.expiry is not None:
            transfer.expiry.cancel()
        loop = asyncio.get_running_loop()
        transfer.expiry = loop.call_later(self._kept_for_s, self._expire, transfer)

    def _expire(self, transfer: _Transfer) -> None:
        if transfer.task is not None and not transfer.task.done():
            self._touch(transfer)
        else:
            self._begin_task(self._forget(transfer))

    async def _forget(self, transfer: _Transfer) -> None:
        if transfer.expiry is not None:
            transfer.expiry.cancel()
        self._transfers.pop(transfer.id, None)
        await self._aside(_delete, transfer.path)

    def _begin_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name="volume transfer")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.info("a volume's transfer has ended: %s", error)
        if not self._is_recovering:
            # Whatever it was, who was paused or stopped may still have to go on.
            self._begin_task(self._recover())

    async def _recover(self) -> None:
        self._is_recovering = True
        try:
            while isinstance(host := self._find_host(), KeepsVolumeData):
                try:
                    if said := await host.recover_volumes():
                        log.warning("%s", said)
                    return
                except HarmonyError as error:
                    log.info("what is left of a volume's transfer waits: %s", error)
                except Exception:
                    # What nobody has thought of must not leave containers at rest for good.
                    log.exception("what is left of a volume's transfer could not be finished")
                await asyncio.sleep(_RECOVERED_AGAIN_S)
        finally:
            self._is_recovering = False

    def _find_host(self) -> object:
        return find_reconciler(self._offers, Volume.resource_type)

    def _note(self, transfer: _Transfer, step: Step) -> None:
        volume = resource_id(Volume.resource_type, transfer.volume)
        score = min(self._ledger.holders(volume), default="")
        change = Change(resource=volume, steps=(step,))
        self._record(score, change, sorted(transfer.keyids))


def _empty(spool: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(spool)


def _make_directory(spool: Path) -> None:
    try:
        spool.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"{spool} could not be made: {error.strerror}; make room there"
        ) from error


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _read_at(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(_FRAME_BYTES)
    except OSError as error:
        raise UnknownTransfer(
            f"the archive cannot be read any more: {error.strerror}; begin again"
        ) from error


def _append(path: Path, offset: int, piece: bytes) -> None:
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < len(piece) + ROOM_KEPT_BYTES:
        raise NoRoom(
            f"after {offset / 1e6:.1f} MB of the archive, the disk of {path.parent} has no more than "
            f"{ROOM_KEPT_BYTES / 1e6:.1f} MB left, which stay free; free as much as is still to come, and "
            "begin again"
        )
    try:
        at = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        # Buffered: on a disk that is nearly full, a single write may take in less than it was given.
        with open(at, "wb") as file:  # noqa: PTH123 - it is open already
            file.seek(offset)
            file.truncate()
            file.write(piece)
    except OSError as error:
        raise WriteFailed(
            f"{path} could not be written: {error.strerror}; make room there"
        ) from error


def _hash(path: Path) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_HASHED_BYTES):
                digest.update(piece)
                size_bytes += len(piece)
    except OSError as error:
        raise UnknownTransfer(
            f"the archive cannot be read any more: {error.strerror}; begin again"
        ) from error
    return size_bytes, digest.hexdigest()
