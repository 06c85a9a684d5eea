"""What a container consists of beside its image, ports and mounts: types of its fields, each with its rules.

What podman would refuse, or leave out, is refused here, with what to write instead.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Final, Literal, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from harmony_core.close_names import did_you_mean
from harmony_core.paths import AbsolutePath
from harmony_core.secret_values import find_words

from ._base import in_words
from ._secret_text import IN_CLEAR, has_secret

__all__ = [
    "Bytes",
    "ContainerDevice",
    "ContainerHostname",
    "ContainerLabels",
    "ContainerSecret",
    "CpuSet",
    "DeviceRule",
    "DnsName",
    "DnsOption",
    "ExtraHosts",
    "GroupName",
    "HealthCheck",
    "IpAddress",
    "LinuxCapability",
    "LogDriver",
    "LogTag",
    "MountPath",
    "RegistryLogin",
    "StopSignal",
    "Sysctls",
    "Timezone",
    "Tmpfs",
    "Ulimit",
    "Ulimits",
    "signal_number",
]


def _plain_mount_path(path: str) -> str:
    if "," in path or ":" in path:
        raise ValueError(
            "',' and ':' have a meaning of their own in mount options; use another path"
        )
    return path


MountPath = Annotated[AbsolutePath, AfterValidator(_plain_mount_path)]
"""A path without ',' and ':'."""

Bytes = Annotated[int, Field(ge=4 * 1024 * 1024)]
"""An amount of memory, in bytes."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ContainerHostname = Annotated[
    str,
    StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})*$", max_length=64),
    in_words("write a host's name of letters, digits and inner hyphens, as in web-1"),
]
"""A host's name, as RFC 1123 has it; Linux takes no more than 64 characters."""
_HOST_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DnsName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})*$|^\.$", max_length=253),
    in_words("write a domain, as in example.org, or . for none"),
]
"""A domain in which names are looked up."""
DnsOption = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9-]+(:[0-9]+)?$", max_length=64),
    in_words("write an option of resolv.conf, as in ndots:2"),
]
"""An option of resolv.conf."""

LogDriver: TypeAlias = Literal["k8s-file", "journald"]
"""Who keeps a container's log, in podman's words."""
# Without {: podman fills in templates.
LogTag = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,63}$"),
    in_words("write at most 64 letters, digits and _.:/@-, as in shop/web"),
]
"""What the journal calls a container."""

GroupName = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})$"),
    in_words('write the name of a group of the image, or its number in quotes, as in "44"'),
]
"""A group of the image, by its name, or by its number in decimal."""

CAPABILITIES: Final = frozenset(
    [
        *("AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF"),
        *("CHECKPOINT_RESTORE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID"),
        *("IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN"),
        *("MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW"),
        *("PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT"),
        *("SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
    ]
)
"""See capabilities(7)."""


def _known_capability(name: str) -> str:
    if name not in CAPABILITIES | {"ALL"}:
        hint = did_you_mean(name.upper().removeprefix("CAP_"), CAPABILITIES)
        raise ValueError(
            f"is no capability of Linux{hint}; write its name without CAP_, as in NET_ADMIN, or ALL"
        )
    return name


LinuxCapability = Annotated[str, AfterValidator(_known_capability)]
"""A capability of Linux without ``CAP_``, such as ``NET_ADMIN``; or ``ALL``."""

DeviceRule = Annotated[
    str,
    StringConstraints(pattern=r"^[abc] ([0-9]{1,7}|\*):([0-9]{1,7}|\*) [rwm]{1,3}$"),
    in_words(
        "write a type (c, b or a for both), the numbers of the devices and what is allowed, "
        'as in "c 188:* rwm"'
    ),
]
"""Devices by their numbers, as the kernel's control groups have it."""


def _ascending(cpus: str) -> str:
    for part in cpus.split(","):
        first, dash, last = part.partition("-")
        if dash and int(first) > int(last):
            raise ValueError(f"{part} counts down; write {last}-{first}")
    return cpus


CpuSet = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"),
    in_words('write the numbers of processors in quotes, as in "0-2" or "0,3"'),
    AfterValidator(_ascending),
]
"""Numbers of processors."""

Timezone = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"),
    in_words("write a time zone, as in Europe/Berlin, or local for the device's own"),
]
"""A time zone, or ``local``."""

