"""The fleet: all of it in columns, its changes as they come, and pages of a list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Annotated, Literal

import attrs
from litestar import Response, get
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from harmony_control.fleet import DeviceRow

from .board import matches
from .calls import Call, board_of, door_of, live_of, seats_of, word_of
from .device_page import DeviceLine, line_of
from .live import Seats, TooManyWatchers, watch_fleet

__all__ = ["ROUTES", "still_signed_in", "stream"]

Sort = Literal[
    "id", "device", "update", "workloads", "reason", "last_seen",
    "-id", "-device", "-update", "-workloads", "-reason", "-last_seen",
]  # fmt: skip
PAGE_MOST = 500
_NEVER = datetime.min.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class DeviceList:
    """A part of the fleet, and how many match in all."""

    total: int
    offset: int
    devices: list[DeviceLine]


@get("/api/fleet")
async def fleet(request: Call) -> Response[bytes]:
    """Return every device in columns: ids, a character of state for each axis, reasons, versions, labels.

    The ETag is the id of the newest change: ask for those after it with ``/api/fleet/changes?since=…``.
    """
    columns = board_of(request).columns()
    tag = f'"{columns.tag}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers)
    data = columns.data
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        data = columns.gzipped
    return Response(data, headers=headers, media_type="application/json")


@get("/api/fleet/changes")
async def changes(
    request: Call,
    since: Annotated[
        str | None,
        QueryParameter(description="the ETag of what is known; a Last-Event-ID counts more"),
    ] = None,
) -> Stream:
    """Return what changes from now on, or after *since*, as server-sent events, at most four times a second.

    ``changes``: ``{"rows": [[id, states, reason, version, labels], …], "gone": [id, …]}``; ``reset``: read
    the whole fleet anew; ``source``: ``{"problem": …}``, why what is shown may be old, or an empty text.
    """
    last = request.headers.get("last-event-id") or since
    told = watch_fleet(live_of(request), last, still_signed_in(request))
    return stream(request, seats_of(request, "watchers"), told)


@get("/api/devices")
async def devices(
    request: Call,
    q: Annotated[
        str,
        QueryParameter(max_length=200, description="words that each must be in what is said of it"),
    ] = "",
    sort: FromQuery[Sort] = "id",
    offset: Annotated[int, QueryParameter(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MOST)] = 100,
) -> DeviceList:
    """Return a page of the devices that match, sorted; ``-`` before the name of a column is downwards."""
    words = q.lower().split()
    found = [each for each in board_of(request).rows() if matches(each, words)]
    # Those that are equal stay in the order of their ids.
    found.sort(key=_SORTS[sort.removeprefix("-")], reverse=sort.startswith("-"))
    page = found[offset : offset + limit]
    return DeviceList(total=len(found), offset=offset, devices=[line_of(each) for each in page])


def _last_seen(row: DeviceRow) -> datetime:
    return row.last_seen or _NEVER


_SORTS: dict[str, Callable[[DeviceRow], str | datetime]] = {
    "id": lambda row: row.id,
    "device": lambda row: row.device,
    "update": lambda row: row.update,
    "workloads": lambda row: row.workloads,
    "reason": lambda row: row.reason,
    "last_seen": _last_seen,
}


def still_signed_in(request: Call) -> Callable[[], bool]:
    """Return what says whether the session of this request still lasts."""
    sessions, word = door_of(request).sessions, word_of(request)
    return lambda: sessions.find(word, is_use=False) is not None


def stream(request: Call, seats: Seats, told: AsyncGenerator[bytes]) -> Stream:
    """Return *told* as a reply that takes one of *seats*. `TooManyWatchers` where there is none."""
    name = request.user.name
    seats.refuse_full(name)

    async def seated() -> AsyncGenerator[bytes]:
        # Not before it is read: a reply that nobody waits for any more would never leave its seat.
        async with aclosing(told):
            with suppress(TooManyWatchers), seats.taking(name):
                async for each in told:
                    yield each

    # No proxy is to wait for more before it passes on what it has.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(seated(), media_type="text/event-stream", headers=headers)


ROUTES = [fleet, changes, devices]
