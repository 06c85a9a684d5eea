"""Fetching images beside everything else: one pull an image, shared by whoever asks for it.

    ask -> under way: how far it is
        -> done: its result, told once to each asker

A converge never waits for a pull: it asks again until there is a result. So asking is also what keeps a
pull alive; one that nobody has asked for in a while, because its Score went or wants another image, is
cancelled, and podman drops what it has fetched.

An image that is at hand, in a bundle, is had from there, and its registry is not waited for any more.
"""

from __future__ import annotations

import asyncio

from harmony_core.change import Progress
from harmony_core.errors import CapabilityError, TimedOut
from harmony_core.images import ImageName, parse_image
from harmony_core.nearby import Blobs, NearbyImages
from harmony_core.reconciler import Records
from harmony_core.resources import resource_id

from .podman import Podman
from .podman_reply import PullProgress

_WAIT_S = 1.0
_ABANDONED_AFTER_S = 60.0


class ImagePulls:
    """The pulls under way, by image. Used from one event loop."""

    def __init__(
        self,
        podman: Podman,
        records: Records,
        nearby: NearbyImages | None = None,
        *,
        wait_s: float = _WAIT_S,
        abandoned_after_s: float = _ABANDONED_AFTER_S,
    ) -> None:
        self._podman = podman
        self._records = records
        self._nearby = nearby or NearbyImages()
        self._wait_s = wait_s
        self._abandoned_after_s = abandoned_after_s
        self._pulls: dict[str, _Pull] = {}

    async def ask(
        self, image: str, *, asker: str, timeout_s: float, login: tuple[str, str] | None = None
    ) -> Progress | None:
        """None once *image* is here; until then, within a second, how far its pull is.

        Raises what became of a pull that failed, once; asking after that starts another.
        That we fetched it is recorded before it is fetched. The *login* of who asks first counts; whom that
        of another fails may ask again.
        """
        self.leave(asker, but=image)
        pull = await self._join(image, asker, login)
        pull.keep_alive(asker, for_s=self._abandoned_after_s, timeout_s=timeout_s)
        await asyncio.wait({pull.task}, timeout=self._wait_s)
        if not pull.task.done():
            return pull.progress.so_far()
        self._leave(pull, asker)
        if (failure := pull.failure()) is not None:
            raise failure
        return None

    def is_asked_for(self, image: str, *, by: str) -> bool:
        """Return whether *by* has asked for *image* and not been told what became of it."""
        pull = self._pulls.get(image)
        return pull is not None and by in pull.askers

    def leave(self, asker: str, *, but: str | None = None) -> None:
        """*asker* wants no image any more, except *but*."""
        for pull in list(self._pulls.values()):
            if pull.image != but:
                self._leave(pull, asker)

    async def close(self) -> None:
        """Cancel every pull, and wait until podman has been told."""
        pulls = [pull.task for pull in self._pulls.values()]
        self._pulls.clear()
        for task in pulls:
            task.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    async def _join(self, image: str, asker: str, login: tuple[str, str] | None) -> _Pull:
        if (pull := self._find(image, asker)) is not None:
            return pull
        await self._records.put(image_record(image), {"pulled": True})
        # Looked for again: somebody else may have begun while this was being recorded.
        if (pull := self._find(image, asker)) is not None:
            return pull
        blobs = self._nearby.find(parse_image(image).digest)
        pull = self._pulls[image] = _Pull(self._podman, image, login, blobs)
        return pull

    def _find(self, image: str, asker: str) -> _Pull | None:
        """Return the pull under way, or of which *asker* is still to be told; not one from elsewhere, where
        the image is at hand by now: neither a registry nor a stick that is gone is waited for."""
        pull = self._pulls.get(image)
        if pull is None or not pull.has_news_for(asker):
            return None
        nearby = self._nearby.find(parse_image(image).digest)
        if nearby is not None and nearby is not pull.blobs:
            pull.task.cancel()
            return None
        return pull

    def _leave(self, pull: _Pull, asker: str) -> None:
        pull.askers.discard(asker)
        if not pull.askers:
            pull.task.cancel()
            if self._pulls.get(pull.image) is pull:
                del self._pulls[pull.image]


class _Pull:
    """One pull under way, or ended and not yet told to everybody who asked for it."""

    def __init__(
        self,
        podman: Podman,
        image: str,
        login: tuple[str, str] | None,
        blobs: Blobs | None = None,
    ) -> None:
        self.image = image
        self.blobs = blobs
        self.askers: set[str] = set()
        self.progress = PullProgress()
        self.task = asyncio.ensure_future(
            podman.pull(image, self.progress, login)
            if blobs is None
            else _pull_nearby(podman, parse_image(image), self.progress, blobs)
        )
        self.task.add_done_callback(self._on_end)
        self._loop = asyncio.get_running_loop()
        self._started_s = self._deadline_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def has_news_for(self, asker: str) -> bool:
        """False for who comes after the end: a result is told once to each asker."""
        return not self.task.done() or asker in self.askers

    def keep_alive(self, asker: str, *, for_s: float, timeout_s: float) -> None:
        self.askers.add(asker)
        self._deadline_s = max(self._deadline_s, self._started_s + timeout_s)
        self._stop_timer()
        if not self.task.done():
            until_s = min(self._deadline_s, self._loop.time() + for_s)
            self._timer = self._loop.call_at(until_s, self._expire)

    def failure(self) -> Exception | None:
        """Return what went wrong: a new one for each asker, who adds whose it is. Asked after the end
        only."""
        if self.task.cancelled():
            return TimedOut(
                f"{self.image} was not fetched in time; "
                "raise pull_timeout_s, or look at the device's connection"
            )
        match self.task.exception():
            case CapabilityError() as error:
                return type(error)(error.message)
            case Exception() as error:
                return error
            case _:
                return None

    def _expire(self) -> None:
        if self._loop.time() < self._deadline_s:
            self.askers.clear()
        self.task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._stop_timer()
        # Looked at here, since perhaps nobody comes to ask any more.
        if not task.cancelled():
            task.exception()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def _pull_nearby(
    podman: Podman, image: ImageName, progress: PullProgress, blobs: Blobs
) -> None:
    """Have podman fetch *image* from this machine, and call it as if it came from its own registry.

    By digest podman finds what has the digest and any name of that repository. The tag is one of our own:
    what somebody else has called so is not taken from them.
    """
    from .nearby_registry import TAG, NearbyRegistry  # noqa: PLC0415 - few are ever loaded

    digest = image.digest or ""
    registry = NearbyRegistry(blobs, digest)
    await asyncio.to_thread(registry.begin)
    try:
        source = f"{registry.repository}:{TAG}"
        await podman.pull(image.pull, progress, source=source)
        own = f"harmony-{digest.removeprefix('sha256:')[:32]}"
        await podman.tag(source, f"{image.registry}/{image.repository}", own)
        await podman.untag(source, registry.repository, TAG)
    finally:
        await asyncio.to_thread(registry.end)


def image_record(image: str) -> str:
    """Return where it is recorded that *image* is here because we fetched it."""
    return resource_id("image", image)
