"""A container: an image, run with these ports, mounts and environment."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from itertools import combinations
from pathlib import PurePosixPath
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

from harmony_core.claims import alike, collide
from harmony_core.images import ImageRef
from harmony_core.paths import AbsolutePath
from harmony_core.steps import Created, KeptVolume, Pulled, Recreated, Renamed, Started, Step

from ._base import Privilege, Resource, State, in_words
from .container_network import NetworkAttachment
from .probes import Port, Probe, Seconds
from .volume import VolumeMount

__all__ = [
    "HOLD_DIRECTORY",
    "HOLD_MOST_S",
    "Container",
    "ContainerName",
    "ContainerState",
    "ContainerUser",
    "Environment",
    "Exited",
    "Mount",
    "MountPath",
    "PublishedPort",
    "Running",
    "Starting",
]

HOLD_DIRECTORY = "/run/harmony-hold"
"""Where a container that may hold (`harmony_core.holds`) finds its directory."""
HOLD_MOST_S = 7 * 86_400

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


def _plain_mount_path(path: str) -> str:
    if "," in path or ":" in path:
        raise ValueError(
            "',' and ':' have a meaning of their own in mount options; use another path"
        )
    return path


MountPath = Annotated[AbsolutePath, AfterValidator(_plain_mount_path)]
"""A path without ',' and ':'."""


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


class Container(Resource):
    """A container of this name runs this image in this way, and starts again when it or the device does.

    One whose specification has changed is made anew; one that is right is untouched. Which image a tag
    stands for is decided when the Score is pushed; a tag that moves later is not a change.
    """

    resource_type: ClassVar[str] = "container"

    name: ContainerName
    """Its name, which podman shows."""
    image: ImageRef
    """The image, by its tag or digest; a tag becomes a digest when it is pushed."""
    command: tuple[str, ...] = ()
    """Arguments; empty takes the image's own."""
    environment: Environment = Field(default_factory=dict)
    """Variables of its environment, by name."""
    ports: tuple[PublishedPort, ...] = ()
    """Ports of the device that lead into it."""
    mounts: tuple[Mount, ...] = ()
    """Directories and files of the device that it sees."""
    uses: tuple[AbsolutePath, ...] = ()
    """Files that the container has read: their content is part of its specification. Each by its real path,
    since no symbolic link is followed."""
    user: ContainerUser | None = None
    """Who it runs as, such as ``1000:1000``; none takes the image's own."""
    read_only: bool = False
    """Whether the container's own root file system refuses writes."""
    memory_bytes: Annotated[int, Field(ge=4 * 1024 * 1024)] | None = None
    """The most memory it may use; none for no limit."""
    restart: Literal["always", "on-failure", "no"] = "always"
    """When podman starts it again after it has ended."""
    stop_timeout_s: Annotated[int, Field(ge=0, le=3600)] = 10
    """How long it may take to end, in seconds, before it is killed."""
    ready: Probe | None = None
    """The question that is answered once it serves; none asks nothing."""
    settle_s: Annotated[float, Field(ge=0, le=300)] = 1.0
    """How long it must stay up, without a restart, before it counts as converged."""
    pull_timeout_s: Seconds = 900.0
    """How long fetching its image may take, in seconds."""
    max_hold_s: Annotated[int, Field(ge=1, le=HOLD_MOST_S)] | None = None
    """How long what runs in it may put off changes of its Score (`harmony_core.holds`); None: not at all."""
    volumes: tuple[VolumeMount, ...] = ()
    """Volumes that it sees."""
    networks: tuple[NetworkAttachment, ...] = ()
    """Networks that it is on; none is podman's own."""

    @property
    def key(self) -> str:
        return self.name

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
            {*map(_claim, self.ports), *_tree_claims(self.mounts), *_address_claims(self.networks)}
        )

    @model_validator(mode="after")
    def _ports_and_targets_are_distinct(self) -> Self:
        if any(collide(_claim(a), _claim(b)) for a, b in combinations(self.ports, 2)):
            raise ValueError("ports: one host port is published twice")
        if len({mount.target for mount in self.mounts}) != len(self.mounts):
            raise ValueError("mounts: two mounts have one target")
        for written in (mount.source for mount in self.mounts if not mount.read_only):
            for source in (mount.source for mount in self.mounts):
                if source.startswith(f"{written}/"):
                    raise ValueError(
                        f"mounts: {source} lies in {written}, which the container may write, so it could "
                        f"put a link to anything there; mount {written} alone, or move {source} out of it"
                    )
        if self.max_hold_s and HOLD_DIRECTORY in {mount.target for mount in self.mounts}:
            raise ValueError(
                f"mounts: {HOLD_DIRECTORY} is where it puts its holds, since max_hold_s is set"
            )
        return self

    @model_validator(mode="after")
    def _volumes_and_networks_are_distinct(self) -> Self:
        taken = {mount.target for mount in self.mounts}
        if self.max_hold_s:
            taken.add(HOLD_DIRECTORY)
        for volume in self.volumes:
            if volume.target in taken:
                raise ValueError(f"volumes: something else is seen at {volume.target} already")
            taken.add(volume.target)
        names = [each.network for each in self.networks]
        if len(set(names)) != len(names):
            raise ValueError("networks: one network is named twice; put all aliases into one entry")
        return self


def _address_claims(networks: Collection[NetworkAttachment]) -> Iterator[str]:
    """Yield the addresses that only one container can have."""
    for each in networks:
        if each.address is not None:
            yield f"container-address:{each.network}/{each.address}"


def _claim(port: PublishedPort) -> str:
    at = f"[{port.address}]:" if port.address else ""
    return f"port:{at}{port.host}/{port.protocol}"


def _tree_claims(mounts: Collection[Mount]) -> Iterator[str]:
    """Yield what keeps the directories above each source apart from those that containers may write.

    podman resolves a source by its path at each start. A container is root in what it may write: it could put
    a link to the whole device in the place of another one's source.
    """
    for mount in mounts:
        if not mount.read_only:
            yield alike(f"tree:{mount.source}", "written by containers")
        for above in PurePosixPath(mount.source).parents:
            yield alike(f"tree:{above}", "written by no container, since a mount lies below it")


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


ContainerState = Running | Starting | Exited
