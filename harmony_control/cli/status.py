"""``harmony status [AGENT] [--watch]``: what is true on the devices."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harmony_control.fleet import Fleet, Seen
from harmony_core.actual_state import ActualState, to_json
from harmony_core.errors import UsageError
from harmony_core.times import parse_rfc3339

from .common import coloured, home_of, shortened, style_of, told
from .exits import CONVERGED, FAILED

__all__ = ["agents_table", "run"]


def run(options: argparse.Namespace) -> int:
    """0 when everything shown is Ready, else 1."""
    return asyncio.run(_watch(options) if options.watch else _once(options))


async def _once(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        seen = await _asked_for(fleet, options.agent)
    console = Console(no_color=not coloured(options), highlight=False)
    if options.json:
        for each in seen:
            print(_json(each))
    elif options.agent:
        console.print(_device(seen[0]), soft_wrap=True)
    else:
        console.print(agents_table(seen))
    return CONVERGED if all(_is_ready(each) for each in seen) else FAILED


async def _watch(options: argparse.Namespace) -> int:
    console = Console(no_color=not coloured(options), highlight=False)
    async with Fleet.connect(home_of(options)) as fleet:
        watch = fleet.device(options.agent).watch() if options.agent else fleet.watch()
        async with watch as states:
            async for state in states:
                if options.json:
                    print(to_json(state).decode(), flush=True)
                else:
                    console.print(
                        _device(Seen(agent_id=state.agent_id, state=state, heartbeat=None))
                    )
    return CONVERGED


async def _asked_for(fleet: Fleet, agent_id: str | None) -> list[Seen]:
    if agent_id is None:
        return await fleet.agents()
    device = fleet.device(agent_id)
    state, beat = await asyncio.gather(device.state(), device.heartbeat())
    if state is None and agent_id not in fleet.home.agents():
        known = ", ".join(sorted(fleet.home.agents())) or "none yet; see `harmony add-agent`"
        raise UsageError(f"there is no device {agent_id!r}; there are: {known}")
    return [Seen(agent_id=agent_id, state=state, heartbeat=beat)]


def agents_table(seen: Iterable[Seen]) -> Table:
    """One row a device."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("AGENT", "READY", "SCORES", "GENERATION", "HEARD", "AGENT VERSION"):
        table.add_column(title)
    for each in seen:
        state = each.state
        heard = Text("Silent", style="red") if each.is_silent else Text("now", style="green")
        if state is None:
            table.add_row(each.agent_id, "-", "-", "-", heard, "-")
            continue
        table.add_row(
            each.agent_id,
            _ready(state),
            str(len(state.scores)),
            f"{state.observed_generation} of {state.generation}",
            heard,
            state.agent_version,
        )
    return table


def _device(seen: Seen) -> Text:
    """One device: its conditions, its Scores, and what each of them made."""
    state = seen.state
    if state is None:
        return Text(f"{seen.agent_id} is enrolled and has not reported yet")
    text = Text.assemble(
        (state.agent_id, "bold"),
        f"  generation {state.observed_generation} of {state.generation}",
        f"  agent {state.agent_version}\n",
    )
    for each in state.conditions:
        text.append(
            f"  {each.type:<12} {each.status:<6} {each.reason}  {each.message}".rstrip() + "\n"
        )
    for name, page in state.scores.items():
        text.append(f"{name}  ", style="bold")
        text.append(page.outcome.status, style=style_of(page.outcome))
        text.append(f"  {page.kind}, for {_age(page.since)}  {told(page.outcome)}".rstrip() + "\n")
        for resource, found in page.resources.items():
            text.append(f"  {resource}  {_facts(found)}\n", style="dim")
    text.right_crop(1)
    return text


def _facts(found: Mapping[str, object]) -> str:
    facts = [
        f"{k} {shortened(str(v))}" for k, v in found.items() if k != "state" and v not in {None, ""}
    ]
    return f"{found.get('state')}: {', '.join(facts)}"


def _age(since: str) -> str:
    """How long ago, roughly: ``12 s``, ``5 min``, ``3 h``, ``9 d``."""
    try:
        seconds = (datetime.now(UTC) - parse_rfc3339(since)).total_seconds()
    except ValueError:
        return "?"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _ready(state: ActualState) -> Text:
    for each in state.conditions:
        if each.type == "Ready":
            if each.status == "True":
                return Text("yes", style="green")
            return Text(f"no: {each.reason}", style="yellow")
    return Text("?")


def _is_ready(seen: Seen) -> bool:
    return seen.state is not None and any(
        each.type == "Ready" and each.status == "True" for each in seen.state.conditions
    )


def _json(seen: Seen) -> str:
    document = json.loads(to_json(seen.state)) if seen.state else {"agent_id": seen.agent_id}
    return json.dumps({**document, "silent": seen.is_silent})
