"""The pictures of the dashboard: small, and each is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.dashboard import BYTES_MOST, TARGET

TREE = Path(__file__).parents[2]
PICTURES = sorted(TARGET.glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_is_small_and_on_the_page_of_the_dashboard(picture: Path) -> None:
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) <= BYTES_MOST
    assert f"](assets/{picture.name})" in (TREE / "docs" / "dashboard.md").read_text()


def test_the_readme_shows_one() -> None:
    shown = (TREE / "README.md").read_text()
    assert sum(f"](docs/assets/{each.name})" in shown for each in PICTURES) == 1
