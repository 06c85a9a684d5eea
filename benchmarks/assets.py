"""``assets.*``: pieces of large files to the server, and from there to a device, against the bare calls.

Each round is an asset of 256 pieces, of noise. The floor puts pieces that are sealed already, each once the
one before is acknowledged; and gets each, and writes it to a file that is flushed. The last asset is cut in
the middle, both ways: what goes over the line after that is counted, against what is missing.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import attrs
from nats.js import JetStreamContext

from harmony_agent.bus.link import Link
from harmony_agent.bus.own_report import OwnReport
from harmony_agent.store.assets import AssetCache
from harmony_control.assets import read_asset
from harmony_control.assets.upload import upload
from harmony_control.bus.connection import Bucket
from harmony_core.change import NotReady
from harmony_core.errors import BusUnreachable
from harmony_core.resources import ASSET_MAX_BYTES, Asset
from harmony_core.wire.assets import CHUNK_BYTES, asset_id, chunk_count, chunk_key, key_prefix
from harmony_core.wire.names import ASSETS

from .bed import Bed
from .figures import Figure, Line, median
from .goals import line
from .rounds import Rounds

__all__ = ["ASSET_LINES", "assets"]

ASSET_LINES = ("assets.upload", "assets.fetch", "assets.upload.resumed", "assets.fetch.resumed")
_PIECES = ASSET_MAX_BYTES // CHUNK_BYTES
_DEVICE = "pi-1"
_FLOOR = "f.floor"
"""How the keys of a floor's pieces begin: no asset has such an id."""


@attrs.define
class _Source:
    """The device's connection, which counts what it fetches, and can be cut."""

    link: Link
    fetched: int = 0
    cut_after: int | None = None

    async def fetch_chunk(self, key: str) -> bytes | None:
        if self.fetched == self.cut_after:
            raise BusUnreachable("cut")
        self.fetched += 1
        return await self.link.fetch_chunk(key)


async def assets(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Ours and the floor's in turn, both ways; then what is missing after a cut."""
    await bed.bus.enrol(_DEVICE)
    device = await bed.bus.device(_DEVICE)
    link = Link(
        device.client,
        _DEVICE,
        key=device.report_key,
        own_report=OwnReport(device.report_key),
        ended=asyncio.Event(),
    )
    put_ms: tuple[list[float], list[float]] = ([], [])
    got_ms: tuple[list[float], list[float]] = ([], [])
    count = rounds.of(40)
    for _ in range(count):
        asset = await asyncio.to_thread(_make, bed.root)
        put_ms[0].append(await _timed_ms(upload(bed.bus.admin, [asset], [])))
        sealed = await _read_sealed(bed, asset)
        put_ms[1].append(await _timed_ms(_put(bed, sealed)))
        got_ms[0].append(await _timed_ms(_fetch(bed, _Source(link), asset)))
        got_ms[1].append(await _timed_ms(_get(device.client.jetstream(), bed.root)))
        await _forget(bed, asset)
    note = f"{count * _PIECES} pieces in {count} assets"
    yield line(ASSET_LINES[0], median(put_ms[0], "ms"), median(put_ms[1], "ms"), note=note)
    yield line(ASSET_LINES[1], median(got_ms[0], "ms"), median(got_ms[1], "ms"), note=note)
    asset = await asyncio.to_thread(_make, bed.root)
    await upload(bed.bus.admin, [asset], [])
    for number in range(_PIECES // 2):
        await Bucket(bed.bus.admin, ASSETS).erase(chunk_key(asset, number))
    before = await _written(bed)
    await upload(bed.bus.admin, [asset], [])
    yield line(ASSET_LINES[2], _pieces(await _written(bed) - before), _pieces(_PIECES // 2))
    fetched = await _fetch_with_a_cut(bed, link, asset)
    yield line(ASSET_LINES[3], _pieces(fetched), _pieces(_PIECES - _PIECES // 2))


def _make(root: Path) -> Asset:
    """Return an asset of noise, with a key."""
    path = root / "noise"
    path.write_bytes(os.urandom(ASSET_MAX_BYTES))
    return read_asset(path).model_copy(update={"key": os.urandom(32).hex()})


async def _timed_ms(work: Coroutine[Any, Any, object]) -> float:
    began_s = time.perf_counter()
    await work
    return (time.perf_counter() - began_s) * 1_000


async def _read_sealed(bed: Bed, asset: Asset) -> list[bytes]:
    bucket, sealed = Bucket(bed.bus.admin, ASSETS), list[bytes]()
    for number in range(chunk_count(asset)):
        entry = await bucket.get(chunk_key(asset, number))
        assert entry is not None
        sealed.append(entry.value)
    return sealed


async def _put(bed: Bed, sealed: Sequence[bytes]) -> None:
    stream = bed.bus.admin.jetstream()
    for number, each in enumerate(sealed):
        await stream.publish(f"$KV.{ASSETS}.{_FLOOR}.{number}", each)


async def _get(stream: JetStreamContext, root: Path) -> None:
    path = root / "got"
    for number in range(_PIECES):
        found = await stream.get_msg(
            f"KV_{ASSETS}", subject=f"$KV.{ASSETS}.{_FLOOR}.{number}", direct=True
        )
        await asyncio.to_thread(_append, path, found.data or b"")
    await asyncio.to_thread(path.unlink)


def _append(path: Path, piece: bytes) -> None:
    with path.open("ab") as file:
        file.write(piece)
        file.flush()
        os.fsync(file.fileno())


async def _fetch(bed: Bed, source: _Source, asset: Asset) -> None:
    """Have *asset* whole in a cache that has nothing of it, and take it away."""
    directory = bed.root / "assets"
    await _ask(directory, source, asset)
    await asyncio.to_thread(shutil.rmtree, directory)


async def _fetch_with_a_cut(bed: Bed, link: Link, asset: Asset) -> int:
    """Return how many pieces an agent fetches that starts anew, after one that was cut in the middle."""
    directory = bed.root / "assets"
    await _ask(directory, _Source(link, cut_after=_PIECES // 2), asset)
    source = _Source(link)
    await _ask(directory, source, asset)
    return source.fetched


async def _ask(directory: Path, source: _Source, asset: Asset) -> None:
    """Ask for *asset* until it is here, or *source* is cut."""
    cache = AssetCache(directory, source, most_bytes=2 * ASSET_MAX_BYTES)
    try:
        while cache.find(asset) is None and source.fetched != source.cut_after:
            try:
                await cache.fetch(asset, resource="file:/srv/noise")
            except NotReady:
                continue
    finally:
        await cache.close()


async def _written(bed: Bed) -> int:
    info = await bed.bus.admin.jetstream().stream_info(f"KV_{ASSETS}")
    return info.state.last_seq


async def _forget(bed: Bed, asset: Asset) -> None:
    bucket = Bucket(bed.bus.admin, ASSETS)
    await bucket.erase(f"{key_prefix(asset_id(asset))}.*")
    await bucket.erase(f"{_FLOOR}.*")


def _pieces(count: int) -> Figure:
    return Figure(count, 0, "pieces")
