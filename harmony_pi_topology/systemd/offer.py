"""Where units are offered: where systemd is what runs the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities", "why_no_systemd"]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the SystemdHost of this device. Implements the hook."""
    if (why_not := why_no_systemd(place)) is not None:
        return {"SystemdHost": why_not}
    from .reconciler import SdbusSystemd  # noqa: PLC0415 - needs a D-Bus library

    return {"SystemdHost": SdbusSystemd(records=place.records, backups=place.backups)}


def why_no_systemd(place: Place) -> str | None:
    """Return why there is no systemd at *place*; None where there is one."""
    if place.why_no_machine or Path("/run/systemd/system").is_dir():
        return place.why_no_machine
    return "systemd is not what runs this machine (no /run/systemd/system)"
