"""How systemd reads a unit file, after systemd.syntax(7), systemd.unit(5), systemd.service(5).

Written from the manual pages, to hold against what `harmony_scores` writes. Refuses what systemd would
warn of and skip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["Unit", "command_of", "environment_of", "expanded", "parse", "words_of"]

Unit = dict[str, dict[str, list[str]]]
"""Values by key by section, in order."""

_ESCAPES = {"n": "\n", "t": "\t", "s": " ", "\\": "\\", '"': '"', "'": "'"}
_QUOTED = re.compile(r"\"(\\.|[^\"\\])*\"")
_LINE_ENDS = re.compile(r"\r\n|\n|\r|\0")


def parse(text: str) -> Unit:
    """Sections, keys and raw values; ValueError for a line that is none of these."""
    unit: Unit = {}
    section: dict[str, list[str]] | None = None
    for line in _logical_lines(text):
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(f"bad section: {line!r}")
            section = unit.setdefault(line[1:-1], {})
            continue
        key, equals, value = line.partition("=")
        if section is None or not equals or not re.fullmatch(r"[A-Za-z0-9]+", key.rstrip()):
            raise ValueError(f"not an assignment: {line!r}")
        section.setdefault(key.rstrip(), []).append(value.strip(" \t"))
    return unit


def _logical_lines(text: str) -> Iterator[str]:
    continued = ""
    for line in _LINE_ENDS.split(text):
        if line.endswith("\\"):
            continued += line[:-1] + " "
            continue
        yield (continued + line).strip(" \t")
        continued = ""
    if continued:
        yield continued.strip(" \t")


def expanded(value: str) -> str:
    """``%%`` is a percent sign; any other specifier means something that nobody asked for."""
    parts = value.split("%%")
    if any("%" in part for part in parts):
        raise ValueError(f"a specifier: {value!r}")
    return "%".join(parts)


def words_of(value: str) -> list[str]:
    """Split at spaces, with quotes and C escapes."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(value)
    for character in characters:
        if character == "\\":
            escape = next(characters, "")
            if escape not in _ESCAPES:
                raise ValueError(f"unknown escape \\{escape}: {value!r}")
            word = (word or "") + _ESCAPES[escape]
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "\"'":
            quote, word = character, word or ""
        elif character in " \t":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    if quote:
        raise ValueError(f"a quote that is not closed: {value!r}")
    return [*words, word] if word is not None else words


def command_of(value: str) -> list[str]:
    """The program and its arguments, as they are executed; nothing may be left to expansion."""
    if value[:1] in set("@-:+!|"):
        raise ValueError(f"a prefix: {value!r}")
    if ";" in _QUOTED.sub('""', value).split():
        raise ValueError(f"two commands: {value!r}")
    return [_without_variables(expanded(word)) for word in words_of(value)]


def environment_of(values: list[str]) -> dict[str, str]:
    """Variables by name."""
    assignments = [expanded(word).partition("=") for value in values for word in words_of(value)]
    return {name: value for name, _, value in assignments}


def _without_variables(word: str) -> str:
    parts = word.split("$$")
    if any("$" in part for part in parts):
        raise ValueError(f"a variable: {word!r}")
    return "$".join(parts)
