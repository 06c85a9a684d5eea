"""What benchmarks read from strace, from a bus's monitor, and from other tools, is read rightly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.figures import Unmeasurable
from benchmarks.passes import changes_a_file
from benchmarks.repairs import absences_ms, restarted_ms
from benchmarks.units import started_again_ms


@pytest.mark.parametrize(
    ("call", "does"),
    [
        ('7 pwrite64(8</var/agent.db-wal>, "x", 24, 0) = 24', True),
        ("7 fdatasync(8</var/agent.db-wal>) = 0", True),
        ('7 renameat(16</etc>, ".new", 16</etc>, "motd") = 0', True),
        ('7 unlink("/etc/motd") = 0', True),
        ('7 write(2</var/log/agent.log>, "INFO", 4) = 4', True),
        ('7 write(1</var/log/agent.log>, "slow pass 3.1", 13) = 13', False),
        ('7 write(5<anon_inode:[eventfd]>, "x", 8) = 8', False),
        ('7 write(6<socket:[351122]>, "PUB", 3) = 3', False),
        ("7 <... fdatasync resumed>) = 0", False),
        ("7 +++ exited with 0 +++", False),
    ],
)
def test_a_write_is_one_to_a_file(call: str, does: bool) -> None:
    assert changes_a_file(call) is does


def signal(at_us: int, unit: str, active: str) -> dict[str, Any]:
    path = f"/org/freedesktop/systemd1/unit/{unit}"
    data: list[Any] = [
        "org.freedesktop.systemd1.Unit",
        {"ActiveState": {"type": "s", "data": active}},
        [],
    ]
    return {"type": "signal", "path": path, "timestamp-realtime": at_us, "payload": {"data": data}}


def start(at_us: int, unit: str) -> dict[str, Any]:
    payload = {"data": [unit, "replace"]}
    return {"type": "method_call", "timestamp-realtime": at_us, "payload": payload}


def test_a_unit_is_down_from_the_first_signal_that_says_so_until_the_call_that_starts_it() -> None:
    messages = [
        start(500, "a-1.service"),
        signal(600, "a_2d2_2eservice", "failed"),
        signal(1_000, "a_2d1_2eservice", "active"),
        signal(2_000, "a_2d1_2eservice", "failed"),
        signal(2_100, "a_2d1_2eservice", "inactive"),
        start(2_200, "a-2.service"),
        start(4_500, "a-1.service"),
        start(9_000, "a-1.service"),
    ]
    assert started_again_ms(messages, "a-1.service") == 2.5
    with pytest.raises(Unmeasurable, match=r"a-3\.service"):
        started_again_ms(messages, "a-3.service")


def test_a_container_is_down_from_the_first_death_until_the_first_start() -> None:
    told = [("died", 1_000_000), ("remove", 2_000_000), ("start", 5_000_000), ("start", 9_000_000)]
    events = [{"Status": status, "timeNano": at_ns} for status, at_ns in told]
    assert restarted_ms(json.loads(json.dumps(events))) == 4
    with pytest.raises(Unmeasurable):
        restarted_ms(events[:2])


def test_an_address_is_away_from_its_going_until_its_coming() -> None:
    told = """\
[2026-01-01T00:00:01.000000] Deleted 3: eth1    inet 10.79.0.2/24 brd 10.79.0.255 scope global eth1
[2026-01-01T00:00:01.010000] 3: eth1    inet 10.79.0.9/24 brd 10.79.0.255 scope global eth1
[2026-01-01T00:00:01.025000] 3: eth1    inet 10.79.0.2/24 brd 10.79.0.255 scope global eth1
"""
    assert absences_ms(told) == [25]
    with pytest.raises(Unmeasurable):
        absences_ms("")
