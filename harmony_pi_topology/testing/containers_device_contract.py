"""What every container runtime must do with devices and with health checks: a part of the contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from harmony_core.change import NotReady
from harmony_core.errors import HardwareMissing, NotReadyInTime
from harmony_core.resources import Container, ContainerDevice, HealthCheck, Running

from .hearing import Hearer

if TYPE_CHECKING:
    from .containers_contract import ContainersUnderTest

__all__ = ["DEVICE", "RECOVERS", "SICK", "ContainerDeviceContract"]

DEVICE = "/dev/harmony-contract/ttyUSB0"
SICK = ("sh", "-c", "echo feeling sick; exec sleep 1000")
RECOVERS = ("sh", "-c", "sleep 2; echo up > /up; exec sleep 1000")


class ContainerDeviceContract(ABC):
    """Needs the fixtures `host` and `hearer`. A device that comes, goes, or is another one is no secret."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    async def test_a_device_that_is_missing_is_told_by_name_until_it_is_there(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await host.bystander.unplug(DEVICE)
        desired = self.container(host, devices=(ContainerDevice(source=DEVICE),))
        planned = await host.plan_one(desired)
        assert isinstance(planned.doubt, HardwareMissing)
        assert "created" in planned.actions
        error = await host.expect_failure(desired)
        assert isinstance(error, HardwareMissing)
        assert error.path == DEVICE
        assert DEVICE in error.message
        assert await host.bystander.identity("web") is None
        await host.containers.watch(["web"], hearer)
        await host.bystander.plug_in(DEVICE, "c 1:3")
        await hearer.hears("web")
        assert "created" in (await host.apply_one(desired)).actions
        assert (await host.look(desired)).actions == ()

    async def test_another_device_in_its_place_makes_it_anew_and_none_leaves_it_running(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await host.bystander.plug_in(DEVICE, "c 1:3")
        desired = self.container(host, devices=(ContainerDevice(source=DEVICE),))
        await host.apply_one(desired)
        await host.containers.watch(["web"], hearer)
        identity = await host.bystander.identity("web")
        await host.bystander.unplug(DEVICE)
        await hearer.hears("web")
        assert isinstance(await host.expect_failure(desired), HardwareMissing)
        assert await host.bystander.identity("web") == identity
        await host.bystander.plug_in(DEVICE, "c 1:5")
        await hearer.hears("web")
        changed = await host.apply_one(desired)
        assert changed.actions == (f"recreated: {DEVICE} changed", "started")
        assert (await host.look(desired)).actions == ()

    async def test_one_is_ready_once_its_health_check_succeeds(
        self, host: ContainersUnderTest
    ) -> None:
        check = HealthCheck(command=("test", "-e", "/up"), interval_s=1, start_period_s=60)
        desired = self.container(host, command=RECOVERS, healthcheck=check)
        await host.look(desired)
        pending: list[NotReady] = []
        while (change := await host.look(desired)).pending is not None:
            pending.append(change.pending)
            await host.bystander.pass_time(change.pending.look_again_s)
            assert len(pending) < 1000
        assert {each.reason for each in pending if "health" in each.message} <= {"NotReady"}
        assert isinstance(change.after, Running)
        assert change.after.health == "healthy"
        assert (await host.look(desired)).actions == ()

    async def test_one_whose_health_check_fails_is_not_ready(
        self, host: ContainersUnderTest
    ) -> None:
        check = HealthCheck(command=("false",), interval_s=1, retries=1)
        error = await host.expect_failure(self.container(host, command=SICK, healthcheck=check))
        assert isinstance(error, NotReadyInTime)
        assert error.resource == "container:web"
        assert "feeling sick" in error.message
        state = await host.containers.observe("web")
        assert isinstance(state, Running)
        assert state.health == "unhealthy"
