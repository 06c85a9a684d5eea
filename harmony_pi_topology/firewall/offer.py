"""Where a firewall is offered: where systemd is what runs the machine, and nft is there."""

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

_PROGRAMS = ("/usr/sbin/nft", "/sbin/nft")


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the FirewallHost of this device. Implements the hook."""
    why_not = why_no_systemd(place)
    if why_not is None and not any(is_there(Path(program)) for program in _PROGRAMS):
        why_not = f"nftables is not installed; {place.remedy('apt-get install nftables')}"
    if why_not is not None:
        return {"FirewallHost": why_not}
    from harmony_pi_topology.systemd.reconciler import SdbusSystemd  # noqa: PLC0415 - needs a D-Bus library

    from .nftables import NftablesFirewalls  # noqa: PLC0415

    # Its unit is no Score's: what is recorded of it is apart from what is of units that are.
    own = place.scoped("firewall")
    units = SdbusSystemd(records=own.records, backups=own.backups)
    return {
        "FirewallHost": NftablesFirewalls(
            units,
            records=place.records,
            unit_records=own.records,
            reachability=place.reachability,
        )
    }
