"""Fixtures of the tests of `harmony serve`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from .ground import Ground, site


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncGenerator[Ground]:
    """A site over a real bus with three devices."""
    async with site(tmp_path) as found:
        yield found
