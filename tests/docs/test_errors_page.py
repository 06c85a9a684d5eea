"""docs/errors.md: every code, as the code has it, each with what it means and what to do."""

from __future__ import annotations

import pytest

from harmony_core.errors import HarmonyError
from tests.docs.error_tables import CODES, PAGE, page, remedy_of


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.docs.error_tables"


@pytest.mark.parametrize("error", CODES, ids=lambda each: each.__name__)
def test_every_error_says_what_to_do(error: type[HarmonyError]) -> None:
    remedy = remedy_of(error)
    assert remedy.endswith(".")
    assert f"### {error.code}\n" in PAGE.read_text()
