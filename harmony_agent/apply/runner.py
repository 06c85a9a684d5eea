"""Run one Score: decode it, check it, interpret it on a Stage. A plan takes the same path, without effect.

    entry -> decode, with its references -> check (faults, capabilities, crash guard)
          -> interpret(apply?) -> RunResult

An error of decoding or checking is a result like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import attrs

from harmony_agent.plan.device import Device
from harmony_agent.plan.ownership import Ownership
from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.desired import Desired
from harmony_agent.store.events import Events
from harmony_core.errors import HarmonyError, MissingCapability, PolicyRefused, TimedOut
from harmony_core.interpretation import Verdict, failure_of, interpret
from harmony_core.inventory import Inventory
from harmony_core.outcome import Running
from harmony_core.resources import State
from harmony_core.score import AnyScore
from harmony_core.stage import Stage
from harmony_core.unexpected import as_harmony_error
from harmony_core.wire.manifest import SerializedScore

from .crash_guard import CrashGuard
from .decoder import Decoded, Decoder

__all__ = ["ScoreRunner"]

DEADLINE_S = 300.0
"""For one interpretation. Interpreting never waits, so this only ends what hangs."""


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
        awaits_changes: bool = False,
        unprepared: Mapping[str, HarmonyError] = MappingProxyType({}),
    ) -> RunResult:
        """Interpret *entry* and apply it, or make a dry run; the other arguments are those of `Stage`. Raise
        nothing but cancellation."""
        inventory = self.device.inventory(self.desired.labels)
        try:
            self._refuse_fault(entry)
            self._refuse_kind(entry)
            decoded = self.decoder.decode(entry, inventory)
            self._refuse_unoffered(decoded.score)
            self.crash_guard.check(entry.id, decoded.spec_hash)
        except HarmonyError as error:
            return RunResult(
                entry=entry,
                verdict=failure_of(error),
                may_change=awaits_changes,
                answers=inventory.answers(inventory.read),
                has_missing_inputs=bool(inventory.missing),
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a package's own code: its Score's FAILURE
            return RunResult(
                entry=entry, verdict=failure_of(as_harmony_error(error)), may_change=awaits_changes
            )
        audit = self.events.of_run(entry)
        stage = Stage(
            offers=self.device.offers,
            policy=self.device.policy,
            claims=self.ownership.claims(entry.id),
            audit=audit,
            apply=apply,
            planned=planned,
            rewritten=rewritten,
            awaits_changes=awaits_changes,
            identities=self.ownership.identities(entry.id),
            unprepared=unprepared,
            secret_words=decoded.secret_words,
        )
        audit.wanted = stage.wanted
        verdict = await self._interpret(decoded, inventory, stage)
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
            may_change=awaits_changes
            or bool(stage.changes)
            or isinstance(verdict.outcome, Running),
            answers=inventory.answers(inventory.read),
            has_missing_inputs=bool(inventory.missing),
            only_ensured=stage.only_ensured,
        )

    async def _interpret(self, decoded: Decoded, inventory: Inventory, stage: Stage) -> Verdict:
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
                await stage.wait_idle()
                self.decoder.forget_earlier(decoded.entry.id)

    @contextmanager
    def aside(self) -> Generator[ScoreRunner]:
        """Yield a runner for what is not effective; see `Decoder.aside`."""
        with self.decoder.aside() as decoder:
            yield attrs.evolve(self, decoder=decoder)

    def _refuse_fault(self, entry: SerializedScore) -> None:
        if fault := self.desired.faults.get(entry.id):
            raise fault

    def _refuse_kind(self, entry: SerializedScore) -> None:
        if refusal := self.device.policy.kind_refusal(entry.kind):
            raise PolicyRefused(refusal)

    def _refuse_unoffered(self, score: AnyScore) -> None:
        if score.requires <= self.device.offers.keys():
            return
        for name in sorted(score.requires - self.device.offers.keys()):
            reason = self.device.missing.get(name, "nothing installed here provides it")
            raise MissingCapability(f"{score.kind} needs {name}, which is not offered: {reason}")
