"""Networks of podman: the reconciler behind `ContainerNetworkHost`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from harmony_core.change import NotReady
from harmony_core.container_turns import ContainerTurns
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_core.resources import ContainerNetwork
from harmony_pi_topology.common.path_calls import PathCalls
from harmony_pi_topology.containers.holds import ContainerHolds
from harmony_pi_topology.containers.podman import DEFAULT_URL, Podman, can_be_a_name
from harmony_pi_topology.containers.podman_reply import FoundNetwork
from harmony_pi_topology.containers.spec import RESOURCE_LABEL, max_hold_s
from harmony_pi_topology.containers.stops import ContainerStops

from .reconciler import ContainerNetworks, NetworkUser

__all__ = ["PodmanNetworks"]


class PodmanNetworks(ContainerNetworks):
    """A `Reconciler` of `ContainerNetwork`. podman tells nobody of its networks: what changed is found by
    looking. ``root`` is where the device's files are read, in which containers hold."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        records: Records | None = None,
        root: str | Path = "/",
        answer_within_s: float = 60.0,
        turns: ContainerTurns | None = None,
    ) -> None:
        self._podman = Podman(url, answer_within_s=answer_within_s)
        self._files = PathCalls("holds of containers on networks", str(root))
        store = _Store(self._podman, ContainerHolds(self._podman, Path(root), self._files))
        super().__init__(store, records, turns)

    async def availability(self) -> Availability:
        """Return whether podman is expected to answer. Start podman only if it did not answer last time."""
        reason = await self._podman.is_expected_to_answer()
        return Availability(available=reason is None, reason=reason or "")

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Return at once: networks are not watched."""

    async def close(self) -> None:
        self._podman.close()
        self._files.close()


_TRIAL = "harmony-trial-"
_TRIAL_LABEL = "harmony.trial"


class _Store:
    """A `NetworkStore`."""

    def __init__(self, podman: Podman, holds: ContainerHolds) -> None:
        self._podman = podman
        self._holds = holds
        self._stops = ContainerStops(podman)

    async def look(self, name: str) -> FoundNetwork | None:
        return await self._podman.inspect_network(name) if can_be_a_name(name) else None

    async def make(self, network: ContainerNetwork, labels: Mapping[str, str]) -> None:
        await self._podman.create_network(_describe(network.name, network, network.subnets, labels))

    async def try_subnets(self, network: ContainerNetwork, subnets: Sequence[str]) -> None:
        name = f"{_TRIAL}{network.name}"
        labels = {_TRIAL_LABEL: network.name}
        left = await self.look(name)
        if left is not None and left.labels.get(_TRIAL_LABEL) == network.name:
            await self._podman.remove_network(name)  # an agent was killed in between
        asked = _describe(name, network, subnets, labels)
        await self._podman.create_network(asked, called=network.name)
        await self._podman.remove_network(name)

    async def users(self, name: str) -> Sequence[NetworkUser]:
        if not can_be_a_name(name):
            return []
        found = await self._podman.list_users("network", name)
        return [_describe_user(each, labels) for each, labels in sorted(found.items())]

    async def find_hold(self, container: str) -> NotReady | None:
        found = await self._podman.inspect(container)
        return await self._holds.find_hold(found, container) if found is not None else None

    def release(self, container: str) -> None:
        self._holds.release(container)

    async def take_off(self, container: str, network: str) -> NotReady | None:
        found = await self._podman.inspect(container)
        if found is None:
            return None
        if (pending := await self._stops.stop(found)) is not None:
            return pending
        await self._podman.disconnect(found.id, network)
        return None

    async def remove(self, name: str) -> None:
        await self._podman.remove_network(name)


def _describe_user(name: str, labels: Mapping[str, str]) -> NetworkUser:
    is_ours = RESOURCE_LABEL in labels
    return NetworkUser(name, is_ours, may_hold=is_ours and max_hold_s(labels) is not None)


def _describe(
    name: str, network: ContainerNetwork, subnets: Sequence[str], labels: Mapping[str, str]
) -> dict[str, object]:
    """Return *network* in podman's words, under this name and with these subnets."""
    return {
        "name": name,
        "driver": "bridge",
        "subnets": [{"subnet": each} for each in subnets],
        "internal": network.internal,
        "ipv6_enabled": network.ipv6 or any(":" in each for each in subnets),
        "dns_enabled": True,
        "labels": labels,
    }
