"""A container: an image, run with these ports, mounts and environment."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from itertools import combinations
from typing import Annotated, ClassVar, Literal, Self

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from harmony_core.claims import collide, tree_claims
from harmony_core.images import ImageRef, parse_image
from harmony_core.paths import AbsolutePath
from harmony_core.secret_values import find_words_within
from harmony_core.steps import Created, KeptVolume, Pulled, Recreated, Renamed, Started, Step

from ._base import Privilege, Resource, State, in_words
from .asset import ImageBlob
from .container_network import NetworkAttachment
from .container_parts import (
    Bytes,
    ContainerDevice,
    ContainerHostname,
    ContainerLabels,
    ContainerSecret,
    CpuSet,
    DeviceRule,
    DnsName,
    DnsOption,
    ExtraHosts,
    GroupName,
    HealthCheck,
    IpAddress,
    LinuxCapability,
    LogDriver,
    LogTag,
    MountPath,
    RegistryLogin,
    StopSignal,
    Sysctls,
    Timezone,
    Tmpfs,
    Ulimit,
    UlimitName,
    Ulimits,
)
from .probes import Port, Probe, Seconds
from .volume import VolumeMount

__all__ = [
    "HOLD_DIRECTORY",
    "HOLD_MOST_S",
    "Completed",
    "Container",
    "ContainerFields",
    "ContainerName",
    "ContainerState",
    "ContainerUser",
    "Environment",
    "Exited",
    "Mount",
    "PublishedPort",
    "Running",
    "Starting",
]

HOLD_DIRECTORY = "/run/harmony-hold"
"""Where a container that may hold (`harmony_core.holds`) finds its directory."""
HOLD_MOST_S = 7 * 86_400
_LABEL_MOST = 63
_BLOBS_MOST = 256
_LOG_BYTES = 1024 * 1024

ContainerName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$"),
    in_words("write a name of letters, digits and _.-, as in web-1"),
]

ContainerUser = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})(:([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9}))?$"
    ),
    in_words(
        "write a user's name or number in quotes, and where needed a group's after a colon, "
        'as in www-data or "1000:1000"'
    ),
]
"""A user of the image, and where it is not that user's own, a group: as names, or numbers in decimal."""

_PRIVILEGED_ENVIRONMENT = ("LD_",)
# As podman, Docker and images take them: discovery.type, spring-profile.
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def _plain_environment(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not an environment variable's name; write letters, digits and _.-, "
                "and begin with a letter or _"
            )
        if name.startswith(_PRIVILEGED_ENVIRONMENT):
            raise ValueError(
                f"{name} would change how programs are loaded; build it into the image"
            )
        if "\0" in value:
            raise ValueError(f"{name} has a NUL byte")
    return environment


Environment = Annotated[dict[str, str], AfterValidator(_plain_environment)]
"""Environment variables by name."""


def _is(address: str, what: Literal["is_loopback", "is_unspecified"]) -> bool:
    try:
        return bool(getattr(ip_address(address), what))
    except ValueError:
        return False  # podman says so


class PublishedPort(BaseModel):
    """A port of the device that leads into the container."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    host: Port
    """The port of the device."""
    container: Port
    """The port in the container."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """tcp or udp."""
    address: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F:.]{0,45}$")] = ""
    """The device's address to listen on; empty is all its IPv4 addresses, and ``::`` all its IPv6 ones."""

    @property
    def is_ipv6(self) -> bool:
        """Whether it is published on IPv6: then the container needs a network that has it."""
        return ":" in self.address

    @property
    def is_on_all(self) -> bool:
        """Whether it is published on all addresses of its kind."""
        return not self.address or _is(self.address, "is_unspecified")

    @model_validator(mode="after")
    def _is_reached(self) -> Self:
        if self.is_ipv6 and _is(self.address, "is_loopback"):
            raise ValueError(
                "address: podman listens on ::1, but nothing that is sent there reaches the container; "
                "publish on 127.0.0.1, or on ::"
            )
        return self


class Mount(BaseModel):
    """A path of the device, seen inside the container."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    source: MountPath
    """The path on the device."""
    target: MountPath
    """The path in the container."""
    read_only: bool = True
    """Whether the container may only read it."""
    live: bool = False
    """Whether the container may go on with an older one when the source is replaced. Without it, a file
    that changes, and whatever else takes the source's place, makes the container anew."""
    propagation: Literal["rprivate", "rslave", "rshared"] = "rprivate"
    """Whether what is mounted below it later on is seen on the other side: not at all, what the device
    mounts in the container (rslave), or also what the container mounts on the device (rshared)."""


