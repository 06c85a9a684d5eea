"""``harmony status [AGENT] [--watch]``: what is true on the devices."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from harmony_control.fleet import Fleet, Seen
from harmony_core.actual_state import ActualState, to_json
from harmony_core.errors import UsageError
from harmony_core.outcome import Failure
from harmony_core.times import rfc3339

from .common import console, home_of, is_live
from .exits import CONVERGED, FAILED, NO_ANSWER
from .views import agents_table, device_text

__all__ = ["run"]

_EMPTY = "no device is enrolled yet; begin with: harmony add-agent ID"


def run(options: argparse.Namespace) -> int:
    """0 when everything shown is heard and Ready, 1 when a Score has failed, else 4."""
    return asyncio.run(_watch(options) if options.watch else _once(options))


async def _once(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        seen = await _asked_for(fleet, options.agent)
    if options.json:
        for each in seen:
            print(_json(each))
    else:
        console(options).print(_view(options, seen), soft_wrap=bool(options.agent))
    return max((_exit_code(each) for each in seen), key=_SEVERITY.index, default=CONVERGED)


async def _asked_for(fleet: Fleet, agent_id: str | None) -> list[Seen]:
    if agent_id is None:
        return await fleet.agents()
    seen = await fleet.device(agent_id).seen()
    enrolled = fleet.home.agents()
    if seen.presence == "Never" and agent_id not in enrolled:
        known = ", ".join(sorted(enrolled)) or "none yet; see `harmony add-agent`"
        raise UsageError(f"there is no device {agent_id!r}; there are: {known}")
    return [seen]


async def _watch(options: argparse.Namespace) -> int:
    """Until interrupted: in place on a terminal, else whatever is reported, as it comes."""
    async with Fleet.connect(home_of(options)) as fleet:
        seen = {each.agent_id: each for each in await _asked_for(fleet, options.agent)}
        watch = fleet.device(options.agent).watch() if options.agent else fleet.watch()
        async with watch as states:
            if is_live(options):
                await _watch_live(options, fleet, seen, states)
                return CONVERGED
            async for state in states:
                each = _heard(state)
                if options.json:
                    print(_json(each), flush=True)
                else:
                    console(options).print(device_text(each), soft_wrap=True)
    return CONVERGED


_LOOK_S = 5.0
"""How often presence is looked at while it is shown; states come by themselves."""


async def _watch_live(
    options: argparse.Namespace,
    fleet: Fleet,
    seen: dict[str, Seen],
    states: AsyncIterator[ActualState],
) -> None:
    from rich.live import Live

    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console(options), screen=False, auto_refresh=False))

        def show() -> None:
            shown = sorted(seen.values(), key=lambda each: each.agent_id)
            live.update(_view(options, shown), refresh=True)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_looking(options, fleet, seen, show))
            async for state in states:
                seen[state.agent_id] = _heard(state)
                show()


async def _looking(
    options: argparse.Namespace, fleet: Fleet, seen: dict[str, Seen], show: Callable[[], None]
) -> None:
    while True:
        show()
        await asyncio.sleep(_LOOK_S)
        seen.update({each.agent_id: each for each in await _asked_for(fleet, options.agent)})


def _heard(state: ActualState) -> Seen:
    return Seen(agent_id=state.agent_id, presence="Heard", at=datetime.now(UTC), state=state)


def _view(options: argparse.Namespace, seen: Sequence[Seen]) -> RenderableType:
    if options.agent:
        return Group(*map(device_text, seen))
    return agents_table(seen) if seen else Text(_EMPTY)


_SEVERITY = (CONVERGED, NO_ANSWER, FAILED)


def _exit_code(seen: Seen) -> int:
    state = seen.state
    if state is None:
        return NO_ANSWER
    if any(isinstance(page.outcome, Failure) for page in state.scores.values()):
        return FAILED
    ready = any(each.type == "Ready" and each.status == "True" for each in state.conditions)
    return CONVERGED if ready and seen.presence == "Heard" else NO_ANSWER


def _json(seen: Seen) -> str:
    state: dict[str, object] = json.loads(to_json(seen.state)) if seen.state else {}
    presence = {
        "presence": seen.presence,
        "presence_at": rfc3339(seen.at) if seen.at else None,
        "problem": seen.problem,
    }
    return json.dumps({"agent_id": seen.agent_id, **state, **presence})
