"""kill -9 at any moment of a push of twenty Scores: always the same end, and the truth is told of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import pytest

from harmony_control.device import Device
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, in_shell, statuses
from tests.soak import runs, seed

Pi: TypeAlias = Device[PiTopology]

FILES, UNITS, CONTAINERS = 11, 5, 4
SLEEP = "/usr/bin/sleep 86399"
STARTS = "/var/log/kill-starts"
START = ("/bin/sh", "-c", f"echo $NAME of run $RUN >> {STARTS}; exec {SLEEP}")
KILLS_AT_MOST = 2
"""Three in a row, of one Score with one specification, would rightly make it Poisoned."""


@pytest.fixture(scope="module")
def pi(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    box = boot()
    plane.enrol(box, drop_in="RestartSec=100ms")
    return box


@attrs.frozen
class Wanted:
    """Twenty Scores, all of them others than in the run before; three of them new, and three gone."""

    run: int
    image: str

    @property
    def files(self) -> Mapping[str, str]:
        names = [*(f"file-{n}" for n in range(FILES - 1)), f"file-of-{self.run}"]
        return {name: f"{name} in run {self.run}\n" for name in names}

    @property
    def units(self) -> list[str]:
        return [*(f"kill-{n}" for n in range(UNITS - 1)), f"kill-of-{self.run}"]

    @property
    def containers(self) -> list[str]:
        return [*(f"box-{n}" for n in range(CONTAINERS - 1)), f"box-of-{self.run}"]

    @property
    def scores(self) -> dict[str, Score[PiTopology]]:
        environment = {"RUN": str(self.run)}
        return {
            **{
                name: FileScore(path=f"/srv/kill/{name}", content=content)
                for name, content in self.files.items()
            },
            **{
                name: SystemdServiceScore(
                    name=f"{name}.service",
                    exec_start=START,
                    environment={**environment, "NAME": name},
                    credentials={"run": f"{name} in run {self.run}"},
                    settle_s=0.3,
                )
                for name in self.units
            },
            **{
                name: ContainerScore(
                    name=name,
                    image=self.image,
                    command=in_shell("sleep 86399"),
                    environment=environment,
                    settle_s=0.3,
                    stop_timeout_s=2,
                )
                for name in self.containers
            },
        }


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_killed_at_any_moment_of_a_push_the_end_is_always_the_same(
    device: Pi, host: Host, bed: Bed
) -> None:
    dice = random.Random(seed())
    image = bed.registry.push_busybox("web", "1")
    before, took_s = await _pushed(device, host, Wanted(0, image), None, kills_s=[])
    count = runs(200, part=20)
    for run in range(1, count + 1):
        kills_s = [dice.uniform(0, took_s) for _ in range(dice.randint(1, KILLS_AT_MOST))]
        print(f"run {run}: killed after {', '.join(f'{each:.3f}' for each in kills_s)} s")
        before, _ = await _pushed(device, host, Wanted(run, image), before, kills_s=kills_s)
    await device.remove(*before.scores)
    assert host.units("kill-") == []
    assert host.containers() == []
    assert not (host.box.root / "srv/kill").exists()
    assert not (host.box.root / "etc/harmony-credentials").exists()


async def _pushed(
    device: Pi, host: Host, wish: Wanted, before: Wanted | None, *, kills_s: list[float]
) -> tuple[Wanted, float]:
    """Push, kill, wait, and compare. How long it took is what kills are drawn from."""
    began_s = time.monotonic()
    gone = before.scores.keys() - wish.scores.keys() if before else ()
    pushed = await device.put(wish.scores, remove=gone)
    for kill_s in kills_s:
        await asyncio.sleep(kill_s)
        host.box.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT], check=False)
    state = await device.wait(pushed, timeout_s=120)
    took_s = time.monotonic() - began_s
    assert set(statuses(state).values()) == {"SUCCESS"}, statuses(state)
    assert state.scores.keys() == wish.scores.keys()
    _is_as_wished(host, wish)
    _is_true(host, wish, state)
    _is_done_once(host, wish)
    return wish, took_s


def _is_as_wished(host: Host, wish: Wanted) -> None:
    directory = host.box.root / "srv/kill"
    assert {path.name: path.read_text() for path in directory.iterdir()} == wish.files
    assert host.units("kill-") == sorted(f"{name}.service" for name in wish.units)
    directories = (host.box.root / "etc/harmony-credentials").iterdir()
    assert {path.name for path in directories} == {f"{name}.service" for name in wish.units}
    for name in wish.units:
        found = host.unit(f"{name}.service", "ActiveState", "MainPID")
        assert found["ActiveState"] == "active"
        environment = host.box.read(f"/proc/{found['MainPID']}/environ").split(b"\0")
        assert f"RUN={wish.run}".encode() in environment
        credential = host.box.read(f"/run/credentials/{name}.service/run")
        assert credential == f"{name} in run {wish.run}".encode()
    assert _count(host, "-fx", SLEEP) == UNITS
    assert host.containers() == sorted(wish.containers)
    for name in wish.containers:
        container = _running(host, name)
        assert f"RUN={wish.run}" in container["Config"]["Env"]
    assert _count(host, "-x", "conmon") == CONTAINERS


def _is_true(host: Host, wish: Wanted, state: ActualState) -> None:
    """What is told is what the device's own tools say."""
    for name in wish.files:
        (told_of,) = state.scores[name].resources.values()
        assert told_of["sha256"] == host.sha256(f"/srv/kill/{name}")
    for name in wish.units:
        told_of = state.scores[name].resources[f"unit:{name}.service"]
        assert (told_of["state"], told_of["sub"]) == ("Active", "running")
    for name in wish.containers:
        (told_of,) = state.scores[name].resources.values()
        started = _running(host, name)["State"]["StartedAt"]
        assert (told_of["state"], told_of["since"][:19]) == ("Running", started[:19])


def _is_done_once(host: Host, wish: Wanted) -> None:
    """For one specification no unit was started twice, and no container was made or started twice.

    But one that was started, and not noted as started before the kill, and of which systemd has read files
    since: of that nobody knows what it runs, so it is restarted once, and that is said.
    """
    starts = Counter(host.box.read(STARTS).decode().splitlines())
    again = Counter(
        name
        for line in host.box.journal(AGENT).splitlines()
        for name in wish.units
        if f"unit:{name}.service restarted: it is not known what it was started from" in line
    )
    for name in wish.units:
        assert 1 <= starts[f"{name} of run {wish.run}"] <= 1 + again[name], (name, starts, again)
    told_of = host.box.text(
        *("podman", "events", "--stream=false", "--filter", "type=container"),
        *("--format", "{{.Status}} {{.Name}}"),
    )
    # Each is made under another name, as what takes the place of one that may be there.
    events = Counter(each.removesuffix(".harmony-successor") for each in told_of.splitlines())
    for name in wish.containers:
        specifications = 1 if name.startswith("box-of-") else wish.run + 1
        done = {each: events[f"{each} {name}"] for each in ("create", "start")}
        assert done == {"create": specifications, "start": specifications}, name


def _running(host: Host, name: str) -> dict[str, Any]:
    found = host.container(name)
    assert found is not None
    assert found["State"]["Status"] == "running"
    return found


def _count(host: Host, *what: str) -> int:
    """How many such processes run in the box."""
    return int(host.box.run(["pgrep", "-c", *what], check=False).stdout)
