"""What podman's answers mean: JSON in, frozen values out. An answer of any other form is unavailability."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic.alias_generators import to_camel, to_pascal

from harmony_core.change import Progress
from harmony_core.errors import CapabilityUnavailable
from harmony_core.resources import HOLD_DIRECTORY

from .podman_wire import Answer

_ALIVE = frozenset({"running", "paused", "stopping"})
ENDED = frozenset({"exited", "stopped"})
"""podman's words for one that ran: stopped as long as podman has not yet tidied up after its end."""
_NS = 1_000_000_000
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class InForce:
    """How podman says that it runs a container. Nought and empty stand for nothing of the kind."""

    network: str
    pid: str
    ipc: str
    privileged: bool
    read_only: bool
    no_new_privileges: bool
    init: bool
    capabilities: frozenset[str]
    devices: frozenset[str]
    """Where the container sees them."""
    has_control_groups: bool
    memory_bytes: int
    memory_reservation_bytes: int
    memory_swap_bytes: int
    nano_cpus: int
    cpu_shares: int
    cpuset: str
    pids: int
    shm_bytes: int
    ulimits: Mapping[str, tuple[int, int]]
    tmpfs: frozenset[str]
    hostname: str
    timezone: str
    working_directory: str
    stop_signal: str
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_options: tuple[str, ...]
    extra_hosts: tuple[str, ...]
    groups: tuple[str, ...]
    secrets: frozenset[str]
    """Those that it sees as files, as `describe_secret` says each."""
    restart: str
    healthcheck: str
    """As `describe_check` says it."""
    log_driver: str
    log_tag: str


@attrs.frozen(kw_only=True)
class FoundCheck:
    """What podman's own checks of a container's health have come to."""

    status: str
    """podman's word: starting, healthy, unhealthy; empty before the first."""
    said: str
    """What the last one wrote."""
    ended_at: str
    """When the last one ended, by the device's wall clock; empty where podman says of none."""
    interval_s: float
    due_within_s: float
    """How long after its start the first verdict may take."""
    fails_within_s: float
    """How long after the last verdict checks that fail may take to make it unhealthy."""


@attrs.frozen(kw_only=True)
class AttachedNetwork:
    """How a container is on a network."""

    aliases: frozenset[str]
    addresses: frozenset[str]
    """None while it does not run."""


@attrs.frozen(kw_only=True)
class FoundVolume:
    """A volume as podman knows it."""

    name: str
    labels: Mapping[str, str]
    created_at: datetime
    place: str = ""
    """Where on the device its data is."""
    is_plain: bool = True
    """Whether its data is in that directory itself, and nothing is mounted there."""


@attrs.frozen(kw_only=True)
class FoundNetwork:
    """A network as podman knows it."""

    name: str
    labels: Mapping[str, str]
    driver: str
    subnets: tuple[str, ...]
    internal: bool
    has_dns: bool
    gateways: frozenset[str] = frozenset()
    """The device's own addresses on it."""
    name_servers: tuple[str, ...] = ()
    """Other name servers than the device's own that its containers are given."""


@attrs.frozen(kw_only=True)
class FoundRegistry:
    """How podman uses one registry, or a part of it."""

    location: str
    mirrors: tuple[tuple[str, bool], ...] = ()
    """Where each is, and whether it is insecure."""
    insecure: bool = False
    blocked: bool = False


