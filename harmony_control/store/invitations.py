"""What the server keeps of invitations, and of devices that wait to be accepted.

Changed while `Home.editing` is held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import attrs

from harmony_core.errors import ConfigError
from harmony_core.wire.times import parse_rfc3339

from .home import Enrolled, Home, read_if_there, write_json

__all__ = [
    "Invited",
    "Pending",
    "read_invitations",
    "read_waiting",
    "save_invitations",
    "save_waiting",
    "withdraw",
]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Invited:
    """What the server knows of an invitation, by its public key."""

    agent_id: str | None
    left: int
    """How many devices may still come with it."""
    expires_at: str
    asks: bool
    """Whether a person must accept each."""
    replaces: bool
    """Whether a device that is enrolled may come with a new key."""

    @property
    def is_over(self) -> bool:
        return parse_rfc3339(self.expires_at) < datetime.now(UTC)


@attrs.frozen(kw_only=True)
class Pending:
    """A device that waits to be accepted."""

    invitation: str
    """The public key of the one with which it came."""
    agent_id: str
    nkey: str
    mailbox: str
    report_key: str
    since: str

    @property
    def device(self) -> Enrolled:
        """What the server is to know of it, once it is let in."""
        return Enrolled(self.nkey, self.mailbox, self.report_key)


def read_invitations(home: Home) -> dict[str, Invited]:
    """Return all invitations, by their public keys. `ConfigError` where they cannot be read."""
    remedy = "delete it, and invite again who has not come yet"
    return _read_table(home.invitations_json, Invited, remedy)


def save_invitations(home: Home, invitations: Mapping[str, Invited]) -> None:
    _save_table(home.invitations_json, invitations)


def read_waiting(home: Home) -> dict[str, Pending]:
    """Return the devices that wait, by id. `ConfigError` where they cannot be read."""
    return _read_table(home.pending_json, Pending, "delete it: who waits asks again")


def save_waiting(home: Home, waiting: Mapping[str, Pending]) -> None:
    _save_table(home.pending_json, waiting)


def withdraw(home: Home, agent_id: str | None = None) -> int:
    """Forget all invitations for *agent_id*; of None, all that there are. Return how many."""
    invitations = read_invitations(home)
    left = {key: each for key, each in invitations.items() if agent_id not in {None, each.agent_id}}
    if len(left) < len(invitations):
        save_invitations(home, left)
    return len(invitations) - len(left)


def _read_table(path: Path, make: Callable[..., T], remedy: str) -> dict[str, T]:
    found = read_if_there(path)
    try:
        return {key: make(**each) for key, each in json.loads(found).items()} if found else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}; {remedy}") from error


def _save_table(path: Path, table: Mapping[str, attrs.AttrsInstance]) -> None:
    write_json(path, {key: attrs.asdict(each) for key, each in sorted(table.items())})
