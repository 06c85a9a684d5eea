"""Where containers are offered: where podman is installed, or listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl
from harmony_pi_topology.common.presence import is_there

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities", "why_no_podman"]

_PROGRAMS = ("/usr/bin/podman", "/usr/local/bin/podman")


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return what *place* offers: the hook that Harmony calls."""
    if (why_not := why_no_podman(place)) is not None:
        return {"ContainerRuntime": why_not}
    from .reconciler import PodmanContainers  # noqa: PLC0415 - needs podman's library

    return {
        "ContainerRuntime": PodmanContainers(
            place.podman_url,
            records=place.records,
            secret_values=place.secret_values,
            nearby_images=place.nearby_images,
            turns=place.container_turns,
            assets=place.assets,
        )
    }


def why_no_podman(place: Place) -> str | None:
    """Return why podman's capabilities are not offered at *place*; None where they are."""
    if place.why_no_machine:
        return place.why_no_machine
    socket = Path(place.podman_url.removeprefix("unix://"))
    if is_there(socket) or any(is_there(Path(program)) for program in _PROGRAMS):
        return None
    return f"podman is not installed; {place.remedy('apt install podman')}"
