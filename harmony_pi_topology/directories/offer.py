"""Where directories are offered: everywhere, a folder that stands for a device included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harmony_core.plugins.spec import impl

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["harmony_capabilities"]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Return the DirectoryHost of this device. Implements the hook."""
    # Only an agent needs them.
    from harmony_pi_topology.common.mounted import MountGuard, OnMounts  # noqa: PLC0415

    from .posix import PosixDirectories  # noqa: PLC0415

    directories = PosixDirectories(str(place.root), records=place.records)
    guard = MountGuard(str(place.root), place.records)
    return {"DirectoryHost": OnMounts(directories, guard)}
