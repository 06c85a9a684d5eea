"""What every systemd must tell of what changes: a part of `SystemdHostContract`."""

from __future__ import annotations

import pytest

from harmony_core.resources import Active

from .hearing import Hearer
from .units_under_test import SLEEP_TOO, UnitContract, UnitsUnderTest

__all__ = ["UnitWatchContract"]


class UnitWatchContract(UnitContract):
    """Needs the fixture `host`."""

    @pytest.fixture
    def hearer(self) -> Hearer:
        return Hearer()

    @pytest.mark.parametrize("deed", ["stop", "restart", "kill", "disable"])
    async def test_what_a_bystander_does_to_a_unit_is_told(
        self, host: UnitsUnderTest, hearer: Hearer, deed: str
    ) -> None:
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME], hearer)
        await getattr(host.bystander, deed)(self.NAME)
        await hearer.hears(self.NAME)

    @pytest.mark.parametrize("deed", ["start", "enable"])
    async def test_what_a_bystander_does_to_a_unit_at_rest_is_told(
        self, host: UnitsUnderTest, hearer: Hearer, deed: str
    ) -> None:
        await host.apply_one(self.unit(state="stopped", enabled=False))
        await host.units.watch([self.NAME], hearer)
        await getattr(host.bystander, deed)(self.NAME)
        await hearer.hears(self.NAME)

    async def test_what_a_bystander_does_to_its_file_is_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME], hearer)
        path = f"/etc/systemd/system/{self.NAME}"
        host.bystander.write(path, self.content(SLEEP_TOO).encode())
        await hearer.hears(self.NAME)
        host.bystander.write(f"{path}.d/override.conf", b"[Service]\nNice=5\n")
        await hearer.hears(self.NAME)
        await hearer.is_at_rest()
        host.bystander.write(f"{path}.d/override.conf", b"[Service]\nNice=6\n")
        await hearer.hears(self.NAME)
        await hearer.is_at_rest()
        await host.bystander.reload()
        await hearer.hears(self.NAME)

    async def test_a_drop_in_is_seen_once_it_is_in_force_and_nothing_is_done_about_it(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit()
        await host.apply_one(unit)
        path = f"/etc/systemd/system/{self.NAME}.d/override.conf"
        host.bystander.write(path, b"[Service]\nNice=5\n")
        await host.bystander.reload()
        change = await host.apply_one(unit)
        assert change.actions == ()
        assert isinstance(change.after, Active)
        assert change.after.drop_ins == (path,)
        assert unit.overridden_by(change.after) == (f"file:{path}",)
        assert self.unit(content=None).overridden_by(change.after) == ()
        assert self.unit(uses=(path,)).overridden_by(change.after) == ()

    async def test_what_becomes_of_a_file_that_it_uses_is_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        """Also when it began to use it only after it was watched."""
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME], hearer)
        await host.apply_one(self.unit(uses=(self.USED,)))
        await hearer.hears(self.NAME)
        # Whoever tells once too often for the first few is found out by the last.
        for n in range(10):
            host.bystander.write(self.USED, b"%d\n" % n)
            await hearer.hears(self.NAME)

    async def test_a_unit_that_comes_into_being_is_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.units.watch([self.NAME], hearer)
        await host.bystander.install(self.NAME, self.content())
        await hearer.hears(self.NAME)
        await hearer.is_at_rest()
        await host.bystander.start(self.NAME)
        await hearer.hears(self.NAME)

    async def test_a_unit_that_is_masked_is_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.units.watch([self.NAME], hearer)
        await host.bystander.mask(self.NAME)
        await hearer.hears(self.NAME)

    async def test_what_we_do_ourselves_to_a_unit_is_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.units.watch([self.NAME], hearer)
        await host.apply_one(self.unit())
        await hearer.hears(self.NAME)
        await hearer.is_at_rest()
        await host.remove_one(self.NAME)
        await hearer.hears(self.NAME)

    async def test_looking_at_a_unit_is_not_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        """Also where looking makes systemd read its file, and forget it again."""
        await self._other_runs(host)
        await host.bystander.install(self.NAME, self.content())
        await host.units.watch([self.NAME, "harmony-contract-absent.service", self.OTHER], hearer)
        for _ in range(3):
            await host.units.observe(self.NAME)
            await host.units.observe("harmony-contract-absent.service")
        await host.bystander.stop(self.OTHER)
        await hearer.hears(self.OTHER, never=self.NAME)

    async def test_a_unit_that_is_not_watched_any_more_is_not_told(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await self._other_runs(host)
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME, self.OTHER], hearer)
        await host.units.watch([self.OTHER], hearer)
        await host.bystander.stop(self.NAME)
        await host.bystander.stop(self.OTHER)
        await hearer.hears(self.OTHER, never=self.NAME)

    async def test_a_change_of_a_unit_between_two_calls_is_not_lost(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME], hearer)
        await host.bystander.stop(self.NAME)
        await host.units.watch([self.NAME, self.OTHER], hearer)
        await hearer.hears(self.NAME)

    async def test_once_closed_it_tells_of_no_unit(
        self, host: UnitsUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.unit())
        await host.units.watch([self.NAME], hearer)
        await host.units.close()
        hearer.heard.clear()
        await host.bystander.stop(self.NAME)
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", b"")
        await hearer.is_at_rest()
        assert hearer.heard == []
        await host.units.close()

    async def _other_runs(self, host: UnitsUnderTest) -> None:
        await host.apply_one(self.unit(name=self.OTHER))
