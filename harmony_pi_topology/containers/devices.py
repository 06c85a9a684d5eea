"""The devices of a container: what their paths lead to, and whether that is there.

A path may be a link, such as those below /dev/serial/by-id, and the numbers of a node change when it is
plugged in anew. podman keeps the numbers for as long as the container is there. So what a path leads to is
part of what the container was made of, as the content of a used file is.

Reading blocks: for a worker's thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import attrs

from harmony_core.errors import CapabilityError, InvalidResource
from harmony_core.resources import Container, ContainerDevice
from harmony_pi_topology.common.dev import Dev
from harmony_pi_topology.common.path_calls import step

from .spec import ABSENT

__all__ = ["NO_DEVICES", "DevicesLook", "look_at_devices"]

_NODES_MOST = 1000
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


@attrs.frozen(kw_only=True)
class DevicesLook:
    """What was found of the devices of one container."""

    contents: Mapping[str, str]
    """By its path, the hash of what each device is; `ABSENT` where it is not there."""
    paths: tuple[str, ...]
    """As podman takes them: where they are, where the container sees them, what it may do."""
    inside: frozenset[str]
    """Where the container sees a node."""
    watched: tuple[str, ...]
    """What tells by coming and going that another device is there."""
    problem: CapabilityError | None
    """Why it cannot be made with them."""


NO_DEVICES = DevicesLook(contents={}, paths=(), inside=frozenset(), watched=(), problem=None)
"""What is found where there are none."""


def look_at_devices(container: Container, root: Path) -> DevicesLook:
    """Look at the devices of *container* beneath *root*."""
    seen = Dev(root)
    contents: dict[str, str] = {}
    paths: list[str] = []
    inside: set[str] = set()
    problem: CapabilityError | None = None
    for device in container.devices:
        step(seen.shown(device.source))
        try:
            found = seen.resolve(device.source, container.id)
            nodes = dict(_nodes(seen, found, device, container.id))
        except CapabilityError as error:
            contents[device.source] = ABSENT
            problem = problem or error
            continue
        contents[device.source] = _hash(found, nodes)
        paths.append(f"{found}:{device.inside}:{device.access}")
        inside |= {str(PurePosixPath(device.inside) / name) for name in nodes}
    return DevicesLook(
        contents=contents,
        paths=tuple(paths),
        inside=frozenset(inside),
        watched=tuple(dict.fromkeys(seen.passed)),
        problem=problem,
    )


def _nodes(
    dev: Dev, found: str, device: ContainerDevice, resource: str
) -> Iterator[tuple[str, str]]:
    """Yield the name and the numbers of the device node at *found*, or, if that is a directory, of each node
    in it."""
    top = dev.place(dev.shown(found))
    status = top.lstat()
    if stat.S_ISDIR(status.st_mode):
        count = 0
        for directory, names, files in os.walk(top):
            names.sort()
            for name in sorted(files):
                if (numbers := _numbers(Path(directory, name).lstat())) is not None:
                    count += 1
                    yield str(Path(directory, name).relative_to(top)), numbers
        if not count or count > _NODES_MOST:
            how = f"more than {_NODES_MOST} devices" if count else "no devices"
            raise InvalidResource(
                f"devices: {device.source} has {how} in it; name those that are needed",
                resource=resource,
            )
    elif (numbers := _numbers(status)) is not None:
        yield "", numbers
    else:
        raise InvalidResource(
            f"devices: {device.source} is no device; name one, or a directory of some, or use mounts",
            resource=resource,
        )


def _numbers(status: os.stat_result) -> str | None:
    """Return the type and the numbers of a device node; None for anything else."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    device = status.st_rdev
    return kind and f"{kind} {os.major(device)}:{os.minor(device)}"


def _hash(found: str, nodes: Mapping[str, str]) -> str:
    text = "\n".join(f"{name} {numbers}" for name, numbers in nodes.items())
    return hashlib.sha256(f"{found}\n{text}".encode()).hexdigest()
