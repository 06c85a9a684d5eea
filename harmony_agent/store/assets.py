"""Assets and downloads on the device: fetched, kept as files, and gone when nothing that counts needs them.

    asked for -> here whole? -> room made, and looked for
                             -> of an asset one piece after the other: fetched, opened, flushed
                             -> a download from a bundle that is at hand, else as `.downloads` has it
                             -> the hash of the whole -> its name -> asked for again: here

A piece that is here is not fetched again, whatever was cut in between: an agent that starts anew goes on
behind it. One asset is fetched at a time, and one piece of it is in memory. What nobody has asked for in
a while is not fetched any further. `.asset_files` has what is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from harmony_agent.clock import monotonic_s
from harmony_core.change import NotReady, Progress
from harmony_core.errors import (
    AssetDamaged,
    AssetMissing,
    BusUnreachable,
    CapabilityError,
    DownloadFailed,
    DownloadRefused,
)
from harmony_core.resources import Asset, Download
from harmony_core.wire.assets import CHUNK_BYTES, asset_id, chunk_count, chunk_key, open_chunk
from harmony_pi_topology.common.worker import Worker

from .asset_files import AssetFiles

if TYPE_CHECKING:
    from .downloads import Downloads

__all__ = ["AssetCache", "ChunkSource", "Nearby"]

log = logging.getLogger(__name__)

_WITHIN_S = 30.0
_HASHED_BYTES_PER_S = 8 * 1024 * 1024
"""At least, where much is read at once: what images consist of may be large."""
_ASKED_WAITS_S = 1.0
_ABANDONED_AFTER_S = 60.0
_LOOK_AGAIN_S = 1.0
_ASKED_AGAIN_WITHIN_S = 5.0
_CONNECTED_AGAIN_S = 5.0


class ChunkSource(Protocol):
    """Where pieces come from: `harmony_agent.bus.connection.Bus`."""

    async def fetch_chunk(self, key: str) -> bytes | None:
        """Return that piece; None where there is none. `BusUnreachable`."""
        ...


class Nearby(Protocol):
    """Where downloads are looked for before the web is asked: `harmony_agent.store.at_hand.AtHand`."""

    def find_download(self, sha256: str) -> int | None:
        """Return how many bytes the download with that hash has; None where it is not here."""
        ...

    async def read_download(self, sha256: str, begin: int, size_bytes: int) -> bytes:
        """Return so many bytes of one that was found. Raise `BusUnreachable` where it is no longer here."""
        ...


@attrs.define(eq=False)
class _Fetch:
    """One content on its way."""

    content: Asset | Download
    place: object
    """From where it comes."""
    asked_at_s: float
    total_bytes: int | None
    make_room: Callable[[_Fetch, int], Awaitable[None]]
    task: asyncio.Task[None] = attrs.field(init=False)
    done_bytes: int = 0
    promised_bytes: int = 0
    """Of the whole, once there was found to be room for it."""

    @property
    def is_under_way(self) -> bool:
        return not self.task.done()

    @property
    def is_abandoned(self) -> bool:
        return monotonic_s() - self.asked_at_s > _ABANDONED_AFTER_S

    def refuse_abandoned(self) -> None:
        if self.is_abandoned:
            raise asyncio.CancelledError

    async def promise_room(self, total_bytes: int) -> None:
        await self.make_room(self, total_bytes)

    def progress(self) -> Progress:
        return Progress(done=self.done_bytes, total=self.total_bytes, unit="bytes")


class AssetCache:
    """`harmony_core.assets.Assets` in *directory*, of at most *most_bytes* in all.

    Filled from *source*; of downloads from *nearby*, or else from the web where *find_refusal* says nothing
    against an address.
    """

    def __init__(
        self,
        directory: Path,
        source: ChunkSource,
        *,
        most_bytes: int,
        nearby: Nearby | None = None,
        find_refusal: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._files = AssetFiles(directory, most_bytes=most_bytes)
        self._source = source
        self._nearby = nearby
        self._find_refusal = find_refusal
        self._worker = Worker("assets", threads=1, timeout_s=_WITHIN_S)
        self._one_at_a_time = asyncio.Lock()
        self._making_room = asyncio.Lock()
        self._downloads: Downloads | None = None
        self._fetches: dict[str, _Fetch] = {}
        self._is_empty: bool | None = None
        self.find_needed: Callable[[], Collection[str] | None] = lambda: None
        """Returns the hashes of what must stay; None where that is not known now."""
        self.find_needed_files: Callable[[], Collection[str]] = tuple
        """Returns those of what must stay also once podman has it."""
        self._let_go: set[str] = set()
        """Hashes of what no image needs any more that is here."""

    async def fetch(self, content: Asset | Download, *, resource: str) -> None:
        if isinstance(content, Asset):
            asset_id(content)
        if self.find(content) is not None:
            return
        fetch = await self._find_under_way(content, resource) or self._begin(content)
        fetch.asked_at_s = monotonic_s()
        await asyncio.wait({fetch.task}, timeout=_ASKED_WAITS_S)
        if not fetch.task.done():
            raise _fetching(fetch, resource, "fetching", _LOOK_AGAIN_S)
        # What became of it is told once; who asks then begins anew.
        if self._fetches.get(content.sha256) is fetch:
            del self._fetches[content.sha256]
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

    async def _find_under_way(self, content: Asset | Download, resource: str) -> _Fetch | None:
        """Return the fetch of *content*. Raise `NotReady` while the same content is being fetched from
        another source.

        That fetch belongs to the one who has requested it, for as long as the request lasts.
        """
        fetch = self._fetches.get(content.sha256)
        if fetch is None or fetch.place == self._find_place(content):
            return fetch
        if not fetch.task.done() and monotonic_s() - fetch.asked_at_s < _ASKED_AGAIN_WITHIN_S:
            raise _fetching(fetch, resource, "fetching", _LOOK_AGAIN_S)
        fetch.task.cancel()
        await asyncio.wait({fetch.task})
        return None

    def find(self, content: Asset | Download) -> Path | None:
        return self._files.find(content)

    async def drop(self, content: Asset | Download) -> None:
        """Delete *content*. A fetch of it that is under way continues."""
        is_coming = content.sha256 in self._under_way()
        await self._worker.run(self._files.remove, [content.sha256], but_parts=is_coming)

    async def refuse_without_room(self, contents: Collection[Asset], *, resource: str) -> None:
        """Raise `AssetsFull` unless *contents* fit, after room was made by deleting what nobody needs."""
        await self.collect()
        try:
            await self._worker.run(self._files.refuse_image_without_room, contents)
        except CapabilityError as error:
            error.resource = resource
            raise

    async def let_go(self, contents: Collection[Asset]) -> None:
        """Keep *contents* no longer for their image, and cancel the fetches that only the image needs."""
        hashes = {each.sha256 for each in contents}
        self._let_go |= hashes
        gone = hashes - {*self.find_needed_files()}
        if coming := [self._fetches[each].task for each in gone & self._under_way()]:
            for each in coming:
                each.cancel()
            await asyncio.wait(coming)
        await self._worker.run(self._files.remove, sorted(gone - self._under_way()))

    async def collect(self) -> None:
        """Remove what no generation that counts needs, and what only an image needed that has released it."""
        if self._is_empty or (needed := self.find_needed()) is None:
            return
        self._let_go &= {*needed}
        if self._let_go:
            needed = {*needed} - (self._let_go - {*self.find_needed_files()})
        self._fetches = {
            sha256: each
            for sha256, each in self._fetches.items()
            if each.is_under_way or not each.is_abandoned
        }
        try:
            was_empty = await self._worker.run(self._files.collect, {*needed, *self._under_way()})
        except CapabilityError as error:
            log.warning("assets that nobody needs are not removed: %s", error.message)
        else:
            self._is_empty = was_empty and not self._fetches

    async def close(self) -> None:
        """End all fetches; the pieces that are here stay."""
        tasks = [each.task for each in self._fetches.values()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._downloads is not None:
            self._downloads.close()
        self._worker.close()

    def _under_way(self) -> set[str]:
        """Return the hashes of what is being fetched."""
        return {sha256 for sha256, each in self._fetches.items() if each.is_under_way}

    def _begin(self, content: Asset | Download) -> _Fetch:
        self._let_go.discard(content.sha256)
        place = self._find_place(content)
        fetch = _Fetch(content, place, monotonic_s(), content.size_bytes, self._make_room)
        self._fetches[content.sha256] = fetch
        coming = (
            self._fetch(content, fetch)
            if isinstance(content, Asset)
            else self._download(content, fetch)
        )
        fetch.task = asyncio.create_task(coming, name=f"asset {content.sha256[:12]}")
        fetch.task.add_done_callback(_note_seen)
        return fetch

    def _find_place(self, content: Asset | Download) -> object:
        """Return from where *content* is fetched now."""
        if isinstance(content, Asset):
            return content.key
        return self._find_nearby(content), content.url, content.size_bytes

    def _find_nearby(self, download: Download) -> int | None:
        """Return how many bytes *download* has where it is available nearby; None where the web must be
        asked."""
        return None if self._nearby is None else self._nearby.find_download(download.sha256)

    async def _make_room(self, fetch: _Fetch, total_bytes: int) -> None:
        """Promise *fetch* room for *total_bytes*. `AssetsFull` where others were promised what is left."""
        async with self._making_room:
            others = (each for each in self._fetches.values() if each is not fetch)
            reserved_bytes = sum(
                max(each.promised_bytes - each.done_bytes, 0)
                for each in others
                if each.is_under_way
            )
            await self._worker.run(
                self._files.refuse_without_room,
                fetch.content,
                total_bytes - fetch.done_bytes,
                reserved_bytes,
            )
            fetch.promised_bytes = total_bytes

    async def _fetch(self, asset: Asset, fetch: _Fetch) -> None:
        async with self._one_at_a_time:
            await self.collect()
            self._is_empty = False
            done_bytes = await self._worker.run(
                self._files.begin_part, asset, multiple_of=CHUNK_BYTES
            )
            fetch.done_bytes = done_bytes
            await fetch.promise_room(asset.size_bytes)
            for number in range(done_bytes // CHUNK_BYTES, chunk_count(asset)):
                fetch.refuse_abandoned()
                sealed = await self._source.fetch_chunk(chunk_key(asset, number))
                if sealed is None:
                    raise AssetMissing(
                        f"piece {number} of {asset.summary} is not on the server; push its Score again from "
                        "where the file is"
                    )
                plain = open_chunk(asset, number, sealed)
                await self._worker.run(self._files.append, asset, number * CHUNK_BYTES, plain)
                fetch.done_bytes += len(plain)
            within_s = _WITHIN_S + asset.size_bytes / _HASHED_BYTES_PER_S
            if not await self._worker.run_within(within_s, self._files.give_name, asset):
                raise AssetDamaged(
                    f"{asset.summary}: all its pieces are here, and together they are something else; it is "
                    "fetched again from the start. If that does not help, push it again from its file"
                )

    async def _download(self, download: Download, fetch: _Fetch) -> None:
        await self.collect()
        self._is_empty = False
        if self._nearby is not None and (size_bytes := self._find_nearby(download)) is not None:
            await self._take_nearby(self._nearby, download, size_bytes, fetch)
            return
        if self._downloads is None:
            # Most agents download nothing, and are spared what speaks HTTP.
            from .downloads import Downloads  # noqa: PLC0415

            self._downloads = Downloads(self._files, self._worker, self._find_refusal)
        await self._downloads.fetch(download, fetch)

    async def _take_nearby(
        self, nearby: Nearby, download: Download, size_bytes: int, fetch: _Fetch
    ) -> None:
        """Take the *size_bytes* of *download* from *nearby*, as if its server had sent them."""
        if download.size_bytes not in {None, size_bytes}:
            raise DownloadRefused(
                f"{download.name} has {size_bytes} bytes in the bundle, and size_bytes says "
                f"{download.size_bytes}; correct sha256 and size_bytes"
            )
        async with self._one_at_a_time:
            fetch.total_bytes = size_bytes
            # What may have come of it from elsewhere is not gone on with: a stick is quick.
            await self._worker.run(self._files.begin_part, download, anew=True)
            await fetch.promise_room(size_bytes)
            while left := size_bytes - fetch.done_bytes:
                fetch.refuse_abandoned()
                piece = await nearby.read_download(
                    download.sha256, fetch.done_bytes, min(left, CHUNK_BYTES)
                )
                await self._worker.run(self._files.append, download, fetch.done_bytes, piece)
                fetch.done_bytes += len(piece)
            if not await self._worker.run(self._files.give_name, download):
                raise DownloadFailed(
                    f"{download.name} is something else in the bundle than when that was checked; make the "
                    "bundle anew, on another stick"
                )


def _fetching(
    fetch: _Fetch, resource: str, doing: str, look_again_s: float, why: str = ""
) -> NotReady:
    return NotReady(
        f"{doing} {fetch.content.name}{f' ({why})' if why else ''}",
        resource=resource,
        reason="Progressing",
        progress=fetch.progress(),
        look_again_s=look_again_s,
    )


def _note_seen(task: asyncio.Task[None]) -> None:
    # Perhaps nobody asks any more what became of it.
    if not task.cancelled():
        task.exception()
