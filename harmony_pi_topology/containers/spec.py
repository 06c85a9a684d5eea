"""What a `Container` is to podman and to the device: the files it uses, its request.

Reading files blocks: `used_files` is for a worker's thread.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from harmony_core.errors import ContainerFailed, InvalidResource, UnsafePath, WriteFailed
from harmony_core.resources import HOLD_DIRECTORY, Container
from harmony_pi_topology.posix.hashing import HASHED_MAX_BYTES
from harmony_pi_topology.posix.root import Root

from .holds import hold_volume
from .paths import list_prefixes, place_in
from .plan import ABSENT, DesiredContainer

LOG_BYTES = 1024 * 1024
"""A container's log begins anew when it has grown to this."""


def hash_used_files(container: Container, root: Path) -> dict[str, str]:
    """The SHA-256 of each file that *container* uses."""
    return {path: _content_hash(root, path, container.id) for path in container.uses}


def build_request(desired: DesiredContainer, volumes: Mapping[str, str]) -> dict[str, object]:
    """Return podman's request: nothing shared with the host but what *desired* says, and no health checks.

    *volumes* are the names of volumes by where the container sees them.
    """
    container = desired.container
    request: dict[str, object] = {
        "name": container.name,
        "image": desired.image,
        "labels": desired.labels,
        "env": container.environment,
        "portmappings": [
            {
                "host_ip": port.address,
                "host_port": port.host,
                "container_port": port.container,
                "protocol": port.protocol,
            }
            for port in container.ports
        ],
        "mounts": [
            {
                "type": "bind",
                "source": mount.source,
                "destination": mount.target,
                "options": ["rbind", "ro" if mount.read_only else "rw"],
            }
            for mount in container.mounts
        ],
        "volumes": [{"Name": name, "Dest": target} for target, name in volumes.items()]
        + _holds(container),
        "read_only_filesystem": container.read_only,
        "restart_policy": container.restart,
        "stop_timeout": container.stop_timeout_s,
        # Its file goes with the container, and it is read without the journal's help.
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        # An image may bring a health check of its own: each would be an exec, with writes to the disk.
        "healthconfig": {"Test": ["NONE"]},
        "privileged": False,
        "netns": {"nsmode": "bridge"},
    }
    if container.command:
        request["command"] = container.command
    if container.user is not None:
        request["user"] = container.user
    if container.memory_bytes is not None:
        request["resource_limits"] = {"memory": {"limit": container.memory_bytes}}
    return request


def _holds(container: Container) -> list[dict[str, object]]:
    """The volume in which it may hold, if it may."""
    if container.max_hold_s is None:
        return []
    return [
        {
            "Name": hold_volume(container.name),
            "Dest": HOLD_DIRECTORY,
            "Options": ["rw", "nosuid", "nodev", "noexec"],
        }
    ]


def _content_hash(root: Path, path: str, resource: str) -> str:
    """Of *path*, reached by no link: else the hash of what nobody may read could be had by a link to it."""
    try:
        with Root(str(root)) as here:
            return here.sha256(path)
    except FileNotFoundError:
        return ABSENT
    except UnsafePath as error:
        for prefix in list_prefixes(path):
            kind = _kind(place_in(root, prefix))
            if kind == stat.S_IFLNK:
                raise UnsafePath(
                    f"uses: {path} crosses the symbolic link {prefix}; name the place that it leads to",
                    resource=resource,
                ) from error
            if prefix != path and kind not in {stat.S_IFDIR, None}:
                return ABSENT
        raise InvalidResource(
            f"uses: {path} is not a file of at most {HASHED_MAX_BYTES // 1024**2} MiB; mount its "
            "directory instead",
            resource=resource,
        ) from error
    except WriteFailed as error:
        raise ContainerFailed(
            f"{path}, which it uses, cannot be read: {error.message}", resource=resource
        ) from error


def _kind(path: Path) -> int | None:
    """What is at *path* itself, as `stat.S_IFMT` has it; None where nothing is."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
