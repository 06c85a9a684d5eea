"""Settings of the kernel that a unit has made: whoever makes them otherwise is found by looking."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harmony_core.reconciler import Offers
from harmony_core.testing import FakeFiles, FakeSystemd
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.manifest import ScorePolicy
from harmony_scores import SysctlScore

from .rig import code, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

SCORE = SysctlScore(
    name="net", settings={"net.ipv4.ip_default_ttl": "77", "net.ipv4.tcp_rmem": "4096 5000 6000"}
)
TTL = "net/ipv4/ip_default_ttl"


def status(device: VirtualDevice) -> ScoreStatus:
    assert device.bus.told is not None
    return device.bus.told.scores["net"]


@pytest.fixture
def systemd() -> FakeSystemd:
    return FakeSystemd()


@pytest.fixture
def offers(systemd: FakeSystemd) -> Offers:
    return {"SystemdHost": systemd, "FileSystemHost": FakeFiles()}


async def test_the_slow_pass_puts_it_right(
    tmp_path: Path, systemd: FakeSystemd, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, SysctlScore) as it:
        await it.pages([entry(SCORE, "net")])
        assert systemd.settings[TTL] == "77"
        systemd.settings[TTL] = "66"
        await asyncio.sleep(400)
        assert systemd.settings[TTL] == "77"
        assert status(it).drift_count == 1
        assert status(it).outcome.status == "SUCCESS"
        # As the kernel shows several values, they are no others.
        systemd.settings["net/ipv4/tcp_rmem"] = "4096\t5000\t6000"
        await asyncio.sleep(400)
        assert status(it).drift_count == 1


async def test_a_push_puts_it_right(tmp_path: Path, systemd: FakeSystemd, offers: Offers) -> None:
    async with running_device(tmp_path, offers, SysctlScore) as it:
        await it.pages([entry(SCORE, "net")])
        systemd.settings[TTL] = "66"
        await it.pages([entry(SCORE, "net")], after_s=5)
        assert systemd.settings[TTL] == "77"
        assert status(it).drift_count == 1


async def test_where_drift_is_only_told_it_is_told(
    tmp_path: Path, systemd: FakeSystemd, offers: Offers
) -> None:
    async with running_device(tmp_path, offers, SysctlScore) as it:
        await it.pages([entry(SCORE, "net", policy=ScorePolicy(drift="report"))])
        systemd.settings[TTL] = "66"
        await asyncio.sleep(400)
        assert code(status(it)) == "Drifted"
        assert systemd.settings[TTL] == "66"
