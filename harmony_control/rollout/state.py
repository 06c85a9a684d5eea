"""What a rollout is to do next. Pure: whoever asks with the same knowledge gets the same answer.

    gate, class manifest, members, now -> judge each member -> `look`: another gate, or why not yet
    gate, what a person wants          -> `order`: another gate, or why that cannot be

A gate is all that a rollout is. So any number of controllers may look, each may die at any moment, and the
one that writes first is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, get_args

import attrs

from harmony_core.errors import UsageError
from harmony_core.visible import cut, word
from harmony_core.wire.class_manifest import PLACES, ClassManifest
from harmony_core.wire.gate import Gate, GateState

from .judge import Judged, Progress

__all__ = ["Look", "Verb", "check_reason", "find_orders", "look", "order"]

Verb: TypeAlias = Literal["pause", "resume", "abort", "promote", "promote --full"]
_REASON_MOST = 500
_PERSONS_REASON_MOST = 300


@attrs.frozen(kw_only=True)
class Look:
    """What a look has come to."""

    progress: Progress
    next: Gate | None
    """What the gate is to be; None: as it is."""
    why: str
    """In words: what is waited for, or why there is another gate."""
    soaks_until: datetime | None = None
    """When the wave that is open has soaked, where that is all that is waited for."""


def look(progress: Progress, now: datetime) -> Look:
    """Return the next state of the gate, according to the members."""
    gate = progress.gate
    if gate.state != "running":
        # Whoever shows it shows the state beside it.
        return Look(progress=progress, next=None, why=gate.reason or "nobody has said why")
    if stop := _find_stop(progress):
        return _stop(progress, stop, now)
    if wait := _find_wait(progress, now):
        return Look(progress=progress, next=None, why=wait.why, soaks_until=wait.soaks_until)
    following = _find_next(progress, now)
    return Look(progress=progress, next=following, why=following.reason)


def _find_stop(progress: Progress) -> str:
    """Return why the rollout must stop; empty where it may go on."""
    rollout, members = progress.manifest.rollout, progress.judged
    bad = [each for each in members if each.state == "Unhealthy"]
    if not bad:
        return ""
    told = ", ".join(f"{each.member.id} ({each.reason})" for each in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    most = max(1.0, rollout.unhealthy_percent * len(members) / 100)
    if len(bad) > most:
        return f"{len(bad)} of {len(members)} devices are unhealthy: {told}{more}"
    wave = [each for each in progress.of_wave() if each.state not in {"Away", "NotReached"}]
    wave = _leave_out_slotless(wave)
    lost = sum(each.state == "Unhealthy" for each in wave)
    if lost and (len(wave) - lost) < rollout.success_percent * len(wave) / 100:
        return f"{lost} of {len(wave)} devices of wave {progress.gate.step + 1} are unhealthy: {told}{more}"
    return ""


def _stop(progress: Progress, why: str, now: datetime) -> Look:
    state: Literal["aborted", "paused"] = (
        "aborted" if progress.manifest.rollout.on_stop == "rollback" else "paused"
    )
    stopped = _evolve(progress.gate, now, state=state, reason=why)
    return Look(progress=progress, next=stopped, why=why)


@attrs.frozen
class _Wait:
    why: str
    soaks_until: datetime | None = None


def _find_wait(progress: Progress, now: datetime) -> _Wait | None:
    """Return what the open wave still waits for; None where it is over."""
    rollout, gate = progress.manifest.rollout, progress.gate
    wave = progress.of_wave()
    told = f"wave {gate.step + 1}"
    there = [each for each in wave if each.state != "Away"]
    if len(there) < rollout.online_percent * len(wave) / 100:
        return _Wait(
            f"{told}: {len(there)} of {len(wave)} devices were heard, and "
            f"{rollout.online_percent:g} % must be"
        )
    # Nobody comes after the last slot of the last wave.
    is_last = gate.step == len(rollout.steps) - 1 and not _find_later_slots(progress)
    soak_s = 0 if is_last else rollout.steps[gate.step].soak_s
    heard, there = there, _leave_out_slotless(there)
    if heard and not there and not is_last and not _find_later_slots(progress):
        return _Wait(
            f"{told}: {heard[0].member.id}, as all that were heard, has a label slot that is no number; "
            f"correct it, or: harmony rollout promote {gate.name}"
        )
    ready = sorted(each.ready_since for each in there if each.ready_since)
    enough = math.ceil(rollout.success_percent * len(there) / 100)
    if len(ready) < enough:
        return _Wait(f"{told}: {len(ready)} of {len(there)} devices are ready")
    # As many as are enough: who has just come back does not have all the others soak again.
    soaked_at = (ready[enough - 1] if enough else now) + timedelta(seconds=soak_s)
    if enough and soak_s and soaked_at > now:
        why = f"{told}: {len(ready)} devices are ready, and soak until {soaked_at:%F %T} UTC"
        return _Wait(why, soaked_at)
    return None


def _leave_out_slotless(those: Sequence[Judged]) -> list[Judged]:
    """Return *those* without who never starts, because its label ``slot`` is no number: a wave that waits for
    it would not end."""
    return [
        each for each in those if each.state != "Waiting" or each.member.waits_for != "SlotInvalid"
    ]


def _find_next(progress: Progress, now: datetime) -> Gate:
    """Return the gate of the next slot, else the next wave, else of the end."""
    gate, rollout = progress.gate, progress.manifest.rollout
    if later := _find_later_slots(progress):
        return _evolve(gate, now, slot=later[0], reason=f"wave {gate.step + 1}, slot {later[0]}")
    if gate.step + 1 < len(rollout.steps):
        step = gate.step + 1
        return _evolve(
            gate,
            now,
            step=step,
            slot=0,
            places=rollout.steps[step].places,
            reason=f"wave {step + 1} of {len(rollout.steps)}: {rollout.steps[step].upto}",
        )
    return _finish(gate, progress.manifest, now, "all waves are over")


def _find_later_slots(progress: Progress) -> list[int]:
    """Return the slots of the wave that are not open yet, the next one first."""
    gate = progress.gate
    slots = {each.member.slot for each in progress.judged if each.member.step == gate.step}
    return sorted(slot for slot in slots if slot > gate.slot)


def _finish(gate: Gate, manifest: ClassManifest, now: datetime, reason: str) -> Gate:
    step = len(manifest.rollout.steps) - 1
    return _evolve(gate, now, state="done", step=step, slot=0, places=PLACES, reason=reason)


_REFUSED: Mapping[tuple[Verb, str], str] = {
    ("pause", "paused"): "it is paused already",
    ("pause", "aborted"): "it was aborted; there is nothing to pause",
    ("pause", "done"): "it is done; there is nothing to pause",
    ("resume", "running"): "it is running",
    ("resume", "aborted"): "it was aborted; roll out a new generation",
    ("resume", "done"): "it is done; there is nothing to resume",
    ("abort", "aborted"): "it was aborted already",
    ("promote", "aborted"): "it was aborted; roll out a new generation",
    ("promote", "done"): "it is done; there is no further wave",
    ("promote --full", "aborted"): "it was aborted; roll out a new generation",
    ("promote --full", "done"): "it is done already",
}


def check_reason(reason: str) -> None:
    """Raise `UsageError` for what cannot be a person's reason."""
    if len(reason) > _PERSONS_REASON_MOST or word(reason) != reason:
        raise UsageError(
            f"a reason is one line of at most {_PERSONS_REASON_MOST} characters, this one has {len(reason)}"
        )


