"""What a job did is asked about again: when somebody asks, pushes, or has changed what it is seen in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from harmony_core import HasJobs, Inventory, Job, Outcome, Score, outcome_of
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeJobs, JobProgram
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.manifest import ScorePolicy

from .rig import code, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

COMMAND, QUESTION = ("/bin/install",), ("/bin/is-there",)
SEEN_IN = "/var/lib/there"
MISSING, BUSY, THERE = JobProgram(exit_code=1), JobProgram(exit_code=75), JobProgram()


class Installed(Score[HasJobs]):
    watched: bool = True
    recurring: bool = False

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:
        job = Job(
            name="installed",
            command=COMMAND,
            unless=QUESTION,
            asked_when_changed=(SEEN_IN,) if self.watched else (),
            recurring=self.recurring,
        )
        return outcome_of(await topology.jobs.ensure(job))


WATCHED = entry(Installed(), "installed")
UNWATCHED = entry(Installed(watched=False), "installed")
TOLD = entry(Installed(), "installed", policy=ScorePolicy(drift="report"))


def page(device: VirtualDevice) -> ScoreStatus:
    assert device.bus.told is not None
    return device.bus.told.scores["installed"]


@pytest.fixture
def jobs() -> FakeJobs:
    jobs = FakeJobs()
    jobs.programs[QUESTION] = MISSING
    return jobs


@pytest.fixture
def offers(jobs: FakeJobs) -> Offers:
    return {"JobRunner": jobs}


async def settle(jobs: FakeJobs) -> None:
    """Let everything that is due be done; what was installed is there."""
    await asyncio.sleep(5)
    jobs.programs[QUESTION] = THERE


async def test_what_somebody_removes_is_drift_and_put_right(
    tmp_path: Path, jobs: FakeJobs, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([WATCHED])
        await settle(jobs)
        jobs.programs[QUESTION] = MISSING
        await jobs.change(SEEN_IN)
        await settle(jobs)
        assert jobs.begun.count(COMMAND) == 2
        assert page(it).drift_count == 1
        assert page(it).outcome.status == "SUCCESS"
        # What its own repair has changed, and what others change, is looked at, and nothing is done.
        asked = jobs.begun.count(QUESTION)
        with it.commits() as commits:
            await jobs.change(SEEN_IN)
            await asyncio.sleep(5)
        assert commits == []
        assert jobs.begun.count(QUESTION) == asked + 1
        assert jobs.begun.count(COMMAND) == 2
        assert page(it).drift_count == 1


@pytest.mark.parametrize("drift", ["enforce", "report"])
async def test_what_is_due_again_and_again_is_no_drift_and_waits_for_nothing(
    tmp_path: Path, jobs: FakeJobs, offers: Offers, drift: Literal["enforce", "report"]
) -> None:
    again = entry(Installed(recurring=True), "installed", policy=ScorePolicy(drift=drift))
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([again])
        await settle(jobs)
        for times in range(2, 6):
            jobs.programs[QUESTION] = MISSING
            await jobs.change(SEEN_IN)
            await settle(jobs)
            assert jobs.begun.count(COMMAND) == times
        assert page(it).drift_count == 0
        assert page(it).outcome.status == "SUCCESS"
        assert {each["why"] for each in it.events()} == {"desired"}
        assert it.bus.told is not None
        assert [each.reason for each in it.bus.told.conditions if each.type == "Degraded"] == [
            "AllWell"
        ]


async def test_who_asks_has_it_looked_at(tmp_path: Path, jobs: FakeJobs, offers: Offers) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([UNWATCHED])
        await settle(jobs)
        jobs.programs[QUESTION] = MISSING
        it.agent.controller.drift.insist("installed", enforce=False)
        it.agent.queue.enqueue("installed")
        await settle(jobs)
        assert jobs.begun.count(COMMAND) == 2
        assert page(it).outcome.status == "SUCCESS"


async def test_who_pushes_has_it_looked_at(tmp_path: Path, jobs: FakeJobs, offers: Offers) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([UNWATCHED])
        await settle(jobs)
        asked = jobs.begun.count(QUESTION)
        await it.pages([UNWATCHED], after_s=5)
        assert jobs.begun.count(QUESTION) == asked + 1
        assert jobs.begun.count(COMMAND) == 1
        jobs.programs[QUESTION] = MISSING
        await it.pages([UNWATCHED], after_s=5)
        assert jobs.begun.count(COMMAND) == 2
        # Nobody asks: nothing is asked.
        await settle(jobs)
        asked = jobs.begun.count(QUESTION)
        await asyncio.sleep(1000)
        assert jobs.begun.count(QUESTION) == asked


async def test_what_cannot_be_told_now_is_not_told_as_in_order(
    tmp_path: Path, jobs: FakeJobs, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([WATCHED])
        await settle(jobs)
        jobs.programs[QUESTION] = BUSY
        await it.pages([WATCHED], after_s=5)
        assert page(it).outcome.status == "RUNNING"
        jobs.programs[QUESTION] = THERE
        await asyncio.sleep(10)
        assert page(it).outcome.status == "NOOP"
        assert jobs.begun.count(COMMAND) == 1


async def test_where_drift_is_only_told_it_is_told(
    tmp_path: Path, jobs: FakeJobs, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([TOLD])
        await settle(jobs)
        assert page(it).outcome.status == "SUCCESS"
        jobs.programs[QUESTION] = MISSING
        await jobs.change(SEEN_IN)
        await asyncio.sleep(5)
        assert code(page(it)) == "Drifted"
        await it.pages([TOLD], after_s=5)
        assert code(page(it)) == "Drifted"
        assert jobs.begun.count(COMMAND) == 1
        jobs.programs[QUESTION] = THERE
        await jobs.change(SEEN_IN)
        it.agent.queue.enqueue("installed")
        await asyncio.sleep(5)
        assert page(it).outcome.status == "NOOP"


async def test_where_drift_is_only_told_who_asks_is_told_what_is_so(
    tmp_path: Path, jobs: FakeJobs, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, Installed, jobs="any") as it:
        await it.pages([TOLD])
        await settle(jobs)
        await it.pages([TOLD], after_s=5)
        assert page(it).outcome.status == "NOOP"
        jobs.programs[QUESTION] = MISSING
        it.agent.controller.drift.insist("installed", enforce=False)
        it.agent.queue.enqueue("installed")
        await asyncio.sleep(5)
        assert code(page(it)) == "Drifted"
        assert jobs.begun.count(COMMAND) == 1
