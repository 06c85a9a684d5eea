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

from typing import Annotated, Protocol, TypeAlias, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .change import NotReady
from .errors import WireError
from .resources import HOLD_MOST_S, first_problem
from .wire import strict_json

__all__ = [
    "HOLD_FILE",
    "HOLD_MAX_BYTES",
    "Hold",
    "Holding",
    "read_hold",
]

HOLD_FILE = "hold.json"
HOLD_MAX_BYTES = 4096
_DEPTH_MOST = 2


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


def read_hold(data: bytes) -> Hold | str:
    """Return the hold in *data*; else what is wrong with it: then it holds nothing."""
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
        """Return why *key* must not be changed now; None when it may be. This is cheap where nothing is
        held."""
        ...

    async def release(self, key: str) -> bool:
        """End the hold of *key*. Return False where there is none."""
        ...