_SIGNALS: Final = {
    name: number
    for number, name in enumerate(
        [
            *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV"),
            *("USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN"),
            *("TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"),
        ],
        1,
    )
}
"""Linux's, on every processor that a Pi has: this may be read on a machine with others."""
_RTMIN: Final = 34
_SIGNALS_MOST: Final = 64
_REAL_TIME: Final = re.compile(r"RTMIN(?:\+([0-9]{1,2}))?")


def signal_number(name: str) -> int | None:
    """Return the number of the signal *name*, such as SIGINT, INT, 2 or SIGRTMIN+3; None where none is."""
    bare = name.removeprefix("SIG")
    if (found := _REAL_TIME.fullmatch(bare)) is not None:
        number = _RTMIN + int(found[1] or 0)
    elif name.isascii() and name.isdecimal():
        number = int(name)
    else:
        number = _SIGNALS.get(bare, 0)
    return number if 0 < number <= _SIGNALS_MOST else None


def _known_signal(name: str) -> str:
    if signal_number(name) is None:
        raise ValueError("is no signal of Linux; write one as in SIGINT or SIGRTMIN+3")
    return name


StopSignal = Annotated[str, AfterValidator(_known_signal)]
"""A signal of Linux, by its name or number."""


def _own_labels(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if not name or not name.isprintable() or "=" in name or len(name) > 256:
            raise ValueError(f"{name!r} is no label's name; write letters, digits and .-_/")
        if name.startswith("harmony."):
            raise ValueError(
                f"{name} begins with harmony., by which Harmony knows its own; choose another name"
            )
    return labels


ContainerLabels = Annotated[dict[str, str], AfterValidator(_own_labels)]
"""Labels by name, none of which is Harmony's own."""

_NAMESPACED: Final = re.compile(r"(?:net|fs\.mqueue)\.[a-z0-9_./-]+|kernel\.(?:msg|sem|shm)[a-z_]*")


def _own_sysctls(sysctls: dict[str, str]) -> dict[str, str]:
    for name, value in sysctls.items():
        if not _NAMESPACED.fullmatch(name):
            raise ValueError(
                f"{name} is the whole device's: a container has net.*, fs.mqueue.*, kernel.msg*, "
                "kernel.sem and kernel.shm* of its own; use a SysctlScore"
            )
        if not value or not value.isprintable():
            raise ValueError(f"{name} needs a value in one line")
    return sysctls


Sysctls = Annotated[dict[str, str], AfterValidator(_own_sysctls)]
"""Settings of the kernel that each container has of its own, by name."""


def _plain_address(address: str) -> str:
    try:
        ip_address(address)
    except ValueError:
        raise ValueError("write an IP address, as in 192.0.2.1") from None
    return address


IpAddress = Annotated[str, AfterValidator(_plain_address)]
"""An IPv4 or IPv6 address."""


def _plain_host_address(address: str) -> str:
    return address if address == "host-gateway" else _plain_address(address)


HostName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_HOST_LABEL}(?:\.{_HOST_LABEL})*$", max_length=253),
    in_words("write a host's name of letters, digits, _ and inner hyphens, as in my_db"),
]
"""A name of /etc/hosts, which takes an underscore, too."""
ExtraHosts = Annotated[
    dict[HostName, Annotated[str, AfterValidator(_plain_host_address)]],
    Field(),
]
"""Addresses by name; ``host-gateway`` is the device's own, as the container reaches it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ContainerDevice(_Part):
    """A device of the Pi that the container may use: a node below /dev, or all of a directory there.

    A link, such as one below /dev/serial/by-id, is followed when the container is made. When it leads to
    another node later, as after plugging in anew, the container is made anew.
    """

    source: AbsolutePath
    """The device's path on the Pi, below /dev."""
    target: MountPath | None = None
    """Its path in the container; the same unless set."""
    access: Literal["r", "rw", "rwm"] = "rw"
    """Whether it may be read, written, and made anew (mknod)."""

    @property
    def inside(self) -> str:
        """Its path in the container."""
        return self.target or self.source

    @model_validator(mode="after")
    def _is_below_dev(self) -> Self:
        if not self.source.startswith("/dev/"):
            raise ValueError(
                f"source: {self.source} is not below /dev; name a device there, or use mounts"
            )
        if self.target is None and (":" in self.source or "," in self.source):
            raise ValueError(
                "target: podman takes no ':' and ',' in a path in the container; set target, as in "
                "/dev/ttyUSB0"
            )
        return self


