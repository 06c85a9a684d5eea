"""What a rollout costs the server: what a controller reads for a look, and all that is written, counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
from nats.js import JetStreamContext

from harmony_control.fleet_view.watching import FleetWatch, watching
from harmony_control.rollout.state import Look

from .light_fleet import LightDevice, LightFleet, large_light_fleet

OF_CLASSES = 4
"""The next root document, the fleet index, the newest gate; and one to spare."""


@attrs.frozen
class Received:
    messages: int
    bytes: int


async def _count(fleet: LightFleet, look: Callable[[], Awaitable[Look]]) -> tuple[Look, Received]:
    """What the server sent to the control plane for that look."""
    stats = fleet.bus.admin.stats
    messages, size = stats["in_msgs"], stats["in_bytes"]
    found = await look()
    return found, Received(stats["in_msgs"] - messages, stats["in_bytes"] - size)


async def _report(watch: FleetWatch, devices: list[LightDevice]) -> None:
    """Have these devices report again, until *watch* knows of it."""
    changes = watch.changes()
    await anext(changes)
    left = {each.id for each in devices}
    for each in devices:
        await each.report("Applied")
    while left:
        left -= await anext(changes)
    await changes.aclose()


async def test_of_1000_devices_only_those_are_read_that_say_something(tmp_path: Path) -> None:
    async with large_light_fleet(tmp_path, 1_000) as fleet:
        await fleet.publish("one", ["100"])
        await fleet.look()
        async with watching(fleet.reports) as watch:
            rollout = fleet.rollout()
            first, whole = await _count(fleet, lambda: rollout.step(watch))
            assert first.next is not None  # all of them are in order: the next wave is opened
            assert whole.messages > 2 * len(fleet.devices)

            second, _ = await _count(fleet, lambda: rollout.step(watch))
            assert (second.next, second.progress.counts["Progressing"]) == (None, 900)
            third, quiet = await _count(fleet, lambda: rollout.step(watch))
            assert third.progress == second.progress
            assert quiet.messages <= OF_CLASSES
            assert quiet.bytes < 8 * 1024

            async def hear_of_ten() -> Look:
                await _report(watch, list(fleet.devices[:10]))
                return await rollout.step(watch)

            _, ten = await _count(fleet, hear_of_ten)
            assert 10 <= ten.messages <= 10 + OF_CLASSES


BUCKETS = ("desired-state", "desired-class", "fleet", "rollout")
"""What operators write, and whoever opens waves."""


async def _count_writes(fleet: LightFleet) -> dict[str, int]:
    """Return how often each of `BUCKETS` was ever written."""
    context = JetStreamContext(fleet.bus.admin)
    return {each: (await context.stream_info(f"KV_{each}")).state.last_seq for each in BUCKETS}


@pytest.mark.parametrize("count", [10, 100])
async def test_a_rollout_writes_as_much_however_many_members_it_has(
    tmp_path: Path, count: int
) -> None:
    async with large_light_fleet(tmp_path, count) as fleet:
        found: list[dict[str, int]] = []
        for text in ("one", "two"):
            before = await _count_writes(fleet)
            await fleet.publish(text, ["10%", "50%"])
            assert (await fleet.go(fleet.rollout())).state == "done"
            after = await _count_writes(fleet)
            found.append({each: after[each] - before[each] for each in BUCKETS})
        assert all(each.followed == [1, 2] for each in fleet.devices)
    # The class, once; who belongs to it, where that changes; a gate for each of three waves, and for the end.
    class_alone = {"desired-state": 0, "desired-class": 1, "fleet": 0, "rollout": 4}
    assert found == [class_alone | {"fleet": 1}, class_alone]
