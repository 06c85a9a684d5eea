"""What a unit's file says of other units: in [Install], what enabling the unit does besides to the unit
itself; in [Socket], which service is started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = [
    "find_broken_section",
    "install_section",
    "read_install_words",
    "read_words",
    "resolve_specifiers",
]

_SECTION: Final = re.compile(r"[ \t]*\[(.+)\][ \t]*")
_LINE_END: Final = re.compile(r"[\n\r\0]")
_COMMENTS: Final = ("#", ";")
_SPACE: Final = " \t\n\r"
"""What is space to systemd: no other character that Python would strip."""
_WORDS: Final = re.compile(f"[^{_SPACE}]+")
_BYTE_ORDER_MARK: Final = "\ufeff"
"""systemd passes it over, where a file begins with it."""


def read_install_words(text: str, setting: str) -> list[str]:
    """Return what the [Install] sections of a unit file give for *setting*, such as the units of ``Also``."""
    return read_words(text, "Install", setting)


def read_words(text: str, section: str, setting: str) -> list[str]:
    """Return what the sections of that name of a unit file give for *setting*."""
    settings = (line.partition("=") for line in _list_lines(text, section))
    return [
        word
        for name, _, value in settings
        if name.strip(_SPACE) == setting
        for word in _WORDS.findall(value)
    ]


def install_section(text: str) -> Iterator[str]:
    """Yield the lines of all [Install] sections, without the space around them."""
    yield from _list_lines(text, "Install")


def find_broken_section(text: str) -> str | None:
    """Return a line that begins a section and does not end it; None where there is none."""
    lines = (line.strip(_SPACE) for line in _whole_lines(text))
    return next((each for each in lines if each.startswith("[") and not each.endswith("]")), None)


def resolve_specifiers(word: str, unit: str) -> str | None:
    """Return *word* as systemd reads it in the file of *unit*; None where that depends on more than its
    name."""
    if "%" not in word:
        return word
    whole = unit.rpartition(".")[0]
    prefix, _, instance = whole.partition("@")
    last = prefix.rpartition("-")[2]
    known = {"n": unit, "N": whole, "p": prefix, "P": prefix, "i": instance, "I": instance}
    known |= {"j": last, "J": last, "%": "%"}
    parts = re.split(r"%(.?)", word)
    if any(each not in known for each in parts[1::2]):
        return None
    return "".join(known[each] if place % 2 else each for place, each in enumerate(parts))


def _list_lines(text: str, section: str) -> Iterator[str]:
    current = ""
    for line in _whole_lines(text):
        if header := _SECTION.fullmatch(line):
            current = header[1]
        elif current == section:
            yield line.strip(_SPACE)


def _whole_lines(text: str) -> Iterator[str]:
    """Yield each line with its continuation lines, as systemd reads them: a comment neither continues nor
    ends one."""
    begun = ""
    for line in _LINE_END.split(text.removeprefix(_BYTE_ORDER_MARK)):
        if line.lstrip(_SPACE).startswith(_COMMENTS):
            continue
        whole = f"{begun}{line}"
        goes_on = (len(whole) - len(whole.rstrip("\\"))) % 2
        begun = f"{whole[:-1]} " if goes_on else ""
        if not goes_on:
            yield whole
    if begun:
        yield begun
