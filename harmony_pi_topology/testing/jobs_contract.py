"""The contract of `JobRunner`: what every reconciler of jobs passes, fake and real.

::

    class TestMyJobs(JobRunnerContract):
        @pytest.fixture
        def host(self) -> JobsUnderTest: ...

The jobs are shell scripts, which a fake knows by `PROGRAMS`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import attrs
import pytest

from harmony_core.change import Change, NotReady, UnknownUntilApplied
from harmony_core.errors import JobAttemptFailed, JobFailed, JobInterrupted
from harmony_core.reconciler import Reconciler
from harmony_core.resources import Finished, InProgress, Job, JobState, NotNeeded
from harmony_core.steps import Step

from .fake_jobs import JobProgram

__all__ = ["PROGRAMS", "JobBystander", "JobRunnerContract", "JobsUnderTest"]

RUNS = "/run/harmony-contract"
FORBIDDEN = "this device runs no jobs any more"


def _script(text: str) -> tuple[str, ...]:
    """Return a script that adds a line to a file each time it is run, and then runs *text*."""
    return ("/bin/sh", "-c", f"mkdir -p {RUNS}; echo x >> {RUNS}/runs; {text}")


WORKS = _script("echo done; echo careful >&2")
SLEEPS = _script("sleep 1000")
NAPS = _script("sleep 2")
FAILS = _script("echo boom; echo bang >&2; exit 3")
UNDO = _script("echo undone")
YES = ("/bin/sh", "-c", "exit 0")
NO = ("/bin/sh", "-c", "exit 1")
NOWHERE = ("/usr/bin/no-such-program",)

PROGRAMS: Mapping[tuple[str, ...], JobProgram] = MappingProxyType(
    {
        WORKS: JobProgram(stdout="done", stderr="careful"),
        SLEEPS: JobProgram(lasts_s=1000.0),
        NAPS: JobProgram(lasts_s=2.0),
        FAILS: JobProgram(exit_code=3, stdout="boom", stderr="bang"),
        NO: JobProgram(exit_code=1),
        NOWHERE: JobProgram(exit_code=203),
    }
)
"""The commands above, as `FakeJobs.programs`."""

_LOOKS = 200


class JobBystander(Protocol):
    """Somebody else on the same device."""

    async def pass_time(self, seconds: float) -> None:
        """Wait for *seconds* of the jobs' time."""

    async def runs(self, command: tuple[str, ...]) -> int:
        """Return how often *command*, the only one of the test that is counted, was run."""
        ...

    async def reboot(self) -> None:
        """Have everything gone that runs."""


