"""docs/resources.md: every resource and field, as the code has them, each with what it means."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from harmony_core.plugins import load
from tests.docs.resource_tables import MODELS, PAGE, described, page


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.docs.resource_tables"


@pytest.mark.parametrize("model", MODELS, ids=lambda each: each.__name__)
def test_every_field_of_a_resource_says_what_it_means(model: type[BaseModel]) -> None:
    assert [name for name, words in described(model).items() if not words] == []


@pytest.mark.parametrize("model", [*load()], ids=lambda each: each.__name__)
def test_every_field_of_a_score_says_what_it_means(model: type[BaseModel]) -> None:
    """In its description, which is what `harmony kinds` and editors show."""
    assert [name for name, field in model.model_fields.items() if not field.description] == []
