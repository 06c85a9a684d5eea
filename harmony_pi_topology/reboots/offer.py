"""Where reboots are offered: where systemd has who is asked for one."""

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

_SERVICE = Path("/usr/share/dbus-1/system-services/org.freedesktop.login1.service")


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the RebootHost of this device. Implements the hook."""
    why_not = why_no_systemd(place)
    if why_not is None and not is_there(_SERVICE):
        remedy = place.remedy("apt install systemd dbus")
        why_not = f"systemd-logind is not on the system bus; {remedy}"
    if why_not is not None:
        return {"RebootHost": why_not}
    from .logind import LogindReboots  # noqa: PLC0415 - needs a D-Bus library

    return {"RebootHost": LogindReboots(records=place.records)}
