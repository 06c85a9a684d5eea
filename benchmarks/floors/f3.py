"""F3 and F4: an agent that lives: F2, 100 files wanted and watched, and a heartbeat, until it is killed.

Every 30 s it asks whether something else is wanted by now: F4's resync. With ``podman`` it also talks to
podman's service by podman-py, once.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import ctypes
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey

from ._models import FileSpec, Manifest
from ._work import opened
from .f2 import connected, opened_database

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLOSE_WRITE = 0x8
RESYNC_S = 30.0


def watched(directory: Path) -> int:
    """Return an inotify descriptor that watches 100 files."""
    descriptor: int = _LIBC.inotify_init()
    for number in range(100):
        path = directory / f"watched-{number}"
        path.touch()
        _LIBC.inotify_add_watch(descriptor, bytes(path), _CLOSE_WRITE)
    return descriptor


def talk_to_podman(url: str) -> None:
    from podman import PodmanClient  # noqa: PLC0415 - only where it is asked for

    with PodmanClient(base_url=url) as client:
        client.ping()


def wanted(envelope: bytes, key: bytes) -> list[FileSpec]:
    """Return what the files are to be, to be kept as long as the floor runs."""
    manifest = Manifest.model_validate_json(opened(envelope, VerifyKey(key)))
    return [FileSpec.model_validate(entry.spec) for entry in manifest.scores]


async def run(told: dict[str, Any]) -> None:
    opened_database(told)
    asyncio.get_running_loop().add_reader(watched(Path(told["directory"])), print)
    if told["podman"]:
        await asyncio.to_thread(talk_to_podman, told["podman"])
    client, envelope = await connected(told)
    stream, asked_s = client.jetstream(), time.monotonic()
    files = wanted(envelope, bytes.fromhex(told["key"]))
    print("ready", len(files), flush=True)
    beat = json.dumps({"agent_id": told["agent"], "generation": 1, "queue_seq": 1}).encode()
    while True:
        await client.publish(f"$KV.heartbeat.{told['agent']}", beat)
        if time.monotonic() - asked_s > RESYNC_S:
            asked_s = time.monotonic()
            key = f"$KV.desired-state.{told['agent']}"
            found = await stream.get_last_msg("KV_desired-state", key, direct=True)
            assert found.data == envelope
        await asyncio.sleep(told["heartbeat_s"] * random.uniform(0.8, 1.0))


def main() -> None:
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
