"""JSON that can be read in one way only: the first gate for every byte that comes from outside.

    size  ->  UTF-8  ->  depth  ->  escapes  ->  the C scanner  ->  JsonValue

What two parsers could read differently is refused here: a byte-order mark, a key named twice, NaN and
infinities (also ``1e999``), integers beyond 64 bits, lone surrogates, NUL. Nothing recurses deeper than
the caller allows, and no integer is converted before its length is known, so hostile bytes cost no more
than honest ones. Each refusal says where, and what to do.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NoReturn, TypeAlias

import attrs

from harmony_core.errors import DuplicateKey, NotJson, NotUtf8, TooDeep, TooLarge
from harmony_core.visible import cut

__all__ = ["JsonValue", "dumps", "is_shallow", "loads"]

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

_INT64 = range(-(2**63), 2**63)
_NUMBER_MAX_CHARS = 400

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_STEPS = {byte: (byte in b"[{") - (byte in b"]}") for byte in range(256)}
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u(?P<bad>0000|[dD][89a-fA-F]..)|.)", re.DOTALL
)
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_SUSPECT_ESCAPES = (b"\\u0000", b"\\ud", b"\\uD")


class _BadNumber(ValueError):
    """A number that the C scanner has found, and that is refused here."""

    def __init__(self, token: str, why: str) -> None:
        super().__init__(why)
        self.token = token


class _RepeatedKey(ValueError):
    """An object names one key twice."""

    def __init__(self, pairs: list[tuple[str, JsonValue]]) -> None:
        super().__init__("repeated key")
        self.pairs = pairs


def loads(data: bytes, *, max_bytes: int, max_depth: int = 32) -> JsonValue:
    """Read one JSON document of at most *max_bytes*, nested at most *max_depth* objects and arrays deep.

    Raises `TooLarge`, `NotUtf8`, `TooDeep`, `NotJson` or `DuplicateKey`, and nothing else.
    """
    if len(data) > max_bytes:
        raise TooLarge(
            f"{len(data)} bytes, at most {max_bytes} are allowed; "
            "refer to large content by its hash, or split it"
        )
    text = _decode(data)
    if not is_shallow(data, max_depth):
        _refuse_depth(data, max_depth)
    # One byte is found a hundred times faster than several, and most documents have no such escape.
    if b"\\" in data and b"\\u" in data and any(each in data for each in _SUSPECT_ESCAPES):
        _refuse_escapes(data)
    return _scan(text, data)


def dumps(value: JsonValue, *, sort_keys: bool = False) -> bytes:
    """Return compact UTF-8 JSON, keys in their own order unless *sort_keys*.

    Raise `NotJson` for NaN, infinities, lone surrogates and what is not JSON at all. Size, depth, NUL and
    integers beyond 64 bits are checked only by `loads`.
    """
    try:
        return json.dumps(
            value,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            sort_keys=sort_keys,
        ).encode()
    except (ValueError, TypeError) as error:
        raise NotJson(
            f"cannot be written as JSON: {error}; use finite numbers and whole characters"
        ) from error


def _decode(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        raise NotUtf8("begins with a byte-order mark; save it as plain UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotUtf8(
            f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8: {error.reason}; "
            "save it as plain UTF-8"
        ) from None


def is_shallow(data: bytes, max_depth: int) -> bool:
    """Return whether all brackets pair up within *max_depth* levels; False may also mean that some do not.

    Only what runs in C: all but quotation marks and brackets is cut out, then what is quoted, and then
    the innermost pairs are taken away level by level.
    """
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return True
    structure = _without_escapes(data).translate(_AS_SQUARE, _NOT_STRUCTURE)
    brackets = b"".join(structure.split(b'"')[::2])
    for _ in range(max_depth):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _without_escapes(data: bytes) -> bytes:
    """Return *data* without the backslashes and quotation marks that stand for themselves in a string."""
    return _ESCAPED.sub(b"__", data) if b"\\" in data else data


def _blank_strings(data: bytes) -> bytes:
    """Return *data* with spaces for what is inside strings; only for saying where something is."""
    # Split at the quotation marks: outside of strings, inside, outside… Positions are kept.
    segments = _without_escapes(data).split(b'"')
    segments[1::2] = [b" " * len(each) for each in segments[1::2]]
    return b'"'.join(segments)


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Raise `TooDeep` where the depth is passed, if it is; brackets that do not pair are let through."""
    depths = accumulate(map(_STEPS.__getitem__, _blank_strings(data)))
    offset = next((at for at, depth in enumerate(depths) if depth > max_depth), None)
    if offset is not None:
        raise TooDeep(f"at byte {offset}: nested deeper than {max_depth} levels; flatten it")


