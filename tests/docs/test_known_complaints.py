"""docs/known-complaints.md: each row names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TREE = Path(__file__).parents[2]
ROWS = [
    line.strip("|").split(" | ")
    for line in (TREE / "docs" / "known-complaints.md").read_text().splitlines()
    if line.startswith("| ")
][1:]


def _list_tests(file: str) -> set[str]:
    """Return the names of all functions in *file*."""
    tree = ast.parse((TREE / file).read_text())
    return {
        each.name
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_each_complaint_names_tests_that_are_there() -> None:
    assert len(ROWS) == 19
    for complaint, _, shown in ROWS:
        tests = re.findall(r"`([\w/]+\.py)::(test_\w+)`", shown)
        assert tests, complaint
        for file, name in tests:
            assert name in _list_tests(file), complaint
