"""What somebody else changes on a real Pi is put right long before any periodic pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_core.outcome import Noop
from harmony_core.wire.actual_state import ActualState, Drift
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, Host, code_of, heard_again, until

Pi: TypeAlias = Device[PiTopology]

DIRECTORY = "/etc/greetings"
PATH = f"{DIRECTORY}/hello"
UNIT = "sleeper.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
SLEEPER = SystemdServiceScore(name=UNIT, exec_start=("/usr/bin/sleep", "infinity"), settle_s=0.5)
LOST = Drift(at="", resource="", before="nothing was told", after="")
LONG_BEFORE_A_PASS_S = 60


def _instead(foreign: str, place: str = PATH) -> str:
    """The deed that has what *foreign* makes stand in *place*, at one stroke."""
    return f"rm -rf {place}.new; {foreign} {place}.new && mv -T --exchange {place}.new {place}"


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("drifting", "1", command=("sleep", "4711"))


async def drifted(device: Pi, *, beyond: int) -> None:
    """Wait until the agent has put right more than so many, and all is in order."""
    await until(
        device,
        lambda state: (
            state.scores["it"].drift_count > beyond
            and state.scores["it"].outcome.status in {"SUCCESS", "NOOP"}
        ),
        within_s=LONG_BEFORE_A_PASS_S,
    )


async def at_rest(device: Pi) -> int:
    """How often it was put right, once all that was done to it until now has been looked at."""
    async with device.reconcile("it") as looks:
        (looked,) = [each.state async for each in looks]
    assert looked is not None
    assert looked.outcome.status in {"SUCCESS", "NOOP"}
    return looked.drift_count


async def put_right_twice(
    device: Pi, pi: Box, deed: str, is_right: Callable[[], bool], *, at_most: int
) -> None:
    """*deed* is done, and put right because of an event; and the same once more.

    A deed of several steps may be met between them, so that it is put right up to *at_most* times.
    """
    for _ in range(2):
        before = await at_rest(device)
        await asyncio.to_thread(pi.run, ["sh", "-c", deed])
        await asyncio.to_thread(pi.wait_for, is_right, timeout_s=LONG_BEFORE_A_PASS_S)
        await drifted(device, beyond=before)
        assert 1 <= await at_rest(device) - before <= at_most
        assert is_right()


@pytest.mark.parametrize(
    ("deed", "at_most"),
    [
        (f"echo changed > {PATH}", 1),
        (f"chmod 600 {PATH}", 1),
        (f"chown nobody:nogroup {PATH}", 1),
        (f"rm {PATH}", 1),
        (f"rm -r {DIRECTORY} || true", 2),  # what is back before it has gone on is not gone
        (f"rm -rf {DIRECTORY}.old && mv {DIRECTORY} {DIRECTORY}.old", 1),
        (_instead("ln -s /etc/hostname"), 1),
        (_instead("ln -s /nowhere/at/all"), 1),
        (_instead("mkdir"), 1),
    ],
)
async def test_a_file_is_put_right(device: Pi, pi: Box, deed: str, at_most: int) -> None:
    await device.push(FileScore(path=PATH, content="hello\n"), id="it")
    hostname = pi.read("/etc/hostname")

    def is_right() -> bool:
        shown = pi.run(["stat", "-c", "%F %a %U %G", PATH], check=False).stdout
        there = pi.run(["cat", PATH], check=False).stdout
        return shown == b"regular file 644 root root\n" and there == b"hello\n"

    await put_right_twice(device, pi, deed, is_right, at_most=at_most)
    assert pi.read("/etc/hostname") == hostname


@pytest.mark.parametrize(
    ("foreign", "place"),
    [("cp -r /usr/share/bash-completion", PATH), ("ln -s /srv", DIRECTORY)],
    ids=["directory with something in it", "link on the way"],
)
async def test_what_may_not_go_is_refused_counted_and_made_good_once_it_is_gone(
    device: Pi, pi: Box, foreign: str, place: str
) -> None:
    await device.push(FileScore(path=PATH, content="hello\n"), id="it")
    srv = pi.text("ls", "/srv")
    deed = _instead(foreign, place)
    await asyncio.to_thread(pi.run, ["sh", "-c", deed])
    state = await until(device, lambda state: code_of(state, "it") == "UnsafePath")
    assert state.scores["it"].drift_count == 1
    assert place in (state.scores["it"].last_drift or LOST).before
    assert pi.text("ls", "/srv") == srv
    await asyncio.to_thread(pi.run, ["rm", "-rf", place, f"{place}.new"])
    state = await until(device, lambda state: code_of(state, "it") == "SUCCESS")
    assert pi.read(PATH) == b"hello\n"
    assert state.scores["it"].drift_count == 1


async def test_while_its_repair_waits_what_is_missing_is_told_as_missing(
    device: Pi, pi: Box
) -> None:
    await device.push(FileScore(path=PATH, content="hello\n"), id="it")
    fight = f"for _ in $(seq 80); do rm -f {PATH}; sleep 0.05; done"
    await asyncio.to_thread(pi.run, ["sh", "-c", fight])
    state = await until(device, lambda state: code_of(state, "it") == "Drifted")
    assert f"file:{PATH}" not in state.scores["it"].resources
    assert [each.status for each in state.conditions if each.type == "Ready"] == ["False"]
    # A person does not wait for it.
    counted = await at_rest(device)
    assert pi.read(PATH) == b"hello\n"
    assert counted == state.scores["it"].drift_count + 1


@pytest.mark.parametrize(
    "deed",
    [
        f"systemctl stop {UNIT}",
        f"systemctl disable {UNIT}",
        f"rm /etc/systemd/system/multi-user.target.wants/{UNIT}",
        f"echo '# by hand' >> {UNIT_FILE}",
        f"ln -sf /dev/null {UNIT_FILE}.new && mv {UNIT_FILE}.new {UNIT_FILE}",  # a mask
        f"ln -sf /dev/null {UNIT_FILE}.new && mv {UNIT_FILE}.new {UNIT_FILE}; systemctl daemon-reload",
    ],
)
async def test_a_unit_is_put_right(device: Pi, pi: Box, host: Host, deed: str) -> None:
    await device.push(SLEEPER, id="it")
    before = pi.read(UNIT_FILE)

    def is_right() -> bool:
        # Between the mask that goes and the file that comes, there is none.
        there = pi.run(["cat", UNIT_FILE], check=False).stdout
        return there == before and host.unit(UNIT, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }

    await put_right_twice(device, pi, deed, is_right, at_most=1)


@pytest.mark.parametrize(
    "deed",
    [
        f"printf '[Service]\nNice=5\n' | systemctl edit --stdin --drop-in=mine.conf {UNIT}",
        f"systemctl set-property --runtime {UNIT} TasksMax=99",
    ],
    ids=["edit", "set-property"],
)
async def test_a_drop_in_is_told_counted_and_left(
    device: Pi, pi: Box, host: Host, deed: str
) -> None:
    outcome = await device.push(SLEEPER, id="it")
    invocation = host.unit(UNIT, "InvocationID")
    await asyncio.to_thread(pi.run, ["sh", "-c", deed])
    state = await until(device, lambda state: _degraded(state) == "Drifted")
    page = state.scores["it"]
    assert (page.drift_count, page.outcome) == (1, outcome)
    (drop_in,) = page.resources[f"unit:{UNIT}"]["drop_ins"]
    assert (page.last_drift or LOST).before == f"overridden by file:{drop_in}"
    assert host.unit(UNIT, "DropInPaths") == {"DropInPaths": drop_in}
    assert host.unit(UNIT, "InvocationID") == invocation
    await asyncio.to_thread(pi.run, ["systemctl", "revert", UNIT])
    await asyncio.to_thread(pi.run, ["sh", "-c", f"rm -rf {drop_in}; systemctl daemon-reload"])
    state = await until(device, lambda state: _degraded(state) == "AllWell")
    assert state.scores["it"].drift_count == 1


def _degraded(state: ActualState) -> str:
    (found,) = (each.reason for each in state.conditions if each.type == "Degraded")
    return found


@pytest.mark.parametrize(
    ("deed", "at_most"),
    [
        # It is back so soon that podman complains of not being able to clean up.
        ("podman stop -t 0 box || true", 1),
        ("podman rm -f -t 0 box", 2),
        ("systemctl stop podman.service; pkill -KILL --full '^sleep 4711$'", 1),
    ],
)
async def test_a_container_is_put_right(
    device: Pi, pi: Box, host: Host, image: str, deed: str, at_most: int
) -> None:
    await device.push(
        ContainerScore(name="box", image=image, restart="no", stop_timeout_s=0), id="it"
    )

    def is_right() -> bool:
        found = host.container("box")
        return found is not None and found["State"]["Status"] == "running"

    await put_right_twice(device, pi, deed, is_right, at_most=at_most)


async def test_what_leaves_a_container_as_it_is_is_no_drift(
    device: Pi, pi: Box, host: Host, bed: Bed, image: str
) -> None:
    """Neither podman's service that starts anew, nor a tag that leads to another image by now."""
    score = ContainerScore(name="box", image=image, stop_timeout_s=0)
    await device.push(score, id="it")
    before = host.identities(containers=["box"])
    tag = image.partition("@")[0]
    bed.registry.push_busybox("drifting", "1", command=("sleep", "4712"))
    await asyncio.to_thread(pi.run, ["podman", "pull", "--quiet", tag])
    await asyncio.to_thread(pi.run, ["systemctl", "restart", "podman.socket", "podman.service"])
    await heard_again(device)
    async with device.reconcile("it") as looks:
        assert [looked.score async for looked in looks] == ["it"]
    assert isinstance(await device.push(score, id="it"), Noop)
    state = await device.state()
    assert state is not None
    assert state.scores["it"].drift_count == 0
    assert host.identities(containers=["box"]) == before


@pytest.mark.usefixtures("device")
async def test_everything_could_be_watched(pi: Box) -> None:
    assert "is not watched" not in pi.journal(AGENT)