def _refuse_escapes(data: bytes) -> None:
    """Raise `NotJson` at the first ``\\u`` escape that stands for NUL or for half a character."""
    for match in _ESCAPE.finditer(data):
        if match["bad"]:
            escape = match[0].decode(errors="replace")
            what = "NUL" if match["bad"] == b"0000" else "half of a surrogate pair"
            _refuse(match.start(), f"{escape} is {what}", "leave it out, or write base64")


def _scan(text: str, data: bytes) -> JsonValue:
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise NotJson("empty; a JSON document was expected") from None
        offset = len(text[: error.pos].encode())
        _refuse(offset, error.msg, "send one whole JSON document")
    except _BadNumber as error:
        _refuse(_offset_of(error.token, data), str(error), "write it as text, or leave it out")
    except _RepeatedKey as error:
        key, place = _repetition(error, text)
        raise DuplicateKey(f"the key {key!r} stands twice in {place}; keep one of them") from None
    except RecursionError:
        raise TooDeep("nested too deep to be read here; flatten it") from None
    return value


def _refuse(offset: int, what: str, remedy: str) -> NoReturn:
    raise NotJson(f"at byte {offset}: {what}; {remedy}") from None


def _offset_of(token: str, data: bytes) -> int:
    found = re.search(rb"(?<![\w.+-])" + re.escape(token[:64].encode()), _blank_strings(data))
    return found.start() if found else 0


def _short(text: str) -> str:
    return cut(text, 64)


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKey(pairs)
    return found


def _int(token: str) -> int:
    if len(token) > 20 or (number := int(token)) not in _INT64:
        raise _BadNumber(token, f"{_short(token)} does not fit into 64 bits")
    return number


def _float(token: str) -> float:
    if len(token) > _NUMBER_MAX_CHARS or not math.isfinite(number := float(token)):
        raise _BadNumber(token, f"{_short(token)} is not a finite number of reasonable length")
    return number


def _constant(token: str) -> NoReturn:
    raise _BadNumber(token, f"{token} is not JSON")


@attrs.frozen
class _Pairs:
    """An object whose keys may repeat; only for saying where they do."""

    pairs: list[tuple[str, Any]]


_Shown: TypeAlias = "_Pairs | list[_Shown] | str | int | float | bool | None"


def _repetition(found: _RepeatedKey, text: str) -> tuple[str, str]:
    """Return the repeated key, and the path of its object as far as the rest of *text* can be read."""
    try:
        document, whole = _PAIRS_DECODER.decode(text), "the document"
    except ValueError:
        document, whole = _Pairs(found.pairs), "one object"
    key, path = next(_find_repeated_keys(document, ""))
    return _short(key), path or whole


def _find_repeated_keys(value: _Shown, path: str) -> Iterator[tuple[str, str]]:
    """Yield every key that repeats, with the path of its object."""
    match value:
        case _Pairs():
            seen: set[str] = set()
            for key, child in value.pairs:
                if key in seen:
                    yield key, path
                seen.add(key)
                yield from _find_repeated_keys(
                    child, f"{path}.{_short(key)}" if path else _short(key)
                )
        case list():
            for index, child in enumerate(value):
                yield from _find_repeated_keys(child, f"{path}[{index}]")
        case _:
            return


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
)
_PAIRS_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=len, parse_float=len)
