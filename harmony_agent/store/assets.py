"""Assets on the device: fetched in pieces, kept as files, and gone when nothing that counts needs them.

    asked for -> here whole? -> room made, and looked for
                             -> one piece after the other: fetched, opened, flushed
                             -> the hash of the whole -> its name -> asked for again: here

A piece that is here is not fetched again, whatever was cut in between: an agent that starts anew goes on
behind it. One asset is fetched at a time, and one piece of it is in memory. What nobody has asked for in
a while is not fetched any further.

    <sha256>         whole: it had this hash when it got its name
    <sha256>.part    the pieces so far
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import attrs

from harmony_agent.clock import monotonic_s
from harmony_core.change import NotReady, Progress
from harmony_core.errors import (
    AssetDamaged,
    AssetMissing,
    AssetsFull,
    BusUnreachable,
    CapabilityError,
    WriteFailed,
)
from harmony_core.resources import Asset
from harmony_core.wire.assets import CHUNK_BYTES, asset_id, chunk_count, chunk_key, open_chunk
from harmony_pi_topology.common.worker import Worker

from .flushing import flush_directory, make_directory

__all__ = ["AssetCache", "ChunkSource"]

log = logging.getLogger(__name__)

_WITHIN_S = 30.0
_ASKED_WAITS_S = 1.0
_ABANDONED_AFTER_S = 60.0
_LOOK_AGAIN_S = 1.0
_CONNECTED_AGAIN_S = 5.0
_LEFT_FREE_BYTES = 32 * 1024 * 1024
"""Of the disk, for everything else that the device writes."""
_PART = ".part"


class ChunkSource(Protocol):
    """Where pieces come from: `harmony_agent.bus.connection.Bus`."""

    async def fetch_chunk(self, key: str) -> bytes | None:
        """Return that piece; None where there is none. `BusUnreachable`."""
        ...


@attrs.define(eq=False)
class _Fetch:
    """One asset on its way."""

    asset: Asset
    task: asyncio.Task[None]
    asked_at_s: float
    done_bytes: int = 0

    def progress(self) -> Progress:
        return Progress(done=self.done_bytes, total=self.asset.size_bytes, unit="bytes")


class AssetCache:
    """`harmony_core.assets.Assets` in *directory*, of at most *most_bytes* in all, filled from *source*."""

    def __init__(self, directory: Path, source: ChunkSource, *, most_bytes: int) -> None:
        self._directory = directory
        self._source = source
        self._most_bytes = most_bytes
        self._worker = Worker("assets", threads=1, timeout_s=_WITHIN_S)
        self._one_at_a_time = asyncio.Lock()
        self._fetches: dict[str, _Fetch] = {}
        self._is_empty: bool | None = None
        self.find_needed: Callable[[], Collection[str] | None] = lambda: None
        """Returns the hashes of what must stay; None where that is not known now."""

    async def fetch(self, asset: Asset, *, resource: str) -> None:
        """As `Assets.fetch`."""
        asset_id(asset)
        if self.find(asset) is not None:
            return
        fetch = self._fetches.get(asset.sha256)
        if fetch is None:
            fetch = self._begin(asset)
        fetch.asked_at_s = monotonic_s()
        await asyncio.wait({fetch.task}, timeout=_ASKED_WAITS_S)
        if not fetch.task.done():
            raise _fetching(fetch, resource, "fetching", _LOOK_AGAIN_S)
        # What became of it is told once; who asks then begins anew.
        if self._fetches.get(asset.sha256) is fetch:
            del self._fetches[asset.sha256]
        try:
            fetch.task.result()
        except asyncio.CancelledError:
            raise _fetching(fetch, resource, "fetching", _LOOK_AGAIN_S) from None
        except BusUnreachable as error:
            waits = "waiting for the control plane to go on fetching"
            raise _fetching(fetch, resource, waits, _CONNECTED_AGAIN_S, error.message) from None
        except CapabilityError as error:
            error.resource = resource
            raise

    def find(self, asset: Asset) -> Path | None:
        """As `Assets.find`."""
        path = self._path(asset.sha256)
        try:
            return path if path.stat().st_size == asset.size_bytes else None
        except OSError:
            return None

    async def drop(self, asset: Asset) -> None:
        """As `Assets.drop`."""
        await self._worker.run(self._remove, [asset.sha256])

    async def collect(self) -> None:
        """Remove what no generation that counts needs."""
        if self._is_empty or (needed := self.find_needed()) is None:
            return
        self._fetches = {
            sha256: each for sha256, each in self._fetches.items() if not _is_over(each)
        }
        under_way = (sha256 for sha256, each in self._fetches.items() if not each.task.done())
        try:
            await self._worker.run(self._collect, {*needed, *under_way})
        except CapabilityError as error:
            log.warning("assets that nobody needs are not removed: %s", error.message)

    async def close(self) -> None:
        """End what is being fetched; the pieces that are here stay."""
        tasks = [each.task for each in self._fetches.values()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._worker.close()

    def _begin(self, asset: Asset) -> _Fetch:
        task = asyncio.create_task(self._fetch(asset), name=f"asset {asset.sha256[:12]}")
        task.add_done_callback(_note_seen)
        fetch = self._fetches[asset.sha256] = _Fetch(asset, task, monotonic_s())
        return fetch

    async def _fetch(self, asset: Asset) -> None:
        async with self._one_at_a_time:
            fetch = self._fetches[asset.sha256]
            await self.collect()
            self._is_empty = False
            done = await self._worker.run(self._make_ready, asset)
            fetch.done_bytes = done * CHUNK_BYTES
            for number in range(done, chunk_count(asset)):
                if _is_abandoned(fetch):
                    raise asyncio.CancelledError
                sealed = await self._source.fetch_chunk(chunk_key(asset, number))
                if sealed is None:
                    raise AssetMissing(
                        f"piece {number} of {asset.summary} is not on the server; push its Score again from "
                        "where the file is"
                    )
                plain = open_chunk(asset, number, sealed)
                await self._worker.run(self._append, asset, number, plain)
                fetch.done_bytes += len(plain)
            await self._worker.run(self._give_name, asset)

    # From here on in a thread.

    def _make_ready(self, asset: Asset) -> int:
        """Return how many pieces are here, and that there is room for the others."""
        part = self._path(asset.sha256, _PART)
        try:
            make_directory(self._directory)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                # The last one may be whole or torn: both are fetched again at no great cost.
                done = min(os.fstat(descriptor).st_size // CHUNK_BYTES, chunk_count(asset) - 1)
                os.ftruncate(descriptor, done * CHUNK_BYTES)
            finally:
                os.close(descriptor)
            missing_bytes = asset.size_bytes - done * CHUNK_BYTES
            used_bytes = sum(each.stat().st_size for each in self._directory.iterdir())
            disk = os.statvfs(self._directory)
        except OSError as error:
            raise self._make_write_failed(asset, error) from error
        if used_bytes + missing_bytes > self._most_bytes:
            raise AssetsFull(
                f"{asset.summary}: the {used_bytes} bytes of assets that are needed here leave no room for "
                f"it within {self._most_bytes // 1024**2} MiB; raise assets_max_mib in agent.toml, or have "
                "this device need fewer"
            )
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < missing_bytes + _LEFT_FREE_BYTES:
            raise AssetsFull(
                f"{asset.summary}: {free_bytes} bytes are free on the disk of {self._directory}, and "
                f"{missing_bytes + _LEFT_FREE_BYTES} are needed; make room there"
            )
        return done

    def _append(self, asset: Asset, number: int, plain: bytes) -> None:
        try:
            descriptor = os.open(
                self._path(asset.sha256, _PART), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            try:
                left, at = memoryview(plain), number * CHUNK_BYTES
                while left:
                    written = os.pwrite(descriptor, left, at)
                    left, at = left[written:], at + written
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._make_write_failed(asset, error) from error

    def _give_name(self, asset: Asset) -> None:
        part = self._path(asset.sha256, _PART)
        digest = hashlib.sha256()
        try:
            with part.open("rb") as file:
                while block := file.read(CHUNK_BYTES):
                    digest.update(block)
            if digest.hexdigest() == asset.sha256:
                part.rename(self._path(asset.sha256))
                flush_directory(self._directory)
                return
            part.unlink()
        except OSError as error:
            raise self._make_write_failed(asset, error) from error
        raise AssetDamaged(
            f"{asset.summary}: all its pieces are here, and together they are something else; it is fetched "
            "again from the start. If that does not help, push it again from its file"
        )

    def _collect(self, needed: Collection[str]) -> None:
        try:
            names = {each.name.removesuffix(_PART) for each in self._directory.iterdir()}
        except FileNotFoundError:
            names = set[str]()
        except OSError as error:
            raise WriteFailed(f"{self._directory} cannot be read: {error.strerror}") from error
        self._remove(sorted(names - set(needed)))
        self._is_empty = not names and not self._fetches

    def _remove(self, hashes: Collection[str]) -> None:
        try:
            for each in hashes:
                self._path(each).unlink(missing_ok=True)
                self._path(each, _PART).unlink(missing_ok=True)
        except OSError as error:
            raise WriteFailed(
                f"what is in {self._directory} cannot be removed: {error.strerror}; look at the disk"
            ) from error

    def _path(self, sha256: str, suffix: str = "") -> Path:
        return self._directory / f"{sha256}{suffix}"

    def _make_write_failed(self, asset: Asset, error: OSError) -> WriteFailed:
        return WriteFailed(
            f"{asset.summary} could not be kept in {self._directory}: {error.strerror}; look at the disk"
        )


def _fetching(
    fetch: _Fetch, resource: str, doing: str, look_again_s: float, why: str = ""
) -> NotReady:
    return NotReady(
        f"{doing} {fetch.asset.name}{f' ({why})' if why else ''}",
        resource=resource,
        reason="Progressing",
        progress=fetch.progress(),
        look_again_s=look_again_s,
    )


def _is_abandoned(fetch: _Fetch) -> bool:
    return monotonic_s() - fetch.asked_at_s > _ABANDONED_AFTER_S


def _is_over(fetch: _Fetch) -> bool:
    return fetch.task.done() and _is_abandoned(fetch)


def _note_seen(task: asyncio.Task[None]) -> None:
    # Perhaps nobody asks any more what became of it.
    if not task.cancelled():
        task.exception()
