"""``harmony status [AGENT] [--watch]``: what is true on the devices.

A person waits for it, so nothing is loaded that does not help to answer: what pushes is not, and what
lays out tables only where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from harmony_control.fleet import Fleet, Report, Seen
from harmony_control.fleet_view.device_status import conditions
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.times import rfc3339

from .common import console, home_of, is_live
from .device_view import device_words
from .exits import CONVERGED, FAILED, NO_ANSWER, find_gravest
from .painted import in_colour, paint

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["run"]

_EMPTY = "no device is enrolled yet; begin with: harmony enroll root@HOST"


def run(options: argparse.Namespace) -> int:
    """Show the state of devices. Return 0 when every device shown is online and Ready, 1 when a Score has
    failed, else 4."""
    return asyncio.run(_watch(options) if options.watch else _once(options))


async def _once(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        seen = await _read_status(fleet, options.agent)
    if options.json:
        for each in seen:
            print(_json(each))
    elif options.agent:
        _print_devices(options, seen)
    else:
        console(options).print(_view(options, seen))
    return find_gravest(_exit_code(each) for each in seen)


async def _read_status(fleet: Fleet, agent_id: str | None) -> list[Seen]:
    return await fleet.agents() if agent_id is None else [await fleet.read_agent(agent_id)]


async def _watch(options: argparse.Namespace) -> int:
    """Show changes until interrupted: on a terminal, redraw the table; otherwise, print each report as it
    comes."""
    async with Fleet.connect(home_of(options)) as fleet:
        seen = {each.agent_id: each for each in await _read_status(fleet, options.agent)}

        async def look() -> None:
            found = await _read_status(fleet, options.agent)
            seen.update({each.agent_id: each for each in found})

        async with fleet.watch_reports(options.agent or "*") as reports:
            if is_live(options):
                await _watch_live(options, seen, reports, look)
                return CONVERGED
            async for report in reports:
                if report.state is None:
                    continue
                shown = _after(seen.get(report.agent_id), report)
                seen[report.agent_id] = shown
                if options.json:
                    print(_json(shown), flush=True)
                else:
                    _print_devices(options, [shown])
    return CONVERGED


_LOOK_S = 5.0
"""How often presence is looked at while it is shown; states come by themselves."""


async def _watch_live(
    options: argparse.Namespace,
    seen: dict[str, Seen],
    reports: AsyncIterator[Report],
    look: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    from rich.live import Live

    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console(options), screen=False, auto_refresh=False))

        def show() -> None:
            shown = sorted(seen.values(), key=lambda each: each.agent_id)
            live.update(_view(options, shown), refresh=True)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_looking(look, show))
            async for report in reports:
                if report.state is not None:
                    seen[report.agent_id] = _after(seen.get(report.agent_id), report)
                    show()


async def _looking(look: Callable[[], Coroutine[Any, Any, None]], show: Callable[[], None]) -> None:
    while True:
        show()
        await asyncio.sleep(_LOOK_S)
        await look()


def _after(known: Seen | None, report: Report) -> Seen:
    """Return the device as it is known after *report*.

    The first report was made before anybody watched, and does not say that the device is still there.
    """
    if known is not None and known.state == report.state:
        return known
    wanted = known.wanted if known is not None else None
    return Seen(
        agent_id=report.agent_id,
        presence="Heard",
        at=report.at,
        state=report.state,
        # Looked for now and then only, and a device has nothing that nobody has pushed.
        wanted=wanted if report.state is None else max(wanted or 0, report.state.generation),
    )


def _print_devices(options: argparse.Namespace, seen: Sequence[Seen]) -> None:
    for each in seen:
        print(paint(device_words(each), colour=in_colour(options)), flush=True)


def _view(options: argparse.Namespace, seen: Sequence[Seen]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from harmony_control.fleet_view.row import row_of

    from .agents_view import agents_table

    if options.agent:
        return Group(*(Text.assemble(*device_words(each)) for each in seen))
    return agents_table(map(row_of, seen)) if seen else Text(_EMPTY)


def _exit_code(seen: Seen) -> int:
    state = seen.state
    if state is None:
        return NO_ANSWER
    if any(isinstance(page.outcome, Failure) for page in state.scores.values()):
        return FAILED
    ready = any(each.type == "Ready" and each.status == "True" for each in conditions(seen))
    return CONVERGED if ready else NO_ANSWER


def _json(seen: Seen) -> str:
    state: dict[str, object] = json.loads(to_json(seen.state)) if seen.state else {}
    if seen.state is not None:
        state["conditions"] = [attrs.asdict(each) for each in conditions(seen)]
    presence = {
        "presence": seen.presence,
        "presence_at": rfc3339(seen.at) if seen.at else None,
        "wanted_generation": seen.wanted,
        "problem": seen.problem,
    }
    return json.dumps({"agent_id": seen.agent_id, **state, **presence})
