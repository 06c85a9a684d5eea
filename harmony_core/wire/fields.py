"""How frozen classes stand in JSON: each field is read in its own way, and unknown ones are ignored.

By hand. Whoever starts an agent or asks for one device's state waits for all that is loaded before; a
converter that derives the same from annotations takes longer to load, and to compile what it derives, than
the bus takes to answer.

    PLACE = Form(Place, name=text, rooms=listed(whole))
    PLACE({"name": "home", "rooms": [1, 2], "colour": "red"})  ->  Place(name="home", rooms=(1, 2))

What is wrong is a ValueError or TypeError that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

import attrs

__all__ = [
    "Form",
    "Reader",
    "as_it_is",
    "dict_of",
    "fields_of",
    "flag",
    "list_of",
    "one_of",
    "optional",
    "text",
    "whole",
]

T = TypeVar("T")
Reader: TypeAlias = Callable[[Any], T]


class Form(Generic[T]):
    """Reads objects of *cls*, each named field by its reader. What is absent has its default."""

    def __init__(self, cls: Callable[..., T], **fields: Reader[Any]) -> None:
        self._cls = cls
        self._fields = fields

    def __call__(self, value: Any) -> T:
        given = _object(value)
        found: dict[str, Any] = {}
        for name, read in self._fields.items():
            if name in given:
                try:
                    found[name] = read(given[name])
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{name}: {error}") from error
        return self._cls(**found)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("a text", value)
    return value


def whole(value: Any) -> int:
    """Return a whole number as docs/wire.md defines them, of at most 53 bits; true and false are no
    numbers."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("a whole number", value)
    if abs(value) >= 2**53:
        raise ValueError("must be a whole number between -(2^53 - 1) and 2^53 - 1")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def as_it_is(value: Any) -> Mapping[str, Any]:
    """Return an object whose fields are not checked here."""
    return _object(value)


def one_of(*words: str) -> Reader[str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return text(value)

    return read


def optional(read: Reader[T]) -> Reader[T | None]:
    return lambda value: None if value is None else read(value)


def list_of(read: Reader[T]) -> Reader[tuple[T, ...]]:
    def read_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        return tuple(map(read, cast("Sequence[Any]", value)))

    return read_all


def dict_of(read: Reader[T]) -> Reader[dict[str, T]]:
    return lambda value: {key: read(each) for key, each in _object(value).items()}


def fields_of(value: attrs.AttrsInstance) -> dict[str, Any]:
    """Return the fields of an attrs object, as they are."""
    cls = type(value)
    names = _NAMES.get(cls)
    if names is None:
        names = _NAMES[cls] = tuple(field.name for field in attrs.fields(cls))
    return {name: getattr(value, name) for name in names}


_NAMES: dict[type[attrs.AttrsInstance], tuple[str, ...]] = {}


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    return cast("dict[str, Any]", value)


def _wrong(wanted: str, value: object) -> TypeError:
    return TypeError(f"must be {wanted}, not {type(value).__name__}")
