"""What every systemd must tell of a unit whose processes stand still: a part of its contract."""

from __future__ import annotations

from harmony_core.errors import UnitFailed
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.testing.units_under_test import (
    SLEEP,
    SLEEP_TOO,
    UnitContract,
    UnitsUnderTest,
    require_change,
)

__all__ = ["UnitFrozenContract"]


class UnitFrozenContract(UnitContract):
    """Needs the fixture `host`."""

    async def test_a_frozen_unit_is_told_with_its_remedy_whatever_is_wished_of_it(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        await host.bystander.freeze(self.NAME)
        before = await host.marks(self.NAME)
        for unit in (self.unit(), self.unit(SLEEP_TOO), self.unit(state="stopped")):
            await self._is_told(host, unit)
        assert (await host.plan_one(self.unit())).pending is not None
        assert await host.marks(self.NAME) == before
        await host.bystander.thaw(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ()
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_frozen_unit_is_not_being_stopped_while_it_is_removed(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        await host.bystander.freeze(self.NAME)
        for _ in range(2):
            (error,) = await host.units.remove([self.NAME], apply=True)
            assert isinstance(error, UnitFailed)
            assert f"systemctl thaw {self.NAME}" in error.message
        assert host.file(self.NAME) is not None
        await host.bystander.thaw(self.NAME)
        assert (await host.remove_one(self.NAME)).actions[-1] == "removed its file"
        assert await host.units.observe(self.NAME) is None

    async def test_a_package_s_unit_is_removed_from_a_score_though_it_is_frozen(
        self, host: UnitsUnderTest
    ) -> None:
        """Where nothing is to be done to it."""
        await host.bystander.install(self.NAME, self.content())
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        await host.apply_one(self.unit(content=None))
        await host.bystander.freeze(self.NAME)
        (change,) = await host.units.remove([self.NAME], apply=True)
        assert require_change(change).actions == ("left: it was there before",)
        await host.bystander.thaw(self.NAME)

    async def _is_told(self, host: UnitsUnderTest, unit: SystemdUnit) -> None:
        for _ in range(2):
            (error,) = await host.units.converge([unit], apply=True)
            assert isinstance(error, UnitFailed)
            assert f"systemctl thaw {self.NAME}" in error.message
            assert error.resource == f"unit:{self.NAME}"
