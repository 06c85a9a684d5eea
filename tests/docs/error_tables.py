"""docs/errors.md, from the errors themselves: ``python -m tests.docs.error_tables`` writes it.

What an error means, and what to do, is in its docstring: its last paragraph begins with ``To do:``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from harmony_control.cli.exits import NO_ANSWER, exit_code_of
from harmony_core import errors
from harmony_core.errors import (
    CapabilityError,
    EntryRefused,
    HarmonyError,
    LedgerUnusable,
    ManifestRejected,
    PermanentError,
    RequestError,
    StoreError,
    TransientError,
    UsageError,
    WireError,
)

__all__ = ["CODES", "PAGE", "page", "remedy_of"]

PAGE = Path(__file__).parents[2] / "docs/errors.md"
_BEGINS = "To do: "
_TITLES: dict[type[HarmonyError], str] = {
    WireError: "What is signed and sent",
    ManifestRejected: "A manifest is refused",
    EntryRefused: "A Score is refused",
    CapabilityError: "What a device cannot do",
    TransientError: "What is tried again",
    PermanentError: "What waits for a change",
    RequestError: "A question to a device",
    StoreError: "The message server and disks",
    UsageError: "What was typed",
}
_INTRODUCTION = """\
# Errors

Every error has a code that stays the same: it is what `harmony status` shows of a Score that has failed,
what `--json` has in `error.code`, and what begins the message of a refused manifest. The message says
what is wrong in this case, and mostly also what to do.

The exit code is that of a command which meets the error itself. A command that waits for a device ends with 1
when a Score has failed there, whatever its code, and with 4 when the device refuses all of what was pushed.
All of them are with [the commands](commands.md#exit-codes).

What a device says of itself (such as `LedgerLost`, `DeviceCopied`, `Held`) is no error of a command:
[when something does not work](running.md#when-something-does-not-work) has these words.

This page is made from the code by `python -m tests.docs.error_tables`, and a test keeps it so.
"""


def _descend(cls: type[HarmonyError]) -> Iterator[type[HarmonyError]]:
    yield cls
    for each in cls.__subclasses__():
        yield from _descend(each)


def remedy_of(cls: type[HarmonyError]) -> str:
    """What to do when it is met; "" where the class does not say it."""
    return _paragraphs(cls)[1]


def _paragraphs(cls: type[HarmonyError]) -> tuple[str, str]:
    about, _, remedy = inspect.cleandoc(cls.__doc__ or "").partition(f"\n\n{_BEGINS}")
    words = " ".join(remedy.split())
    return about.replace("``", "`"), words[:1].upper() + words[1:]


_ALL = [
    each
    for each in _descend(HarmonyError)
    if each.__module__ == errors.__name__ and each is not HarmonyError
]
_HEADS = [
    each
    for each in _ALL
    if HarmonyError in each.__bases__ or (each.__subclasses__() and not remedy_of(each))
]
CODES: list[type[HarmonyError]] = [
    each for each in _ALL if remedy_of(each) or not each.__subclasses__()
]
"""Those that are met: not what only holds others together."""


def _exit_code(cls: type[HarmonyError]) -> str:
    own = f"`{exit_code_of(cls.__new__(cls))}`"
    if issubclass(cls, CapabilityError | EntryRefused | LedgerUnusable):
        return f"`1` as a Score's failure, {own} where a command meets it"
    if issubclass(cls, ManifestRejected):
        return (
            f"`{NO_ANSWER}` where a device refuses what was pushed, {own} where a command meets it"
        )
    return own


def _head(cls: type[HarmonyError]) -> type[HarmonyError]:
    """Under which heading it stands."""
    return next(each for each in cls.__mro__ if each in _HEADS)


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for head in _HEADS:
        members = [each for each in CODES if _head(each) is head]
        if not members:
            continue
        about = _paragraphs(head)[0]
        parts.append(f"## {_TITLES[head]}\n{about}\n")
        for each in members:
            meaning, remedy = _paragraphs(each)
            meaning = "Any other." if each is head else meaning
            parts.append(
                f"### {each.code}\n{meaning}\n\n**To do:** {remedy}\n\nExit code: {_exit_code(each)}\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
