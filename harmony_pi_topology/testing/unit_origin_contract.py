"""What a unit runs is what systemd had loaded when it began, not what its file says: part of the contract."""

from __future__ import annotations

import pytest

from harmony_core.errors import NotOurs
from harmony_core.resources import Active

from .units_under_test import MADE, SLEEP, SLEEP_TOO, UnitContract, UnitsUnderTest, require_change

__all__ = ["UnitOriginContract"]

_UNITS = "/etc/systemd/system"
_UNKNOWN = "restarted: it is not known what it was started from"
_OTHERWISE = f"[Service]\nExecStart=\nExecStart={SLEEP_TOO}\n".encode()


class UnitOriginContract(UnitContract):
    """Needs the fixture `host`."""

    INSTANCE = "harmony-contract@a.service"
    TEMPLATE = f"{_UNITS}/harmony-contract@.service"

    @pytest.mark.parametrize(
        "used",
        [
            f"{_UNITS}/harmony-contract@.service",
            f"{_UNITS}/harmony-contract@.service.d/used.conf",
            f"{_UNITS}/harmony-.service.d/used.conf",
            f"{_UNITS}/harmony-contract@a.service.d/used.conf",
        ],
    )
    async def test_whatever_systemd_reads_is_read_before_a_unit_is_restarted_for_it(
        self, host: UnitsUnderTest, used: str
    ) -> None:
        host.bystander.write(self.TEMPLATE, self.content().encode())
        unit = self.unit(name=self.INSTANCE, content=None, enabled=None, uses=(used,))
        await host.apply_one(unit)
        assert await host.bystander.command(self.INSTANCE) == SLEEP
        is_template = used == self.TEMPLATE
        host.bystander.write(used, self.content(SLEEP_TOO).encode() if is_template else _OTHERWISE)
        change = await host.apply_one(unit)
        assert change.actions == (f"restarted: {used} changed",)
        assert await host.bystander.command(self.INSTANCE) == SLEEP_TOO
        assert (await host.apply_one(unit)).actions == ()

    async def test_a_unit_that_is_started_is_started_from_what_is_on_the_disk(
        self, host: UnitsUnderTest
    ) -> None:
        """Whoever wrote it, and though nobody has told systemd."""
        path = f"{_UNITS}/{self.NAME}"
        host.bystander.write(path, self.content().encode())
        unit = self.unit(content=None, enabled=None)
        await host.apply_one(unit)
        await host.bystander.stop(self.NAME)
        host.bystander.write(path, self.content(SLEEP_TOO).encode())
        assert (await host.apply_one(unit)).actions == ("started",)
        assert await host.bystander.command(self.NAME) == SLEEP_TOO

    @pytest.mark.parametrize("directory", [f"{_UNITS}.control", "/run/systemd/system.control"])
    async def test_a_unit_file_that_takes_precedence_over_ours_is_told_and_never_in_order(
        self, host: UnitsUnderTest, directory: str
    ) -> None:
        await host.apply_one(self.unit())
        path = f"{directory}/{self.NAME}"
        host.bystander.write(path, self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        for unit in (self.unit(), self.unit(SLEEP, "Nice=1")):
            for apply in (False, True):
                (error,) = await host.units.converge([unit], apply=apply)
                assert isinstance(error, NotOurs)
                assert path in error.message
                assert "systemctl daemon-reload" in error.message
        host.bystander.delete(path)
        await host.bystander.reload()
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert (await host.apply_one(self.unit())).actions == (_UNKNOWN,)
        assert await host.bystander.command(self.NAME) == SLEEP
        assert (await host.apply_one(self.unit())).actions == ()

    async def test_a_unit_file_that_takes_precedence_once_systemd_reads_it_is_told_then(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        path = f"{_UNITS}.control/{self.NAME}"
        host.bystander.write(path, self.content(SLEEP_TOO).encode())
        (error,) = await host.units.converge([self.unit(SLEEP, "Nice=1")], apply=True)
        assert isinstance(error, NotOurs)
        host.bystander.delete(path)
        change = await host.apply_one(self.unit(SLEEP, "Nice=1"))
        assert change.actions == (_UNKNOWN,)
        assert await host.bystander.command(self.NAME) == SLEEP

    @pytest.mark.parametrize(
        "directory",
        ["harmony-contract.service.d", "harmony-.service.d", "service.d"],
    )
    async def test_what_was_started_under_a_drop_in_is_started_anew_once_that_is_gone(
        self, host: UnitsUnderTest, directory: str
    ) -> None:
        await host.apply_one(self.unit())
        path = f"{_UNITS}/{directory}/harmony-contract.conf"
        host.bystander.write(path, _OTHERWISE)
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ()  # it is somebody's, and told
        host.bystander.delete(path)
        await host.bystander.reload()
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert (await host.apply_one(self.unit())).actions == (f"restarted: {path} is gone",)
        assert await host.bystander.command(self.NAME) == SLEEP
        assert (await host.apply_one(self.unit())).actions == ()

    async def test_a_drop_in_that_came_and_went_unseen_is_not_taken_for_ours(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        path = f"{_UNITS}/{self.NAME}.d/harmony-contract.conf"
        host.bystander.write(path, _OTHERWISE)
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        host.bystander.delete(path)
        await host.bystander.reload()
        (planned,) = await host.units.converge([self.unit()], apply=False)
        assert require_change(planned).actions == (_UNKNOWN,)
        (change,) = await host.reopen().converge([self.unit()], apply=True)
        assert require_change(change).actions == (_UNKNOWN,)
        assert (await host.apply_one(self.unit())).actions == ()
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_used_file_that_came_and_went_unseen_is_not_taken_for_ours(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(uses=(self.USED,))
        host.bystander.write(self.USED, b"one\n")
        await host.apply_one(unit)
        host.bystander.write(self.USED, b"two\n")
        await host.bystander.restart(self.NAME)
        host.bystander.write(self.USED, b"one\n")
        assert (await host.apply_one(unit)).actions == (f"restarted: {self.USED} changed",)
        assert (await host.apply_one(unit)).actions == ()

    async def test_what_was_seen_in_order_stays_so_whatever_systemd_reads_later(
        self, host: UnitsUnderTest
    ) -> None:
        """Also when it was seen by a dry run only, and by an agent that has ended since."""
        await host.apply_one(self.unit())
        await host.bystander.restart(self.NAME)
        assert (await host.plan_one(self.unit())).actions == ()
        before = await host.bystander.identity(self.NAME)
        await host.bystander.reload()
        (change,) = await host.reopen().converge([self.unit()], apply=True)
        assert require_change(change).actions == ()
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_that_ran_already_from_what_we_would_write_is_left_alone(
        self, host: UnitsUnderTest
    ) -> None:
        host.bystander.write(f"{_UNITS}/{self.NAME}", self.content().encode())
        await host.bystander.reload()
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        change = await host.apply_one(self.unit())
        assert change.actions == ()
        assert isinstance(change.after, Active)

    async def test_a_unit_of_a_package_is_not_restarted_for_what_systemd_reads(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        unit = self.unit(content=None)
        assert (await host.apply_one(unit)).actions == MADE[1:]
        await host.bystander.restart(self.NAME)
        await host.bystander.install(self.NAME, self.content(SLEEP_TOO))
        assert (await host.apply_one(unit)).actions == ()
