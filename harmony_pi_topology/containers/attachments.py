"""The volumes and networks that a container names: are they there, and is it on them?

podman would make a missing volume unasked, empty. So volumes and networks are looked for before anything is
touched. A container that runs is compared with what podman says of its networks; whether it sees the data of
its volumes, the kernel says (`.mounts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from harmony_core.errors import ContainerFailed, ContainerNetworkMissing, VolumeMissing
from harmony_core.resources import Container, Mount

from .podman import DEFAULT_NETWORK, Podman
from .podman_reply import FoundContainer, FoundNetwork

__all__ = [
    "describe_networks",
    "has_its_networks",
    "list_network_names",
    "list_volume_mounts",
    "require_attachments",
]


async def require_attachments(podman: Podman, container: Container) -> None:
    """Raise `VolumeMissing` or `ContainerNetworkMissing` for the first volume or network of *container* that
    does not exist, and `ContainerFailed` where a network cannot give it its address."""
    for volume in container.volumes:
        if await podman.inspect_volume(volume.volume) is None:
            raise VolumeMissing(
                f"{container.name} is to see volume {volume.volume} at {volume.target}, which is not there; "
                "push a VolumeScore of that name, for which this one waits (after), or correct the name",
                resource=container.id,
            )
    for network in container.networks:
        found = await podman.inspect_network(network.network)
        if found is None:
            raise ContainerNetworkMissing(
                f"{container.name} is to be on network {network.network}, which is not there; push a "
                "ContainerNetworkScore of that name, for which this one waits (after), or correct the name",
                resource=container.id,
            )
        if network.address is not None and not any(
            ip_address(network.address) in ip_network(each) for each in found.subnets
        ):
            raise ContainerFailed(
                f"{network.address} is no address of network {network.network} ({', '.join(found.subnets)}); "
                "choose one that is, or give the network the subnet that it is of",
                resource=container.id,
            )
        if network.address is not None and not _may_have(network.address, found):
            raise ContainerFailed(
                f"{network.address} of network {network.network} is no container's to have: it is the "
                "device's own there, or that of the whole network; choose another one",
                resource=container.id,
            )


def _may_have(address: str, network: FoundNetwork) -> bool:
    wanted = ip_address(address)
    if wanted in {ip_address(each) for each in network.gateways}:
        return False
    subnets = [ip_network(each) for each in network.subnets]
    return not any(
        wanted in {each.network_address, each.broadcast_address}
        for each in subnets
        if each.num_addresses > 2 and (each.version == 4 or wanted == each.network_address)
    )


def list_network_names(container: Container) -> list[str]:
    """Return the names of the networks that *container* is to be on: podman's own network where it names
    none."""
    return [each.network for each in container.networks] or [DEFAULT_NETWORK]


def describe_networks(container: Container) -> dict[str, dict[str, object]]:
    """Return, in podman's terms, the networks that *container* names and the settings of its attachment to
    each."""
    return {
        each.network: {
            "aliases": list(each.aliases),
            **({"static_ips": [each.address]} if each.address is not None else {}),
        }
        for each in container.networks
    }


def has_its_networks(container: Container, found: FoundContainer) -> bool:
    """Return whether *found* is attached to the networks that *container* names, with the settings that it
    asks for.

    This does not check podman's own network: see `FoundContainer.is_cut_off`.
    """
    if not container.networks:
        return True
    if {each.network for each in container.networks} != set(found.networks):
        return False
    for each in container.networks:
        now = found.networks[each.network]
        if not now.aliases.issuperset(each.aliases):
            return False
        # What does not run has no addresses.
        if each.address is not None and found.running:
            addresses = {ip_address(text) for text in now.addresses}
            if ip_address(each.address) not in addresses:
                return False
    return True


def list_volume_mounts(container: Container, found: FoundContainer | None) -> Mapping[str, Mount]:
    """Return, by the names of the volumes, where the data lies of each volume that *container* names and
    *found* has mounted."""
    if found is None:
        return {}
    return {
        each.volume: Mount(source=place, target=each.target, read_only=each.read_only)
        for each in container.volumes
        if (place := found.volume_places.get(each.target)) is not None
    }
