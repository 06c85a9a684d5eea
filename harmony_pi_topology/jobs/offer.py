"""Where jobs are offered: where systemd, which runs them, is what runs the machine."""

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
    """Return the JobRunner of this device. Implements the hook."""
    if (why_not := why_no_systemd(place)) is not None:
        return {"JobRunner": why_not}
    from .systemd import SystemdJobs  # noqa: PLC0415 - needs a D-Bus library

    return {"JobRunner": SystemdJobs(records=place.records, policy=place.policy)}
