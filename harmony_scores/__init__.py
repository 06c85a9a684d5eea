"""Harmony's own Scores, registered through the entry point like anybody else's.

* `FileScore`            a file with this content, mode and owner
* `DirectoryScore`       a directory with this mode and owner
* `SystemdServiceScore`  a service, from a few fields, from a unit file, or one that is there already
* `ContainerScore`       a container
* `VolumeScore`          a volume: data of containers, under a name
* `ContainerNetworkScore` a network between containers, on which they find each other by name
* `NetworkConfigScore`   a network profile: addresses, routes, name servers, a Wi-Fi password
* `PackageScore`         packages of Debian
* `ShellJobScore`        a shell script that is run once, where nothing better describes what is wanted
* `TimerScore`           a program that is run again and again
* `SysctlScore`          settings of the kernel
* `UserScore`            a system user and its groups
* `WebAppScore`          a web application: its configuration, its container, its port, and whether it serves
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harmony_core.plugins.spec import impl
from harmony_core.score import Score

from .container import ContainerScore
from .container_network import ContainerNetworkScore
from .directory import DirectoryScore
from .file import FileScore
from .network_config import NetworkConfigScore
from .package import PackageScore
from .shell_job import ShellJobScore
from .sysctl import SysctlScore
from .systemd_service import SystemdServiceScore
from .timer import TimerScore
from .user import UserScore
from .volume import VolumeScore
from .web_app import WebAppScore

__all__ = [
    "ContainerNetworkScore",
    "ContainerScore",
    "DirectoryScore",
    "FileScore",
    "NetworkConfigScore",
    "PackageScore",
    "ShellJobScore",
    "SysctlScore",
    "SystemdServiceScore",
    "TimerScore",
    "UserScore",
    "VolumeScore",
    "WebAppScore",
]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """The hook's implementation: every Score of this package."""
    return (
        FileScore,
        DirectoryScore,
        SystemdServiceScore,
        ContainerScore,
        VolumeScore,
        ContainerNetworkScore,
        NetworkConfigScore,
        PackageScore,
        TimerScore,
        SysctlScore,
        UserScore,
        WebAppScore,
        ShellJobScore,
    )
