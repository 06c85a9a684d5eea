"""The request that makes podman create a container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harmony_core.resources import (
    HOLD_DIRECTORY,
    Container,
    ContainerSecret,
    HealthCheck,
    Mount,
    Tmpfs,
    signal_number,
)
from harmony_core.secret_values import find_words

from .attachments import describe_networks
from .confinement import PROFILE, list_dropped
from .holds import hold_volume
from .secret_store import SECRETS_LABEL, name_secret
from .spec import DesiredContainer

__all__ = ["build_request", "list_check_words"]

_CPU_PERIOD_US = 100_000
_NS = 1_000_000_000


def build_request(
    desired: DesiredContainer, volumes: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, object]:
    """Return the request to podman, which shares nothing with the host but what *desired* says.

    *volumes* are the names of volumes by the path at which the container sees them, *secrets* the ids of its
    podman secrets by name.
    """
    container = desired.container
    hidden = {name for name, text in container.environment.items() if find_words(text)}
    request: dict[str, object] = {
        "name": container.name,
        "image": desired.image,
        "labels": {**container.labels, **desired.labels, **_secrets_label(secrets)},
        "env": {name: text for name, text in container.environment.items() if name not in hidden},
        "secret_env": {
            name: name_secret(container.name, container.environment[name])
            for name in sorted(hidden)
        },
        "secrets": [_secret(container, each) for each in container.secrets],
        "portmappings": [
            {
                "host_ip": port.address,
                "host_port": port.host,
                "container_port": port.container,
                "protocol": port.protocol,
            }
            for port in container.ports
        ],
        "mounts": [*map(_bind, container.mounts), *map(_tmpfs, container.tmpfs)],
        "volumes": [{"Name": name, "Dest": target} for target, name in volumes.items()]
        + [
            {"Name": each.volume, "Dest": each.target, "Options": ["ro"] if each.read_only else []}
            for each in container.volumes
        ]
        + _holds(container),
        "devices": [{"path": each} for each in desired.devices],
        "device_cgroup_rule": [*map(_rule, container.device_rules)],
        "read_only_filesystem": container.read_only,
        "init": container.init,
        "restart_policy": container.restart,
        "stop_timeout": container.stop_timeout_s,
        "log_configuration": _log(container),
        "privileged": container.privileged,
        "cap_add": [*map(_capability, container.add_capabilities)],
        "no_new_privileges": container.no_new_privileges,
        "netns": {"nsmode": container.network},
        "pidns": {"nsmode": container.pid},
        "ipcns": {"nsmode": container.ipc},
        "resource_limits": _limits(container),
        "r_limits": [
            {"type": name, "soft": _unsigned(limit.soft), "hard": _unsigned(limit.hard)}
            for name, limit in container.ulimits.items()
        ],
        "sysctl": container.sysctls,
        "dns_server": container.dns,
        "dns_search": container.dns_search,
        "dns_option": container.dns_options,
        "hostadd": [f"{name}:{address}" for name, address in container.extra_hosts.items()],
        "groups": container.groups,
    }
    if not container.privileged:
        # What is privileged has everything, also for podman: it heeds neither.
        request["cap_drop"] = list_dropped(container)
        request["seccomp_profile_path"] = PROFILE
    if (check := _health_check(container.healthcheck)) is not None:
        request["healthconfig"] = check
    wished: dict[str, object] = {
        "networks": describe_networks(container) or None,
        "entrypoint": container.entrypoint,
        "command": container.command or None,
        "user": container.user,
        "work_dir": container.working_directory,
        "hostname": container.hostname,
        "shm_size": container.shm_bytes,
        "timezone": container.timezone,
        "stop_signal": signal_number(container.stop_signal) if container.stop_signal else None,
    }
    return {**request, **{name: value for name, value in wished.items() if value is not None}}


def _log(container: Container) -> dict[str, object]:
    if container.log_driver == "k8s-file":
        return {"driver": "k8s-file", "size": container.log_bytes}
    tag = {"options": {"tag": container.log_tag}} if container.log_tag is not None else {}
    return {"driver": container.log_driver, **tag}


def _bind(mount: Mount) -> dict[str, object]:
    options = ["rbind", "ro" if mount.read_only else "rw", mount.propagation]
    return {
        "type": "bind",
        "source": mount.source,
        "destination": mount.target,
        "options": options,
    }


def _tmpfs(tmpfs: Tmpfs) -> dict[str, object]:
    options = ["rw", "nosuid", "nodev"]
    if tmpfs.size_bytes is not None:
        options.append(f"size={tmpfs.size_bytes}")
    if tmpfs.mode is not None:
        options.append(f"mode={tmpfs.mode:04o}")
    return {"type": "tmpfs", "destination": tmpfs.target, "options": options}


def _secret(container: Container, secret: ContainerSecret) -> dict[str, object]:
    return {
        "source": name_secret(container.name, secret.content),
        "target": secret.target,
        "uid": secret.uid,
        "gid": secret.gid,
        "mode": secret.mode,
    }


def _secrets_label(secrets: Mapping[str, str]) -> dict[str, str]:
    if not secrets:
        return {SECRETS_LABEL: ""}  # not left out: podman would have its image say it
    return {SECRETS_LABEL: json.dumps(dict(secrets), sort_keys=True, separators=(",", ":"))}


def _rule(text: str) -> dict[str, object]:
    """Return the device rule ``c 188:* rwm`` in podman's form, in which a number that is left out stands for
    all."""
    kind, numbers, access = text.split(" ")
    major, minor = (None if each == "*" else int(each) for each in numbers.split(":"))
    rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    return {name: value for name, value in rule.items() if value is not None}


def _capability(name: str) -> str:
    return name if name == "ALL" else f"CAP_{name}"


def _limits(container: Container) -> dict[str, object]:
    memory = {
        "limit": container.memory_bytes,
        "reservation": container.memory_reservation_bytes,
        "swap": container.memory_swap_bytes,
    }
    cpu = {
        "shares": container.cpu_shares,
        "quota": None if container.cpus is None else round(container.cpus * _CPU_PERIOD_US),
        "period": None if container.cpus is None else _CPU_PERIOD_US,
        "cpus": container.cpuset,
    }
    limits: dict[str, dict[str, object]] = {
        "memory": {**memory},
        "cpu": {**cpu},
        "pids": {"limit": container.pids},
    }
    return {name: kept for name, each in limits.items() if (kept := _without_none(each))}


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _unsigned(limit: int) -> int:
    """Return *limit* in podman's form, where -1 means no limit."""
    return 2**64 - 1 if limit == -1 else limit


def _health_check(check: HealthCheck | str | None) -> dict[str, object] | None:
    """Return the check that podman runs periodically; None leaves that to the image."""
    match check:
        case None:
            # An image may bring one of its own: each would be an exec, with writes to the disk.
            return {"Test": ["NONE"]}
        case HealthCheck():
            return {
                "Test": list_check_words(check),
                "Interval": round(check.interval_s * _NS),
                "Timeout": round(check.timeout_s * _NS),
                "Retries": check.retries,
                "StartPeriod": round(check.start_period_s * _NS),
            }
        case _:
            return None


def list_check_words(check: HealthCheck) -> Sequence[str]:
    """Return the command of *check* in podman's form."""
    if check.command is not None:
        return ["CMD", *check.command]
    return ["CMD-SHELL", check.shell or ""]


def _holds(container: Container) -> list[dict[str, object]]:
    """Return the volume for the hold of *container*, if it may hold."""
    if container.max_hold_s is None:
        return []
    return [
        {
            "Name": hold_volume(container.name),
            "Dest": HOLD_DIRECTORY,
            "Options": ["rw", "nosuid", "nodev", "noexec"],
        }
    ]
