"""SystemdServiceScore: one service, from a few fields, from a unit file, or one that is there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from harmony_core import Inventory, Outcome, Score, SystemdUnit, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import Probe, SliceName, UnitFile, UnitName, UserName

from ._credentials import Credentials, ServiceHost, find_credentials, provide_credentials
from ._unit_file import (
    Command,
    PlainPath,
    ServiceEnvironment,
    ServiceFields,
    Words,
    load_credentials,
    render,
)
from ._whole import refused_as_fields

__all__ = ["SystemdServiceScore"]

_WRITTEN: Mapping[str, object] = {
    "description": None,
    "type": "exec",
    "restart": "on-failure",
    "user": None,
    "working_directory": None,
    "environment": {},
    "after_units": (),
    "slice": None,
}
"""The fields that only a unit file written from them can hold, with what stands for "not given"."""


def _service(name: str) -> str:
    if not name.endswith(".service"):
        raise ValueError("must end in .service")
    return name


ServiceName = Annotated[UnitName, AfterValidator(_service)]


class SystemdServiceScore(Score[ServiceHost]):
    """The service ``name`` is enabled or not, runs or not, and runs from this file.

    Give ``exec_start`` and a few fields to have the unit file written for you, or ``unit_file`` to write
    it yourself, or neither for a service that is installed already. It is restarted when the unit file,
    one of its ``credentials``, or one of the files that it ``uses``, is not what it was started from.
    """

    name: ServiceName = Field(description="The unit's name, such as kiosk.service.")
    unit_file: UnitFile | None = Field(default=None, description="The whole unit file, as text.")
    exec_start: Command | None = Field(
        default=None,
        description="The program, by its absolute path, and its arguments; no shell is involved.",
    )
    description: Words | None = Field(default=None, description="What it is, for people.")
    type: Literal["exec", "notify"] = Field(
        default="exec",
        description="How systemd knows that it has started: exec, once the program runs; "
        "notify, once the program says so.",
    )
    restart: Literal["on-failure", "always", "no"] = Field(
        default="on-failure",
        description="When systemd starts it again by itself. What then still fails, the agent starts "
        "again, with pauses from 1 s to 5 min.",
    )
    user: UserName | None = Field(default=None, description="Who runs it; root unless set.")
    working_directory: PlainPath | None = Field(default=None, description="Where it is started.")
    environment: ServiceEnvironment = Field(
        default_factory=dict,
        description="Environment variables by name. No secrets: all can read them.",
    )
    credentials: Credentials = Field(
        default_factory=dict,
        exclude_if=lambda given: not given,
        description="What no other user may read, by name: the program finds each in the file "
        "$CREDENTIALS_DIRECTORY/NAME. Text, also with `${secret.…}`.",
    )
    after_units: tuple[UnitName, ...] = Field(
        default=(),
        description="Units wanted and started before it, such as network-online.target.",
    )
    slice: SliceName | None = Field(
        default=None,
        exclude_if=lambda given: given is None,
        description="The slice that it runs in, under the limits of that, such as media.slice; system.slice "
        "unless set.",
    )
    enabled: bool | None = Field(
        default=True, description="Whether it starts at boot; null leaves that as it is."
    )
    state: Literal["running", "stopped"] = Field(
        default="running", description="Whether it is to run now."
    )
    uses: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Files that it reads when it starts: it is restarted when one changes.",
    )
    settle_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=2.0, description="How long it must stay up to count as started, in seconds."
    )
    ready: Probe | None = Field(
        default=None, description="How to ask whether it serves: an HTTP or a TCP probe."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.unit_file is not None and self.exec_start is not None:
            raise ValueError("give unit_file or exec_start, not both")
        if self.exec_start is None:
            for name, absent in _WRITTEN.items():
                if getattr(self, name) != absent:
                    raise ValueError(
                        f"{name}: is written into a unit file together with exec_start only; "
                        "without that, put it into unit_file"
                    )
        if self.credentials and self.exec_start is None and self.unit_file is None:
            raise ValueError(
                f"credentials: the unit file of {self.name} is not written here, and so cannot name them; "
                "give exec_start or unit_file; or have a FileScore with the secret, another one with "
                f"LoadCredential= at /etc/systemd/system/{self.name}.d/credentials.conf, and both in uses"
            )
        with refused_as_fields():
            self._unit()
        return self

    async def interpret(self, inventory: Inventory, topology: ServiceHost) -> Outcome:  # noqa: ARG002
        # The unit last: what was made first goes last.
        provided = await provide_credentials(topology, self.name, self.credentials)
        return outcome_of(provided, await topology.systemd.ensure(self._unit()))

    def _unit(self) -> SystemdUnit:
        credentials = find_credentials(self.name, self.credentials)
        return SystemdUnit(
            name=self.name,
            content=self._content(credentials),
            enabled=self.enabled,
            state=self.state,
            uses=(*self.uses, *credentials.values()),
            credentials=credentials,
            slice=self.slice,
            settle_s=self.settle_s,
            ready=self.ready,
        )

    def _content(self, credentials: Mapping[str, str]) -> str | None:
        if self.exec_start is not None:
            return self._render(self.exec_start, credentials)
        return self.unit_file and load_credentials(self.unit_file, credentials)

    def _render(self, exec_start: tuple[str, ...], credentials: Mapping[str, str]) -> str:
        return render(
            ServiceFields(
                description=self.description or self.name.removesuffix(".service"),
                exec_start=exec_start,
                type=self.type,
                restart=self.restart,
                user=self.user,
                working_directory=self.working_directory,
                environment=self.environment,
                credentials=credentials,
                after_units=self.after_units,
                slice=self.slice,
            )
        )
