"""Hearing of the end of processes: real ones, of which podman would say that they are a container's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from harmony_core.testing import Hearer
from harmony_pi_topology.containers.exit_watcher import ContainerEnds
from harmony_pi_topology.containers.podman_reply import FoundContainer


class Processes:
    """Sleeping ones, of one container after another."""

    def __init__(self) -> None:
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def begin(self) -> int:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        self._running[process.pid] = process
        return process.pid

    async def end(self, pid: int) -> None:
        process = self._running.pop(pid)
        process.kill()
        await process.wait()

    async def end_all(self) -> None:
        for pid in list(self._running):
            await self.end(pid)


@pytest.fixture
async def processes() -> AsyncGenerator[Processes]:
    processes = Processes()
    yield processes
    await processes.end_all()


@pytest.fixture
async def ends() -> AsyncGenerator[ContainerEnds]:
    ends = ContainerEnds()
    yield ends
    ends.close()


@pytest.fixture
def told() -> Hearer:
    return Hearer()


def found(*processes: int, name: str = "web", status: str = "running") -> FoundContainer:
    return FoundContainer(
        id="0",
        name=name,
        labels={},
        status=status,
        started_at=datetime.now(UTC),
        finished_at=datetime.now(UTC),
        exit_code=0,
        restarts=0,
        image="web:1",
        stop_timeout_s=0,
        stopped_by_user=False,
        processes=processes,
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_end_is_told_at_once_and_again_when_podman_has_noticed(
    processes: Processes, ends: ContainerEnds, told: Hearer
) -> None:
    container, monitor = await processes.begin(), await processes.begin()
    ends.note_found(found(container, monitor))
    assert ends.watch(["web"], told) == []
    await processes.end(container)
    await told.hears("web")
    await processes.end(monitor)
    await told.hears("web")


async def test_one_that_has_ended_is_not_told_again_while_podman_has_not_noticed(
    processes: Processes, ends: ContainerEnds, told: Hearer
) -> None:
    """Or each look would lead to the next."""
    container, monitor = await processes.begin(), await processes.begin()
    ends.watch(["web"], told)
    ends.note_found(found(container, monitor))
    await processes.end(container)
    await told.hears("web")
    for _ in range(3):
        ends.note_found(found(container, monitor))
    await told.is_at_rest()
    assert told.heard == []


async def test_one_that_ended_before_it_could_be_held_is_told_once(
    processes: Processes, ends: ContainerEnds, told: Hearer
) -> None:
    container = await processes.begin()
    await processes.end(container)
    ends.watch(["web"], told)
    ends.note_found(found(container))
    await told.hears("web")
    ends.note_found(found(container))
    await told.is_at_rest()
    assert told.heard == []


async def test_what_is_not_known_is_to_be_looked_at_once(
    processes: Processes, ends: ContainerEnds, told: Hearer
) -> None:
    ends.note_found(found(await processes.begin()))
    assert ends.watch(["web", "db"], told) == ["db"]
    assert ends.watch(["web", "db"], told) == []
    assert ends.watch(["web"], told) == []
    assert ends.watch(["web", "db"], told) == ["db"]


async def test_one_that_does_not_run_holds_nothing(ends: ContainerEnds, told: Hearer) -> None:
    before = descriptors()
    ends.note_found(found(status="exited"))
    assert descriptors() == before


async def test_a_kernel_that_gives_no_descriptor_leaves_it_to_looking(told: Hearer) -> None:
    def refuse(process: int) -> int:
        raise PermissionError

    ends = ContainerEnds(refuse)
    ends.watch(["web"], told)
    ends.note_found(found(os.getpid()))
    await told.is_at_rest()
    assert told.heard == []
    ends.close()


async def test_descriptors_are_given_back(processes: Processes, told: Hearer) -> None:
    one, other = await processes.begin(), await processes.begin()
    before = descriptors()
    ends = ContainerEnds()
    for n in range(10):
        ends.note_found(found(one if n % 2 else other, other if n % 2 else one))
    assert descriptors() == before + 2
    ends.watch([], told)
    assert descriptors() == before
    ends.watch(["web"], told)
    ends.note_found(found(one, other))
    ends.note_found(found(one, name="db"))
    assert descriptors() == before + 2
    for _ in range(2):
        ends.close()
        assert descriptors() == before
    ends.note_found(found(one, other))
    assert descriptors() == before
