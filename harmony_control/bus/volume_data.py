"""The data of a device's volumes, fetched and sent: in pieces, each sealed, over whatever cuts come between.

    save:  volume-save, until it is an archive -> volume-read, piece by piece -> its SHA-256 -> volume-end
    load:  volume-write, piece by piece -> volume-load, with its SHA-256, until it is done -> volume-end

One request is under way at a time, so that neither the device nor the bus has more than one piece to
carry. A request that is not answered is asked again: a piece has a place, and one that comes twice counts
once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import TypeAlias, TypeVar

import attrs

from harmony_core.errors import (
    BusUnreachable,
    HarmonyError,
    NoAnswer,
    RequestExpired,
    TooManyRequests,
    TransferDamaged,
)
from harmony_core.wire.envelope import SigningKey, VerifyKey, generate_key
from harmony_core.wire.replies import (
    JsonItem,
    VolumeArchived,
    VolumeLoaded,
    VolumePiece,
    VolumeProgress,
)
from harmony_core.wire.requests import (
    PIECE_MAX_BYTES,
    Ask,
    VolumeEnd,
    VolumeLoad,
    VolumeRead,
    VolumeSave,
    VolumeWrite,
)
from harmony_core.wire.sealed import open_box, seal_box

from .requests import Asking

__all__ = ["TellProgress", "VolumeSender", "VolumeTaker", "load_volume", "save_volume"]

TellProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is done, with how many bytes that has reached, and of how many; None where that is not
known."""
_PASSES = (NoAnswer, BusUnreachable, TooManyRequests, RequestExpired)
_AWAY_S = 120.0
"""So long the device, or the way to it, may be away; it keeps what it has for ten minutes."""
_ASK_AGAIN_S = 1.0
_PIECE_LIFETIME_S = 20.0
"""Very many are sent, and a device remembers each until it expires."""
T = TypeVar("T")


VolumeTaker: TypeAlias = Callable[[bytes], None]
"""Takes the next piece of an archive."""
VolumeSender: TypeAlias = Callable[[int, int], bytes]
"""Gives the piece that begins at an offset, of at most so many bytes; empty at the end."""


class _Patience:
    """How long what passes is asked again: from the last sign of life on."""

    def __init__(self, tell: TellProgress) -> None:
        self.tell = tell
        self._heard_at: float | None = None

    def heard(self) -> None:
        """Note that something has arrived."""
        self._heard_at = _now()

    async def rest(self, error: HarmonyError) -> None:
        """Wait a moment. Raise *error* where nothing was ever received, or not for too long."""
        if self._heard_at is None or _now() - self._heard_at > _AWAY_S:
            raise error
        await asyncio.sleep(_ASK_AGAIN_S)


async def save_volume(
    asking: Asking, volume: str, take: VolumeTaker, *, stop: bool, tell: TellProgress
) -> VolumeArchived:
    """Pass everything in *volume* to *take*, as a tar archive. Return what it was, once its SHA-256 is right;
    else raise `TransferDamaged`.

    With *stop*, stop the containers that have it meanwhile, which are otherwise paused. Raise as `Asking`
    does, and what the device refuses it with.
    """
    key, transfer = generate_key(), secrets.token_hex(16)
    seal_to = key.public.to_text()
    ask = VolumeSave(volume=volume, transfer=transfer, seal_to=seal_to, stop=stop)
    patience = _Patience(tell)
    try:
        archived = await _until_done(asking, ask, VolumeArchived, "reading the volume", patience)
        digest = await _fetch(asking, transfer, archived.size_bytes, key, take, patience)
    finally:
        await _end(asking, transfer)
    if digest != archived.sha256:
        raise TransferDamaged(
            f"what has come from {asking.agent_id} is not what it has sent, by its SHA-256; ask again"
        )
    return archived


