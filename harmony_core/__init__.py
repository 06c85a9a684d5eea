"""What every part of Harmony agrees on: Scores, capabilities, resources, the Stage, Outcomes, the wire.

No input or output happens here. What a Score's author needs is here under one name each::

    from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
"""

from __future__ import annotations

from .capabilities import (
    Capability,
    ContainerRuntime,
    FileSystemHost,
    HasContainers,
    HasFiles,
    HasSystemd,
    SystemdHost,
)
from .change import Change, Changes, NotReady, Progress
from .errors import HarmonyError
from .inventory import Inventory
from .outcome import Failure, Noop, Outcome, Running, Success, outcome_of
from .plugins import impl
from .resources import (
    Container,
    File,
    HttpProbe,
    Mount,
    PublishedPort,
    Resource,
    SecretRef,
    State,
    SystemdUnit,
    TcpProbe,
)
from .score import Score

__all__ = [
    "Capability",
    "Change",
    "Changes",
    "Container",
    "ContainerRuntime",
    "Failure",
    "File",
    "FileSystemHost",
    "HarmonyError",
    "HasContainers",
    "HasFiles",
    "HasSystemd",
    "HttpProbe",
    "Inventory",
    "Mount",
    "Noop",
    "NotReady",
    "Outcome",
    "Progress",
    "PublishedPort",
    "Resource",
    "Running",
    "Score",
    "SecretRef",
    "State",
    "Success",
    "SystemdHost",
    "SystemdUnit",
    "TcpProbe",
    "impl",
    "outcome_of",
]
