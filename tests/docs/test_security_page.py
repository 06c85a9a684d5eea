"""docs/security.md: each claim names tests that are there, and each battery its counts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from harmony_core import errors
from tests.control.test_access_battery import ATTACKS, FLOODS
from tests.powercuts import test_control_plane, test_device
from tests.scores.test_hostile_fields import directed

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "security.md").read_text()


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table beneath *heading*."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [line.strip("|").split("|") for line in lines]


CLAIMS, CATALOGUE = _rows("Who has what"), _rows("The catalogue of bad input")
GROUPS = (
    *("Wire", "Paths", "systemd", "Containers", "Score graph", "Time", "Host", "NATS", "podman"),
    *("D-Bus", "Agent"),
)


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    path = TREE / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return any(
        isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == name
        for each in tree.body
    )


def _tests_of(row: list[str]) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", row[-1])


def test_every_claim_names_tests_and_they_are_there() -> None:
    assert len(CLAIMS) >= 10
    for row in (*CLAIMS, *CATALOGUE):
        assert _tests_of(row), f"a row without a test: {row}"
        assert [test for test in _tests_of(row) if not _is_there(test)] == []


def test_the_catalogue_has_all_its_parts_and_no_code_that_there_is_not() -> None:
    parts = [name for row in CATALOGUE for name in re.findall(r"\*\*(.+?)\*\*", row[0])]
    assert parts == list(GROUPS)
    assert {len(row) for row in CATALOGUE} == {3}
    told = {word for row in CATALOGUE for word in re.findall(r"`([A-Z]\w+)`", row[1])}
    codes = {each.code for each in vars(errors).values() if _is_error(each)}
    assert told - codes == set()


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, errors.HarmonyError)


def test_the_counts_are_those_of_the_batteries() -> None:
    assert f"{len(ATTACKS):,} messages and subscriptions" in PAGE
    assert f"{len(FLOODS)} floods" in PAGE
    assert (
        f"{test_device.STATED} of a device, {test_control_plane.STATED} of a control plane" in PAGE
    )
    assert f"{sum(1 for _ in directed()):,} directed" in PAGE
