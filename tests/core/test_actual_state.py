"""What an agent says of itself comes out at the other end as it was, and in the words of the wire."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core import Failure, Noop, Outcome, Progress, Running, Success
from harmony_core.errors import InvalidManifest
from harmony_core.outcome import ErrorInfo
from harmony_core.plugins import KindError
from harmony_core.resources import Active, Completed, Exited, NotAFile, PresentAt, State
from harmony_core.resources import Running as ContainerRunning
from harmony_core.wire.actual_state import (
    ActualState,
    CapabilityState,
    Condition,
    Drift,
    Heartbeat,
    ScoreStatus,
    from_json,
    score_from_json,
    score_to_json,
    state_to_json,
    to_json,
)

NOW = "2026-01-31T12:00:00.000Z"

OUTCOMES: list[Outcome] = [
    Success(message="file:/etc/motd created"),
    Noop(),
    Running(
        reason="Progressing",
        message="pulling",
        progress=Progress(done=3, total=None, unit="bytes"),
    ),
    Running(reason="Blocked", message="waits for base"),
    Failure(error=ErrorInfo(code="UnsafePath", message="a link"), message="a link"),
    Failure(error=ErrorInfo(code="TimedOut", message="slow", resource="unit:x", retry_at=NOW)),
]


def page(outcome: Outcome) -> ScoreStatus:
    return ScoreStatus(
        kind="FileScore",
        version=1,
        observed_generation=7,
        since=NOW,
        outcome=outcome,
        attempts=2,
        drift_count=1,
        last_drift=Drift(at=NOW, resource="file:/etc/motd", before="a", after="b"),
        resources={"file:/etc/motd": state_to_json(MOTD)},
        resources_total=1,
        resources_ready=1,
    )


MOTD = PresentAt(sha256="00ff", mode="0644", size_bytes=6, owner="root", group="root")


def told(**scores: ScoreStatus) -> ActualState:
    return ActualState(
        agent_id="pi-1",
        agent_version="0.1.0",
        boot_id="b00t",
        generation=7,
        observed_generation=7,
        capabilities={"SystemdHost": CapabilityState(offered=True, available=False, reason="hung")},
        kinds={"FileScore": (1,)},
        kind_errors=(KindError(entry_point="x = y", reason="ImportError: z"),),
        scores=scores,
        conditions=(
            Condition(
                type="Ready", status="True", reason="AllWell", message="", last_transition_time=NOW
            ),
        ),
    )


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda each: each.status)
def test_an_outcome_comes_out_as_it_went_in(outcome: Outcome) -> None:
    state = told(web=page(outcome))
    assert from_json(to_json(state), ActualState) == state


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda each: each.status)
def test_one_score_s_page_comes_out_as_it_went_in(outcome: Outcome) -> None:
    assert score_from_json(json.loads(json.dumps(score_to_json(page(outcome))))) == page(outcome)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda each: each.status)
def test_every_outcome_has_the_same_five_fields_on_the_wire(outcome: Outcome) -> None:
    wire = json.loads(to_json(told(web=page(outcome))))["scores"]["web"]["outcome"]
    assert set(wire) == {"status", "reason", "message", "progress", "error"}
    assert wire["status"] == outcome.status


@pytest.mark.parametrize(
    ("state", "wire"),
    [
        (MOTD, {"state": "PresentAt", "sha256": "00ff", "mode": "0644"}),
        (NotAFile(kind="directory"), {"state": "NotAFile", "kind": "directory"}),
        (
            Active(since=NOW, sub="running", result="success", enabled=True),
            {"state": "Active", "since": NOW, "sub": "running", "result": "success"},
        ),
        (
            ContainerRunning(since=NOW, restarts=0, image="x@sha256:1", health="healthy"),
            {"state": "Running", "since": NOW, "restarts": 0, "health": "healthy"},
        ),
        (Exited(exit_code=1, restarts=3, image="x"), {"state": "Exited", "exit_code": 1}),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_state_is_named_by_its_class(state: State, wire: dict[str, object]) -> None:
    assert wire.items() <= state_to_json(state).items()


@pytest.mark.parametrize(
    ("state", "is_ready"),
    [
        (MOTD, True),
        (NotAFile(kind="directory"), False),
        (ContainerRunning(since=NOW, restarts=0, image="x", health="healthy"), True),
        (ContainerRunning(since=NOW, restarts=0, image="x", health="starting"), False),
        (Exited(exit_code=0, restarts=0, image="x"), False),
        (Completed(since="2026-01-01T00:00:00Z", image="x"), True),
        (State(), False),
    ],
)
def test_what_is_not_as_its_score_needs_it_says_so(state: State, *, is_ready: bool) -> None:
    assert state_to_json(state).get("ready", True) is is_ready


def test_a_heartbeat_comes_out_as_it_went_in() -> None:
    beat = Heartbeat(
        agent_id="pi-1",
        boot_id="b00t",
        agent_version="0.1.0",
        generation=7,
        observed_generation=6,
        queue_seq=12,
    )
    assert from_json(to_json(beat), Heartbeat) == beat


def test_an_unknown_field_is_ignored_so_that_older_readers_go_on() -> None:
    fields = json.loads(to_json(told(web=page(Noop()))))
    fields["colour"] = fields["scores"]["web"]["colour"] = "red"
    assert from_json(json.dumps(fields).encode(), ActualState) == told(web=page(Noop()))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("scores", "web", "outcome", "status"), "EXPLODED"),
        (("scores", "web", "outcome"), None),
        (("scores",), []),
        (("generation",), {}),
        (("generation",), True),
        (("generation",), 2**53),
        (("counter",), -(2**53)),
        (("scores", "web", "attempts"), 10**30),
        (("audit",), {"seq": 2**53, "head": "0" * 64}),
        (("audit",), {"seq": 1, "head": "0" * 63}),
        (("audit",), {"seq": 1, "head": "0" * 64 + "\n"}),
        (("audit",), {"seq": 1}),
        (("truncated",), 0),
        (("kinds", "FileScore"), 1),
        (("conditions", 0, "status"), "Maybe"),
        (("scores", "web", "outcome"), {"status": "RUNNING", "reason": "Tired"}),
        (("scores", "web", "since"), None),
    ],
)
def test_what_is_damaged_is_refused(where: tuple[str | int, ...], value: object) -> None:
    fields: dict[str, Any] = json.loads(to_json(told(web=page(Noop()))))
    *way, last = where
    inner: Any = fields
    for name in way:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(InvalidManifest, match="not a ActualState"):
        from_json(json.dumps(fields).encode(), ActualState)


def test_what_is_wrong_is_named() -> None:
    fields: dict[str, Any] = json.loads(to_json(told(web=page(Noop()))))
    fields["scores"]["web"]["outcome"]["reason"] = 7
    with pytest.raises(InvalidManifest, match=r"scores: outcome: reason: must be a text, not int"):
        from_json(json.dumps(fields).encode(), ActualState)
    del fields["agent_id"], fields["scores"]
    with pytest.raises(InvalidManifest, match="agent_id"):
        from_json(json.dumps(fields).encode(), ActualState)


@given(st.binary(max_size=200))
def test_no_bytes_escape_as_another_exception(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        from_json(data, ActualState)


@given(st.text(), st.text())
def test_any_text_survives(message: str, reason: str) -> None:
    state = attrs.evolve(told(), boot_id=message, agent_version=reason)
    assert from_json(to_json(state), ActualState) == state


def test_text_that_is_not_unicode_does_not_silence_an_agent() -> None:
    broken = Failure(error=ErrorInfo(code="WriteFailed", message="/etc/\udcff"))
    assert b"WriteFailed" in to_json(told(web=page(broken)))


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 40 + b"1" + b"}" * 40, b" " * 2**20 + b"{}"],
    ids=["very deep", "too deep", "too large"],
)
def test_what_is_too_large_or_too_deep_is_refused_before_it_is_read(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(InvalidManifest, match="levels deep"):
        from_json(data, ActualState)
    with pytest.raises(InvalidManifest, match="levels deep"):
        from_json(data, Heartbeat)
