"""Where network profiles are offered: where NetworkManager looks after the network, or will."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.common.presence import is_there

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]

_PROGRAMS = ("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager")
_IN_USE = (
    "/run/NetworkManager",
    "/etc/systemd/system/multi-user.target.wants/NetworkManager.service",
)
"""It runs, or will."""


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return what *place* offers: the hook that Harmony calls."""
    if (why_not := place.why_no_machine or _why_no_network_manager(place)) is not None:
        return {"NetworkConfigurator": why_not}
    from .networkmanager import SdbusNetworkManager  # noqa: PLC0415 - needs a D-Bus library

    return {
        "NetworkConfigurator": SdbusNetworkManager(
            records=place.records,
            backups=place.backups,
            reachability=place.reachability,
            secrets_directory=str(place.secrets_directory),
            secret_values=place.secret_values,
        )
    }


def _why_no_network_manager(place: Place) -> str | None:
    if not any(is_there(Path(program)) for program in _PROGRAMS):
        return "NetworkManager is not installed; " + place.remedy(
            "apt install network-manager, which then looks after the network of this device"
        )
    if not any(is_there(Path(path)) for path in _IN_USE):
        return (
            "NetworkManager is installed, but something else looks after the network of this device; "
            f"to change that, {place.remedy('systemctl enable --now NetworkManager')}"
        )
    return None
