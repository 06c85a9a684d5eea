"""The Outcome of a Score that has drifted, and is left so: for good, or until its repair is due.

An Outcome rests on the last look. So what is not as wanted is a FAILURE with code `Drifted`, also where
nobody is about to put it right.
"""

from __future__ import annotations

from collections.abc import Collection

from harmony_core.errors import Drifted
from harmony_core.outcome import ErrorInfo, Failure
from harmony_core.wire.actual_state import ScoreStatus

__all__ = ["describe_drift", "is_left_drifted"]

_NAMED = 3


def describe_drift(
    agent_id: str, score: str, resource_ids: Collection[str], *, retry_at: str | None = None
) -> Failure:
    """Return the Outcome of *score*, of which *resource_ids* have drifted and are left so.

    They are put right at *retry_at* (RFC 3339), since they drift so often that repairs wait; None: never,
    since its policy is to report drift.
    """
    if retry_at is None:
        what_comes = (
            "it is left so, since this Score's policy.drift is report; put it right with "
            f"`harmony reconcile {agent_id} {score} --enforce`"
        )
    else:
        what_comes = (
            "it is put right later, since it is changed again and again; find out by whom, or put it right "
            f"now with `harmony reconcile {agent_id} {score}`"
        )
    named = sorted(resource_ids)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    told = f"{', '.join(named[:_NAMED])}{more} was changed by somebody else"
    error = ErrorInfo(
        code=Drifted.code,
        message=f"{told}; {what_comes}",
        resource=named[0] if named else None,
        retry_at=retry_at,
    )
    return Failure(error=error, reason=Drifted.code, message=told)


def is_left_drifted(status: ScoreStatus | None) -> bool:
    """Return whether *status* says that the Score was in order but for what has drifted, and is left so."""
    return (
        status is not None
        and isinstance(status.outcome, Failure)
        and status.outcome.error.code == Drifted.code
    )
