"""``harmony logs AGENT SCORE [-f]``: what a Score's units and containers have logged."""

from __future__ import annotations

import argparse
import asyncio
import json

from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_control.times_typed import since_of
from harmony_core.outcome_words import indent
from harmony_core.resources import ResourceId
from harmony_core.visible import word
from harmony_core.wire.replies import LoggedLine, to_item

from .common import home_of, warn
from .exits import CONVERGED
from .painted import Words, in_colour, paint

__all__ = ["run"]

_STYLES = {"err": "red", "system": "dim"}


def run(options: argparse.Namespace) -> int:
    """Print the log lines, oldest first; with ``-f``, go on until interrupted."""
    return asyncio.run(_logs(options))


async def _logs(options: argparse.Namespace) -> int:
    agent_id, since = check_agent_id(options.agent), since_of(options.since)
    colour = in_colour(options)
    async with (
        Fleet.connect(home_of(options)) as fleet,
        fleet.device(agent_id).logs(
            options.score, since=since, lines=options.lines, follow=options.follow
        ) as lines,
    ):
        count = 0
        async for line in lines:
            count += 1
            text = json.dumps(to_item(line)) if options.json else paint(_words(line), colour=colour)
            print(text, flush=options.follow)
    if not count and not options.follow:
        since_when = f" since {options.since}" if options.since else " yet"
        warn(options, f"{options.score} has logged nothing{since_when}")
    return CONVERGED


def _words(line: LoggedLine) -> list[Words]:
    when, source = line.at[:19].replace("T", " "), ResourceId.parse(line.resource).key
    # What is more than a line must not look like another one.
    text = indent(line.text)
    return [
        (f"{word(when)} {word(source)}  ", "dim"),
        (text, _STYLES.get(line.stream, "")),
    ]
