"""When is it over? What a device is at work on, told from what has come to its end, for whoever waits.

A failure is an end even where it will be tried again: whoever waits wants to know now. But one that is going
to be rolled back is waited for, until it is. What is blocked behind a failure is not waited for.
"""

from __future__ import annotations

from .change import Progress
from .outcome import WILL_ROLL_BACK, Failure, Noop, Outcome, Running, Success

__all__ = ["count_held_removals", "has_failed", "is_done"]


def has_failed(outcome: Outcome) -> bool:
    """Return whether that is a failure; not while the device is about to roll back: how that
    ends is the answer."""
    return isinstance(outcome, Failure) and outcome.reason != WILL_ROLL_BACK


def is_done(outcome: Outcome, *, behind_failure: bool) -> bool:
    """Return whether nothing of it is under way; *behind_failure*: another Score has failed, for which it may
    wait."""
    match outcome:
        case Success() | Noop():
            return True
        case Failure():
            return has_failed(outcome)
        case Running(reason=reason):
            is_blocked = behind_failure and reason == "Blocked"
            return is_blocked or count_held_removals(outcome) > 0


def count_held_removals(outcome: Outcome) -> int:
    """Return how many resources are held back from removing, until that is confirmed; 0 for none."""
    match outcome:
        case Running(reason="Held", progress=Progress(total=int(total), unit="resources")):
            return total
        case _:
            return 0
