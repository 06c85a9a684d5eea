"""Classes: who belongs to one, when a device may begin, and what several layers come to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harmony_core.errors import InvalidManifest, UsageError, WrongFleet, WrongTarget
from harmony_core.wire.actual_state import OWN_LAYER
from harmony_core.wire.admission import (
    explain_slot,
    find_next_opening,
    find_place,
    find_slot,
    find_step,
    is_let_in,
    may_begin,
)
from harmony_core.wire.class_manifest import (
    PLACES,
    ClassManifest,
    Rollout,
    Step,
    Window,
    parse_class_manifest,
)
from harmony_core.wire.fleet_index import ClassRule, FleetIndex, Freeze, Selected, parse_index
from harmony_core.wire.gate import Gate, parse_gate
from harmony_core.wire.layers import ClassLayer, merge
from harmony_core.wire.manifest import SCORES_MOST, Manifest, SerializedScore
from harmony_core.wire.selector import parse_selector

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
HASH = "ab" * 32


def score(name: str, content: str = "x") -> SerializedScore:
    return SerializedScore(id=name, kind="FileScore", version=1, spec={"content": content})


def class_manifest(**changes: Any) -> ClassManifest:
    fields: dict[str, Any] = {
        "fleet": "home",
        "target": "class:kiosk",
        "generation": 7,
        "supersedes": 6,
        "issued_at": NOW,
        "scores": (score("page"),),
    }
    return ClassManifest(**fields | changes)


def gate(**changes: Any) -> Gate:
    fields: dict[str, Any] = {
        "fleet": "home",
        "name": "kiosk",
        "generation": 7,
        "sha256": HASH,
        "state": "running",
        "places": 1000,
        "term": 1,
        "seq": 1,
        "issued_at": NOW,
    }
    return Gate(**fields | changes)


def index(**changes: Any) -> FleetIndex:
    fields: dict[str, Any] = {"fleet": "home", "generation": 1, "issued_at": NOW}
    return FleetIndex(**fields | changes)


@pytest.mark.parametrize(
    ("text", "labels", "is_selected"),
    [
        ("", {}, True),
        ("site=attic", {"site": "attic"}, True),
        ("site == attic", {"site": "attic"}, True),
        ("site=attic", {"site": "cellar"}, False),
        ("site=attic", {}, False),
        ("site!=attic", {}, True),
        ("site!=attic", {"site": "attic"}, False),
        ("role in (kiosk, door)", {"role": "door"}, True),
        ("role in (kiosk,door)", {"role": "server"}, False),
        ("role notin (kiosk)", {}, True),
        ("role notin (kiosk)", {"role": "kiosk"}, False),
        ("test", {"test": ""}, True),
        ("!test", {"test": "yes"}, False),
        ("! test", {}, True),
        ("in in (in)", {"in": "in"}, True),
        ("site=attic,!test , role", {"site": "attic", "role": "x"}, True),
        ("a.b/c-d_e=1.2:3", {"a.b/c-d_e": "1.2:3"}, True),
    ],
)
def test_a_selector_selects_as_in_kubernetes(
    text: str, labels: Mapping[str, str], is_selected: bool
) -> None:
    assert parse_selector(text).matches(labels) is is_selected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "=x",
            "site=",
            "site in attic",
            "site in ()",
            "a,,b",
            "a=b c",
            ",",
            "a,",
            "!",
            "a in (b",
            "é=1",
        ),
        "a" * 2000,
        ",".join(f"l{each}" for each in range(33)),
    ],
)
def test_what_is_no_selector_is_refused_with_words(text: str) -> None:
    with pytest.raises(UsageError, match="selector"):
        parse_selector(text)


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_selector(text).matches({"a": "b"})


def test_places_are_spread_and_another_for_each_generation() -> None:
    places = [find_place("home", "kiosk", 7, f"pi-{each}") for each in range(1000)]
    assert all(0 <= each < PLACES for each in places)
    assert 400 < sum(each < PLACES // 2 for each in places) < 600
    assert places != [find_place("home", "kiosk", 8, f"pi-{each}") for each in range(1000)]
    assert find_place("home", "kiosk", 7, "pi-1") == 1423369867  # a vector of docs/wire.md


WAVES = Rollout(
    canary="test",
    steps=(
        Step(upto="1%", places=100, soak_s=600),
        Step(upto="10%", places=1000, soak_s=600),
        Step(upto="100%", places=PLACES),
    ),
)


@pytest.mark.parametrize(
    ("place", "labels", "step"), [(0, {}, 0), (99, {}, 0), (100, {}, 1), (5000, {"test": ""}, 0)]
)
def test_a_place_has_its_wave_and_a_canary_the_first(
    place: int, labels: Mapping[str, str], step: int
) -> None:
    assert find_step(WAVES, place, labels) == step


@pytest.mark.parametrize(
    ("changes", "place", "labels", "after_s", "reason"),
    [
        ({"places": 100}, 50, {}, 0, "Admitted"),
        ({"places": 100}, 100, {}, 0, "NotOpen"),
        ({"places": 100, "canary": "test"}, 5000, {"test": "1"}, 0, "Admitted"),
        ({"places": 100, "state": "paused"}, 50, {}, 0, "NotOpen"),
        ({"places": 100, "state": "aborted"}, 50, {}, 0, "NotOpen"),
        # A gate may say what it likes: the class manifest says who a canary is, and whose wave it is.
        ({"places": PLACES, "canary": ""}, 500, {}, 9999, "NotOpen"),
        ({"places": PLACES, "step": 1}, 5000, {}, 9999, "NotOpen"),
        # And no wave begins sooner than the waves before it have soaked.
        ({"places": 1000, "step": 1}, 500, {}, 599, "TooEarly"),
        ({"places": 1000, "step": 1}, 500, {}, 600, "Admitted"),
        ({"places": PLACES, "step": 2, "state": "done"}, 5000, {}, 1199, "TooEarly"),
        ({"places": PLACES, "step": 2, "state": "done"}, 5000, {}, 1200, "Admitted"),
        # The slots of the wave that is open come one after the other; of those before, all are open.
        ({"places": 1000, "step": 1}, 500, {"slot": "1"}, 600, "SlotNotOpen"),
        ({"places": 1000, "step": 1, "slot": 1}, 500, {"slot": "1"}, 600, "Admitted"),
        ({"places": 1000, "step": 1}, 50, {"slot": "1"}, 600, "Admitted"),
        # Of which slot it is to be, nobody knows: it waits for its label, after the last wave, too.
        ({"places": 1000, "step": 1}, 500, {"slot": "b"}, 600, "SlotInvalid"),
        ({"places": 1000, "step": 1}, 50, {"slot": "1 "}, 600, "SlotInvalid"),
        ({"places": 1000, "step": 1}, 5000, {"slot": "b"}, 600, "NotOpen"),
        ({"places": PLACES, "step": 2, "state": "done"}, 5000, {"slot": ""}, 1200, "SlotInvalid"),
        ({"places": PLACES, "step": 2, "state": "done"}, 5000, {"slot": "7"}, 1200, "Admitted"),
    ],
)
def test_a_device_begins_when_its_wave_has_come(
    changes: Mapping[str, Any], place: int, labels: Mapping[str, str], after_s: int, reason: str
) -> None:
    choice = may_begin(
        class_manifest(rollout=WAVES),
        gate(**changes),
        index(),
        place=place,
        labels=labels,
        now=NOW + timedelta(seconds=after_s),
    )
    assert (choice.reason, choice.may) == (reason, reason == "Admitted")


def test_an_operator_may_have_it_go_faster_than_a_key_for_gates() -> None:
    manifest, opened = class_manifest(rollout=WAVES), gate(places=1000, step=1)
    early = may_begin(manifest, opened, index(), place=500, labels={}, now=NOW)
    assert early.again_at == NOW + timedelta(seconds=600)
    assert may_begin(manifest, opened, index(), place=500, labels={}, now=NOW, by_operator=True).may


@pytest.mark.parametrize(
    ("until", "reason"),
    [(None, "Frozen"), (NOW + timedelta(1), "Frozen"), (NOW - timedelta(1), "Admitted")],
)
def test_a_frozen_fleet_begins_nothing(until: datetime | None, reason: str) -> None:
    frozen = index(freeze=Freeze(until=until, reason="holidays"))
    choice = may_begin(class_manifest(), gate(places=PLACES), frozen, place=0, labels={}, now=NOW)
    assert choice.reason == reason
    if reason == "Frozen":
        assert "holidays" in choice.message
        assert choice.again_at == until


def test_a_gate_is_let_by_what_it_says_until_the_manifest_is_there() -> None:
    assert is_let_in(gate(places=100), 99, {})
    assert not is_let_in(gate(places=100), 100, {})
    assert is_let_in(gate(places=0, state="done"), 100, {})


@pytest.mark.parametrize(
    ("labels", "slot"), [({}, 0), ({"slot": "2"}, 2), ({"slot": "9" * 9}, 999_999_999)]
)
def test_a_slot_is_a_small_number(labels: Mapping[str, str], slot: int) -> None:
    assert (find_slot(labels), explain_slot(labels)) == (slot, "")


@pytest.mark.parametrize("text", ["", "-1", "x", "²", "1 ", "1.0", "+1", "1_0", "\u0661", "9" * 10])
def test_what_is_no_small_number_is_no_slot_and_never_the_first(text: str) -> None:
    assert find_slot({"slot": text}) is None
    assert repr(text) in explain_slot({"slot": text})


def _at(text: str) -> datetime:
    """Return the time that clocks in Berlin show as *text*."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@contextlib.contextmanager
