"""One pass over one Score: decode, check, interpret on a Stage; plan and deed by the same path.

    entry -> decode -> check (faults, capabilities, poison) -> interpret(apply?) -> Pass

Errors of decoding and checking are verdicts like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from harmony_agent.plan.ownership import Ownership
from harmony_agent.store.desired import Desired
from harmony_agent.store.events import Events
from harmony_core.change import Change
from harmony_core.errors import HarmonyError, MissingCapability, TimedOut
from harmony_core.interpretation import Verdict, failure_of, interpret
from harmony_core.inventory import Facts, Inventory
from harmony_core.outcome import Noop, Success
from harmony_core.reconciler import Offers
from harmony_core.resources import Resource, State
from harmony_core.score import AnyScore
from harmony_core.stage import Policy, Stage
from harmony_core.unexpected import as_harmony_error
from harmony_core.wire.manifest import SerializedScore

from .crash_guard import CrashGuard
from .decoder import Decoded, Decoder

__all__ = ["Device", "RunResult", "ScoreRunner"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
DEADLINE_S = 300.0
"""For one interpretation. Interpreting never waits, so this only ends what hangs."""


@attrs.define(kw_only=True)
class Device:
    """What a Score is interpreted on: what is offered, what is allowed, what is known."""

    offers: Offers
    missing: Mapping[str, str]
    """What is not offered here, and why."""
    policy: Policy
    facts: Facts
    """Read again now and then."""
    agent_id: str


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
class ScoreRunner:
    """Puts Scores on Stages."""

    device: Device
    decoder: Decoder
    desired: Desired
    ownership: Ownership
    crash_guard: CrashGuard
    events: Events

    async def run(
        self,
        entry: SerializedScore,
        *,
        apply: bool,
        planned: Mapping[str, State] = MappingProxyType({}),
        rewritten: Collection[str] = (),
    ) -> RunResult:
        """Interpret *entry*, in earnest or as a dry run. Raises nothing but cancellation."""
        try:
            self._refuse_fault(entry)
            decoded = self.decoder.decode(entry)
            self._refuse_unoffered(decoded.score)
            self.crash_guard.check(entry.id, decoded.spec_hash)
        except HarmonyError as error:
            return RunResult(entry=entry, verdict=failure_of(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a package's own code: its Score's FAILURE
            return RunResult(entry=entry, verdict=failure_of(as_harmony_error(error)))
        audit = self.events.of_pass(entry)
        stage = Stage(
            offers=self.device.offers,
            policy=self.device.policy,
            claims=self.ownership.claims(entry.id),
            audit=audit,
            apply=apply,
            planned=planned,
            rewritten=rewritten,
            identities=self.ownership.identities(entry.id),
        )
        audit.wanted = stage.wanted
        inventory = self.inventory()
        verdict = await self._on_stage(decoded, inventory, stage)
        return RunResult(
            entry=entry,
            verdict=verdict,
            applied=apply,
            wanted=stage.wanted,
            unwanted=stage.unwanted,
            identities=stage.identities,
            referenced=stage.referenced,
            changes=stage.changes,
            states=stage.states,
            rewritten=stage.rewritten,
            answers=inventory.answers(inventory.read),
            has_missing_inputs=bool(inventory.missing),
            only_ensured=stage.only_ensured,
        )

    def inventory(self) -> Inventory:
        """This device, as it is today."""
        return Inventory(
            agent_id=self.device.agent_id, facts=self.device.facts, labels=self.desired.labels
        )

    async def _on_stage(self, decoded: Decoded, inventory: Inventory, stage: Stage) -> Verdict:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self.crash_guard.guard(
                    decoded.entry.id,
                    decoded.spec_hash,
                    interpret(decoded.score, inventory, stage),
                )
        except TimeoutError:
            return failure_of(
                TimedOut(
                    f"interpreting did not end within {DEADLINE_S:g} s; "
                    "a Score must not wait, but raise what is not ready"
                )
            )
        finally:
            if stage.apply:
                # The effect of a verb under way lands even when its caller was cancelled.
                await stage.settled()

    def _refuse_fault(self, entry: SerializedScore) -> None:
        if fault := self.desired.faults.get(entry.id):
            raise fault

    def _refuse_unoffered(self, score: AnyScore) -> None:
        if score.requires <= self.device.offers.keys():
            return
        for name in sorted(score.requires - self.device.offers.keys()):
            reason = self.device.missing.get(name, "nothing installed here provides it")
            raise MissingCapability(f"{score.kind} needs {name}, which is not offered: {reason}")
