"""What a route needs of the application that it belongs to, typed."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State

from harmony_control.fleet import Fleet

from .board import Board
from .door import Door
from .live import Live, Seats
from .users import User

__all__ = [
    "Call",
    "Connection",
    "board_of",
    "door_of",
    "fleet_of",
    "live_of",
    "seats_of",
    "word_of",
]

Call: TypeAlias = Request[User, Any, State]
Connection: TypeAlias = ASGIConnection[Any, Any, Any, State]


def door_of(call: Connection) -> Door:
    """Return who may come in."""
    door = call.app.state.door
    assert isinstance(door, Door)
    return door


def live_of(call: Connection) -> Live:
    """Return the board with its news."""
    live = call.app.state.live
    assert isinstance(live, Live)
    return live


def board_of(call: Connection) -> Board:
    """Return the rows of the fleet."""
    return live_of(call).board


def fleet_of(call: Connection) -> Fleet:
    """Return what is asked about devices."""
    fleet = call.app.state.fleet
    assert isinstance(fleet, Fleet)
    return fleet


def seats_of(call: Connection, kind: str) -> Seats:
    """Return the places of that *kind*: ``watchers`` or ``followers``."""
    seats = call.app.state[kind]
    assert isinstance(seats, Seats)
    return seats


def word_of(call: Connection) -> str:
    """Return the word of the session that the browser has sent; empty for none."""
    return call.cookies.get(door_of(call).cookie, "")
