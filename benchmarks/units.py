"""``drift.unit``: from systemd's signal that a unit has stopped, until the call that starts it again is sent.

Both are seen on the system bus of a Pi in a box, by `busctl monitor`. Each unit is killed once, since who
insists meets growing patience; the agent's and the floor's in turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harmony_scores import SystemdServiceScore
from tests.fleet.ground import pushed, statuses

from .bed import Bed
from .figures import Line, Unmeasurable, median
from .goals import line
from .pi import Pi, pi_in_a_box
from .rounds import Rounds

__all__ = ["UNITS", "started_again_ms", "units"]

UNITS = ("drift.unit",)
_SLEEPS = ("/usr/bin/sleep", "infinity")
_WATCHED_S = 2.0
_BETWEEN_S = 0.5
_STOPPED = ("failed", "inactive")
_HEARD = (
    "type='signal',path_namespace='/org/freedesktop/systemd1/unit',member='PropertiesChanged'",
    "type='method_call',member='StartUnit'",
    "type='method_call',member='RestartUnit'",
)


async def units(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Ours are Scores; the floor's are unit files that nobody else knows of."""
    names = [str(number) for number in range(rounds.of(30))]
    ours = [f"ours-{name}.service" for name in names]
    floors = [f"floor-{name}.service" for name in names]
    async with pi_in_a_box(bed.root) as pi:
        scores = {
            name: SystemdServiceScore(
                name=f"ours-{name}.service", exec_start=_SLEEPS, restart="no", settle_s=0.3
            )
            for name in names
        }
        state, _ = await pushed(pi.device, scores)
        assert set(statuses(state).values()) == {"SUCCESS"}
        await asyncio.to_thread(_started, pi, floors)
        async with pi.floor("f8", units=floors), _monitored(pi, bed.root / "monitor") as log:
            await asyncio.sleep(_WATCHED_S)
            for pair in zip(ours, floors, strict=True):
                for name in pair:
                    await asyncio.to_thread(_killed, pi, name)
                    await asyncio.sleep(_BETWEEN_S)
        messages = [json.loads(each) for each in log.read_text().splitlines() if each[:1] == "{"]
    took = [[started_again_ms(messages, name) for name in each] for each in (ours, floors)]
    yield line(UNITS[0], median(took[0], "ms"), median(took[1], "ms"))


def _started(pi: Pi, names: Sequence[str]) -> None:
    for name in names:
        unit = f"[Service]\nType=exec\nExecStart={' '.join(_SLEEPS)}\n"
        pi.box.write(f"/run/systemd/system/{name}", unit)
    pi.box.run(["systemctl", "daemon-reload"])
    pi.box.run(["systemctl", "start", *names])


def _killed(pi: Pi, name: str) -> None:
    pi.box.run(["kill", "-KILL", pi.host.unit(name, "MainPID")["MainPID"]])


@asynccontextmanager
async def _monitored(pi: Pi, log: Path) -> AsyncGenerator[Path]:
    """Write what is said on the bus within the block to *log*, one message a line."""
    matches = [f"--match={each}" for each in _HEARD]
    command = ["busctl", "monitor", "--system", "--json=short", *matches]
    with log.open("wb") as file:
        async with pi.running(command, stdout=file):
            yield log


def started_again_ms(messages: Sequence[Mapping[str, Any]], name: str) -> float:
    """Between the first signal that *name* has stopped, and the first call thereafter that starts it."""
    stopped_us: int | None = None
    for message in messages:
        if stopped_us is None and _tells_of_stop(message, name):
            stopped_us = message["timestamp-realtime"]
        elif stopped_us is not None and _starts(message, name):
            return float(message["timestamp-realtime"] - stopped_us) / 1_000
    raise Unmeasurable(f"nobody started {name} again")


def _tells_of_stop(message: Mapping[str, Any], name: str) -> bool:
    path = name.replace("-", "_2d").replace(".", "_2e")
    if message["type"] != "signal" or not message["path"].endswith(f"/{path}"):
        return False
    state = message["payload"]["data"][1].get("ActiveState", {"data": ""})
    return state["data"] in _STOPPED


def _starts(message: Mapping[str, Any], name: str) -> bool:
    return message["type"] == "method_call" and name in message["payload"]["data"]
