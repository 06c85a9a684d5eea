"""The fleet as numbers, for Prometheus: counted, whenever it is asked for, of what is shown anyway.

    Live (rows, rollouts), Readings (root) -> `FleetCollector` -> `MetricsApp` -> /metrics

Series are by state and by class, never by device, so that there are as many for ten thousand devices as for
ten. What devices write themselves becomes a label only in one place, their agents' versions, and there in a
bounded number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from typing import get_args

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from harmony_control.alerts.notifier import Notifier
from harmony_control.fleet import DeviceRow
from harmony_control.fleet_view.row import DEVICE_STATES, UPDATE_STATES, WORKLOADS_STATES
from harmony_core.outcome import Failure, Noop, Running, Success
from harmony_core.wire.actual_state import ConditionType
from harmony_core.wire.gate import GateState

from .live import Live
from .readings import Readings

__all__ = ["AlertsCollector", "FleetCollector", "make_registry"]

VERSIONS_MOST = 10
"""The most frequent versions of the agent; all others are ``other``."""
VERSIONS_EVER_MOST = 50
"""So many different ones in the life of the process: a device can say another with each heartbeat."""
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,31}")
_OTHER = "other"
AGES_S = (15.0, 30.0, 45.0, 60.0, 90.0, 180.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
"""Heartbeats come every 30 s and count for 90 s; of devices on thin lines for up to 30 min."""
REASONS = (
    "LedgerUnusable",
    "LedgerLost",
    "ManifestRejected",
    "RootRejected",
    "IndexRejected",
    "ClassRefused",
    "DeviceCopied",
    "ForeignReport",
    "FloorLost",
    "InternalError",
    "RemovalsHeld",
    "CapabilityUnavailable",
    "ScoreFailed",
    "DriftKeepsComing",
    "Drifted",
)
"""Why a device says that it is degraded, as docs/wire.md has them; any other word is ``other``."""
_CONDITIONS: tuple[ConditionType, ...] = get_args(ConditionType)
_CONDITION_STATUSES = ("True", "False", "Unknown")
_OUTCOMES = tuple(each.status for each in (Success, Noop, Running, Failure))
_GATE_STATES: tuple[GateState, ...] = get_args(GateState)


def to_label(word: str) -> str:
    """Return a word of ours as a label: ``UpToDate`` is ``up_to_date``, ``SUCCESS`` is ``success``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()


@attrs.define
class _Versions:
    """Which versions have become a label."""

    _known: set[str] = attrs.field(factory=set[str], init=False)

    def count(self, rows: Iterable[DeviceRow]) -> Mapping[str, int]:
        """Return how many devices have which version; the rest under ``other``."""
        counted = Counter(each.agent_version for each in rows if each.agent_version)
        told: Counter[str] = Counter()
        for name, count in sorted(counted.items(), key=lambda each: (-each[1], each[0])):
            told[name if len(told) < VERSIONS_MOST and self._may_be_told(name) else _OTHER] += count
        return told

    def _may_be_told(self, name: str) -> bool:
        if name in self._known:
            return True
        if len(self._known) >= VERSIONS_EVER_MOST or not _VERSION.fullmatch(name):
            return False
        self._known.add(name)
        return True


