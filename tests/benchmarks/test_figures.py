"""How a benchmark's lines are judged: by the ratio alone, and what was not measured is short."""

from __future__ import annotations

import json

import pytest

from benchmarks.figures import Figure, Goal, Line, median, p99
from benchmarks.goals import GOALS, unmeasured
from benchmarks.report import row, to_json


def ms(value: float) -> Figure:
    return Figure(value, 0.0, "ms")


def test_a_median_knows_its_spread_and_how_many_it_is_of() -> None:
    assert median([1, 2, 3, 4, 100], "ms") == Figure(3, 25.25, "ms", 5)
    assert median([7], "ms") == Figure(7, 0, "ms", 1)


def test_the_ninety_ninth_percentile_leaves_out_one_in_a_hundred() -> None:
    assert p99([float(number) for number in range(1, 102)], "ms").value == 100


def test_floors_add_up() -> None:
    assert (Figure(3, 3, "ms", 5) + Figure(4, 4, "ms", 9)) == Figure(7, 5, "ms", 5)


@pytest.mark.parametrize(
    ("measured", "floor", "goal", "ratio", "verdict"),
    [
        (13, 10, Goal(1.3), 1.3, "ok"),
        (14, 10, Goal(1.3), 1.4, "short"),
        (10, 60, Goal(6, "at least"), 6, "ok"),
        (10, 59, Goal(6, "at least"), 5.9, "short"),
        (10, 5, None, 2, "info"),
    ],
)
def test_a_line_is_judged_by_its_ratio(
    measured: float, floor: float, goal: Goal | None, ratio: float, verdict: str
) -> None:
    line = Line(id="some.line", measured=ms(measured), floor=ms(floor), goal=goal)
    assert (line.ratio, line.verdict) == (ratio, verdict)


def test_what_cannot_be_measured_says_why_and_is_short() -> None:
    (line,) = unmeasured(["agent.idle_cpu"], "there is no clock here")
    assert line.verdict == "short"
    assert row(line).endswith("there is no clock here")


def test_the_json_says_what_the_table_says() -> None:
    line = Line(id="cli.help", measured=ms(30), floor=ms(10), goal=GOALS["cli.help"])
    (told,) = json.loads(to_json([line], ["cli"]))["lines"]
    assert told["id"] == "cli.help"
    assert (told["ratio"], told["goal"], told["verdict"]) == (3, "≤ 5", "ok")
    assert "3.00" in row(line)
