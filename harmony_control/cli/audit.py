"""``harmony audit verify AGENT``: is what a device tells of its past what was seen of it?"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator

from harmony_control.audit.verify import AuditResult, EventAt
from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_control.store.seen_heads import SeenHead
from harmony_core.outcome_words import indent
from harmony_core.visible import word
from harmony_core.wire.times import rfc3339

from .common import home_of
from .exits import CONVERGED, FAILED, exit_code_of
from .painted import Words, in_colour, paint

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Check a device's audit record. Return 0 where everything could be checked and agrees, 1 where something
    does not agree; otherwise the exit code of what prevented the check."""
    return asyncio.run(_verify(options))


async def _verify(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        result = await fleet.device(agent_id).audit()
    if options.json:
        print(json.dumps(_to_json(result)))
    else:
        print(paint(_words(result), colour=in_colour(options)), end="")
    if result.faults:
        return FAILED
    return max(map(exit_code_of, result.unchecked), default=CONVERGED)


def _words(result: AuditResult) -> Iterator[Words]:
    yield f"{word(result.agent_id)}  ", "bold"
    if result.first is None or result.last is None:
        what = "its record was not read" if result.unchecked else "no events"
        yield f"{what}\n", ""
    else:
        events = "1 event" if result.count == 1 else f"{result.count:,} events"
        whole = "" if any(each.kind == "Rewritten" for each in result.faults) else ", unbroken"
        between = f"from {_when(result.first)} to {_when(result.last)}"
        yield f"{events}{whole} {between}\n", ""
    for fault in result.faults:
        yield f"  {fault.kind}: {indent(fault.message)}\n", "bold red"
    if result.reported is not None and result.last is not None and not result.faults:
        yield f"  agrees with its signed report of {_shown(rfc3339(result.reported.at))}\n", "green"
    if result.confirmed:
        yield f"  agrees with {_of_seen(result.confirmed)}\n", "green"
        trusted = max(each.head.seq for each in result.confirmed)
        if result.last is not None and result.last.seq > trusted:
            yield f"  what came after event {trusted} was not seen here before\n", "dim"
    if result.not_kept:
        yield f"  of {_of_seen(result.not_kept)} the device keeps nothing any more\n", "dim"
    for loss in result.losses:
        what = f"earlier events are lost since {_when(loss.event)}, as the device says: {loss.why}"
        yield f"  {indent(what)}\n", "yellow"
    for error in result.unchecked:
        yield f"  not checked: {indent(error.message)}\n", "yellow"


def _of_seen(seen: tuple[SeenHead, ...]) -> str:
    """Return in words what was seen here."""
    first, last = seen[0], seen[-1]
    if len(seen) == 1:
        return f"what was seen here on {_shown(rfc3339(first.at))} (event {first.head.seq})"
    return (
        f"what was seen here {len(seen)} times, "
        f"first on {_shown(rfc3339(first.at))} (event {first.head.seq}), "
        f"last on {_shown(rfc3339(last.at))} (event {last.head.seq})"
    )


def _when(event: EventAt) -> str:
    return f"{word(_shown(event.at))} (event {event.seq})"


def _shown(at: str) -> str:
    return at[:19].replace("T", " ")


def _to_json(result: AuditResult) -> dict[str, object]:
    reported = result.reported
    return {
        "agent": result.agent_id,
        "intact": result.is_intact,
        "events": result.count,
        "first": _event_to_json(result.first),
        "last": _event_to_json(result.last),
        "report": {"seq": reported.head.seq, "at": rfc3339(reported.at)} if reported else None,
        "confirmed": list(map(_seen_to_json, result.confirmed)),
        "not_kept": list(map(_seen_to_json, result.not_kept)),
        "lost": [{**(_event_to_json(each.event) or {}), "why": each.why} for each in result.losses],
        "faults": [
            {"kind": each.kind, "seq": each.seq, "message": each.message} for each in result.faults
        ],
        "unchecked": [{"code": each.code, "message": each.message} for each in result.unchecked],
    }


def _event_to_json(event: EventAt | None) -> dict[str, object] | None:
    return {"seq": event.seq, "at": event.at} if event else None


def _seen_to_json(seen: SeenHead) -> dict[str, object]:
    return {"seq": seen.head.seq, "at": rfc3339(seen.at)}
