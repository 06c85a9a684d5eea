"""A real device upgrades its packages in a window, by its own agent, timer and apt."""

from __future__ import annotations

import asyncio
import time
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import RebootScore, UpgradeScore
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, Host, allowed, heard_again, until
from tests.scores.apt_repository import BUILD, FIRMWARE, GONE, NEWER, installed

Pi: TypeAlias = Device[PiTopology]
NOTES = "/var/lib/harmony-upgrades"


@pytest.fixture
async def ready(pi: Box, device: Pi) -> Pi:
    """With packages that are older than those of a repository, and allowed to run anything."""
    await asyncio.to_thread(pi.run, ["sh", "-c", GONE], check=False)
    await asyncio.to_thread(pi.run, ["sh", "-c", f"({BUILD})"])
    await asyncio.to_thread(pi.run, ["sh", "-c", NEWER])
    await allowed(pi, device, "any")
    return device


def words(state: ActualState) -> str:
    return state.scores["upgrades"].outcome.message


async def test_in_its_window_all_is_upgraded_and_a_boot_is_awaited_for_what_needs_one(
    plane: ControlPlane, ready: Pi, pi: Box, host: Host
) -> None:
    # It has begun already.
    window = pi.text("date", "-d", "1 minute ago", "+%a %H:%M")
    score = UpgradeScore(window=window, lasts_s=1800)
    await ready.put({"upgrades": score, "reboots": RebootScore(when="never")})
    state = await until(ready, lambda state: "4 upgraded" in _words_of(state))
    assert state.scores["upgrades"].outcome.status == "SUCCESS"
    assert (await installed(pi))["harmony-two"] == "2"
    state = await until(
        ready, lambda state: any(each.type == "RebootRequired" for each in state.conditions)
    )
    (told,) = [each for each in state.conditions if each.type == "RebootRequired"]
    assert told.message.startswith(f"the system ({FIRMWARE}); ")
    said = await plane.harmony("status", pi.name)
    assert f"4 upgraded: {FIRMWARE} 1 → 2" in said.out

    # The next window: nothing is new.
    now = int(time.time())
    pi.write(f"{NOTES}/window", f"{now} {now + 1800}\n")
    state = await until(ready, lambda state: "0 upgraded" in _words_of(state))
    assert state.scores["upgrades"].drift_count == 0
    before = words(state)
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
    await heard_again(ready)
    state = await until(ready, lambda state: state.scores["upgrades"].looked_at is not None)
    assert words(state) == before
    events = (await plane.harmony("events", pi.name, "--json")).documents
    jobs = [each for each in events if each["resource"] == "job:upgrades"]
    assert {each["why"] for each in jobs} == {"desired"}
    assert [each["actions"] for each in jobs] == 2 * [["begun"], ["ran to its end"]]

    await ready.remove("upgrades")
    assert not (pi.root / NOTES.lstrip("/")).exists()
    assert host.units("harmony-upgrades") == []


def _words_of(state: ActualState) -> str:
    return words(state) if "upgrades" in state.scores else ""
