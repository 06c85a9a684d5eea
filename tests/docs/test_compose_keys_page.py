"""docs/compose-keys.md: every key of the Compose Specification, and what a device does with it."""

from __future__ import annotations

from harmony_control.compose.schema import keys_of_schema
from tests.docs.compose_key_tables import PAGE, page


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.docs.compose_key_tables"


def test_every_key_of_a_service_has_its_place() -> None:
    for key in keys_of_schema():
        if key.count(".") == 2 and key.startswith("services.*."):
            assert f"| `{key}` |" in PAGE.read_text()
