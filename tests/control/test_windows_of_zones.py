"""A window is of the device's own time zone: by real agents in zones, and with clocks, of their own."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from harmony_control.bus.classes import hint_devices
from tests.faults.device import find_faketime

from .device_processes import ProcessScene, serving_processes
from .rollout_scene import MOTD

_HOUR = timedelta(hours=1)
own_clocks = pytest.mark.skipif(
    find_faketime() is None, reason="libfaketime is not installed: apt-get install faketime"
)


def _window(begin: str, until: str) -> str:
    return f'    rollout:\n      windows: [{{begin: "{begin}", until: "{until}"}}]\n'


async def _until_waits(scene: ProcessScene, name: str) -> str:
    """Return what the device says of its window, once it waits for that."""

    async def waits() -> bool:
        layer = await scene.layer(name)
        return (layer.phase, layer.reason) == ("Waiting", "OutsideWindow")

    await scene.until(waits)
    return (await scene.layer(name)).message


async def _until_follows(scene: ProcessScene, name: str, motd: bytes) -> None:
    async def follows() -> bool:
        return scene.processes[name].read("/etc/motd") == motd

    await scene.until(follows)


@pytest.mark.timeout(120)
async def test_a_window_is_open_where_its_device_is_and_shut_elsewhere_at_the_same_moment(
    tmp_path: Path,
) -> None:
    """What follows is up to the device's zone alone: neither the server's nor the operator's counts."""
    zones = {"pi-here": "UTC", "pi-there": "Asia/Tokyo"}
    async with serving_processes(tmp_path, zones) as scene:
        scene.describe(MOTD % "one")
        await scene.go(await scene.apply())

        there = datetime.now(ZoneInfo("Asia/Tokyo"))
        window = _window(f"{there - _HOUR:%H:%M}", f"{there + _HOUR:%H:%M}")
        scene.describe(MOTD % "two", rollout=window)
        rollout = await scene.apply()
        await _until_follows(scene, "pi-there", b"two")
        said = await _until_waits(scene, "pi-here")
        opens = re.fullmatch(r"its window is closed until (\d{4}-\d\d-\d\d \d\d:\d\d)", said)
        assert opens is not None, said
        # By its own clock on the wall.
        assert opens[1].endswith(f"{there - _HOUR:%H:%M}")
        at = datetime.strptime(opens[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        assert timedelta(0) < at - datetime.now(UTC) < timedelta(days=1)

        # It is no reason to stop, and none to wait for whoever waits for nothing.
        wanted = {"pi-here": "Waiting", "pi-there": "Ready"}

        async def are_so() -> bool:
            progress = (await rollout.step()).progress
            return {each.member.id: each.state for each in progress.judged} == wanted

        await scene.until(are_so)
        assert scene.processes["pi-here"].read("/etc/motd") == b"one"


_DST = [
    # The window begins in the hour that is leapt over: it opens as the clocks leap, and not before.
    ("02:30", "04:00", "2027-03-28T00:30", "2027-03-28 03:00", "2027-03-28T01:01"),
    # It is wholly in that hour: that night it does not open at all.
    ("02:15", "02:45", "2027-03-28T00:30", "2027-03-29 02:15", "2027-03-29T00:16"),
    # The hour that comes twice counts once, the first time.
    ("02:15", "02:45", "2027-10-31T01:20", "2027-11-01 02:15", "2027-11-01T01:16"),
    # What has begun in it stays open, although the clock shows an earlier time again.
    ("02:30", "04:00", "2027-10-31T00:20", "2027-10-31 02:30", "2027-10-31T01:20"),
    # What ends in it ends the first time.
    ("01:30", "02:10", "2027-10-31T01:05", "2027-11-01 01:30", "2027-11-01T00:31"),
]


@own_clocks
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("begin", "until", "shut_at", "told", "open_at"), _DST)
async def test_a_device_waits_until_the_clock_on_its_wall_is_in_the_window(
    tmp_path: Path, begin: str, until: str, shut_at: str, told: str, open_at: str
) -> None:
    """Its clock is moved, by months: the server's stays."""
    async with serving_processes(tmp_path, {"pi-1": "Europe/Berlin"}, own_clocks=True) as scene:
        await scene.set_clock("pi-1", datetime.fromisoformat(shut_at).replace(tzinfo=UTC))
        scene.describe(MOTD % "one", rollout=_window(begin, until))
        await scene.apply()
        assert await _until_waits(scene, "pi-1") == f"its window is closed until {told}"
        assert scene.processes["pi-1"].read("/etc/motd") is None

        await scene.set_clock("pi-1", datetime.fromisoformat(open_at).replace(tzinfo=UTC))
        # It would look once a minute by itself.
        await hint_devices(scene.bus.admin, ["pi-1"], "kiosk")
        await _until_follows(scene, "pi-1", b"one")
