"""Networks in memory, those that the containers of a `FakeContainers` are on: by the real rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from itertools import count

from harmony_core.change import NotReady
from harmony_core.errors import ContainerFailed, InUse
from harmony_core.reconciler import Records
from harmony_core.resources import ContainerNetwork
from harmony_pi_topology.container_networks.reconciler import ContainerNetworks, NetworkUser
from harmony_pi_topology.containers.podman_reply import FoundNetwork

from .fake_containers import FakeAttachments
from .fake_reconciler import FakeReconciler

__all__ = ["FakeContainerNetworks"]


class FakeContainerNetworks(FakeReconciler, ContainerNetworks):
    """A `ContainerNetworkHost`'s reconciler. No container on one holds anything."""

    def __init__(
        self, device: FakeAttachments | None = None, *, records: Records | None = None
    ) -> None:
        FakeReconciler.__init__(self)
        self.device = device or FakeAttachments()
        ContainerNetworks.__init__(self, _Store(self.device), records)


class _Store:
    """A `NetworkStore` over a dictionary."""

    def __init__(self, device: FakeAttachments) -> None:
        self._device = device
        self._chosen = count()

    async def look(self, name: str) -> FoundNetwork | None:
        return self._device.networks.get(name)

    async def try_subnets(self, network: ContainerNetwork, subnets: Sequence[str]) -> None:
        wanted = [ip_network(each) for each in subnets]
        for name, other in self._device.networks.items():
            if any(
                one.version == two.version and one.overlaps(two)
                for one in wanted
                for two in map(ip_network, other.subnets)
            ):
                raise ContainerFailed(
                    f"a subnet of {network.name} is that of {name}; choose others"
                )

    async def make(self, network: ContainerNetwork, labels: Mapping[str, str]) -> None:
        await self.try_subnets(network, network.subnets)
        number = next(self._chosen)
        subnets = list(network.subnets)
        if not any("." in each for each in subnets) and (not subnets or network.has_ipv6):
            subnets.append(f"10.89.{number}.0/24")
        if network.has_ipv6 and not any(":" in each for each in subnets):
            subnets.append(f"fd00:{number:x}::/64")
        self._device.networks[network.name] = FoundNetwork(
            name=network.name,
            labels=dict(labels),
            driver="bridge",
            subnets=tuple(subnets),
            internal=network.internal,
            has_dns=True,
        )

    async def users(self, name: str) -> Sequence[NetworkUser]:
        users = self._device.users_of_network(name)
        return [NetworkUser(each, is_ours) for each, is_ours in sorted(users.items())]

    async def find_hold(self, container: str) -> NotReady | None:  # noqa: ARG002 - none does
        return None

    def release(self, container: str) -> None:
        """Do nothing: nothing is held."""

    async def take_off(self, container: str, network: str) -> NotReady | None:
        self._device.take_off(container, network)
        return None

    async def remove(self, name: str) -> None:
        if users := self._device.users_of_network(name):
            raise InUse(f"network {name} is used by {', '.join(users)}; remove them")
        self._device.networks.pop(name, None)