async def load_volume(
    asking: Asking,
    volume: str,
    give: VolumeSender,
    *,
    of_bytes: int | None,
    keep_previous: bool,
    tell: TellProgress,
) -> VolumeLoaded:
    """Replace the content of *volume* by what *give* returns, a tar archive, of *of_bytes* if that is known.

    Until the device has all of it, unchanged, nothing is touched there. Raise as `Asking` does, and what the
    device refuses it with.
    """
    transfer, patience = secrets.token_hex(16), _Patience(tell)
    key = VerifyKey.from_text(await asking.find_key())
    digest, offset = hashlib.sha256(), 0
    try:
        while True:
            piece = await asyncio.to_thread(give, offset, PIECE_MAX_BYTES)
            if not piece and offset:
                break
            ask = VolumeWrite(
                volume=volume, transfer=transfer, offset=offset, box=seal_box(piece, key)
            )
            await _send(asking, ask, offset + len(piece), patience)
            digest.update(piece)
            offset += len(piece)
            tell("sending", offset, of_bytes)
            if not piece:
                break
        load = VolumeLoad(
            volume=volume,
            transfer=transfer,
            size_bytes=offset,
            sha256=digest.hexdigest(),
            keep_previous=keep_previous,
        )
        return await _until_done(asking, load, VolumeLoaded, "replacing the data", patience)
    finally:
        await _end(asking, transfer)


async def _until_done(asking: Asking, ask: Ask, cls: type[T], what: str, patience: _Patience) -> T:
    """Ask again and again, until it is done. Return the item that says so."""
    wanted = {each.name for each in attrs.fields(cls)}  # type: ignore[arg-type]  # one of ours
    while True:
        try:
            async with aclosing(asking.items(ask)) as items:
                async for item in items:
                    patience.heard()
                    if "done_bytes" not in item and wanted & item.keys():
                        return asking.read(cls, item)
                    progress = asking.read(VolumeProgress, item)
                    patience.tell(what, progress.done_bytes, progress.of_bytes)
        except _PASSES as error:
            await patience.rest(error)


async def _fetch(
    asking: Asking,
    transfer: str,
    size_bytes: int,
    key: SigningKey,
    take: VolumeTaker,
    patience: _Patience,
) -> str:
    """Pass all pieces to *take*, in order. Return the SHA-256 of what came."""
    digest, offset = hashlib.sha256(), 0
    while offset < size_bytes:
        before = offset
        try:
            read = VolumeRead(transfer=transfer, offset=offset)
            async with aclosing(asking.items(read)) as items:
                async for item in items:
                    patience.heard()
                    piece = _open(asking, item, offset, size_bytes, key)
                    await asyncio.to_thread(take, piece)
                    digest.update(piece)
                    offset += len(piece)
                    patience.tell("fetching", offset, size_bytes)
        except _PASSES as error:
            await patience.rest(error)
        else:
            if offset == before:
                raise TransferDamaged(
                    f"{asking.agent_id} has only {offset} bytes of an archive of {size_bytes}; ask again"
                )
    return digest.hexdigest()


def _open(asking: Asking, item: JsonItem, offset: int, size_bytes: int, key: SigningKey) -> bytes:
    found = asking.read(VolumePiece, item)
    try:
        piece = open_box(found.box, key)
    except ValueError as error:
        raise TransferDamaged(
            f"a piece of what {asking.agent_id} sends does not open with the key made for it; ask again"
        ) from error
    if found.offset != offset or not piece or offset + len(piece) > size_bytes:
        raise TransferDamaged(
            f"{asking.agent_id} sends a piece of another place than was asked for; ask again"
        )
    return piece


async def _send(asking: Asking, ask: VolumeWrite, have_bytes: int, patience: _Patience) -> None:
    """Send one piece, and again where no answer comes; the device has *have_bytes* then."""
    while True:
        try:
            async with aclosing(asking.items(ask, lifetime_s=_PIECE_LIFETIME_S)) as items:
                told = [asking.read(VolumeProgress, item) async for item in items]
        except _PASSES as error:
            await patience.rest(error)
            continue
        patience.heard()
        if [each.done_bytes for each in told] != [have_bytes]:
            raise TransferDamaged(
                f"{asking.agent_id} has not taken in what was sent to it; ask again"
            )
        return


async def _end(asking: Asking, transfer: str) -> None:
    """Have the device delete what it has of the transfer; later it does so by itself."""
    with suppress(HarmonyError):
        async with aclosing(asking.items(VolumeEnd(transfer=transfer))) as items:
            async for _ in items:
                pass


def _now() -> float:
    return asyncio.get_running_loop().time()
