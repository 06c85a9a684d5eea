"""Where one container takes the place of another: a part of the contract of every container runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from harmony_core.change import NotReady
from harmony_core.errors import ContainerFailed, ImageNotFound, PortTaken
from harmony_core.reconciler import Preparing
from harmony_core.resources import Container, PublishedPort, Running

if TYPE_CHECKING:
    from .containers_contract import ContainersUnderTest

__all__ = ["PORT", "ContainerReplacingContract"]

PORT = 18080
"""A port of the device that nothing listens on."""

PORTS = (PublishedPort(host=PORT, container=80),)
NOWHERE = (PublishedPort(host=PORT, container=80, address="1.2.3"),)
"""With these, nothing can be created."""
_LOOKS = 100
POLITE = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


class ContainerReplacingContract(ABC):
    """Needs the fixture `host`."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    async def test_a_taken_port_is_named_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        desired = self.container(host, ports=PORTS, image=host.images.second)
        await host.bystander.hold_port(PORT)
        with pytest.raises(PortTaken, match=str(PORT)):
            await host.plan_one(desired)
        assert isinstance(await host.expect_failure(desired), PortTaken)
        assert await host.bystander.identity("web") == identity
        assert not await host.bystander.has_image(host.images.second)
        await host.bystander.free_port(PORT)
        assert isinstance((await host.apply_one(desired)).after, Running)

    async def test_where_the_port_is_taken_nothing_is_made_or_fetched(
        self, host: ContainersUnderTest
    ) -> None:
        await host.bystander.hold_port(PORT)
        error = await host.expect_failure(self.container(host, ports=PORTS))
        assert isinstance(error, PortTaken)
        assert error.resource == "container:web"
        assert await host.containers.observe("web") is None
        assert not await host.bystander.has_image(host.images.first)

    async def test_what_is_prepared_is_here_and_nothing_else_has_changed(
        self, host: ContainersUnderTest
    ) -> None:
        containers = host.containers
        assert isinstance(containers, Preparing)
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        desired = self.container(host, image=host.images.second)
        await _prepare_until_done(host, desired)
        assert await host.bystander.has_image(host.images.second)
        assert await host.bystander.identity("web") == identity
        assert isinstance((await host.apply_one(desired)).after, Running)
        await containers.prepare([desired])

    async def test_an_image_that_was_fetched_and_never_used_goes_when_another_is_wanted(
        self, host: ContainersUnderTest
    ) -> None:
        first, second, third = host.images.available
        await host.apply_one(self.container(host, image=first))
        await _prepare_until_done(host, self.container(host, image=second))
        await _prepare_until_done(host, self.container(host, image=third))
        kept = [await host.bystander.has_image(each) for each in (first, second, third)]
        assert kept == [True, False, True]

    async def test_an_image_that_was_fetched_for_what_was_never_made_goes_with_it(
        self, host: ContainersUnderTest
    ) -> None:
        await _prepare_until_done(host, self.container(host))
        assert await host.bystander.has_image(host.images.first)
        assert (await host.remove_one("web")).actions == ()
        assert not await host.bystander.has_image(host.images.first)

    async def test_what_cannot_be_prepared_says_why_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        containers = host.containers
        assert isinstance(containers, Preparing)
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        await host.bystander.hold_port(PORT)
        with pytest.raises(PortTaken):
            await containers.prepare([self.container(host, ports=PORTS)])
        missing = self.container(host, image=host.images.missing)
        with pytest.raises(ImageNotFound):
            await _prepare_until_done(host, missing)
        assert await host.bystander.identity("web") == identity
        await host.bystander.free_port(PORT)

    async def test_another_container_s_port_is_taken_too_but_may_be_free_by_then(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, ports=PORTS))
        second = self.container(host, name="second", ports=PORTS)
        assert (await host.plan_one(second)).actions == ("created", "started")
        assert isinstance(await host.expect_failure(second), PortTaken)
        assert await host.containers.observe("second") is None
        await host.remove_one("web")
        assert (await host.apply_one(second)).actions == ("pulled", "created", "started")

    async def test_its_own_port_is_passed_on(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host, ports=PORTS))
        changed = self.container(host, ports=PORTS, environment={"MODE": "quiet"})
        planned = await host.plan_one(changed)
        assert planned.actions == ("recreated: environment changed", "started")
        assert (await host.apply_one(changed)).actions == planned.actions

    async def test_what_cannot_be_made_is_told_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        desired = self.container(host, ports=NOWHERE, image=host.images.second)
        for _ in range(2):
            error = await host.expect_failure(desired)
            assert isinstance(error, ContainerFailed)
            assert error.resource == "container:web"
            assert "1.2.3" in error.message
        assert await host.bystander.identity("web") == identity
        assert (await host.apply_one(self.container(host))).actions == ()

    async def test_the_image_of_what_could_not_be_made_goes_with_it(
        self, host: ContainersUnderTest
    ) -> None:
        await host.expect_failure(self.container(host, ports=NOWHERE))
        assert await host.containers.observe("web") is None
        assert (await host.remove_one("web")).actions == ()
        assert not await host.bystander.has_image(host.images.first)

    async def test_the_image_of_what_could_not_be_made_goes_when_another_is_wished_for(
        self, host: ContainersUnderTest
    ) -> None:
        first, second, third = host.images.available
        await host.apply_one(self.container(host, image=first))
        await host.expect_failure(self.container(host, image=second, ports=NOWHERE))
        assert await host.bystander.has_image(second)  # it is tried again
        await host.apply_one(self.container(host, image=third))
        kept = [await host.bystander.has_image(each) for each in (first, second, third)]
        assert kept == [True, False, True]

    async def test_its_end_is_not_waited_for_and_comes_when_its_time_is_up(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, stop_timeout_s=2))
        identity = await host.bystander.identity("web")
        changed = self.container(host, stop_timeout_s=2, environment={"MODE": "quiet"})
        change = await host.look(changed)
        pending = require_asked_to_end(change.pending)
        assert change.actions == ()
        assert isinstance(change.after, Running)
        assert 0 < pending.look_again_s <= 2
        assert await host.bystander.identity("web") == identity
        change = await host.apply_one(changed)
        assert change.actions == ("recreated: environment changed", "started")
        assert await host.bystander.identity("web") != identity

    async def test_the_end_of_what_is_removed_is_not_waited_for(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, stop_timeout_s=2))
        change = await host.remove_one("web")
        pending = require_asked_to_end(change.pending)
        assert (change.actions, change.after) == ((), change.before)
        await host.bystander.pass_time(pending.look_again_s)
        await host.bystander.pass_time(2)
        change = await host.remove_one("web")
        assert (change.actions[-1], change.after, change.pending) == ("removed", None, None)
        assert await host.bystander.identity("web") is None

    async def test_what_ends_when_it_is_asked_to_is_replaced_at_once(
        self, host: ContainersUnderTest
    ) -> None:
        polite = {"command": POLITE, "stop_timeout_s": 3600}
        await host.apply_one(self.container(host, **polite))
        change = await host.look(self.container(host, **polite, environment={"MODE": "quiet"}))
        assert change.actions == ("recreated: environment changed", "started")
        await host.apply_one(self.container(host, **polite, environment={"MODE": "quiet"}))
        assert (await host.remove_one("web")).actions == ("stopped", "removed")

    async def test_what_is_wished_for_again_before_it_has_ended_stays(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, stop_timeout_s=2)
        await host.apply_one(desired)
        identity = await host.bystander.identity("web")
        changed = self.container(host, stop_timeout_s=2, environment={"MODE": "quiet"})
        require_asked_to_end((await host.look(changed)).pending)
        assert (await host.apply_one(desired)).actions == ()
        await host.bystander.pass_time(2)
        # It has all its time again.
        require_asked_to_end((await host.look(changed)).pending)
        assert await host.bystander.identity("web") == identity


def require_asked_to_end(pending: NotReady | None) -> NotReady:
    """Return *pending*, which says that something takes its time to end."""
    assert pending is not None
    assert pending.reason == "Progressing"
    assert "is stopping (2 s grace period)" in pending.message
    return pending


async def _prepare_until_done(host: ContainersUnderTest, desired: Container) -> None:
    """Prepare *desired*, until it is."""
    containers = host.containers
    assert isinstance(containers, Preparing)
    for _ in range(_LOOKS):
        try:
            return await containers.prepare([desired])
        except NotReady as waits:
            await host.bystander.pass_time(waits.look_again_s)
    raise AssertionError(f"{desired.image} was not here after {_LOOKS} looks")
