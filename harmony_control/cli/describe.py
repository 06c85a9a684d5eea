"""``harmony describe AGENT``: all that is known of one device: where it stands and why, how it is itself, its
Scores, and what was changed on it last, which it is asked for where it is heard."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator

from harmony_control.device import Event, Waits
from harmony_control.fleet import Fleet, Seen
from harmony_control.fleet_view.document import row_to_document
from harmony_control.fleet_view.facts import vital_facts
from harmony_control.fleet_view.row import Axes, axes_of, row_of
from harmony_control.store.home import check_agent_id
from harmony_core.errors import HarmonyError
from harmony_core.outcome_words import indent
from harmony_core.visible import word
from harmony_core.wire.actual_state import to_json

from .common import home_of
from .device_view import device_words
from .events import event_words
from .exits import CONVERGED
from .painted import Words, in_colour, paint

__all__ = ["run"]

_EVENTS = 10
_WAITS = Waits(answer_s=5.0, all_s=15.0)


def run(options: argparse.Namespace) -> int:
    """Print all about one device. Return 0 whatever its state, 2 where there is no such device."""
    return asyncio.run(_describe(options))


async def _describe(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        seen = await fleet.read_agent(agent_id)
        events, why_none = await _ask_events(fleet, seen)
    if options.json:
        print(json.dumps(_to_document(seen, events, why_none)))
        return CONVERGED
    words = [*_words(seen)]
    for event in events:
        words += event_words(event)
    if why_none:
        words.append((f"  {indent(why_none)}\n", "yellow"))
    print(paint(words, colour=in_colour(options)), end="", flush=True)
    return CONVERGED


async def _ask_events(fleet: Fleet, seen: Seen) -> tuple[list[Event], str]:
    """Return the latest changes, and, where they are not known, why not."""
    if seen.presence != "Heard":
        return [], "not asked for: the device is not heard"
    try:
        async with fleet.device(seen.agent_id).events(lines=_EVENTS, waits=_WAITS) as told:
            return [event async for event in told], ""
    except HarmonyError as error:
        return [], f"the device did not tell: {error.message}"


def _to_document(seen: Seen, events: list[Event], why_none: str) -> dict[str, object]:
    axes = axes_of(seen)
    return {
        **row_to_document(row_of(seen)),
        "reasons": {
            "device": axes.device.reason,
            "update": axes.update.reason,
            "workloads": axes.workloads.reason,
        },
        "state": json.loads(to_json(seen.state)) if seen.state else None,
        "events": events,
        "events_problem": why_none,
    }


def _words(seen: Seen) -> Iterator[Words]:
    row = row_of(seen)
    yield from _axes(axes_of(seen))
    if row.labels:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(row.labels.items()))
        yield f"labels     {word(labels)}\n", ""
    for name, value in vital_facts(row):
        yield f"{name:<10} {value}\n", ""
    yield "\n", ""
    yield from device_words(seen)
    yield "\n\nLast changes:\n", "bold"


def _axes(axes: Axes) -> Iterator[Words]:
    for name, axis in (
        ("device", axes.device),
        ("update", axes.update),
        ("workloads", axes.workloads),
    ):
        good = axis.state in {"Online", "UpToDate", "Healthy"}
        yield f"{name:<10} ", "bold"
        yield axis.state, "green" if good else "yellow"
        yield (f": {indent(axis.reason)}\n" if axis.reason else "\n"), ""
