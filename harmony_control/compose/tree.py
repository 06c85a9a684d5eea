"""What a compose file says, as dicts and lists that know where each of their parts stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import attrs

__all__ = [
    "Path",
    "Place",
    "YamlList",
    "YamlMap",
    "copy",
    "dotted",
    "entries",
    "find_places",
    "plain",
]

Path: TypeAlias = tuple[str | int, ...]
"""Where in the document: the names and numbers that lead there."""


@attrs.frozen(order=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int


class YamlMap(dict[str, Any]):
    """A mapping of a file. ``places`` has the line of each key.

    ``resets`` are keys that a file takes back from those before it (``!reset``), ``overrides`` those whose
    value takes the place of an earlier one instead of being merged with it (``!override``).
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}
        self.resets: set[str] = set()
        self.overrides: set[str] = set()

    def put(self, key: str, value: object, place: Place | None = None) -> None:
        """Set *key* and its place. Without *place*, keep its place, or take that of the whole mapping."""
        self[key] = value
        self.places[key] = place or self.place_of(key)

    def place_of(self, key: str) -> Place:
        """Return the place of *key*."""
        return self.places.get(key, self.place)


class YamlList(list[Any]):
    """A list of a file. ``places`` has the line of each item."""

    def __init__(self, place: Place, items: Iterable[tuple[object, Place]] = ()) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []
        for value, where in items:
            self.add(value, where)

    def add(self, value: object, place: Place) -> None:
        """Append *value* and its place."""
        self.append(value)
        self.places.append(place)

    def items(self) -> Iterator[tuple[Any, Place]]:
        """Yield each item with its place."""
        return zip(self, self.places, strict=True)


def copy(value: Any) -> Any:
    """Return a copy that shares nothing with *value*."""
    if isinstance(value, YamlMap):
        found = YamlMap(value.place)
        for key, each in value.items():
            found.put(key, copy(each), value.place_of(key))
        found.resets, found.overrides = set(value.resets), set(value.overrides)
        return found
    if isinstance(value, YamlList):
        return YamlList(value.place, ((copy(each), place) for each, place in value.items()))
    return value


def plain(value: Any) -> Any:
    """Return *value* as plain dicts and lists, without places in files."""
    if isinstance(value, YamlMap):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, YamlList):
        return [plain(each) for each in value]
    return value


def find_places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Place]]:
    """Yield every path below *value*, with its place."""
    for part, each, place in entries(value):
        yield (*path, part), place
        yield from find_places(each, (*path, part))


def entries(value: Any) -> list[tuple[Any, Any, Place]]:
    """Return the key or index, the value and the place of each item of a mapping or list; nothing for
    anything else."""
    if isinstance(value, YamlMap):
        return [(key, each, value.place_of(key)) for key, each in value.items()]
    if isinstance(value, YamlList):
        return [(number, each, place) for number, (each, place) in enumerate(value.items())]
    return []


def dotted(path: Path) -> str:
    """Return *path* as people write it: ``services.web.ports[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
