"""Harmony's own Scores, registered through the entry point like anybody else's.

* `FileScore`            a file with this content, mode and owner
* `SystemdServiceScore`  a service, from a few fields, from a unit file, or one that is there already
* `ContainerScore`       a container
* `NetworkConfigScore`   a network profile: addresses, routes, name servers, a Wi-Fi password
* `WebAppScore`          a web application: its configuration, its container, its port, and whether it serves
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harmony_core.plugins.spec import impl
from harmony_core.score import Score

from .container import ContainerScore
from .file import FileScore
from .network_config import NetworkConfigScore
from .systemd_service import SystemdServiceScore
from .web_app import WebAppScore

__all__ = [
    "ContainerScore",
    "FileScore",
    "NetworkConfigScore",
    "SystemdServiceScore",
    "WebAppScore",
]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """The hook's implementation: every Score of this package."""
    return (FileScore, SystemdServiceScore, ContainerScore, NetworkConfigScore, WebAppScore)
