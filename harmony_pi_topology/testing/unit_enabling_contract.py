"""Enabling or disabling one unit is no change of another that its ``Also=`` names: a part of its contract."""

from __future__ import annotations

import pytest

from harmony_pi_topology.testing.units_under_test import UnitContract, UnitsUnderTest

__all__ = ["UnitEnablingContract"]

_TARGET = "[Unit]\nDescription=other\n[Install]\nWantedBy=multi-user.target\n"


class UnitEnablingContract(UnitContract):
    """Needs the fixture `host`."""

    SOCKET = "harmony-contract-other.target"

    def also(self) -> str:
        """Return a unit file that names another."""
        return f"{self.content()}Also={self.SOCKET}\n"

    @pytest.mark.parametrize("is_ours", [True, False], ids=["its file ours", "a package's"])
    @pytest.mark.parametrize("was_enabled", [True, False], ids=["was enabled", "was not"])
    async def test_what_a_unit_names_besides_is_enabled_in_the_end_as_it_was(
        self, host: UnitsUnderTest, *, is_ours: bool, was_enabled: bool
    ) -> None:
        await host.bystander.install(self.SOCKET, _TARGET)
        if was_enabled:
            await host.bystander.enable(self.SOCKET)
        if not is_ours:
            await host.bystander.install(self.NAME, self.also())
        await host.apply_one(self.unit(content=self.also() if is_ours else None))
        assert await host.bystander.is_enabled(self.SOCKET)
        await host.remove_one(self.NAME)
        assert not await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.is_enabled(self.SOCKET) is was_enabled

    async def test_what_a_unit_names_besides_is_not_disabled_with_it(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.SOCKET, _TARGET)
        await host.bystander.install(self.NAME, self.also())
        await host.bystander.enable(self.NAME)
        unit = self.unit(content=None, enabled=False, state="stopped")
        assert (await host.apply_one(unit)).actions == ("disabled",)
        assert not await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.is_enabled(self.SOCKET)
        assert (await host.apply_one(unit)).actions == ()
        await host.remove_one(self.NAME)
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.is_enabled(self.SOCKET)

    async def test_what_is_named_by_what_a_unit_names_is_as_it_was_too(
        self, host: UnitsUnderTest
    ) -> None:
        further = "harmony-contract-further.target"
        await host.bystander.install(further, _TARGET)
        await host.bystander.install(self.SOCKET, f"{_TARGET}Also={further}\n")
        await host.bystander.enable(further)
        await host.apply_one(self.unit(content=self.also()))
        assert await host.bystander.is_enabled(self.SOCKET)
        await host.remove_one(self.NAME)
        assert not await host.bystander.is_enabled(self.SOCKET)
        assert await host.bystander.is_enabled(further)

    async def test_what_somebody_disabled_since_stays_disabled(self, host: UnitsUnderTest) -> None:
        await host.bystander.install(self.SOCKET, _TARGET)
        await host.bystander.enable(self.SOCKET)
        await host.apply_one(self.unit(content=self.also()))
        await host.bystander.disable(self.SOCKET)
        await host.remove_one(self.NAME)
        assert not await host.bystander.is_enabled(self.SOCKET)
