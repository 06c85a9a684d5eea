"""Variables in compose files and .env files: ``$NAME``, ``${NAME}``, and with words of what else to do.

======================  =============================================================
``${NAME:-words}``      words, where NAME is not set or empty; without ``:``, where it is not set
``${NAME:+words}``      words, where NAME is set and not empty; without ``:``, where it is set
``${NAME:?words}``      wrong, in these words, where NAME is not set or empty; without ``:``, where not set
``${secret.db}``        that text: a reference, which the device resolves (also ``labels.``, ``inventory.``)
``$$``                  a dollar sign
======================  =============================================================

Words may have variables of their own. A ``$`` before anything else stays as it is, as in `docker compose`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from harmony_control.score_files.document import MAX_BYTES
from harmony_core.references import NAMESPACES, find_fault

from .faults import Wrong

__all__ = ["Lookup", "substitute"]

Lookup: TypeAlias = Callable[[str], str | None]
"""Return a variable's value; None where it is not set."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCES = tuple(f"{each}." for each in NAMESPACES)
_OPERATOR = re.compile(r":?[-+?]")
_DEEPEST = 20


def substitute(text: str, lookup: Lookup, note_unset: Callable[[str], None]) -> str:
    """Return *text* with the values of its variables. Raise `Wrong` for what cannot be read, and with the
    message of a ``?``.

    Call *note_unset* for each variable that is empty only because it is not set.
    """
    return _Substitution(lookup, note_unset).put_in(text, 0)


class _Substitution:
    def __init__(self, lookup: Lookup, note_unset: Callable[[str], None]) -> None:
        self._lookup = lookup
        self._note_unset = note_unset

    def put_in(self, text: str, depth: int) -> str:
        if depth > _DEEPEST:
            raise Wrong("variables are nested too deep; write fewer in one another")
        parts: list[str] = []
        at = size = 0
        while (dollar := text.find("$", at)) >= 0:
            parts.append(text[at:dollar])
            value, at = self._one(text, dollar, depth)
            parts.append(value)
            size += len(value)
            if size > MAX_BYTES:
                raise Wrong(
                    f"is larger than {MAX_BYTES} bytes with its variables put in; shorten them"
                )
        return "".join([*parts, text[at:]])

    def _one(self, text: str, dollar: int, depth: int) -> tuple[str, int]:
        """Return the value of the variable at *dollar*, and the position after it."""
        after = dollar + 1
        if text.startswith("$", after):
            return "$", after + 1
        if text.startswith("{", after):
            end = _find_end(text, after)
            return self._braced(text[after + 1 : end], depth), end + 1
        if (name := _NAME.match(text, after)) is None:
            return "$", after
        return self._value(name[0]), name.end()

    def _value(self, name: str) -> str:
        value = self._lookup(name)
        if value is None:
            self._note_unset(name)
        return value or ""

    def _braced(self, inside: str, depth: int) -> str:
        if inside.startswith(_REFERENCES):
            return _check_reference(f"${{{inside}}}")  # no variable's name has a dot
        name = _NAME.match(inside)
        if name is None:
            raise Wrong(f"${{{inside}}} names no variable; write $$ for a dollar sign")
        if name.end() == len(inside):
            return self._value(name[0])
        operator = _OPERATOR.match(inside, name.end())
        if operator is None:
            told = f"${{{inside}}} cannot be read; after the name write :-, -, :+, +, :? or ?"
            raise Wrong(told)
        value = self._lookup(name[0])
        counts = bool(value) if operator[0].startswith(":") else value is not None
        words = inside[operator.end() :]
        match operator[0][-1]:
            case "-":
                return (value or "") if counts else self.put_in(words, depth + 1)
            case "+":
                return self.put_in(words, depth + 1) if counts else ""
            case _:
                if counts:
                    return value or ""
                said = self.put_in(words, depth + 1)
                raise Wrong(
                    f"the variable {name[0]} is needed{': ' if said else ''}{said}; set it in the "
                    "environment or in .env"
                )


def _check_reference(reference: str) -> str:
    if (fault := find_fault(reference)) is not None:
        told = fault.partition("; for the text itself")[0]
        raise Wrong(f"{told}; for the text itself, write $$$${reference[1:]}")
    return reference


def _find_end(text: str, opening: int) -> int:
    """Return the position of the brace that closes the one at *opening*."""
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    raise Wrong(
        f"{text[opening - 1 :][:40]} has no closing brace; write it, or $$ for a dollar sign"
    )
