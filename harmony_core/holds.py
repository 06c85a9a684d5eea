"""Holds: by which what runs in a container says "not now" to changes of its Score.

    {"owner": "recorder", "reason": "writes the night's archive", "for_s": 1800}

A container that may hold (`Container.max_hold_s`) has a directory for it, /run/harmony-hold, and holds as
long as a valid ``hold.json`` is there; it writes that beside and renames it, and removes it when it is done.
A hold counts from when it was first seen, by a clock that nobody sets, and ends at the earliest of: its
file is gone, its own ``for_s`` is over, the container's ``max_hold_s`` is over, somebody released it.

What was written before the container's present start holds nothing: whoever wrote it exists no more. Once
over, it stays over until the file is gone or the container has started anew; writing it again prolongs
``for_s``, and never the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .change import NotReady
from .errors import WireError
from .resources import HOLD_MOST_S, first_problem
from .wire import strict_json
from .wire.times import rfc3339

__all__ = [
    "HOLD_FILE",
    "HOLD_MAX_BYTES",
    "Hold",
    "HoldClock",
    "Holding",
    "WrittenHold",
    "read_hold",
]

HOLD_FILE = "hold.json"
HOLD_MAX_BYTES = 4096
_DEPTH_MOST = 2
_STARTED_WITHIN = timedelta(seconds=0.5)
"""A start is noted a moment after it; what is written first of all is not to be missed."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Owner: TypeAlias = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Reason: TypeAlias = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]


class Hold(BaseModel):
    """The word of an application that is not to be changed now."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, strict=True)

    owner: Owner
    reason: Reason
    for_s: Annotated[float, Field(gt=0, le=HOLD_MOST_S)] | None = None
    """How long at most; as long as it may unless set."""


@attrs.frozen(kw_only=True)
class WrittenHold:
    """A hold as it was found."""

    hold: Hold
    writing: object
    """Which writing of the file: equal for as long as nobody has written it again."""
    written_at: datetime


def read_hold(data: bytes) -> Hold | str:
    """Return the hold that *data* says; else what is wrong with it: it holds nothing."""
    try:
        return Hold.model_validate(
            strict_json.loads(data, max_bytes=HOLD_MAX_BYTES, max_depth=_DEPTH_MOST)
        )
    except WireError as error:
        return error.message
    except ValidationError as error:
        return first_problem(error)


@runtime_checkable
class Holding(Protocol):
    """A reconciler of what may put off changes."""

    async def find_hold(self, key: str) -> NotReady | None:
        """Return why *key* is not to be changed now; None when it may be. Cheap where nothing is held."""
        ...

    async def release(self, key: str) -> bool:
        """Let the hold of *key* hold no longer; False where there is none."""
        ...


@attrs.define(kw_only=True)
class _Seen:
    life: object
    since_s: float
    writing: object = None
    over_s: float = 0.0
    until: str = ""
    released: bool = False


class HoldClock:
    """How long each hold has been seen."""

    def __init__(
        self,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic_s = monotonic_s
        self._now = now
        self._seen: dict[str, _Seen] = {}

    def find_hold(
        self,
        resource_id: str,
        written: WrittenHold | None,
        *,
        life: object,
        started_at: datetime,
        max_hold_s: float,
    ) -> NotReady | None:
        """Return what *written* means for *resource_id*, whose present *life* began at *started_at*."""
        if written is None or written.written_at < started_at - _STARTED_WITHIN:
            self.forget(resource_id)
            return None
        now_s = self._monotonic_s()
        seen = self._seen.get(resource_id)
        if seen is None or seen.life != life:
            seen = self._seen[resource_id] = _Seen(life=life, since_s=now_s)
        if seen.writing != written.writing:
            for_s = written.hold.for_s or max_hold_s
            seen.writing = written.writing
            seen.over_s = min(seen.since_s + max_hold_s, now_s + for_s)
            seen.until = rfc3339(self._now() + timedelta(seconds=seen.over_s - now_s))
        if seen.released or seen.over_s <= now_s:
            return None
        return NotReady(
            f"{written.hold.owner} has asked for time until {seen.until}: {written.hold.reason}",
            resource=resource_id,
            reason="Held",
            look_again_s=round(
                seen.over_s - now_s, 3
            ),  # no longer than was asked for, by a last bit
        )

    def release(self, resource_id: str) -> None:
        """Count what *resource_id* holds now as released, until it holds anew."""
        self._seen[resource_id].released = True

    def forget(self, resource_id: str) -> None:
        self._seen.pop(resource_id, None)
