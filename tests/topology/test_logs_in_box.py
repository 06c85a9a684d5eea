"""What real units and real containers have logged: the newest, those since, and whatever comes next.

Of containers, in podman's own file and in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import ContainerFailed, NotOurs
from harmony_core.logs import Logged, LogLine
from harmony_core.resources import Container, Mount, Running, SystemdUnit
from harmony_core.resources.container_parts import LogDriver
from harmony_pi_topology.common.journal import Journal
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
LONG = r"""use Socket;
socket(my $journal, PF_UNIX, SOCK_DGRAM, 0) or die;
setsockopt($journal, SOL_SOCKET, 32, pack("i", 8_000_000));  # SO_SNDBUFFORCE
connect($journal, sockaddr_un("/run/systemd/journal/socket")) or die;
for my $text ("one", "\xff" x 400_000, "two") {
    send($journal, "MESSAGE\n" . pack("Q<", length $text) . "$text\n", 0) or die;
}
sleep 1000;
"""


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


@pytest.fixture(params=["unit", "k8s-file", "journald"])
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
        containers = opened(pi)
        # The journal keeps what a container of that name has logged before.
        container = logger(bed, log_driver=request.param, name=f"logger-{next(_numbers)}")
        await started(containers, container)
        yield Source(containers, container.name, file)
        await containers.close()
        without_containers(pi)


@pytest.fixture
async def containers(pi: Box) -> AsyncGenerator[PodmanContainers]:
    containers = opened(pi)
    yield containers
    await containers.close()
    without_containers(pi)


def opened(pi: Box) -> PodmanContainers:
    journal = Journal(pi.inside(["journalctl"]))
    return PodmanContainers(pi.podman_url, root=pi.root, journal=journal)


def logger(
    bed: Bed, *, log_driver: LogDriver = "k8s-file", name: str = "logger", says: str | None = None
) -> Container:
    """One that repeats the file, or that runs *says* in a shell, and goes on."""
    made = _repeater(bed, log_driver, name)
    if says is None:
        return made
    command = ("sh", "-c", f"{says}\nexec sleep 1000")
    return made.model_copy(update={"command": command, "mounts": ()})


def _repeater(bed: Bed, log_driver: LogDriver, name: str) -> Container:
    return Container(
        name=name,
        log_driver=log_driver,
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


@pytest.mark.parametrize("log_driver", ["k8s-file", "journald"])
async def test_what_a_container_says_on_standard_error_is_told_apart(
    containers: PodmanContainers, bed: Bed, log_driver: LogDriver
) -> None:
    says = "echo out; echo err >&2"
    await started(containers, logger(bed, log_driver=log_driver, name="errs", says=says))
    source = Source(containers, "errs", Path())
    await source.until("out")
    told = await source.until("err")
    assert sorted((each.text, each.stream) for each in told) == [("err", "err"), ("out", "out")]


async def test_an_entry_longer_than_all_that_is_read_at_once_is_in_nobodys_way(pi: Box) -> None:
    """Bytes that are no text are four times as many where journalctl tells them."""
    journal, unit = Journal(pi.inside(["journalctl"])), f"harmony-long-{next(_numbers)}.service"
    pi.write("/srv/harmony-long.pl", LONG)
    pi.run(["systemd-run", f"--unit={unit}", "perl", "/srv/harmony-long.pl"])
    async with asyncio.timeout(60):
        while "two" not in texts(told := await journal.lines(unit, lines=100)):
            await asyncio.sleep(0.1)
    logged = [each for each in told if each.stream == "out"]
    assert texts(logged) == ["one", "…", "two"]
    following = await journal.lines(unit, lines=100, after=logged[0].cursor)
    assert texts(following) == ["…", "two"]
    pi.run(["systemctl", "stop", unit])


@pytest.mark.parametrize("log_driver", ["k8s-file", "journald"])
async def test_long_lines_empty_ones_and_what_is_no_text_are_told(
    containers: PodmanContainers, bed: Bed, log_driver: LogDriver
) -> None:
    says = r"printf 'a\377b\n\n'; head -c 6000 /dev/zero | tr '\0' z; echo; printf '\033[31mred\n'"
    await started(containers, logger(bed, log_driver=log_driver, name="odd", says=says))
    told = texts(await Source(containers, "odd", Path()).until("\x1b[31mred"))
    assert told[:2] == ["a\ufffdb", ""]
    # podman cuts a long line wherever it comes to it in two parts.
    assert "".join(told[2:]) == "z" * 6000 + "\x1b[31mred"


async def test_what_a_container_wrote_before_it_was_made_anew_is_in_the_journal(
    containers: PodmanContainers, bed: Bed
) -> None:
    source = Source(containers, "again", Path())
    before = logger(bed, log_driver="journald", name="again", says="echo before; echo meanwhile")
    await started(containers, before)
    first, meanwhile = await source.until("meanwhile")
    after = logger(bed, log_driver="journald", name="again", says="echo after")
    await containers.converge([after], apply=True)
    await started(containers, after)
    assert texts(await source.until("after")) == ["before", "meanwhile", "after"]
    assert texts(await source.logs(after=first.cursor)) == ["meanwhile", "after"]
    assert texts(await source.logs(after=meanwhile.cursor)) == ["after"]


async def test_one_whose_log_is_kept_elsewhere_from_now_on_is_followed_on(
    containers: PodmanContainers, bed: Bed
) -> None:
    source = Source(containers, "moved", Path())
    cursors: list[str] = []
    drivers: tuple[LogDriver, ...] = ("k8s-file", "journald", "k8s-file")
    for log_driver in drivers:
        moved = logger(bed, log_driver=log_driver, name="moved", says=f"echo to {log_driver}")
        assert not isinstance((await containers.converge([moved], apply=True))[0], Exception)
        await started(containers, moved)
        (told,) = await source.until(f"to {log_driver}")
        for cursor in cursors[-1:]:
            assert await source.logs(after=cursor) == [told]
        cursors.append(told.cursor)


async def test_what_others_write_in_the_name_of_a_container_is_not_told(
    containers: PodmanContainers, pi: Box, bed: Bed
) -> None:
    await started(containers, logger(bed, log_driver="journald", name="meek", says="echo mine"))
    source = Source(containers, "meek", Path())
    await source.until("mine")
    container_id = pi.text("podman", "inspect", "--format", "{{.Id}}", "meek")
    entry = f"MESSAGE=forged\nCONTAINER_NAME=meek\nCONTAINER_ID_FULL={container_id}\nPRIORITY=6\n"
    for user in ("root", "nobody"):
        forging = ["setpriv", "--reuid", user, "--clear-groups", "logger", "--journald"]
        pi.run(forging, stdin=entry.encode())
    asked = f"CONTAINER_ID_FULL={container_id}"
    async with asyncio.timeout(30):
        while pi.text("journalctl", "-o", "cat", asked).count("forged") < 2:
            await asyncio.sleep(0.1)
    assert texts(await source.logs()) == ["mine"]


async def test_what_the_journal_has_thrown_away_is_gone_and_the_rest_goes_on(
    containers: PodmanContainers, pi: Box, bed: Bed
) -> None:
    pi.write(SAID, "first\n")
    await started(containers, logger(bed, log_driver="journald", name="rotated"))
    source = Source(containers, "rotated", pi.root / SAID.lstrip("/"))
    (first,) = await source.until("first")
    pi.run(["journalctl", "--rotate"])
    pi.run(["journalctl", "--vacuum-files=1"])
    assert await source.logs() == []
    source.say("second")
    assert texts(await source.until("second")) == ["second"]
    assert texts(await source.logs(after=first.cursor)) == ["second"]


async def test_a_failure_tells_the_last_lines_of_this_container_in_the_journal(
    containers: PodmanContainers, bed: Bed
) -> None:
    await started(containers, logger(bed, log_driver="journald", name="ends", says="echo older"))
    ending = logger(bed, log_driver="journald", name="ends", says="echo newer; exit 3")
    async with asyncio.timeout(60):
        while not isinstance(
            told := (await containers.converge([ending], apply=True))[0], ContainerFailed
        ):
            await asyncio.sleep(0.1)
    assert {*told.message.partition("its last lines:\n")[2].splitlines()} == {"newer"}


async def test_a_strangers_container_is_nobodys_business(
    containers: PodmanContainers, pi: Box, bed: Bed
) -> None:
    image = without_tag(bed.registry.push_busybox("logger", "1"))
    pi.run(["podman", "run", "-qd", "--name", "theirs", image, "echo", "secret"])
    with pytest.raises(NotOurs):
        await containers.logs("theirs", lines=10)
