"""Confirmation by a new connection: what is told of a change that may cut the device off.

    not reachable now                  -> not begun: `make_unreachable`
    made, and not reached anew yet     -> waits: `make_not_reached`
    not reached in time                -> taken back: `say_cut_off`, told by `make_rolled_back` at each look

Shared by every reconciler whose changes prove themselves so. Who takes a change back is none of the agent:
whatever becomes of that, it is taken back in time.
"""

from __future__ import annotations

from harmony_core.change import NotReady
from harmony_core.errors import CapabilityUnavailable, NetworkRolledBack

__all__ = [
    "UNREACHABLE_S",
    "make_not_reached",
    "make_rolled_back",
    "make_unreachable",
    "say_cut_off",
    "say_cut_short",
    "say_remedy",
]

_TRY_AGAIN_S = 1.0
UNREACHABLE_S = 30.0
"""After so long a change that was not begun is tried again."""


def make_unreachable(resource_id: str) -> CapabilityUnavailable:
    """Return why a change is not begun now."""
    return CapabilityUnavailable(
        "the control plane is not reachable, so that a change of the network could not be confirmed; "
        "it is made once it is",
        resource=resource_id,
        retry_after_s=UNREACHABLE_S,
    )


def make_not_reached(resource_id: str, within_s: int) -> NotReady:
    """Return what a change that was made waits for."""
    return NotReady(
        "the control plane is not reached anew yet; "
        f"unless it is within {within_s} s, the change is taken back",
        resource=resource_id,
        reason="Progressing",
        look_again_s=_TRY_AGAIN_S,
    )


def say_cut_off(within_s: int) -> str:
    """Return why a change was rolled back that nobody has confirmed."""
    return (
        f"the change cut this device off: its control plane was not reached anew within {within_s} s, so "
        "the change was taken back"
    )


def say_cut_short() -> str:
    """Return why a change was rolled back that two reboots have interrupted."""
    return (
        "the device was booted anew before the change was confirmed, and again when it was tried once more, "
        "so the change was taken back"
    )


def say_remedy(why: str, what: str) -> str:
    """Return *why* a change was rolled back, with what to do; *what* is to be corrected."""
    return f"{why}; correct {what}, or remove the Score and push it anew to try again"


def make_rolled_back(resource_id: str, told: str) -> NetworkRolledBack:
    """Return what is reported of a change that was rolled back, at once and at every later look."""
    return NetworkRolledBack(told, resource=resource_id)
