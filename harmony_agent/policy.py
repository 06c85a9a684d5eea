"""What this device allows, whoever signed it. Asked by the Stage before anything happens.

Signed is not harmless: whatever the operator's key signs, the agent does not let a Score saw off the
branch that the agent itself sits on, nor hand a container the keys to the whole device.
"""

from __future__ import annotations

from harmony_core.resources import (
    Container,
    Directory,
    File,
    Job,
    NetworkProfile,
    Resource,
    SystemdUnit,
)

from .config import JobPolicy

__all__ = ["DevicePolicy"]

PROTECTED_UNITS = frozenset(
    {"harmony-agent", "dbus", "dbus-broker", "systemd-journald", "systemd-logind", "init"}
)
UNMOUNTABLE = ("/", "/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/usr", "/var", "/root")

CONTAINERS_INTERFACES = ("podman", "veth", "cni-", "docker")
"""What the names of those begin with."""


def _below(*directories: str) -> tuple[str, ...]:
    """What a path in one of *directories*, or the directory itself, with a slash at its end begins with."""
    return tuple(f"{directory.rstrip('/')}/" for directory in directories)


PROTECTED_PATHS = _below("/proc", "/sys", "/dev", "/run/systemd", "/run/dbus", "/boot/firmware")
UNMOUNTABLE_BELOW = _below("/proc", "/sys", "/dev", "/run/podman", "/run/dbus", "/run/systemd")


class DevicePolicy:
    """The agent's own things are its own: its configuration, state, unit and programs."""

    def __init__(self, *own_paths: str, jobs: JobPolicy = "none") -> None:
        self._own = _below(*own_paths)
        self._jobs = jobs

    def refusal(self, resource: Resource) -> str | None:
        """Why *resource* may not be touched; None when it may."""
        match resource:
            case File(path=path) | Directory(path=path):
                return self._file(path)
            case SystemdUnit(name=name):
                return self._unit(name)
            case Container():
                return self._container(resource)
            case NetworkProfile():
                return self._network(resource)
            case Job():
                return self._job(resource)
            case _:
                return None

    def _file(self, path: str) -> str | None:
        if inside := _inside(path, self._own):
            return f"{path} belongs to the agent itself ({inside}); choose another path"
        if inside := _inside(path, PROTECTED_PATHS):
            return f"{path} is the system's ({inside}), not a place for files; choose another path"
        return None

    def _unit(self, name: str) -> str | None:
        if name.rpartition(".")[0] in PROTECTED_UNITS:
            return f"{name} keeps the device or its agent running; a Score may not manage it"
        return None

    def _container(self, container: Container) -> str | None:
        for mount in container.mounts:
            source = mount.source
            if source in UNMOUNTABLE or _inside(source, (*UNMOUNTABLE_BELOW, *self._own)):
                return (
                    f"mounting {source} into a container would hand it the device; "
                    "mount a directory that belongs to the application"
                )
        return None

    def _job(self, job: Job) -> str | None:
        needed = "any" if job.privileged else "confined"
        if self._jobs in {needed, "any"}:
            return None
        what = "privileged jobs" if job.privileged else "jobs"
        return (
            f"this device runs no {what}; to allow it, set jobs = {needed!r} under [policy] in "
            "/etc/harmony/agent.toml on the device, and restart its agent"
        ).replace("'", '"')

    def _network(self, profile: NetworkProfile) -> str | None:
        interface = profile.link.interface or ""
        if interface == "lo" or interface.startswith(CONTAINERS_INTERFACES):
            return (
                f"{interface} belongs to the system or to its containers, not to a Score; "
                "name an interface that leads out of the device"
            )
        return None


def _inside(path: str, below: tuple[str, ...]) -> str | None:
    if not f"{path}/".startswith(below):
        return None
    return next(each.rstrip("/") for each in below if f"{path}/".startswith(each))
