"""docs/how-it-works.md and its picture name what is there, and are as the tool draws them."""

from __future__ import annotations

import re
from pathlib import Path

from examples.life import STEPS, TARGET, drawn

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "how-it-works.md").read_text()


def test_the_picture_is_the_one_that_the_tool_draws() -> None:
    assert TARGET.read_text() == drawn()
    assert TARGET.name in PAGE


def test_every_module_of_the_picture_is_there() -> None:
    assert [step.module for step in STEPS if not (TREE / step.module).is_file()] == []


def test_every_module_and_every_decision_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(harmony_[\w/]+\.py)`", PAGE)) | {
        f"docs/{path}" for path in re.findall(r"\]\((adr/[\w.-]+\.md)\)", PAGE)
    }
    assert len(named) > 15
    assert [path for path in sorted(named) if not (TREE / path).is_file()] == []
