"""Outcome: what became of one Score, a closed union of four.

`interpret` returns one; what finally counts is decided by the Stage, which never reports better than
what it saw. On the wire each is an object with the same five fields, told apart by ``status``.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias, overload

import attrs

from .change import Changes, Progress

__all__ = [
    "WILL_ROLL_BACK",
    "ErrorInfo",
    "Failure",
    "Noop",
    "Outcome",
    "Running",
    "RunningReason",
    "Success",
    "outcome_of",
]

WILL_ROLL_BACK = "WillRollBack"
"""The reason of a FAILURE that is tried again until its deadline, or is being rolled back."""
RunningReason = Literal["Progressing", "NotReady", "Blocked", "Held", "Removing"]


@attrs.frozen(kw_only=True)
class Success:
    """Converged, and something was changed since the Score's newest generation arrived."""

    status: ClassVar[str] = "SUCCESS"
    reason: str = "Converged"
    message: str = ""


@attrs.frozen(kw_only=True)
class Noop:
    """Converged; it was so already."""

    status: ClassVar[str] = "NOOP"
    reason: str = "AlreadyConverged"
    message: str = ""


@attrs.frozen(kw_only=True)
class Running:
    """Under way, waiting, or in place and not yet healthy."""

    status: ClassVar[str] = "RUNNING"
    reason: RunningReason
    message: str = ""
    progress: Progress | None = None


@attrs.frozen(kw_only=True)
class ErrorInfo:
    """A `HarmonyError`, as it goes over the wire. ``retry_at`` None means: permanent."""

    code: str
    message: str
    resource: str | None = None
    retry_at: str | None = None


@attrs.frozen(kw_only=True)
class Failure:
    """It could not be done. The error says why, and whether and when it is tried again."""

    status: ClassVar[str] = "FAILURE"
    error: ErrorInfo
    reason: str = "Failed"
    message: str = ""


Outcome: TypeAlias = Success | Noop | Running | Failure


@overload
def outcome_of(*parts: Changes) -> Success | Noop: ...


@overload
def outcome_of(*parts: Changes | Outcome) -> Outcome: ...


def outcome_of(*parts: Changes | Outcome) -> Outcome:
    """Return SUCCESS if anything was changed, else NOOP: what most Scores return.

    *parts* may also be the Outcomes of other Scores, of which this one is made: the worst of them counts,
    FAILURE before RUNNING.
    """
    for worse in (Failure, Running):
        for part in parts:
            if isinstance(part, worse):
                return part
    changed = any(isinstance(part, Changes) and part.changed for part in parts)
    return Success() if changed or any(isinstance(part, Success) for part in parts) else Noop()
