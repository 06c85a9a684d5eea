"""A generation: what is known for as long as one manifest is the effective one, and is forgotten with it.

    a manifest is accepted -> Generations.begin -> a new Generation in place of the old one, whole
                                                -> planned -> used up, Score by Score

What outlives a manifest (baselines, trials, the plan cache) is not kept here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs

from harmony_agent.store.in_force import InForce
from harmony_core.outcome import Outcome
from harmony_core.resources import State
from harmony_core.wire.manifest import SerializedScore

from .desired_index import DesiredIndex
from .removal_budget import RemovalBudget
from .run_result import RunResult

__all__ = ["Generation", "Generations", "Look"]

Look: TypeAlias = tuple[
    Outcome, Mapping[str, State], Mapping[str, object], Sequence[tuple[str, Sequence[str]]]
]
"""What a dry run came to: its Outcome, what it found, the facts that it read, and what it would do."""


@attrs.define(kw_only=True)
class Generation:
    """One manifest's plans, and what was learned under it."""

    index: DesiredIndex = attrs.field(factory=DesiredIndex)
    """What the newest plan of each Score names."""
    removals: RemovalBudget = attrs.field(factory=RemovalBudget)
    planned: InForce | None = None
    """What is in force, once all of it is planned, or is left to each Score's own turn."""
    nothing_in_flight: bool = False
    """Whether nothing was under way for an older manifest when it was planned."""
    replayed: dict[str, RunResult] = attrs.field(factory=dict[str, RunResult])
    """Plans that are known without a dry run, by Score, until they have been used."""
    plans: dict[str, asyncio.Task[RunResult]] = attrs.field(
        factory=dict[str, "asyncio.Task[RunResult]"]
    )
    """All others, by Score."""
    not_prefetched: set[str] = attrs.field(factory=set[str])
    """Scores of which something was not ready when last asked."""
    looks_when_stopped: dict[str, Look] = attrs.field(factory=dict[str, Look])
    """What a look has shown when going on was found to be in vain, by Score."""

    def abandon_plans(self) -> None:
        """Discard all plans, and end those that are being made."""
        for task in self.plans.values():
            task.cancel()
        self.plans.clear()
        self.replayed.clear()


class Generations:
    """Knows the `current` one, for all who need it."""

    def __init__(self, current: Generation | None = None) -> None:
        self.current = current or Generation()

    def begin(self, entries: Iterable[SerializedScore], *, nothing_in_flight: bool) -> Generation:
        """Put the generation of a manifest of these *entries* in place of the current one."""
        self.current.abandon_plans()
        self.current = Generation(
            index=DesiredIndex(entries),
            # Until the new one is planned, what still runs for the old one may remove what it could.
            removals=self.current.removals,
            nothing_in_flight=nothing_in_flight,
        )
        return self.current
