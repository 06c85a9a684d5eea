"""What is told of a Score that has drifted, and is left so: for good, or until its repair is due.

An Outcome rests on the last look. So what is not as wanted is a FAILURE with code `Drifted`, also where
nobody is about to put it right.
"""

from __future__ import annotations

from collections.abc import Collection

from harmony_core.errors import Drifted
from harmony_core.outcome import ErrorInfo, Failure
from harmony_core.wire.actual_state import ScoreStatus

__all__ = ["is_left_drifted", "left_for_good", "left_until"]

_NAMED = 3


def left_for_good(agent_id: str, score: str, resource_ids: Collection[str]) -> Failure:
    """Return the Outcome of *score*, whose policy is to report drift of *resource_ids*, and to leave it."""
    return _failure(
        resource_ids,
        "it is left so, since this Score's policy.drift is report; put it right with "
        f"`harmony reconcile {agent_id} {score} --enforce`",
        None,
    )


def left_until(
    agent_id: str, score: str, resource_ids: Collection[str], *, retry_at: str
) -> Failure:
    """Return the Outcome of *score*, of which *resource_ids* drift so often that repairs wait."""
    return _failure(
        resource_ids,
        "it is put right later, since it is changed again and again; find out by whom, or put it right now "
        f"with `harmony reconcile {agent_id} {score}`",
        retry_at,
    )


def is_left_drifted(page: ScoreStatus | None) -> bool:
    """Return whether *page* says that the Score was in order but for what has drifted, and is left so."""
    return (
        page is not None
        and isinstance(page.outcome, Failure)
        and page.outcome.error.code == Drifted.code
    )


def _failure(resource_ids: Collection[str], what_comes: str, retry_at: str | None) -> Failure:
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
