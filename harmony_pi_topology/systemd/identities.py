"""Under which names one unit is known, so that nobody else's claim on it goes unseen under another name."""

from __future__ import annotations

from harmony_core.resources import SystemdUnit, resource_id
from harmony_core.unit_install import read_install_words
from harmony_pi_topology.systemd.records import FoundUnit

__all__ = ["unit_identities"]


def unit_identities(unit: SystemdUnit, found: FoundUnit, path: str) -> frozenset[str]:
    """Return ``unit:NAME`` for each name of *unit*, and ``path:…`` of its file, if we write that.

    Its names are those that systemd knows now, and those that its file requests with ``Alias=``. *path* is
    the place of its file, if it is ours.
    """
    names = {unit.name, found.unit_id, *found.names} - {""}
    if unit.content is None:
        return frozenset(resource_id(SystemdUnit.resource_type, name) for name in names)
    names.update(read_install_words(unit.content, "Alias"))
    ids = {resource_id(SystemdUnit.resource_type, name) for name in names}
    return frozenset({*ids, f"path:{path}"})
