"""The result of one run of a Score: of a dry run, what it would change; else, what it has changed.

ScoreRunner.run(apply=False) -> RunResult -> a plan
ScoreRunner.run(apply=True)  -> RunResult -> an Outcome
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from harmony_core.change import Change
from harmony_core.interpretation import Verdict
from harmony_core.outcome import Noop, Running, Success
from harmony_core.resources import Resource, State
from harmony_core.wire.manifest import SerializedScore

__all__ = ["RunResult", "ScorePlan"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class RunResult:
    """What one interpretation came to, and what it saw."""

    entry: SerializedScore
    verdict: Verdict
    applied: bool = False
    """In earnest, not as a dry run."""
    wanted: Mapping[str, Resource] = _NOTHING
    """What it asked to be, by id."""
    unwanted: Collection[str] = ()
    """The ids of what it asked to be gone."""
    identities: Mapping[str, frozenset[str]] = _NOTHING
    """The other names by which the device knows what it asked to be, by id."""
    referenced: Collection[str] = ()
    """The ids of what it asked to be, and of what it only looked at."""
    changes: Sequence[Change] = ()
    states: Mapping[str, State] | None = None
    """What it saw of them; None when it came to no interpretation."""
    rewritten: Collection[str] = ()
    """Of a dry run: the files that will have other content, those of the Scores before it included."""
    may_change: bool = False
    """Of a dry run: whether it, or a Score before it, would change anything, as far as can be told."""
    answers: Mapping[str, object] = _NOTHING
    """The facts and labels that it read."""
    has_missing_inputs: bool = False
    """Whether it read one that is missing: nothing may be taken away because of it."""
    only_ensured: bool = False
    """Whether it asked nothing else of the device than that things be so."""

    reported_drift: Collection[str] = ()
    """Of a dry run: what has drifted, and is left so."""

    @property
    def interpreted(self) -> bool:
        return self.states is not None

    @property
    def found(self) -> Mapping[str, State] | None:
        """How things are: of a dry run, before what it would change."""
        if self.applied or not self.changes or self.states is None:
            return self.states
        before = {change.resource: change.before for change in reversed(self.changes)}
        now = {**self.states, **before}
        return {rid: state for rid, state in now.items() if state is not None}

    @property
    def completed(self) -> bool:
        """Whether it went through to the end, so that what it did not name is not wanted."""
        return isinstance(self.verdict.outcome, Success | Noop)

    @property
    def is_noop(self) -> bool:
        """Whether everything is as it should be."""
        return isinstance(self.verdict.outcome, Noop)


@attrs.frozen(kw_only=True)
class ScorePlan:
    """What one Score would change, for somebody who asks."""

    score: str
    planned: RunResult | None
    """None for a Score that would be taken away."""
    removals: Sequence[Change] = ()
    held: bool = False
    """Whether its removals would be held back, since they are very many together."""

    @property
    def unknown(self) -> str:
        """Why the plan ends early; empty when it does not."""
        if self.planned is None or not isinstance(self.planned.verdict.outcome, Running):
            return ""
        return self.planned.verdict.outcome.message
