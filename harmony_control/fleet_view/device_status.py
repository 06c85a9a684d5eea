"""How things stand: what a device has said last, weighed by whether it is heard and by what is wanted of it.

A report is true for the moment in which it was made. So of a device that is offline every condition is
Unknown, and one that has not taken in what is wanted of it is not Ready, whatever it has said before.
"""

from __future__ import annotations

import attrs

from harmony_control.bus.reports import Seen
from harmony_core.wire.actual_state import ActualState, Condition
from harmony_core.wire.times import rfc3339

__all__ = ["conditions", "is_behind", "refusal"]


def refusal(state: ActualState) -> str | None:
    """Return why the device refuses what is in its bucket; None when it does not."""
    for each in state.conditions:
        if each.reason == "ManifestRejected" and each.status == "True":
            return each.message
    return None


def is_behind(seen: Seen) -> bool:
    """Return whether something newer is wanted of the device than it has taken in."""
    state = seen.state
    return state is not None and seen.wanted is not None and state.generation < seen.wanted


def conditions(seen: Seen) -> tuple[Condition, ...]:
    """Return the device's conditions as they are to be believed now."""
    state = seen.state
    if state is None:
        return ()
    return tuple(_read_own(each, seen, state) for each in state.conditions)


def _read_own(told: Condition, seen: Seen, state: ActualState) -> Condition:
    if seen.presence != "Heard":
        last = f" since {rfc3339(seen.at)}" if seen.at else ""
        said = " ".join(filter(None, (told.status, told.reason)))
        message = f"the device was not heard{last}; it said {said} then"
        return attrs.evolve(told, status="Unknown", reason="DeviceOffline", message=message)
    if told.type == "Ready" and told.status == "True":
        if (why := refusal(state)) is not None:
            return attrs.evolve(told, status="False", reason="ManifestRejected", message=why)
        if is_behind(seen):
            return attrs.evolve(
                told, status="False", reason="Behind", message=_how_far(seen, state)
            )
    if told.type == "Stale" and told.status == "False" and is_behind(seen):
        return attrs.evolve(told, status="True", reason="Behind", message=_how_far(seen, state))
    return told


def _how_far(seen: Seen, state: ActualState) -> str:
    return f"generation {seen.wanted} is wanted, and the device has taken in {state.generation}"
