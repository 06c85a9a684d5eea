"""The table of docs/compose.md, from tests/compose/files: ``python -m tests.docs.compose_tables`` writes it.

Each folder there is an application as people run it, in our own words: whether it can be pushed as it is, and
if not, why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harmony_control.compose.mapping import map_project
from harmony_control.compose.project import read_project
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore

__all__ = ["FILES", "PAGE", "outcome_of_file", "page", "table"]

PAGE = Path(__file__).parents[2] / "docs/compose.md"
FILES = Path(__file__).parents[1] / "compose/files"
_BEGINS = "<!-- from tests/compose/files, by python -m tests.docs.compose_tables -->\n"
_ENDS = "<!-- until here -->\n"
_REGISTRY = Registry([ComposeScore])


def outcome_of_file(folder: Path) -> list[str]:
    """Return why what is in *folder* cannot be pushed, without file and line; nothing when it can."""
    file = folder / "compose.yaml"
    try:
        map_project(read_project([file], environment={"HOME": "/home/ada"}), _REGISTRY)
    except ComposeFileError as error:
        return [line.partition(": ")[2] for line in error.message.splitlines()]
    return []


def table() -> str:
    """The table, with its marks."""
    return "".join([_BEGINS, *_rows(), _ENDS])


def _rows() -> Iterator[str]:
    yield "| application | as it is? | what is told |\n|---|---|---|\n"
    for folder in sorted(FILES.iterdir()):
        told = outcome_of_file(folder)
        words = "; ".join(each.replace("|", "\\|") for each in told)
        yield f"| {folder.name} | {'no' if told else 'yes'} | {words} |\n"


def page() -> str:
    """The page, with the table brought up to date."""
    before, _, rest = PAGE.read_text().partition(_BEGINS)
    _, _, after = rest.partition(_ENDS)
    return before + table() + after


if __name__ == "__main__":
    PAGE.write_text(page())
