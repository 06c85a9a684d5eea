"""The [Install] section of a unit's file: what enabling the unit does, besides to the unit itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["install_section", "read_install_words"]

_SECTION: Final = re.compile(r"\s*\[(.+)\]\s*")


def read_install_words(text: str, setting: str) -> list[str]:
    """Return what the [Install] sections of a unit file give for *setting*, such as the units of ``Also``."""
    settings = (line.partition("=") for line in install_section(text))
    return [
        word for name, _, value in settings if name.strip() == setting for word in value.split()
    ]


def install_section(text: str) -> Iterator[str]:
    """Yield the lines of all [Install] sections, without the space around them."""
    section = ""
    for line in text.split("\n"):
        if header := _SECTION.fullmatch(line):
            section = header[1]
        elif section == "Install":
            yield line.strip()
