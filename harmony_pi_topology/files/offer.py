"""Where files are offered: everywhere, a folder that stands for a device included."""

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
    """Return the FileSystemHost of this device. Implements the hook."""
    # Only an agent needs them.
    from harmony_pi_topology.common.mounted import MountGuard, PreparingOnMounts  # noqa: PLC0415

    from .reconciler import PosixFiles  # noqa: PLC0415

    files = PosixFiles(
        str(place.root),
        records=place.records,
        backups=place.backups,
        secrets_directory=str(place.secrets_directory),
        secret_values=place.secret_values,
        assets=place.assets,
    )
    guard = MountGuard(str(place.root), place.records)
    return {"FileSystemHost": PreparingOnMounts(files, guard)}
