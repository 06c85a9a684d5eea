"""A device whose clock is anywhere, or is set while it works: it does what is wanted, and is believed.

A Pi has no clock that runs without power. It wakes in the past, or where somebody has set it, and a time
server sets it while Scores are under way. What is measured is measured by a clock that nobody sets.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harmony_control.store import operator_key
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState
from harmony_scores import FileScore
from tests.control.ground import harmony
from tests.nats import serving
from tests.soak import runs

from .process import process
from .rig import Rig, entry, status

pytestmark = pytest.mark.timeout(180)

YEAR_S = 365 * 24 * 3600
WAKES = {"2106": 2.0**32 + 30, "1970": 30.0}
"""In seconds since 1970; in the former moment 32 bits suffice no more."""
WITHIN_S = 30
IS_SET = (-YEAR_S, YEAR_S, -90, 90)
"""By so many seconds of the true time: by somebody, and in the steps of a time server."""


def library() -> Path:
    """What has a process believe another clock: libfaketime, installed where that is possible."""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "libfaketime"]):
            subprocess.run(command, check=False, capture_output=True)
        found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no libfaketime here")
    return found[0]


class Clock:
    """The clock of the agent alone; it runs on from wherever it is set. The monotonic one is the kernel's."""

    def __init__(self, rig: Rig) -> None:
        self._path = rig.root / "clock"
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, ahead_s: float) -> None:
        """Be so much ahead of the true time from now on."""
        written = self._path.with_suffix(".new")
        written.write_text(f"{ahead_s:+.0f}\n")
        written.rename(self._path)


def note(text: str) -> FileScore:
    return FileScore(path="/srv/note", content=text)


async def converged(rig: Rig, generation: int, text: str) -> ActualState:
    """The report of that *generation*, once it has made *text* of the note."""
    state = await rig.until(
        lambda state: (
            state.observed_generation == generation and status(state.scores) == {"note": "SUCCESS"}
        ),
        within_s=WITHIN_S,
    )
    assert (rig.root / "device/srv/note").read_text() == text
    return state


async def told(rig: Rig, *arguments: str) -> str:
    """What the `harmony` command says of the device, which it believes and which answers."""
    said = await harmony(rig.bus.home, *arguments)
    assert said.status == 0, said
    return said.out


@pytest.mark.soak
async def test_a_device_that_wakes_at_any_time_works_and_is_believed_also_once_it_is_set_right(
    tmp_path: Path,
) -> None:
    for wakes in list(WAKES)[: runs(len(WAKES))]:
        async with serving(tmp_path / wakes, "pi-1") as bus:
            rig = Rig(bus, tmp_path / wakes, operator_key.load(bus.home), FakeFiles())
            await wake(rig, wakes)


async def wake(rig: Rig, wakes: str) -> None:
    clock = Clock(rig)
    clock.set(WAKES[wakes] - time.time())
    async with process(rig, clock.environment):
        await rig.put(1, entry(note("one"), "note"))
        state = await converged(rig, 1, "one")
        since = next(each.last_transition_time for each in state.conditions)
        assert since.startswith(wakes), "it is another clock"
        if wakes == "2106":
            said = await harmony(rig.bus.home, "events", "pi-1")
            assert said.status == 4
            assert "has passed, it is 2106-" in said.err
            assert "set the clock that is wrong" in said.err
        else:
            assert "file:/srv/note" in await told(rig, "events", "pi-1")
        clock.set(0)
        await rig.put(2, entry(note("two"), "note"))
        await converged(rig, 2, "two")
    async with process(rig, clock.environment):
        await rig.put(3, entry(note("three"), "note"))
        await converged(rig, 3, "three")
        assert "Ready        True" in await told(rig, "status", "pi-1")
        assert "file:/srv/note" in await told(rig, "events", "pi-1")


@pytest.mark.soak
async def test_a_clock_that_is_set_in_the_middle_of_an_apply_neither_hurries_nor_delays_it(
    rig: Rig,
) -> None:
    clock = Clock(rig)
    async with process(rig, clock.environment) as agent:
        await rig.put(1, entry(note("first"), "note"))
        await converged(rig, 1, "first")
        for generation, step in enumerate(IS_SET[: runs(len(IS_SET))], 2):
            agent.limit(resource.RLIMIT_NOFILE, agent.descriptors() + 1)
            text = f"{step:+} s"
            await rig.put(generation, entry(note(text), "note"))
            await rig.until(
                lambda state: status(state.scores) == {"note": "FAILURE"}, within_s=WITHIN_S
            )
            clock.set(step)
            await rig.worked()
            agent.limit(resource.RLIMIT_NOFILE, 1024)
            await converged(rig, generation, text)
            assert "Ready        True" in await told(rig, "status", "pi-1")
