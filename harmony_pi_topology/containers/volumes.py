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
    """Return the volume of each path *of_image* that *container* mounts nothing else at: the one that it
    *had*."""
    taken = {*container.targets}
    return {
        target: brought
        if (brought := had.get(target)) is not None and is_brought(brought)
        else volume_name(container.name, target)
        for target in of_image
        if target not in taken and target != HOLD_DIRECTORY
    }


def volume_name(container: str, target: str) -> str:
    """Return what the volume is called that *container* sees at *target*: for people, and for nobody
    else's."""
    words = _OTHER.sub("-", target).strip("-")[:_TARGET_CHARACTERS] or "root"
    unique = hashlib.sha256(f"{container}\0{target}".encode()).hexdigest()[:8]
    return f"harmony-{container}-{words}-{unique}"


def is_brought(volume: str) -> bool:
    """Return whether *volume* is called as those are that images bring: by us, or by podman."""
    return volume.startswith("harmony-") or _NAMELESS.fullmatch(volume) is not None


def find_kept_volumes(
    found: FoundContainer, targets: Collection[str] | None = None
) -> tuple[KeptVolume, ...]:
    """Return which volumes of *found* stay on the device that its image has brought; those at *targets*, if
    they are given. What has a Score of its own is that one's to tell."""
    return tuple(
        KeptVolume(name=name, target=target)
        for target, name in sorted(found.volumes.items())
        if target != HOLD_DIRECTORY and is_brought(name) and (targets is None or target in targets)
    )
