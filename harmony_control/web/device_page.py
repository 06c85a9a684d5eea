"""What is told of one device: made of its row and of what it has said last. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from harmony_control.fleet import DeviceRow, InventoryRead, Seen
from harmony_control.fleet_view.device_status import conditions
from harmony_control.fleet_view.facts import inventory_facts, vital_facts
from harmony_control.fleet_view.row import row_of
from harmony_core.outcome import Failure, Running
from harmony_core.wire.actual_state import Condition, Drift, LayerStatus, ScoreStatus
from harmony_core.wire.times import rfc3339

__all__ = ["DeviceLine", "DevicePage", "LayerPart", "ScorePart", "line_of", "page_of", "score_of"]


@attrs.frozen(kw_only=True)
class DeviceLine:
    """A device in a list."""

    id: str
    device: str
    """Online, Silent, Offline, Unverified or Never."""
    update: str
    """UpToDate, Updating, OutOfDate or Refused."""
    workloads: str
    """Healthy, Degraded, Error or Unknown."""
    reason: str
    last_seen: str | None
    labels: dict[str, str]
    wanted_generation: int | None
    observed_generation: int | None
    agent_version: str


@attrs.frozen(kw_only=True)
class ProgressPart:
    """How far something is that takes long."""

    done: int
    total: int | None
    unit: str


@attrs.frozen(kw_only=True)
class ResourcePart:
    """One resource of a Score, where it is worth telling: what is as desired is counted only."""

    id: str
    is_ready: bool
    facts: dict[str, Any]


@attrs.frozen(kw_only=True)
class ScorePart:
    """One Score on the device."""

    id: str
    kind: str
    version: int
    status: str
    """SUCCESS, NOOP, RUNNING or FAILURE."""
    reason: str
    message: str
    error_code: str | None
    retry_at: str | None
    since: str
    looked_at: str | None
    layer: str
    """Where it comes from: ``agent``, its own manifest, or ``class:…``."""
    observed_generation: int
    attempts: int
    progress: ProgressPart | None
    drift_count: int
    last_drift: Drift | None
    resources_total: int
    resources_ready: int
    resources: list[ResourcePart]


@attrs.frozen(kw_only=True)
class LayerPart:
    """One class of the device, as that follows it."""

    name: str
    """Of the class."""
    generation: int
    """Which it follows; 0 for none."""
    wanted: int
    phase: str
    """Waiting, Admitted, Applied, RolledBack or Refused."""
    reason: str
    message: str
    since: str


@attrs.frozen
class Fact:
    """Something that is known of the device itself, in words."""

    name: str
    text: str


@attrs.frozen(kw_only=True)
class DevicePage:
    """Everything that is known of one device without asking it."""

    line: DeviceLine
    presence: str
    presence_at: str | None
    problem: str
    """Why what it reports cannot be read or believed; empty where it can."""
    policy: str
    removals_held: int
    conditions: list[Condition]
    vitals: list[Fact]
    """Heat, power, room, memory, clock, as it was heard last; none while it is not."""
    inventory: list[Fact]
    """Of what it consists; none where it never told."""
    inventory_problem: str
    """Why its inventory is not believed; empty where it is."""
    layers: list[LayerPart]
    """Its classes, by name. Its own manifest is followed before any."""
    scores: list[ScorePart]
    """Failed ones first, then those that are under way."""


_ORDER = {"FAILURE": 0, "RUNNING": 1}


def line_of(row: DeviceRow) -> DeviceLine:
    """Return *row* as it is told in a list."""
    return DeviceLine(
        id=row.id,
        device=row.device,
        update=row.update,
        workloads=row.workloads,
        reason=row.reason,
        last_seen=rfc3339(row.last_seen) if row.last_seen else None,
        labels=dict(row.labels),
        wanted_generation=row.wanted_generation,
        observed_generation=row.observed_generation,
        agent_version=row.agent_version,
    )


def page_of(row: DeviceRow, seen: Seen, inventory: InventoryRead | None) -> DevicePage:
    """Return the device's page. Its conditions are weighed by whether it is heard."""
    told = inventory.value if inventory else None
    state = seen.state
    scores = [] if state is None else [score_of(name, each) for name, each in state.scores.items()]
    return DevicePage(
        line=line_of(row),
        presence=seen.presence,
        presence_at=rfc3339(seen.at) if seen.at else None,
        problem=seen.problem,
        policy=state.policy if state else "",
        removals_held=state.removals_held if state else 0,
        conditions=list(conditions(seen)),
        vitals=[Fact(*each) for each in vital_facts(row_of(seen))],
        inventory=[Fact(*each) for each in inventory_facts(told)] if told else [],
        inventory_problem=inventory.problem if inventory else "",
        layers=_layers_of(state.layers) if state else [],
        scores=sorted(scores, key=lambda each: (_ORDER.get(each.status, 2), each.id)),
    )


def _layers_of(layers: Mapping[str, LayerStatus]) -> list[LayerPart]:
    return [
        LayerPart(
            name=name.removeprefix("class:"),
            generation=each.generation,
            wanted=each.wanted,
            phase=each.phase,
            reason=each.reason,
            message=each.message,
            since=each.since,
        )
        for name, each in sorted(layers.items())
    ]


def score_of(name: str, status: ScoreStatus) -> ScorePart:
    """Return one Score as it is told."""
    outcome = status.outcome
    error = outcome.error if isinstance(outcome, Failure) else None
    progress = outcome.progress if isinstance(outcome, Running) else None
    return ScorePart(
        id=name,
        kind=status.kind,
        version=status.version,
        status=outcome.status,
        reason=outcome.reason,
        message=(error.message if error else "") or outcome.message,
        error_code=error.code if error else None,
        retry_at=error.retry_at if error else None,
        since=status.since,
        looked_at=status.looked_at,
        layer=status.layer,
        observed_generation=status.observed_generation,
        attempts=status.attempts,
        progress=ProgressPart(done=progress.done, total=progress.total, unit=progress.unit)
        if progress
        else None,
        drift_count=status.drift_count,
        last_drift=status.last_drift,
        resources_total=status.resources_total,
        resources_ready=status.resources_ready,
        resources=[_resource_of(each, found) for each, found in status.resources.items()],
    )


def _resource_of(name: str, found: Mapping[str, Any]) -> ResourcePart:
    return ResourcePart(id=name, is_ready=found.get("ready") is not False, facts=dict(found))
