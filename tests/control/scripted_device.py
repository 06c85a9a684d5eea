"""A device that says what a test wants it to say, with exactly the rights of a device.

For what no honest agent does (garbage, another's name, silence), and for states that a real one passes too
quickly to be looked at.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any

import attrs

from harmony_core.outcome import ErrorInfo, Failure, Outcome
from harmony_core.wire.actual_state import (
    ActualState,
    CapabilityState,
    Condition,
    ConditionType,
    Heartbeat,
    ScoreStatus,
    to_json,
)
from harmony_core.wire.inventory import Inventory, inventory_to_json
from harmony_core.wire.vitals import Vitals
from tests.nats import Device

__all__ = ["BOOT", "NOON", "ScriptedDevice", "failure", "page"]

NOON = "2026-01-31T12:00:00.000Z"
BOOT = "0f9c7a52-6b1e-4f7c-9d7e-2a4c5b6d7e8f"


_COUNTER = itertools.count(1)


def page(outcome: Outcome, generation: int) -> ScoreStatus:
    """One Score's part of a report."""
    return ScoreStatus(
        kind="FileScore", version=1, observed_generation=generation, since=NOON, outcome=outcome
    )


def failure(code: str, message: str, retry_at: str | None = None) -> Failure:
    """A FAILURE with its error."""
    return Failure(error=ErrorInfo(code=code, message=message, retry_at=retry_at))


@attrs.frozen
class ScriptedDevice:
    """Speaks the wire, and interprets nothing."""

    device: Device

    @property
    def id(self) -> str:
        return self.device.id

    def state(
        self,
        generation: int,
        scores: Mapping[str, ScoreStatus] | None = None,
        *,
        ready: bool = True,
        rejected: str = "",
    ) -> ActualState:
        """A report of a device that offers files and nothing else."""
        pages = scores or {}
        conditions = [self._condition("Ready", ready, "AllConverged" if ready else "Progressing")]
        if rejected:
            conditions.append(self._condition("Degraded", True, "ManifestRejected", rejected))
        return ActualState(
            agent_id=self.id,
            agent_version="1.2.3",
            boot_id=BOOT,
            generation=generation,
            counter=next(_COUNTER),
            observed_generation=min(
                (p.observed_generation for p in pages.values()), default=generation
            ),
            capabilities={"FileSystemHost": CapabilityState(offered=True, available=True)},
            kinds={"FileScore": (1,)},
            scores=pages,
            conditions=tuple(conditions),
        )

    async def report(self, state: ActualState) -> ActualState:
        """Tell it as a device must, and return it as it was told: with what stands for it taken in."""
        wanted = await self.device.bucket("desired-state").get(self.id)
        if wanted is not None and not state.manifest_sha256:
            payload = base64.b64decode(json.loads(wanted.value)["payload"])
            state = attrs.evolve(state, manifest_sha256=hashlib.sha256(payload).hexdigest())
        await self.report_bytes(to_json(state))
        return state

    async def report_bytes(self, data: bytes) -> None:
        """Tell it, whatever it is, by compare-and-swap."""
        before = await self.device.bucket("actual-state").get(self.id)
        await self.device.say("actual-state", data, last=before.revision if before else 0)

    async def beat(
        self, generation: int = 0, *, vitals: Vitals | None = None, lifetime: str = ""
    ) -> None:
        """*lifetime*: what it says of how long this counts; an older agent says nothing."""
        beat = Heartbeat(
            agent_id=self.id,
            boot_id=BOOT,
            agent_version="1.2.3",
            generation=generation,
            observed_generation=generation,
            queue_seq=1,
            counter=next(_COUNTER),
            vitals=vitals,
        )
        await self.device.say("heartbeat", to_json(beat), lifetime=lifetime)

    async def tell_inventory(self, **fields: Any) -> None:
        """Tell of what it consists."""
        inventory = Inventory(
            agent_id=self.id, agent_version="1.2.3", counter=next(_COUNTER), **fields
        )
        await self.device.say("inventory", inventory_to_json(inventory))

    @staticmethod
    def _condition(kind: ConditionType, holds: bool, reason: str, message: str = "") -> Condition:
        return Condition(
            type=kind,
            status="True" if holds else "False",
            reason=reason,
            message=message,
            last_transition_time=NOON,
        )
