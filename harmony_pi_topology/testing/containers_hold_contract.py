"""What every container runtime must do where a container says "not now": a part of the contract."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from harmony_core.change import Change, NotReady
from harmony_core.holds import Holding
from harmony_core.resources import Container

from .hearing import Hearer

if TYPE_CHECKING:
    from .containers_contract import ContainersUnderTest

__all__ = ["ContainerHoldContract"]

HOLD = b'{"owner": "recorder", "reason": "writes the archive"}'
MAY_HOLD: dict[str, Any] = {"max_hold_s": 600}
CHANGED: dict[str, Any] = {"environment": {"MODE": "quiet"}}
_LOOKS = 100


class ContainerHoldContract(ABC):
    """Needs the fixture `host`."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    async def test_one_that_holds_is_changed_when_it_holds_no_longer(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, **MAY_HOLD))
        changed = self.container(host, **MAY_HOLD, **CHANGED)
        identity = await host.bystander.identity("web")
        await host.bystander.write_hold("web", HOLD)
        for _ in range(2):
            change = await host.look(changed)
            assert change.actions == ()
            pending = find_hold(change)
            assert "recorder has asked for time until 20" in pending.message
            assert pending.message.endswith(": writes the archive")
            assert 0 < pending.look_again_s <= 600
        assert await host.bystander.identity("web") == identity
        await host.bystander.write_hold("web", None)
        assert (await host.apply_one(changed)).actions
        assert await host.bystander.identity("web") != identity

    async def test_a_plan_says_what_is_held_and_what_it_holds(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, **MAY_HOLD))
        await host.bystander.write_hold("web", HOLD)
        planned = await host.plan_one(self.container(host, **MAY_HOLD, **CHANGED))
        assert planned.actions == ("recreated: environment changed", "started")
        find_hold(planned)
        unchanged = await host.look(self.container(host, **MAY_HOLD))
        assert (unchanged.actions, unchanged.pending) == ((), None)

    async def test_one_that_holds_is_not_removed(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host, **MAY_HOLD))
        identity = await host.bystander.identity("web")
        await host.bystander.write_hold("web", HOLD)
        find_hold(await host.remove_one("web"))
        assert await host.bystander.identity("web") == identity
        await host.bystander.write_hold("web", None)
        assert (await host.remove_one("web")).actions == ("stopped", "removed")

    async def test_what_is_released_holds_no_longer(self, host: ContainersUnderTest) -> None:
        containers = host.containers
        assert isinstance(containers, Holding)
        assert not await containers.release("web")
        await host.apply_one(self.container(host, **MAY_HOLD))
        assert not await containers.release("web")
        await host.bystander.write_hold("web", HOLD)
        assert await containers.find_hold("web") is not None
        assert await containers.release("web")
        await host.bystander.write_hold("web", HOLD)  # and again does not help
        assert await containers.find_hold("web") is None
        assert (await host.apply_one(self.container(host, **MAY_HOLD, **CHANGED))).actions

    async def test_a_hold_ends_when_it_says(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host, **MAY_HOLD))
        await host.bystander.write_hold("web", HOLD[:-1] + b', "for_s": 1.5}')
        changed = self.container(host, **MAY_HOLD, **CHANGED)
        assert find_hold(await host.look(changed)).look_again_s <= 1.5
        assert (await host.apply_one(changed)).actions

    async def test_a_hold_ends_with_what_it_may_at_most(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host, max_hold_s=2))
        changed = self.container(host, max_hold_s=2, **CHANGED)
        await host.bystander.write_hold("web", HOLD)
        assert find_hold(await host.look(changed)).look_again_s <= 2
        await host.bystander.pass_time(1)
        await host.bystander.write_hold("web", HOLD)
        assert find_hold(await host.look(changed)).look_again_s <= 1
        assert (await host.apply_one(changed)).actions

    async def test_what_may_not_hold_does_not(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host))
        containers = host.containers
        assert isinstance(containers, Holding)
        assert await containers.find_hold("web") is None
        assert (await host.apply_one(self.container(host, **CHANGED))).actions

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"not now",
            b'{"owner": "recorder"}',
            b'{"owner": "recorder", "reason": "a\\nb"}',
            b'{"owner": "recorder", "reason": "x", "for_s": -1}',
            b'{"owner": "recorder", "reason": "x", "for_s": "long"}',
            b'{"owner": "recorder", "reason": "x", "until": "doomsday"}',
            b'{"owner": "recorder", "reason": "' + b"x" * 5000 + b'"}',
        ],
    )
    async def test_what_is_no_hold_holds_nothing(
        self, host: ContainersUnderTest, data: bytes
    ) -> None:
        await host.apply_one(self.container(host, **MAY_HOLD))
        await host.bystander.write_hold("web", data)
        containers = host.containers
        assert isinstance(containers, Holding)
        assert await containers.find_hold("web") is None

    async def test_a_hold_of_what_exists_no_more_holds_nothing(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, restart="always", **MAY_HOLD)
        await host.apply_one(desired)
        await host.bystander.write_hold("web", HOLD)
        containers = host.containers
        assert isinstance(containers, Holding)
        assert await containers.find_hold("web") is not None
        await host.bystander.pass_time(1)
        await host.bystander.kill("web")
        for _ in range(_LOOKS):
            if await containers.find_hold("web") is None:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("what has ended still holds")

    async def test_that_a_hold_begins_and_ends_is_told(self, host: ContainersUnderTest) -> None:
        told = Hearer()
        await host.apply_one(self.container(host, **MAY_HOLD))
        await host.containers.watch(["web"], told)
        for data in (HOLD, None, HOLD):
            await host.bystander.write_hold("web", data)
            await told.hears("web")


def find_hold(change: Change) -> NotReady:
    """Return what *change* waits for, which is a hold."""
    assert change.pending is not None
    assert change.pending.reason == "Held"
    return change.pending
