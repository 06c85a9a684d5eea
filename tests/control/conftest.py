"""A bus and a device that a test speaks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.control.ground import Ground, ground


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncGenerator[Ground]:
    async with ground(tmp_path) as made:
        yield made
