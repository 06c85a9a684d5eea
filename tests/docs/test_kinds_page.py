"""docs/kinds.md: every kind of Score that comes with Harmony, with its fields, as the code has them."""

from __future__ import annotations

from harmony_core.plugins import load
from tests.docs.kind_tables import PAGE, page


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.docs.kind_tables"


def test_every_kind_has_its_place() -> None:
    for kind in load():
        assert f"## {kind.kind}\n" in PAGE.read_text()
