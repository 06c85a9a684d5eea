"""What becomes of a socket while its service runs, and of a slice, in which others run: a part of the
contract of units."""

from __future__ import annotations

import pytest

from harmony_core.errors import UnitFailed
from harmony_core.resources import Active, SystemdUnit

from .units_under_test import SLEEP, UnitContract, UnitsUnderTest

__all__ = ["UnitTypesContract"]


class UnitTypesContract(UnitContract):
    """Needs the fixture `host`."""

    LISTENING = "harmony-contract.socket"
    SLICE = "harmony-contract.slice"

    def socket(self, mode: str = "0600") -> SystemdUnit:
        """Return a socket that starts the service."""
        content = f"[Socket]\nListenStream=/run/harmony-contract.sock\nSocketMode={mode}\n"
        return SystemdUnit(name=self.LISTENING, content=content, enabled=None)

    def slice(self, tasks: int = 40) -> SystemdUnit:
        """Return a slice that limits what runs in it."""
        content = f"[Slice]\nTasksMax={tasks}\n"
        return SystemdUnit(name=self.SLICE, content=content, enabled=None)

    @pytest.mark.parametrize("cause", ["it is new", "it changed", "it was stopped"])
    async def test_a_socket_is_left_alone_while_its_service_runs_and_says_so(
        self, host: UnitsUnderTest, cause: str
    ) -> None:
        service = self.unit()
        if cause != "it is new":
            await host.apply_one(service.model_copy(update={"state": None, "enabled": None}))
            await host.apply_one(self.socket())
        await host.apply_one(service)
        if cause == "it was stopped":
            await host.bystander.stop(self.LISTENING)
        before = await host.bystander.identity(self.NAME)
        file = host.file(self.LISTENING)
        wanted = self.socket("0660") if cause == "it changed" else self.socket()
        for _ in range(2):
            error = await host.expect_failure(wanted)
            assert isinstance(error, UnitFailed)
            assert f"is not started anew while {self.NAME} runs" in error.message
            assert f"systemctl stop {self.LISTENING} {self.NAME}" in error.message
        # Of one that is new, systemd does not know before which service it starts.
        assert cause == "it is new" or host.file(self.LISTENING) == file
        assert await host.bystander.identity(self.NAME) == before
        await host.bystander.stop(self.LISTENING)
        await host.bystander.stop(self.NAME)
        assert isinstance((await host.apply_one(wanted)).after, Active)
        assert (await host.apply_one(wanted)).actions == ()

    async def test_a_socket_whose_service_is_not_there_is_told_with_its_name(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.expect_failure(self.socket())
        assert isinstance(error, UnitFailed)
        assert f"{self.NAME}, which it starts, is not loaded" in error.message

    async def test_a_slice_has_other_limits_and_what_runs_in_it_goes_on(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.slice())
        inside = self.unit(SLEEP, f"Slice={self.SLICE}", slice=self.SLICE)
        await host.apply_one(inside)
        before = await host.bystander.identity(self.NAME)
        reloads = await host.bystander.reloads()
        assert (await host.apply_one(self.slice(41))).actions == ("wrote its file",)
        assert await host.bystander.reloads() != reloads
        assert (await host.apply_one(self.slice(41))).actions == ()
        removed = await host.remove_one(self.SLICE)
        assert removed.actions == (
            "removed its file",
            f"left: up as long as {self.NAME} runs in it",
        )
        assert host.file(self.SLICE) is None
        assert await host.bystander.identity(self.NAME) == before
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_slice_that_is_stopped_stops_what_runs_in_it(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.slice())
        await host.apply_one(self.unit(SLEEP, f"Slice={self.SLICE}"))
        await host.apply_one(self.slice().model_copy(update={"state": "stopped"}))
        assert await host.bystander.command(self.NAME) == ""

    async def test_a_slice_that_nothing_runs_in_goes_and_is_none(
        self, host: UnitsUnderTest
    ) -> None:
        assert await host.units.observe(self.SLICE) is None
        await host.apply_one(self.slice())
        assert isinstance(await host.units.observe(self.SLICE), Active)
        assert (await host.remove_one(self.SLICE)).actions == ("stopped", "removed its file")
        assert await host.units.observe(self.SLICE) is None
        assert (await host.remove_one(self.SLICE)).actions == ()

    async def test_a_service_that_is_not_in_its_slice_is_told(self, host: UnitsUnderTest) -> None:
        error = await host.expect_failure(self.unit(slice=self.SLICE))
        assert isinstance(error, UnitFailed)
        assert f"{self.NAME} is to run in {self.SLICE}" in error.message
