"""docs/security.md: each claim names tests that are there, and each battery its counts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.control.test_access_battery import ATTACKS, FLOODS
from tests.powercuts import test_control_plane, test_device
from tests.scores.test_hostile_fields import directed

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "security.md").read_text()
ROWS = [
    line for line in PAGE.partition("## Who has what")[2].splitlines() if line.startswith("| ")
][1:]


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    path = TREE / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return any(
        isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == name
        for each in tree.body
    )


def test_every_claim_names_tests_and_they_are_there() -> None:
    named = [re.findall(r"`(tests/[\w/]+\.py::\w+)`", row.split("|")[4]) for row in ROWS]
    assert len(named) >= 10
    assert all(named), "a row without a test"
    assert [test for tests in named for test in tests if not _is_there(test)] == []


def test_the_counts_are_those_of_the_batteries() -> None:
    assert f"{len(ATTACKS)} messages and subscriptions" in PAGE
    assert f"{len(FLOODS)} floods" in PAGE
    assert (
        f"{test_device.STATED} of a device, {test_control_plane.STATED} of a control plane" in PAGE
    )
    assert f"{sum(1 for _ in directed()):,} directed" in PAGE
