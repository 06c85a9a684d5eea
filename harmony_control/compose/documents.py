"""YAML of compose files, with the line of everything: what could be read in two ways is refused.

As `docker compose` has it: texts, numbers, true, false and null; a date is a text, and ``0644`` is octal.
Anchors and merges (``<<``) are written out, several documents in one file are merged as several files are.
``!reset`` and ``!override`` say how a value is merged; any other tag, a key named twice, NaN and infinities
are refused.
"""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from harmony_control.score_files.document import MAX_BYTES

from .faults import Faults
from .tree import Path, Place, YamlList, YamlMap

__all__ = ["read_documents"]

_PREFIX = "tag:yaml.org,2002:"
_DEEPEST = 50
_NODE_BYTES = 8
"""What each value counts beside its text, so that many empty ones are many, too."""
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_INT64 = range(-(2**63), 2**64)
_TAGS_OF_COLLECTIONS = {_PREFIX + "map", _PREFIX + "seq"}


class _Broken(Exception):
    """Nothing of the file can be read. Never leaves this module."""

    def __init__(self, line: int, told: str) -> None:
        super().__init__(told)
        self.line = line
        self.told = told


def read_documents(file: str, data: bytes, faults: Faults) -> list[YamlMap]:
    """Return each document of *data*. Add to *faults* what is wrong, and leave it out."""
    try:
        return _Reader(file, faults).read(data)
    except _Broken as broken:
        faults.add(Place(file, broken.line), (), broken.told)
        return []


class _Reader:
    def __init__(self, file: str, faults: Faults) -> None:
        self._file = file
        self._faults = faults
        self._bytes_left = MAX_BYTES
        self._inside: set[int] = set()

    def read(self, data: bytes) -> list[YamlMap]:
        found: list[YamlMap] = []
        for node in _nodes_of(data):
            if isinstance(node, ScalarNode) and node.tag == _PREFIX + "null":
                continue  # a document with comments alone
            value = self._value(node, ())
            if isinstance(value, YamlMap):
                found.append(value)
            else:
                self._add(node, (), "is no compose file; write a mapping that has services")
        if not found and not self._faults.is_below(()):
            self._faults.add(
                Place(self._file, 1), (), "is empty; write a mapping that has services"
            )
        return found

    def _add(self, node: Node, path: Path, told: str) -> None:
        self._faults.add(self._place(node), path, told)

    def _place(self, node: Node) -> Place:
        return Place(self._file, node.start_mark.line + 1)

    def _value(self, node: Node, path: Path) -> Any:
        """Return the value of *node*. Copy the content of an anchor to every place that uses it."""
        self._spend(node, _NODE_BYTES)
        if len(path) > _DEEPEST:
            raise _Broken(node.start_mark.line + 1, "is nested too deep to be read; flatten it")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._inside:
            raise _Broken(node.start_mark.line + 1, "an anchor contains itself; take it out there")
        if node.tag not in {*_TAGS_OF_COLLECTIONS, "!override", "!reset"}:
            self._add(node, path, f"has the tag {node.tag}; write it without")
        self._inside.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return self._list(node, path)
            assert isinstance(node, MappingNode)
            return self._map(node, path)
        finally:
            self._inside.remove(id(node))

    def _spend(self, node: Node, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            told = f"is larger than {MAX_BYTES} bytes once its anchors are written out; use fewer"
            raise _Broken(node.start_mark.line + 1, told)

    def _list(self, node: SequenceNode, path: Path) -> YamlList:
        found = YamlList(self._place(node))
        for each in node.value:
            if each.tag != "!reset":
                found.add(self._value(each, (*path, len(found))), self._place(each))
        return found

    def _map(self, node: MappingNode, path: Path) -> YamlMap:
        found = YamlMap(self._place(node))
        merged: list[YamlMap] = []
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, ScalarNode) else None
            if name is None or key.tag not in {
                _PREFIX + "str",
                _PREFIX + "merge",
                _PREFIX + "value",
            }:
                told = (
                    f"the key {name if name is not None else 'there'} is no text; put it in quotes"
                )
                self._add(key, path, told)
                continue
            if (said := _why_no_text(name)) is not None:
                self._add(key, path, f"a key {said}")
                continue
            if name in seen:
                remedy = "write <<: [*one, *other]" if name == "<<" else "keep one of them"
                self._add(key, (*path, name), f"is in line {seen[name]}, too; {remedy}")
                continue
            seen[name] = line
            if key.tag == _PREFIX + "merge":
                merged += self._merged(value, path)
            elif value.tag == "!reset":
                found.resets.add(name)
            else:
                self._spend(key, len(name))
                found.put(name, self._value(value, (*path, name)), Place(self._file, line))
                if value.tag == "!override":
                    found.overrides.add(name)
        for each in merged:
            _put_beneath(found, each)
        return found

    def _merged(self, node: Node, path: Path) -> list[YamlMap]:
        values: list[Node] = node.value if isinstance(node, SequenceNode) else [node]
        found: list[YamlMap] = []
        for each in values:
            value = self._value(each, path)
            if isinstance(value, YamlMap):
                found.append(value)
            else:
                self._add(each, (*path, "<<"), "merges what is no mapping; name an anchor of one")
        return found

    def _scalar(self, node: ScalarNode, path: Path) -> object:
        text: str = node.value
        self._spend(node, len(text))
        if (said := _why_no_text(text)) is not None:
            self._add(node, path, said)
            return ""
        kind = str(node.tag).removeprefix(_PREFIX)
        if kind not in _KINDS:
            self._add(node, path, f"has the tag {node.tag}; write it without")
            return None
        try:
            return _KINDS[kind](text)
        except ValueError as error:
            self._add(node, path, str(error))
            return None