class ContainerFields(BaseModel):
    """What is said of a container, by a `Container` and by a Score of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: ContainerName = Field(description="The container's name, the only one of that name.")
    image: ImageRef = Field(
        description="With its registry: docker.io/library/nginx:1.29. "
        "A tag is resolved to a digest when this is pushed."
    )
    image_blobs: Annotated[tuple[ImageBlob, ...], Field(max_length=_BLOBS_MOST)] = Field(
        default=(),
        exclude_if=lambda given: not given,
        description="What the image consists of, where it comes from an archive and not from a registry: "
        "`image_from` writes it, and image. The device fetches what podman has not.",
    )
    login: RegistryLogin | None = Field(
        default=None,
        description="With what the image is asked for at its registry, by the device, and by who pushes this "
        "or makes a bundle. What is here already is not fetched again for another login.",
    )
    command: tuple[str, ...] = Field(
        default=(), description="Arguments; the image's own when there are none."
    )
    entrypoint: tuple[str, ...] | None = Field(
        default=None,
        description="The program, with arguments before those of command; the image's own unless set, and "
        "none where this is empty.",
    )
    environment: Environment = Field(
        default_factory=dict,
        description="Environment variables by name. With ${secret.NAME} in its value, one is a secret, which "
        "`podman inspect` does not show.",
    )
    ports: tuple[PublishedPort, ...] = Field(
        default=(), description="Ports of the device that lead into the container."
    )
    mounts: tuple[Mount, ...] = Field(
        default=(),
        description="Files and directories of the device that it sees, below directories of root's. It is "
        "made anew when another takes the place of one, or a read_only file changes, unless that is live. "
        "What is in a directory is not followed: name such files in uses.",
    )
    volumes: tuple[VolumeMount, ...] = Field(
        default=(),
        description="Volumes that it sees, by name. Each has to be there: a VolumeScore makes it.",
    )
    tmpfs: tuple[Tmpfs, ...] = Field(
        default=(), description="Directories in memory, empty at each start."
    )
    secrets: tuple[ContainerSecret, ...] = Field(
        default=(),
        description="Secrets that it sees as files. It is made anew when one has another value.",
    )
    uses: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Files that it reads when it starts, each by its real path: it is made anew when one "
        "changes.",
    )
    user: ContainerUser | None = Field(
        default=None,
        description="The user who runs in it, or USER:GROUP; the image's own unless set.",
    )
    groups: tuple[GroupName, ...] = Field(
        default=(), description="Further groups of that user, by name or number."
    )
    working_directory: AbsolutePath | None = Field(
        default=None,
        description="Where the program begins; the image's own unless set. It must be there.",
    )
    hostname: ContainerHostname | None = Field(
        default=None, description="What the container calls itself; podman's id of it unless set."
    )
    labels: ContainerLabels = Field(
        default_factory=dict,
        description="Labels for other programs, by name; none may begin with harmony.",
    )
    read_only: bool = Field(
        default=False, description="Whether its own file system refuses writes."
    )
    init: bool = Field(
        default=False,
        description="Whether a small program (catatonit) runs as its first process, which takes in what "
        "others leave behind.",
    )
    add_capabilities: tuple[LinuxCapability, ...] = Field(
        default=(), description="Capabilities of Linux beside podman's own few, as in NET_ADMIN."
    )
    drop_capabilities: tuple[LinuxCapability, ...] = Field(
        default=(), description="Capabilities of Linux that it is not to have; ALL for none."
    )
    no_new_privileges: bool = Field(
        default=False, description="Whether nothing in it gains privileges, as by sudo."
    )
    privileged: bool = Field(
        default=False,
        description="Whether it has all capabilities and devices. Such a container is root on the device.",
    )
    devices: tuple[ContainerDevice, ...] = Field(
        default=(),
        description="Devices that it may use. It is made anew when another takes the place of one.",
    )
    device_rules: tuple[DeviceRule, ...] = Field(
        default=(),
        description="Devices that it may use once they are there, by their numbers: c 188:* rwm.",
    )
    memory_bytes: Bytes | None = Field(
        default=None, description="How much memory it may take, in bytes."
    )
    memory_reservation_bytes: Bytes | None = Field(
        default=None,
        description="How much memory it is pushed back to where memory is short, in bytes.",
    )
    memory_swap_bytes: Annotated[int, Field(ge=-1)] | None = Field(
        default=None,
        description="How much memory and swap together it may take, in bytes; -1 for no limit.",
    )
    shm_bytes: Annotated[int, Field(ge=4096)] | None = Field(
        default=None, description="How large its /dev/shm is, in bytes."
    )
    cpus: Annotated[float, Field(ge=0.01, le=1024)] | None = Field(
        default=None, description="How many processors it may take: 1.5 is one and a half."
    )
    cpu_shares: Annotated[int, Field(ge=2, le=262_144)] | None = Field(
        default=None,
        description="Its share where processors are short: others have 1024 each.",
    )
    cpuset: CpuSet | None = Field(
        default=None, description="Which processors it may run on, as in 0-2."
    )
    pids: Annotated[int, Field(ge=1, le=2**22)] | None = Field(
        default=None, description="How many processes it may have; podman allows 2048 unless set."
    )
    ulimits: Ulimits = Field(
        default_factory=dict[UlimitName, Ulimit],
        description="Limits of each process, by name, as in nofile.",
    )
    sysctls: Sysctls = Field(
        default_factory=dict,
        description="Settings of the kernel that are the container's own, such as net.core.somaxconn.",
    )
    network: Literal["bridge", "host", "none"] = Field(
        default="bridge",
        description="Which network it is in: podman's (bridge), the device's own (host), or none.",
    )
    networks: tuple[NetworkAttachment, ...] = Field(
        default=(),
        description="Networks that it is on, by name; podman's own unless set. Each has to be there: a "
        "ContainerNetworkScore makes it. Containers on one find each other by name and aliases.",
    )
    dns: tuple[IpAddress, ...] = Field(
        default=(), description="Name servers; the device's own unless set."
    )
    dns_search: tuple[DnsName, ...] = Field(
        default=(), description="Domains in which names are looked up."
    )
    dns_options: tuple[DnsOption, ...] = Field(
        default=(), description="Options of resolv.conf, as in ndots:2."
    )
    extra_hosts: ExtraHosts = Field(
        default_factory=dict,
        description="Lines of its /etc/hosts: addresses by name. host-gateway is the device itself.",
    )
    pid: Literal["private", "host"] = Field(
        default="private", description="Whether it sees the processes of the device (host)."
    )
    ipc: Literal["private", "host", "shareable"] = Field(
        default="private",
        description="Whether it shares memory with the device (host), or may do so with other containers "
        "(shareable).",
    )
    timezone: Timezone | None = Field(
        default=None,
        description="Its time zone, or local for the device's at the time that it is made; UTC unless set.",
    )
    log_driver: LogDriver = Field(
        default="k8s-file",
        exclude_if=lambda given: given == "k8s-file",
        description="Who keeps its log: podman in a file that goes with the container (k8s-file), or the "
        "device's journal (journald), within its own limits.",
    )
    log_tag: LogTag | None = Field(
        default=None,
        exclude_if=lambda given: given is None,
        description="What the journal calls it (SYSLOG_IDENTIFIER); its name unless set. With journald.",
    )
    log_bytes: Annotated[int, Field(ge=64 * 1024)] = Field(
        default=_LOG_BYTES,
        description="At how many bytes its log begins anew. With k8s-file.",
    )
    restart: Literal["always", "on-failure", "no"] = Field(
        default="always", description="When podman starts it again by itself."
    )
    runs: Literal["always", "once"] = Field(
        default="always",
        description="Whether it is to run for ever (always), or may end (once): then it is in order while it "
        "runs, and once it has ended with 0, and runs again only when anything of this changes.",
    )
    stop_signal: StopSignal | None = Field(
        default=None, description="What asks it to stop, as in SIGINT; the image's own unless set."
    )
    stop_timeout_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=10, description="How long it may take to stop before it is killed, in seconds."
    )
    healthcheck: HealthCheck | Literal["image"] | None = Field(
        default=None,
        description="A command that podman runs in it now and then; while it fails, the container is not "
        "ready. image for the image's own. None unless set.",
    )
    ready: Probe | None = Field(
        default=None, description="How to ask whether it serves: an HTTP or a TCP probe."
    )
    settle_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=1.0, description="How long it must stay up to count as started, in seconds."
    )
    pull_timeout_s: Seconds = Field(
        default=900.0,
        description="How long nothing more may come of an image that is fetched, in seconds.",
    )
    max_hold_s: Annotated[int, Field(ge=1, le=HOLD_MOST_S)] | None = Field(
        default=None,
        description="For how many seconds what runs in it may put off changes, by a file "
        "/run/harmony-hold/hold.json; not at all unless set.",
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the container sees what is not its image's."""
        return tuple(target for _, target in self.targets_by_field())

    def targets_by_field(self) -> Iterator[tuple[str, str]]:
        """Yield each target with the field that it is from."""
        yield from (("mounts", each.target) for each in self.mounts)
        yield from (("volumes", each.target) for each in self.volumes)
        yield from (("tmpfs", each.target) for each in self.tmpfs)
        yield from (("secrets", each.target) for each in self.secrets)
        yield from (("devices", each.inside) for each in self.devices)

    @model_validator(mode="after")
    def _ports_and_targets_are_distinct(self) -> Self:
        if any(collide(_claim(a), _claim(b)) for a, b in combinations(self.ports, 2)):
            raise ValueError("ports: one host port is published twice")
        if self.max_hold_s and HOLD_DIRECTORY in self.targets:
            raise ValueError(
                f"mounts: {HOLD_DIRECTORY} is where it puts its holds, since max_hold_s is set"
            )
        seen: set[str] = set()
        for field, target in self.targets_by_field():
            if target in seen:
                raise ValueError(
                    f"{field}: {target} is the target of something else, too; give one another target"
                )
            seen.add(target)
        for written in (mount.source for mount in self.mounts if not mount.read_only):
            for source in (mount.source for mount in self.mounts):
                if source.startswith(f"{written}/"):
                    raise ValueError(
                        f"mounts: {source} lies in {written}, which the container may write, so it could "
                        f"put a link to anything there; mount {written} alone, or move {source} out of it"
                    )
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        """Refuse what podman refuses only at the start of the container, or leaves out silently."""
        problems = (
            *_image_problems(self),
            *_network_problems(self),
            *_lookup_problems(self),
            *_ipc_problems(self),
            *_run_problems(self),
            *_log_problems(self),
            *_privilege_problems(self),
            *_memory_problems(self),
            *_place_problems(self),
        )
        if problems:
            raise ValueError(problems[0])
        return self