def _system_in_berlin(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


NIGHT = Window(begin="22:00", until="04:00", days=("mon",))


@pytest.mark.parametrize(
    ("windows", "now", "opens"),
    [
        ((), "2026-03-02T12:00", "2026-03-02T12:00"),
        ((NIGHT,), "2026-03-02T21:59", "2026-03-02T22:00"),  # a Monday
        ((NIGHT,), "2026-03-02T22:00", "2026-03-02T22:00"),
        ((NIGHT,), "2026-03-03T03:59", "2026-03-03T03:59"),  # still Monday's
        ((NIGHT,), "2026-03-03T04:00", "2026-03-09T22:00"),
        ((NIGHT, Window(begin="12:00", until="13:00")), "2026-03-03T04:00", "2026-03-03T12:00"),
        # The clocks leap from 02:00 to 03:00: what begins between begins at 03:00, and ends as it should.
        ((Window(begin="02:30", until="05:00"),), "2026-03-29T01:59", "2026-03-29T03:00"),
        ((Window(begin="02:00", until="02:30"),), "2026-03-29T01:59", "2026-03-30T02:00"),
        # They show 02:00 to 03:00 twice: it is open once.
        ((Window(begin="02:15", until="02:30"),), "2026-10-25T02:31", "2026-10-26T02:15"),
        # All day, every day.
        ((Window(begin="00:00", until="00:00"),), "2026-03-29T02:59", "2026-03-29T02:59"),
    ],
)
@pytest.mark.parametrize("zone", [BERLIN, None], ids=["named", "of-the-system"])
def test_a_window_opens_by_the_clock_on_the_wall(
    monkeypatch: pytest.MonkeyPatch,
    zone: ZoneInfo | None,
    windows: tuple[Window, ...],
    now: str,
    opens: str,
) -> None:
    with _system_in_berlin(monkeypatch):
        assert find_next_opening(windows, _at(now), zone) == _at(opens)


def test_outside_its_window_a_device_waits_and_knows_until_when() -> None:
    rollout = Rollout(windows=(Window(begin="22:00", until="23:00"),))
    choice = may_begin(
        class_manifest(rollout=rollout),
        gate(places=PLACES),
        index(),
        place=0,
        labels={},
        now=_at("2026-03-02T12:00"),
        zone=BERLIN,
    )
    assert (choice.reason, choice.again_at) == ("OutsideWindow", _at("2026-03-02T22:00"))
    assert "2026-03-02 22:00" in choice.message


def own(*scores: SerializedScore, without: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        fleet="home",
        target="agent:pi-1",
        generation=3,
        issued_at=NOW,
        scores=scores,
        without=without,
    )


def layer(name: str, *scores: SerializedScore, priority: int = 0) -> ClassLayer:
    manifest = class_manifest(target=f"class:{name}", scores=scores)
    return ClassLayer(manifest, priority)


def test_the_upper_layer_is_followed() -> None:
    merged = merge(
        own(score("a", "own")),
        [
            layer("low", score("a", "low"), score("b", "low"), score("c", "low")),
            layer("high", score("b", "high"), priority=5),
        ],
    )
    assert {name: entry.spec["content"] for name, entry in merged.entries.items()} == {
        "a": "own",
        "b": "high",
        "c": "low",
    }
    assert merged.layers == {"a": OWN_LAYER, "b": "class:high", "c": "class:low"}
    assert not merged.conflicts


def test_two_classes_of_one_priority_are_in_conflict_unless_they_say_the_same() -> None:
    two = [layer("x", score("a", "1"), score("b")), layer("y", score("a", "2"), score("b"))]
    assert merge(None, two).conflicts == {"a": ("class:x", "class:y")}
    assert not merge(own(score("a")), two).conflicts
    assert not merge(None, [*two, layer("z", score("a"), priority=1)]).conflicts


def test_a_device_can_do_without_a_score_of_its_class() -> None:
    merged = merge(own(without=("a",)), [layer("x", score("a"), score("b"))])
    assert merged.entries.keys() == {"b"}


def test_a_layer_that_would_be_too_many_is_left_out_whole() -> None:
    many = [score(f"s-{each}") for each in range(SCORES_MOST - 1)]
    merged = merge(own(*many), [layer("x", score("a"), score("b")), layer("y", score("c"))])
    assert merged.too_many == {"class:x"}
    assert merged.layers["c"] == "class:y"


def test_documents_are_read_as_they_were_written() -> None:
    manifest = class_manifest(rollout=WAVES)
    assert (
        parse_class_manifest(manifest.payload(), fleet="home", name="kiosk", generation=7)
        == manifest
    )
    assert b'"labels"' not in manifest.payload()
    assert parse_gate(gate().payload(), fleet="home", name="kiosk") == gate()
    rule = ClassRule(selectors=(Selected(since=7, selector="role=kiosk,!test"),))
    assert parse_index(index(classes={"kiosk": rule}).payload(), fleet="home").classes == {
        "kiosk": rule
    }


def test_a_document_for_another_is_refused() -> None:
    payload = class_manifest().payload()
    with pytest.raises(WrongFleet):
        parse_class_manifest(payload, fleet="office", name="kiosk")
    with pytest.raises(WrongTarget):
        parse_class_manifest(payload, fleet="home", name="door")
    with pytest.raises(WrongTarget):
        parse_class_manifest(payload, fleet="home", name="kiosk", generation=8)
    with pytest.raises(WrongTarget):
        parse_gate(gate().payload(), fleet="home", name="door")
    with pytest.raises(InvalidManifest):
        parse_gate(payload, fleet="home", name="kiosk")
    with pytest.raises(InvalidManifest):
        parse_index(gate().payload(), fleet="home")


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"a": "b"}},
        {"without": ("a",)},
        {"supersedes": 7},
        {"target": "agent:pi-1"},
        {"rollout": {"steps": [{"upto": "1%", "places": 5}]}},
        {"rollout": {"steps": [{"upto": "2%", "places": 9}, {"upto": "1%", "places": 5}]}},
        {"rollout": {"canary": "=="}},
        {"rollout": {"windows": [{"begin": "24:00", "until": "01:00"}]}},
        {"rollout": {"windows": [{"begin": "1:00", "until": "02:00"}]}},
        {"rollout": {"success_percent": float("nan")}},
    ],
)
def test_a_class_manifest_that_cannot_be_followed_is_none(changes: Mapping[str, Any]) -> None:
    with pytest.raises((ValidationError, InvalidManifest)):
        class_manifest(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"stable_generation": 6},
        {"stable_sha256": HASH},
        {"stable_generation": 7, "stable_sha256": HASH},
        {"state": "open"},
        {"places": PLACES + 1},
        {"reason": "a\nb"},
    ],
)
def test_a_gate_that_says_two_things_is_none(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        gate(**changes)


def test_who_belongs_to_a_class_depends_on_its_generation() -> None:
    rule = ClassRule(
        selectors=(
            Selected(since=7, selector="role=kiosk,!test"),
            Selected(since=3, selector="role=kiosk"),
        )
    )
    labels = {"role": "kiosk", "test": ""}
    newer, older = rule.find_selector(8), rule.find_selector(6)
    assert newer is not None
    assert older is not None
    assert (newer.matches(labels), older.matches(labels)) == (False, True)
    assert rule.find_selector(2) is None
