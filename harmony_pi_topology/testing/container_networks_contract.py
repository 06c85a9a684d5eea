"""What every host of networks between containers must do: `ContainerNetworkHost`, as tests."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import attrs
import pytest

from harmony_core.errors import ContainerFailed, InUse, NotOurs
from harmony_core.resources import ContainerNetwork, ContainerNetworkPresent
from harmony_core.testing.capability_contract import CapabilityContract, CapabilityUnderTest
from harmony_core.testing.capability_contract import Outsider as AnyOutsider

__all__ = ["ContainerNetworkHostContract", "ContainerNetworksUnderTest", "NetworkOutsider"]


class NetworkOutsider(AnyOutsider, Protocol):
    """Somebody else at the same place, who knows how to use podman."""

    def use(self, name: str, *, ours: bool) -> None:
        """Make a container that is on it, and does not run; with Harmony's label, or without."""

    def release(self, name: str) -> None:
        """Remove that container."""


@attrs.frozen(kw_only=True)
class ContainerNetworksUnderTest(CapabilityUnderTest[ContainerNetwork]):
    """As `CapabilityUnderTest`, of networks."""

    outsider: NetworkOutsider


class ContainerNetworkHostContract(CapabilityContract[ContainerNetwork]):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> ContainerNetworksUnderTest:
        """Return a place where nothing was made yet."""
        raise NotImplementedError

    async def test_each_field_reaches_it(self, host: ContainerNetworksUnderTest) -> None:
        wish = ContainerNetwork(
            name=host.wish.name,
            subnets=("10.213.0.0/24", "fd00:213::/64"),
            internal=True,
            labels={"com.acme.of": "this"},
        )
        made = (await host.applied(wish)).after
        assert isinstance(made, ContainerNetworkPresent)
        assert set(made.subnets) == set(wish.subnets)
        assert made.internal
        assert not (await host.applied(wish)).changed
        without = wish.model_copy(update={"labels": {}})
        assert (await host.applied(without)).actions == ("recreated: labels changed",)

    async def test_what_is_left_to_podman_is_of_the_families_that_were_asked_for(
        self, host: ContainerNetworksUnderTest
    ) -> None:
        plain = ContainerNetwork(name=host.wish.name)
        for wish, families in ((plain, [4]), (plain.model_copy(update={"ipv6": True}), [4, 6])):
            made = (await host.applied(wish)).after
            assert isinstance(made, ContainerNetworkPresent)
            assert sorted(6 if ":" in each else 4 for each in made.subnets) == families
            assert not (await host.applied(wish)).changed

    async def test_changed_it_is_made_anew_and_the_plan_names_the_containers_on_it(
        self, host: ContainerNetworksUnderTest
    ) -> None:
        await host.applied(host.wish)
        host.outsider.use(host.wish.name, ours=True)
        planned = await host.planned(host.changed)
        assert planned.actions[0].startswith("recreated: ")
        assert planned.actions[1].startswith("ended, to be made anew on it: container ")
        assert (await host.applied(host.changed)).actions == planned.actions
        assert not (await host.applied(host.changed)).changed

    async def test_subnets_that_are_taken_leave_it_and_what_is_on_it_as_they_are(
        self, host: ContainerNetworksUnderTest
    ) -> None:
        await host.applied(ContainerNetwork(name=host.beside.name, subnets=("10.212.0.0/24",)))
        old = ContainerNetwork(name=host.wish.name, subnets=("10.213.0.0/24",))
        await host.applied(old)
        host.outsider.use(old.name, ours=True)
        identity = host.outsider.identity(old.key)
        for subnets in (("10.212.0.0/25",), (*old.subnets, "10.212.0.0/16")):
            taken = old.model_copy(update={"subnets": subnets})
            (error,) = await host.reconciler.converge([taken], apply=True)
            assert isinstance(error, ContainerFailed)
            assert host.outsider.identity(old.key) == identity
        other = old.model_copy(update={"subnets": (*old.subnets, "10.211.0.0/24")})
        assert (await host.applied(other)).actions[1].startswith("ended, ")

    async def test_it_stays_as_it_is_while_a_strangers_container_is_on_it(
        self, host: ContainerNetworksUnderTest
    ) -> None:
        await host.applied(host.wish)
        identity = host.outsider.identity(host.wish.key)
        host.outsider.use(host.wish.name, ours=False)
        for apply in (False, True):
            (error,) = await host.reconciler.converge([host.changed], apply=apply)
            assert isinstance(error, InUse)
        (error,) = await host.reconciler.remove([host.wish.key], apply=True)
        assert isinstance(error, InUse)
        assert host.outsider.identity(host.wish.key) == identity
        host.outsider.release(host.wish.name)
        assert (await host.removed(host.wish.key)).changed
        assert host.outsider.identity(host.wish.key) is None

    async def test_a_strangers_is_neither_taken_nor_changed(
        self, host: ContainerNetworksUnderTest
    ) -> None:
        name = host.outsider.make_foreign()
        identity = host.outsider.identity(name)
        (error,) = await host.reconciler.converge([ContainerNetwork(name=name)], apply=True)
        assert isinstance(error, NotOurs)
        assert host.outsider.identity(name) == identity
