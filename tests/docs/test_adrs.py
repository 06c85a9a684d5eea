"""docs/adr: each decision is short, has the same three parts, and leads to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
ADRS = sorted((TREE / "docs" / "adr").glob("*.md"))
WORDS_MOST = 450
"""About 350, and some for what is hard. Of 22, which answers seven questions, this is without them."""


@pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.stem)
def test_a_decision_is_context_decision_and_consequences_and_short(adr: Path) -> None:
    title, *parts = re.split(r"^## ", adr.read_text(), flags=re.MULTILINE)
    assert title.startswith(f"# {int(adr.name[:4])}. ")
    if adr.name.startswith("0029"):
        return  # small choices, a line each
    headings = [part.partition("\n")[0] for part in parts]
    assert headings[:3] == ["Context", "Decision", "Consequences"]
    assert len(" ".join(parts[:3]).split()) <= WORDS_MOST


@pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.stem)
def test_what_a_decision_leads_to_is_there(adr: Path) -> None:
    text = adr.read_text()
    linked = [adr.parent / path for path in re.findall(r"\]\(((?!http)[^)#]+)\)", text)]
    named = [
        TREE / path for path in re.findall(r"`((?:harmony_\w+|tests|docs)/[\w/.-]+\.\w+)`", text)
    ]
    assert [str(path) for path in (*linked, *named) if not path.exists()] == []


def test_the_numbers_follow_each_other() -> None:
    numbers = [int(adr.name[:4]) for adr in ADRS]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_examples_that_decision_22_counts_are_as_many() -> None:
    page = (TREE / "docs" / "wire.md").read_text()
    blocks = re.findall(
        r"^```jsonl [\w-]*(?:json|changes)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    count = sum(len(block.splitlines()) for block in blocks)
    assert f"{count} examples in docs/wire.md" in (ADRS[1]).read_text()