class Container(ContainerFields, Resource):
    """A container of this name runs this image in this way, and starts again when it or the device does.

    One whose specification has changed is made anew; one that is right is untouched. Which image a tag
    stands for is decided when the Score is pushed; a tag that moves later is not a change.
    """

    resource_type: ClassVar[str] = "container"
    secret_fields: ClassVar[frozenset[str]] = frozenset({"environment", "login", "secrets"})

    @property
    def key(self) -> str:
        return self.name

    def find_secret_words(self) -> frozenset[str]:
        return find_words_within((self.environment, self.login, self.secrets))

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    def preview_steps(
        self,
        steps: tuple[Step, ...],
        before: State | None,  # noqa: ARG002
        rewritten: Collection[str],
    ) -> tuple[Step, ...]:
        read = {*self.uses, *(mount.source for mount in self.mounts if not mount.live)}
        changed = read & set(rewritten)
        if not changed or Created() in steps:
            return steps
        changed.update(*(each.fields for each in steps if isinstance(each, Recreated)))
        first = (each for each in steps if isinstance(each, Renamed | Pulled))
        kept = (each for each in steps if isinstance(each, KeptVolume))
        return (*first, Recreated(fields=changed), Started(), *kept)

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset(
            {
                *map(_claim, self.ports),
                *(each for mount in self.mounts for each in _tree_claims(mount)),
                *_address_claims(self.networks),
            }
        )