def find_orders(state: GateState) -> list[Verb]:
    """Return what a person may want of a rollout in that *state*."""
    return [each for each in get_args(Verb) if (each, state) not in _REFUSED]


def order(progress: Progress, verb: Verb, reason: str, now: datetime) -> Gate:
    """Return the gate that a person wants. Raise `UsageError` where that is impossible, with the reason."""
    gate = progress.gate
    check_reason(reason)
    if refused := _REFUSED.get((verb, gate.state)):
        raise UsageError(f"cannot {verb} the rollout of {gate.name}: {refused}")
    match verb:
        case "pause":
            return _evolve(gate, now, state="paused", reason=reason or "by an operator")
        case "resume":
            return _evolve(gate, now, state="running", reason=reason or "resumed by an operator")
        case "abort":
            return _evolve(gate, now, state="aborted", reason=reason or "by an operator")
        case "promote":
            following = _find_next(progress, now)
            told = reason or f"promoted by an operator: {following.reason}"
            state = following.state if following.state == "done" else "running"
            return following.model_copy(update={"state": state, "reason": told})
        case "promote --full":
            return _finish(gate, progress.manifest, now, reason or "promoted by an operator")


def _evolve(gate: Gate, now: datetime, **changes: object) -> Gate:
    fields = {**dict(gate), "seq": gate.seq + 1, "issued_at": now, **changes}
    # It may have words of devices in it, and no device may keep a gate from being written by them.
    fields["reason"] = cut(word(str(fields["reason"])), _REASON_MOST)
    return Gate.model_validate(fields)
