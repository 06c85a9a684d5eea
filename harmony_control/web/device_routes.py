"""One device: what is known of it, what it answers when it is asked, and what it may be asked to do.

A request to a device is signed with the key of the home that `harmony serve` runs from. What is wanted of a
device is never signed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, TypeVar

import attrs
from litestar import get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Stream

from harmony_control.cancelling import cancel_all
from harmony_control.device import Device
from harmony_core.errors import HarmonyError, UnknownDevice
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.replies import LoggedLine
from harmony_pi_topology import PiTopology

from .calls import Call, board_of, fleet_of, live_of, seats_of
from .device_page import DevicePage, ScorePart, page_of, score_of
from .fleet_routes import still_signed_in, stream
from .live import ALIVE_S, event
from .problems import problem_of

__all__ = ["ROUTES"]

T = TypeVar("T")
DeviceId = Annotated[str, PathParameter(max_length=63, description="the device's id, such as pi-1")]
ScoreId = Annotated[str | None, QueryParameter(max_length=63, description="of this Score only")]
LINES_MOST = 1000
Lines = Annotated[int, QueryParameter(ge=1, le=LINES_MOST, description="the newest so many")]
_WAITING = 64
"""Lines that wait for a slow reader; then the device waits."""


@attrs.frozen(kw_only=True)
class Looked:
    """A Score that was looked at; without a state when it is gone."""

    score: str
    state: ScorePart | None


@attrs.frozen(kw_only=True)
class Reconcile:
    """What the device shall look at: one Score, or all."""

    score: str | None = None


def device_of(request: Call, device_id: str) -> Device[PiTopology]:
    """Return that device, if it is in the fleet; else `UnknownDevice`."""
    if board_of(request).find(device_id) is None:
        raise UnknownDevice(f"there is no device {device_id[:63]!r} in this fleet")
    return fleet_of(request).device(device_id)


@get("/api/devices/{device_id:str}")
async def device_page(request: Call, device_id: DeviceId) -> DevicePage:
    """Return all that is known of a device: its state on each axis, conditions, vitals, inventory, Scores."""
    device = device_of(request, device_id)
    seen, inventory = await asyncio.gather(device.read_seen(), device.read_inventory())
    row = board_of(request).find(device_id)
    if row is None:
        raise UnknownDevice(f"{device_id} was taken out of the fleet")
    return page_of(row, seen, inventory)


@get("/api/devices/{device_id:str}/events")
async def device_events(
    request: Call,
    device_id: DeviceId,
    score: ScoreId = None,
    lines: Lines = 100,
) -> list[dict[str, Any]]:
    """Return the newest changes that were made to the device, oldest first, asked of the device itself."""
    device = device_of(request, device_id)

    async def ask() -> list[dict[str, Any]]:
        async with device.events(score=score, lines=lines) as told:
            return [dict(each) async for each in told]

    return await live_of(request).unless_closing(ask())


@get("/api/devices/{device_id:str}/events/live")
async def follow_events(
    request: Call,
    device_id: DeviceId,
    score: ScoreId = None,
    lines: Lines = 100,
) -> Stream:
    """Return the newest changes, and those to come: server-sent events ``item``, ``problem`` at the end."""
    device = device_of(request, device_id)
    return _follow(request, device.events(score=score, lines=lines, follow=True), dict)


@get("/api/devices/{device_id:str}/logs")
async def follow_logs(
    request: Call,
    device_id: DeviceId,
    score: Annotated[str, QueryParameter(max_length=63, description="the Score's id")],
    lines: Lines = 100,
) -> Stream:
    """Return what the Score's services and containers have logged, and log from now on: server-sent events
    ``item``, and ``problem`` at the end."""
    device = device_of(request, device_id)
    return _follow(request, device.logs(score, lines=lines, follow=True), _line)


@post("/api/devices/{device_id:str}/reconcile", opt={"role": "operator"}, status_code=200)
async def reconcile(request: Call, device_id: DeviceId, data: JSONBody[Reconcile]) -> list[Looked]:
    """Have the device look at a Score, or at all, now; return what each came to. It may take minutes."""
    device = device_of(request, device_id)

    async def ask() -> list[Looked]:
        async with device.reconcile(data.score) as told:
            return [_looked_of(each.score, each.state) async for each in told]

    return await live_of(request).unless_closing(ask())


def _looked_of(name: str, state: ScoreStatus | None) -> Looked:
    return Looked(score=name, state=score_of(name, state) if state else None)


def _line(line: LoggedLine) -> dict[str, Any]:
    return {"at": line.at, "resource": line.resource, "stream": line.stream, "text": line.text}


def _follow(
    request: Call,
    asked: AbstractAsyncContextManager[AsyncIterator[T]],
    to_json: Callable[[T], dict[str, Any]],
) -> Stream:
    told = _told(asked, to_json, still_signed_in(request), lambda: live_of(request).is_closing)
    return stream(request, seats_of(request, "followers"), told)


async def _told(
    asked: AbstractAsyncContextManager[AsyncIterator[T]],
    to_json: Callable[[T], dict[str, Any]],
    is_allowed: Callable[[], bool],
    is_closing: Callable[[], bool],
) -> AsyncGenerator[bytes]:
    """Yield what a device says, as server-sent events, and what ended it."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)

    async def ask() -> None:
        try:
            async with asked as items:
                async for each in items:
                    await queue.put(event("item", to_json(each)))
            await queue.put(event("end", {}))
        except HarmonyError as error:
            await queue.put(event("problem", attrs.asdict(problem_of(error)[1])))
        await queue.put(None)

    asking = asyncio.create_task(ask())
    try:
        # A reply begins at once: the device may take seconds for its first word.
        yield b": asked\n\n"
        quiet_s = 0.0
        while is_allowed() and not is_closing():
            try:
                said = await asyncio.wait_for(queue.get(), _LOOK_S)
            except TimeoutError:
                quiet_s += _LOOK_S
                if quiet_s >= ALIVE_S:
                    quiet_s = 0.0
                    yield b": alive\n\n"
                continue
            if said is None:
                return
            yield said
    finally:
        await cancel_all([asking])


_LOOK_S = 1.0
"""How soon it is seen that a session has ended, or that the server is to end."""

ROUTES = [device_page, device_events, follow_events, follow_logs, reconcile]
