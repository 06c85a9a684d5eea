"""docs/glossary.md names modules that are there, and gives each word one meaning."""

from __future__ import annotations

import re
from pathlib import Path

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "glossary.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| word |")
]


def test_every_row_has_a_word_a_meaning_and_a_module() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        assert len(row) == 4, row
        assert all(row), row
        assert re.search(r"`harmony_[\w/]+\.py`", row[3]), row


def test_every_module_that_is_named_is_there() -> None:
    named = set(re.findall(r"`(harmony_[\w/]+\.py)`", PAGE))
    assert [path for path in sorted(named) if not (TREE / path).is_file()] == []


def test_no_word_stands_twice() -> None:
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert sorted(words) == sorted(set(words))
