"""What every part of Harmony agrees on: Scores, capabilities, resources, the Stage, Outcomes, the wire.

No input or output happens here. What a Score's author needs is here under one name each::

    from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .capabilities import (
        Capability,
        ContainerNetworkHost,
        ContainerRuntime,
        DirectoryHost,
        FileSystemHost,
        HasContainerNetworks,
        HasContainers,
        HasDirectories,
        HasFiles,
        HasJobs,
        HasNetwork,
        HasSystemd,
        HasVolumes,
        JobRunner,
        NetworkConfigurator,
        SystemdHost,
        VolumeHost,
    )
    from .change import Change, Changes, NotReady, Progress
    from .errors import HarmonyError
    from .former_spec import FormerSpec
    from .inventory import Inventory
    from .outcome import Failure, Noop, Outcome, Running, Success, outcome_of
    from .plugins import impl
    from .resources import (
        Bridge,
        Container,
        ContainerNetwork,
        Directory,
        Ethernet,
        File,
        HttpProbe,
        Ipv4,
        Ipv4Route,
        Ipv6,
        Ipv6Route,
        Job,
        Link,
        Mount,
        NetworkAttachment,
        NetworkProfile,
        Privilege,
        PublishedPort,
        Resource,
        SecretRef,
        State,
        SystemdUnit,
        TcpProbe,
        Vlan,
        Volume,
        VolumeMount,
        Wifi,
    )
    from .score import Score
    from .spec import Spec

__all__ = [
    "Bridge",
    "Capability",
    "Change",
    "Changes",
    "Container",
    "ContainerNetwork",
    "ContainerNetworkHost",
    "ContainerRuntime",
    "Directory",
    "DirectoryHost",
    "Ethernet",
    "Failure",
    "File",
    "FileSystemHost",
    "FormerSpec",
    "HarmonyError",
    "HasContainerNetworks",
    "HasContainers",
    "HasDirectories",
    "HasFiles",
    "HasJobs",
    "HasNetwork",
    "HasSystemd",
    "HasVolumes",
    "HttpProbe",
    "Inventory",
    "Ipv4",
    "Ipv4Route",
    "Ipv6",
    "Ipv6Route",
    "Job",
    "JobRunner",
    "Link",
    "Mount",
    "NetworkAttachment",
    "NetworkConfigurator",
    "NetworkProfile",
    "Noop",
    "NotReady",
    "Outcome",
    "Privilege",
    "Progress",
    "PublishedPort",
    "Resource",
    "Running",
    "Score",
    "SecretRef",
    "Spec",
    "State",
    "Success",
    "SystemdHost",
    "SystemdUnit",
    "TcpProbe",
    "Vlan",
    "Volume",
    "VolumeHost",
    "VolumeMount",
    "Wifi",
    "impl",
    "outcome_of",
]

# Loaded when it is asked for: a command that needs the errors alone does not wait for every model.
_MODULES = {
    "Capability": ".capabilities",
    "ContainerNetworkHost": ".capabilities",
    "ContainerRuntime": ".capabilities",
    "DirectoryHost": ".capabilities",
    "FileSystemHost": ".capabilities",
    "HasContainerNetworks": ".capabilities",
    "HasContainers": ".capabilities",
    "HasDirectories": ".capabilities",
    "HasFiles": ".capabilities",
    "HasJobs": ".capabilities",
    "HasNetwork": ".capabilities",
    "HasVolumes": ".capabilities",
    "HasSystemd": ".capabilities",
    "JobRunner": ".capabilities",
    "NetworkConfigurator": ".capabilities",
    "SystemdHost": ".capabilities",
    "VolumeHost": ".capabilities",
    "Change": ".change",
    "Changes": ".change",
    "NotReady": ".change",
    "Progress": ".change",
    "HarmonyError": ".errors",
    "FormerSpec": ".former_spec",
    "Inventory": ".inventory",
    "Failure": ".outcome",
    "Noop": ".outcome",
    "Outcome": ".outcome",
    "Running": ".outcome",
    "Success": ".outcome",
    "outcome_of": ".outcome",
    "impl": ".plugins",
    "Container": ".resources",
    "ContainerNetwork": ".resources",
    "NetworkAttachment": ".resources",
    "Volume": ".resources",
    "VolumeMount": ".resources",
    "Bridge": ".resources",
    "Ethernet": ".resources",
    "Ipv4": ".resources",
    "Ipv4Route": ".resources",
    "Ipv6": ".resources",
    "Ipv6Route": ".resources",
    "Link": ".resources",
    "Vlan": ".resources",
    "Wifi": ".resources",
    "Directory": ".resources",
    "File": ".resources",
    "HttpProbe": ".resources",
    "Job": ".resources",
    "Mount": ".resources",
    "NetworkProfile": ".resources",
    "Privilege": ".resources",
    "PublishedPort": ".resources",
    "Resource": ".resources",
    "SecretRef": ".resources",
    "State": ".resources",
    "SystemdUnit": ".resources",
    "TcpProbe": ".resources",
    "Score": ".score",
    "Spec": ".spec",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = found
    return found