_KERNELS = frozenset({"/dev", "/proc", "/sys"})
"""Where a container finds what the kernel tells it; a tree of the device's may take the place of two."""


def _place_problems(fields: ContainerFields) -> Iterator[str]:
    for field, target in fields.targets_by_field():
        taken = _KERNELS - {"/dev", "/sys"} if field == "mounts" else _KERNELS
        if target in taken or target.startswith("/proc/"):
            yield f"{field}: no program runs with something else at {target}; choose another target"


def _image_problems(fields: ContainerFields) -> Iterator[str]:
    if not fields.image_blobs:
        return
    image = parse_image(fields.image)
    if image.registry != "localhost":
        yield (
            f"image_blobs: an image of {image.registry} comes from there; have `harmony` write both, with "
            "image_from, or remove image_blobs"
        )
    if image.digest not in {each.digest for each in fields.image_blobs}:
        yield (
            "image_blobs: they are another image's, since none of them has the digest that image names; "
            "have `harmony` write both, with image_from"
        )
    if fields.login is not None:
        yield "login: what comes from an archive is fetched from no registry; remove login"


def _network_problems(fields: ContainerFields) -> Iterator[str]:
    names = [each.network for each in fields.networks]
    if len(set(names)) != len(names):
        yield "networks: one network is named twice; put all aliases into one entry"
    if names and fields.network != "bridge":
        yield f"networks: with network: {fields.network} it is on no other; remove one of them"
    match fields.network:
        case "host":
            if fields.ports:
                yield (
                    "ports: in the device's own network (host) nothing is published: what it listens on is "
                    "the device's; remove ports"
                )
            if any(name.startswith("net.") for name in fields.sysctls):
                yield "sysctls: with network: host, net.* is the device's own; use a SysctlScore"
        case "none":
            if fields.ports:
                yield "ports: without a network nothing is published; remove ports, or network"
            if fields.dns or fields.dns_search or fields.dns_options:
                yield "dns: without a network no names are looked up; remove dns, or network"
        case "bridge":
            pass


