"""Fixtures of the tests of `harmony serve`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.browser import read_axe

from .ground import Ground, site


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that finds what shuts people out of a page."""
    return read_axe()


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncGenerator[Ground]:
    """A site over a real bus with three devices."""
    async with site(tmp_path) as found:
        yield found
