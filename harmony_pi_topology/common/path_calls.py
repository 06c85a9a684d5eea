"""Calls in threads that go from path to path, where one of the paths may never answer.

    a call says at each step where it is -> no step for so long: it is given up, and what it hangs in is noted
    -> the mount of that path is left alone until the call ends, and all other paths go on in another thread

A call in a thread cannot be interrupted while the kernel keeps it: a network file system whose server is
gone, or one in user space that hangs. Given up, it ends by itself at its next step, before it touches more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

import attrs

from harmony_core.errors import CapabilityError, CapabilityUnavailable, TimedOut
from harmony_pi_topology.posix.mounts import Mount, mount_on_the_way_to, mounts_of

from .worker import Worker

__all__ = ["PATIENCE_S", "Call", "PathCalls", "Turns", "step"]

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 30.0
"""For one step: a flush of the slowest card."""
_HANGING_MAX = 8
"""So many mounts may hang at a time. A thread is made for each as it is needed."""
_TURN_CHECKED_S = 0.5
_current = threading.local()


@attrs.define(eq=False)
class Call:
    """What one call in a thread tells of itself. Written there, read in the loop."""

    refusal: Callable[[str], CapabilityError | None] = lambda _: None
    at: str = ""
    steps: int = 0
    is_given_up: bool = False
    has_ended: bool = False

    def give_up(self) -> None:
        """Wait for it no more: it ends at its next step, unless it has ended."""
        self.is_given_up = True

    def run(self, func: Callable[[], T]) -> T:
        _current.call = self
        try:
            return func()
        finally:
            _current.call = None
            self.has_ended = True


@attrs.frozen
class _Hanging:
    call: Call
    point: str
    mounts: Sequence[Mount]

    def holds(self, path: str) -> bool:
        return _point(path, self.mounts) == self.point


def step(path: str) -> None:
    """Say that *path* is next. Raises where it must not be touched: `TimedOut` in a call that has been given
    up, `CapabilityUnavailable` where another hangs in the mount that it is on."""
    call: Call | None = getattr(_current, "call", None)
    if call is None:
        return
    if call.is_given_up:
        raise TimedOut(f"{path}: too late, this call was given up; it is tried again later")
    if (refusal := call.refusal(path)) is not None:
        raise refusal
    call.at = path
    call.steps += 1


class Turns:
    """One call at a time, but for one that was given up: nobody waits for that."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: Call | None = None

    @contextmanager
    def take(self) -> Generator[None]:
        """Wait for one's turn, in a thread. Whoever waits is not given up for that."""
        call: Call = getattr(_current, "call", None) or Call()
        with self._changed:
            while self._holder is not None and not self._holder.is_given_up:
                self._changed.wait(_TURN_CHECKED_S)
                step("")
            self._holder = call
        try:
            yield
        finally:
            with self._changed:
                if self._holder is call:
                    self._holder = None
                    self._changed.notify_all()


class PathCalls:
    """A `Worker` for calls that `step` from path to path beneath *root*, *at_once* of them at a time.

    Whoever hangs is not counted: as many more threads may do so, each in another mount. Of one at a time, the
    next begins once the thread has ended, also where whoever waited for it was cancelled.
    """

    def __init__(
        self, name: str, root: str, *, at_once: int = 1, patience_s: float = PATIENCE_S
    ) -> None:
        self._root = root.rstrip("/")
        self._worker = Worker(name, threads=at_once + _HANGING_MAX, timeout_s=patience_s)
        self._slots = asyncio.Semaphore(at_once)
        self._turns = Turns() if at_once == 1 else None
        self._patience_s = patience_s
        self._hanging: list[_Hanging] = []

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``func(*args)`` in a thread, for as long as it makes progress. Raise `TimedOut` once it does
        not."""
        async with self._slots:
            return await self._run(partial(func, *args, **kwargs))

    async def _run(self, func: Callable[[], T]) -> T:
        call = Call(self.refusal)
        try:
            return await self._worker.run_while_moving(
                lambda: call.steps, call.run, partial(self._run_in_turn, func)
            )
        except asyncio.CancelledError:
            # It goes on in its thread, and whoever is next waits for that; but for no longer than for any.
            asyncio.get_running_loop().call_later(self._patience_s, call.give_up)
            raise
        except TimedOut:
            if call.has_ended or not call.at:
                raise  # its own, or it was never begun
            call.give_up()
            mounts = await self._worker.run(mounts_of)
            point = _point(f"{self._root}{call.at}", mounts)
            self._hanging.append(_Hanging(call, point, mounts))
            raise _make_timed_out(call.at, point) from None

    def _run_in_turn(self, func: Callable[[], T]) -> T:
        if self._turns is None:
            return func()
        with self._turns.take():
            return func()

    async def run_within(
        self, timeout_s: float, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call *func* as `Worker.run_within` does, if the call reports no steps."""
        return await self._worker.run_within(timeout_s, func, *args, **kwargs)

    def refusal(self, path: str) -> CapabilityError | None:
        """Return why *path* must not be touched now: something hangs in the mount that it is on."""
        if not self._hanging or not path:
            return None
        self._hanging = [each for each in self._hanging if not each.call.has_ended]
        here = f"{self._root}{path}"
        points = (each.point for each in self._hanging if each.holds(here))
        point = next(points, None)
        return None if point is None else _make_unavailable(path, point)

    async def sparing(
        self,
        paths: Sequence[Collection[str]],
        work: Callable[[Sequence[int]], Awaitable[Sequence[T]]],
    ) -> list[T | CapabilityError]:
        """Return the answers of *work* for those indices of *paths* that it is given, and a refusal for the
        others.

        Each of *paths* is all that one resource needs: where one of them hangs, the resource is refused.
        Where *work* hangs, call it once more with all that are on other mounts; it must be idempotent.
        """
        while True:
            refusals = self._refusals_of(paths)
            rest = [index for index, refusal in enumerate(refusals) if refusal is None]
            try:
                results = iter(await work(rest) if rest else ())
            except TimedOut:
                if not any(self._refusals_of([paths[index] for index in rest])):
                    raise
                continue
            return [next(results) if each is None else each for each in refusals]

    def _refusals_of(
        self, all_paths: Sequence[Collection[str]]
    ) -> Sequence[CapabilityError | None]:
        """Return, for each of *all_paths*, why it must not be touched now."""
        if not self._hanging:
            return [None] * len(all_paths)
        return [next(filter(None, map(self.refusal, paths)), None) for paths in all_paths]

    def close(self) -> None:
        """Accept no more calls. Do not wait for one that hangs."""
        self._worker.close()


def _point(path: str, mounts: Sequence[Mount]) -> str:
    mount = mount_on_the_way_to(path, mounts)
    return "/" if mount is None else mount.point


def _make_timed_out(path: str, point: str) -> TimedOut:
    return TimedOut(
        f"{path} does not answer: the file system mounted at {point} hangs; look at what serves it, or "
        f"run: umount --force --lazy {point}"
    )


def _make_unavailable(path: str, point: str) -> CapabilityUnavailable:
    return CapabilityUnavailable(
        f"{path} is not touched: the file system mounted at {point} hangs; look at what serves it, or "
        f"run: umount --force --lazy {point}, and then: systemctl restart harmony-agent"
    )
