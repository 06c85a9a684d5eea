"""``harmony events AGENT [-f]``: every change that was made to a device, and by whose order."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

from harmony_control.bus.connection import admin
from harmony_control.bus.reports import Reports
from harmony_control.bus.requests import Asking, Event
from harmony_control.store.home import check_agent_id
from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError
from harmony_core.visible import word

from .changes_view import change_words
from .common import home_of
from .exits import CONVERGED
from .painted import Words, in_colour, paint
from .since import since_of
from .text import indent

__all__ = ["event_words", "run"]


def run(options: argparse.Namespace) -> int:
    """Print them, oldest first; with ``-f`` until interrupted. 2 for a Score of which nothing is known."""
    return asyncio.run(_events(options))


async def _events(options: argparse.Namespace) -> int:
    home, since = home_of(options), since_of(options.since)
    agent_id = check_agent_id(options.agent)
    colour = in_colour(options)
    async with (
        admin(home) as client,
        Asking(home, client, agent_id).events(
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
            await _refuse_unknown(Reports(home, client), agent_id, options.score)
    return CONVERGED


async def _refuse_unknown(reports: Reports, agent_id: str, score: str) -> None:
    report = await reports.read_report(agent_id)
    known = list(report.state.scores) if report and report.state else list[str]()
    if score not in known:
        hint = did_you_mean(score, known)
        raise UsageError(
            f"{agent_id} has no Score {score!r}, and has noted no change for one{hint}"
        )


def event_words(event: Event) -> list[Words]:
    """Return one event, whatever a device takes for one."""
    when = _text(event, "at")[:19].replace("T", " ")
    signed_by = [str(each)[:16] for each in _list(event, "signed_by")]
    by = f", signed by {', '.join(signed_by)}" if signed_by else ""
    why = f"{_text(event, 'why')}, generation {_text(event, 'generation')}{by}"
    if event.get("why") == "lost":
        what = ", ".join(map(str, _list(event, "actions")))
        return [
            (f"{word(when)}  ", "dim"),
            (f"earlier events are lost: {indent(what)}\n", "yellow"),
        ]
    before, after = _fields(event, "before"), _fields(event, "after")
    return [
        (f"{word(when)}  ", "dim"),
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
