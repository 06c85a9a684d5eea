"""Whether a unit that was started also stays up. Shared by every reconciler of units.

    on its way -----------------------------------------> NotReady, until start_timeout_s
    ended, or restarted by systemd before it settled ----> Broken
    up for less than settle_s ---------------------------> NotReady
    settled ---------------------------------------------> None: whoever asks may probe it now

"Job done, active" proves nothing: with Type=simple also a program that is missing gets there. So a
service counts only once the same invocation has stayed up. It is judged by what systemd knows of it and by
the record, so that an agent that has just started judges as one that was there all along.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from harmony_core.change import NotReady
from harmony_core.errors import NotReadyInTime
from harmony_core.resources import Probe, SystemdUnit

from .records import FoundUnit, UnitRecord

__all__ = [
    "Broken",
    "describe_end",
    "describe_frozen",
    "describe_held_socket",
    "describe_job_end",
    "describe_stop_end",
    "evaluate_health",
    "has_ended_before_settling",
    "make_not_ready",
    "make_not_ready_in_time",
    "to_pending",
]

_LOOK_AGAIN_S = 1.0
_LEAST_WAIT_S = 0.05
_JOB_ENDS = {
    "timeout": "did not start within the time that systemd gives it",
    "dependency": "was not started, since something that it needs could not be",
    "canceled": "was not started, since another job took the place of its start",
}


def describe_frozen(unit: str) -> str:
    """Return what follows the name of a frozen unit."""
    return (
        "is frozen: its processes stand still, and systemd neither starts nor stops it; run "
        f"systemctl thaw {unit} on the device"
    )


@attrs.frozen
class Broken:
    """It does not stay up; ``how``, as what follows its name."""

    how: str


def evaluate_health(
    unit: SystemdUnit, found: FoundUnit, known: UnitRecord, *, now_s: float
) -> NotReady | Broken | None:
    """Return what *unit* still waits for. *known* is the record from before *found* was added to it.

    *now_s* is of the monotonic clock.
    """
    if unit.state is None or (unit.state == "stopped" and found.is_dead):
        return None
    if found.frozen:
        return Broken(describe_frozen(unit.name))
    if unit.state == "stopped":
        return _on_its_way(unit, "is being stopped")
    return _running(unit, found, known, now_s=now_s)


def _running(
    unit: SystemdUnit, found: FoundUnit, known: UnitRecord, *, now_s: float
) -> NotReady | Broken | None:
    if found.waits_to_be_restarted:
        if _has_ended_too_soon(unit, found) or _times_restarted(found, known) > 1:
            return Broken(f"does not stay up: {describe_end(found)}")
        return _on_its_way(unit, "has ended, and systemd starts it again")
    if found.is_dead:
        return _dead(unit, found, known)
    if found.is_up:
        return _settling(unit, found, known, now_s=now_s)
    return _coming(unit, found, now_s=now_s)


def to_pending(unit: SystemdUnit, verdict: NotReady | Broken | None) -> NotReady | None:
    """Return *verdict* as a plan reports it: a plan fails nobody, and what is broken is not ready."""
    if isinstance(verdict, Broken):
        return NotReady(f"{unit.name} {verdict.how}", resource=unit.id)
    return verdict


def has_ended_before_settling(unit: SystemdUnit, found: FoundUnit) -> bool:
    """Return whether the last run of a dead unit was interrupted. A unit that is no service cannot end by
    itself: somebody has stopped it, or systemd says that it failed."""
    if not unit.name.endswith(".service"):
        return found.active == "failed"
    never_up = found.up_since_s < found.left_inactive_s
    return never_up or _has_ended_too_soon(unit, found)


def describe_end(found: FoundUnit) -> str:
    """Return what follows its name, as in "failed 0.1 s after its start (exit-code, status 3)"."""
    if not found.conditions_met and found.result == "success":
        return "was not started, since a Condition…= of its unit file is not met"
    ran_s = found.up_until_s - found.up_since_s
    up = found.up_since_s >= found.left_inactive_s or found.waits_to_be_restarted
    when = f" {ran_s:.1f} s after its start" if up and ran_s > 0 else ""
    word = "ended" if found.result == "success" else "failed"
    status = f", status {found.exit_status}" if found.exit_status else ""
    hint = _EXITS.get(found.exit_status, "")
    return f"{word}{when} ({found.result}{status}{hint})"


_EXITS = {
    200: ": its working directory could not be entered",
    203: ": its program could not be run",
    216: ": its group does not exist",
    217: ": its user does not exist",
    226: ": its file system could not be set up, a path that it names may be missing",
    243: ": its credentials could not be set up, a file that one is read from may be missing",
}
"""What systemd itself says by a service's exit status, before the program has run (systemd.exec)."""


