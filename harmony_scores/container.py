"""ContainerScore: one container."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harmony_core import (
    Container,
    HasContainers,
    Inventory,
    Mount,
    NetworkAttachment,
    Outcome,
    PublishedPort,
    Score,
    VolumeMount,
    outcome_of,
)
from harmony_core.images import ImageRef
from harmony_core.paths import AbsolutePath
from harmony_core.resources import (
    HOLD_MOST_S,
    ContainerName,
    ContainerUser,
    Environment,
    Probe,
    Seconds,
)

from ._whole import refused_as_fields

__all__ = ["ContainerScore"]


class ContainerScore(Score[HasContainers]):
    """A container of this name runs this image in this way, and starts again with the device.

    It is made anew when anything of this changes, or a file that it ``uses``; else it is left alone.
    """

    name: ContainerName = Field(description="The container's name, the only one of that name.")
    image: ImageRef = Field(
        description="With its registry: docker.io/library/nginx:1.29. "
        "A tag is resolved to a digest when this is pushed."
    )
    command: tuple[str, ...] = Field(
        default=(), description="Arguments; the image's own when there are none."
    )
    environment: Environment = Field(
        default_factory=dict,
        description="Environment variables by name. No secrets: all can read them.",
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
    uses: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Files that it reads when it starts: it is made anew when one changes.",
    )
    user: ContainerUser | None = Field(
        default=None,
        description="The user who runs in it, or USER:GROUP; the image's own unless set.",
    )
    read_only: bool = Field(
        default=False, description="Whether its own file system refuses writes."
    )
    memory_bytes: Annotated[int, Field(ge=4 * 1024 * 1024)] | None = Field(
        default=None, description="How much memory it may take, in bytes."
    )
    restart: Literal["always", "on-failure", "no"] = Field(
        default="always", description="When podman starts it again by itself."
    )
    stop_timeout_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=10, description="How long it may take to stop before it is killed, in seconds."
    )
    ready: Probe | None = Field(
        default=None, description="How to ask whether it serves: an HTTP or a TCP probe."
    )
    settle_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=1.0, description="How long it must stay up to count as started, in seconds."
    )
    pull_timeout_s: Seconds = Field(
        default=900.0, description="How long fetching the image may take, in seconds."
    )
    max_hold_s: Annotated[int, Field(ge=1, le=HOLD_MOST_S)] | None = Field(
        default=None,
        description="For how many seconds what runs in it may put off changes, by a file "
        "/run/harmony-hold/hold.json; not at all unless set.",
    )
    volumes: tuple[VolumeMount, ...] = Field(
        default=(),
        description="Volumes that it sees, by name. Each has to be there: a VolumeScore makes it.",
    )
    networks: tuple[NetworkAttachment, ...] = Field(
        default=(),
        description="Networks that it is on, by name; podman's own unless set. Each has to be there: a "
        "ContainerNetworkScore makes it. Containers on one find each other by name and aliases.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._container()
        return self

    async def interpret(self, inventory: Inventory, topology: HasContainers) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.containers.ensure(self._container()))

    def _container(self) -> Container:
        return Container(**{name: getattr(self, name) for name in type(self).model_fields})
