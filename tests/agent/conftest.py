"""A device for every test that asks for a rig."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from harmony_control.store import operator_key
from harmony_core.testing import FakeFiles
from tests.nats import serving

from .rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1") as bus:
        yield Rig(bus, tmp_path, operator_key.load(bus.home), FakeFiles())
