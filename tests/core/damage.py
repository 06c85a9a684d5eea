"""Random damage to bytes: what a bad disk, a bad link or a bad neighbour might make of them.

And to JSON documents as documents: what somebody makes of them who knows what they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, cast

__all__ = ["BATCH", "damaged", "rewritten"]

BATCH = 100
"""How many damaged forms one example of hypothesis stands for; it draws only their seed."""

_TOKENS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\0",
    b"=",
    b"NaN",
    b"1e999",
    b"null",
    b" ",
)


def damaged(originals: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """`BATCH` damaged forms of *originals*, each by one to three changes; now and then a splice of two."""
    random = Random(seed)
    for _ in range(BATCH):
        data = bytearray(random.choice(originals))
        for _ in range(random.randint(1, 3)):
            _change(data, random.choice(originals), random)
        yield bytes(data)


def _change(data: bytearray, other: bytes, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 1, 2, 8, 64)))
    match random.randrange(7):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1:
            del data[at:end]
        case 2:
            data[at:at] = random.randbytes(random.randint(1, 8))
        case 3:
            data[at:at] = random.choice(_TOKENS)
        case 4:
            data[at:end] = random.choice(_TOKENS)
        case 5:
            data[at:at] = data[at:end]
        case _:
            data[at:] = other[random.randrange(len(other) + 1) :]


_STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.0, 1e308, 2**31, 2**53, 2**63, -(2**63) - 1, 2**64, 10**400),
    *(
        "",
        "x",
        "\0",
        "\n",
        "\ud800",
        "\u202e",
        "a" * 5_000,
        "7",
        "2026-01-31T12:00:00.000Z",
        "*",
        ">",
        "../..",
    ),
    *([], {}, [[]], [None], {"": None}, {"__class__": "x"}, [0] * 2_000),
)


def rewritten(original: bytes, random: Random) -> bytes:
    """Return the JSON document *original* with one to three of its values or keys other than they were.

    It may be no JSON any more: a key may stand twice, and a number be NaN.
    """
    document: object = json.loads(original)
    for _ in range(random.randint(1, 3)):
        document = _rewrite(document, random)
    text = json.dumps(
        document, ensure_ascii=random.random() < 0.5, separators=random.choice(_FORMS)
    )
    if random.random() < 0.05:
        text = text.replace('":', random.choice(('":NaN,"x":', '":1,"":', '" :\t')), 1)
    return text.encode(errors="surrogatepass")


_FORMS = ((",", ":"), (", ", ": "), ("\n,", ":\r\n"))


def _rewrite(value: Any, random: Random) -> Any:
    """Return *value* with one thing in it changed, mostly deep inside."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        items = cast("dict[str, Any] | list[Any]", value)
        changed: Any = items.copy()
        key: Any = random.choice(list(items) if isinstance(items, dict) else range(len(items)))
        match random.randrange(8):
            case 0:
                del changed[key]
            case 1 if isinstance(items, dict):
                changed[f"{key}{random.choice(('', ' ', '_', 'x'))}"] = changed.pop(key)
            case 2 if isinstance(items, dict):
                changed[random.choice(("x", "", "id", "kind", "seq"))] = random.choice(_STRANGE)
            case 3 if isinstance(items, list):
                changed *= random.choice((2, 9, 500))
            case _:
                changed[key] = _rewrite(items[key], random)
        return changed
    return _replace(value, random)


def _replace(value: Any, random: Random) -> Any:
    """Return something else in the place of *value*, or *value* somewhere inside it."""
    match random.randrange(5):
        case 0:
            return [value]
        case 1:
            return {"x": value}
        case 2:
            nested: Any = value
            for _ in range(random.choice((5, 31, 40, 300))):
                nested = [nested]
            return nested
        case _:
            return random.choice(_STRANGE)
