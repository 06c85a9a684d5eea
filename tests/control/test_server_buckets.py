"""The streams behind the buckets: their options, their upkeep, and what they announce."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.errors import APIError

from harmony_control.server.buckets import HEARTBEAT_WATCH, ensure_buckets
from harmony_core.errors import ConfigError, StoreError
from tests.nats import Bus, serving

from .scripted_device import ScriptedDevice

MIB = 1024 * 1024
WRITTEN_BY_DEVICES: dict[str, object] = {
    "max_msgs_per_subject": 1,
    "allow_direct": True,
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "duplicate_window": 100_000_000,
}
WITH_A_PAST: dict[str, Any] = {
    "storage": "file",
    "max_msgs_per_subject": 64,
    "discard": "new",
    "allow_direct": True,
    "deny_delete": True,
    # It would have one subject for all devices, to which any of them could have the server send something.
    "republish": None,
}
OPTIONS: Mapping[str, Mapping[str, object]] = {
    "KV_desired-state": {
        "subjects": ["$KV.desired-state.>"],
        "storage": "file",
        "max_msgs_per_subject": 8,
        "max_msg_size": MIB,
        "discard": "new",
        "allow_direct": True,
        "deny_delete": True,
        "republish": {
            "src": "$KV.desired-state.*",
            "dest": "harmony.mail.{{wildcard(1)}}.desired-state",
        },
    },
    "KV_assets": {
        "subjects": ["$KV.assets.*.*.*"],
        "storage": "file",
        "max_msgs_per_subject": 1,
        "max_msg_size": MIB,
        "max_bytes": 4096 * MIB,
        # Nothing goes by its age: a device may have been off for months.
        "max_age": 0,
        "discard": "new",
        "allow_direct": True,
        "deny_delete": True,
    },
    "KV_desired-class": {
        "subjects": ["$KV.desired-class.>"],
        "storage": "file",
        "max_msgs_per_subject": 1,
        "max_msg_size": MIB,
        "discard": "new",
        "allow_direct": True,
        "deny_delete": True,
        "republish": None,
    },
    "KV_fleet": WITH_A_PAST | {"subjects": ["$KV.fleet.*"], "max_msg_size": 256 * 1024},
    "KV_rollout": WITH_A_PAST | {"subjects": ["$KV.rollout.*"], "max_msg_size": 16 * 1024},
    "KV_actual-state": WRITTEN_BY_DEVICES
    | {
        "subjects": ["$KV.actual-state.>"],
        "storage": "file",
        "max_msg_size": 256 * 1024,
        "persist_mode": "async",
    },
    "KV_heartbeat": WRITTEN_BY_DEVICES
    | {
        "subjects": ["$KV.heartbeat.>"],
        "storage": "memory",
        "max_msg_size": 64 * 1024,
        "max_age": 1_800_000_000_000,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": None,
    },
    "KV_inventory": WRITTEN_BY_DEVICES
    | {
        "subjects": ["$KV.inventory.>"],
        "storage": "file",
        "max_msg_size": 64 * 1024,
        "persist_mode": "async",
    },
    HEARTBEAT_WATCH: {
        "subjects": None,
        "sources": [{"name": "KV_heartbeat"}],
        "storage": "memory",
        "max_age": 1_800_000_000_000,
        "subject_delete_marker_ttl": 90_000_000_000,
    },
}


async def _info(bus: Bus, stream: str) -> dict[str, Any]:
    answer = await bus.admin.request(f"$JS.API.STREAM.INFO.{stream}")
    decoded: dict[str, Any] = json.loads(answer.data)
    return decoded


async def _make_anew(bus: Bus, stream: str, changes: dict[str, object]) -> None:
    """Have *stream* as somebody else might have made it."""
    config = (await _info(bus, stream))["config"] | changes
    given = {name: value for name, value in config.items() if value is not None}
    await bus.admin.request(f"$JS.API.STREAM.DELETE.{stream}")
    answer = await bus.admin.request(f"$JS.API.STREAM.CREATE.{stream}", json.dumps(given).encode())
    assert "error" not in json.loads(answer.data)


async def test_every_stream_has_the_options_that_its_safety_rests_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        for stream, options in OPTIONS.items():
            config = (await _info(bus, stream))["config"]
            assert {name: config.get(name) for name in options} == options


async def test_making_the_buckets_again_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        await bus.bucket("desired-state").put("pi-1", b"value")
        before = {stream: await _info(bus, stream) for stream in OPTIONS}

        await ensure_buckets(bus.admin)

        after = {stream: await _info(bus, stream) for stream in OPTIONS}
        for stream in OPTIONS:
            assert after[stream]["created"] == before[stream]["created"]
            assert after[stream]["config"] == before[stream]["config"]
        assert after["KV_desired-state"]["state"]["messages"] == 1


async def test_an_option_that_was_weakened_is_set_right_and_the_values_stay(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        await _make_anew(
            bus,
            "KV_actual-state",
            {
                "allow_rollup_hdrs": True,
                "deny_purge": False,
                "max_msg_size": 2 * MIB,
                "max_msgs_per_subject": 3,
            },
        )
        revision = await bus.bucket("actual-state").put("pi-1", b"value")

        await ensure_buckets(bus.admin)

        config_now = (await _info(bus, "KV_actual-state"))["config"]
        for option in ("allow_rollup_hdrs", "deny_purge", "max_msg_size", "max_msgs_per_subject"):
            assert config_now.get(option) == OPTIONS["KV_actual-state"][option]
        entry = await bus.bucket("actual-state").get("pi-1")
        assert entry is not None
        assert entry.revision == revision


@pytest.mark.parametrize(
    ("stream", "changes", "said"),
    [
        ("KV_actual-state", {"persist_mode": None}, "persist_mode is None instead of async"),
        (
            "KV_desired-state",
            {"storage": "memory", "max_bytes": MIB},
            "storage is memory instead of file",
        ),
    ],
)
async def test_an_option_that_cannot_be_changed_is_said_with_the_remedy(
    tmp_path: Path, stream: str, changes: dict[str, object], said: str
) -> None:
    async with serving(tmp_path) as bus:
        await _make_anew(bus, stream, changes)

        with pytest.raises(ConfigError, match=f"{stream} exists with other .*{said}.*jetstream"):
            await ensure_buckets(bus.admin)


async def test_the_server_announces_a_heartbeat_that_expired(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        await ensure_buckets(bus.admin, heartbeat_age_s=1.0)
        device = await bus.device("pi-1")
        announced = await JetStreamContext(bus.admin).subscribe(
            "$KV.heartbeat.pi-1", stream=HEARTBEAT_WATCH, ordered_consumer=True
        )

        await device.bucket("heartbeat").put("pi-1", b"alive")

        alive = await announced.next_msg(timeout=15)
        silent = await announced.next_msg(timeout=15)
        assert alive.data == b"alive"
        assert (silent.subject, silent.data) == ("$KV.heartbeat.pi-1", b"")
        assert silent.headers is not None
        assert silent.headers["Nats-Marker-Reason"] == "MaxAge"
        # Two streams keep it, each with a clock of its own: which of them is first, is not said.
        async with asyncio.timeout(15):
            while await bus.bucket("heartbeat").get("pi-1") is not None:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("kept_s", "said_s"), [(1_800.0, 1), (1.0, 86_400 * 365)], ids=["its own", "the longest"]
)
async def test_a_heartbeat_ends_by_its_own_lifetime_or_by_the_longest_whichever_is_shorter(
    tmp_path: Path, kept_s: float, said_s: int
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        await ensure_buckets(bus.admin, heartbeat_age_s=kept_s)
        device = ScriptedDevice(await bus.device("pi-1"))
        announced = await JetStreamContext(bus.admin).subscribe(
            "$KV.heartbeat.pi-1", stream=HEARTBEAT_WATCH, ordered_consumer=True
        )

        await device.beat(lifetime=str(said_s))

        assert (await announced.next_msg(timeout=15)).data
        silent = await announced.next_msg(timeout=15)
        assert (silent.headers or {})["Nats-Marker-Reason"] == "MaxAge"
        # The bucket drops it by a clock of its own.
        async with asyncio.timeout(5):
            while await bus.bucket("heartbeat").get("pi-1") is not None:
                await asyncio.sleep(0.05)


async def test_buckets_of_an_older_server_are_brought_up_to_date_with_what_is_in_them(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        for stream, was in (("KV_heartbeat", {"allow_msg_ttl": False}), (HEARTBEAT_WATCH, {})):
            await _make_anew(bus, stream, {"max_age": 90 * 10**9, **was})
        device = ScriptedDevice(await bus.device("pi-1"))
        await device.beat()
        with pytest.raises(APIError, match="per-message TTL is disabled"):
            await device.beat(lifetime="90")

        await ensure_buckets(bus.admin)

        for stream in ("KV_heartbeat", HEARTBEAT_WATCH):
            config = (await _info(bus, stream))["config"]
            assert {name: config.get(name) for name in OPTIONS[stream]} == OPTIONS[stream]
        assert await bus.bucket("heartbeat").get("pi-1") is not None
        await device.beat(lifetime="90")


async def test_the_last_eight_manifests_of_a_device_are_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        for number in range(10):
            await bus.bucket("desired-state").put("pi-1", str(number).encode())
        await bus.bucket("desired-state").put("pi-2", b"other")

        assert (await _info(bus, "KV_desired-state"))["state"]["messages"] == 8 + 1
        entry = await bus.bucket("desired-state").get("pi-1")
        assert entry is not None
        assert entry.value == b"9"


async def test_a_message_of_one_mebibyte_is_the_largest_that_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        overhead_bytes = 1024
        await bus.bucket("desired-state").put("pi-1", b"x" * (MIB - overhead_bytes))

        with pytest.raises(StoreError):
            await bus.bucket("desired-state").put("pi-1", b"x" * (MIB + 1))
        with pytest.raises(StoreError, match="smaller"):
            await bus.bucket("desired-state").put("pi-1", b"x" * 2 * MIB)
