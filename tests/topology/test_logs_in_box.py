"""What real units and real containers have logged: the newest, those since, and whatever comes next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import NotOurs
from harmony_core.logs import Logged, LogLine
from harmony_core.resources import Container, Mount, Running, SystemdUnit
from harmony_pi_topology.containers.reconciler import PodmanContainers
from tests.box import Bed, Box
from tests.topology.box_containers import emptied as without_containers
from tests.topology.box_containers import without_tag
from tests.topology.box_units import UnitsOfABox
from tests.topology.box_units import emptied as without_units

SAID = "/srv/harmony-contract/said"
REPEAT = ("tail", "-n", "+1", "-f", SAID)
"""Logs every line of a file, and goes on as it grows."""
_numbers = count(1)


@attrs.frozen
class Source:
    """Something that logs what is written into a file, and what tells of its log."""

    logged: Logged
    key: str
    file: Path

    def say(self, *lines: str) -> None:
        with self.file.open("a") as file:
            file.writelines(f"{each}\n" for each in lines)

    async def logs(
        self, *, lines: int = 100, since: datetime | None = None, after: str | None = None
    ) -> list[LogLine]:
        """What it wrote itself."""
        told = await self.logged.logs(self.key, lines=lines, since=since, after=after)
        return [each for each in told if each.stream != "system"]

    async def until(self, text: str) -> list[LogLine]:
        """Its lines, once *text* is one of them."""
        async with asyncio.timeout(30):
            while text not in texts(told := await self.logs()):
                await asyncio.sleep(0.1)
            return told


def texts(lines: Sequence[LogLine]) -> list[str]:
    return [each.text for each in lines]


@pytest.fixture(params=["unit", "container"])
async def source(request: pytest.FixtureRequest, pi: Box, bed: Bed) -> AsyncGenerator[Source]:
    pi.write(SAID, "first\n")
    file = pi.root / SAID.lstrip("/")
    if request.param == "unit":
        units = UnitsOfABox(pi)
        systemd = units.opened()
        content = f"[Service]\nType=exec\nExecStart=/usr/bin/{' '.join(REPEAT)}\n"
        # The journal keeps what a unit of that name has logged before.
        name = f"harmony-contract-logger-{next(_numbers)}.service"
        unit = SystemdUnit(name=name, content=content, enabled=None)
        (made,) = await systemd.converge([unit], apply=True)
        assert isinstance(made, Change)
        yield Source(systemd, unit.name, file)
        await units.close()
        without_units(pi)
    else:
        containers = PodmanContainers(pi.podman_url, root=pi.root)
        await started(containers, logger(bed))
        yield Source(containers, "logger", file)
        await containers.close()
        without_containers(pi)


def logger(bed: Bed) -> Container:
    return Container(
        name="logger",
        image=bed.registry.push_busybox("logger", "1"),
        command=("busybox", *REPEAT),
        mounts=(Mount(source="/srv/harmony-contract", target="/srv/harmony-contract"),),
        stop_timeout_s=0,
    )


async def started(containers: PodmanContainers, wanted: Container) -> None:
    async with asyncio.timeout(60):
        while not isinstance(await containers.observe(wanted.name), Running):
            await containers.converge([wanted], apply=True)
            await asyncio.sleep(0.1)


async def test_what_was_logged_is_told_in_its_order_with_its_time(source: Source) -> None:
    source.say("second", "third")
    told = await source.until("third")
    assert texts(told) == ["first", "second", "third"]
    assert [each.at for each in told] == sorted(each.at for each in told)
    assert abs(told[0].at - datetime.now(UTC)) < timedelta(minutes=1)
    assert {each.stream for each in told} == {"out"}


async def test_the_newest_are_told_where_there_are_more(source: Source) -> None:
    source.say(*(f"line {n}" for n in range(50)))
    await source.until("line 49")
    assert texts(await source.logs(lines=3)) == ["line 47", "line 48", "line 49"]


async def test_going_on_from_any_line_misses_nothing_and_tells_nothing_twice(
    source: Source,
) -> None:
    had = await source.until("first")
    source.say(*(f"line {n}" for n in range(10)))
    await asyncio.sleep(1.1)
    source.say(*(f"line {n}" for n in range(10, 20)))
    whole = await source.until("line 19")
    async with asyncio.timeout(30):
        while len(had) < len(whole):
            had += await source.logs(lines=3, after=had[-1].cursor)
    assert texts(had) == texts(whole)
    assert await source.logs(after=had[-1].cursor) == []
    for before in range(1, len(whole)):
        (following,) = await source.logs(lines=1, after=whole[before - 1].cursor)
        assert following == whole[before]


async def test_what_is_older_than_asked_for_is_left_out(source: Source) -> None:
    (first,) = await source.until("first")
    await asyncio.sleep(2.1)
    source.say("late")
    await source.until("late")
    assert texts(await source.logs(since=first.at + timedelta(seconds=2))) == ["late"]
    assert await source.logs(since=datetime.now(UTC) + timedelta(hours=1)) == []


async def test_of_what_is_not_there_nothing_is_told(source: Source) -> None:
    assert list(await source.logged.logs(f"not-{source.key}", lines=10)) == []


async def test_what_a_container_says_on_standard_error_is_told_apart(pi: Box, bed: Bed) -> None:
    containers = PodmanContainers(pi.podman_url, root=pi.root)
    command = ("sh", "-c", "echo out; echo err >&2; sleep 1000")
    await started(containers, logger(bed).model_copy(update={"command": command, "mounts": ()}))
    source = Source(containers, "logger", Path())
    await source.until("out")
    told = await source.until("err")
    assert sorted((each.text, each.stream) for each in told) == [("err", "err"), ("out", "out")]
    await containers.close()
    without_containers(pi)


async def test_a_strangers_container_is_nobodys_business(pi: Box, bed: Bed) -> None:
    image = without_tag(bed.registry.push_busybox("logger", "1"))
    pi.run(["podman", "run", "-qd", "--name", "theirs", image, "echo", "secret"])
    containers = PodmanContainers(pi.podman_url, root=pi.root)
    with pytest.raises(NotOurs):
        await containers.logs("theirs", lines=10)
    await containers.close()
    without_containers(pi)
