"""What this device allows, whoever signed it. Asked by the Stage before anything happens.

Signed is not harmless: whatever the operator's key signs, the agent does not let a Score saw off the
branch that the agent itself sits on, nor hand a container the keys to the whole device. What is only the
system's, the device's owner may allow, in agent.toml.
"""

from __future__ import annotations

from collections.abc import Collection

from harmony_agent.config import JobPolicy
from harmony_core.resources import (
    Container,
    File,
    Job,
    NetworkProfile,
    Resource,
    ResourceId,
    SystemdUnit,
)

from .protected import (
    KERNEL_PATHS,
    NETWORK_PATHS,
    below,
    inside,
    is_of_the_system,
    is_reached_by,
    keeps_running,
    only_keeps_up,
    protected_of_many,
    unit_of,
)

__all__ = ["DevicePolicy"]

AGENT = "harmony-agent."
"""What the agent's own units begin with."""
UNMOUNTABLE = ("/", "/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/usr", "/var", "/root")
UNMOUNTABLE_BELOW = below("/proc", "/sys", "/dev", "/run/podman", "/run/dbus", "/run/systemd")

CONTAINERS_INTERFACES = ("podman", "veth", "cni-", "docker")
"""What the names of those begin with."""


class DevicePolicy:
    """The agent's own things are its own: its configuration, state, unit and programs.

    *allowed* are units, and paths with all below them, that would else be the system's.
    """

    def __init__(
        self, *own_paths: str, jobs: JobPolicy = "none", allowed: Collection[str] = ()
    ) -> None:
        self._own = below(*own_paths)
        self._jobs = jobs
        self._allowed = frozenset(allowed)
        self._allowed_paths = below(*allowed)

    def refusal(self, resource: Resource) -> str | None:
        """Return why *resource* may not be touched; None when it may."""
        match resource:
            case File(path=path):
                why = self._path(path)
            case SystemdUnit(name=name):
                why = self._unit(name, is_kept_up=only_keeps_up(resource))
            case Container():
                why = self._container(resource)
            case NetworkProfile():
                why = self._network(resource)
            case _:
                why = self._paths(type(resource), resource.key)
        return why or self._privileges(resource)

    def removal_refusal(self, resource_id: str, resource_class: type[Resource]) -> str | None:
        """Why what has this id, and is a *resource_class*, may not be taken away; None when it may."""
        _, key = ResourceId.parse(resource_id)
        if issubclass(resource_class, File):
            return self._path(key)
        if issubclass(resource_class, SystemdUnit):
            return self._unit(key, is_kept_up=False)
        return self._paths(resource_class, key)

    def _paths(self, resource_class: type[Resource], key: str) -> str | None:
        """Ask what is made of no files of its own, or of some, where these are; they may be directories."""
        paths = resource_class.paths_of(key)
        if paths is None:
            return _says_nothing(resource_class, "paths_of")
        refusals = (self._path(path) or self._directory(path) for path in paths)
        return next((each for each in refusals if each), None)

    def _privileges(self, resource: Resource) -> str | None:
        """Say which of what *resource* may do is not allowed here: as a job is, so is anything that runs."""
        privileges = resource.privileges
        if privileges is None:
            return _says_nothing(type(resource), "privileges")
        needed = "any" if "run-as-root" in privileges else "confined" if privileges else "none"
        if needed == "none" or self._jobs in {needed, "any"}:
            return None
        if isinstance(resource, Job):
            what = f"runs no {'privileged jobs' if needed == 'any' else 'jobs'}"
        else:
            as_root = " as root" if needed == "any" else ""
            what = f"lets no Score run a program{as_root}, as {resource.id} would"
        return (
            f'this device {what}; to allow it, set jobs = "{needed}" under [policy] in '
            "/etc/harmony/agent.toml on the device, and restart its agent"
        )

    def _path(self, path: str) -> str | None:
        unit = unit_of(path)
        own = inside(path, self._own)
        if own or (unit is not None and unit.startswith(AGENT)):
            return f"{path} belongs to the agent itself ({own or unit}); choose another path"
        if not inside(path, self._allowed_paths) and (why := _why_not_a_file(path, unit)):
            return f"{path} {why}, or {_allow(path)}"
        return None

    def _directory(self, path: str) -> str | None:
        if self._holds_the_agent(path):
            return f"{path} holds what belongs to the agent itself; choose a directory below it"
        if is_of_the_system(path) and not inside(path, self._allowed_paths):
            return (
                f"{path} came with the system, which needs it as it is; choose a directory below it "
                f"for the application, or {_allow(path)}"
            )
        return None

    def _holds_the_agent(self, path: str) -> bool:
        return any(each.startswith(f"{path.rstrip('/')}/") for each in self._own)

    def _unit(self, name: str, *, is_kept_up: bool) -> str | None:
        if name.startswith(AGENT):
            return f"{name} is the agent itself; a Score may not manage it"
        if name in self._allowed:
            return None
        if keeps_running(name):
            return f"{name} keeps this device running; a Score may not manage it; {_allow(name)}"
        if is_reached_by(name) and not is_kept_up:
            return (
                f"this device is reached by {name}; a Score may have it enabled and running, but not "
                f"change, stop or restart it; {_allow(name)}"
            )
        return None

    def _container(self, container: Container) -> str | None:
        for mount in container.mounts:
            if self._is_unmountable(mount.source):
                return (
                    f"mounting {mount.source} into a container would hand it the device; "
                    "mount a directory that belongs to the application"
                )
        return None

    def _is_unmountable(self, source: str) -> bool:
        if source in UNMOUNTABLE or self._holds_the_agent(source):
            return True
        return inside(source, (*UNMOUNTABLE_BELOW, *self._own)) is not None

    def _network(self, profile: NetworkProfile) -> str | None:
        interface = profile.link.interface or ""
        if interface == "lo" or interface.startswith(CONTAINERS_INTERFACES):
            return (
                f"{interface} belongs to the system or to its containers, not to a Score; "
                "name an interface that leads out of the device"
            )
        return None


def _says_nothing(resource_class: type[Resource], what: str) -> str:
    return (
        f"{resource_class.__name__} does not say what it would do to this device, so it is not allowed to; "
        f"update the package it comes from, which has to give it {what}"
    )


def _why_not_a_file(path: str, unit: str | None) -> str | None:
    """Of what part of the system *path* is, and what to do about that."""
    if of := inside(path, KERNEL_PATHS):
        return f"is the system's ({of}), not a place for files; choose another path"
    if of := inside(path, NETWORK_PATHS):
        return (
            f"is of the network ({of}); use a NetworkConfigScore, which takes back what cuts the "
            "device off"
        )
    if unit is not None and (many := protected_of_many(unit)):
        return f"is for {many}; write it for a single unit, as in web.service.d"
    if unit is not None and (keeps_running(unit) or is_reached_by(unit)):
        return f"is of {unit}, which this device needs as it is; leave it to its package"
    return None


def _allow(what: str) -> str:
    return (
        f'to allow it, add "{what}" to allow under [policy] in /etc/harmony/agent.toml on the device, '
        "and restart its agent"
    )
