"""AgentScore: which version of the agent runs on this device."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from harmony_core import (
    File,
    HasFiles,
    HasJobs,
    HasSystemd,
    Inventory,
    Job,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.resources import Asset
from harmony_core.unit_text import script

from ._reasons import in_its_own_words
from ._undoing import DOES_NOTHING, job_name, undone_by
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["AgentHost", "AgentScore"]

_NAME = "harmony-update"
_NOTES = f"/var/lib/{_NAME}"
_UNIT = f"{_NAME}.service"
_UPDATED_WITHIN_S = 3600.0
"""pip fetches what has changed over a slow line, and a Pi Zero unpacks it."""
_WHEEL = re.compile(r"harmony-[0-9][A-Za-z0-9.+!]{0,99}-py3-none-any\.whl", re.ASCII)

# To update is the agent's, which hears that the service has ended.
_LOOK = f"""
! systemctl is-active --quiet {_UNIT} || exec systemctl --no-block stop {_UNIT}
"""


def _wheel_of_ours(wheel: Asset) -> Asset:
    if not _WHEEL.fullmatch(wheel.name):
        raise ValueError(
            f"{wheel.name} is no wheel of Harmony; give dist/harmony-VERSION-py3-none-any.whl, which "
            "`make wheel` makes"
        )
    return wheel


class AgentHost(HasFiles, HasJobs, HasSystemd, Protocol):
    """What it takes to update the agent."""


class AgentScore(Score[AgentHost]):
    """The agent is the one of this wheel. It is installed beside the one that runs, in a copy of that, with
    all that the wheel's own lock has, by hash; then both change places in one step, and the agent is started
    anew. Services and containers go on running.

    The new one is on trial: it has 5 minutes to start and, where the one before was connected, to connect,
    and must stay so for 100 seconds. Else the one before is put back, which says why; that wheel is tried
    again after a day, or once the Score is removed and pushed again. After a power cut a trial goes on. What
    pip fetches the device must reach. When the Score goes, the agent stays as it is. The device must allow
    what runs as root (policy.toml: jobs = "any"), and its agent must be where `harmony enroll` installs it.
    """

    wheel: Annotated[Asset, AfterValidator(_wheel_of_ours)] = Field(
        description="The wheel, by its hash: `wheel_from: dist/harmony-VERSION-py3-none-any.whl` writes it."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._jobs()
            self._unit()
            self._file()
        return self

    async def interpret(self, inventory: Inventory, topology: AgentHost) -> Outcome:  # noqa: ARG002
        # The jobs first: what was made first goes last, and that takes the notes away.
        changes = await topology.jobs.ensure(*self._jobs())
        changes += await topology.files.ensure(self._file())
        with in_its_own_words():
            changes += await topology.systemd.ensure(self._unit())
        return outcome_of(changes)

    @property
    def _path(self) -> str:
        return f"{_NOTES}/{self.wheel.name}"

    def _file(self) -> File:
        return File(path=self._path, content=self.wheel, mode=0o644)

    def _run(self, verb: str, *words: str) -> tuple[str, ...]:
        return ("/usr/bin/python3", "-I", "-c", _source(), verb, *words)

    def _jobs(self) -> tuple[Job, ...]:
        """Return two jobs: the first leaves nothing behind once nobody wants the Score. The second looks
        whenever the Score is pushed or asked for, so that a difference is updated at once."""
        looking = Job(
            name=job_name(f"{_NAME}.look"),
            command=script(_LOOK),
            unless=self._run("look", self._path),
            undo=DOES_NOTHING,
            privileged=True,
            retry=True,
        )
        # A trial is not left without its end.
        taking_away = undone_by(_NAME, self._run("remove"))
        longer = {"time_limit_s": _UPDATED_WITHIN_S}
        return taking_away.model_copy(update=longer), looking

    def _unit(self) -> SystemdUnit:
        """Return the unit whose service updates the agent, and continues a trial after being killed and at
        the next boot."""
        command = self._run("update", self._path)
        content = oneshot(
            "The agent of Harmony, updated", command, lasting=True, restart="on-abnormal"
        )
        return SystemdUnit(
            name=_UNIT,
            content=content,
            uses=(self._path,),
            settle_s=0,
            start_timeout_s=_UPDATED_WITHIN_S,
        )


@cache
def _source() -> str:
    """Return the program that updates: the device's own Python runs it, and nothing that is updated."""
    return files("harmony_scores").joinpath("_agent_update.py").read_text()