_OCTAL: Final = re.compile(r"[0-7]{3,4}")
_OCTAL_READ_AS_DECIMAL: Final = frozenset(
    {400, 440, 444, 600, 640, 644, 700, 711, 750, 755, 770, 775, 777}
    | {1700, 1750, 1755, 1770, 1775, 1777}
)
"""What YAML makes of 0777 without quotes, or of 1777."""


def _octal_mode(value: object) -> object:
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        return int(value, 8)
    if isinstance(value, str) or (type(value) is int and value in _OCTAL_READ_AS_DECIMAL):
        raise ValueError('write three or four octal digits in quotes, as in "1777"')
    return value


OctalMode = Annotated[
    int,
    Field(ge=0, le=0o7777),
    BeforeValidator(_octal_mode),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-7]{3,4}$", "examples": ["1777"]}),
]
"""Permission bits with the sticky one: ``"1777"`` in YAML and JSON, also 0o1777 in Python."""


class Tmpfs(_Part):
    """A directory in memory that is empty at each start."""

    target: MountPath
    """Where the container sees it."""
    size_bytes: Annotated[int, Field(ge=4096)] | None = None
    """How much it may hold, in bytes; half of the device's memory unless set."""
    mode: OctalMode | None = None
    """Its permissions in octal; those that the image has there, or "1777", unless set."""


_Id = Annotated[int, Field(ge=0, lt=2**32 - 1)]


class ContainerSecret(_Part):
    """A secret that the container sees as a file, which no image, volume or `podman inspect` has."""

    content: str
    """What is in the file: ``${secret.NAME}``, alone or within a text."""
    target: MountPath
    """Where the container sees it, as in /run/secrets/db."""
    uid: _Id = 0
    """The number of the user whose it is in the container."""
    gid: _Id = 0
    """The number of the group whose it is in the container."""
    mode: OctalMode = 0o444
    """Its permissions in octal; all in the container may read it unless set."""

    @model_validator(mode="after")
    def _is_secret(self) -> Self:
        if find_words(self.target):
            raise ValueError("target: a path cannot have a secret; write the path itself")
        if not has_secret(self.content):
            raise ValueError(
                "content: there is no secret in it, and all who may read the manifest can read it; write "
                "${secret.NAME}, or, for what is none, a FileScore and mounts"
            )
        return self


class RegistryLogin(_Part):
    """With what the image is asked for at its registry: by the device for each pull, which keeps no file for
    it, and by who pushes a tag, with a secret that this operator has."""

    username: Annotated[str, StringConstraints(pattern=r"^[^:\x00-\x1f]{1,256}$")]
    """Who logs in."""
    password: Annotated[str, Field(min_length=1)]
    """The password or token: ``${secret.NAME}``."""

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, given: object) -> object:
        found = given
        fields = cast("dict[object, object]", found) if isinstance(found, dict) else {}
        if not isinstance(fields.get("password", ""), str):
            # Of the field itself it would be told with what is there, which may be a password.
            raise ValueError("password: must be text; write ${secret.NAME}")  # noqa: TRY004 - pydantic's way
        return given

    @model_validator(mode="after")
    def _is_secret(self) -> Self:
        if find_words(self.username):
            raise ValueError("username: it cannot be a secret; write the name itself")
        if not has_secret(self.password):
            raise ValueError(f"password: {IN_CLEAR}")
        return self


_Limit = Annotated[int, Field(ge=-1, le=2**63 - 1)]
UlimitName: TypeAlias = Literal[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


class Ulimit(_Part):
    """A limit of each process: see getrlimit(2). -1 is none."""

    soft: _Limit
    """What is in force; a process may raise it up to hard."""
    hard: _Limit
    """The most that a process may raise it to."""

    @model_validator(mode="after")
    def _soft_is_lower(self) -> Self:
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise ValueError(f"soft: {self.soft} is more than hard, {self.hard}; lower it")
        return self


Ulimits = dict[UlimitName, Ulimit]
"""Limits of each process, by name."""


class HealthCheck(_Part):
    """A command that podman runs in the container now and then: it is healthy where that exits with 0."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The program and its arguments; this, or shell."""
    shell: Annotated[str, Field(min_length=1)] | None = None
    """A line for the image's /bin/sh; this, or command."""
    interval_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    """From one to the next, in seconds. Each costs a process, and a write to the disk."""
    timeout_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """How long one may take, in seconds."""
    retries: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many in a row have to fail for it to be unhealthy."""
    start_period_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """For how long after its start failures do not count, in seconds."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.command is None) == (self.shell is None):
            raise ValueError("write either command, as a list, or shell, as one line")
        return self
