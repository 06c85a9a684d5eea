"""Where settings of the host are offered: where systemd has the three programs that make them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.common.presence import is_there
from harmony_pi_topology.systemd.offer import why_no_systemd

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]

_SERVICES = Path("/usr/share/dbus-1/system-services")
_NEEDED = (
    "org.freedesktop.hostname1",
    "org.freedesktop.timedate1",
    "org.freedesktop.locale1",
)


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the HostConfigurator of this device. Implements the hook."""
    if (why_not := why_no_systemd(place) or _why_no_services(place)) is not None:
        return {"HostConfigurator": why_not}
    from .daemons import SdbusHost  # noqa: PLC0415 - needs a D-Bus library

    return {"HostConfigurator": SdbusHost(records=place.records)}


def _why_no_services(place: Place) -> str | None:
    absent = [name for name in _NEEDED if not is_there(_SERVICES / f"{name}.service")]
    if not absent:
        return None
    return f"{absent[0]} is not on the system bus; {place.remedy('apt install systemd dbus')}"
