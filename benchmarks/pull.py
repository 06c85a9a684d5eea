"""``pull.image``: from a push until podman says that the image is here, against `podman pull` of the same.

Both end at podman's own event of that pull, by its clock. The image is one layer of noise, which no
compression makes smaller: 64 MB, or as many as ``HARMONY_BENCH_IMAGE_MB`` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator

from harmony_scores import ContainerScore
from tests.fleet.ground import pushed, statuses

from .bed import Bed
from .figures import Line, Unmeasurable, median
from .goals import line
from .pi import Pi, pi_in_a_box
from .rounds import Rounds

__all__ = ["PULL", "pull"]

PULL = ("pull.image",)
_SIZE_MB = int(os.environ.get("HARMONY_BENCH_IMAGE_MB", "64"))
_NAME = "pulled"


async def pull(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Ours and podman's own, in turn; the image is taken off the Pi in between."""
    async with pi_in_a_box(bed.root) as pi:
        registry = pi.boxes.registry
        image = registry.push_busybox(
            _NAME, "1", ballast_bytes=_SIZE_MB * 10**6, stop_signal="SIGKILL"
        )
        took: list[float] = []
        floors: list[float] = []
        for _ in range(rounds.of(6)):
            took.append(await _ours_ms(pi, image))
            floors.append(await asyncio.to_thread(_floor_ms, pi, image))
    note = f"an image of {_SIZE_MB} MB"
    yield line(PULL[0], median(took, "ms"), median(floors, "ms"), note=note)


async def _ours_ms(pi: Pi, image: str) -> float:
    began_s = time.time()
    state, _ = await pushed(pi.device, {_NAME: ContainerScore(name=_NAME, image=image)})
    if statuses(state) != {_NAME: "SUCCESS"}:
        raise Unmeasurable(f"the Pi says {statuses(state)}")
    took = await asyncio.to_thread(_pulled_ms, pi, began_s)
    await pi.device.remove(_NAME)
    await asyncio.to_thread(_forget, pi)
    return took


def _floor_ms(pi: Pi, image: str) -> float:
    began_s = time.time()
    pi.box.run(["podman", "pull", "--quiet", image.partition(":1@")[0] + ":1"])
    took = _pulled_ms(pi, began_s)
    _forget(pi)
    return took


def _forget(pi: Pi) -> None:
    pi.box.run(["podman", "rmi", "--all", "--force"])


def _pulled_ms(pi: Pi, began_s: float) -> float:
    """Return how long after *began_s* podman says that it has pulled."""
    asked = ["--stream=false", "--since", str(int(began_s)), "--filter", "event=pull"]
    told = pi.box.text("podman", "events", *asked, "--format", "json")
    ends_s = [int(json.loads(each)["timeNano"]) / 10**9 for each in told.splitlines()]
    if not (after := [each for each in ends_s if each > began_s]):
        raise Unmeasurable("podman tells of no image that it has pulled")
    return (after[-1] - began_s) * 1_000
