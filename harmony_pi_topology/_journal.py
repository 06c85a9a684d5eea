"""The last lines that a unit logged, as `journalctl` tells them: the one program that is called.

journald has no interface on a bus, and its library none in Python that a small device should carry. It is
called once for each failure that is told, never to follow a log; time and bytes are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

__all__ = ["Journal", "JournalTail"]

JournalTail: TypeAlias = Callable[[str, int], Awaitable[str]]
"""(unit, lines) -> its last lines; empty when there are none, or when they cannot be had."""

_Entry: TypeAlias = dict[str, str | list[int] | None]
"""A text; or its bytes as numbers, where it is not UTF-8; or nothing, where it is too long."""
_ENTRY = TypeAdapter[_Entry](_Entry)

_WITHIN_S = 5.0
_READ_BYTES = 256 * 1024
_SECOND_LOOK_S = 0.2


class Journal:
    """This machine's journal. *command* is how `journalctl` is called here."""

    def __init__(
        self, command: Sequence[str] = ("journalctl",), *, within_s: float = _WITHIN_S
    ) -> None:
        self._command = command
        self._within_s = within_s

    async def tail(self, unit: str, lines: int) -> str:
        """The last *lines* lines about *unit* since boot. Never raises; ends within seconds.

        What a process wrote just before it died may arrive after the news of its death; so when there is
        nothing of its own yet, there is a second look.
        """
        entries = await self._entries(unit, lines)
        if not any(_is_its_own(entry) for entry in entries):
            await asyncio.sleep(_SECOND_LOOK_S)
            entries = await self._entries(unit, lines)
        return "\n".join(_message(entry) for entry in entries)

    async def _entries(self, unit: str, lines: int) -> list[_Entry]:
        output = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._within_s):
                output = await self._output(
                    f"--unit={unit}",
                    f"--lines={lines}",
                    "--boot",
                    "--quiet",
                    "--no-pager",
                    "--output=json",
                    "--output-fields=MESSAGE,_TRANSPORT",
                )
        return [entry for line in output.splitlines() if (entry := _entry(line)) is not None]

    async def _output(self, *arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            return await process.stdout.readexactly(_READ_BYTES)
        except asyncio.IncompleteReadError as error:
            return error.partial
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _entry(line: bytes) -> _Entry | None:
    try:
        return _ENTRY.validate_json(line)
    except ValidationError:
        return None  # cut off


def _is_its_own(entry: _Entry) -> bool:
    """Not one that systemd logged about it."""
    return entry.get("_TRANSPORT") in {"stdout", "syslog"}


def _message(entry: _Entry) -> str:
    match entry.get("MESSAGE"):
        case str(text):
            return text
        case list(numbers):
            return bytes(each for each in numbers if 0 <= each < 256).decode(errors="replace")
        case _:
            return "…"
