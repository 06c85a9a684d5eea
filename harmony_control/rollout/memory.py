"""What one controller has seen itself: since when a device is heard, has begun, and is ready.

A device's own times are by its own clock, which may be years behind or ahead. Where they cannot be, what
counts is when it was first seen here. Who has just begun to look has seen nothing yet, and waits longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from .judge import REFRESH, Member

__all__ = ["Memory"]


class Memory:
    """Of one rollout; lost with its controller, at no harm."""

    def __init__(self) -> None:
        self._forget(0)

    def _forget(self, generation: int) -> None:
        self._generation = generation
        self._silent: set[str] = set()
        self._last_heard_at: dict[str, datetime] = {}
        """By the server's clock."""
        self._heard_at: dict[str, datetime] = {}
        self._back_at: dict[str, datetime] = {}
        self._begun_at: dict[str, datetime] = {}
        self._ready_at: dict[str, datetime] = {}

    def complete(
        self,
        generation: int,
        members: Sequence[Member],
        now: datetime,
        *,
        is_silence_known: bool = True,
    ) -> list[Member]:
        """Return *members*, each with what was seen of it in the rollout of *generation* until *now*.

        *is_silence_known*: whether who is there must have been heard by now.
        """
        if generation != self._generation:
            self._forget(generation)
        found = [self._complete(each, now) for each in members]
        if is_silence_known:
            return found
        return [each if each.is_heard else attrs.evolve(each, may_be_there=True) for each in found]

    def _complete(self, member: Member, now: datetime) -> Member:
        if not member.is_heard:
            self._silent.add(member.id)
        elif member.id in self._silent:
            self._silent.discard(member.id)
            self._back_at[member.id] = now
        if member.heard_at is not None:
            before = self._last_heard_at.get(member.id, member.heard_at)
            self._last_heard_at[member.id] = member.heard_at
            if member.heard_at - before > REFRESH:
                self._heard_at.pop(member.id, None)
        return attrs.evolve(
            member,
            heard_seen_at=_first(self._heard_at, member.id, member.is_heard, now),
            back_at=self._back_at.get(member.id),
            begun_seen_at=_first(self._begun_at, member.id, member.begun_at is not None, now),
            ready_seen_at=_first(self._ready_at, member.id, member.ready_since is not None, now),
        )


def _first(seen: dict[str, datetime], name: str, is_so: bool, now: datetime) -> datetime | None:
    if not is_so:
        seen.pop(name, None)
        return None
    return seen.setdefault(name, now)
