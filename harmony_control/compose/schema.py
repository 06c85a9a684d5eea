"""The Compose Specification's JSON schema: whether a document is as it says, and which keys it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, cast

import jsonschema_rs

from harmony_core.close_names import did_you_mean

from .faults import Faults
from .tree import Path, Place, YamlList, YamlMap, plain

__all__ = ["find_keys", "keys_of_schema", "validate"]

_WORDS = {
    "string": "a text",
    "object": "a mapping",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


@cache
def _schema() -> dict[str, Any]:
    text = (files("harmony_control.compose") / "specification/compose-spec.json").read_text()
    return cast("dict[str, Any]", json.loads(text))


@cache
def _validator() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(_schema())


# --- which keys there are


def _shapes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every form that *node* may have."""
    if "$ref" in node:
        target: Any = _schema()
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        yield from _shapes(target)
    for each in node.get("oneOf", ()):
        yield from _shapes(each)
    yield node


def _named(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the keys of *node* that the schema names."""
    return {
        name: each for shape in _shapes(node) for name, each in shape.get("properties", {}).items()
    }


def _chosen(node: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of *node* for keys whose names the user chooses; None where it has no such keys."""
    for shape in _shapes(node):
        for pattern, each in shape.get("patternProperties", {}).items():
            if pattern != "^x-":
                return cast("dict[str, Any]", each)
    return None


def _items(node: dict[str, Any]) -> dict[str, Any] | None:
    return next((shape["items"] for shape in _shapes(node) if "items" in shape), None)


def keys_of_schema() -> Iterator[str]:
    """Yield every key that the Specification names, as in ``services.*.ports[].target``."""
    yield from _keys_below(_schema(), "")


def _keys_below(node: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, each in _named(node).items():
        key = f"{prefix}.{name}" if prefix else name
        yield key
        yield from _keys_below(each, key)
    if (chosen := _chosen(node)) is not None:
        yield from _keys_below(chosen, f"{prefix}.*")
    if (items := _items(node)) is not None:
        yield from _keys_below(items, f"{prefix}[]")


def find_keys(document: YamlMap) -> Iterator[tuple[str, Path, YamlMap]]:
    """Yield every key of *document* that the Specification names: its name there, its path, and the mapping
    that has it."""
    yield from _find_below(document, _schema(), "", ())


def _find_below(
    value: Any, node: dict[str, Any], prefix: str, path: Path
) -> Iterator[tuple[str, Path, YamlMap]]:
    if isinstance(value, YamlMap):
        named, chosen = _named(node), _chosen(node)
        for name in list(value):
            if name not in value:
                continue
            if (below := named.get(name)) is not None:
                key = f"{prefix}.{name}" if prefix else name
                yield key, (*path, name), value
            elif (below := chosen) is not None:
                key = f"{prefix}.*"
            else:
                continue
            if name in value:
                yield from _find_below(value[name], below, key, (*path, name))
    elif isinstance(value, YamlList) and (items := _items(node)) is not None:
        for number, each in enumerate(value):
            yield from _find_below(each, items, f"{prefix}[]", (*path, number))


# --- whether a document is as it says


def validate(document: YamlMap, faults: Faults) -> None:
    """Add to *faults* whatever the schema refuses in *document*, and remove it."""
    problems = list(_problems(_validator().iter_errors(plain(document))))
    found = [(*_find(document, path), told) for path, told in problems]
    for path, place, told in found:
        faults.add(place, path, told)
    for path, _, _ in found:
        if path:
            _take_out(document, path)


def _problems(errors: Iterable[jsonschema_rs.ValidationError]) -> Iterator[tuple[Path, str]]:
    for error in errors:
        path = tuple(error.instance_path)
        kind = error.kind
        match kind:
            case jsonschema_rs.ValidationErrorKind.OneOfNotValid():
                yield from _problems_of_one(path, kind.context)
            case jsonschema_rs.ValidationErrorKind.Type():
                yield path, _expected(kind.types)
            case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
                for name in kind.unexpected:
                    yield (*path, name), _unknown(path, name)
            case jsonschema_rs.ValidationErrorKind.Required():
                # What depends_on lacks may be in another file that is merged with this one.
                if kind.property != "condition":
                    yield path, f"lacks {kind.property}; write it, too"
            case jsonschema_rs.ValidationErrorKind.Enum():
                words = ", ".join(str(each) for each in cast("list[object]", kind.options))
                yield path, f"is none of {words}; write one of them"
            case jsonschema_rs.ValidationErrorKind.UniqueItems():
                pass  # one of two alike is left out, as docker compose does
            case _:
                yield path, f"{error.message}; correct it"


def _problems_of_one(
    path: Path, branches: list[list[jsonschema_rs.ValidationError]]
) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong, judged by the form that was meant: the one with the right type."""
    types: list[str] = []
    for branch in branches:
        problems = list(_problems(branch))
        wrong_types = [
            each.kind.types
            for each in branch
            if isinstance(each.kind, jsonschema_rs.ValidationErrorKind.Type)
            and tuple(each.instance_path) == path
        ]
        if not wrong_types:
            yield from problems
            return
        types += wrong_types[0]
    yield path, _expected(types)


def _expected(types: list[str]) -> str:
    words = list(dict.fromkeys(_WORDS[each] for each in types))
    return f"must be {' or '.join(words)}; write it so"


def _unknown(path: Path, name: str) -> str:
    if path in {("services",), ("networks",), ("volumes",), ("configs",), ("secrets",)}:
        return "is no name; write one of letters, digits and ._-"
    known = _names_at(path)
    hint = did_you_mean(name, known)
    return f"is no key of compose files{hint or '; remove it, or let it begin with x-'}"


def _names_at(path: Path) -> set[str]:
    """Return the keys that the schema names at *path*."""
    node: dict[str, Any] = _schema()
    for part in path:
        below = _items(node) if isinstance(part, int) else _named(node).get(part) or _chosen(node)
        if below is None:
            return set()
        node = below
    return set(_named(node))


def _find(document: YamlMap, path: Path) -> tuple[Path, Place]:
    """Return the part of *path* that exists in *document*, and its place."""
    value: Any = document
    place: Place = document.place
    found: Path = ()
    for part in path:
        if isinstance(value, YamlMap) and str(part) in value:
            name = str(part)  # the validator takes a name of digits for a number
            found, place, value = (*found, name), value.place_of(name), value[name]
        elif isinstance(value, YamlList) and isinstance(part, int):
            found, place, value = (*found, part), value.places[part], value[part]
    return found, place


def _take_out(document: YamlMap, path: Path) -> None:
    """Remove what is at *path*. Replace an item of a list by None."""
    numbers = [at for at, part in enumerate(path) if isinstance(part, int)]
    *above, last = path[: numbers[-1] + 1] if numbers else path
    value: Any = document
    for part in above:
        if isinstance(value, YamlMap):
            value = value.get(str(part))  # None where it is gone with something above it
        elif isinstance(value, YamlList):
            value = value[cast("int", part)]
    if isinstance(value, YamlMap):
        value.pop(str(last), None)
    elif isinstance(value, YamlList):
        value[cast("int", last)] = None
