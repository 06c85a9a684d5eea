"""Files of variables as `docker compose` reads them: .env, ``--env-file`` and ``env_file``.

A line is ``NAME=value``, also ``NAME: value`` and ``export NAME=value``; a name alone takes its value from
the environment. Without quotes, a value ends at `` #``; in quotes it may go over several lines. Variables are
put in unless it is in single quotes, and ``\\n`` is a new line in double ones. *raw* files are plain
``NAME=value``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from .faults import Wrong
from .interpolation import Lookup, substitute

__all__ = ["WrongLine", "read_dotenv", "read_raw"]

_EXPORT = re.compile(r"export[ \t]+")
_ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0[0-7]{0,3})")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_NAME = re.compile(r"[\w.\-\[\]]+")


class WrongLine(Exception):
    """What is wrong with one line of such a file."""

    def __init__(self, line: int, told: str) -> None:
        super().__init__(told)
        self.line = line
        self.told = told


def read_raw(text: str, lookup: Lookup) -> dict[str, str]:
    """Return the variables of *text*, without giving any character a special meaning (``format: raw``)."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.lstrip().partition("=")
        if not name or any(each.isspace() for each in name):
            raise WrongLine(number, f"{name!r} is no variable's name; write NAME=value")
        inherited = None if equals else lookup(name)
        if equals or inherited is not None:
            found[name] = inherited if inherited is not None else value
    return found


def read_dotenv(
    text: str,
    lookup: Lookup,
    note_unset: Callable[[str], None],
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of *text*. A value may use the variables of *known*, and those above it."""
    normal = text.removeprefix("\ufeff").replace("\r\n", "\n")
    return _Reader(normal, lookup, note_unset, dict(known or {})).read()


@attrs.define
class _Reader:
    _text: str
    _lookup: Lookup
    _note_unset: Callable[[str], None]
    _known: dict[str, str]
    _at: int = 0
    _found: dict[str, str] = attrs.field(factory=dict[str, str])

    def read(self) -> dict[str, str]:
        while self._skip():
            name, has_value = self._name()
            if has_value:
                self._found[name] = self._value()
            elif (value := self._lookup(name)) is not None:
                self._found[name] = value
        return self._found

    @property
    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _skip(self) -> bool:
        """Go to the next line that has content. Return whether there is one."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                self._at = self._end_of_line()
            elif self._text[self._at].isspace():
                self._at += 1
            else:
                return True
        return False

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _name(self) -> tuple[str, bool]:
        """Return the name at this position, and whether a value follows it."""
        if exported := _EXPORT.match(self._text, self._at):
            self._at = exported.end()
        line = self._text[self._at : self._end_of_line()]
        name = _NAME.match(line)
        rest = line[name.end() :].lstrip() if name else line
        if name is None or (rest and rest[0] not in "=:"):
            raise WrongLine(self._line, f"{line.strip()[:40]!r} is no variable; write NAME=value")
        if not rest:
            self._at += len(line)
            return name[0], False
        self._at += len(line) - len(rest) + 1
        return name[0], True

    def _value(self) -> str:
        while self._at < len(self._text) and self._text[self._at] in " \t\v\f\r":
            self._at += 1
        quote = self._text[self._at : self._at + 1]
        if quote in {"'", '"'}:
            return self._quoted(quote)
        end = self._end_of_line()
        value = self._text[self._at : end].partition(" #")[0].rstrip()
        value = self._put_in(value)
        self._at = end
        return value

    def _quoted(self, quote: str) -> str:
        begin = self._at
        parts: list[str] = []
        at = begin + 1
        while at < len(self._text) and self._text[at] != quote:
            if self._text[at] == "\\" and self._text[at + 1 : at + 2] == quote:
                at += 1
                parts.append(quote)
            elif self._text[at] == "\\":
                parts.append(self._text[at : at + 2])
                at += 1
            else:
                parts.append(self._text[at])
            at += 1
        if at >= len(self._text):
            raise WrongLine(self._line, f"a value has no closing {quote}; write it")
        value = "".join(parts)
        if quote == '"':
            value = self._put_in(_ESCAPE.sub(_unescape, value))
        self._at = at + 1
        return value

    def _put_in(self, value: str) -> str:
        try:
            return substitute(value, self._look_up, self._note_unset)
        except Wrong as wrong:
            raise WrongLine(self._line, wrong.told) from wrong

    def _look_up(self, name: str) -> str | None:
        found = self._lookup(name)
        return self._found.get(name, self._known.get(name)) if found is None else found


def _unescape(found: re.Match[str]) -> str:
    text = found[0][1:]
    if text == "$":
        return "$$"  # a dollar sign, once variables are put in
    if text.startswith("0"):
        return chr(int(text, 8) & 0xFF)
    return _ESCAPED.get(text, text if text in {'"', "\\"} else found[0])
