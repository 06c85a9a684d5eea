"""Changes, for people: a file as a unified diff, anything else field by field.

As pairs of text and style: see `painted`. All of it was written by a device, so nothing is shown that could
steer a terminal, and whatever a file contains is indented: it cannot pass for one of our own lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmony_core.outcome_words import indent, shorten
from harmony_core.visible import visible, word

from .painted import Words

__all__ = ["change_words"]

_UNTOLD = {"since", "sha256"}
"""What always differs, and tells nobody anything."""
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def change_words(
    resource: str,
    actions: tuple[str, ...],
    *,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    diff: str | None,
    gone: bool = False,
) -> list[Words]:
    """Return a line for one resource, and below it what changes about it."""
    sign, style = _sign(before, gone=gone)
    words: list[Words] = [
        (f"  {sign} {word(resource)}", style),
        (f"  {indent(shorten(', '.join(actions)), 8)}\n", ""),
    ]
    for line, line_style in _details(before, None if gone else after, diff):
        words += [(f"      {line}", line_style), ("\n", "")]
    return words


def _sign(before: Mapping[str, Any] | None, *, gone: bool) -> tuple[str, str]:
    if gone:
        return "-", "red"
    return ("+", "green") if before is None else ("~", "yellow")


def _details(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, diff: str | None
) -> Iterator[Words]:
    if diff is not None:
        for line in visible(diff).splitlines():
            yield line, _DIFF_STYLES.get(line[:1], "")
    elif before is not None and after is not None:
        for name in (*before, *(each for each in after if each not in before)):
            if name not in _UNTOLD and before.get(name) != after.get(name):
                yield f"{word(name)}: {_show_field(before, name)} → {_show_field(after, name)}", ""


def _show_field(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "none" if value is None or value == "" else word(shorten(str(value)))
