"""Units in memory pass the contract of units."""

from __future__ import annotations

import pytest

from harmony_core.testing.fake_systemd import FakeSystemd
from harmony_core.testing.systemd_contract import (
    SERVICE_PROGRAMS,
    SystemdHostContract,
    UnitsUnderTest,
)


class TestFakeSystemd(SystemdHostContract):
    @pytest.fixture
    def host(self) -> UnitsUnderTest:
        systemd = FakeSystemd(patient=False)
        systemd.programs.update(SERVICE_PROGRAMS)
        return UnitsUnderTest(units=systemd, bystander=systemd, reopened=systemd.reopened)
