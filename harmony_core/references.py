"""References: ``${labels.site}``, ``${inventory.hostname}``, ``${secret.db}`` in a Score's texts.

    spec, as it was signed -> each reference becomes what this device says today -> what is decoded

Only these namespaces are looked at, and only in an entry that says that it has references: so ``${HOME}`` in
a shell script stays as it is. ``$${labels.site}`` is the text ``${labels.site}``. What a label or fact says
is put in as it is, and never looked through again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import attrs
from pydantic import BaseModel

from .close_names import did_you_mean
from .errors import FactMissing, InvalidScore
from .inventory import Inventory

__all__ = [
    "NAMESPACES",
    "Path",
    "Reference",
    "find_fault",
    "find_faults",
    "find_in_bytes",
    "find_near_misses",
    "find_references",
    "find_secrets",
    "has_references",
    "is_secret_name",
    "look_up",
    "replace_references",
    "suggest_secret_name",
]

Path: TypeAlias = tuple[int | str, ...]
"""Where in a spec a text stands: names and places."""

FACTS = (
    "agent_id",
    "agent_version",
    "architecture",
    "hostname",
    "kernel",
    "memory_bytes",
    "model",
    "os",
)
"""What ``inventory.`` has: what is one text or number."""
NAMESPACES = ("inventory", "labels", "secret")
"""What stands before the dot of a reference."""
_REFERENCE = re.compile(rf"(\$?)\$\{{({'|'.join(NAMESPACES)})\.([^{{}}\n]*)(\}}?)")
_LIKE_A_REFERENCE = re.compile(r"(?<!\$)\$\{\s*([A-Za-z_]+)\s*\.[^{}\n]*\}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_SECRET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@attrs.frozen
class Reference:
    """One reference: ``${namespace.member}``."""

    namespace: str
    member: str

    def __str__(self) -> str:
        return f"${{{self.namespace}.{self.member}}}"


def has_references(spec: object) -> bool:
    """Return whether any text in *spec* has a reference, or what would be one without its second ``$``."""
    return any(True for _, text in _texts(spec, ()) if _REFERENCE.search(text))


def find_references(spec: object) -> tuple[Reference, ...]:
    """Return every reference in *spec*, each once. `InvalidScore` for what cannot be one."""
    found: dict[Reference, None] = {}
    for _, why in find_faults(spec):
        raise InvalidScore(why)
    for _, text in _texts(spec, ()):
        for each in _REFERENCE.finditer(text):
            if not each[1]:
                found[Reference(each[2], each[3])] = None
    return tuple(found)


def find_in_bytes(value: object) -> Iterator[tuple[Path, str]]:
    """Yield the references in *value* that are in bytes, where they are not replaced: each with where it is
    and how it is written. *value* is a Score, or a part of one."""
    for path, content in _bytes_in(value, ()):
        for each in _REFERENCE.finditer(content.decode("latin-1")):
            if not each[1] and _fault_of(each) is None:
                yield path, each[0]


def find_faults(spec: object) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with the references in *spec*: where, and in words."""
    for path, text in _texts(spec, ()):
        for each in _REFERENCE.finditer(text):
            if not each[1] and (why := _fault_of(each)) is not None:
                yield path, f"{'.'.join(map(str, path))}: {why}"
    for path in _names(spec, ()):
        if _REFERENCE.search(str(path[-1])):
            yield path, f"{path[-1]!r}: a name cannot have a reference; put it into a text"


def find_near_misses(spec: object) -> Iterator[str]:
    """Yield, in words, what in *spec* looks nearly like a reference and is none, such as ``${secrets.db}``.

    It stays as it is, and may be meant so: other programs have a ``${…}`` of their own.
    """
    for _, text in _texts(spec, ()):
        for each in _LIKE_A_REFERENCE.finditer(text):
            name = each[1].lower()
            if not _REFERENCE.match(each[0]) and (close := did_you_mean(name, NAMESPACES)):
                yield f"{each[0]} is no reference, and stays as it is{close}"


