"""Capabilities: what a Score may ask of a Topology.

Each capability is two small Protocols: the *service* (`SystemdHost`: what it can do) and the *offer*
(`HasSystemd`: a topology that has one). A Score names offers, never services, so that several combine
by ordinary inheritance::

    class WebAppHost(HasContainers, HasFiles, Protocol): ...

Every capability has the same three verbs, differing only in the resource they take, so one Stage can
stand before all of them, a third party's included.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar, get_type_hints

from .change import Changes
from .resources import (
    Block,
    BlockAt,
    Container,
    ContainerNetwork,
    ContainerNetworkPresent,
    ContainerState,
    Directory,
    DirectoryState,
    File,
    FileState,
    Filtering,
    Firewall,
    HostSetting,
    HostSettingAt,
    ImageRegistry,
    Job,
    JobState,
    LinkState,
    MountPoint,
    MountState,
    NetworkProfile,
    NetworkState,
    RebootRule,
    RebootRuleAt,
    RegistryAt,
    SymbolicLink,
    SystemdUnit,
    UnitState,
    Volume,
    VolumePresent,
)

__all__ = [
    "BlockHost",
    "Capability",
    "ContainerNetworkHost",
    "ContainerRuntime",
    "DirectoryHost",
    "FileSystemHost",
    "FirewallHost",
    "HasBlocks",
    "HasContainerNetworks",
    "HasContainers",
    "HasDirectories",
    "HasFiles",
    "HasFirewall",
    "HasHost",
    "HasJobs",
    "HasLinks",
    "HasMounts",
    "HasNetwork",
    "HasReboots",
    "HasRegistries",
    "HasSystemd",
    "HasVolumes",
    "HostConfigurator",
    "JobRunner",
    "LinkHost",
    "MountHost",
    "NetworkConfigurator",
    "RebootHost",
    "RegistryHost",
    "SystemdHost",
    "VolumeHost",
    "capabilities_of",
    "offers_of",
]

ResourceT_contra = TypeVar("ResourceT_contra", contravariant=True)
StateT_co = TypeVar("StateT_co", covariant=True)


class Capability(Protocol[ResourceT_contra, StateT_co]):
    """The verbs of every capability. A Protocol deriving from this directly is a capability."""

    async def ensure(self, *resources: ResourceT_contra) -> Changes:
        """Make the device match *resources*, all of them in one batch, and return what changed.

        This is idempotent: what is already as desired is left alone, down to the inode. Give many resources
        at once: flushes to disk and systemd reloads are done once per call.

        Raise `NotReady` when a resource is in place but does not serve yet, and a `CapabilityError` when the
        device could not do it. Catch neither: the Stage turns both into the Outcome.
        """
        ...

    async def absent(self, *keys: str) -> Changes:
        """Remove what Harmony made under these keys. Idempotent; raise `NotOurs` for anybody else's.

        Raise `OwnershipConflict` for what another Score wants. To release something that is no longer needed,
        and that another Score may need too, do not name it.
        """
        ...

    async def observe(self, key: str) -> StateT_co | None:
        """Return what is there now; None when nothing is. Never change anything."""
        ...


class SystemdHost(Capability[SystemdUnit, UnitState], Protocol):
    """A host whose services are run by systemd. Keys are unit names."""


class ContainerRuntime(Capability[Container, ContainerState], Protocol):
    """A host that runs OCI containers. Keys are container names."""


class VolumeHost(Capability[Volume, VolumePresent], Protocol):
    """A host that keeps data of containers in volumes. Keys are the volumes' names."""


class ContainerNetworkHost(Capability[ContainerNetwork, ContainerNetworkPresent], Protocol):
    """A host on which networks join containers. Keys are the networks' names."""


class RegistryHost(Capability[ImageRegistry, RegistryAt], Protocol):
    """A host whose podman can be told how to use a registry. Keys are registries, or parts of them."""


class FileSystemHost(Capability[File, FileState], Protocol):
    """A host whose files can be replaced atomically and durably. Keys are absolute paths."""


class DirectoryHost(Capability[Directory, DirectoryState], Protocol):
    """A host whose directories can be made and given away. Keys are absolute paths."""


class LinkHost(Capability[SymbolicLink, LinkState], Protocol):
    """A host on which symbolic links can be made, and replaced in one step. Keys are absolute paths."""


class BlockHost(Capability[Block, BlockAt], Protocol):
    """A host of whose text files single parts can be had. Keys are paths with the part behind a ``#``."""