@attrs.frozen(kw_only=True)
class JobsUnderTest:
    """A reconciler of jobs, and somebody else on the same device."""

    jobs: Reconciler[Job, JobState]
    bystander: JobBystander
    reopen: Callable[[], Reconciler[Job, JobState]]
    """Makes another reconciler with the same records, as an agent does that starts again."""
    forbidden: Callable[[], Reconciler[Job, JobState]]
    """Likewise, on a device that by now allows no jobs, because of `FORBIDDEN`."""

    async def look(self, job: Job) -> Change:
        (result,) = await self.jobs.converge([job], apply=True)
        return _change(result)

    async def plan_one(self, job: Job) -> Change:
        (result,) = await self.jobs.converge([job], apply=False)
        return _change(result)

    async def apply_one(self, job: Job) -> Change:
        """Look until it has converged: the last Change, with all that was done on the way."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            change = await self.look(job)
            steps += change.steps
            if change.pending is None:
                return attrs.evolve(change, steps=steps)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{job.name} did not converge in {_LOOKS} looks")

    async def expect_failure(self, job: Job) -> Exception:
        """Look until it fails: its error."""
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await self.apply_one(job)
        return raised.value

    async def remove_one(self, name: str) -> tuple[str, ...]:
        """Remove it until it is gone: what was done."""
        actions: tuple[str, ...] = ()
        for _ in range(_LOOKS):
            (result,) = await self.jobs.remove([name], apply=True)
            change = _change(result)
            actions += change.actions
            if change.pending is None:
                return actions
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{name} was not removed in {_LOOKS} looks")


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class JobRunnerContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> JobsUnderTest:
        """Return a device on which no job was run."""

    def job(self, command: tuple[str, ...] = WORKS, **fields: Any) -> Job:
        return Job.model_validate(
            {"name": "contract", "command": command, "privileged": True, **fields}
        )

    async def test_it_is_run_to_its_end_once(self, host: JobsUnderTest) -> None:
        assert await host.jobs.observe("contract") is None
        change = await host.apply_one(self.job())
        assert change.actions == ("begun", "ran to its end")
        assert isinstance(change.after, Finished)
        assert (change.after.exit_code, change.after.result) == (0, "success")
        assert (change.after.stdout, change.after.stderr) == ("done", "careful")
        assert change.after.sha256 == self.job().run_hash
        assert await host.jobs.observe("contract") == change.after
        for jobs in (host.jobs, host.reopen()):
            again = await attrs.evolve(host, jobs=jobs).look(self.job())
            assert (again.actions, again.pending) == ((), None)
        assert await host.bystander.runs(WORKS) == 1

    async def test_a_plan_runs_nothing(self, host: JobsUnderTest) -> None:
        planned = await host.plan_one(self.job())
        assert planned.actions == ("begun",)
        assert planned.diff is not None
        assert "+/bin/sh\n" in planned.diff
        assert await host.bystander.runs(WORKS) == 0
        await host.apply_one(self.job())
        assert (await host.plan_one(self.job())).actions == ()

    async def test_it_is_run_again_when_it_has_changed(self, host: JobsUnderTest) -> None:
        await host.apply_one(self.job())
        change = await host.apply_one(self.job(environment={"MODE": "quiet"}))
        assert change.actions == ("begun", "ran to its end")
        assert await host.bystander.runs(WORKS) == 2

    async def test_what_it_is_only_bounded_by_does_not_run_it_again(
        self, host: JobsUnderTest
    ) -> None:
        await host.apply_one(self.job())
        other = self.job(time_limit_s=10, retry=True, output_bytes=2048, memory_bytes=2**28)
        assert (await host.look(other)).actions == ()

    async def test_one_that_has_failed_is_run_again_once_its_limits_are_others(
        self, host: JobsUnderTest
    ) -> None:
        short, long = (self.job(NAPS, time_limit_s=each) for each in (1, 60))
        assert "its time limit" in str(await host.expect_failure(short))
        assert (await host.plan_one(long)).actions == ("begun",)
        assert (await host.apply_one(long)).actions == ("begun", "ran to its end")
        assert await host.bystander.runs(NAPS) == 2

    async def test_limits_that_are_others_while_it_runs_hold_for_the_next_time(
        self, host: JobsUnderTest
    ) -> None:
        short, long = (self.job(NAPS, time_limit_s=each) for each in (1, 60))
        await host.look(short)
        change = await host.apply_one(long)
        assert change.actions[-2:] == ("begun", "ran to its end")
        assert change.actions[0].startswith("failed: was ended: it took longer")

    async def test_while_it_runs_it_is_in_progress(self, host: JobsUnderTest) -> None:
        begun = await host.look(self.job(NAPS))
        assert isinstance(begun.after, InProgress)
        for jobs in (host.jobs, host.reopen()):
            change = await attrs.evolve(host, jobs=jobs).look(self.job(NAPS))
            assert change.actions == ()
            assert isinstance(change.pending, NotReady)
            assert change.pending.reason == "Progressing"
            assert change.pending.message.startswith("contract runs since 20")
        assert (await host.apply_one(self.job(NAPS))).actions == ("ran to its end",)
        assert await host.bystander.runs(NAPS) == 1

    async def test_one_that_fails_is_told_with_what_it_said_and_not_run_again(
        self, host: JobsUnderTest
    ) -> None:
        error = await host.expect_failure(self.job(FAILS))
        assert isinstance(error, JobFailed)
        assert error.message.startswith("job contract exited with code 3")
        assert "output:\nboom" in error.message
        assert "errors:\nbang" in error.message
        for _ in range(2):
            assert isinstance(await host.expect_failure(self.job(FAILS)), JobFailed)
        with pytest.raises(JobFailed):
            await host.plan_one(self.job(FAILS))
        assert await host.bystander.runs(FAILS) == 1

    async def test_one_that_may_is_run_again_after_its_failure_was_told(
        self, host: JobsUnderTest
    ) -> None:
        job, told = self.job(FAILS, retry=True), ""
        for count in (1, 2, 3):
            error = await host.expect_failure(job)
            assert isinstance(error, JobAttemptFailed)
            told = error.message
            assert await host.bystander.runs(FAILS) == count
        again = await host.look(job)
        assert again.pending is not None
        assert "the last time it failed" in str(again.pending)
        assert told[:100] in str(again.pending)

    async def test_a_program_that_is_not_there_is_told(self, host: JobsUnderTest) -> None:
        error = await host.expect_failure(self.job(NOWHERE))
        assert isinstance(error, JobFailed)
        assert "could not be run (exit code 203" in error.message

    async def test_one_that_takes_too_long_is_ended(self, host: JobsUnderTest) -> None:
        error = await host.expect_failure(self.job(SLEEPS, time_limit_s=1))
        assert isinstance(error, JobFailed)
        assert "took longer than its time limit" in error.message

    async def test_one_that_was_cut_short_is_not_run_again(self, host: JobsUnderTest) -> None:
        await host.look(self.job(SLEEPS))
        await host.bystander.pass_time(0.5)
        await host.bystander.reboot()
        for _ in range(2):
            assert isinstance(await host.expect_failure(self.job(SLEEPS)), JobInterrupted)
        assert await host.bystander.runs(SLEEPS) == 1

    async def test_one_that_was_cut_short_is_run_again_where_it_may(
        self, host: JobsUnderTest
    ) -> None:
        job = self.job(NAPS, retry=True)
        await host.look(job)
        await host.bystander.reboot()
        assert (await host.apply_one(job)).actions == ("begun", "ran to its end")

    async def test_a_newer_one_ends_the_older(self, host: JobsUnderTest) -> None:
        await host.look(self.job(SLEEPS))
        change = await host.apply_one(self.job(WORKS))
        assert change.actions == ("begun", "ran to its end")

    async def test_it_is_not_run_where_its_question_says_so(self, host: JobsUnderTest) -> None:
        job = self.job(unless=YES)
        planned = await host.plan_one(job)
        assert planned.actions == ()
        assert isinstance(planned.pending, UnknownUntilApplied)
        change = await host.apply_one(job)
        assert change.actions == ()
        assert isinstance(change.after, NotNeeded)
        assert (await host.plan_one(job)).pending is None
        assert await host.bystander.runs(WORKS) == 0

    async def test_it_is_run_where_its_question_says_so(self, host: JobsUnderTest) -> None:
        change = await host.apply_one(self.job(unless=NO))
        assert change.actions == ("begun", "ran to its end")
        assert (await host.look(self.job(unless=NO))).actions == ()

    async def test_a_question_that_cannot_be_asked_runs_nothing(self, host: JobsUnderTest) -> None:
        error = await host.expect_failure(self.job(unless=NOWHERE))
        assert isinstance(error, JobFailed)
        assert "whether it is needed cannot be told" in error.message
        assert await host.bystander.runs(WORKS) == 0

    async def test_what_is_run_on_behalf_of_one_is_no_other_job(self, host: JobsUnderTest) -> None:
        others = [self.job(SLEEPS, name=f"contract-{word}") for word in ("unless", "undo")]
        for other in others:
            await host.look(other)
        await host.apply_one(self.job(YES, unless=NO, undo=YES))
        await host.remove_one("contract")
        for other in others:
            assert isinstance((await host.look(other)).pending, NotReady)

    async def test_when_it_goes_what_it_did_stays(self, host: JobsUnderTest) -> None:
        await host.apply_one(self.job())
        assert await host.remove_one("contract") == ("forgotten: what it did stays",)
        assert await host.remove_one("contract") == ()
        assert await host.jobs.observe("contract") is None
        assert (await host.apply_one(self.job())).actions == ("begun", "ran to its end")

    async def test_one_that_runs_is_ended_when_it_goes(self, host: JobsUnderTest) -> None:
        await host.look(self.job(SLEEPS))
        assert await host.remove_one("contract") == ("forgotten: what it did stays",)
        assert (await host.apply_one(self.job())).actions == ("begun", "ran to its end")

    async def test_what_can_be_undone_is_undone_when_it_goes(self, host: JobsUnderTest) -> None:
        await host.apply_one(self.job(YES, undo=UNDO))
        (planned,) = await host.jobs.remove(["contract"], apply=False)
        assert isinstance(planned, Change)
        assert "+echo undone" not in (planned.diff or "")
        assert "echo undone\n" in (planned.diff or "")
        assert await host.remove_one("contract") == ("undone",)
        assert await host.bystander.runs(UNDO) == 1
        assert await host.remove_one("contract") == ()

    async def test_what_was_not_needed_is_not_undone(self, host: JobsUnderTest) -> None:
        await host.apply_one(self.job(WORKS, unless=YES, undo=UNDO))
        assert await host.remove_one("contract") == ("forgotten: what it did stays",)
        assert await host.bystander.runs(UNDO) == 0

    async def test_what_knows_by_itself_what_to_take_back_is_undone_though_it_was_not_needed(
        self, host: JobsUnderTest
    ) -> None:
        await host.apply_one(self.job(WORKS, unless=YES, undo=UNDO, undo_always=True))
        assert await host.remove_one("contract") == ("undone",)
        assert await host.bystander.runs(UNDO) == 1

    async def test_what_was_done_is_undone_though_it_was_not_needed_later(
        self, host: JobsUnderTest
    ) -> None:
        await host.apply_one(self.job(YES, undo=UNDO))
        await host.apply_one(self.job(YES, undo=UNDO, unless=YES))
        assert await host.remove_one("contract") == ("undone",)

    async def test_what_is_not_allowed_any_more_is_not_run_to_undo_it(
        self, host: JobsUnderTest
    ) -> None:
        await host.apply_one(self.job(YES, undo=UNDO))
        later = attrs.evolve(host, jobs=host.forbidden())
        (planned,) = await later.jobs.remove(["contract"], apply=False)
        words = (f"forgotten: what it did stays, since {FORBIDDEN}",)
        assert isinstance(planned, Change)
        assert planned.actions == words
        assert await later.remove_one("contract") == words
        assert await later.jobs.observe("contract") is None
        assert await host.bystander.runs(UNDO) == 0

    async def test_what_could_not_be_undone_is_tried_again(self, host: JobsUnderTest) -> None:
        await host.apply_one(self.job(YES, undo=FAILS))
        for count in (1, 2):
            with pytest.raises(JobAttemptFailed, match="exited with code 3"):
                await host.remove_one("contract")
            assert await host.bystander.runs(FAILS) == count
