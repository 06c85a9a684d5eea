"""Jobs in memory: what a Score sees of a job runner.

Passes the same `JobRunnerContract` as the real one. Time stands still unless `pass_time` is called. What a
job does is decided by its command; one that is not known ends at once, and well::

    jobs = FakeJobs()
    jobs.programs[("/bin/false",)] = JobProgram(exit_code=1)
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import Finished, Job
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.jobs.reconciler import Jobs, Sight

from .fake_reconciler import FakeReconciler

__all__ = ["FakeJobs", "JobProgram"]

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class JobProgram:
    """What a job does that runs a certain command."""

    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    lasts_s: float = 0.0


@attrs.frozen
class _Run:
    job: Job
    since_s: float


class FakeJobs(FakeReconciler, Jobs):
    """A `JobRunner`'s reconciler."""

    def __init__(self) -> None:
        FakeReconciler.__init__(self)
        Jobs.__init__(self, self, MemoryRecords(), self)
        self.programs: dict[tuple[str, ...], JobProgram] = {}
        self.begun: list[tuple[str, ...]] = []
        """Every command that was run, in order."""
        self.boots = 1
        self.refused = ""
        """Why the device runs no jobs any more; empty as long as it does."""
        self._now_s = 0.0
        self._runs: dict[str, _Run] = {}

    async def change(self, path: str) -> None:
        """Change the file at *path*, as somebody else would: jobs whose answer depends on it are asked at
        once."""
        for name, job in list(self._known.items()):
            if path in job.asked_when_changed and await self.ask(name) == "needed":
                self._watch.tell(name)

    async def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, for the jobs."""
        self._now_s += seconds

    async def reboot(self) -> None:
        """Reboot: whatever runs is gone."""
        self.boots += 1
        self._runs.clear()

    async def runs(self, command: tuple[str, ...]) -> int:
        """Return how often *command* was run."""
        return self.begun.count(command)

    @property
    def boot_id(self) -> str:
        """As `JobEngine.boot_id`; with the verbs below, what the rules run jobs by."""
        return str(self.boots)

    def now(self) -> str:
        return rfc3339(_BEGINNING + timedelta(seconds=self._now_s))

    def refusal(self, resource: Job) -> str | None:  # noqa: ARG002 - the Protocol's
        return self.refused or None

    async def begin(self, job: Job, name: str) -> None:
        assert name not in self._runs
        self.begun.append(job.command)
        self._runs[name] = _Run(job, self._now_s)

    async def look(self, name: str) -> Sight | None:
        run = self._runs.get(name)
        if run is None:
            return None
        age_s = self._now_s - run.since_s
        since = rfc3339(_BEGINNING + timedelta(seconds=run.since_s))
        return Sight(since=since, age_s=age_s, end=self._end(run, age_s))

    async def let_go(self, name: str) -> None:
        self._runs.pop(name, None)

    def _end(self, run: _Run, age_s: float) -> Finished | None:
        program = self.programs.get(run.job.command, JobProgram())
        overdue = age_s >= run.job.time_limit_s
        if age_s < program.lasts_s and not overdue:
            return None
        return Finished(
            at=self.now(),
            exit_code=15 if overdue and age_s < program.lasts_s else program.exit_code,
            result="timeout"
            if overdue and age_s < program.lasts_s
            else "exit-code"
            if program.exit_code
            else "success",
            sha256="",
            stdout=program.stdout,
            stderr=program.stderr,
        )
