"""The volumes that images bring (VOLUME): data of a container's, which outlives the container.

podman would make a new one, without a name, for each container made of such an image, and a database would
begin anew with every changed field. So each has a name that follows from the container's and from where it is
seen: whatever is made in the place of a container, by a changed field, another image, a rollback, or after
somebody removed it, finds the data of those before. A container that was made with a nameless one passes that
on. None is ever deleted: what is left when a container goes is told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

from harmony_core.resources import HOLD_DIRECTORY, Container
from harmony_core.steps import KeptVolume

from .podman_reply import FoundContainer

__all__ = ["assign_volumes", "find_kept_volumes", "is_brought", "volume_name"]

_OTHER = re.compile(r"[^a-zA-Z0-9]+")
_NAMELESS = re.compile(r"[0-9a-f]{64}")
_TARGET_CHARACTERS = 40


def assign_volumes(
    container: Container, of_image: Iterable[str], had: Mapping[str, str]
) -> dict[str, str]:
    """Return a volume for each path *of_image* at which *container* mounts nothing else: the volume that it
    *had* there, if any."""
    taken = {*container.targets}
    return {
        target: brought
        if (brought := had.get(target)) is not None and is_brought(brought)
        else volume_name(container.name, target)
        for target in of_image
        if target not in taken and target != HOLD_DIRECTORY
    }


def volume_name(container: str, target: str) -> str:
    """Return the name of the volume that *container* sees at *target*: readable, and unlike any other."""
    words = _OTHER.sub("-", target).strip("-")[:_TARGET_CHARACTERS] or "root"
    unique = hashlib.sha256(f"{container}\0{target}".encode()).hexdigest()[:8]
    return f"harmony-{container}-{words}-{unique}"


def is_brought(volume: str) -> bool:
    """Return whether *volume* has the kind of name that Harmony or podman gives to volumes that images
    declare."""
    return volume.startswith("harmony-") or _NAMELESS.fullmatch(volume) is not None


def find_kept_volumes(
    found: FoundContainer, targets: Collection[str] | None = None
) -> tuple[KeptVolume, ...]:
    """Return the volumes of *found*, declared by its image, that stay on the device; only those at *targets*,
    if given. Leave out a volume that has a Score of its own, which reports it."""
    return tuple(
        KeptVolume(name=name, target=target)
        for target, name in sorted(found.volumes.items())
        if target != HOLD_DIRECTORY and is_brought(name) and (targets is None or target in targets)
    )
