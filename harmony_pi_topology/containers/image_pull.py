"""Fetching images beside everything else: one pull an image, shared by whoever asks for it.

    ask -> under way: how far it is
        -> done: its result, told once to each asker

A converge never waits for a pull: it asks again until there is a result. So asking is also what keeps a
pull alive; one that nobody has asked for in a while, because its Score went or wants another image, is
cancelled, and podman drops what it has fetched.
"""

from __future__ import annotations

import asyncio

from harmony_core.change import Progress
from harmony_core.errors import CapabilityError, TimedOut
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
        *,
        wait_s: float = _WAIT_S,
        abandoned_after_s: float = _ABANDONED_AFTER_S,
    ) -> None:
        self._podman = podman
        self._records = records
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
        if (pull := self._pulls.get(image)) is not None and pull.has_news_for(asker):
            return pull
        await self._records.put(image_record(image), {"pulled": True})
        # Looked for again: somebody else may have begun while this was being recorded.
        pull = self._pulls.get(image)
        if pull is None or not pull.has_news_for(asker):
            pull = self._pulls[image] = _Pull(self._podman, image, login)
        return pull

    def _leave(self, pull: _Pull, asker: str) -> None:
        pull.askers.discard(asker)
        if not pull.askers:
            pull.task.cancel()
            if self._pulls.get(pull.image) is pull:
                del self._pulls[pull.image]


class _Pull:
    """One pull under way, or ended and not yet told to everybody who asked for it."""

    def __init__(self, podman: Podman, image: str, login: tuple[str, str] | None) -> None:
        self.image = image
        self.askers: set[str] = set()
        self.progress = PullProgress()
        self.task = asyncio.ensure_future(podman.pull(image, self.progress, login))
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


def image_record(image: str) -> str:
    """Return where it is recorded that *image* is here because we fetched it."""
    return resource_id("image", image)
