"""Where volumes are offered: where containers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.containers.offer import why_no_podman

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the VolumeHost of this device. Implements the hook."""
    if (why_not := why_no_podman(place)) is not None:
        return {"VolumeHost": why_not}
    from .podman_volumes import PodmanVolumes  # noqa: PLC0415 - needs podman's library

    return {"VolumeHost": PodmanVolumes(place.podman_url, records=place.records, root=place.root)}
