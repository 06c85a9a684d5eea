"""The status of one Score: what is reported of it, and which change of it is worth a write to disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from harmony_agent.clock import timestamp
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.resources import State
from harmony_core.wire.actual_state import ScoreStatus, state_to_json
from harmony_core.wire.manifest import SerializedScore

__all__ = ["Seen", "has_converged", "is_ready", "is_same", "is_worth_a_write", "since"]


@attrs.frozen
class Seen:
    """What was last seen of a Score's resources."""

    states: Mapping[str, State] | None
    """None: what the last run left."""
    resources: Mapping[str, Mapping[str, Any]]
    ready: int

    @classmethod
    def of(cls, states: Mapping[str, State]) -> Self:
        resources = {resource: state_to_json(state) for resource, state in states.items()}
        return cls(states, resources, sum(map(is_ready, resources.values())))

    @classmethod
    def of_resources(cls, resources: Mapping[str, Mapping[str, Any]]) -> Self:
        return cls(None, resources, sum(map(is_ready, resources.values())))


def has_converged(outcome: Outcome) -> bool:
    """Return whether the Score is as desired, and so is everything that it has asked for."""
    return isinstance(outcome, Success | Noop)


def since(before: ScoreStatus | None, outcome: Outcome) -> str:
    if before is not None and (before.outcome.status, before.outcome.reason) == (
        outcome.status,
        outcome.reason,
    ):
        return before.since
    return timestamp()


def is_same(
    status: ScoreStatus,
    entry: SerializedScore,
    outcome: Outcome,
    attempts: int,
    seen: Seen,
    ready: int,
) -> bool:
    """Return whether *status* differs from what was found now by its generation at most."""
    return (
        status.outcome == outcome
        and status.attempts == attempts
        and status.resources == seen.resources
        and status.resources_ready == ready
        and status.kind == entry.kind
        and status.version == entry.version
    )


def is_worth_a_write(before: ScoreStatus, status: ScoreStatus) -> bool:
    if before.observed_generation != status.observed_generation:
        return True
    return _lasting(before) != _lasting(status)


def _lasting(status: ScoreStatus) -> ScoreStatus:
    """Return *status* without what is not worth a write to disk."""
    outcome = status.outcome
    match outcome:
        case Running():
            outcome = attrs.evolve(outcome, message="", progress=None)
        case Failure():
            outcome = attrs.evolve(outcome, error=attrs.evolve(outcome.error, retry_at=None))
            # How it looks meanwhile may change with every event; whoever starts anew looks first.
            status = attrs.evolve(status, resources={}, resources_total=0, resources_ready=0)
        case Success() | Noop():
            pass
    return attrs.evolve(status, attempts=0, outcome=outcome)


def is_ready(state: Mapping[str, Any]) -> bool:
    """Return whether a resource is as its Score needs it, as `State.is_ready` has said."""
    return bool(state.get("ready", True))