@attrs.frozen(kw_only=True)
class FoundContainer:
    """A container as podman knows it. Its times are by the device's wall clock when they were taken."""

    id: str
    name: str
    labels: dict[str, str]
    status: str
    """podman's word: created, running, paused, exited, stopped, stopping, removing, …"""
    started_at: datetime
    finished_at: datetime
    exit_code: int
    restarts: int
    image: str
    """Its reference, with a digest."""
    stop_timeout_s: int
    stopped_by_user: bool
    stop_signal: str = "SIGTERM"
    pid: int | None = None
    """Its main process; None while it does not run."""
    is_cut_off: bool = False
    """Whether it runs, and somebody has taken it off its network, by which its ports are reached."""
    ipv6: str = ""
    """Its own IPv6 address; empty when it has none, or does not run."""
    hold_directory: str | None = None
    """Where on the device the directory is in which it may write its hold."""
    volumes: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The names of podman's volumes that it has, by where it sees them."""
    processes: tuple[int, ...] = ()
    """The main process, and its monitor; none while it does not run."""
    in_force: InForce | None = None
    """None of one of which podman has lost a part."""
    check: FoundCheck | None = None
    """None where podman checks nothing."""
    volume_places: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Where on the device the data of its volumes is, by where it sees them."""
    networks: Mapping[str, AttachedNetwork] = attrs.field(factory=dict[str, "AttachedNetwork"])
    """The networks that it is on, by name."""

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def logs_to_journal(self) -> bool:
        """Whether what it writes is in the device's journal."""
        return self.in_force is not None and self.in_force.log_driver == "journald"

    @property
    def alive(self) -> bool:
        """Whether it has processes, frozen or about to end included."""
        return self.status in _ALIVE


@attrs.frozen(kw_only=True)
class Refusal:
    """podman answered, and said no."""

    status: int
    message: str


class PullProgress:
    """Adds up what a pull says of its layers. Told by podman's thread, read by the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._total: dict[str, int | None] = {}

    def hear(self, line: Answer) -> Refusal | None:
        """Take in one line of the answer. Return the failure that it reports, if any."""
        if line.status >= 400:
            return refusal(line)
        try:
            told = _PullLine.model_validate_json(line.body)
        except ValidationError:
            return Refusal(status=line.status, message="an answer that is not podman's")
        if told.error:
            return Refusal(status=line.status, message=told.error)
        with self._lock:
            self._add(told)
        return None

    def so_far(self) -> Progress:
        """Return the bytes of all layers. The total is None until the size of every layer is known."""
        with self._lock:
            totals = list(self._total.values())
            known = [total for total in totals if total is not None]
            whole = sum(known) if totals and len(known) == len(totals) else None
            return Progress(done=sum(self._done.values()), total=whole, unit="bytes")

    @property
    def left_bytes(self) -> int:
        """How many bytes of the layers whose size is known are still to come."""
        with self._lock:
            return sum(total or 0 for total in self._total.values()) - sum(self._done.values())

    def _add(self, told: _PullLine) -> None:
        if told.status == "Pulling fs layer":
            self._total.setdefault(told.id, None)
        elif told.progress_detail.total:
            self._total[told.id] = told.progress_detail.total
            self._done[told.id] = told.progress_detail.current
        elif told.status in {"Download complete", "Already exists"}:
            # A layer that came faster than podman's first report: its size was never told.
            self._total[told.id] = self._total.get(told.id) or 0
            self._done[told.id] = self._total[told.id] or 0


class _Reply(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, extra="ignore", frozen=True)


_ReplyT = TypeVar("_ReplyT", bound=BaseModel)


class _CheckRun(_Reply):
    output: str = ""
    end: str = ""


class _Health(_Reply):
    status: str = ""
    log: list[_CheckRun] | None = None


class _Check(_Reply):
    """Times in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0

    @property
    def is_none(self) -> bool:
        return (self.test or ["NONE"])[0] == "NONE"


class _State(_Reply):
    status: str
    started_at: datetime
    finished_at: datetime
    exit_code: int
    stopped_by_user: bool = False
    pid: int = 0
    conmon_pid: int = 0
    health: _Health | None = None


class _SecretFile(_Reply):
    name: str
    uid: int = Field(default=0, alias="UID")
    gid: int = Field(default=0, alias="GID")
    mode: int = 0


class _Config(_Reply):
    labels: dict[str, str] | None = None
    stop_timeout: int = 10
    stop_signal: str | int = "SIGTERM"
    """Its number, from podman before 5.0."""
    hostname: str = ""
    timezone: str = ""
    working_dir: str = ""
    healthcheck: _Check | None = None
    secrets: list[_SecretFile] | None = None


