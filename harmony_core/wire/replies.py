"""Replies: what a device answers to a request, frame by frame, on a subject of the request's own.

::

    alive (seq 0) -> item, item, …  -> end      all there is
                     alive now and then -> error    no more, and why

Frames count from 0 without a gap, so whoever reads knows that nothing is missing; only `End` says that the
answer is complete. They are not signed: the way they came says which device they are from, and nobody acts
on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

import attrs
from cattrs import Converter

from harmony_core.errors import InvalidReply
from harmony_core.outcome import ErrorInfo

__all__ = [
    "FRAME_MAX_BYTES",
    "Alive",
    "ChainedEvent",
    "End",
    "Failed",
    "Frame",
    "Item",
    "JsonItem",
    "ListedVolume",
    "LoggedLine",
    "Planned",
    "PlannedChange",
    "RebootAsked",
    "Reconciled",
    "VolumeArchived",
    "VolumeLoaded",
    "VolumePiece",
    "VolumeProgress",
    "cut_for_wire",
    "from_frame",
    "item_as",
    "to_frame",
    "to_item",
]

FRAME_MAX_BYTES = 64 * 1024

JsonItem: TypeAlias = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Alive:
    """The request was taken; there is nothing to tell yet. Sent first, and whenever it takes longer."""

    kind: ClassVar[str] = "alive"
    seq: int
    at: str
    """The device's clock."""


@attrs.frozen(kw_only=True)
class Item:
    """One of the things that were asked for."""

    kind: ClassVar[str] = "item"
    seq: int
    item: JsonItem


@attrs.frozen(kw_only=True)
class End:
    """All of it was told. Of something that is followed: all until now; ask again from there on."""

    kind: ClassVar[str] = "end"
    seq: int


@attrs.frozen(kw_only=True)
class Failed:
    """Nothing more comes, and why."""

    kind: ClassVar[str] = "error"
    seq: int
    error: ErrorInfo


Frame: TypeAlias = Alive | Item | End | Failed


@attrs.frozen(kw_only=True)
class LoggedLine:
    """An item of ``logs``."""

    resource: str
    at: str
    stream: str
    text: str
    cursor: str


@attrs.frozen(kw_only=True)
class Reconciled:
    """An item of ``reconcile``: one Score that was looked at."""

    score: str
    state: JsonItem | None
    """Its entry of actual-state, without ``resources``; None when it is gone."""


@attrs.frozen(kw_only=True)
class Planned:
    """An item of ``diff``: what one Score would come to. Its changes follow, an item each."""

    score: str
    status: str
    """NOOP: in order. SUCCESS: changes. RUNNING: not to be told before. FAILURE: would be refused.
    GONE: the Score is not wanted."""
    message: str = ""
    error: ErrorInfo | None = None
    held: bool = False
    """Its removals would wait for leave, since all of them together are very many."""


@attrs.frozen(kw_only=True)
class PlannedChange:
    """An item of ``diff``: one resource that would change."""

    score: str
    resource: str
    actions: tuple[str, ...]
    removed: bool = False
    """Because nobody wants it any more."""
    before: JsonItem | None = None
    after: JsonItem | None = None
    diff: str | None = None
    """Of content that everybody on the device may read."""


@attrs.frozen(kw_only=True)
class RebootAsked:
    """The only item of ``reboot``, told just before the device goes down."""

    begun: bool
    """False: nothing awaits a boot, and it was to be one only where something does."""
    at: str = ""
    """When the boot was asked for on the device (RFC 3339)."""
    awaited_by: tuple[str, ...] = ()
    """What awaits it, in words; a few of it."""


@attrs.frozen(kw_only=True)
class ListedVolume:
    """An item of ``volumes``."""

    name: str
    created_at: str
    size_bytes: int | None
    """None where it could not be counted in time."""
    used_by: tuple[str, ...]
    """The names of the containers that have it, running or not."""
    scores: tuple[str, ...]
    """The ids of the Scores that want it; none wants those that images bring, and what is kept."""


@attrs.frozen(kw_only=True)
class VolumeProgress:
    """An item of ``volume-save``, ``volume-write`` and ``volume-load``: how far it is."""

    done_bytes: int
    of_bytes: int | None = None
    """About; None where that is not known."""


@attrs.frozen(kw_only=True)
class VolumeArchived:
    """The last item of ``volume-save``: the archive can be read."""

    size_bytes: int
    sha256: str
    rested: tuple[str, ...] = ()
    """The names of the containers that were paused or stopped meanwhile, and go on again."""


@attrs.frozen(kw_only=True)
class VolumePiece:
    """An item of ``volume-read``."""

    offset: int
    box: str
    """Sealed to the key that was named, in base64."""


@attrs.frozen(kw_only=True)
class VolumeLoaded:
    """The last item of ``volume-load``."""

    rested: tuple[str, ...] = ()
    """As of `VolumeArchived`."""
    previous: str = ""
    """Where on the device the data from before is; empty where it was deleted."""


@attrs.frozen(kw_only=True)
class ChainedEvent:
    """An item of ``audit``: one event, exactly as it stands in the device's database."""

    seq: int
    prior: str
    """The hash before it, in hexadecimal; empty where there is none."""
    text: str


_CONVERTER = Converter()
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_FRAMES: Mapping[str, type[Frame]] = {each.kind: each for each in (Alive, Item, End, Failed)}

T = TypeVar("T")


def to_item(
    value: LoggedLine
    | Reconciled
    | Planned
    | PlannedChange
    | RebootAsked
    | ListedVolume
    | ChainedEvent
    | VolumeProgress
    | VolumeArchived
    | VolumePiece
    | VolumeLoaded,
) -> JsonItem:
    """Return it as it is written in an `Item`."""
    fields: dict[str, Any] = _CONVERTER.unstructure(value)
    return fields


def item_as(cls: type[T], item: JsonItem) -> T:
    """Read an item; unknown fields are ignored. `InvalidReply` names what is wrong with it."""
    try:
        return _CONVERTER.structure(item, cls)
    except Exception as error:
        raise InvalidReply(f"not a {cls.__name__}: {error}; update the older side") from error


def to_frame(frame: Frame) -> bytes:
    """Return compact UTF-8 JSON. A lone surrogate, as in the name of some file, becomes a question mark."""
    fields = {"kind": frame.kind, **_CONVERTER.unstructure(frame)}
    return _ENCODER.encode(fields).encode(errors="replace")


def from_frame(data: bytes) -> Frame:
    """Read a frame; `InvalidReply` for what is none."""
    if len(data) > FRAME_MAX_BYTES:
        raise InvalidReply(f"a frame of {len(data)} bytes, at most {FRAME_MAX_BYTES} are allowed")
    try:
        fields = json.loads(data)
        return _CONVERTER.structure(fields, _FRAMES[fields["kind"]])
    except Exception as error:
        raise InvalidReply(f"not a frame: {error}; update the older side") from error


def cut_for_wire(text: str, most_bytes: int) -> str:
    """Return *text*, cut at the end of a line, or else anywhere, so that it takes at most *most_bytes* of
    JSON."""
    if _size(text) <= most_bytes:
        return text
    low, high = 0, min(len(text), most_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) <= most_bytes - 8 else (low, middle - 1)
    kept = text[:low]
    line, newline, _ = kept.rpartition("\n")
    return f"{line}\n…" if newline else f"{kept}…"


def _size(text: str) -> int:
    return len(_ENCODER.encode(text).encode(errors="replace"))
