"""A whole device in memory: fakes of all capabilities, over one set of files."""

from __future__ import annotations

from harmony_core.reconciler import Offers

from .fake_container_networks import FakeContainerNetworks
from .fake_containers import FakeContainers
from .fake_directories import FakeDirectories
from .fake_files import FakeFiles
from .fake_jobs import FakeJobs
from .fake_network import FakeNetwork
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
        self.containers = FakeContainers()
        self.containers.files = self.files.contents
        self.volumes = FakeVolumes(self.containers.attachments)
        self.container_networks = FakeContainerNetworks(self.containers.attachments)
        self.systemd = FakeSystemd()
        self.systemd.files = self.files.contents
        self.jobs = FakeJobs()
        self.network = FakeNetwork()

    @property
    def offers(self) -> Offers:
        """What a Stage is given."""
        return {
            "FileSystemHost": self.files,
            "DirectoryHost": self.directories,
            "ContainerRuntime": self.containers,
            "VolumeHost": self.volumes,
            "ContainerNetworkHost": self.container_networks,
            "SystemdHost": self.systemd,
            "JobRunner": self.jobs,
            "NetworkConfigurator": self.network,
        }
