"""A command in one line, as its arguments."""

from __future__ import annotations

import shlex

from .faults import Wrong

__all__ = ["split_words"]

_OF_A_SHELL = ";&|<>"


def split_words(line: str) -> list[str]:
    """Return the arguments of *line*, as a shell would split it. Refuse special characters of a shell: no
    shell runs it."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Wrong(
            f"{str(error).lower()}; close the quote, or write a list of arguments"
        ) from error
    if (sign := _find_sign(line)) is not None:
        raise Wrong(
            f"{sign} is for a shell, and none runs this; put it in quotes, or write "
            f'["sh", "-c", "…"]'
        )
    return words


def _find_sign(line: str) -> str | None:
    """Return the first special character of *line*, such as ``|``; None where there is none."""
    quote = ""
    skip = False
    for each in line:
        if skip:
            skip = False
        elif each == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if each == quote else quote
        elif each in {"'", '"'}:
            quote = each
        elif each in _OF_A_SHELL:
            return each
    return None
