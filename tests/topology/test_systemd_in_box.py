"""Units on real systemd, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from harmony_core.testing.systemd_contract import SystemdHostContract, UnitsUnderTest
from tests.box import Box
from tests.topology.box_units import UnitsOfABox, emptied


@pytest.fixture
async def units(pi: Box) -> AsyncGenerator[UnitsOfABox]:
    emptied(pi)
    units = UnitsOfABox(pi)
    yield units
    units.close()


class TestSystemdInABox(SystemdHostContract):
    @pytest.fixture
    def host(self, units: UnitsOfABox) -> UnitsUnderTest:
        return units.under_test()
