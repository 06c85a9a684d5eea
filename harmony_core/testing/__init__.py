"""For authors of Scores and of capabilities: fakes, and the contracts that real adapters pass too.

* `FakeFiles` and the like stand where a device would: Scores run on them in milliseconds.
* ``…Contract`` are classes of tests. Subclass one, give it a host, and pytest runs it.
* `Hearer` listens to what a reconciler tells of changes.
* `interpreted_twice` and `staged` put a Score on a Stage as an agent does.

Needs pytest. Nothing at run time may import this package.
"""

from __future__ import annotations

from . import _rewriting as _rewriting  # first: it concerns how the contracts are imported
from .containers_contract import (
    ContainerBystander,
    ContainerRuntimeContract,
    ContainersUnderTest,
    ImagesUnderTest,
)
from .directories_contract import (
    DirectoriesUnderTest,
    DirectoryBystander,
    DirectoryHostContract,
)
from .fake_containers import FakeContainers, Program
from .fake_directories import FakeDirectories
from .fake_files import FakeFiles
from .fake_jobs import FakeJobs, JobProgram
from .fake_network import FakeNetwork
from .fake_pi import FakePi
from .fake_systemd import FakeSystemd, ServiceProgram
from .files_contract import Bystander, FilesUnderTest, FileSystemHostContract
from .hearing import Hearer
from .jobs_contract import JobBystander, JobRunnerContract, JobsUnderTest
from .network_contract import NetworkConfiguratorContract
from .network_under_test import NetworkBystander, NetworkUnderTest
from .running import (
    PI_4,
    AllowAll,
    ListAudit,
    NoClaims,
    interpreted,
    interpreted_twice,
    inventory,
    staged,
)
from .systemd_contract import SystemdHostContract
from .units_under_test import UnitBystander, UnitsUnderTest

__all__ = [
    "PI_4",
    "AllowAll",
    "Bystander",
    "ContainerBystander",
    "ContainerRuntimeContract",
    "ContainersUnderTest",
    "DirectoriesUnderTest",
    "DirectoryBystander",
    "DirectoryHostContract",
    "FakeContainers",
    "FakeDirectories",
    "FakeFiles",
    "FakeJobs",
    "FakeNetwork",
    "FakePi",
    "FakeSystemd",
    "FileSystemHostContract",
    "FilesUnderTest",
    "Hearer",
    "ImagesUnderTest",
    "JobBystander",
    "JobProgram",
    "JobRunnerContract",
    "JobsUnderTest",
    "ListAudit",
    "NetworkBystander",
    "NetworkConfiguratorContract",
    "NetworkUnderTest",
    "NoClaims",
    "Program",
    "ServiceProgram",
    "SystemdHostContract",
    "UnitBystander",
    "UnitsUnderTest",
    "interpreted",
    "interpreted_twice",
    "inventory",
    "staged",
]