class FleetCollector(Collector):
    """Counts the fleet whenever it is asked."""

    def __init__(
        self,
        live: Live,
        readings: Readings,
        *,
        is_connected: Callable[[], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._live = live
        self._readings = readings
        self._is_connected = is_connected
        self._now = now
        self._versions = _Versions()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. What was never read is left out: it is not 0."""
        build = GaugeMetricFamily(
            "harmony_build_info", "1, with the version of harmony serve.", labels=["version"]
        )
        build.add_metric([version("harmony")], 1)
        yield build
        yield _number(
            "harmony_bus_connected",
            "Whether the message server is reached (1 or 0).",
            self._is_connected(),
        )
        yield _number(
            "harmony_fleet_in_sync",
            "Whether what is told of devices is what the fleet says now (1), or may be old (0).",
            not self._live.problem,
        )
        if (read_at := self._live.read_at) is not None:
            yield _number(
                "harmony_fleet_last_read_timestamp_seconds",
                "When something was last heard of any device, in seconds since 1970.",
                read_at.timestamp(),
            )
            yield from self._collect_devices(self._live.board.rows())
        rollouts_at, root_at = self._live.rollouts.read_at, self._readings.read_at
        if rollouts_at is not None and root_at is not None:
            yield _number(
                "harmony_rollouts_last_read_timestamp_seconds",
                "When rollouts and the root document were read last, in seconds since 1970.",
                min(rollouts_at, root_at).timestamp(),
            )
            yield from self._collect_rollouts()
            yield from self._collect_root()

    def _collect_devices(self, rows: Sequence[DeviceRow]) -> Iterator[Metric]:
        yield _counted(
            "harmony_devices",
            "Devices, by whether they are heard.",
            {"state": DEVICE_STATES},
            Counter((each.device,) for each in rows),
        )
        yield _counted(
            "harmony_devices_update",
            "Devices, by whether they have what is wanted of them.",
            {"state": UPDATE_STATES},
            Counter((each.update,) for each in rows),
        )
        yield _counted(
            "harmony_devices_workloads",
            "Devices, by whether what they run works; unknown while a device is not heard.",
            {"state": WORKLOADS_STATES},
            Counter((each.workloads,) for each in rows),
        )
        # What the others said of themselves may be so no more.
        online = [each for each in rows if each.device == "Online"]
        outcomes: Counter[tuple[str, ...]] = Counter()
        for row in online:
            for outcome, count in row.outcomes.items():
                outcomes[outcome,] += count
        yield _counted(
            "harmony_scores",
            "Scores on devices that are online, by their Outcome.",
            {"outcome": _OUTCOMES},
            outcomes,
        )
        yield _number(
            "harmony_scores_ready",
            "Scores on devices that are online, of which every resource is ready.",
            sum(each.scores_ready for each in online),
        )
        yield _counted(
            "harmony_devices_condition",
            "Devices that are online, by each condition that they report, and its status.",
            {"condition": _CONDITIONS, "status": _CONDITION_STATUSES},
            Counter(pair for each in online for pair in each.conditions.items()),
        )
        yield _counted(
            "harmony_devices_degraded",
            "Devices that are online and degraded, by the gravest reason that each has.",
            {"reason": (*REASONS, _OTHER)},
            Counter(
                (each.degraded if each.degraded in REASONS else _OTHER,)
                for each in online
                if each.degraded
            ),
        )
        versions = GaugeMetricFamily(
            "harmony_agents",
            f"Devices, by the version of their agent: the {VERSIONS_MOST} most frequent ones.",
            labels=["version"],
        )
        for name, count in self._versions.count(rows).items():
            versions.add_metric([name], count)
        yield versions
        yield self._collect_ages(rows)

    def _collect_ages(self, rows: Iterable[DeviceRow]) -> Metric:
        now = self._now()
        ages = [(now - each.last_seen).total_seconds() for each in rows if each.last_seen]
        # This machine's clock may be behind the message server's.
        ages = [max(0.0, each) for each in ages]
        counts = [0] * (len(AGES_S) + 1)
        for age in ages:
            counts[bisect_left(AGES_S, age)] += 1
        edges = [*map(str, AGES_S), "+Inf"]
        so_far = [sum(counts[: each + 1]) for each in range(len(counts))]
        return GaugeHistogramMetricFamily(
            "harmony_devices_last_heard_age_seconds",
            "Devices that were ever heard, by how long ago that was.",
            buckets=list(zip(edges, map(float, so_far), strict=True)),
            gsum_value=sum(ages),
        )

    def _collect_rollouts(self) -> Iterator[Metric]:
        looks = self._live.rollouts.looks
        gates = {name: look.progress.gate for name, look in looks.items()}
        state = GaugeMetricFamily(
            "harmony_rollout_state",
            "Rollouts, by class: 1 for the state in which each is, 0 for the others.",
            labels=["class", "state"],
        )
        devices = GaugeMetricFamily(
            "harmony_rollout_devices",
            "Devices of a class, by how each stands in its rollout; reached are all but not_reached.",
            labels=["class", "state"],
        )
        for name, look in looks.items():
            for each in _GATE_STATES:
                state.add_metric([name, each], gates[name].state == each)
            for member, count in look.progress.counts.items():
                devices.add_metric([name, to_label(member)], count)
        yield state
        yield devices
        yield _by_class(
            "harmony_rollout_generation",
            "Generation of the class that is rolled out.",
            {name: each.generation for name, each in gates.items()},
        )
        yield _by_class(
            "harmony_rollout_wave",
            "Wave of the rollout that is open, counted from 1.",
            {name: each.step + 1 for name, each in gates.items()},
        )
        yield _by_class(
            "harmony_rollout_waves",
            "Waves of the rollout in all.",
            {name: len(look.progress.manifest.rollout.steps) for name, look in looks.items()},
        )

    def _collect_root(self) -> Iterator[Metric]:
        root = self._readings.root
        if root is not None and root.expires_at is not None:
            yield _number(
                "harmony_root_expires_timestamp_seconds",
                "When the root document expires, in seconds since 1970.",
                root.expires_at.timestamp(),
            )


@attrs.frozen
class AlertsCollector(Collector):
    """Counts what people were told."""

    notifier: Notifier

    def collect(self) -> Iterator[Metric]:
        """Yield how many messages were sent, and not taken."""
        metric = CounterMetricFamily(
            "harmony_alerts_messages",
            "Messages to people, by the channel of the alerts file, and whether they were taken.",
            labels=["channel", "result"],
        )
        for labels, count in self.notifier.counts.items():
            metric.add_metric(labels, count)
        yield metric


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """Return what all of *collectors*, and this process, tell."""
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    ProcessCollector(registry=registry)
    return registry


def _number(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


def _by_class(name: str, what: str, values: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=["class"])
    for each, value in values.items():
        metric.add_metric([each], value)
    return metric


def _counted(
    name: str,
    what: str,
    labels: Mapping[str, Sequence[str]],
    counts: Mapping[tuple[str, ...], float],
) -> Metric:
    """Return how often there is each combination of values of *labels*; 0 is told, too."""
    metric = GaugeMetricFamily(name, what, labels=list(labels))
    for values in product(*labels.values()):
        metric.add_metric([to_label(each) for each in values], counts.get(values, 0))
    return metric
