"""The request that makes podman create a container."""

from __future__ import annotations

from collections.abc import Mapping

from harmony_core.resources import HOLD_DIRECTORY, Container

from .attachments import describe_networks
from .confinement import DROPPED_CAPABILITIES, PROFILE
from .holds import hold_volume
from .spec import DesiredContainer

__all__ = ["build_request"]

LOG_BYTES = 1024 * 1024
"""A container's log begins anew when it has grown to this."""


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
        + [
            {"Name": each.volume, "Dest": each.target, "Options": ["ro"] if each.read_only else []}
            for each in container.volumes
        ]
        + _holds(container),
        "read_only_filesystem": container.read_only,
        "restart_policy": container.restart,
        "stop_timeout": container.stop_timeout_s,
        # Its file goes with the container, and it is read without the journal's help.
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        # An image may bring a health check of its own: each would be an exec, with writes to the disk.
        "healthconfig": {"Test": ["NONE"]},
        "privileged": False,
        "cap_drop": DROPPED_CAPABILITIES,
        "seccomp_profile_path": PROFILE,
        "netns": {"nsmode": "bridge"},
    }
    if container.networks:
        request["networks"] = describe_networks(container)
    if container.command:
        request["command"] = container.command
    if container.user is not None:
        request["user"] = container.user
    if container.memory_bytes is not None:
        request["resource_limits"] = {"memory": {"limit": container.memory_bytes}}
    return request


def _holds(container: Container) -> list[dict[str, object]]:
    """Return the volume in which it may hold, if it may."""
    if container.max_hold_s is None:
        return []
    return [
        {
            "Name": hold_volume(container.name),
            "Dest": HOLD_DIRECTORY,
            "Options": ["rw", "nosuid", "nodev", "noexec"],
        }
    ]
