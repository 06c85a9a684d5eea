"""Downstream: which Scores a push may break, though it does not name them.

What is `after` a changed Score, directly or not, and what names in its `uses` or `mounts` a path that a
changed Score names, is known from the entries alone. What a kind uses without saying so is not: so whatever
was in order before a push is to be in order after it, too, and until then nobody is told that it went well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from harmony_core.outcome import Noop, Success
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.manifest import SerializedScore

__all__ = ["downstream", "in_order"]

_READS = ("uses", "mounts")


def downstream(
    changed: Collection[str],
    entries: Mapping[str, SerializedScore],
    before: Mapping[str, SerializedScore],
) -> frozenset[str]:
    """Return the ids among *entries* that depend on those *changed*, as they are now or were *before*.

    Leave out those that are changed themselves.
    """
    reads = {name: frozenset(_read_by(entry.spec)) for name, entry in entries.items()}
    found: set[str] = set()
    left = list(changed)
    while left:
        name = left.pop()
        versions = [each[name] for each in (entries, before) if name in each]
        made = {path for entry in versions for path in _made_by(entry.spec)}
        for other, entry in entries.items():
            if other in found or other in changed:
                continue
            if name in entry.after or _touches(reads[other], made):
                found.add(other)
                left.append(other)
    return frozenset(found)


def in_order(state: ActualState | None, entries: Collection[str]) -> frozenset[str]:
    """Return the ids among *entries* that *state* reports as in order.

    Leave out those that it does not report: they belong to another push, which may hang, and must keep nobody
    waiting.
    """
    pages: Mapping[str, ScoreStatus] = state.scores if state is not None else {}
    return frozenset(
        name
        for name in entries
        if name in pages and isinstance(pages[name].outcome, Success | Noop)
    )


def _read_by(spec: object, *, is_read: bool = False) -> Iterator[str]:
    """Yield the paths in those fields, at any depth, that name what is read."""
    for name, value in _parts(spec):
        reads = is_read or name in _READS
        if isinstance(value, str):
            if reads and value.startswith("/"):
                yield value
        else:
            yield from _read_by(value, is_read=reads)


def _made_by(spec: object) -> Iterator[str]:
    """Yield the paths in all other fields."""
    for name, value in _parts(spec):
        if isinstance(value, str):
            if value.startswith("/"):
                yield value
        elif name not in _READS:
            yield from _made_by(value)


def _parts(value: object) -> Iterable[tuple[str, Any]]:
    match value:
        case dict():
            return cast("dict[str, Any]", value).items()
        case list() | tuple():
            return (("", each) for each in cast("list[Any]", value))
        case _:
            return ()


def _touches(read: Collection[str], made: Collection[str]) -> bool:
    """Return whether one of the paths *made* is one of *read*, or is below one."""
    return any(
        path == each or path.startswith(f"{each.rstrip('/')}/") for each in read for path in made
    )