def _put_beneath(found: YamlMap, merged: YamlMap) -> None:
    """Add to *found* the keys of *merged* (``<<``) that it does not have itself."""
    own = {*found, *found.resets}
    for key, value in merged.items():
        if key not in own:
            found.put(key, value, merged.place_of(key))
            if key in merged.overrides:
                found.overrides.add(key)
    found.resets |= merged.resets - own


def _nodes_of(data: bytes) -> list[Node]:
    yaml = YAML(typ="safe", pure=True)  # what is written in C crashes where this raises
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        told = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise _Broken(line, told) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", YAMLWarning)  # an anchor that is used twice
            return [each for each in yaml.compose_all(text) if each is not None]
    except RecursionError as error:
        raise _Broken(1, "is nested too deep to be read; flatten it") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [str(part) for part in (error.context, error.problem) if part]
        told = " ".join(": ".join(parts).split()) or "not YAML"
        raise _Broken(mark.line + 1 if mark else 1, f"{told}; correct the YAML") from error
    except (YAMLError, ValueError) as error:
        at = getattr(error, "position", 0)
        line = text[: at if isinstance(at, int) else 0].count("\n") + 1
        told = " ".join(str(error).split())
        raise _Broken(line, f"{told}; correct the YAML") from error


def _why_no_text(text: str) -> str | None:
    if "\0" in text:
        return "has a NUL byte; remove it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half a character (\\ud800 to \\udfff); write it whole"
    return None


def _int(text: str) -> int:
    digits = text.replace("_", "")
    if _OCTAL.fullmatch(digits):
        number = int(digits, 8)
    else:
        number = int(digits, 10 if digits.lstrip("+-").isdigit() else 0)
    if number not in _INT64:
        raise ValueError("does not fit into 64 bits; put it in quotes, as a text")
    return number


def _float(text: str) -> float:
    number = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(number):
        raise ValueError("is not a finite number; write another")
    return number


_KINDS: dict[str, Callable[[str], object]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() in {"true", "yes", "on", "y"},
    "int": _int,
    "float": _float,
    **dict.fromkeys(("str", "timestamp", "value", "merge", "!override", "!reset"), str),
}
"""What scalars become, by their tags."""
