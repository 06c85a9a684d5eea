"""ShellJobScore: a shell script that is run once, where nothing better describes what is wanted."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harmony_core import HasJobs, Inventory, Job, Outcome, Score, outcome_of
from harmony_core.content import Text
from harmony_core.resources import Environment, JobName, Seconds

from ._whole import refused_as_fields

__all__ = ["ShellJobScore"]

_SHELL = ("/bin/sh", "-eu", "-c")


class ShellJobScore(Score[HasJobs]):
    """``script`` has been run to its end by /bin/sh, once; again when it, or what it is run with, changes.

    For what no other Score can say: those know what they made, mend it and take it away; this knows only
    that a script has ended well. It runs confined, as nobody in particular, unless it is ``privileged``;
    and only on a device whose own policy allows that. When the Score is removed, what it did stays.
    """

    name: JobName = Field(description="Its name, the only one of that name.")
    script: Text = Field(
        min_length=1,
        max_length=32 * 1024,
        description="For /bin/sh -eu: it ends at the first command that fails.",
    )
    unless: Text | None = Field(
        default=None,
        max_length=4096,
        description="A script that is asked first, once after each boot, and at each push and harmony "
        "reconcile: where it ends with 0, nothing is to be done; where with another code, the script is "
        "run; with 75, it is asked again soon. It can change nothing.",
    )
    environment: Environment = Field(
        default_factory=dict,
        description="Environment variables by name. No secrets: all can read them.",
    )
    network: bool = Field(default=False, description="Whether it may reach the network.")
    privileged: bool = Field(
        default=False, description="Whether it runs as root, with all of the device in its reach."
    )
    retry: bool = Field(
        default=False,
        description="Whether it may be run again after it has failed or was cut short.",
    )
    time_limit_s: Seconds = Field(
        default=300.0, description="How long it may take before it is ended, in seconds."
    )
    memory_bytes: Annotated[int, Field(ge=16 * 1024 * 1024)] = Field(
        default=512 * 1024 * 1024,
        description="Its address space, in bytes.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._job()
        return self

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.jobs.ensure(self._job()))

    def _job(self) -> Job:
        return Job(
            name=self.name,
            command=(*_SHELL, self.script),
            unless=() if self.unless is None else (*_SHELL, self.unless),
            environment=self.environment,
            network=self.network,
            privileged=self.privileged,
            retry=self.retry,
            time_limit_s=self.time_limit_s,
            memory_bytes=self.memory_bytes,
        )
