"""When is it over? What a device is at work on, told from what has come to its end, for whoever waits.

A failure is an end even where it will be tried again: whoever waits wants to know now. But one that is going
to be rolled back is waited for, until it is. What is blocked behind a failure is not waited for.
"""

from __future__ import annotations

from .change import Progress
from .outcome import WILL_ROLL_BACK, Failure, Noop, Outcome, Running, Success

__all__ = ["count_held_removals", "has_failed", "is_done"]


def has_failed(outcome: Outcome) -> bool:
    """Return whether the Score has failed; not while the device is about to roll back: then the end of the
    rollback is the answer."""
    return isinstance(outcome, Failure) and outcome.reason != WILL_ROLL_BACK


def is_done(outcome: Outcome, *, behind_failure: bool) -> bool:
    """Return whether nothing of the Score is under way. *behind_failure* says that another Score, for which
    it may wait, has failed."""
    match outcome:
        case Success() | Noop():
            return True
        case Failure():
            return has_failed(outcome)
        case Running(reason=reason):
            is_blocked = behind_failure and reason == "Blocked"
            return is_blocked or count_held_removals(outcome) > 0


def count_held_removals(outcome: Outcome) -> int:
    """Return how many removals of resources are pending until they are confirmed; 0 for none."""
    match outcome:
        case Running(reason="Held", progress=Progress(total=int(total), unit="resources")):
            return total
        case _:
            return 0
