"""A fleet under faults: whatever happens while devices are changed, each ends as it was told last.

The model of what they are told, and of what they are, is ours (`tests/faults/control.py`, `things.py`); what
agents say is only compared with it. A fault counts where it was seen to come while a device was being
changed. `make fleet` does it with 50 agents, or as many as $HARMONY_AGENTS says; `make test` with 4.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from nats.aio.client import Client

from harmony_agent.bus.link import honour_cancellation
from harmony_control.store.home import Home
from tests.faults.control import ServerProcess
from tests.faults.ground import SERVER_KINDS, Ground, ground
from tests.faults.kinds import KINDS
from tests.soak import runs, seed, tell

STATED = 2_000
AGENTS, A_FEW = 50, 4
STRIKES_A_ROUND = 5
_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
FAULTS_A_SERVER = 25
"""So many faults of devices to one of the server that they share."""


@pytest.fixture
def folder() -> Generator[Path]:
    """A place with a short name: the path of a socket is 107 bytes at most."""
    if os.geteuid() != 0:
        pytest.skip("a disk of one's own for each device needs root")
    made = Path(tempfile.mkdtemp(prefix="fleet-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def many_watches() -> Generator[None]:
    """Let as many processes watch files as a fleet on one machine has: usually 128 may, for each user."""
    if os.geteuid() != 0:
        pytest.skip("a fleet on one machine needs root")
    before = _INSTANCES.read_text()
    _INSTANCES.write_text(f"{max(int(before), 128 + 8 * AGENTS)}\n")
    yield
    _INSTANCES.write_text(before)


async def _strike_server_again_and_again(fleet: Ground, dice: random.Random) -> None:
    while True:
        honour_cancellation()
        if sum(fleet.hits.values()) >= FAULTS_A_SERVER * (fleet.server_strikes + 0.5):
            await fleet.strike_server(dice)
        await asyncio.sleep(0.05)


async def _go_through(fleet: Ground, stated: int, dice: random.Random) -> None:
    """Rounds of faults, after each of which all is mended and looked at."""
    while sum(fleet.hits.values()) < stated:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(fleet.onlooker.watch_claims()),
                tasks.create_task(_strike_server_again_and_again(fleet, dice)),
            ]
            await asyncio.gather(*(fleet.strike(each, STRIKES_A_ROUND) for each in fleet.all))
            for each in others:
                each.cancel()
        if not fleet.server.is_up.is_set():
            await fleet.server.stop()
            await fleet.server.start()
        await fleet.onlooker.come_to_rest()
        _print_how_far(fleet)


def _print_how_far(fleet: Ground) -> None:
    onlooker = fleet.onlooker
    print(
        f"{sum(fleet.hits.values())} hits, {onlooker.claims} claims, "
        f"{onlooker.count_repeated()} started again; time: {fleet.watch}; hits: {dict(fleet.hits)}",
        flush=True,
    )


@pytest.mark.fleet
@pytest.mark.timeout(7200)
async def test_whatever_hits_it_each_device_ends_as_it_was_told_last(
    folder: Path, many_watches: None
) -> None:
    stated = runs(STATED, part=100)
    number = seed()
    dice = random.Random(number)
    agents = int(os.environ.get("HARMONY_AGENTS", AGENTS)) if stated == STATED else A_FEW
    async with ground(folder, agents, number) as fleet:
        await _go_through(fleet, stated, dice)
        hits, misses = sum(fleet.hits.values()), sum(fleet.misses.values())
        tell(
            "fleet",
            f"{hits:,} faults hit an apply, {misses:,} came too late, {fleet.onlooker.claims:,} claims",
        )
        tell("fleet", f"pushes: {dict(fleet.pushes)}")
        tell(
            "fleet", f"units started again from the same file: {fleet.onlooker.count_repeated():,}"
        )
        for kind in (*KINDS, *SERVER_KINDS):
            tell("fleet", f"{fleet.hits[kind]:>6,}  {kind}{_say_why_none(fleet, kind)}")
        assert hits >= stated
        # The short form has fewer faults than there are kinds.
        assert stated < STATED or not fleet.find_unseen()


def _say_why_none(fleet: Ground, kind: str) -> str:
    if fleet.hits[kind]:
        return ""
    if kind not in (*fleet.kinds, *SERVER_KINDS):
        return ": none, it cannot be done here (libfaketime is missing: apt install faketime)"
    late = fleet.misses[kind]
    return f": none was seen to hit, {late} came too late" if late else ": none was done"


def test_a_kind_of_fault_that_never_hit_is_known_by_name(tmp_path: Path) -> None:
    kinds = [each for each in KINDS if each != "clock jumps"]
    server = ServerProcess(Home(tmp_path), "127.0.0.1:1")
    fleet = Ground(server=server, client=Client(), all=[], kinds=kinds)
    assert fleet.find_unseen() == [*KINDS, *SERVER_KINDS]
    fleet.hits.update(dict.fromkeys((*kinds, "server killed"), 1))
    fleet.misses["stream deleted"] = 2
    assert fleet.find_unseen() == ["clock jumps", "stream deleted"]
    assert "libfaketime is missing" in _say_why_none(fleet, "clock jumps")
    assert _say_why_none(fleet, "stream deleted") == ": none was seen to hit, 2 came too late"
    assert _say_why_none(fleet, "server killed") == ""
