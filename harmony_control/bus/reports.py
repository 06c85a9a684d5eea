"""What devices say of themselves, read with care: a device is not believed about any other.

The key under which something stands says whose it is, since only that device may write there; what the
value claims about its author must agree. One device's garbage is that device's alone: it is told as a
`Report` with a problem, and neither hides the others nor keeps anybody from pushing what repairs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, TypeVar

import attrs
from nats.aio.client import Client

from harmony_control.server.buckets import HEARTBEAT_AGE_S, HEARTBEAT_WATCH
from harmony_control.unverified import read_unverified
from harmony_core.errors import InvalidManifest
from harmony_core.wire.actual_state import ActualState, Heartbeat, from_json
from harmony_core.wire.names import ACTUAL_STATE, DESIRED_STATE, HEARTBEAT

from .connection import Bucket, Entry
from .following import following
from .newest import newest, newest_of

__all__ = [
    "Presence",
    "Report",
    "Seen",
    "read_all_seen",
    "read_heartbeat",
    "read_report",
    "read_seen",
    "reporting",
]

Presence: TypeAlias = Literal["Heard", "Silent", "Offline", "Never"]
"""Heard in the last 90 s; silent since not more than 90 s before that; for longer; not one word ever."""

T = TypeVar("T", ActualState, Heartbeat)


@attrs.frozen(kw_only=True)
class Report:
    """What one device reported last. ``state`` is None when it cannot be read, and ``problem`` says why."""

    agent_id: str
    at: datetime
    state: ActualState | None
    problem: str = ""


@attrs.frozen(kw_only=True)
class Seen:
    """One device, as the control plane knows it."""

    agent_id: str
    presence: Presence
    at: datetime | None = None
    """When it was heard last; of one that is offline for long, when it reported last."""
    state: ActualState | None = None
    problem: str = ""
    """Why what it reports cannot be read."""
    wanted: int | None = None
    """The generation that stands in its desired state; None for none, or none that can be read.

    It is not verified here: what the device refuses, it says itself.
    """


async def read_report(client: Client, agent_id: str) -> Report | None:
    """Return what the device said last; None when it never said anything."""
    found = await Bucket(client, ACTUAL_STATE).get(agent_id)
    return _report(found) if found is not None else None


async def read_heartbeat(client: Client, agent_id: str) -> Heartbeat | None:
    """Return its newest heartbeat; None when none came for 90 s, or none that can be read."""
    found = await Bucket(client, HEARTBEAT).get(agent_id)
    return _read_own(found, Heartbeat)[0] if found is not None else None


@asynccontextmanager
async def reporting(client: Client, agent_id: str = "*") -> AsyncGenerator[AsyncIterator[Report]]:
    """Yield what the device (every device, by ``*``) has reported, and everything that it does from now
    on."""
    async with following(client, ACTUAL_STATE, agent_id) as entries:

        async def reports() -> AsyncGenerator[Report]:
            async for entry in entries:
                yield _report(entry)

        async with aclosing(reports()) as told:
            yield told


async def read_all_seen(client: Client, enrolled: Collection[str]) -> list[Seen]:
    """Return every device that is enrolled, has reported or has been heard, by id."""
    states, beats = await asyncio.gather(
        newest(client, f"KV_{ACTUAL_STATE}", ACTUAL_STATE), _beats(client)
    )
    reports = {entry.key: _report(entry) for entry in states}
    ids = sorted({*enrolled, *reports, *beats})
    wanted = {entry.key: entry for entry in await newest_of(client, DESIRED_STATE, ids)}
    return [_to_seen(each, reports.get(each), beats.get(each), wanted.get(each)) for each in ids]


async def read_seen(client: Client, agent_id: str) -> Seen:
    """Return one device, whether it was ever heard of or not. All is asked for at once."""
    beats = Bucket(client, HEARTBEAT)
    report, told, heard, wanted = await asyncio.gather(
        read_report(client, agent_id),
        beats.get_copied(agent_id, stream=HEARTBEAT_WATCH),
        beats.get(agent_id),
        Bucket(client, DESIRED_STATE).get(agent_id),
    )
    return _to_seen(agent_id, report, heard or (_as_expired(told) if told else None), wanted)


async def _beats(client: Client) -> dict[str, Entry]:
    """Return the heartbeats by id; an empty one where the last has expired, as long as the server tells of
    it."""
    found = await asyncio.gather(
        newest(client, HEARTBEAT_WATCH, HEARTBEAT),
        newest(client, f"KV_{HEARTBEAT}", HEARTBEAT),
    )
    # A heartbeat comes and goes a little earlier in the bucket than where its end is announced.
    told, heard = ({entry.key: entry for entry in entries} for entries in found)
    return {key: _as_expired(each) for key, each in told.items()} | heard


def _as_expired(told: Entry) -> Entry:
    """Return what the server tells of a heartbeat that the bucket does not have any more."""
    return attrs.evolve(told, value=b"")


def _to_seen(
    agent_id: str, report: Report | None, beat: Entry | None, wanted: Entry | None
) -> Seen:
    presence: Presence = "Offline" if report else "Never"
    at = report.at if report else None
    if beat is not None:
        presence, at = ("Heard" if beat.value else "Silent"), beat.written_at
        if presence == "Silent":
            # What is noted is when it ran out.
            at -= timedelta(seconds=HEARTBEAT_AGE_S)
        if report:
            at = max(at, report.at)
    return Seen(
        agent_id=agent_id,
        presence=presence,
        at=at,
        state=report.state if report else None,
        problem=report.problem if report else "",
        wanted=_generation(wanted),
    )


def _generation(wanted: Entry | None) -> int | None:
    """Return the generation of the manifest in an envelope, by whomever it was signed."""
    if wanted is None:
        return None
    generation = read_unverified(wanted.value).get("generation")
    return generation if isinstance(generation, int) else None


def _report(entry: Entry) -> Report:
    state, problem = _read_own(entry, ActualState)
    return Report(agent_id=entry.key, at=entry.written_at, state=state, problem=problem)


def _read_own(entry: Entry, cls: type[T]) -> tuple[T | None, str]:
    """Return the value, if it can be read and is about the one who wrote it; else why not."""
    try:
        found = from_json(entry.value, cls)
    except InvalidManifest as error:
        return None, error.message
    if found.agent_id != entry.key:
        return None, f"it says that it is {found.agent_id!r}"
    return found, ""
