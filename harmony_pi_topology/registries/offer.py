"""Where registries are offered: where containers are, and systemd, by which podman is told to read anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.containers.offer import why_no_podman
from harmony_pi_topology.systemd.offer import why_no_systemd

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return what *place* offers: the hook that Harmony calls."""
    if (why_not := why_no_podman(place) or why_no_systemd(place)) is not None:
        return {"RegistryHost": why_not}
    from harmony_pi_topology.files.reconciler import PosixFiles  # noqa: PLC0415 - only an agent needs them

    from .podman_registries import PodmanRegistries  # noqa: PLC0415 - needs podman's library

    # Its files are no Score's: what is recorded of them is apart from what is of files that are.
    own = place.scoped("registries")
    files = PosixFiles(str(place.root), records=own.records, backups=own.backups)
    return {
        "RegistryHost": PodmanRegistries(
            files, place.podman_url, root=str(place.root), records=place.records
        )
    }
