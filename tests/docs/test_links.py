"""Whatever a document leads to is there: pages, modules, and names in them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PAGES = [TREE / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")] + sorted(
    (TREE / "docs").rglob("*.md")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_every_page_and_module_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    linked = [page.parent / path for path in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)]
    named = [
        TREE / path for path in re.findall(r"`((?:harmony_\w+|tests|benchmarks)/[\w/]*\.py)`", text)
    ]
    assert [str(path) for path in (*linked, *named) if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_every_heading_that_is_linked_to_is_there(page: Path) -> None:
    for path, heading in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text()):
        target = (page.parent / path) if path else page
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
        assert heading in anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_every_name_of_a_module_can_be_imported(page: Path) -> None:
    for dotted in re.findall(r"`(harmony_\w+(?:\.\w+)+)(?:\(.*?\))?`", page.read_text()):
        if not dotted.endswith(".py"):
            assert _is_there(dotted), dotted


def _is_there(dotted: str) -> bool:
    """Whether *dotted* is a module, or what can be had of one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    return True
