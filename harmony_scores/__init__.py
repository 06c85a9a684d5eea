"""Harmony's own Scores, registered through the entry point like anybody else's.

* `FileScore`            a file with this content, mode and owner
* `DirectoryScore`       a directory with this mode and owner
* `LinkScore`            a symbolic link
* `TreeScore`            a directory, with all that is in it
* `BlockScore`           a part of a text file that belongs to others
* `BootConfigScore`      what a Raspberry Pi boots with
* `MountScore`           a file system that is mounted
* `SwapScore`            a file that the kernel swaps to
* `AuthorizedKeysScore`  who may log in as a user, by their ssh keys
* `SudoRuleScore`        what a user or a group may do as another
* `HostnameScore`        the name of the host
* `TimezoneScore`        its time zone
* `LocaleScore`          its language
* `KeyboardScore`        its keyboard
* `RebootScore`          when it may be booted anew
* `SystemdServiceScore`  a service, from a few fields, from a unit file, or one that is there already
* `SystemdUnitScore`     a unit of any type, from its unit file: a socket, a path, a slice, a template
* `ContainerScore`       a container
* `VolumeScore`          a volume: data of containers, under a name
* `ContainerNetworkScore` a network between containers, on which they find each other by name
* `RegistryScore`        where the images of a registry are pulled from, and by whose word it is believed
* `NetworkConfigScore`   a network profile: addresses, routes, name servers, a Wi-Fi password
* `FirewallScore`        what may come in, to the device and to its containers
* `PackageScore`         packages of Debian
* `AptSourceScore`       a source of packages, and its key
* `UpgradeScore`         when all packages are upgraded
* `AgentScore`           which version of the agent runs
* `ShellJobScore`        a shell script that is run once, where nothing better describes what is wanted
* `TimerScore`           a program that is run again and again
* `SysctlScore`          settings of the kernel
* `KernelModuleScore`    a module of the kernel
* `UserScore`            a system user and its groups
* `ComposeScore`         the services of a project, as a Compose file has them
* `WebAppScore`          a web application: its configuration, its container, its port, and whether it serves
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harmony_core.lazy import load_attribute
from harmony_core.plugins.deferred import DeferredScore
from harmony_core.plugins.spec import impl

if TYPE_CHECKING:
    from .agent import AgentScore
    from .apt_source import AptSourceScore
    from .authorized_keys import AuthorizedKeysScore
    from .block import BlockScore
    from .boot_config import BootConfigScore
    from .compose import ComposeScore
    from .container import ContainerScore
    from .container_network import ContainerNetworkScore
    from .directory import DirectoryScore
    from .file import FileScore
    from .firewall import FirewallScore
    from .host import HostnameScore, KeyboardScore, LocaleScore, TimezoneScore
    from .kernel_module import KernelModuleScore
    from .link import LinkScore
    from .mount import MountScore
    from .network_config import NetworkConfigScore
    from .package import PackageScore
    from .reboot import RebootScore
    from .registry import RegistryScore
    from .shell_job import ShellJobScore
    from .sudo_rule import SudoRuleScore
    from .swap import SwapScore
    from .sysctl import SysctlScore
    from .systemd_service import SystemdServiceScore
    from .systemd_unit import SystemdUnitScore
    from .timer import TimerScore
    from .tree import TreeScore
    from .upgrade import UpgradeScore
    from .user import UserScore
    from .volume import VolumeScore
    from .web_app import WebAppScore

__all__ = [
    "AgentScore",
    "AptSourceScore",
    "AuthorizedKeysScore",
    "BlockScore",
    "BootConfigScore",
    "ComposeScore",
    "ContainerNetworkScore",
    "ContainerScore",
    "DirectoryScore",
    "FileScore",
    "FirewallScore",
    "HostnameScore",
    "KernelModuleScore",
    "KeyboardScore",
    "LinkScore",
    "LocaleScore",
    "MountScore",
    "NetworkConfigScore",
    "PackageScore",
    "RebootScore",
    "RegistryScore",
    "ShellJobScore",
    "SudoRuleScore",
    "SwapScore",
    "SysctlScore",
    "SystemdServiceScore",
    "SystemdUnitScore",
    "TimerScore",
    "TimezoneScore",
    "TreeScore",
    "UpgradeScore",
    "UserScore",
    "VolumeScore",
    "WebAppScore",
]


# In the order in which they are listed.
_MODULES = {
    "FileScore": ".file",
    "DirectoryScore": ".directory",
    "LinkScore": ".link",
    "TreeScore": ".tree",
    "BlockScore": ".block",
    "BootConfigScore": ".boot_config",
    "MountScore": ".mount",
    "SwapScore": ".swap",
    "HostnameScore": ".host",
    "TimezoneScore": ".host",
    "LocaleScore": ".host",
    "KeyboardScore": ".host",
    "RebootScore": ".reboot",
    "SystemdServiceScore": ".systemd_service",
    "SystemdUnitScore": ".systemd_unit",
    "ContainerScore": ".container",
    "VolumeScore": ".volume",
    "ContainerNetworkScore": ".container_network",
    "RegistryScore": ".registry",
    "ComposeScore": ".compose",
    "NetworkConfigScore": ".network_config",
    "FirewallScore": ".firewall",
    "PackageScore": ".package",
    "AptSourceScore": ".apt_source",
    "UpgradeScore": ".upgrade",
    "AgentScore": ".agent",
    "TimerScore": ".timer",
    "SysctlScore": ".sysctl",
    "KernelModuleScore": ".kernel_module",
    "UserScore": ".user",
    "AuthorizedKeysScore": ".authorized_keys",
    "SudoRuleScore": ".sudo_rule",
    "WebAppScore": ".web_app",
    "ShellJobScore": ".shell_job",
}


def __getattr__(name: str) -> object:
    return load_attribute(__name__, _MODULES, name)


@impl
def harmony_scores() -> Iterable[DeferredScore]:
    """Return every Score of this package, each imported when it is first used. Implements the hook."""
    return [DeferredScore(kind=kind, module=__name__ + module) for kind, module in _MODULES.items()]
