"""``agent.*.containers``: what an agent holds in memory on a Pi where a container runs.

The floor is F3 on the same Pi and by the same interpreter, with podman-py. podman's own service is told of if
it is there once all is quiet: an agent that kept it alive would cost its memory, too.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from harmony_control.bus.connection import Bucket, admin
from harmony_control.enrol import add_agent
from harmony_control.store import operator_key
from harmony_core.wire.envelope import seal
from harmony_core.wire.manifest import Manifest, target_of
from harmony_scores import ContainerScore
from tests.fleet.ground import URL, pushed, statuses

from .bed import Bed, floor_account
from .figures import Figure, Line
from .goals import line
from .pi import Pi, pi_in_a_box
from .processes import memory_of, tree
from .rounds import Rounds

__all__ = ["CONTAINERS", "containers"]

CONTAINERS = ("agent.rss.containers", "agent.pss.containers")
_QUIET_S = 15.0
"""podman's service goes five seconds after it was last asked something."""
_SERVICE = b"podman\0system\0service"
_FLOOR = "floor"
_SOCKET = "unix:///run/podman/podman.sock"


async def containers(bed: Bed, _: Rounds) -> AsyncIterator[Line]:
    """Agent and floor side by side, as they are once nothing happens any more."""
    async with pi_in_a_box(bed.root) as pi:
        image = pi.boxes.registry.push_busybox("web", "1")
        state, _seen = await pushed(pi.device, {"web": ContainerScore(name="web", image=image)})
        assert statuses(state) == {"web": "SUCCESS"}
        async with pi.floor("f3", **await _told(pi)) as floor:
            await asyncio.sleep(_QUIET_S)
            services = _services(pi)
            held = memory_of([pi.agent_pid(), *services])
            least = memory_of([_python(floor.pid)])
    note = f"podman's service {'kept alive, and counted' if services else 'is gone'}"
    yield line(CONTAINERS[0], Figure(held.rss, 0, "MiB"), Figure(least.rss, 0, "MiB"), note=note)
    yield line(CONTAINERS[1], Figure(held.pss, 0, "MiB"), Figure(least.pss, 0, "MiB"), note=note)


def _services(pi: Pi) -> list[int]:
    pids = tree(pi.box.pid)
    return [pid for pid in pids if _SERVICE in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _python(pid: int) -> int:
    """Return the process that nsenter, which runs as *pid*, has started: the floor itself."""
    return tree(pid)[-1]


async def _told(pi: Pi) -> Mapping[str, object]:
    """Return what the floor has to know: it is a device of the same fleet, and a manifest waits for it."""
    home, key = pi.plane.home, operator_key.load(pi.plane.home)
    device = tomllib.loads(add_agent(home, _FLOOR, url=URL).read_text())
    manifest = Manifest(
        fleet=device["fleet"],
        target=target_of(_FLOOR),
        generation=1,
        issued_at=datetime.now(UTC),
        scores=(),
    )
    async with admin(home) as client:
        bucket = Bucket(client, "desired-state")
        await bucket.update(_FLOOR, seal(manifest.payload(), key), last=0)
    pi.box.write("/root/f3/nothing", "")
    return {
        **floor_account(device["nats"]),
        "agent": _FLOOR,
        "key": key.public.public.hex(),
        "directory": "/root/f3",
        "database": "/root/f3/floor.db",
        "heartbeat_s": 1.0,
        "podman": _SOCKET,
    }
