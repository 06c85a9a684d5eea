"""What units have logged, as `journalctl` tells it: a program that is called, as is tar for volumes.

journald has no interface on a bus, and its library none in Python that a small device should carry. It is
called once for each failure that is told, and again and again only while a person reads on; it is never
left running, and its time and bytes are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from harmony_core.errors import CapabilityUnavailable, TimedOut
from harmony_core.logs import LogLine, cut_line
from harmony_core.wire.times import read_microseconds

__all__ = ["Journal", "JournalTail"]

JournalTail: TypeAlias = Callable[[str, int], Awaitable[str]]
"""(unit, lines) -> its last lines; empty when there are none, or when they cannot be had."""

_Entry: TypeAlias = dict[str, str | list[int] | None]
"""A text; or its bytes as numbers, where it is not UTF-8; or nothing, where it is too long."""
_ENTRY = TypeAdapter[_Entry](_Entry)

_WITHIN_S = 5.0
_LINES_WITHIN_S = 20.0
"""A large journal on an SD card is searched slowly, and here somebody waits for it."""
_READ_BYTES = 256 * 1024
_LOOK_AGAIN_S = 0.2
_LOOKS_MOST = 5
_CALLED = ("--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,_PID")


class Journal:
    """This machine's journal. *command* is how `journalctl` is called here."""

    def __init__(
        self,
        command: Sequence[str] = ("journalctl",),
        *,
        within_s: float = _WITHIN_S,
        lines_within_s: float = _LINES_WITHIN_S,
    ) -> None:
        self._command = command
        self._within_s = within_s
        self._lines_within_s = lines_within_s

    async def tail(self, unit: str, lines: int) -> str:
        """Return the last *lines* lines about *unit* since boot. Never raises; ends within seconds.

        What a process wrote just before it died may arrive after the news of its death, and much of it by
        and by: so it is looked at again, until there is nothing new.
        """
        entries = await self._entries(unit, lines)
        for _ in range(1, _LOOKS_MOST):
            await asyncio.sleep(_LOOK_AGAIN_S)
            before, entries = entries, await self._entries(unit, lines)
            if entries == before:
                break
        return "\n".join(_message(entry) for entry in entries)

    async def lines(
        self, unit: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> list[LogLine]:
        """As `harmony_core.logs.Logged.logs`. Of too many bytes at once, the newest are told, or, with
        *after*, the oldest: what follows them is had by asking again."""
        # The order matters where it is cut off.
        which = [f"--after-cursor={after}"] if after else ["--reverse", f"--lines={lines}"]
        if since is not None and after is None:
            which.append(f"--since=@{since.timestamp():.6f}")
        try:
            async with asyncio.timeout(self._lines_within_s):
                output, status = await self._run_journalctl(f"--unit={unit}", *which, *_CALLED)
        except TimeoutError:
            raise TimedOut(
                f"journalctl did not end within {self._lines_within_s:g} s; ask for less, or make the "
                "journal smaller (journalctl --vacuum-size=)"
            ) from None
        except OSError as error:
            raise CapabilityUnavailable(
                f"journalctl cannot be called: {error.strerror}; is it installed?"
            ) from error
        if status:
            raise CapabilityUnavailable(f"journalctl failed (status {status}); ask anew")
        entries = [entry for line in output.splitlines() if (entry := _entry(line)) is not None]
        told = [line for entry in entries if (line := _line(entry)) is not None]
        return told[:lines] if after else told[::-1]

    async def _entries(self, unit: str, lines: int) -> list[_Entry]:
        output = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._within_s):
                output, _ = await self._run_journalctl(
                    f"--unit={unit}", f"--lines={lines}", "--boot", *_CALLED
                )
        return [entry for line in output.splitlines() if (entry := _entry(line)) is not None]

    async def _run_journalctl(self, *arguments: str) -> tuple[bytes, int]:
        """Its output and status; 0 where it was cut off, because it had too much to say."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            return await process.stdout.readexactly(_READ_BYTES), 0
        except asyncio.IncompleteReadError as error:
            return error.partial, await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _entry(line: bytes) -> _Entry | None:
    try:
        return _ENTRY.validate_json(line)
    except ValidationError:
        return None  # cut off


def _message(entry: _Entry) -> str:
    match entry.get("MESSAGE"):
        case str(text):
            return text
        case list(numbers):
            return bytes(each for each in numbers if 0 <= each < 256).decode(errors="replace")
        case _:
            return "…"


def _line(entry: _Entry) -> LogLine | None:
    cursor, at = entry.get("__CURSOR"), entry.get("__REALTIME_TIMESTAMP")
    if not isinstance(cursor, str) or not isinstance(at, str) or not at.isdecimal():
        return None
    return LogLine(
        at=read_microseconds(int(at)),
        text=cut_line(_message(entry)),
        # journald does not say which of its two streams a unit wrote to.
        stream="system" if entry.get("_PID") == "1" else "out",
        cursor=cursor,
    )
