"""``harmony events AGENT [-f]``, or ``--fleet``: every change that was made, and by whose order."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

from harmony_control.device import Device, Event
from harmony_control.fleet import Fleet
from harmony_control.fleet_view.events import FleetEvent, Untold
from harmony_control.fleet_view.where import Predicate, parse_where
from harmony_control.store.home import check_agent_id
from harmony_control.times_typed import since_of
from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError
from harmony_core.outcome_words import indent
from harmony_core.visible import word

from .changes_view import change_words
from .common import home_of, warn
from .exits import CONVERGED
from .painted import Words, in_colour, paint

__all__ = ["event_words", "run"]

_UNTOLD_MOST = 3


def run(options: argparse.Namespace) -> int:
    """Print the events, oldest first; with ``-f``, go on until interrupted. Return 2 for a Score of which
    nothing is known."""
    if options.fleet:
        if options.agent is not None:
            raise UsageError("--fleet is of all devices; choose some of them with --where")
        return asyncio.run(_of_fleet(options))
    if options.agent is None:
        raise UsageError("name a device, or give --fleet")
    if options.where:
        raise UsageError("--where chooses among all devices: give --fleet in place of the device")
    return asyncio.run(_events(options))


async def _of_fleet(options: argparse.Namespace) -> int:
    holds: Predicate = parse_where(options.where) if options.where else lambda _: True
    since, colour = since_of(options.since), in_colour(options)
    async with (
        Fleet.connect(home_of(options)) as fleet,
        fleet.events(holds, since=since, lines=options.lines, follow=options.follow) as told,
    ):
        async for each in told:
            match each:
                case Untold():
                    warn(options, _untold_words(each))
                case FleetEvent() if options.json:
                    print(json.dumps({**each.event, "agent_id": each.agent_id}), flush=True)
                case FleetEvent():
                    print(
                        paint(event_words(each.event, each.agent_id), colour=colour),
                        end="",
                        flush=options.follow,
                    )
    return CONVERGED


def _untold_words(untold: Untold) -> str:
    names = sorted(untold.why)
    told = ", ".join(f"{each} ({untold.why[each]})" for each in names[:_UNTOLD_MOST])
    more = f" and {len(names) - _UNTOLD_MOST} more" if len(names) > _UNTOLD_MOST else ""
    are = "device is" if len(names) == 1 else "devices are"
    return f"what {len(names)} {are} to tell is missing here: {told}{more}"


async def _events(options: argparse.Namespace) -> int:
    agent_id, since = check_agent_id(options.agent), since_of(options.since)
    colour = in_colour(options)
    async with (
        Fleet.connect(home_of(options)) as fleet,
        fleet.device(agent_id).events(
            score=options.score, since=since, lines=options.lines, follow=options.follow
        ) as events,
    ):
        count = 0
        async for event in events:
            count += 1
            if options.json:
                print(json.dumps(event), flush=options.follow)
            else:
                print(paint(event_words(event), colour=colour), end="", flush=options.follow)
        if not count and options.score:
            await _refuse_unknown(fleet.device(agent_id), options.score)
    return CONVERGED


async def _refuse_unknown(device: Device[object], score: str) -> None:
    state = await device.state()
    known = list(state.scores) if state is not None else list[str]()
    if score not in known:
        hint = did_you_mean(score, known)
        raise UsageError(
            f"{device.id} has no Score {score!r}, and has noted no change for one{hint}"
        )


def event_words(event: Event, agent_id: str = "") -> list[Words]:
    """Return one event in words, even one of an unknown kind; with the device's id where *agent_id* is
    given."""
    when = _text(event, "at")[:19].replace("T", " ")
    signed_by = [str(each)[:16] for each in _list(event, "signed_by")]
    by = f", signed by {', '.join(signed_by)}" if signed_by else ""
    why = f"{_text(event, 'why')}, generation {_text(event, 'generation')}{by}"
    whose: list[Words] = [(f"{agent_id}  ", "cyan")] if agent_id else []
    if event.get("why") == "lost":
        what = ", ".join(map(str, _list(event, "actions")))
        return [
            (f"{word(when)}  ", "dim"),
            *whose,
            (f"earlier events are lost: {indent(what)}\n", "yellow"),
        ]
    before, after = _fields(event, "before"), _fields(event, "after")
    return [
        (f"{word(when)}  ", "dim"),
        *whose,
        (word(_text(event, "score")), "bold"),
        (f"  {word(why)}\n", "dim"),
        *change_words(
            _text(event, "resource"),
            tuple(map(str, _list(event, "actions"))),
            before=before,
            after=after,
            diff=_text(event, "diff") or None,
            gone=after is None and before is not None,
        ),
    ]


def _text(event: Event, name: str) -> str:
    value = event.get(name)
    return "" if value is None else str(value)


def _list(event: Event, name: str) -> list[object]:
    value = event.get(name)
    return cast("list[object]", value) if isinstance(value, list) else []


def _fields(event: Event, name: str) -> Mapping[str, Any] | None:
    value = event.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
