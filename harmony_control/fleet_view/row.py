"""One device in one row: three axes, each with a reason, and what can be sorted and chosen by.

    is it heard?            device     Online, Silent, Offline, Unverified, Never
    has it what is wanted?  update     UpToDate, Updating, OutOfDate, Refused
    does it work?           workloads  Healthy, Degraded, Error, Unknown

A report is true for the moment in which it was made. So what a device that is not Online has said of its
workloads is Unknown now; which manifest it has taken in stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Generic, Literal, TypeAlias, TypeVar, get_args

import attrs

from harmony_control.bus.reports import Presence, Seen
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import ActualState, Condition
from harmony_core.wire.times import rfc3339
from harmony_core.wire.vitals import Vitals

__all__ = [
    "DEVICE_STATES",
    "UPDATE_STATES",
    "WORKLOADS_STATES",
    "Axes",
    "Axis",
    "DeviceRow",
    "DeviceState",
    "UpdateState",
    "WorkloadsState",
    "axes_of",
    "row_of",
]

DeviceState: TypeAlias = Literal["Online", "Silent", "Offline", "Unverified", "Never"]
UpdateState: TypeAlias = Literal["UpToDate", "Updating", "OutOfDate", "Refused"]
WorkloadsState: TypeAlias = Literal["Healthy", "Degraded", "Error", "Unknown"]
DEVICE_STATES: tuple[DeviceState, ...] = get_args(DeviceState)
UPDATE_STATES: tuple[UpdateState, ...] = get_args(UpdateState)
WORKLOADS_STATES: tuple[WorkloadsState, ...] = get_args(WorkloadsState)

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_COUNTS: Mapping[str, int] = MappingProxyType({})
_OF_UPDATE = frozenset({"ManifestRejected", "IndexRejected", "ClassRefused"})
"""Why a device may be degraded although its workloads are well."""

S = TypeVar("S", DeviceState, UpdateState, WorkloadsState)


@attrs.frozen
class Axis(Generic[S]):
    """Where a device stands on one axis, and why; the reason is empty where there is nothing to explain."""

    state: S
    reason: str = ""


@attrs.frozen(kw_only=True)
class Axes:
    """Where a device stands."""

    device: Axis[DeviceState]
    update: Axis[UpdateState]
    workloads: Axis[WorkloadsState]


@attrs.frozen(kw_only=True)
class DeviceRow:
    """What is known of one device, in short. What others wrote in it is shown by `visible` only."""

    id: str
    device: DeviceState
    update: UpdateState
    workloads: WorkloadsState
    reason: str
    """The gravest of the three reasons, or that it must be booted anew; empty where all is well."""
    last_seen: datetime | None = None
    labels: Mapping[str, str] = _NONE
    """As they were signed last; none where nobody who is trusted has signed them."""
    wanted_generation: int | None = None
    observed_generation: int | None = None
    """The one under which all its Scores were looked at."""
    agent_version: str = ""
    scores: int = 0
    scores_failed: int = 0
    scores_ready: int = 0
    """Of which every resource is ready."""
    outcomes: Mapping[str, int] = _NO_COUNTS
    """How many Scores have which Outcome, by its ``status``."""
    conditions: Mapping[str, str] = _NONE
    """``True``, ``False`` or ``Unknown``, by the condition's type."""
    degraded: str = ""
    """Why it says that it is Degraded, in one word; empty while it is not."""
    events: int | None = None
    """The number of the newest event that it has noted; None where it does not say."""
    vitals: Vitals | None = None
    """As they were when it was heard last; None while it is not, and of an older agent."""
    clock_offset_s: float | None = None
    """How far its clock is ahead of the message server's; None where ``vitals`` is."""
    is_gone: bool = False
    """Whether it was taken out of the fleet: who watches is told so once, of the row that it had."""


def row_of(seen: Seen) -> DeviceRow:
    """Return *seen* as one row."""
    axes = axes_of(seen)
    state, beat = seen.state, seen.heartbeat
    told = beat or state
    return DeviceRow(
        id=seen.agent_id,
        device=axes.device.state,
        update=axes.update.state,
        workloads=axes.workloads.state,
        reason=_gravest(axes) or _find_awaited_reboot(axes, state),
        last_seen=seen.at,
        labels=seen.labels,
        wanted_generation=seen.wanted,
        observed_generation=state.observed_generation if state else None,
        agent_version=told.agent_version if told else "",
        scores=len(state.scores) if state else 0,
        scores_failed=len(_failed(state)) if state else 0,
        scores_ready=_count_ready(state) if state else 0,
        outcomes=Counter(each.outcome.status for each in state.scores.values()) if state else {},
        conditions={each.type: each.status for each in state.conditions} if state else {},
        degraded=_find_degraded(state) if state else "",
        events=state.audit.seq if state and state.audit else None,
        vitals=beat.vitals if beat else None,
        clock_offset_s=seen.clock_offset_s,
    )


def axes_of(seen: Seen) -> Axes:
    """Return where *seen* stands on each axis."""
    device = _device(seen)
    return Axes(
        device=device, update=_update(seen, device.state), workloads=_workloads(seen, device.state)
    )


def _gravest(axes: Axes) -> str:
    if axes.device.state != "Online" or axes.update.state == "Refused":
        return axes.device.reason or axes.update.reason
    if axes.workloads.state == "Error":
        return axes.workloads.reason
    return axes.update.reason or axes.workloads.reason


