"""The kinds of faults: each is done to a device at its beginning, and mended at its end.

::

    async with KINDS["D-Bus restarted"](ground, device):
        ...                                   # as long as it lasts

What stands in a device's key of the server after a hostile writer is mended by the operator, who pushes
what was pushed last once more; so what the device makes of it is looked at before.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.manifest import Manifest
from harmony_scores import FileScore
from tests.agent.rig import entry
from tests.faults.relay import Way
from tests.faults.things import EVIL, FILES

if TYPE_CHECKING:
    from tests.faults.faulty import Faulty
    from tests.faults.ground import Ground

__all__ = ["HOSTILE_WRITES", "KINDS", "Kind", "NothingToSpoil"]


class NothingToSpoil(Exception):
    """There is nothing that a fault of this kind could be done to: it was none."""


Kind = Callable[["Ground", "Faulty"], AbstractAsyncContextManager[None]]

_JUMPS_S = (-7_200, 7_200, 86_400 * 400, -86_400 * 400, 86_400 * 365 * 40)
_SEEN_AFTER_S: Final = 1.1
"""libfaketime looks once a second what time it is to be."""
_KEY: Final = "desired-state"


@asynccontextmanager
async def _kill_agent(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    await faulty.device.kill_agent()
    yield
    await faulty.device.start_agent()


@asynccontextmanager
async def _spoil_way(_: Ground, faulty: Faulty, way: Way) -> AsyncGenerator[None]:
    faulty.device.relay.become(way)
    yield
    faulty.device.relay.become("open")


@asynccontextmanager
async def _fill_disk(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    faulty.device.fill_disk()
    yield
    faulty.device.free_disk()


@asynccontextmanager
async def _hang_podman(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    podman = faulty.device.podman
    podman.answers.clear()
    yield
    if faulty.dice.random() < 0.5:
        await podman.die()  # what was asked is never answered, be it done or not
        await podman.serve()
    podman.answers.set()


@asynccontextmanager
async def _end_podman(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    await faulty.device.podman.die()
    yield
    await faulty.device.podman.serve()


@asynccontextmanager
async def _restart_bus(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    await faulty.device.bus.kill()
    yield
    await faulty.device.restart_bus()


@asynccontextmanager
async def _freeze_bus(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    faulty.device.bus.freeze()
    yield
    await faulty.device.restart_bus()


@asynccontextmanager
async def _hang_systemd(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    faulty.device.systemd.answers.clear()
    yield
    faulty.device.systemd.answers.set()


@asynccontextmanager
async def _set_clock(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """Of all agents of one launcher."""
    clock = faulty.device.launcher.clock
    clock.set_ahead(faulty.dice.choice(_JUMPS_S))
    await asyncio.sleep(_SEEN_AFTER_S)
    yield
    clock.set_ahead(0)
    await asyncio.sleep(_SEEN_AFTER_S)


@asynccontextmanager
async def _freeze_agent(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """As on a machine that has no time for it, or sleeps."""
    os.kill(faulty.device.pid, signal.SIGSTOP)
    yield
    os.kill(faulty.device.pid, signal.SIGCONT)


@asynccontextmanager
async def _meddle(_: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """Somebody else with root changes a file that is as it is wanted.

    Before it is, what they write would be what was there before us, and comes back when it is not wanted.
    """
    wish = faulty.pusher.model.wish
    made = [
        each
        for name, each in FILES.items()
        if name in wish and not any(each.wrong(faulty.device, wish[name]))
    ]
    if not made:
        raise NothingToSpoil
    path = faulty.device.root / faulty.dice.choice(made).path[1:]
    match faulty.dice.choice(["write", "chmod", "remove"]):
        case "write":
            path.write_text("theirs\n")
        case "chmod":
            path.chmod(0o666)
        case _:
            path.unlink()
    yield


@asynccontextmanager
async def _write_junk(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    junk = faulty.dice.randbytes(faulty.dice.choice([0, 1, 300, 100_000]))
    await ground.bucket(_KEY).put(faulty.device.id, junk)
    yield


@asynccontextmanager
async def _write_older(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """What the operator has signed some time ago."""
    envelopes = faulty.pusher.model.envelopes
    older = [each for each in sorted(envelopes) if each < faulty.pusher.model.acknowledged]
    if not older:
        raise NothingToSpoil
    await ground.bucket(_KEY).put(faulty.device.id, envelopes[faulty.dice.choice(older)])
    yield


@asynccontextmanager
async def _write_another_ones(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """What the operator has signed for another device."""
    other = faulty.dice.choice([each for each in ground.all if each is not faulty])
    envelopes = other.pusher.model.envelopes
    if not envelopes:
        raise NothingToSpoil
    await ground.bucket(_KEY).put(faulty.device.id, envelopes[max(envelopes)])
    yield


@asynccontextmanager
async def _forge(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """What is newer, and signed by nobody who is trusted."""
    await ground.bucket(_KEY).put(faulty.device.id, _forged(faulty, generate_key()))
    yield


def _forged(faulty: Faulty, key: SigningKey) -> bytes:
    manifest = Manifest(
        fleet="home",
        target=f"agent:{faulty.device.id}",
        generation=faulty.pusher.model.acknowledged + 1000,
        issued_at=datetime.now(UTC),
        scores=(entry(FileScore(path=EVIL, content="evil\n"), "evil"),),
    )
    return seal(manifest.payload(), key)


@asynccontextmanager
async def _delete(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    await ground.bucket(_KEY).clear(faulty.device.id)
    yield


@asynccontextmanager
async def _purge(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    await ground.bucket(_KEY).erase(faulty.device.id)
    yield


@asynccontextmanager
async def _write_report(ground: Ground, faulty: Faulty) -> AsyncGenerator[None]:
    """Somebody else writes over what the device has told: junk, or what another device has signed."""
    bucket = ground.bucket("actual-state")
    other = faulty.dice.choice([each for each in ground.all if each is not faulty])
    found = await bucket.get(other.device.id)
    value = found.value if found and faulty.dice.random() < 0.5 else faulty.dice.randbytes(100)
    await bucket.put(faulty.device.id, value)
    yield


HOSTILE_WRITES: Final[dict[str, Kind]] = {
    "junk in its key": _write_junk,
    "an older envelope in its key": _write_older,
    "another's envelope in its key": _write_another_ones,
    "a forged envelope in its key": _forge,
    "its key deleted": _delete,
    "its key purged": _purge,
}
"""After each the operator has to push once more."""

KINDS: Final[dict[str, Kind]] = {
    "agent killed": _kill_agent,
    "agent frozen": _freeze_agent,
    "connection cut": partial(_spoil_way, way="cut"),
    "connection half open": partial(_spoil_way, way="half open"),
    "connection stalled": partial(_spoil_way, way="stalled"),
    "disk full": _fill_disk,
    "podman hangs": _hang_podman,
    "podman ends": _end_podman,
    "D-Bus restarted": _restart_bus,
    "D-Bus hangs": _freeze_bus,
    "systemd hangs": _hang_systemd,
    "clock jumps": _set_clock,
    "file changed by another root": _meddle,
    "its report written over": _write_report,
    **HOSTILE_WRITES,
}
