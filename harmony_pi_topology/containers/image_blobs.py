"""What an image from an archive consists of, as podman asks for it: fetched then, kept until podman has it.

    podman asks for a blob -> a thread of the registry waits -> it is fetched, as any asset -> read from there

So what podman has already is asked for by nobody, and is not fetched. What was fetched before a cut, or
before the agent was started anew, is here, and is not fetched again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

from harmony_core.assets import Assets
from harmony_core.change import NotReady, Progress
from harmony_core.errors import AssetDamaged, AssetsFull, CapabilityError
from harmony_core.resources import ImageBlob

__all__ = ["ImageBlobs"]

T = TypeVar("T")

_PART_BYTES = 1024 * 1024
_NOTHING_COMES_S = 120.0
"""So long podman waits while nothing comes; then it is left alone until all is here that it lacks."""
_ASKED_TOGETHER_S = 0.1
"""Within that podman asks for those layers that it asks for at once."""


class ImageBlobs:
    """`Blobs` of the image whose *blobs* these are, for one pull; `end` it. It is used from one event loop,
    but for `find_size` and `read`.

    What podman *lacked_before*, in a pull that came to nothing, is fetched by `begin`. Where there is no room
    for all that it lacks, *on_full* is called, and nothing is fetched any more.
    """

    def __init__(
        self,
        assets: Assets,
        blobs: Iterable[ImageBlob],
        *,
        resource: str,
        lacked_before: Collection[str] = (),
        on_full: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._assets = assets
        self._blobs = {each.digest: each for each in blobs}
        self._resource = resource
        self._lacked = {each: 0 for each in lacked_before if each in self._blobs}
        self._signals: dict[str, NotReady] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Path]] = set()
        self._on_full = on_full
        self._full: AssetsFull | None = None
        self._is_over = False
        self.last_piece_s = self._loop.time()
        """When something has come, by the loop's clock."""
        self.failure: Exception | None = None
        """Why podman was not given what it has asked for."""

    @property
    def lacked(self) -> frozenset[str]:
        """The digests of all that podman was found to lack."""
        return frozenset(self._lacked)

    def so_far(self) -> NotReady | None:
        """Return what is being fetched and the progress of all that podman lacks; None while nothing is being
        fetched."""
        if not self._signals:
            return None
        # The one that is under way has begun; others wait for their turn.
        signal = max(
            self._signals.values(), key=lambda each: each.progress.done if each.progress else 0
        )
        total = sum(self._blobs[each].size_bytes for each in self._lacked)
        return NotReady(
            signal.message,
            resource=signal.resource,
            reason=signal.reason,
            progress=Progress(done=sum(self._lacked.values()), total=total, unit="bytes"),
        )

    async def begin(self, digest: str) -> None:
        """Fetch the manifest, whose digest is *digest*, and what podman lacked before, so that podman is not
        asked where not even that comes. Raise what `Assets.fetch` raises, and `NotReady` where nothing
        comes."""
        for each in (digest, *self._lacked):
            if each in self._blobs:
                await self._have(self._blobs[each])

    def end(self) -> None:
        """Serve no blob any more."""
        self._is_over = True
        self._cancel_all()

    # As `harmony_core.nearby.Blobs` has it: in any thread.

    def find_size(self, digest: str) -> int | None:
        found = self._blobs.get(digest)
        return None if found is None else found.size_bytes

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the content of the blob, as `Blobs.read` does, after waiting until it is here. Delete a
        stored file whose content is not that of the blob."""
        blob, found = self._blobs[digest], hashlib.sha256()
        with self._await(self._give(blob)).open("rb") as file:
            while part := file.read(_PART_BYTES):
                found.update(part)
                yield part
        if found.hexdigest() != blob.sha256:
            self._await(self._discard(blob))

    def _await(self, asked: Coroutine[Any, Any, T]) -> T:
        """Run *asked* in the event loop, wait for it, and return its result. Raise OSError."""
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except CancelledError as error:
            raise OSError("the pull has ended") from error
        except (NotReady, CapabilityError) as error:
            raise OSError(error.message) from error

    async def _discard(self, blob: ImageBlob) -> None:
        self.failure = self.failure or AssetDamaged(
            f"{blob.summary}: what was kept of it here is something else by now; it is fetched again"
        )
        await self._assets.drop(blob)

    async def _give(self, blob: ImageBlob) -> Path:
        if self._is_over:
            raise asyncio.CancelledError
        task = asyncio.ensure_future(self._have(blob))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await task
        except (NotReady, CapabilityError) as error:
            self.failure = self.failure or error
            raise

    async def _have(self, blob: ImageBlob) -> Path:
        """Return the path of the file that holds *blob*, once it is here."""
        self._lacked.setdefault(blob.digest, 0)
        try:
            if self._full is not None:
                raise self._full
            if self._assets.find(blob) is None:
                await self._refuse_without_room()
            while (path := self._assets.find(blob)) is None:
                try:
                    await self._assets.fetch(blob, resource=self._resource)
                except NotReady as signal:
                    self._note(blob, signal)
                    if self._loop.time() - self.last_piece_s > _NOTHING_COMES_S:
                        raise
                    await asyncio.sleep(signal.look_again_s)
                if self._full is not None:
                    raise self._full
        except AssetsFull as error:
            await self._end_full(error)
            raise
        finally:
            self._signals.pop(blob.digest, None)
        self._lacked[blob.digest] = blob.size_bytes
        self.last_piece_s = self._loop.time()
        return path

    async def _end_full(self, why: AssetsFull) -> None:
        if self._full is None:
            self._full = why
            self._cancel_all()
            if self._on_full is not None:
                await self._on_full()

    def _cancel_all(self) -> None:
        """Cancel all fetches, except the calling task."""
        for each in self._tasks - {asyncio.current_task()}:
            each.cancel()

    async def _refuse_without_room(self) -> None:
        """Raise `AssetsFull` where the disk has no room for all that podman is known to lack."""
        try:
            await self._measure_room()
        except AssetsFull:
            # How much would be needed is told of all that it asks for at once, whichever came first.
            await asyncio.sleep(_ASKED_TOGETHER_S)
            await self._measure_room()

    async def _measure_room(self) -> None:
        lacked = [self._blobs[each] for each in self._lacked]
        await self._assets.refuse_without_room(lacked, resource=self._resource)

    def _note(self, blob: ImageBlob, signal: NotReady) -> None:
        done = signal.progress.done if signal.progress is not None else 0
        if done > self._lacked[blob.digest]:
            self.last_piece_s = self._loop.time()
        self._lacked[blob.digest] = done
        self._signals[blob.digest] = signal