def _find_awaited_reboot(axes: Axes, state: ActualState | None) -> str:
    """Return why the device is to be booted anew, which is no fault; empty where it is not, or not heard."""
    if state is None or axes.device.state != "Online":
        return ""
    found = (each for each in state.conditions if each.type == "RebootRequired")
    return next((f"RebootRequired: {each.message}" for each in found if each.status == "True"), "")


_DEVICE_STATES: Mapping[Presence, DeviceState] = {
    "Heard": "Online",
    "Silent": "Silent",
    "Offline": "Offline",
    "Never": "Never",
}


def _device(seen: Seen) -> Axis[DeviceState]:
    if seen.is_unverified:
        return Axis("Unverified", seen.problem.removeprefix("Unverified: "))
    since = f" since {rfc3339(seen.at)}" if seen.at else ""
    match _DEVICE_STATES[seen.presence]:
        case "Online":
            return Axis("Online")
        case "Silent":
            return Axis("Silent", f"it has missed its heartbeats{since}")
        case "Never":
            return Axis("Never", "it was never heard")
        case found:
            return Axis(found, f"it was not heard{since}")


def _update(seen: Seen, device: DeviceState) -> Axis[UpdateState]:
    state, desired = seen.state, seen.desired
    wanted = "nothing" if desired is None else f"generation {desired.generation}"
    if state is None:
        # Where nothing is wanted, nothing is missing.
        why = f"{wanted} is wanted, and the device has not said that it has it"
        return Axis("UpToDate") if desired is None else Axis("OutOfDate", why)
    if (why_not := _find_refusal(seen, state, device)) is not None:
        return Axis("Refused", why_not)
    if (state.epoch, state.generation) != (
        (0, 0) if desired is None else (desired.epoch, desired.generation)
    ):
        return Axis("OutOfDate", f"{wanted} is wanted, and the device has {state.generation}")
    if (
        desired is not None
        and state.manifest_sha256
        and state.manifest_sha256 != desired.manifest_sha256
    ):
        why = f"the device has taken in another manifest that was {wanted}, too; push again"
        return Axis("OutOfDate", why)
    if state.observed_generation != state.generation:
        why = f"not all Scores were looked at under {wanted} yet"
        return Axis("Updating" if device == "Online" else "OutOfDate", why)
    return _layers(state, device)


def _find_refusal(seen: Seen, state: ActualState, device: DeviceState) -> str | None:
    """Return why the device does not take in what is signed for it or its classes; None where it does."""
    if seen.follows_other_root:
        return (
            f"OtherRoot: another root document of version {state.root_version} counts there than is known "
            "here; see harmony trust show"
        )
    if device != "Online":
        return None
    for each in state.conditions:
        if each.type == "Degraded" and each.status == "True" and each.reason in _OF_UPDATE:
            return each.message
    for name, layer in sorted(state.layers.items()):
        if layer.phase == "Refused":
            return f"{name}: {layer.reason}: {layer.message}"
    return None


def _layers(state: ActualState, device: DeviceState) -> Axis[UpdateState]:
    """Return whether the device has what is wanted of it as a member of classes."""
    for name, layer in sorted(state.layers.items()):
        # What an aborted rollout brought is wanted no more.
        if layer.phase == "Waiting" and layer.wanted and layer.reason != "Aborted":
            why = (
                f"{name}: generation {layer.wanted} is rolled out, and the device follows "
                f"{layer.generation or 'none'}: {layer.reason}"
            )
            return Axis("OutOfDate", why)
        if layer.observed_generation != layer.generation:
            why = f"{name}: not all Scores were looked at under generation {layer.generation} yet"
            return Axis("Updating" if device == "Online" else "OutOfDate", why)
    return Axis("UpToDate")


def _workloads(seen: Seen, device: DeviceState) -> Axis[WorkloadsState]:
    state = seen.state
    if device != "Online":
        return Axis("Unknown", "what it said of them is not known to be so still")
    if state is None:
        why = f"its report cannot be read: {seen.problem}" if seen.problem else "no report yet"
        return Axis("Unknown", why)
    return _reported(state)


def _reported(state: ActualState) -> Axis[WorkloadsState]:
    found = {each.type: each for each in state.conditions}
    ready, degraded = found.get("Ready"), found.get("Degraded")
    if ready is None or ready.status == "Unknown":
        return Axis("Unknown", "it does not say whether it is Ready")
    if (failed := _failed(state)) and ready.reason != "Drifted":
        return Axis("Error", _first(failed, len(state.scores)))
    if degraded is not None and degraded.status == "True" and degraded.reason not in _OF_UPDATE:
        return Axis("Degraded", _in_words(degraded))
    if ready.status != "True":
        return Axis("Degraded", _in_words(ready))
    return Axis("Healthy")


def _count_ready(state: ActualState) -> int:
    return sum(each.resources_ready == each.resources_total for each in state.scores.values())


def _find_degraded(state: ActualState) -> str:
    found = (each for each in state.conditions if (each.type, each.status) == ("Degraded", "True"))
    return next((each.reason for each in found), "")


def _failed(state: ActualState) -> dict[str, Failure]:
    return {
        name: each.outcome
        for name, each in state.scores.items()
        if isinstance(each.outcome, Failure)
    }


def _first(failed: Mapping[str, Failure], scores: int) -> str:
    name = min(failed)
    return f"{len(failed)} of {scores} Scores failed: {name}: {failed[name].error.code}"


def _in_words(condition: Condition) -> str:
    return f"{condition.reason}: {condition.message}" if condition.message else condition.reason
