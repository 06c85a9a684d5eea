"""SystemdUnitScore: one unit of any type, by its whole file, or one that is there already."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from harmony_core import HasSystemd, Inventory, Outcome, Score, SystemdUnit, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import Probe, Seconds, UnitFile, UnitName
from harmony_core.unit_paths import BY_PATH

from ._whole import refused_as_fields

__all__ = ["SystemdUnitScore"]


def _not_by_path(name: str) -> str:
    if name.rpartition(".")[2] in BY_PATH:
        raise ValueError("is the unit of a mount; use a MountScore")
    return name


class SystemdUnitScore(Score[HasSystemd]):
    """The unit ``name`` has this file, is enabled or not, and is up or not.

    For what a SystemdServiceScore and a TimerScore do not write: a socket, a path, a slice, a target, a
    template, or a service whose file is there already. Without ``content`` the unit is one that a package
    has brought. Another file has the unit restarted, a slice excepted: systemd limits what runs in that
    anew without. A socket is left as it is while its service runs, which is told.
    """

    name: Annotated[UnitName, AfterValidator(_not_by_path)] = Field(
        description="Its name with its type: .service, .socket, .path, .slice, .target or .timer."
    )
    content: UnitFile | None = Field(
        default=None, description="Its whole file, as text. None for the unit of a package."
    )
    enabled: bool | None = Field(
        default=True,
        description="Whether it starts at boot, as its [Install] section says; null leaves that as it is, "
        "and is for a unit without one, such as most slices.",
    )
    state: Literal["running", "stopped"] | None = Field(
        default="running",
        description="Whether it is to be up now; null leaves that as it is, and is for a template or for "
        "what others start, such as the service of a socket.",
    )
    uses: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Files that it reads when it starts: it is restarted when one changes.",
    )
    settle_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=2.0,
        description="How long a service must stay up to count as started, in seconds.",
    )
    ready: Probe | None = Field(
        default=None,
        description="How to ask whether it serves: an HTTP or a TCP probe. Of a socket, each question "
        "starts its service.",
    )
    start_timeout_s: Seconds = Field(
        default=90.0, description="How long its start may take, in seconds."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._unit()
        return self

    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.systemd.ensure(self._unit()))

    def _unit(self) -> SystemdUnit:
        return SystemdUnit(
            name=self.name,
            content=self.content,
            enabled=self.enabled,
            state=self.state,
            uses=self.uses,
            settle_s=self.settle_s,
            ready=self.ready,
            start_timeout_s=self.start_timeout_s,
        )
