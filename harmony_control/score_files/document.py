"""JSON and YAML Score files as plain values: what could be read in two ways is refused, with its place.

YAML is read as JSON with comments and anchors: its texts, numbers, true, false and null, nothing else. A
date is a text. A key named twice, NaN, infinities and tags are refused; an anchor may be used often, but
what it is written out to is as limited as the file itself.
"""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
import warnings
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError, YAMLWarning
from ruamel.yaml.nodes import Node, ScalarNode

from harmony_core.errors import ManifestRejected, ScoreFileError
from harmony_core.wire import strict_json

__all__ = ["MAX_BYTES", "json_document", "yaml_document"]

MAX_BYTES = 1024 * 1024
_INT64 = range(-(2**63), 2**63)


def json_document(file: str, data: bytes) -> object:
    """Return *data* as JSON; `ScoreFileError` names *file*."""
    try:
        return strict_json.loads(data, max_bytes=MAX_BYTES)
    except ManifestRejected as error:
        raise ScoreFileError(f"{file}: {error.message}") from error


def yaml_document(file: str, data: bytes) -> object:
    """Return *data* as YAML; `ScoreFileError` names *file* and the line."""
    yaml = YAML(
        typ="safe", pure=True
    )  # what is written in C crashes where this raises, when nested deep
    yaml.Constructor = _JsonConstructor
    try:
        with warnings.catch_warnings():
            # Of what YAML allows, as an anchor that is used twice: nothing is left out for it.
            warnings.simplefilter("ignore", YAMLWarning)
            document: object = yaml.load(data.decode())
        _check_size(document)
        # What is left of YAML must survive as JSON: the depth, whole characters, keys that are texts.
        return strict_json.loads(
            strict_json.dumps(cast("Any", document)),
            max_bytes=2 * MAX_BYTES,
        )
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise ScoreFileError(f"{file} {problem}") from error
    except RecursionError as error:
        raise ScoreFileError(f"{file}: nested too deep to be read; flatten it") from error
    except MarkedYAMLError as error:
        raise ScoreFileError(f"{file}: {_place(error)}{_describe(error)}") from error
    except (YAMLError, ManifestRejected, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ScoreFileError(f"{file}: {problem}; correct it") from error


class _JsonConstructor(SafeConstructor):
    """Makes only what JSON has."""

    def plain_int(self, node: ScalarNode) -> int:
        number: int = self.construct_yaml_int(node)
        if number not in _INT64:
            raise _refuse(node, "does not fit into 64 bits; put it in quotes, as a text")
        return number

    def plain_float(self, node: ScalarNode) -> float:
        number: float = self.construct_yaml_float(node)
        if not math.isfinite(number):
            raise _refuse(node, "is not a finite number")
        return number

    def refuse(self, node: Node) -> None:
        raise _refuse(node, "has a tag; write a plain text, number, list or object")


_PREFIX = "tag:yaml.org,2002:"
_JsonConstructor.add_constructor(_PREFIX + "int", _JsonConstructor.plain_int)
_JsonConstructor.add_constructor(_PREFIX + "float", _JsonConstructor.plain_float)
_JsonConstructor.add_constructor(_PREFIX + "timestamp", SafeConstructor.construct_yaml_str)
for _tag in ("binary", "omap", "pairs", "set"):
    _JsonConstructor.add_constructor(_PREFIX + _tag, _JsonConstructor.refuse)
_JsonConstructor.add_constructor(None, _JsonConstructor.refuse)


def _refuse(node: Node, why: str) -> ConstructorError:
    what = node.value if isinstance(node, ScalarNode) else node.tag
    return ConstructorError(None, None, f"{what} {why}", node.start_mark)


def _place(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    if not isinstance(mark, StringMark):
        return ""
    return f"line {mark.line + 1}, column {mark.column + 1}: "


def _describe(error: MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    told = " ".join(": ".join(map(str, parts)).split())
    return told.replace("<unicode string>", "the file") or "not YAML"


def _check_size(document: object) -> None:
    """Refuse what anchors would be written out to, before anybody does so."""
    if _size(document, {}, set()) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes once its anchors are written out")


def _size(value: object, known: dict[int, int], inside: set[int]) -> int:
    """Return about how many bytes *value* has as JSON. Every shared part is measured only once."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, dict | list):
        return 1
    if id(value) in inside:
        raise ValueError("an anchor contains itself")
    if id(value) not in known:
        inside.add(id(value))
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = sum(1 + _size(part, known, inside) for part in parts)
        inside.remove(id(value))
    return known[id(value)]
