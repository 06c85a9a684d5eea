"""WebAppScore: a web application, and whether it serves.

    its configuration file -> its container, with that file in it -> its port on the device -> an answer

While the container is up and does not answer yet, the Outcome is RUNNING; once it answers, SUCCESS; when
it does not in time, FAILURE with the container's last log lines.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from harmony_core import (
    Container,
    File,
    HasContainers,
    HasFiles,
    HttpProbe,
    Inventory,
    Mount,
    Outcome,
    PublishedPort,
    RegistryLogin,
    Score,
    outcome_of,
)
from harmony_core.content import Text
from harmony_core.images import ImageRef
from harmony_core.resources import (
    HOLD_MOST_S,
    ContainerName,
    Environment,
    MountPath,
    Port,
    Seconds,
)

__all__ = ["WebAppHost", "WebAppScore"]

CONFIG_DIRECTORY = "/etc/harmony-apps"


class WebAppHost(HasContainers, HasFiles, Protocol):
    """A host for web applications: it runs containers and holds their configuration."""


class WebAppScore(Score[WebAppHost]):
    """The web application ``name`` runs with this configuration and answers on this port.

    Its configuration is kept on the device as ``/etc/harmony-apps/NAME/…`` and mounted read-only at
    ``config_path`` in the container; the container is made anew when it changes.
    """

    name: ContainerName = Field(description="The application's name, and its container's.")
    image: ImageRef = Field(
        description="With its registry: docker.io/library/nginx:1.29. "
        "A tag is resolved to a digest when this is pushed."
    )
    login: RegistryLogin | None = Field(
        default=None,
        exclude_if=lambda given: given is None,
        description="With what its image is asked for at its registry, by the device, and by who pushes "
        "this or makes a bundle.",
    )
    config: Text = Field(description="The content of its configuration file.")
    config_path: MountPath = Field(description="Where the container finds that file.")
    port: Port = Field(description="The port on which it listens inside the container.")
    published_port: Port | None = Field(
        default=None, description="The device's port that leads there; the same unless set."
    )
    command: tuple[str, ...] = Field(
        default=(), description="Arguments; the image's own when there are none."
    )
    environment: Environment = Field(
        default_factory=dict,
        description="Environment variables by name. No secrets: all can read them.",
    )
    ready_path: Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]*$", max_length=2048)] = (
        Field(default="/", description="The path that answers 200 to 399 once it serves.")
    )
    within_s: Seconds = Field(
        default=60.0, description="How long it may take to serve after its start, in seconds."
    )
    max_hold_s: Annotated[int, Field(ge=1, le=HOLD_MOST_S)] | None = Field(
        default=None,
        description="For how many seconds it may put off changes, by a file "
        "/run/harmony-hold/hold.json; not at all unless set.",
    )

    async def interpret(self, inventory: Inventory, topology: WebAppHost) -> Outcome:  # noqa: ARG002
        config = self._config()
        wrote = await topology.files.ensure(config)
        ran = await topology.containers.ensure(self._container(config.path))
        return outcome_of(wrote, ran)

    def _config(self) -> File:
        name = PurePosixPath(self.config_path).name
        return File(path=f"{CONFIG_DIRECTORY}/{self.name}/{name}", content=self.config.encode())

    def _container(self, config: str) -> Container:
        published = self.published_port or self.port
        return Container(
            name=self.name,
            image=self.image,
            login=self.login,
            command=self.command,
            environment=self.environment,
            ports=(PublishedPort(host=published, container=self.port),),
            mounts=(Mount(source=config, target=self.config_path),),
            uses=(config,),
            ready=HttpProbe(port=published, path=self.ready_path, within_s=self.within_s),
            max_hold_s=self.max_hold_s,
        )
