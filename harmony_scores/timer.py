"""TimerScore: a program that is run again and again, by systemd's clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core import Inventory, Outcome, Score, SystemdUnit, outcome_of
from harmony_core.calendars import calendar_problem
from harmony_core.errors import InvalidResource, UnitFailed
from harmony_core.resources import UserName

from ._credentials import Credentials, ServiceHost, find_credentials, provide_credentials
from ._unit_file import Command, ServiceEnvironment, Words, oneshot
from ._whole import refused_as_fields

__all__ = ["TimerScore"]


def _readable(text: str) -> str:
    if (problem := calendar_problem(text)) is not None:
        raise ValueError(problem)
    return text


Calendar = Annotated[
    str, StringConstraints(max_length=128, strip_whitespace=True), AfterValidator(_readable)
]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]

_ACCURACY_MAX_MS = 1000


class TimerScore(Score[ServiceHost]):
    """``exec_start`` is run at the times that ``on_calendar`` says, or ``every_s`` seconds.

    It is converged when the timer waits for its next time. How a run ends is in the logs of its service, and
    no business of the Score. Removed with both units; a run that is under way is stopped.
    """

    name: Name = Field(description="Its name: NAME.timer starts NAME.service.")
    exec_start: Command = Field(
        description="The program, by its absolute path, and its arguments; no shell is involved."
    )
    on_calendar: Calendar | None = Field(
        default=None, description="When, as systemd.time(7) has it: daily, or Mon..Fri *-*-* 02:00."
    )
    every_s: Annotated[int, Field(ge=1, le=366 * 86_400)] | None = Field(
        default=None,
        description="How often, in seconds, counted from the last start; before the first one, from the boot "
        "of the device: at once, where that is longer ago.",
    )
    persistent: bool = Field(
        default=False, description="Whether a time that was missed, switched off, is made up for."
    )
    spread_s: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=0,
        description="At most so many seconds later, by chance: spares what all devices use.",
    )
    description: Words | None = Field(default=None, description="What it is, for people.")
    user: UserName | None = Field(default=None, description="Who runs it; root unless set.")
    environment: ServiceEnvironment = Field(
        default_factory=dict,
        description="Environment variables by name. No secrets: all can read them.",
    )
    credentials: Credentials = Field(
        default_factory=dict,
        exclude_if=lambda given: not given,
        description="What no other user may read, by name: each run finds it in the file "
        "$CREDENTIALS_DIRECTORY/NAME. Text, also with `${secret.…}`.",
    )

    @model_validator(mode="after")
    def _has_one_time(self) -> Self:
        if (self.on_calendar is None) == (self.every_s is None):
            raise ValueError("give exactly one of on_calendar and every_s")
        if self.persistent and self.on_calendar is None:
            raise ValueError("persistent: only what is given on_calendar can be made up for")
        with refused_as_fields():
            self._service()
            self._timer()
        return self

    async def interpret(self, inventory: Inventory, topology: ServiceHost) -> Outcome:  # noqa: ARG002
        service, timer = self._service(), self._timer()
        provided = await provide_credentials(topology, service.name, self.credentials)
        # Together: systemd reads both before the timer starts.
        try:
            return outcome_of(provided, await topology.systemd.ensure(service, timer))
        except InvalidResource as error:
            if self.on_calendar is None or f"{self.name}.timer" not in error.message:
                raise
            raise InvalidResource(
                f"on_calendar: the systemd of this device does not take {self.on_calendar!r}; ask it by "
                f"`systemd-analyze calendar '{self.on_calendar}'` there",
                resource=error.resource,
            ) from error
        except UnitFailed as error:
            if self.on_calendar is None or "will never elapse" not in error.message:
                raise
            raise UnitFailed(
                f"on_calendar: none of the times of {self.on_calendar!r} is still to come; write one that "
                "is, or remove this Score",
                resource=error.resource,
                retry_after_s=error.retry_after_s,
            ) from error

    def _service(self) -> SystemdUnit:
        name = f"{self.name}.service"
        credentials = find_credentials(name, self.credentials)
        content = oneshot(
            self._words(),
            self.exec_start,
            user=self.user,
            environment=self.environment,
            credentials=credentials,
        )
        return SystemdUnit(
            name=name, content=content, enabled=None, state=None, credentials=credentials
        )

    def _timer(self) -> SystemdUnit:
        content = "".join(f"{line}\n" for line in self._lines())
        return SystemdUnit(name=f"{self.name}.timer", content=content)

    def _words(self) -> str:
        return self.description or self.name

    def _accuracy_ms(self) -> int:
        """Return by how many milliseconds the timer may be late. systemd's own default is up to a minute."""
        if self.every_s is None:
            return _ACCURACY_MAX_MS
        return min(_ACCURACY_MAX_MS, self.every_s * 1000 // 10)

    def _lines(self) -> Iterator[str]:
        yield "[Unit]"
        yield f"Description={self._words().replace('%', '%%')}"
        yield ""
        yield "[Timer]"
        if self.on_calendar is not None:
            yield f"OnCalendar={self.on_calendar}"
            yield f"Persistent={'yes' if self.persistent else 'no'}"
        else:
            # Not OnActiveSec, which systemd counts anew each time that it reads all units: where that is more
            # often, the first time would never come.
            yield f"OnBootSec={self.every_s}"
            yield f"OnUnitActiveSec={self.every_s}"
        yield f"AccuracySec={self._accuracy_ms()}ms"
        yield f"RandomizedDelaySec={self.spread_s}"
        yield ""
        yield "[Install]"
        yield "WantedBy=timers.target"
