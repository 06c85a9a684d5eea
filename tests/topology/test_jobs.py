"""Jobs: the contract, in memory and run by systemd in a box, and what only a real one can show."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    JobAttemptFailed,
    JobFailed,
    JobInterrupted,
    TimedOut,
    WriteFailed,
)
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import Finished, Job, Resource
from harmony_core.stage import Policy
from harmony_core.testing import AllowAll, FakeJobs, JobRunnerContract, JobsUnderTest
from harmony_pi_topology.jobs.systemd import Engine, SystemdJobs
from harmony_pi_topology.systemd.sdbus import SystemdBus
from harmony_pi_topology.systemd.waker import Waker
from harmony_pi_topology.testing.fake_jobs import JobProgram
from harmony_pi_topology.testing.jobs_contract import FORBIDDEN, PROGRAMS, RUNS
from tests.box import Box
from tests.soak import runs


class TestFakeJobs(JobRunnerContract):
    @pytest.fixture
    def host(self) -> JobsUnderTest:
        jobs = FakeJobs()
        jobs.programs.update(PROGRAMS)

        def forbidden() -> FakeJobs:
            jobs.refused = FORBIDDEN
            return jobs

        return JobsUnderTest(jobs=jobs, bystander=jobs, reopen=lambda: jobs, forbidden=forbidden)


class _Struck(FakeJobs):
    """What runs the jobs fails at the next call of this name, as a systemd that is executed anew."""

    def __init__(self) -> None:
        super().__init__()
        self.at: str | None = None
        self.error: CapabilityError = CapabilityUnavailable("gone without replying")

    def under_test(self) -> JobsUnderTest:
        return JobsUnderTest(jobs=self, bystander=self, reopen=lambda: self, forbidden=lambda: self)

    async def begin(self, job: Job, name: str) -> None:
        self._strike("begin")
        await super().begin(job, name)

    async def let_go(self, name: str) -> None:
        self._strike("let_go")
        await super().let_go(name)

    def _strike(self, call: str) -> None:
        if self.at == call:
            self.at = None
            raise self.error


ONCE = Job(name="once", command=("/usr/bin/true",))


@pytest.mark.parametrize("call", ["open", "mkdir", "iterdir", "exists", "read_text"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
def test_what_the_disk_refuses_of_a_jobs_output_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    engine = Engine(SystemdBus(None, waker=Waker(tmp_path)), tmp_path)
    monkeypatch.setattr(Path, call, refuse)
    of_call: dict[str, Callable[[], object]] = {
        "open": lambda: engine.tails("once"),
        "mkdir": lambda: engine.make_room("once"),
        "exists": lambda: engine.is_there("once"),
        "iterdir": lambda: engine.delete("once"),
        "read_text": lambda: engine.boot_id,
    }
    with pytest.raises(WriteFailed) as caught:
        of_call[call]()
    assert os.strerror(number) in caught.value.message.partition(";")[0]
    assert caught.value.message.partition("; ")[2]


async def test_one_that_could_not_be_begun_was_not_cut_short() -> None:
    jobs = _Struck()
    jobs.at = "begin"
    host = jobs.under_test()
    assert isinstance(await host.expect_failure(ONCE), CapabilityUnavailable)
    assert [*map(str, (await host.apply_one(ONCE)).steps)] == ["begun", "ran to its end"]
    assert jobs.begun == [ONCE.command]


async def test_one_of_which_nobody_has_said_whether_it_was_begun_may_have_been_cut_short() -> None:
    jobs = _Struck()
    jobs.at, jobs.error = "begin", TimedOut("nobody has answered")
    host = jobs.under_test()
    assert isinstance(await host.expect_failure(ONCE), TimedOut)
    assert isinstance(await host.expect_failure(ONCE), JobInterrupted)
    assert jobs.begun == []


@pytest.mark.parametrize("exit_code", [0, 3])
async def test_an_end_is_told_also_where_what_it_ran_in_cannot_be_cleared_away(
    exit_code: int,
) -> None:
    jobs = _Struck()
    jobs.programs[ONCE.command] = JobProgram(exit_code=exit_code)
    host = jobs.under_test()
    await host.look(ONCE)
    jobs.at = "let_go"
    ended = await host.look(ONCE)
    assert len(ended.steps) == 1
    assert ended.pending is not None
    assert await jobs.look(ONCE.name) is not None
    if exit_code:
        assert isinstance(await host.expect_failure(ONCE), JobFailed)
    else:
        assert (await host.apply_one(ONCE)).steps == ()
    assert await jobs.look(ONCE.name) is None
    assert jobs.begun == [ONCE.command]


@attrs.frozen
class BoxBystander:
    """Somebody else in a box."""

    box: Box

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def runs(self, command: tuple[str, ...]) -> int:
        assert "runs" in command[-1]
        path = self.box.root / f"{RUNS}/runs".lstrip("/")
        return len(path.read_text().splitlines()) if path.exists() else 0

    async def reboot(self) -> None:
        """Of jobs, nothing is left but what was noted."""
        await asyncio.to_thread(self.box.run, ["sh", "-c", _GONE])


class _AllowNone(AllowAll):
    def refusal(self, resource: Resource) -> str | None:
        return FORBIDDEN


# A mount that was just being made may stand after all once it is told to go.
_GONE = """
until systemctl stop 'harmony-job-*' 'run-harmony-jobs-*'; do sleep 0.1; done
systemctl reset-failed
rm -rf /run/harmony/jobs
"""


@pytest.fixture
async def on_a_pi(pi: Box) -> AsyncGenerator[JobsUnderTest]:
    pi.run(["sh", "-c", f"{_GONE} rm -rf {RUNS}"])
    records = MemoryRecords()
    opened: list[SystemdJobs] = []

    def reopen(policy: Policy | None = None) -> SystemdJobs:
        jobs = SystemdJobs(
            records=records, policy=policy or AllowAll(), address=pi.dbus_address, root=pi.root
        )
        opened.append(jobs)
        return jobs

    yield JobsUnderTest(
        jobs=reopen(),
        bystander=BoxBystander(pi),
        reopen=reopen,
        forbidden=lambda: reopen(_AllowNone()),
    )
    for each in opened:
        await each.close()
    listed = pi.text(
        *("systemctl", "list-units", "--all", "--plain", "--no-legend"),
        *("harmony-job-*", "run-harmony-jobs-*"),
    )
    left = [line.split()[0] for line in listed.splitlines()]
    pi.run(["sh", "-c", _GONE])
    assert not [each for each in left if ".unless" in each or ".undo" in each]
    # What it writes has room of its own only as long as it is there itself.
    assert len([each for each in left if each.endswith(".mount")]) <= len(left) / 2


class TestSystemdJobsOnAPi(JobRunnerContract):
    @pytest.fixture
    def host(self, on_a_pi: JobsUnderTest) -> JobsUnderTest:
        return on_a_pi


def confined(script: str, **fields: Any) -> Job:
    return Job(name="confined", command=("/bin/sh", "-c", script), **fields)


async def said(host: JobsUnderTest, job: Job) -> str:
    state = (await host.apply_one(job)).after
    assert isinstance(state, Finished)
    return state.stdout


async def test_one_that_is_not_privileged_can_do_nothing_to_the_device(
    on_a_pi: JobsUnderTest, pi: Box
) -> None:
    script = """
    touch /etc/here /usr/here /var/here /run/here /home/here /root/here && echo wrote
    cat /etc/shadow && echo read
    ls /root && echo listed
    echo 1 > /proc/sys/net/ipv4/ip_forward && echo set
    mount -t tmpfs none /mnt && echo mounted
    unshare -r true && echo unshared
    kill -0 1 && echo signalled
    test -r /run/podman/podman.sock && echo podman
    systemctl stop cron 2>/dev/null && echo stopped
    grep -v -e '|' -e ' lo:' /proc/net/dev && echo network
    grep CapEff /proc/self/status
    test "$(id -u)" -ge 60000 && echo nobody in particular
    touch /tmp/here && echo tmp
    true
    """
    told = (await said(on_a_pi, confined(script))).split("\n")
    assert [line.partition(":")[0] for line in told] == ["CapEff", "nobody in particular", "tmp"]
    assert told[0].split() == ["CapEff:", "0000000000000000"]
    assert not (pi.root / "tmp/here").exists()


async def test_what_it_is_given_arrives_as_it_is(on_a_pi: JobsUnderTest) -> None:
    script = r"""echo "$A ${A} $1 %n %% $$" | sed 's/ [0-9]*$//'"""
    job = Job(
        name="confined",
        command=("/bin/sh", "-c", script, "sh", "100% $HOME"),
        environment={"A": "$b %i"},
    )
    assert await said(on_a_pi, job) == "$b %i $b %i 100% $HOME %n %%"


async def test_a_network_is_there_for_one_that_asks(on_a_pi: JobsUnderTest) -> None:
    links = "ip -o link | grep -vc ' lo:'"
    assert await said(on_a_pi, confined(links, network=True)) == "1"


async def test_one_that_writes_without_end_is_ended(on_a_pi: JobsUnderTest, pi: Box) -> None:
    error = await on_a_pi.expect_failure(confined("yes", output_bytes=4096))
    assert isinstance(error, JobFailed)
    assert "y\ny" in error.message
    assert not list((pi.root / "run/harmony/jobs").iterdir())


async def test_a_privileged_one_can_write_no_more_than_it_may_and_files_of_any_size(
    on_a_pi: JobsUnderTest, pi: Box
) -> None:
    jobs = pi.root / "run/harmony/jobs"
    script = "yes; head -c 100000 /dev/zero > /run/x; sleep 1000"
    job = confined(script, privileged=True, output_bytes=4096)
    await on_a_pi.look(job)
    await asyncio.to_thread(pi.wait_for, ["test", "-s", "/run/x"])
    (directory,) = jobs.iterdir()
    assert sum(path.stat().st_size for path in directory.iterdir()) == 2 * 4096
    assert (pi.root / "run/x").stat().st_size == 100_000
    await on_a_pi.remove_one("confined")
    assert not list(jobs.iterdir())


async def test_one_that_leaves_something_running_can_be_let_go_and_run_again(
    on_a_pi: JobsUnderTest, pi: Box
) -> None:
    script = "systemd-run --quiet --scope --unit=harmony-left sleep 1000 & sleep 1; exit 3"
    job = confined(script, privileged=True, retry=True)
    assert isinstance(await on_a_pi.expect_failure(job), JobAttemptFailed)
    assert pi.text("systemctl", "is-active", "harmony-left.scope") == "active"
    job = confined("echo done", privileged=True)
    assert await said(on_a_pi, job) == "done"
    assert not list((pi.root / "run/harmony/jobs").iterdir())
    pi.run(["systemctl", "stop", "harmony-left.scope"])


@pytest.mark.soak
async def test_many_at_once_come_to_their_end_and_go(on_a_pi: JobsUnderTest) -> None:
    """Each mounts something: it is then that systemd may fall asleep over what it is asked."""
    rounds = runs(100)

    async def run_again_and_again(name: str) -> None:
        job = Job(name=name, command=("/bin/sleep", "0.1"), privileged=True)
        for _ in range(rounds):
            await on_a_pi.apply_one(job)
            await on_a_pi.remove_one(name)

    await asyncio.gather(*(run_again_and_again(f"short-{n}") for n in range(12)))


async def test_a_privileged_one_is_bounded_in_memory_and_tasks(
    on_a_pi: JobsUnderTest, pi: Box
) -> None:
    await on_a_pi.look(confined("sleep 1000", privileged=True))
    told = pi.text("systemctl", "show", "-p", "TasksMax,LimitAS", "harmony-job-confined")
    assert sorted(told.splitlines()) == [f"LimitAS={512 * 2**20}", "TasksMax=512"]


@pytest.mark.parametrize("privileged", [False, True])
async def test_one_that_takes_too_much_memory_is_refused_it(
    on_a_pi: JobsUnderTest, privileged: bool
) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=256M count=1"
    hungry = confined(script, memory_bytes=64 * 2**20, privileged=privileged)
    error = await on_a_pi.expect_failure(hungry)
    assert isinstance(error, JobFailed)
    assert "memory" in error.message


async def test_what_it_says_does_not_act_on_a_terminal(on_a_pi: JobsUnderTest) -> None:
    assert await said(on_a_pi, confined(r"printf 'red \033[31m'")) == "red \ufffd[31m"
