"""Typed resources: what a Score may wish for, and the states in which it is found."""

from __future__ import annotations

from ._base import Resource, State, first_problem, resource_id
from .container import (
    Container,
    ContainerName,
    ContainerState,
    Environment,
    Exited,
    Mount,
    MountPath,
    PublishedPort,
    Running,
    Starting,
)
from .file import (
    File,
    FileMode,
    FileState,
    NotAFile,
    PresentAt,
    SecretName,
    SecretRef,
    UserName,
)
from .probes import HttpProbe, Port, Probe, Seconds, TcpProbe
from .systemd_unit import (
    Activating,
    Active,
    Failed,
    Inactive,
    SystemdUnit,
    UnitFile,
    UnitName,
    UnitState,
)

__all__ = [
    "Activating",
    "Active",
    "Container",
    "ContainerName",
    "ContainerState",
    "Environment",
    "Exited",
    "Failed",
    "File",
    "FileMode",
    "FileState",
    "HttpProbe",
    "Inactive",
    "Mount",
    "MountPath",
    "NotAFile",
    "Port",
    "PresentAt",
    "Probe",
    "PublishedPort",
    "Resource",
    "Running",
    "Seconds",
    "SecretName",
    "SecretRef",
    "Starting",
    "State",
    "SystemdUnit",
    "TcpProbe",
    "UnitFile",
    "UnitName",
    "UnitState",
    "UserName",
    "first_problem",
    "resource_id",
]
