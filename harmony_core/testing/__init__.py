"""For authors of Scores and of capabilities: fakes, and the contracts that real adapters pass too.

* `FakeFiles` and the like stand where a device would: Scores run on them in milliseconds.
* ``…Contract`` are classes of tests. Subclass one, give it a host, and pytest runs it.
* `CapabilityContract` is that of every capability, a third party's included.
* `Hearer` listens to what a reconciler tells of changes.
* `interpret_twice` and `make_stage` put a Score on a Stage as an agent does.

Needs pytest. Nothing at run time may import this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

# Before it is imported: what a failing assertion of it saw is told as fully as a test's own.
pytest.register_assert_rewrite(f"{__name__}.capability_contract")

if TYPE_CHECKING:
    from harmony_pi_topology.testing.blocks_contract import (
        BlockBystander,
        BlockHostContract,
        BlocksUnderTest,
    )
    from harmony_pi_topology.testing.container_networks_contract import (
        ContainerNetworkHostContract,
        ContainerNetworksUnderTest,
    )
    from harmony_pi_topology.testing.containers_contract import (
        ContainerBystander,
        ContainerRuntimeContract,
        ContainersUnderTest,
        ImagesUnderTest,
    )
    from harmony_pi_topology.testing.directories_contract import (
        DirectoriesUnderTest,
        DirectoryBystander,
        DirectoryHostContract,
    )
    from harmony_pi_topology.testing.fake_blocks import FakeBlocks
    from harmony_pi_topology.testing.fake_container_networks import FakeContainerNetworks
    from harmony_pi_topology.testing.fake_containers import FakeContainers, Program
    from harmony_pi_topology.testing.fake_directories import FakeDirectories
    from harmony_pi_topology.testing.fake_files import FakeFiles
    from harmony_pi_topology.testing.fake_firewall import FakeFirewall
    from harmony_pi_topology.testing.fake_host import FakeHost
    from harmony_pi_topology.testing.fake_jobs import FakeJobs, JobProgram
    from harmony_pi_topology.testing.fake_links import FakeLinks
    from harmony_pi_topology.testing.fake_mounts import FakeMounts
    from harmony_pi_topology.testing.fake_network import FakeNetwork
    from harmony_pi_topology.testing.fake_pi import FakePi
    from harmony_pi_topology.testing.fake_reboots import FakeReboots
    from harmony_pi_topology.testing.fake_registries import FakeRegistries
    from harmony_pi_topology.testing.fake_systemd import FakeSystemd, ServiceProgram
    from harmony_pi_topology.testing.fake_volumes import FakeVolumes
    from harmony_pi_topology.testing.files_contract import (
        Bystander,
        FilesUnderTest,
        FileSystemHostContract,
    )
    from harmony_pi_topology.testing.firewall_contract import (
        FirewallBystander,
        FirewallHostContract,
        FirewallUnderTest,
    )
    from harmony_pi_topology.testing.hearing import Hearer
    from harmony_pi_topology.testing.host_contract import (
        HostBystander,
        HostConfiguratorContract,
        HostUnderTest,
    )
    from harmony_pi_topology.testing.jobs_contract import (
        JobBystander,
        JobRunnerContract,
        JobsUnderTest,
    )
    from harmony_pi_topology.testing.links_contract import (
        LinkBystander,
        LinkHostContract,
        LinksUnderTest,
    )
    from harmony_pi_topology.testing.modeless_contract import (
        ModelessDirectoriesContract,
        ModelessFilesContract,
    )
    from harmony_pi_topology.testing.mounts_contract import (
        MountBystander,
        MountHostContract,
        MountsUnderTest,
    )
    from harmony_pi_topology.testing.network_contract import NetworkConfiguratorContract
    from harmony_pi_topology.testing.network_under_test import NetworkBystander, NetworkUnderTest
    from harmony_pi_topology.testing.systemd_contract import SystemdHostContract
    from harmony_pi_topology.testing.units_under_test import UnitBystander, UnitsUnderTest
    from harmony_pi_topology.testing.volumes_contract import VolumeHostContract, VolumesUnderTest

    from .capability_contract import CapabilityContract, CapabilityUnderTest, Outsider
    from .running import (
        PI_4,
        AllowAll,
        ListAudit,
        NoClaims,
        interpret_once,
        interpret_twice,
        inventory,
        make_stage,
    )

__all__ = [
    "PI_4",
    "AllowAll",
    "BlockBystander",
    "BlockHostContract",
    "BlocksUnderTest",
    "Bystander",
    "CapabilityContract",
    "CapabilityUnderTest",
    "ContainerBystander",
    "ContainerNetworkHostContract",
    "ContainerNetworksUnderTest",
    "ContainerRuntimeContract",
    "ContainersUnderTest",
    "DirectoriesUnderTest",
    "DirectoryBystander",
    "DirectoryHostContract",
    "FakeBlocks",
    "FakeContainerNetworks",
    "FakeContainers",
    "FakeDirectories",
    "FakeFiles",
    "FakeFirewall",
    "FakeHost",
    "FakeJobs",
    "FakeLinks",
    "FakeMounts",
    "FakeNetwork",
    "FakePi",
    "FakeReboots",
    "FakeRegistries",
    "FakeSystemd",
    "FakeVolumes",
    "FileSystemHostContract",
    "FilesUnderTest",
    "FirewallBystander",
    "FirewallHostContract",
    "FirewallUnderTest",
    "Hearer",
    "HostBystander",
    "HostConfiguratorContract",
    "HostUnderTest",
    "ImagesUnderTest",
    "JobBystander",
    "JobProgram",
    "JobRunnerContract",
    "JobsUnderTest",
    "LinkBystander",
    "LinkHostContract",
    "LinksUnderTest",
    "ListAudit",
    "ModelessDirectoriesContract",
    "ModelessFilesContract",
    "MountBystander",
    "MountHostContract",
    "MountsUnderTest",
    "NetworkBystander",
    "NetworkConfiguratorContract",
    "NetworkUnderTest",
    "NoClaims",
    "Outsider",
    "Program",
    "ServiceProgram",
    "SystemdHostContract",
    "UnitBystander",
    "UnitsUnderTest",
    "VolumeHostContract",
    "VolumesUnderTest",
    "interpret_once",
    "interpret_twice",
    "inventory",
    "make_stage",
]

# Loaded when it is asked for: the fakes use what is here, as well as being part of it.
_MODULES = {
    "FakeFirewall": "harmony_pi_topology.testing.fake_firewall",
    "FakeHost": "harmony_pi_topology.testing.fake_host",
    "HostBystander": "harmony_pi_topology.testing.host_contract",
    "HostConfiguratorContract": "harmony_pi_topology.testing.host_contract",
    "HostUnderTest": "harmony_pi_topology.testing.host_contract",
    "BlockBystander": "harmony_pi_topology.testing.blocks_contract",
    "BlockHostContract": "harmony_pi_topology.testing.blocks_contract",
    "BlocksUnderTest": "harmony_pi_topology.testing.blocks_contract",
    "FakeBlocks": "harmony_pi_topology.testing.fake_blocks",
    "ContainerBystander": "harmony_pi_topology.testing.containers_contract",
    "ContainerRuntimeContract": "harmony_pi_topology.testing.containers_contract",
    "ContainersUnderTest": "harmony_pi_topology.testing.containers_contract",
    "ImagesUnderTest": "harmony_pi_topology.testing.containers_contract",
    "DirectoriesUnderTest": "harmony_pi_topology.testing.directories_contract",
    "DirectoryBystander": "harmony_pi_topology.testing.directories_contract",
    "DirectoryHostContract": "harmony_pi_topology.testing.directories_contract",
    "ContainerNetworkHostContract": "harmony_pi_topology.testing.container_networks_contract",
    "ContainerNetworksUnderTest": "harmony_pi_topology.testing.container_networks_contract",
    "FakeContainerNetworks": "harmony_pi_topology.testing.fake_container_networks",
    "FakeVolumes": "harmony_pi_topology.testing.fake_volumes",
    "VolumeHostContract": "harmony_pi_topology.testing.volumes_contract",
    "VolumesUnderTest": "harmony_pi_topology.testing.volumes_contract",
    "FakeContainers": "harmony_pi_topology.testing.fake_containers",
    "Program": "harmony_pi_topology.testing.fake_containers",
    "FakeDirectories": "harmony_pi_topology.testing.fake_directories",
    "FakeFiles": "harmony_pi_topology.testing.fake_files",
    "FakeJobs": "harmony_pi_topology.testing.fake_jobs",
    "JobProgram": "harmony_pi_topology.testing.fake_jobs",
    "FakeLinks": "harmony_pi_topology.testing.fake_links",
    "FakeMounts": "harmony_pi_topology.testing.fake_mounts",
    "FakeNetwork": "harmony_pi_topology.testing.fake_network",
    "FakePi": "harmony_pi_topology.testing.fake_pi",
    "FakeReboots": "harmony_pi_topology.testing.fake_reboots",
    "FakeRegistries": "harmony_pi_topology.testing.fake_registries",
    "FakeSystemd": "harmony_pi_topology.testing.fake_systemd",
    "ServiceProgram": "harmony_pi_topology.testing.fake_systemd",
    "Bystander": "harmony_pi_topology.testing.files_contract",
    "FilesUnderTest": "harmony_pi_topology.testing.files_contract",
    "FileSystemHostContract": "harmony_pi_topology.testing.files_contract",
    "Hearer": "harmony_pi_topology.testing.hearing",
    "JobBystander": "harmony_pi_topology.testing.jobs_contract",
    "JobRunnerContract": "harmony_pi_topology.testing.jobs_contract",
    "JobsUnderTest": "harmony_pi_topology.testing.jobs_contract",
    "LinkBystander": "harmony_pi_topology.testing.links_contract",
    "LinkHostContract": "harmony_pi_topology.testing.links_contract",
    "LinksUnderTest": "harmony_pi_topology.testing.links_contract",
    "FirewallBystander": "harmony_pi_topology.testing.firewall_contract",
    "FirewallHostContract": "harmony_pi_topology.testing.firewall_contract",
    "FirewallUnderTest": "harmony_pi_topology.testing.firewall_contract",
    "MountBystander": "harmony_pi_topology.testing.mounts_contract",
    "MountHostContract": "harmony_pi_topology.testing.mounts_contract",
    "MountsUnderTest": "harmony_pi_topology.testing.mounts_contract",
    "ModelessDirectoriesContract": "harmony_pi_topology.testing.modeless_contract",
    "ModelessFilesContract": "harmony_pi_topology.testing.modeless_contract",
    "NetworkConfiguratorContract": "harmony_pi_topology.testing.network_contract",
    "NetworkBystander": "harmony_pi_topology.testing.network_under_test",
    "NetworkUnderTest": "harmony_pi_topology.testing.network_under_test",
    "CapabilityContract": ".capability_contract",
    "CapabilityUnderTest": ".capability_contract",
    "Outsider": ".capability_contract",
    "PI_4": ".running",
    "AllowAll": ".running",
    "ListAudit": ".running",
    "NoClaims": ".running",
    "interpret_once": ".running",
    "interpret_twice": ".running",
    "inventory": ".running",
    "make_stage": ".running",
    "SystemdHostContract": "harmony_pi_topology.testing.systemd_contract",
    "UnitBystander": "harmony_pi_topology.testing.units_under_test",
    "UnitsUnderTest": "harmony_pi_topology.testing.units_under_test",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = found
    return found
