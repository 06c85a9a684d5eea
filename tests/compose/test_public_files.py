"""Compose files as people have them: pushed as they are, or refused by name, as docs/compose.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_control.compose.read import ComposeSettings
from harmony_control.score_files.read import read_score_files
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore
from tests.docs.compose_tables import FILES, PAGE, outcome_of_file, page

APPLICATIONS = sorted(FILES.iterdir())


def test_the_page_says_what_becomes_of_each() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.docs.compose_tables"


def test_they_are_many_and_most_need_no_change() -> None:
    assert len(APPLICATIONS) >= 40
    refused = [each.name for each in APPLICATIONS if outcome_of_file(each)]
    assert len(refused) < len(APPLICATIONS) / 3, refused


@pytest.mark.parametrize("folder", APPLICATIONS, ids=lambda each: each.name)
def test_each_is_one_score_or_is_refused_with_the_line_of_each_fault(folder: Path) -> None:
    notes: list[str] = []
    file = str(folder / "compose.yaml")
    settings = ComposeSettings(tell=notes.append)
    if outcome_of_file(folder):
        with pytest.raises(ComposeFileError) as raised:
            read_score_files([file], Registry([ComposeScore]), settings)
        assert all("compose.yaml:" in line for line in raised.value.message.splitlines())
        return
    entries = read_score_files([file], Registry([ComposeScore]), settings)
    (entry,) = entries.values()
    assert isinstance(entry.score, ComposeScore)
    assert ComposeScore.model_validate_json(entry.score.model_dump_json()) == entry.score
    assert all("compose.yaml:" in each for each in notes), notes