def describe_job_end(result: str, found: FoundUnit) -> str:
    """Return in words how a start failed whose job ended with *result*, which is not "done"."""
    if result == "failed" and found.lacking:
        return (
            f"was not started, since {', '.join(found.lacking)}, which it starts, is not loaded; have that "
            "made before it, or correct its file"
        )
    if result == "failed" and found.running_services and found.is_dead:
        return describe_held_socket(found.unit_id, found.running_services)
    if result == "failed" and found.result != "success":
        return describe_end(found)
    return _JOB_ENDS.get(result, f"could not be started ({result})")


def describe_held_socket(socket: str, services: Iterable[str]) -> str:
    """Return in words why *socket* is not started while *services*, which it starts, run."""
    held = " ".join(services)
    return (
        f"is not started anew while {held} runs: systemd starts a socket only while its service does not "
        f"run; stop both on the device, and it is done: systemctl stop {socket} {held}"
    )


def describe_stop_end(result: str, name: str) -> str:
    """Return in words how a stop failed that has left the unit running."""
    if result == "frozen":
        return describe_frozen(name)
    how = _STOP_ENDS.get(result, f"systemd's job ended with {result!r}")
    return f"could not be stopped: {how}"


_STOP_ENDS = {
    "canceled": "another job, such as a start, took the place of its stop",
    "timeout": "it did not stop within the time that systemd gives it",
}


def make_not_ready(unit: SystemdUnit, probe: Probe, reason: str) -> NotReady:
    """Return that *unit* is up, and its *probe* was answered with *reason*."""
    return NotReady(f"{unit.name} runs, but {reason}", resource=unit.id, look_again_s=probe.every_s)


def make_not_ready_in_time(
    unit: SystemdUnit, probe: Probe, reason: str, tail: str, *, was_ready: bool = False
) -> NotReadyInTime:
    """Return that *unit* is up, but not ready in time, or no longer ready. *tail* ends the message."""
    how = "answers no more" if was_ready else f"was not ready within {probe.within_s:g} s"
    return NotReadyInTime(
        f"{unit.name} runs, but {how}: {reason}{tail}",
        resource=unit.id,
    )


def _dead(unit: SystemdUnit, found: FoundUnit, known: UnitRecord) -> NotReady | Broken | None:
    if found.has_job:
        return _on_its_way(unit, "waits for what it needs to start")
    if known.has_run(found) or (found.has_succeeded and found.conditions_met):
        return None
    return Broken(describe_end(found))


def _coming(unit: SystemdUnit, found: FoundUnit, *, now_s: float) -> NotReady | Broken:
    if not found.is_coming:
        return _on_its_way(unit, "is being stopped")
    if now_s - found.left_inactive_s > unit.start_timeout_s:
        return Broken(f"has not started within {unit.start_timeout_s:g} s")
    return _on_its_way(unit, "is starting")


def _settling(
    unit: SystemdUnit, found: FoundUnit, known: UnitRecord, *, now_s: float
) -> NotReady | Broken | None:
    if found.never_elapses:
        return Broken(
            "will never elapse: none of its times is still to come; correct OnCalendar= or what "
            "else its unit file gives"
        )
    age_s = now_s - found.up_since_s
    has_processes = unit.name.endswith(".service") and not found.oneshot
    if not has_processes or age_s >= unit.settle_s:
        return None
    times = _times_restarted(found, known)
    never_seen_up = known.up_since_s == 0
    if times > 1 or (
        times > 0 and (never_seen_up or found.up_until_s - known.up_since_s < unit.settle_s)
    ):
        return Broken(f"does not stay up: systemd has restarted it {found.restarts} times")
    left_s = min(max(unit.settle_s - age_s, _LEAST_WAIT_S), unit.settle_s)
    return NotReady(
        f"{unit.name} was started, and must stay up for {unit.settle_s:g} s",
        resource=unit.id,
        look_again_s=left_s,
    )


def _times_restarted(found: FoundUnit, known: UnitRecord) -> int:
    """Return how often systemd has restarted the run that we last saw up."""
    return found.restarts - known.restarts if known.invocation else 0


def _has_ended_too_soon(unit: SystemdUnit, found: FoundUnit) -> bool:
    return found.up_until_s - found.up_since_s < unit.settle_s


def _on_its_way(unit: SystemdUnit, what: str) -> NotReady:
    return NotReady(
        f"{unit.name} {what}",
        resource=unit.id,
        reason="Progressing",
        look_again_s=_LOOK_AGAIN_S,
    )
