"""Where mount points are offered: where systemd is what runs the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.systemd.offer import why_no_systemd

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the MountHost of this device. Implements the hook."""
    if (why_not := why_no_systemd(place)) is not None:
        return {"MountHost": why_not}
    from harmony_pi_topology.systemd.reconciler import SdbusSystemd  # noqa: PLC0415 - needs a D-Bus library

    from .systemd import SystemdMounts  # noqa: PLC0415

    # Its units are no Score's: what is recorded of them is apart from what is of units that are.
    own = place.scoped("mounts")
    units = SdbusSystemd(records=own.records, backups=own.backups)
    return {"MountHost": SystemdMounts(units, records=place.records)}
