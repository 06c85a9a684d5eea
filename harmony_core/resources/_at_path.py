"""What all resources have in common that are one thing at a path."""

from __future__ import annotations

from harmony_core.paths import AbsolutePath, is_on_disk
from harmony_core.run_by_root import place_run_by_root

from ._base import Privilege, Resource

__all__ = ["ResourceAtPath"]


class ResourceAtPath(Resource):
    """One thing at *path*, and nothing else: of no unit, and run as root where root runs what is there."""

    path: AbsolutePath
    """Where it is."""

    @property
    def key(self) -> str:
        return self.path

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (key,)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset({"run-as-root"} if place_run_by_root(self.path) else ())

    @classmethod
    def survives_reboot(cls, key: str) -> bool:
        return is_on_disk(key)