class _Created(_Reply):
    id: str


class _SecretSpec(_Reply):
    name: str


class _Secret(_Reply):
    id: str = Field(alias="ID")
    spec: _SecretSpec


class _Secrets(RootModel[list[_Secret]]):
    """Of each secret what podman tells of it: not what is in it."""


class _CreatedSecret(_Reply):
    id: str = Field(alias="ID")


class _Device(_Reply):
    path_in_container: str = ""


class _Ulimit(_Reply):
    name: str
    soft: int
    hard: int


class _RestartPolicy(_Reply):
    name: str = ""


class _LogConfig(_Reply):
    type: str = ""
    tag: str = ""


class _HostConfig(_Reply):
    network_mode: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    privileged: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    init: bool = False
    devices: list[_Device] | None = None
    cgroups: str = ""
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    pids_limit: int = 0
    shm_size: int = 0
    ulimits: list[_Ulimit] | None = None
    tmpfs: dict[str, str] | None = None
    dns: list[str] | None = None
    dns_search: list[str] | None = None
    dns_options: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    restart_policy: _RestartPolicy = Field(default=_RestartPolicy())
    log_config: _LogConfig = Field(default=_LogConfig())


class _Mount(_Reply):
    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""


class _Attached(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    ipv4: str = Field(default="", alias="IPAddress")
    ipv6: str = Field(default="", alias="GlobalIPv6Address")
    aliases: list[str] | None = Field(default=None, alias="Aliases")


class _NetworkSettings(_Reply):
    networks: dict[str, _Attached] | None = None


class _Container(_Reply):
    id: str
    name: str
    image_name: str
    image_digest: str
    restart_count: int
    state: _State
    config: _Config
    host_config: _HostConfig = Field(default=_HostConfig())
    mounts: list[_Mount] | None = None
    network_settings: _NetworkSettings = Field(default=_NetworkSettings())
    bounding_caps: list[str] | None = None


class _ImageConfig(_Reply):
    volumes: dict[str, object] | None = None


class _Image(_Reply):
    config: _ImageConfig | None = None
    repo_tags: list[str] | None = None


class _Volume(_Reply):
    name: str = ""
    driver: str = "local"
    mountpoint: str = ""
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    created_at: datetime = _LONG_AGO


class _Volumes(RootModel[list[_Volume]]):
    """Of each volume what podman has in its own database."""


class _VolumeSize(_Reply):
    volume_name: str
    size: int = 0


class _DiskUse(_Reply):
    volumes: list[_VolumeSize] | None = None


class _Subnet(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    subnet: str
    gateway: str = ""


class _Network(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = ""
    driver: str = ""
    subnets: list[_Subnet] | None = None
    internal: bool = False
    dns_enabled: bool = False
    labels: dict[str, str] | None = None
    network_dns_servers: list[str] | None = None


class _Mirror(_Reply):
    location: str = ""
    insecure: bool = False


class _Registry(_Reply):
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: list[_Mirror] | None = None


class _Store(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)

    graph_root: str = ""


class _Information(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    store: _Store = _Store()
    registries: dict[str, _Registry | list[str]] | None = None
    """By what they are registries of; ``search`` has those in which short names are looked for."""


class _RemovedNetwork(_Reply):
    err: str | None = None


class _RemovedNetworks(RootModel[list[_RemovedNetwork]]):
    """What became of each network that was to be removed."""


class _ListedPort(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    host_port: int
    range: int = 1
    protocol: str = "tcp"


class _ListedContainer(_Reply):
    id: str
    names: list[str]
    labels: dict[str, str] | None = None
    image: str
    exit_code: int = 0
    state: str = ""
    ports: list[_ListedPort] | None = None


class _Listed(RootModel[list[_ListedContainer]]):
    """Of each container what podman has in its own database."""


class _Bytes(BaseModel):
    current: int = 0
    total: int = 0


class _PullLine(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    status: str = ""
    id: str = ""
    progress_detail: _Bytes = Field(default=_Bytes(), alias="progressDetail")
    error: str | None = None


def parse_container(answer: Answer, what: str) -> FoundContainer:
    """Return the container that *answer* describes. Raise `CapabilityUnavailable` when it is not such a
    description."""
    reply = _read(_Container, answer, what)
    return FoundContainer(
        id=reply.id,
        name=reply.name,
        labels=reply.config.labels or {},
        status=reply.state.status,
        started_at=reply.state.started_at,
        finished_at=reply.state.finished_at,
        exit_code=reply.state.exit_code,
        restarts=reply.restart_count,
        image=_with_digest(reply.image_name, reply.image_digest),
        stop_timeout_s=reply.config.stop_timeout,
        stopped_by_user=reply.state.stopped_by_user,
        stop_signal=str(reply.config.stop_signal),
        pid=reply.state.pid if reply.state.pid > 0 else None,
        is_cut_off=(
            reply.state.status == "running"
            and reply.host_config.network_mode == "bridge"
            and not reply.network_settings.networks
        ),
        ipv6=next(
            (each.ipv6 for each in (reply.network_settings.networks or {}).values() if each.ipv6),
            "",
        ),
        hold_directory=next(
            (m.source for m in reply.mounts or () if m.destination == HOLD_DIRECTORY and m.source),
            None,
        ),
        volumes={
            mount.destination: mount.name
            for mount in reply.mounts or ()
            if mount.type == "volume" and mount.name
        },
        processes=tuple(pid for pid in (reply.state.pid, reply.state.conmon_pid) if pid > 0),
        in_force=_in_force(reply),
        check=_check(reply),
        volume_places={
            mount.destination: mount.source
            for mount in reply.mounts or ()
            if mount.type == "volume" and mount.source
        },
        networks={
            name: AttachedNetwork(
                aliases=frozenset(each.aliases or ()),
                addresses=frozenset({each.ipv4, each.ipv6} - {""}),
            )
            for name, each in (reply.network_settings.networks or {}).items()
        },
    )


def _in_force(reply: _Container) -> InForce:
    host, config = reply.host_config, reply.config
    of_cpus = round(host.cpu_quota * _NS / host.cpu_period) if host.cpu_period else 0
    return InForce(
        network=host.network_mode,
        pid=host.pid_mode,
        ipc=host.ipc_mode,
        privileged=host.privileged,
        read_only=host.readonly_rootfs,
        no_new_privileges="no-new-privileges" in (host.security_opt or ()),
        init=host.init,
        capabilities=frozenset(reply.bounding_caps or ()),
        devices=frozenset(each.path_in_container for each in host.devices or ()),
        has_control_groups=host.cgroups != "disabled",
        memory_bytes=host.memory,
        memory_reservation_bytes=host.memory_reservation,
        memory_swap_bytes=host.memory_swap,
        nano_cpus=host.nano_cpus or max(of_cpus, 0),
        cpu_shares=host.cpu_shares,
        cpuset=host.cpuset_cpus,
        pids=host.pids_limit,
        shm_bytes=host.shm_size,
        ulimits={
            each.name.removeprefix("RLIMIT_").lower(): (_limit(each.soft), _limit(each.hard))
            for each in host.ulimits or ()
        },
        tmpfs=frozenset(host.tmpfs or ()),
        hostname=config.hostname,
        timezone=config.timezone,
        working_directory=config.working_dir,
        stop_signal=str(config.stop_signal),
        dns=tuple(host.dns or ()),
        dns_search=tuple(host.dns_search or ()),
        dns_options=tuple(host.dns_options or ()),
        extra_hosts=tuple(host.extra_hosts or ()),
        groups=tuple(host.group_add or ()),
        secrets=frozenset(
            describe_secret(each.name, each.uid, each.gid, each.mode)
            for each in config.secrets or ()
        ),
        restart=host.restart_policy.name,
        healthcheck=_described(config.healthcheck),
        log_driver=host.log_config.type,
        log_tag=host.log_config.tag,
    )


def _limit(number: int) -> int:
    """Return *number*, or -1, no limit, for the largest number there is, which podman uses for that."""
    return -1 if number >= 2**64 - 1 else number


def describe_check(
    words: Sequence[str], interval_s: float, timeout_s: float, retries: int, start_period_s: float
) -> str:
    """Return a health check in words. Checks that differ in anything differ in these words."""
    return (
        f"{list(words)} every {interval_s:g} s for {timeout_s:g} s, {retries} times, "
        f"from {start_period_s:g} s on"
    )


def describe_secret(name: str, uid: int, gid: int, mode: int) -> str:
    """Return in words a podman secret that a container sees as a file."""
    return f"{name} of {uid}:{gid} ({mode:04o})"


def _described(check: _Check | None) -> str:
    if check is None or check.is_none:
        return ""
    times = (check.interval, check.timeout, check.start_period)
    interval_s, timeout_s, start_period_s = (each / _NS for each in times)
    return describe_check(check.test or (), interval_s, timeout_s, check.retries, start_period_s)


def _check(reply: _Container) -> FoundCheck | None:
    check, health = reply.config.healthcheck, reply.state.health
    if check is None or check.is_none:
        return None
    runs = (health.log if health is not None else None) or []
    all_ns = (check.interval + check.timeout) * max(check.retries, 1)
    return FoundCheck(
        status=health.status if health is not None else "",
        said=runs[-1].output.strip() if runs else "",
        interval_s=check.interval / _NS,
        ended_at=runs[-1].end if runs else "",
        due_within_s=(check.start_period + all_ns) / _NS,
        fails_within_s=all_ns / _NS,
    )


def torn_container(answer: Answer, name: str, what: str) -> FoundContainer | None:
    """Return the container *name* of a list, as one that has to be removed; None when the list does not have
    it."""
    for reply in _read(_Listed, answer, what).root:
        if name in reply.names:
            return FoundContainer(
                id=reply.id,
                name=name,
                labels=reply.labels or {},
                status="removing",
                started_at=_LONG_AGO,
                finished_at=_LONG_AGO,
                exit_code=reply.exit_code,
                restarts=0,
                image=reply.image,
                stop_timeout_s=_Config().stop_timeout,
                stopped_by_user=False,
            )
    return None


def parse_listed_ids(answer: Answer, what: str) -> dict[str, str]:
    """Return the ids of the containers in a list, by their names."""
    return {name: reply.id for reply in _read(_Listed, answer, what).root for name in reply.names}


def parse_listed_labels(answer: Answer, what: str) -> dict[str, dict[str, str]]:
    """Return the labels of the containers in a list, by their names."""
    return {
        name: reply.labels or {}
        for reply in _read(_Listed, answer, what).root
        for name in reply.names
    }


def parse_published_ports(answer: Answer, what: str) -> dict[tuple[int, str], str]:
    """Return the ports, with their protocols, that the live containers in a list publish, with the name of
    each container."""
    return {
        (port.host_port + n, port.protocol): name
        for reply in _read(_Listed, answer, what).root
        if reply.state in _ALIVE
        for name in reply.names[:1]
        for port in reply.ports or ()
        for n in range(port.range)
    }


def has_ipv6(answer: Answer, what: str) -> bool:
    """Return whether the network that *answer* describes has IPv6."""
    return any(":" in each.subnet for each in _read(_Network, answer, what).subnets or ())


def parse_network(answer: Answer, what: str) -> FoundNetwork:
    """Return the network that *answer* describes. Raise `CapabilityUnavailable` when it is not such a
    description."""
    reply = _read(_Network, answer, what)
    return FoundNetwork(
        name=reply.name,
        labels=reply.labels or {},
        driver=reply.driver,
        subnets=tuple(each.subnet for each in reply.subnets or ()),
        internal=reply.internal,
        has_dns=reply.dns_enabled,
        gateways=frozenset(each.gateway for each in reply.subnets or () if each.gateway),
        name_servers=tuple(reply.network_dns_servers or ()),
    )


def parse_registries(answer: Answer, what: str) -> Mapping[str, FoundRegistry]:
    """Return how podman uses registries, by the name of the registry, or of a part of it."""
    reply = _read(_Information, answer, what)
    return {
        place: FoundRegistry(
            location=each.location,
            mirrors=tuple((mirror.location, mirror.insecure) for mirror in each.mirrors or ()),
            insecure=each.insecure,
            blocked=each.blocked,
        )
        for place, each in (reply.registries or {}).items()
        if isinstance(each, _Registry)
    }


def parse_image_directory(answer: Answer, what: str) -> str:
    """Return the directory of images and containers; empty where *answer* does not say."""
    return _read(_Information, answer, what).store.graph_root


def why_not_removed(answer: Answer, what: str) -> str | None:
    """Return why podman did not remove a network; None when it did."""
    return next((each.err for each in _read(_RemovedNetworks, answer, what).root if each.err), None)


def parse_volume(answer: Answer, what: str) -> FoundVolume:
    """Return the volume that *answer* describes. Raise `CapabilityUnavailable` when it is not such a
    description."""
    return _to_found_volume(_read(_Volume, answer, what))


def parse_volumes(answer: Answer, what: str) -> list[FoundVolume]:
    """Return the volumes in a list, sorted by name."""
    found = map(_to_found_volume, _read(_Volumes, answer, what).root)
    return sorted(found, key=lambda each: each.name)


def _to_found_volume(reply: _Volume) -> FoundVolume:
    return FoundVolume(
        name=reply.name,
        labels=reply.labels or {},
        created_at=reply.created_at,
        place=reply.mountpoint,
        is_plain=reply.driver == "local" and not reply.options,
    )


def parse_volume_sizes(answer: Answer, what: str) -> dict[str, int]:
    """Return how many bytes are in each volume, by its name."""
    reply = _read(_DiskUse, answer, what)
    return {each.volume_name: each.size for each in reply.volumes or ()}


def volume_options(answer: Answer, what: str) -> dict[str, str]:
    """Return the options with which the volume that *answer* describes was made."""
    return _read(_Volume, answer, what).options or {}


def image_volumes(answer: Answer, what: str) -> list[str]:
    """Return the paths that the image that *answer* describes declares as volumes."""
    config = _read(_Image, answer, what).config
    return sorted(config.volumes or ()) if config is not None else []


def image_tags(answer: Answer, what: str) -> list[str]:
    """Return the names with a tag of the image that *answer* describes."""
    return _read(_Image, answer, what).repo_tags or []


def parse_created_id(answer: Answer, what: str) -> str:
    """Return the id of the new container. Raise `CapabilityUnavailable` when *answer* does not have it."""
    return _read(_Created, answer, what).id


def parse_secrets(answer: Answer, what: str) -> dict[str, str]:
    """Return the ids of the secrets in a list, by their names."""
    return {each.spec.name: each.id for each in _read(_Secrets, answer, what).root}


def parse_created_secret(answer: Answer, what: str) -> str:
    """Return the id of the new secret. Raise `CapabilityUnavailable` when *answer* does not have it."""
    return _read(_CreatedSecret, answer, what).id


def refusal(answer: Answer) -> Refusal:
    """Return podman's reason for refusing: the bare text where it is not podman's JSON."""
    try:
        told = json.loads(answer.body)
        message = str(told["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.body[:200].decode(errors="replace").strip() or "no reason given"
    return Refusal(status=answer.status, message=message)


def _with_digest(name: str, digest: str) -> str:
    return name if "@" in name or not digest else f"{name}@{digest}"


def _read(form: type[_ReplyT], answer: Answer, what: str) -> _ReplyT:
    try:
        return form.model_validate_json(answer.body)
    except ValidationError as error:
        raise CapabilityUnavailable(
            f"podman's answer makes no sense (asked to {what}); "
            "look at 'journalctl -u podman' and its version, 4.3 or newer is needed"
        ) from error
