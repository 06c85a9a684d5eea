"""systemd over D-Bus: looking at units, and queueing jobs. Every question has a deadline.

    connect when first asked -> subscribe to the ends of jobs -> ask
    the bus hangs up         -> CapabilityUnavailable, and the next question connects anew

How a job ended is told by the signal JobRemoved, for which the connection is subscribed before it queues
one. When the bus hangs up in between, that is never told: such a job is *lost*, and what became of it is
to be seen from its unit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, Literal, TypeAlias, TypeVar

from sdbus.exceptions import DbusFailedError, SdBusBaseError
from sdbus.sd_bus_internals import SdBusMessage, SdBusSlot

from harmony_core.errors import InvalidResource, TimedOut
from harmony_pi_topology.common.batching import Batcher
from harmony_pi_topology.common.dbus import (
    MANAGER_PATH,
    SYSTEMD,
    Manager,
    error_name,
    to_capability_error,
)
from harmony_pi_topology.common.dbus_connection import Connection

from .look import (
    HAVE_OTHERS,
    FoundJob,
    look,
    look_at_credentials,
    look_at_job,
    look_at_others,
    look_at_slice,
)
from .records import FoundUnit
from .waker import Waker

__all__ = [
    "ANSWER_WITHIN_S",
    "LOST",
    "RELOAD_WITHIN_S",
    "FoundJob",
    "Job",
    "Properties",
    "SystemdBus",
    "Verb",
    "exec_start",
]

Verb: TypeAlias = Literal["start", "restart", "stop"]
Job: TypeAlias = "asyncio.Future[str]"
"""Its result, as systemd calls it: done, failed, canceled, timeout, dependency …; or `LOST`."""

Properties: TypeAlias = "list[tuple[str, tuple[str, Any]]]"
"""By name: their D-Bus types and values."""

LOST = "lost"

_MANAGER_INTERFACE = "org.freedesktop.systemd1.Manager"
ANSWER_WITHIN_S = 10.0
RELOAD_WITHIN_S = 90.0
_PING_S = 2.0
_LOOKS_AT_ONCE = 3
_DEEDS_AT_ONCE = 30
"""A bus lets one connection wait for 128 answers at most. A look asks some thirty questions at
once; what is asked besides, such as for a reload, is few."""
_TORN_LOOKS = 5
_LOOK_AGAIN_S = 0.01
_LOOK_LAST_S = 0.5

_UNREADABLE: Final = frozenset({"InconsistentMessage", "ELOOP", "InvalidArgs"})
"""How systemd calls a file that it cannot read: a section without its end, a link to itself."""

T = TypeVar("T")


def exec_start(command: Sequence[str]) -> tuple[str, tuple[str, Any]]:
    """Return the property with which a transient service runs *command* literally: otherwise systemd would
    put variables of its own environment in place of what begins with a $.

    It is not enough to write each $ twice: if all units are read again before it runs, they are expanded once
    more.
    """
    return "ExecStartEx", ("a(sasas)", [(command[0], list(command), ["no-env-expand"])])


class _Link:
    """A connection, subscribed to the ends of jobs."""

    def __init__(self, address: str | None, waker: Waker) -> None:
        self.connection = Connection(address, closed=self._lose_jobs, on_wait=waker.wake_until)
        self._waker = waker
        self.manager = Manager.new_proxy(SYSTEMD, MANAGER_PATH, self.connection.bus)
        self._subscription: SdBusSlot | None = None
        self._jobs: dict[str, Job] = {}
        self._queueing = 0
        self._ended_early: dict[str, str] = {}

    async def subscribe(self) -> None:
        self._subscription = await self.connection.wait_for(
            self.connection.listen(
                SYSTEMD, MANAGER_PATH, _MANAGER_INTERFACE, "JobRemoved", self._job_removed
            )
        )

    async def queue(self, verb: Verb, unit: str) -> Job:
        queue = {
            "start": self.manager.start_unit,
            "restart": self.manager.restart_unit,
            "stop": self.manager.stop_unit,
        }[verb]
        self._queueing += 1
        try:
            path = await queue(unit, "replace")
            job = self._jobs.setdefault(path, asyncio.get_running_loop().create_future())
            if path in self._ended_early:
                self._end(path, self._ended_early[path])
            self._waker.wake_until(job)
            return job
        finally:
            self._queueing -= 1
            if not self._queueing:
                self._ended_early.clear()

    def _job_removed(self, message: SdBusMessage) -> None:
        _, path, _, result = message.parse_to_tuple()
        if path in self._jobs:
            self._end(path, result)
        elif self._queueing:
            # It may have ended before we were told its name.
            self._ended_early[path] = result

    def _end(self, path: str, result: str) -> None:
        job = self._jobs.pop(path)
        if not job.done():
            job.set_result(result)

    def _lose_jobs(self) -> None:
        for path in list(self._jobs):
            self._end(path, LOST)


class SystemdBus:
    """systemd on the bus at *address*, or on this machine's system bus; *waker* wakes it."""

    def __init__(
        self,
        address: str | None = None,
        *,
        waker: Waker | None = None,
        answer_within_s: float = ANSWER_WITHIN_S,
        reload_within_s: float = RELOAD_WITHIN_S,
    ) -> None:
        self._address = address
        self._waker = waker or Waker()
        self._answer_s = answer_within_s
        self._reload_s = reload_within_s
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._deeds = asyncio.Semaphore(_DEEDS_AT_ONCE)
        self._reloads: Batcher[None, None] = Batcher(self._reload)

    async def ping(self) -> None:
        """Return when systemd answers; this takes at most two seconds."""
        await self._ask("asking systemd", lambda link: link.manager.dbus_ping(), within_s=_PING_S)

    async def look(self, unit: str) -> FoundUnit:
        """Return what systemd says of *unit* now; loads its file if it can."""
        if "@." in unit:
            # A template cannot be loaded itself.
            enablement = await self._enablement(unit)
            return FoundUnit(load="loaded" if enablement else "not-found", enablement=enablement)
        for _ in range(_TORN_LOOKS):
            found = await self._ask(
                f"looking at {unit}",
                lambda link: look(link.connection.bus, link.manager, unit, self._enablement(unit)),
                turns=self._looks,
            )
            if found is not None:
                return await self._look_at_others(found)
        raise TimedOut(f"{unit} changes faster than it can be looked at; it is tried again later")

    async def _look_at_others(self, found: FoundUnit) -> FoundUnit:
        if found.load != "loaded" or not found.unit_id.endswith(HAVE_OTHERS):
            return found
        return await self._ask(
            f"looking at {found.unit_id}",
            lambda link: look_at_others(link.connection.bus, found, self._enablement),
            turns=self._looks,
        )

    async def look_at_credentials(self, unit: str) -> dict[str, str]:
        """Return the file of each credential that the service *unit* is loaded with, by name."""
        return await self._ask(
            f"looking at {unit}",
            lambda link: look_at_credentials(link.connection.bus, unit),
            turns=self._looks,
        )

    async def look_at_slice(self, unit: str) -> str:
        """Return the slice in which the service *unit* runs, or would."""
        return await self._ask(
            f"looking at {unit}",
            lambda link: look_at_slice(link.connection.bus, unit),
            turns=self._looks,
        )

    async def ask_read_at_s(self) -> float:
        """Return when systemd has last read all unit files and had them generated, on the wall clock."""
        read_at_us = await self._ask(
            "asking systemd", lambda link: link.manager.units_load_timestamp.get_async()
        )
        return read_at_us / 1e6

    async def queue(self, verb: Verb, unit: str) -> Job:
        """Queue a job in place of any other for *unit*. Return its end. An old failure does not count.

        Keep what systemd knows of the unit from now on, also when it does not run, as long as we are
        connected: this shows afterwards how it ended.
        """
        queued = self._ask(
            f"cannot {verb} {unit}", lambda link: link.queue(verb, unit), turns=self._deeds
        )
        if verb == "stop":
            return await queued
        # All sent at once, since systemd does what it is asked in order: who waits is a unit that is down.
        held = self._forgiving(f"{verb}ing {unit}", lambda link: link.manager.ref_unit(unit))
        *errors, job = await asyncio.gather(
            held, self.reset_failed(unit), queued, return_exceptions=True
        )
        for answer in (*errors, job):
            if isinstance(answer, BaseException):
                raise answer
        assert not isinstance(job, BaseException)
        return job

    async def run(
        self, unit: str, properties: Properties, others: list[tuple[str, Properties]]
    ) -> None:
        """Make a transient service, and the *others* that it names, and have it started; its state shows how
        that ends."""
        await self._ask(
            f"cannot run {unit}",
            lambda link: link.manager.start_transient_unit(unit, "fail", properties, others),
        )

    async def ask_elapsing(self, after_s: float) -> tuple[str, tuple[str, Any]]:
        """Return the property with which a transient timer elapses once, *after_s* from now.

        Do not use OnActiveSec: each time all units are read again, systemd counts that from then on
        (github.com/systemd/systemd/issues/31914). The start time of systemd itself does not change.
        """
        began_us = await self._ask(
            "asking systemd", lambda link: link.manager.userspace_timestamp_monotonic.get_async()
        )
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        # What systemd writes down has no more than milliseconds.
        elapses_ms = math.ceil((now_us - began_us) / 1000 + after_s * 1000)
        return "TimersMonotonic", ("a(st)", [("OnStartupSec", elapses_ms * 1000)])

    async def look_at_job(self, unit: str) -> FoundJob | None:
        """Return what systemd says of a transient service now; None when there is none."""
        return await self._ask(
            f"looking at {unit}", lambda link: look_at_job(link.connection.bus, unit)
        )

    async def forget(self, unit: str) -> None:
        """Have a transient unit stopped, and nothing known of it any more, as systemd says. Idempotent.

        Whoever calls says how long that may take: a stop that systemd gives up is asked for again.
        """
        wait_s = _LOOK_AGAIN_S
        while (await self.look(unit)).load != "not-found":
            # Also where it does not run: one that was just starting may get there, and systemd considers
            # whether to forget a unit only when something happens to it, such as a stop that has ended.
            if (end := await self._stop_if_loaded(unit)) is not None:
                await end
            await self.reset_failed(unit)
            await asyncio.sleep(wait_s)  # until its name is free
            wait_s = min(2 * wait_s, _LOOK_LAST_S)

    async def _stop_if_loaded(self, unit: str) -> Job | None:
        """Stop *unit*; return None where systemd has unloaded it since it was looked at."""

        async def stop(link: _Link) -> Job | None:
            try:
                return await link.queue("stop", unit)
            except SdBusBaseError as error:
                if _is_nowhere(error):
                    return None
                raise

        return await self._ask(f"cannot stop {unit}", stop, turns=self._deeds)

    async def reset_failed(self, unit: str) -> None:
        """Forget that *unit* failed, and how often."""
        await self._forgiving(
            f"resetting {unit}", lambda link: link.manager.reset_failed_unit(unit)
        )

    async def let_go(self, unit: str) -> None:
        """Let systemd forget *unit* once it does not run."""
        await self._forgiving(f"letting {unit} go", lambda link: link.manager.unref_unit(unit))

    async def reload(self) -> None:
        """Have all unit files read that were there when this was called.

        Calls that arrive while a reload runs share the next one: the one that runs may have read their
        files too early.
        """
        await self._reloads.submit([None])

    async def enable(self, unit: str, *, anew: bool) -> None:
        """Have it start at boot. *anew*: links that an older unit file asked for are taken away."""

        async def enable(link: _Link) -> bool:
            manager = link.manager
            call = manager.reenable_unit_files if anew else manager.enable_unit_files
            installable, _ = await call([unit], False, False)
            return installable

        if not await self._ask(f"cannot enable {unit}", enable):
            raise InvalidResource(
                f"{unit} cannot be enabled, since its unit file has no [Install] section; "
                "add one, or set enabled to null"
            )

    async def disable(self, unit: str) -> None:
        """Have it start at boot no more."""
        await self._ask(
            f"cannot disable {unit}", lambda link: link.manager.disable_unit_files([unit], False)
        )

    def close(self) -> None:
        """Hang up. The next question connects anew."""
        if self._link is not None:
            self._link.connection.close()

    async def _reload(self, asked: Sequence[None]) -> Sequence[None]:
        await self._ask(
            "reloading unit files", lambda link: link.manager.reload(), within_s=self._reload_s
        )
        return asked

    async def _enablement(self, unit: str) -> str:
        async def ask(link: _Link) -> str:
            try:
                return await link.manager.get_unit_file_state(unit)
            except SdBusBaseError as error:
                # How it is loaded tells the rest.
                if _is_nowhere(error) or _is_unreadable(error):
                    return ""
                raise

        return await self._ask(f"looking at {unit}", ask)

    async def _forgiving(self, what: str, ask: Callable[[_Link], Awaitable[None]]) -> None:
        """Call *ask*, which need not succeed, as long as somebody answers."""

        async def ask_forgiving(link: _Link) -> None:
            try:
                await ask(link)
            except DbusFailedError:
                return
            except SdBusBaseError as error:
                if not error_name(error):
                    raise

        await self._ask(what, ask_forgiving, turns=self._deeds)

    async def _ask(
        self,
        what: str,
        ask: Callable[[_Link], Awaitable[T]],
        *,
        within_s: float | None = None,
        turns: AbstractAsyncContextManager[None] | None = None,
    ) -> T:
        within_s = self._answer_s if within_s is None else within_s
        try:
            # Waiting for a turn counts: a systemd that hangs keeps nobody longer than that.
            async with asyncio.timeout(within_s), turns or nullcontext():
                link = await self._connect()
                return await link.connection.wait_for(ask(link))
        except TimeoutError:
            raise TimedOut(
                f"{what}: systemd did not answer within {within_s:g} s; it is tried again later"
            ) from None
        except SdBusBaseError as error:
            ours = to_capability_error(error, what)
            if not error_name(error):
                self.close()
            raise ours from error

    async def _connect(self) -> _Link:
        async with self._connecting:
            if self._link is None or not self._link.connection.open:
                link = _Link(self._address, self._waker)
                try:
                    await link.subscribe()
                except BaseException:
                    link.connection.close()
                    raise
                self._link = link
            return self._link


def _is_nowhere(error: SdBusBaseError) -> bool:
    """Return whether there is neither a unit nor a file of the name."""
    return error_name(error).rpartition(".")[2] in {"FileNotFound", "NoSuchUnit"}


def _is_unreadable(error: SdBusBaseError) -> bool:
    """Return whether a file of the unit is none that systemd can read."""
    return error_name(error).rpartition(".")[2] in _UNREADABLE
