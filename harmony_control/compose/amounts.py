"""Times and sizes as compose files have them: ``1m30s``, ``512m``."""

from __future__ import annotations

import re

from .faults import Wrong

__all__ = ["parse_bytes", "parse_seconds"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_EXPONENT = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_DIGITS_MOST = 30


def parse_bytes(value: object) -> int:
    """Return the bytes that *value* states: a number, or one with the unit b, k, m, g, t or p, in steps of
    1024."""
    if isinstance(value, int | float):
        return int(value)
    text = str(value).strip()
    if len(text) <= _DIGITS_MOST:
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        if (found := _SIZE.fullmatch(text)) is not None:
            return int(float(found[1]) * 1024 ** _EXPONENT[found[2].lower()])
    raise Wrong(f"{text!r} is no size; write one as in 512m or 2g")


def parse_seconds(value: object) -> float:
    """Return the seconds that *value* states, as in ``1m30s``."""
    text = str(value).strip()
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or len(text) > _DIGITS_MOST or "".join(map("".join, parts)) != text:
        raise Wrong(f"{text!r} is no time; write it with its unit, as in 30s or 1m30s")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
