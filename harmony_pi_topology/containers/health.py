"""Whether a container that was started also stays up, and serves.

    ended soon after its start, or restarts over and over --> ContainerFailed, with its last lines
    up for less than settle_s ------------------------------> NotReady
    settled -> probe -> ready ------------------------------> converged
                     -> not ready within within_s ----------> NotReady
                     -> not ready later --------------------> NotReadyInTime, with its last lines
    podman's own check, before the probe: healthy, starting, or unhealthy: as above
                     -> none has ended for too long ------> NotReadyInTime: podman waits for one that hangs

Judged by what podman knows of the container, so that an agent that has just started judges as one that
was there all along. What is remembered in between is only a help: how often a container had restarted
at the last look, and which end of one has been told already, so that the next look starts it again.

podman's times are wall-clock times, and a device without a clock jumps by years when it meets a time
server. So an age is taken once, when a start is first seen: never negative, and never more than the device
has been up. From then on it grows by the clock that only goes forward.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import attrs

from harmony_core.change import NotReady
from harmony_core.errors import CapabilityError, ContainerFailed, NotReadyInTime
from harmony_core.resources import Container, Probe
from harmony_core.visible import cut
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.common.liveness import Liveness
from harmony_pi_topology.common.log_tail import LOG_TAIL_LINES, log_tail
from harmony_pi_topology.common.probes import probe

from .podman import Podman
from .podman_reply import FoundCheck, FoundContainer
from .spec import has_completed

Health = Literal["healthy", "starting", "unhealthy", "unprobed"]

_LEAST_WAIT_S = 0.05
_WORST_FIRST: tuple[Health, ...] = ("unhealthy", "starting", "healthy")
_CHECK_LEAST_S = 0.5
_CHECK_MOST_S = 10.0
_CHECK_GRACE_S = 30.0
"""For how much longer than its checks need a container may be without a verdict."""
_SAID_MOST = 300


@attrs.define(kw_only=True)
class _Sight:
    """What was seen of one start of one container."""

    container_id: str
    started_at: datetime
    first_seen_s: float
    age_then_s: float
    restarts: int
    health: Health = "unprobed"
    settled: bool = False
    was_ready: bool = False
    end_told: bool = False
    check_ended_at: str = ""
    check_seen_s: float = 0.0
    """When it was first seen that the last check had ended then, by the clock that only goes forward."""


class HealthCheck:
    """Remembers one `_Sight` a container. ``now`` and ``monotonic_s``, since boot, are the two clocks."""

    def __init__(
        self,
        podman: Podman,
        *,
        journal: Journal | None = None,
        probe_address: str = "127.0.0.1",
        liveness: Liveness | None = None,
        checks: Liveness | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._podman = podman
        self._journal = journal or Journal()
        self._probe_address = probe_address
        self._liveness = liveness or Liveness()
        self._checks = checks or Liveness()
        self._now = now
        self._monotonic_s = monotonic_s
        self._sights: dict[str, _Sight] = {}

    async def evaluate(self, found: FoundContainer, container: Container) -> NotReady | None:
        """Return what *found*, which is as *container* says, still waits for; None when it has converged.

        Raise `ContainerFailed` or `NotReadyInTime`.
        """
        before = self._sights.get(container.name)
        sight = self._see(found, container.name)
        if not found.running:
            sight.end_told = True
            raise await self._make_failure(found, container, _describe_end(found))
        age_s = self._age_s(sight)
        if age_s < container.settle_s:
            if _restarts_over_and_over(before, found):
                how = f"does not stay up: it has restarted {found.restarts} times"
                raise await self._make_failure(found, container, how)
            return _settling(container, age_s)
        sight.settled = True
        pending = await self._heed_check(found, container, sight, age_s)
        return pending or await self._probe(found, container, sight, age_s)

    def has_just_failed(self, found: FoundContainer, container: Container) -> bool:
        """Return whether to report the end of *found* before starting it again: it ended soon after its
        start, or, if it runs once, it ended at all."""
        if found.running or found.status in {"created", "paused"} or found.stopped_by_user:
            return False
        sight = self._sights.get(container.name)
        if sight is not None and sight.end_told and _is_of(sight, found):
            return False
        ran_s = (found.finished_at - found.started_at).total_seconds()
        return 0 <= ran_s < (math.inf if container.runs == "once" else container.settle_s)

    def health(self, found: FoundContainer, name: str) -> Health:
        """Return the worse of two verdicts: that of podman's checks, and that of the last probe since this
        start."""
        sight = self._sights.get(name)
        probed = sight.health if sight is not None and _is_of(sight, found) else "unprobed"
        checked = _checked(found)
        if sight is not None and _is_of(sight, found) and self._hangs(sight, found.check):
            checked = "unhealthy"
        for worst in _WORST_FIRST:
            if worst in {probed, checked}:
                return worst
        return "unprobed"

    def unproven(self, found: FoundContainer, container: Container) -> NotReady | None:
        """Return, for a dry run, which sends no probe, what *found* has not been seen to do since its start;
        None when nothing is left to prove."""
        if has_completed(found):
            return None
        health = self.health(found, container.name)
        is_proven = container.ready is None and health == "unprobed"
        if is_proven or health == "healthy":
            return None
        return NotReady(f"{container.name} is not known to be ready", resource=container.id)

    def forget(self, name: str) -> None:
        self._sights.pop(name, None)
        self._liveness.forget(name)
        self._checks.forget(name)

    def _see(self, found: FoundContainer, name: str) -> _Sight:
        sight = self._sights.get(name)
        if sight is None or not _is_of(sight, found):
            now_s = self._monotonic_s()
            by_the_wall_s = (self._now() - found.started_at).total_seconds()
            sight = self._sights[name] = _Sight(
                container_id=found.id,
                started_at=found.started_at,
                first_seen_s=now_s,
                age_then_s=min(max(by_the_wall_s, 0.0), now_s),
                restarts=found.restarts,
            )
        return sight

    def _age_s(self, sight: _Sight) -> float:
        return sight.age_then_s + self._monotonic_s() - sight.first_seen_s

    async def _probe(
        self, found: FoundContainer, container: Container, sight: _Sight, age_s: float
    ) -> NotReady | None:
        ready = container.ready
        if ready is None:
            self._liveness.forget(container.name)
            return None
        reason: str | None = None
        for address, what in self._list_endpoints(container, found, ready):
            reason = await probe(what, address=address)
            self._liveness.record_probe(
                container.name, what, address=address, answers=reason is None
            )
            if reason is not None:
                break
        if reason is None:
            sight.health, sight.was_ready = "healthy", True
            return None
        if age_s < ready.within_s:
            sight.health = "starting"
            return NotReady(
                f"{container.name} runs, but {reason}",
                resource=container.id,
                look_again_s=ready.every_s,
            )
        was_ready = sight.was_ready
        sight.health = "unhealthy"
        how = "answers no more" if was_ready else f"was not ready within {ready.within_s:g} s"
        raise NotReadyInTime(
            f"{container.name} runs, but {how}: {reason}" + await self._tail(found),
            resource=container.id,
        )

    async def _heed_check(
        self, found: FoundContainer, container: Container, sight: _Sight, age_s: float
    ) -> NotReady | None:
        """Return what podman's own checks of *container* still wait for; None where they pass."""
        check = found.check
        if container.healthcheck is None:
            self._checks.forget(container.name)
            return None
        if check is None:
            raise ContainerFailed(
                f"container {container.name} has no health check: its image brings none, or somebody has "
                "switched it off (podman update); write one as healthcheck, or leave that out",
                resource=container.id,
            )
        hangs = self._hangs(sight, check)
        self._checks.record_check(
            container.name,
            partial(self._is_healthy, found),
            answers=check.status == "healthy" and not hangs,
            every_s=check.interval_s,
        )
        if hangs:
            raise NotReadyInTime(
                f"{container.name} runs, but for {check.fails_within_s:g} s none of its health checks has "
                "ended, so podman begins no other; have its command end by itself, as by a time limit"
                + await self._tail(found),
                resource=container.id,
            )
        if check.status == "healthy":
            return None
        said = f": {cut(check.said, _SAID_MOST)}" if check.said else ""
        if check.status != "unhealthy" and age_s < check.due_within_s + _CHECK_GRACE_S:
            return NotReady(
                f"{container.name} runs, and its health check has not succeeded yet{said}",
                resource=container.id,
                look_again_s=min(max(check.interval_s, _CHECK_LEAST_S), _CHECK_MOST_S),
            )
        how = "is unhealthy" if check.status == "unhealthy" else "has never been found healthy"
        raise NotReadyInTime(
            f"{container.name} runs, but {how}, by its health check{said}"
            + await self._tail(found),
            resource=container.id,
        )

    def _hangs(self, sight: _Sight, check: FoundCheck | None) -> bool:
        """Return whether no check has ended for as long as it takes to call a container unhealthy.

        podman kills no check that exceeds its timeout, and starts no other before it has ended: the last
        verdict would stand for ever.
        """
        if check is None or not check.ended_at:
            return False
        if check.ended_at != sight.check_ended_at:
            sight.check_ended_at, sight.check_seen_s = check.ended_at, self._monotonic_s()
        unheard_s = self._monotonic_s() - sight.check_seen_s
        return unheard_s > check.fails_within_s + _CHECK_GRACE_S

    async def _is_healthy(self, found: FoundContainer) -> bool:
        """Return whether *found* is there and healthy. Return False where podman does not answer."""
        with contextlib.suppress(CapabilityError):
            now = await self._podman.inspect(found.name)
            if now is None or now.id != found.id or _checked(now) != "healthy":
                return False
            return not self._hangs(self._see(now, found.name), now.check)
        return _checked(found) == "healthy"

    def _list_endpoints(
        self, container: Container, found: FoundContainer, ready: Probe
    ) -> list[tuple[str, Probe]]:
        """Return where to send the probe: each address on which the port is published, or the device itself
        if the port is not published.

        What is sent to ::1 does not reach a container. So a port that is published on all IPv6 addresses is
        probed at the container's own address.
        """
        wheres: list[tuple[str, Probe]] = []
        for port in container.ports:
            if port.host != ready.port or port.protocol != "tcp":
                continue
            if port.is_on_all and port.is_ipv6:
                wheres.append(
                    (found.ipv6 or "::1", ready.model_copy(update={"port": port.container}))
                )
            else:
                wheres.append((self._probe_address if port.is_on_all else port.address, ready))
        return wheres or [(self._probe_address, ready)]

    async def _make_failure(
        self, found: FoundContainer, container: Container, how: str
    ) -> ContainerFailed:
        """Return the failure of *found*. First ask a container that podman would restart to end.

        podman restarts it without a pause, several times a second, and each time writes to the disk. The
        retry of this failure starts it again, with growing pauses.
        """
        tail = await self._tail(found)
        if container.restart != "no":
            with contextlib.suppress(CapabilityError):
                await self._end(found)
        return ContainerFailed(f"container {container.name} {how}{tail}", resource=container.id)

    async def _end(self, found: FoundContainer) -> None:
        if found.running:
            await self._podman.ask_to_end(found.id, signal=found.stop_signal)
        else:
            # podman is about to start it, or has just done so: there is nothing in it yet to be saved.
            await self._podman.kill(found.id)

    async def _tail(self, found: FoundContainer) -> str:
        if found.logs_to_journal:
            return log_tail((await self._journal.container_tail(found.id, LOG_TAIL_LINES)).encode())
        return log_tail(await self._podman.log_tail(found.id, lines=LOG_TAIL_LINES))


def _checked(found: FoundContainer) -> Health:
    """Return the verdict of podman's own checks on *found*."""
    match found.check:
        case None:
            return "unprobed"
        case FoundCheck(status="healthy"):
            return "healthy"
        case FoundCheck(status="unhealthy"):
            return "unhealthy"
        case _:
            return "starting"


def _is_of(sight: _Sight, found: FoundContainer) -> bool:
    return sight.container_id == found.id and sight.started_at == found.started_at


def _restarts_over_and_over(before: _Sight | None, found: FoundContainer) -> bool:
    """Return whether *found* has restarted since the last look, and had not settled by then either."""
    return (
        before is not None
        and before.container_id == found.id
        and not before.settled
        and found.restarts > before.restarts
    )


def _describe_end(found: FoundContainer) -> str:
    ran_s = max(0.0, (found.finished_at - found.started_at).total_seconds())
    return f"exited with code {found.exit_code} {ran_s:.1f} s after its start"


def _settling(container: Container, age_s: float) -> NotReady:
    left_s = min(max(container.settle_s - age_s, _LEAST_WAIT_S), container.settle_s)
    return NotReady(
        f"{container.name} was started, and must stay up for {container.settle_s:g} s",
        resource=container.id,
        look_again_s=left_s,
    )
