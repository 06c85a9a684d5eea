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
from .oidc.signing_in import OidcSignIn
from .users import User

__all__ = [
    "Call",
    "Connection",
    "address_of",
    "board_of",
    "door_of",
    "fleet_of",
    "live_of",
    "oidc_of",
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


def oidc_of(call: Connection) -> OidcSignIn | None:
    """Return how people sign in by a provider's word; None where there is none."""
    oidc = call.app.state.oidc
    assert oidc is None or isinstance(oidc, OidcSignIn)
    return oidc


def address_of(call: Call) -> str:
    """Return who calls, as far as that is known."""
    host = call.client.host if call.client else ""
    return door_of(call).address_of(host, call.headers.getall("x-forwarded-for", []))


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