class MountHost(Capability[MountPoint, MountState], Protocol):
    """A host on which file systems can be mounted. Keys are the directories that they are mounted at."""


class HostConfigurator(Capability[HostSetting, HostSettingAt], Protocol):
    """A host whose name and time zone can be set. Keys are the settings' names; each is always there."""


class NetworkConfigurator(Capability[NetworkProfile, NetworkState], Protocol):
    """A host whose network is configured by profiles. Keys are their names.

    A change that might cut the host off is taken back unless its control plane is reached by a new connection
    made after the change; while that is being seen, the Outcome is RUNNING.
    """


class FirewallHost(Capability[Firewall, Filtering], Protocol):
    """A host that can be kept from being reached from outside. There is one firewall at most: its key is
    ``device``.

    A change that cuts the host off is taken back, as with `NetworkConfigurator`.
    """


class JobRunner(Capability[Job, JobState], Protocol):
    """A host that runs programs to their end, once. Keys are the names of jobs."""


class RebootHost(Capability[RebootRule, RebootRuleAt], Protocol):
    """A host that can be booted anew. There is one rule for when it may be: its key is ``device``."""


class HasSystemd(Protocol):
    """A topology with systemd."""

    @property
    def systemd(self) -> SystemdHost: ...


class HasContainers(Protocol):
    """A topology with a container runtime."""

    @property
    def containers(self) -> ContainerRuntime: ...


class HasVolumes(Protocol):
    """A topology with volumes."""

    @property
    def volumes(self) -> VolumeHost: ...


class HasContainerNetworks(Protocol):
    """A topology with networks between containers."""

    @property
    def container_networks(self) -> ContainerNetworkHost: ...


class HasRegistries(Protocol):
    """A topology that pulls images from registries."""

    @property
    def registries(self) -> RegistryHost: ...


class HasFiles(Protocol):
    """A topology with a file system."""

    @property
    def files(self) -> FileSystemHost: ...


class HasDirectories(Protocol):
    """A topology with directories."""

    @property
    def directories(self) -> DirectoryHost: ...


class HasLinks(Protocol):
    """A topology with symbolic links."""

    @property
    def links(self) -> LinkHost: ...


class HasBlocks(Protocol):
    """A topology with parts of text files."""

    @property
    def blocks(self) -> BlockHost: ...


class HasMounts(Protocol):
    """A topology on which file systems can be mounted."""

    @property
    def mounts(self) -> MountHost: ...


class HasHost(Protocol):
    """A topology with settings of the host as a whole."""

    @property
    def host(self) -> HostConfigurator: ...


class HasJobs(Protocol):
    """A topology that runs jobs."""

    @property
    def jobs(self) -> JobRunner: ...


class HasNetwork(Protocol):
    """A topology whose network can be configured."""

    @property
    def network(self) -> NetworkConfigurator: ...


class HasFirewall(Protocol):
    """A topology that can be kept from being reached from outside."""

    @property
    def firewall(self) -> FirewallHost: ...


class HasReboots(Protocol):
    """A topology that can be booted anew."""

    @property
    def reboots(self) -> RebootHost: ...


def offers_of(topology: object) -> Mapping[str, type]:
    """Return the capabilities that *topology* (an offer Protocol or a topology class) has, by attribute.

    ``offers_of(HasSystemd) == {"systemd": SystemdHost}``. Nothing else reads these annotations: both what a
    Score requires and what a topology offers are found by this function, so the two cannot differ.
    """
    if not inspect.isclass(topology):
        raise TypeError(f"not a topology class or Protocol: {topology!r}")
    offers = _OFFERS.get(topology)
    if offers is None:
        members = ((name, tp) for name, tp in _members(topology) if inspect.isclass(tp))
        found = {name: tp for name, tp in members if Capability in tp.__bases__}
        offers = _OFFERS[topology] = MappingProxyType(found)
    return offers


_OFFERS: dict[type, Mapping[str, type]] = {}
"""What was read once: it is asked at every interpretation, and a class's annotations do not change."""


def capabilities_of(topology: object) -> frozenset[str]:
    """Return the names of the capabilities that *topology* has: ``{"SystemdHost"}``."""
    return frozenset(tp.__name__ for tp in offers_of(topology).values())


def _members(cls: type) -> Iterator[tuple[str, type]]:
    yield from get_type_hints(cls).items()
    for name, member in inspect.getmembers(cls, lambda value: isinstance(value, property)):
        if member.fget is not None:
            yield name, get_type_hints(member.fget).get("return", object)
