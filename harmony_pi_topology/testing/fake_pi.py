"""A whole device in memory: fakes of all capabilities, over one set of files."""

from __future__ import annotations

from harmony_core.reconciler import Offers

from .fake_blocks import FakeBlocks
from .fake_container_networks import FakeContainerNetworks
from .fake_containers import FakeContainers
from .fake_directories import FakeDirectories
from .fake_files import FakeFiles
from .fake_firewall import FakeFirewall
from .fake_host import FakeHost
from .fake_jobs import FakeJobs
from .fake_links import FakeLinks
from .fake_mounts import FakeMounts
from .fake_network import FakeNetwork
from .fake_reboots import FakeReboots
from .fake_registries import FakeRegistries
from .fake_systemd import FakeSystemd
from .fake_volumes import FakeVolumes

__all__ = ["FakePi"]


class FakePi:
    """What a Score writes as a file, its containers and units find.

    ``await interpret_twice(score, FakePi().offers)`` is the shortest test of any Score.
    """

    def __init__(self) -> None:
        self.files = FakeFiles()
        self.directories = FakeDirectories(self.files)
        self.links = FakeLinks(self.files)
        self.blocks = FakeBlocks(self.files)
        self.mounts = FakeMounts(self.files)
        self.containers = FakeContainers()
        self.containers.files = self.files.contents
        self.containers.secret_values = self.files.secret_values
        self.volumes = FakeVolumes(self.containers.attachments)
        self.container_networks = FakeContainerNetworks(self.containers.attachments)
        self.systemd = FakeSystemd()
        self.systemd.files = self.files.contents
        self.jobs = FakeJobs()
        self.network = FakeNetwork()
        self.network.secret_values = self.files.secret_values
        self.firewall = FakeFirewall()
        self.host = FakeHost()
        self.registries = FakeRegistries(self.files)
        self.reboots = FakeReboots()

    @property
    def offers(self) -> Offers:
        """What a Stage is given."""
        return {
            "FileSystemHost": self.files,
            "DirectoryHost": self.directories,
            "LinkHost": self.links,
            "BlockHost": self.blocks,
            "MountHost": self.mounts,
            "ContainerRuntime": self.containers,
            "VolumeHost": self.volumes,
            "ContainerNetworkHost": self.container_networks,
            "SystemdHost": self.systemd,
            "JobRunner": self.jobs,
            "NetworkConfigurator": self.network,
            "FirewallHost": self.firewall,
            "HostConfigurator": self.host,
            "RegistryHost": self.registries,
            "RebootHost": self.reboots,
        }