def _lookup_problems(fields: ContainerFields) -> Iterator[str]:
    labels = fields.name.split(".")
    if fields.networks and not all(0 < len(each) <= _LABEL_MOST for each in labels):
        yield (
            f"name: others on its networks cannot look up {fields.name}, since DNS takes 1 to {_LABEL_MOST} "
            "characters between dots; choose another name"
        )


def _ipc_problems(fields: ContainerFields) -> Iterator[str]:
    if fields.ipc != "host":
        return
    if not all(name.startswith("net.") for name in fields.sysctls):
        yield "sysctls: with ipc: host, fs.mqueue.* and kernel.* are the device's own; use a SysctlScore"
    if fields.shm_bytes is not None:
        yield "shm_bytes: with ipc: host, /dev/shm is the device's own; remove one of them"


def _run_problems(fields: ContainerFields) -> Iterator[str]:
    if fields.runs == "once" and fields.restart == "always":
        yield (
            "restart: what runs once is not started again when it has ended; write no, or on-failure to have "
            "podman try again at once"
        )


def _log_problems(fields: ContainerFields) -> Iterator[str]:
    if fields.log_driver == "journald" and fields.log_bytes != _LOG_BYTES:
        yield (
            "log_bytes: the journal has limits of its own, for all that write to it (SystemMaxUse= in "
            "journald.conf(5)); remove log_bytes, or log_driver"
        )
    if fields.log_tag is not None and fields.log_driver != "journald":
        yield "log_tag: only the journal has it; write log_driver: journald, or remove log_tag"


def _privilege_problems(fields: ContainerFields) -> Iterator[str]:
    if both := sorted({*fields.add_capabilities} & {*fields.drop_capabilities}):
        yield f"drop_capabilities: {both[0]} is in add_capabilities, too; remove it from one of them"
    if fields.privileged and fields.drop_capabilities:
        yield (
            "drop_capabilities: what is privileged has all capabilities; remove privileged, and name what "
            "is needed in add_capabilities"
        )
    if fields.privileged and any(each.inside != each.source for each in fields.devices):
        yield (
            "devices: what is privileged sees every device at its own path; remove target, or privileged"
        )


def _memory_problems(fields: ContainerFields) -> Iterator[str]:
    limit, both = fields.memory_bytes, fields.memory_swap_bytes
    if both is not None and limit is None:
        yield "memory_swap_bytes: it is memory and swap together; set memory_bytes, too"
    if both is not None and limit is not None and -1 < both < limit:
        yield (
            f"memory_swap_bytes: it is memory and swap together, so no less than memory_bytes, {limit}; "
            "raise it, or write -1 for no limit"
        )
    if limit is not None and (fields.memory_reservation_bytes or 0) > limit:
        yield f"memory_reservation_bytes: it is more than memory_bytes, {limit}; lower it"


def _address_claims(networks: Collection[NetworkAttachment]) -> Iterator[str]:
    """Yield the addresses that only one container can have."""
    for each in networks:
        if each.address is not None:
            yield f"container-address:{each.network}/{each.address}"


def _claim(port: PublishedPort) -> str:
    at = f"[{port.address}]:" if port.address else ""
    return f"port:{at}{port.host}/{port.protocol}"


def _tree_claims(mount: Mount) -> Iterator[str]:
    return tree_claims(mount.source, is_written=not mount.read_only)


@attrs.frozen(kw_only=True)
class Running(State):
    """Up since *since* (RFC 3339). ``health`` is what the last readiness probe said."""

    since: str
    restarts: int
    image: str
    health: Literal["healthy", "starting", "unhealthy", "unprobed"]

    @property
    def is_ready(self) -> bool:
        return self.health in {"healthy", "unprobed"}


@attrs.frozen(kw_only=True)
class Starting(State):
    """Being fetched, created or started."""

    image: str


@attrs.frozen(kw_only=True)
class Exited(State):
    """Created and not running."""

    exit_code: int
    restarts: int
    image: str


@attrs.frozen(kw_only=True)
class Completed(State):
    """It runs once, and has ended with exit code 0, at *since* (RFC 3339)."""

    since: str
    image: str

    @property
    def is_ready(self) -> bool:
        return True


ContainerState = Running | Starting | Exited | Completed
