"""``start.*``: from nothing to the first value read, and to the first Outcome seen."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .bed import Bed, file_scores
from .figures import Line, median
from .goals import line
from .rounds import Rounds

__all__ = ["STARTING", "starting"]

STARTING = ("start.first_value", "start.first_outcome")


async def starting(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Each time a new generation waits in the bus, so that there is something to tell."""
    same = file_scores("/etc/app", 1, "the same each time")
    await bed.told("start-floor")
    await bed.put("start-floor", bed.sealed("start-floor", same)[1])
    values, outcomes, floors = list[float](), list[float](), list[float]()
    for number in range(rounds.of(15) + 1):
        generation, envelope = bed.sealed("start", same)
        await bed.put("start", envelope)
        agent = await bed.agent("start")
        outcome_ms = await bed.seen_ms("start", generation, agent.began)
        value_ms = await bed.read_ms("start", agent.began)
        await agent.stop()
        floor = await bed.floor("f2", "start-floor", ready=False)
        floor_ms = await bed.read_ms("start-floor", floor.began)
        await floor.stop()
        if number:  # the first has made bytecode and database
            values.append(value_ms)
            outcomes.append(outcome_ms)
            floors.append(floor_ms)
    floor_figure = median(floors, "ms")
    yield line("start.first_value", median(values, "ms"), floor_figure)
    yield line("start.first_outcome", median(outcomes, "ms"), floor_figure)
