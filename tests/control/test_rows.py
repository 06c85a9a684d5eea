"""One row a device: each state of each axis, and what a row holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from harmony_control.bus.connection import Entry
from harmony_control.bus.desired import Desired
from harmony_control.bus.reports import Known, Reading, Seen
from harmony_control.fleet_view.presence import end, hear
from harmony_control.fleet_view.row import axes_of, row_of
from harmony_core.outcome import Noop, Outcome, Running
from harmony_core.wire.actual_state import (
    ActualState,
    Condition,
    Heartbeat,
    LayerPhase,
    LayerStatus,
)
from harmony_core.wire.vitals import Vitals

from .scripted_device import BOOT, NOON, failure, page

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SHA = "a" * 64
READY = Condition(
    type="Ready", status="True", reason="AllConverged", message="", last_transition_time=NOON
)
BEAT = Heartbeat(
    agent_id="pi-1",
    boot_id=BOOT,
    agent_version="1.2.3",
    generation=3,
    observed_generation=3,
    queue_seq=1,
    counter=7,
    vitals=Vitals(uptime_s=5),
)


def _condition(kind: Any, status: Any, reason: str, message: str = "") -> Condition:
    return Condition(
        type=kind, status=status, reason=reason, message=message, last_transition_time=NOON
    )


def _state(*conditions: Condition, scores: dict[str, Outcome] | None = None) -> ActualState:
    return ActualState(
        agent_id="pi-1",
        agent_version="1.2.3",
        boot_id=BOOT,
        generation=3,
        observed_generation=3,
        manifest_sha256=SHA,
        scores={name: page(each, 3) for name, each in (scores or {"web": Noop()}).items()},
        conditions=conditions or (READY,),
    )


DESIRED = Desired(epoch=0, generation=3, manifest_sha256=SHA, labels={"site": "attic"})
WELL = Seen(
    agent_id="pi-1",
    presence="Heard",
    at=AT,
    state=_state(),
    wanted=3,
    desired=DESIRED,
    heartbeat=BEAT,
)


def test_of_a_device_that_is_well_there_is_nothing_to_explain() -> None:
    row = row_of(WELL)
    assert (row.device, row.update, row.workloads) == ("Online", "UpToDate", "Healthy")
    assert row.reason == ""
    assert row.labels == {"site": "attic"}
    assert row.last_seen == AT
    assert (row.wanted_generation, row.observed_generation) == (3, 3)
    assert (row.agent_version, row.scores, row.scores_failed) == ("1.2.3", 1, 0)
    assert row.vitals == Vitals(uptime_s=5)


@pytest.mark.parametrize(
    ("change", "device", "reason"),
    [
        ({}, "Online", ""),
        ({"presence": "Silent"}, "Silent", "missed its heartbeats since 2026-01-31T12:00:00.000Z"),
        ({"presence": "Offline"}, "Offline", "not heard since 2026-01-31T12:00:00.000Z"),
        ({"presence": "Never", "state": None, "at": None}, "Never", "it was never heard"),
        (
            {"is_unverified": True, "problem": "Unverified: a stranger"},
            "Unverified",
            "a stranger",
        ),
        (
            {"is_unverified": True, "problem": "Unverified: a stranger", "presence": "Offline"},
            "Unverified",
            "a stranger",
        ),
    ],
)
def test_the_axis_of_the_device(change: dict[str, Any], device: str, reason: str) -> None:
    row = row_of(attrs.evolve(WELL, **change))
    assert row.device == device
    assert reason in row.reason
    if device != "Online":
        assert row.workloads == "Unknown", "what it said of them is not so for ever"


@pytest.mark.parametrize(
    ("state", "desired", "update", "reason"),
    [
        ({}, {}, "UpToDate", ""),
        ({"observed_generation": 2}, {}, "Updating", "not all Scores"),
        ({}, {"generation": 4}, "OutOfDate", "generation 4 is wanted, and the device has 3"),
        ({}, {"epoch": 1}, "OutOfDate", "generation 3 is wanted"),
        ({}, {"generation": 2}, "OutOfDate", "generation 2 is wanted, and the device has 3"),
        ({}, {"manifest_sha256": "b" * 64}, "OutOfDate", "another manifest"),
        ({}, None, "OutOfDate", "nothing is wanted, and the device has 3"),
        (None, {}, "OutOfDate", "has not said that it has it"),
        (None, None, "UpToDate", ""),
    ],
)
def test_the_axis_of_the_update(
    state: dict[str, Any] | None, desired: dict[str, Any] | None, update: str, reason: str
) -> None:
    seen = attrs.evolve(
        WELL,
        state=None if state is None else attrs.evolve(_state(), **state),
        desired=None if desired is None else attrs.evolve(DESIRED, **desired),
    )
    axis = axes_of(seen).update
    assert axis.state == update
    assert reason in axis.reason
    assert bool(axis.reason) == bool(reason)


def layer(phase: LayerPhase, generation: int = 6, **more: Any) -> LayerStatus:
    fields: dict[str, Any] = {
        "observed_generation": generation,
        "wanted": 7,
        "gate": (1, 2),
        "reason": "",
        "message": "",
        "since": "2026-01-31T12:00:00.000Z",
        **more,
    }
    return LayerStatus(phase=phase, generation=generation, **fields)


@pytest.mark.parametrize(
    ("found", "update", "reason"),
    [
        (layer("Applied", 7), "UpToDate", ""),
        (layer("Admitted", 7, observed_generation=0), "Updating", "class:kiosk: not all Scores"),
        (
            layer("Waiting", reason="NotOpen"),
            "OutOfDate",
            "class:kiosk: generation 7 is rolled out, and the device follows 6: NotOpen",
        ),
        (layer("Waiting", 0, reason="OutsideWindow"), "OutOfDate", "the device follows none"),
        (layer("Waiting", 0, wanted=0, reason="NoGate"), "UpToDate", ""),
        (layer("Waiting", reason="Aborted"), "UpToDate", ""),
        (layer("RolledBack", reason="Aborted"), "UpToDate", ""),
        (layer("RolledBack", observed_generation=0), "Updating", "under generation 6"),
        (
            layer("Refused", reason="UntrustedSignature", message="by a stranger"),
            "Refused",
            "class:kiosk: UntrustedSignature: by a stranger",
        ),
    ],
)
def test_what_is_wanted_of_a_class_is_part_of_the_update(
    found: LayerStatus, update: str, reason: str
) -> None:
    state = attrs.evolve(_state(), layers={"class:kiosk": found})
    axis = axes_of(attrs.evolve(WELL, state=state)).update
    assert axis.state == update
    assert reason in axis.reason
    assert bool(axis.reason) == bool(reason)


@pytest.mark.parametrize("reason", ["IndexRejected", "ClassRefused"])
def test_a_class_that_is_refused_is_no_fault_of_what_runs(reason: str) -> None:
    no = _condition("Degraded", "True", reason, "not by an operator")
    row = row_of(attrs.evolve(WELL, state=_state(READY, no)))
    assert (row.update, row.workloads, row.reason) == ("Refused", "Healthy", "not by an operator")


def test_what_a_device_refuses_is_refused_only_as_long_as_it_says_so() -> None:
    no = _condition("Degraded", "True", "ManifestRejected", "Expired: too late")
    seen = attrs.evolve(WELL, state=_state(READY, no), desired=attrs.evolve(DESIRED, generation=4))
    row = row_of(seen)
    assert (row.update, row.reason) == ("Refused", "Expired: too late")
    assert row.workloads == "Healthy", "what it refuses is no fault of what it runs"
    assert row_of(attrs.evolve(seen, presence="Offline")).update == "OutOfDate"


def test_of_a_silent_device_nobody_knows_that_it_is_updating() -> None:
    state = attrs.evolve(_state(), observed_generation=2)
    assert row_of(attrs.evolve(WELL, presence="Silent", state=state)).update == "OutOfDate"


@pytest.mark.parametrize(
    ("state", "workloads", "reason"),
    [
        (_state(), "Healthy", ""),
        (
            _state(
                _condition("Ready", "False", "ScoreFailed", "db, web"),
                _condition("Degraded", "True", "ScoreFailed", "db, web"),
                scores={"web": failure("Late", "no"), "db": failure("Gone", "no"), "ok": Noop()},
            ),
            "Error",
            "2 of 3 Scores failed: db: Gone",
        ),
        (
            _state(
                _condition("Ready", "False", "Drifted", "web"),
                _condition("Degraded", "True", "Drifted", "file:/etc/motd"),
                scores={"web": failure("Drifted", "changed")},
            ),
            "Degraded",
            "Drifted: file:/etc/motd",
        ),
        (
            _state(
                _condition("Ready", "False", "Progressing", "web"),
                scores={"web": Running(reason="Progressing", message="pulling")},
            ),
            "Degraded",
            "Progressing: web",
        ),
        (
            _state(READY, _condition("Degraded", "True", "CapabilityUnavailable", "podman")),
            "Degraded",
            "CapabilityUnavailable: podman",
        ),
        (_state(_condition("Degraded", "False", "AllWell")), "Unknown", "does not say"),
        (_state(_condition("Ready", "Unknown", "?")), "Unknown", "does not say"),
        (None, "Unknown", "no report yet"),
    ],
)
def test_the_axis_of_the_workloads(state: ActualState | None, workloads: str, reason: str) -> None:
    axis = axes_of(attrs.evolve(WELL, state=state)).workloads
    assert axis.state == workloads
    assert reason in axis.reason


def test_a_report_that_cannot_be_read_says_nothing_of_workloads() -> None:
    seen = attrs.evolve(WELL, state=None, problem="not an ActualState: {")
    assert axes_of(seen).workloads.reason == "its report cannot be read: not an ActualState: {"


AGE = timedelta(seconds=90)


def _beat(counter: int, at: datetime, boot_id: str = BOOT) -> Reading[Heartbeat]:
    entry = Entry(key="pi-1", value=b"x", revision=counter, written_at=at)
    return Reading(entry, attrs.evolve(BEAT, counter=counter, boot_id=boot_id))


def _presence(known: Known) -> str:
    return known.to_seen().presence


def test_a_heartbeat_that_ends_makes_a_device_silent_and_the_next_one_does_not_leave_it_so() -> (
    None
):
    known = hear(Known(agent_id="pi-1"), _beat(1, AT))
    assert _presence(known) == "Heard"
    known = end(known, AT + AGE, unsaid_s=90.0)
    assert _presence(known) == "Silent"
    assert known.to_seen().at == AT
    assert _presence(hear(known, _beat(2, AT + AGE))) == "Heard"


def test_a_newer_heartbeat_beats_an_older_end_however_they_arrive() -> None:
    known = hear(Known(agent_id="pi-1"), _beat(1, AT))
    known = hear(known, _beat(2, AT + AGE))
    assert _presence(end(known, AT + AGE, unsaid_s=90.0)) == "Heard", (
        "that was the end of the one before"
    )
    assert _presence(end(known, AT + 2 * AGE, unsaid_s=90.0)) == "Silent"


def test_a_heartbeat_that_was_counted_before_does_not_bring_a_device_back() -> None:
    known = end(hear(Known(agent_id="pi-1"), _beat(5, AT)), AT + AGE, unsaid_s=90.0)
    assert _presence(hear(known, _beat(4, AT + AGE))) == "Silent"
    assert _presence(hear(known, _beat(5, AT))) == "Silent"


def test_a_heartbeat_of_another_boot_is_newer_whatever_it_counts() -> None:
    known = end(hear(Known(agent_id="pi-1"), _beat(5, AT)), AT + AGE, unsaid_s=90.0)
    assert _presence(hear(known, _beat(4, AT + AGE, boot_id="another"))) == "Heard"


def _long_beat(counter: int, at: datetime) -> Reading[Heartbeat]:
    beat = _beat(counter, at)
    return attrs.evolve(beat, entry=attrs.evolve(beat.entry, lifetime_s=1_800.0))


def test_a_heartbeat_ends_when_it_said_itself() -> None:
    known = hear(Known(agent_id="pi-1"), _long_beat(1, AT))
    assert _presence(end(known, AT + AGE, unsaid_s=90.0)) == "Heard", "that was one before it"
    known = end(known, AT + timedelta(seconds=1_800), unsaid_s=90.0)
    assert (_presence(known), known.to_seen().at) == ("Silent", AT)


def test_what_the_server_keeps_for_too_long_ends_by_the_clock_here() -> None:
    by_older_agent = Known(agent_id="pi-1", beat=_beat(1, AT))
    for after_s, presence in ((89, "Heard"), (91, "Silent"), (180, "Silent"), (181, "Offline")):
        known = by_older_agent.end_if_over(AT + timedelta(seconds=after_s))
        assert (_presence(known), known.to_seen().at) == (presence, AT)
    # The server says at last what was known for long.
    assert _presence(end(known, AT + timedelta(seconds=1_800), unsaid_s=90.0)) == "Offline"

    # One that says how long it counts is dropped by the server, by its clock; here that may be another.
    by_newer_agent = Known(agent_id="pi-1", beat=_long_beat(1, AT))
    for after_s, presence in ((5_399, "Heard"), (5_401, "Offline")):
        known = by_newer_agent.end_if_over(AT + timedelta(seconds=after_s))
        assert _presence(known) == presence


@pytest.mark.parametrize(
    ("heartbeat_s", "before_s"),
    [(1, 90), (30, 90), (600, 1_800), (10**12, 1_800), (-5, 90), (None, 1_800)],
)
def test_who_is_known_to_be_silent_and_no_more_was_heard_at_least_so_long_ago(
    heartbeat_s: int | None, before_s: int
) -> None:
    entry = Entry(key="pi-1", value=b"x", revision=1, written_at=AT - timedelta(days=1))
    report = Reading(entry, attrs.evolve(_state(), heartbeat_s=heartbeat_s))
    known = Known(agent_id="pi-1", report=report, ended_at=AT)
    assert known.to_seen().at == AT - timedelta(seconds=before_s)


def test_vitals_stand_until_they_are_told_again() -> None:
    vitals = Vitals(uptime_s=5, clock_ms=1_769_860_800_000)
    one, two, three = (_beat(each, AT + each * AGE) for each in (1, 2, 3))
    assert one.value
    assert two.value
    assert three.value
    one = attrs.evolve(one, value=attrs.evolve(one.value, vitals=vitals))
    two = attrs.evolve(two, value=attrs.evolve(two.value, vitals=None))
    told = hear(Known(agent_id="pi-1"), one).to_seen()
    kept = hear(hear(Known(agent_id="pi-1"), one), two).to_seen()
    assert told.heartbeat
    assert kept.heartbeat
    assert kept.heartbeat.vitals
    assert kept.heartbeat.vitals.uptime_s == 5
    assert kept.clock_offset_s == told.clock_offset_s
    rebooted = attrs.evolve(three, value=attrs.evolve(three.value, vitals=None, boot_id="another"))
    anew = hear(hear(Known(agent_id="pi-1"), one), rebooted).to_seen()
    assert anew.heartbeat
    assert anew.heartbeat.vitals is None