def find_fault(text: str) -> str | None:
    """Return what is wrong with the first faulty reference in *text*; None where all are right."""
    faults = (_fault_of(each) for each in _REFERENCE.finditer(text) if not each[1])
    return next((each for each in faults if each is not None), None)


def find_secrets(spec: object) -> tuple[str, ...]:
    """Return the names of the secrets to which *spec* refers, each once."""
    return tuple(each.member for each in find_references(spec) if each.namespace == "secret")


def is_secret_name(name: str) -> bool:
    """Return whether *name* can be the name of a secret."""
    return _SECRET.fullmatch(name) is not None


def suggest_secret_name(name: str) -> str:
    """Return a possible name here for a secret that is called *name* elsewhere."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).lstrip("._-")[:63] or "db"


def replace_references(spec: Any, value_of: Callable[[Reference], str]) -> Any:
    """Return *spec* with each reference replaced by its *value_of*, and ``$${…}`` by the text ``${…}``."""

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return found[0][1:]
        return value_of(Reference(found[2], found[3]))

    return _map_texts(spec, lambda text: _REFERENCE.sub(replace, text))


def look_up(reference: Reference, inventory: Inventory) -> str:
    """Return the value on this device of *reference*, which is no secret. Raise `FactMissing` where it is not
    known."""
    if reference.namespace == "labels":
        return inventory.labels[reference.member]
    try:
        return str(getattr(inventory, reference.member))
    except FactMissing as error:
        raise FactMissing(f"{reference}: {error.message}") from error


def _fault_of(found: re.Match[str]) -> str | None:
    """Return what is wrong with a reference, in words; None when it may be one."""
    _, namespace, member, end = found.groups()
    literal = f"for the text itself, write ${found[0]}"
    if not end:
        return f"{found[0]} has no }} at its end; add it, or, {literal}"
    if namespace == "inventory" and member not in FACTS:
        hint = did_you_mean(member, FACTS) or f"; there are {', '.join(FACTS)}"
        return f"{found[0]}: a device says nothing of that name of itself{hint}; {literal}"
    if namespace == "labels" and not _LABEL.fullmatch(member):
        like = re.sub(r"[^A-Za-z0-9._/-]", "", member).strip("._/-")
        hint = f"; did you mean ${{labels.{like}}}?" if _LABEL.fullmatch(like) else ""
        return (
            f"{found[0]}: a label's name has 1 to 63 letters, digits and inner ._/-, such as site{hint}; "
            f"{literal}"
        )
    if namespace == "secret" and not _SECRET.fullmatch(member):
        return (
            f"{found[0]}: a secret's name has 1 to 63 lower-case letters, digits and inner ._-, such as "
            f"db.password; {literal}"
        )
    return None


def _texts(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, Mapping):
        for name, each in cast("Mapping[str, object]", value).items():
            yield from _texts(each, (*path, name))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(cast("list[object]", value)):
            yield from _texts(each, (*path, place))


def _bytes_in(value: object, path: Path) -> Iterator[tuple[Path, bytes]]:
    if isinstance(value, bytes):
        if b"${" in value:
            yield path, value
    elif isinstance(value, BaseModel):
        yield from _bytes_in(dict(iter(value)), path)  # not by keys(): that may be a field
    elif isinstance(value, Mapping):
        for name, each in cast("Mapping[str, object]", value).items():
            yield from _bytes_in(each, (*path, name))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(cast("list[object]", value)):
            yield from _bytes_in(each, (*path, place))


def _names(value: object, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for name, each in cast("Mapping[str, object]", value).items():
            yield (*path, name)
            yield from _names(each, (*path, name))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(cast("list[object]", value)):
            yield from _names(each, (*path, place))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value) if "${" in value else value
    if isinstance(value, Mapping):
        found = cast("Mapping[str, object]", value)
        return {name: _map_texts(each, change) for name, each in found.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(each, change) for each in cast("list[object]", value)]
    return value
