"""Every key of Quadlet's sections, in one of three lists, as the flags are (`.flags`).

Most keys are a flag of `podman run`: what is done with the flag is done with the key. The others have a
reader of their own, a remedy, or a reason why they have no meaning here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from . import readers
from .draft import Draft, Reader
from .flags import DONE, MEANINGLESS, REFUSED

__all__ = ["KEYS", "Done", "How", "Meaningless", "Refused", "Verdict"]

How: TypeAlias = Literal["last", "switch", "each", "words", "command", "arguments"]
"""What a key's lines are: the last counts (of a switch, too), each is a value, or each holds words. Of a
command the words of the last count; arguments are flags of `podman run`."""


@attrs.frozen
class Done:
    """A key that is read: how its lines are taken, and the reader of each value."""

    how: How
    reader: Reader


@attrs.frozen
class Refused:
    """A key that no Score can say."""

    remedy: str


@attrs.frozen
class Meaningless:
    """A key that changes nothing here."""

    why: str


Verdict: TypeAlias = Done | Refused | Meaningless

_FLAGS: Final[Mapping[str, tuple[str, How]]] = {
    "AddCapability": ("cap-add", "words"),
    "AddDevice": ("device", "words"),
    "AddHost": ("add-host", "each"),
    "Annotation": ("annotation", "words"),
    "CgroupsMode": ("cgroups", "last"),
    "ContainerName": ("name", "last"),
    "DNS": ("dns", "each"),
    "DNSOption": ("dns-option", "each"),
    "DNSSearch": ("dns-search", "each"),
    "DropCapability": ("cap-drop", "words"),
    "Entrypoint": ("entrypoint", "last"),
    "Environment": ("env", "words"),
    "EnvironmentFile": ("env-file", "words"),
    "EnvironmentHost": ("env-host", "switch"),
    "ExposeHostPort": ("expose", "each"),
    "GIDMap": ("gidmap", "each"),
    "GroupAdd": ("group-add", "each"),
    "HealthCmd": ("health-cmd", "last"),
    "HealthInterval": ("health-interval", "last"),
    "HealthLogDestination": ("health-log-destination", "last"),
    "HealthMaxLogCount": ("health-max-log-count", "last"),
    "HealthMaxLogSize": ("health-max-log-size", "last"),
    "HealthOnFailure": ("health-on-failure", "last"),
    "HealthRetries": ("health-retries", "last"),
    "HealthStartPeriod": ("health-start-period", "last"),
    "HealthStartupCmd": ("health-startup-cmd", "last"),
    "HealthStartupInterval": ("health-startup-interval", "last"),
    "HealthStartupRetries": ("health-startup-retries", "last"),
    "HealthStartupSuccess": ("health-startup-success", "last"),
    "HealthStartupTimeout": ("health-startup-timeout", "last"),
    "HealthTimeout": ("health-timeout", "last"),
    "HostName": ("hostname", "last"),
    "HttpProxy": ("http-proxy", "switch"),
    "IP": ("ip", "last"),
    "IP6": ("ip6", "last"),
    "Label": ("label", "words"),
    "LogDriver": ("log-driver", "last"),
    "LogOpt": ("log-opt", "each"),
    "Memory": ("memory", "last"),
    "Mount": ("mount", "words"),
    "Network": ("network", "each"),
    "NetworkAlias": ("network-alias", "each"),
    "PidsLimit": ("pids-limit", "last"),
    "Pod": ("pod", "last"),
    "PublishPort": ("publish", "each"),
    "Pull": ("pull", "last"),
    "ReadOnly": ("read-only", "switch"),
    "ReadOnlyTmpfs": ("read-only-tmpfs", "switch"),
    "Retry": ("retry", "last"),
    "RetryDelay": ("retry-delay", "last"),
    "Rootfs": ("rootfs", "last"),
    "RunInit": ("init", "switch"),
    "Secret": ("secret", "words"),
    "ShmSize": ("shm-size", "last"),
    "StopSignal": ("stop-signal", "last"),
    "StopTimeout": ("stop-timeout", "last"),
    "SubGIDMap": ("subgidname", "last"),
    "SubUIDMap": ("subuidname", "last"),
    "Sysctl": ("sysctl", "words"),
    "Timezone": ("tz", "last"),
    "Tmpfs": ("tmpfs", "each"),
    "UIDMap": ("uidmap", "each"),
    "Ulimit": ("ulimit", "each"),
    "User": ("user", "last"),
    "UserNS": ("userns", "last"),
    "Volume": ("volume", "each"),
    "WorkingDir": ("workdir", "last"),
}
"""Keys of a container that are a flag of `podman run`."""

_SELINUX = Meaningless("Raspberry Pi OS and Debian have no SELinux")
_PROFILE = Refused(
    "Harmony keeps its own profile, so that nothing in a container becomes root on the device; leave it out"
)
_OWNERS = Refused(REFUSED["uidmap"])
_PODMAN = Refused("podman is started without options of its own; leave it out")
_NAMED = Meaningless(
    "there is no unit of systemd; entries of a Score file wait for each other's ids"
)


def _command(draft: Draft, value: str) -> None:
    """Read one more word of the command."""
    draft.add("command", value)


def _podman_arguments(_: Draft, value: str) -> None:
    raise ValueError(f"{value!r} is no flag of podman run; leave it out, or correct it")


def _no_new_privileges(draft: Draft, value: str) -> None:
    readers.security_option(draft, f"no-new-privileges:{value}")


def _volatile_tmp(draft: Draft, value: str) -> None:
    if value == "true":
        readers.add_tmpfs(draft, "/tmp:size=512M,mode=1777")  # noqa: S108 - in a container


def _notify(draft: Draft, value: str) -> None:
    """Read who tells systemd that the container is up."""
    meant = {"yes": "container", "true": "container", "1": "container", "on": "container"}
    if value.lower() not in {"no", "false", "0", "off"}:
        DONE["sdnotify"](draft, meant.get(value.lower(), value))


def _verdict(flag: str, how: How) -> Verdict:
    if flag in DONE:
        return Done(how, DONE[flag])
    return Refused(REFUSED[flag]) if flag in REFUSED else Meaningless(MEANINGLESS[flag])


_CONTAINER: Final[Mapping[str, Verdict]] = {
    **{key: _verdict(*of_flag) for key, of_flag in _FLAGS.items()},
    "AppArmor": _PROFILE,
    "AutoUpdate": Meaningless("an image is renewed by the next push, which looks up its tag"),
    "ContainersConfModule": _PODMAN,
    "Exec": Done("command", _command),
    "GlobalArgs": _PODMAN,
    "Group": Done("last", readers.keep("group")),
    "Image": Done("last", readers.image),
    "Mask": _PROFILE,
    "NoNewPrivileges": Done("switch", _no_new_privileges),
    "Notify": Done("last", _notify),
    "PodmanArgs": Done("arguments", _podman_arguments),
    "ReloadCmd": Refused("a container is not reloaded; name the files that it reads in `uses`"),
    "ReloadSignal": Refused("a container is not reloaded; name the files that it reads in `uses`"),
    "RemapGid": _OWNERS,
    "RemapUid": _OWNERS,
    "RemapUidSize": _OWNERS,
    "RemapUsers": _OWNERS,
    "SeccompProfile": _PROFILE,
    "SecurityLabelDisable": _SELINUX,
    "SecurityLabelFileType": _SELINUX,
    "SecurityLabelLevel": _SELINUX,
    "SecurityLabelNested": _SELINUX,
    "SecurityLabelType": _SELINUX,
    "ServiceName": _NAMED,
    "StartWithPod": Refused(REFUSED["pod"]),
    "Unmask": _PROFILE,
    "VolatileTmp": Done("switch", _volatile_tmp),
}

_VOLUME_OF_PODMAN = Refused(
    "a volume is a directory that podman keeps, and no other disk; have the device mount the disk, and name "
    "a directory of it by Volume=/PATH:TARGET"
)
_OWNED_BY_IMAGE = Refused(
    "podman gives a new volume to whoever owns the directory in the image; leave it out"
)
_VOLUME: Final[Mapping[str, Verdict]] = {
    "ContainersConfModule": _PODMAN,
    "Copy": Done("switch", readers.heed({"true": ""}, "a new volume has what the image has there")),
    "Device": _VOLUME_OF_PODMAN,
    "Driver": Done("last", readers.heed({"local": ""}, _VOLUME_OF_PODMAN.remedy)),
    "GID": _OWNED_BY_IMAGE,
    "GlobalArgs": _PODMAN,
    "Group": _OWNED_BY_IMAGE,
    "Image": Refused("a volume is no image; name the image by the container"),
    "Label": Done("words", readers.add_label),
    "Options": _VOLUME_OF_PODMAN,
    "PodmanArgs": Refused("say it by a key of this section, or leave it out"),
    "ServiceName": _NAMED,
    "Type": _VOLUME_OF_PODMAN,
    "UID": _OWNED_BY_IMAGE,
    "User": _OWNED_BY_IMAGE,
    "VolumeName": Done("last", readers.name),
}

_NETWORK_OF_PODMAN = Refused("podman chooses it within the subnet; leave it out")
_NO_FIELD = Refused("a network has no field for it; leave it out")
_NETWORK: Final[Mapping[str, Verdict]] = {
    "ContainersConfModule": _PODMAN,
    "DNS": Refused("name servers are those of the device; say it of each container (DNS=)"),
    "DisableDNS": Done(
        "switch", readers.heed({"false": ""}, "names are looked up on every network; leave it out")
    ),
    "Driver": Done(
        "last",
        readers.heed({"bridge": ""}, "a network is a bridge; use Network=host, or leave it out"),
    ),
    "Gateway": _NETWORK_OF_PODMAN,
    "GlobalArgs": _PODMAN,
    "IPAMDriver": _NO_FIELD,
    "IPRange": _NETWORK_OF_PODMAN,
    "IPv6": Done("switch", readers.switch("ipv6")),
    "InterfaceName": _NO_FIELD,
    "Internal": Done("switch", readers.switch("internal")),
    "Label": Done("words", readers.add_label),
    "NetworkDeleteOnStop": Meaningless("a network goes when its Score does"),
    "NetworkName": Done("last", readers.name),
    "Options": _NO_FIELD,
    "PodmanArgs": Refused("say it by a key of this section, or leave it out"),
    "ServiceName": _NAMED,
    "Subnet": Done("each", readers.each("subnets")),
}

_BEGINS = Meaningless("the agent begins once the device has started, and keeps it running")
_PAUSES = Meaningless("what fails is started again after 1 s, 2 s, … 5 min")
_FOR_PEOPLE = Meaningless("a container has no description")
_UNIT: Final[Mapping[str, Verdict]] = {
    "DefaultDependencies": _BEGINS,
    "Description": _FOR_PEOPLE,
    "Documentation": _FOR_PEOPLE,
    "RequiresMountsFor": Meaningless(
        "what it mounts is looked at before it is started (MountMissing)"
    ),
    "StartLimitBurst": _PAUSES,
    "StartLimitIntervalSec": _PAUSES,
}

_RESTARTS = {"no": "no", "always": "always", "on-failure": "on-failure"}
_LIMITS = Meaningless("podman, and the agent's own times, say how long it may start and stop")
_SERVICE: Final[Mapping[str, Verdict]] = {
    "Delegate": _BEGINS,
    "KillMode": _BEGINS,
    "NotifyAccess": _BEGINS,
    "RemainAfterExit": _BEGINS,
    "Restart": Done(
        "last",
        readers.one_of(
            "restart", _RESTARTS, "podman knows always, on-failure and no; write one of them"
        ),
    ),
    "RestartMaxDelaySec": _PAUSES,
    "RestartSec": _PAUSES,
    "RestartSteps": _PAUSES,
    "StandardError": Meaningless("podman keeps the log, for `harmony logs`"),
    "StandardOutput": Meaningless("podman keeps the log, for `harmony logs`"),
    "SyslogIdentifier": Meaningless("podman keeps the log, for `harmony logs`"),
    "TimeoutSec": _LIMITS,
    "TimeoutStartSec": _LIMITS,
    "TimeoutStopSec": _LIMITS,
    "Type": Done(
        "last",
        readers.heed(
            {"notify": ""}, "a container is kept running; what is to run once is a ShellJobScore"
        ),
    ),
}
_INSTALL: Final[Mapping[str, Verdict]] = {
    "RequiredBy": _BEGINS,
    "UpheldBy": _BEGINS,
    "WantedBy": _BEGINS,
}

KEYS: Final[Mapping[str, Mapping[str, Verdict]]] = {
    "Container": _CONTAINER,
    "Volume": _VOLUME,
    "Network": _NETWORK,
    "Quadlet": {"DefaultDependencies": _BEGINS},
    "Unit": _UNIT,
    "Service": _SERVICE,
    "Install": _INSTALL,
}
"""By section. What [Unit], [Service] and [Install] have beside is systemd's own, and refused."""
