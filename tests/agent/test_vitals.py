"""What a device tells of itself beside its Scores: read as it stands, and None where it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harmony_agent.report.vitals import read_vitals
from harmony_core.wire.actual_state import Heartbeat, from_json, to_json
from harmony_core.wire.vitals import Vitals

PI = {
    "proc/uptime": "86400.52 300000.00\n",
    "proc/meminfo": "MemTotal:  948304 kB\nMemFree:  1 kB\nMemAvailable:  512000 kB\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/temp": "51000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/block/mmcblk0/device/life_time": "0x01 0x03\n",
}
MOST = Vitals(
    uptime_s=999_999_999,
    temperature_c=-40.5,
    throttled=0xF000F,
    disk_free_bytes=2_000_000_000_000,
    state_free_bytes=2_000_000_000_000,
    disk_life_used_percent=110,
    memory_available_bytes=16_000_000_000,
    clock_synchronised=False,
    clock_ms=1_769_860_800_000,
)


def _beat(vitals: Vitals | None) -> Heartbeat:
    return Heartbeat(
        agent_id="pi-1",
        boot_id="b",
        agent_version="1",
        generation=1,
        observed_generation=1,
        queue_seq=1,
        vitals=vitals,
    )


def _lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_pi_is_read_as_it_stands(tmp_path: Path) -> None:
    _lay_out(tmp_path, PI)
    found = read_vitals(tmp_path, tmp_path)
    assert found.uptime_s == 86_400
    assert found.temperature_c == 51.0, "the hottest"
    assert found.throttled == 0x50005
    assert (found.under_voltage, found.under_voltage_since_boot) == (True, True)
    assert (found.is_throttled, found.throttled_since_boot) == (True, True)
    assert found.disk_life_used_percent == 30, "the worse of the two"
    assert found.memory_available_bytes == 512_000 * 1_024
    assert found.disk_free_bytes
    assert found.state_free_bytes is None, "the same file system"


@pytest.mark.parametrize("text", [None, "", "garbage", "\xff", "0x00 0x0c"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, text: str | None) -> None:
    _lay_out(tmp_path, {} if text is None else dict.fromkeys(PI, text))
    found = read_vitals(tmp_path / "missing", tmp_path)
    assert found.disk_free_bytes
    assert (found.state_free_bytes, found.uptime_s, found.temperature_c) == (None, None, None)
    assert (found.throttled, found.under_voltage, found.is_throttled) == (None, None, None)
    assert (found.disk_life_used_percent, found.memory_available_bytes) == (None, None)


def test_this_machine_can_be_read() -> None:
    found = read_vitals(Path("/"))
    assert found.uptime_s
    assert found.memory_available_bytes
    assert from_json(to_json(_beat(found)), Heartbeat).vitals == found


def test_they_make_a_heartbeat_little_longer() -> None:
    longer = len(to_json(_beat(MOST))) - len(to_json(_beat(None)))
    assert longer < 300
    usual = Vitals(
        uptime_s=86_400,
        temperature_c=48.3,
        throttled=0,
        disk_free_bytes=12_000_000_000,
        memory_available_bytes=512_000_000,
        clock_synchronised=True,
        clock_ms=1_769_860_800_000,
    )
    assert len(to_json(_beat(usual))) - len(to_json(_beat(None))) < 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"uptime_s": -1},
        {"uptime_s": True},
        {"uptime_s": 2**70},
        {"temperature_c": 1e300},
        {"temperature_c": 10**400},
        {"temperature_c": "48"},
        {"throttled": -1},
        {"disk_free_bytes": 1.5},
        {"disk_life_used_percent": 200},
        {"clock_synchronised": 1},
        {"clock_ms": []},
        [],
        "x",
        None,
    ],
)
def test_what_cannot_be_so_is_not_known_and_the_heartbeat_counts(wrong: Any) -> None:
    told = json.loads(to_json(_beat(MOST))) | {"vitals": wrong}
    found = from_json(json.dumps(told).encode(), Heartbeat)
    assert found.agent_id == "pi-1"
    assert found.vitals == (Vitals() if isinstance(wrong, dict) else None)


def test_what_is_no_number_is_not_known() -> None:
    text = to_json(_beat(MOST)).replace(b"-40.5", b"NaN")
    found = from_json(text, Heartbeat).vitals
    assert found is not None
    assert found.temperature_c is None


def test_an_older_agent_tells_none() -> None:
    assert from_json(to_json(_beat(None)), Heartbeat).vitals is None
