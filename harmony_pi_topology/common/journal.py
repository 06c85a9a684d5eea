"""What units and containers have logged, as `journalctl` tells it: a program that is called, as is tar for
volumes.

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
from harmony_core.logs import LogLine, LogStream, cut_line
from harmony_core.wire.times import read_microseconds

from .programs import run_program

__all__ = ["Journal", "JournalTail"]

JournalTail: TypeAlias = Callable[[str, int], Awaitable[str]]
"""(unit, lines) -> its last lines; empty when there are none, or when they cannot be had."""

_Entry: TypeAlias = dict[str, str | list[int] | None]
"""A text; or its bytes as numbers, where it is not UTF-8; or nothing, where it is too long."""
_ENTRY = TypeAdapter[_Entry](_Entry)

_WITHIN_S = 5.0
_LINES_WITHIN_S = 20.0
"""A large journal on an SD card is searched slowly, and here somebody waits for it."""
_READ_BYTES = 1024 * 1024
_LOOK_AGAIN_S = 0.2
_LOOKS_MOST = 5
_CALLED = ("--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,_PID,PRIORITY")
_WHOLE = "--all"
"""Without it, journalctl leaves out whatever is longer than 4 KiB."""
# Whoever may write to the journal may put any name into these fields, but for those with a _: what podman's
# own root process wrote counts, and nothing of Docker's, which has the same fields.
_BY_PODMAN = ("_UID=0", "_COMM=conmon")
_CURSOR = "s="
"""How a cursor of the journal begins."""


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
        """Return the last *lines* lines about *unit* since boot. Never raise; end within seconds.

        What a process wrote just before it died may arrive after the news of its death, and bit by bit: read
        again until there is nothing new.
        """
        return await self._tail((f"--unit={unit}", "--boot"), lines)

    async def container_tail(self, container_id: str, lines: int) -> str:
        """Return the last lines that the container of this id wrote, whenever that was; see `tail`."""
        return await self._tail((*_BY_PODMAN, f"CONTAINER_ID_FULL={container_id}"), lines)

    async def lines(
        self, unit: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> list[LogLine]:
        """Return the lines of the log of *unit*; see `harmony_core.logs.Logged.logs`.

        If there are too many bytes at once, return the newest lines as they are, and a hint in place of those
        that are long; with *after*, return the oldest lines: ask again for what follows.
        """
        entries = await self._newest_or_next((f"--unit={unit}",), lines, since, after)
        # journald does not say which of its two streams a unit wrote to.
        return _to_lines(entries, lambda each: "system" if each.get("_PID") == "1" else "out")

    async def container_lines(
        self,
        name: str,
        container_id: str,
        *,
        lines: int,
        since: datetime | None = None,
        after: str | None = None,
    ) -> list[LogLine]:
        """Return the lines of the container of this id, and of those that had *name* when they were started:
        a container that was made again has another id. See `lines`."""
        source = (
            *(*_BY_PODMAN, f"CONTAINER_NAME={name}", "+"),
            *(*_BY_PODMAN, f"CONTAINER_ID_FULL={container_id}"),
        )
        entries = await self._newest_or_next(source, lines, since, after)
        return _to_lines(entries, lambda each: "err" if each.get("PRIORITY") == "3" else "out")

    async def _tail(self, source: Sequence[str], lines: int) -> str:
        entries = await self._entries(source, lines)
        for _ in range(1, _LOOKS_MOST):
            await asyncio.sleep(_LOOK_AGAIN_S)
            before, entries = entries, await self._entries(source, lines)
            if entries == before:
                break
        return "\n".join(_message(entry) for entry in entries)

    async def _newest_or_next(
        self, source: Sequence[str], lines: int, since: datetime | None, after: str | None
    ) -> list[_Entry]:
        if after is not None and not after.startswith(_CURSOR):
            after = None  # of a log that was kept elsewhere
        # The order matters where it is cut off. From the cursor on, and not after it: where its entry is
        # gone, journalctl 252 (Debian 12) passes over the next one.
        which = [f"--cursor={after}"] if after else ["--reverse", f"--lines={lines}"]
        if since is not None and after is None:
            which.append(f"--since=@{since.timestamp():.6f}")
        try:
            async with asyncio.timeout(self._lines_within_s):
                output, status = await self._run_journalctl(*which, _WHOLE, *_CALLED, *source)
                whole = _by_cursor(output)
                if len(output) == _READ_BYTES and (after is None or whole.keys() <= {after}):
                    # One entry may be longer than all that is read: it must not be in the way of the others.
                    output, status = await self._run_journalctl(*which, *_CALLED, *source)
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
        entries = _by_cursor(output)
        entries.update((each, whole[each]) for each in whole.keys() & entries.keys())
        if after is None:
            return [*entries.values()][::-1]
        return [entry for cursor, entry in entries.items() if cursor != after][:lines]

    async def _entries(self, source: Sequence[str], lines: int) -> list[_Entry]:
        output = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._within_s):
                which = (f"--lines={lines}", *_CALLED, *source)
                output, _ = await self._run_journalctl(_WHOLE, *which)
                if len(output) == _READ_BYTES:
                    # What is cut off are the last of them: better all without the long ones.
                    output, _ = await self._run_journalctl(*which)
        return _list_entries(output)

    async def _run_journalctl(self, *arguments: str) -> tuple[bytes, int]:
        """Return the output and status of journalctl; 0 where it was cut off, because it had too much to
        say."""
        return await run_program([*self._command, *arguments], max_bytes=_READ_BYTES)


def _list_entries(output: bytes) -> list[_Entry]:
    return [entry for line in output.splitlines() if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> _Entry | None:
    try:
        return _ENTRY.validate_json(line)
    except ValidationError:
        return None  # cut off


def _by_cursor(output: bytes) -> dict[str, _Entry]:
    return {str(each["__CURSOR"]): each for each in _list_entries(output) if _is_whole(each)}


def _message(entry: _Entry) -> str:
    match entry.get("MESSAGE"):
        case str(text):
            return text.removesuffix("\n")
        case list(numbers):
            text = bytes(each for each in numbers if 0 <= each < 256).decode(errors="replace")
            return text.removesuffix("\n")
        case _:
            return "…"


def _is_whole(entry: _Entry) -> bool:
    at = entry.get("__REALTIME_TIMESTAMP")
    return isinstance(entry.get("__CURSOR"), str) and isinstance(at, str) and at.isdecimal()


def _to_lines(
    entries: Sequence[_Entry], find_stream: Callable[[_Entry], LogStream]
) -> list[LogLine]:
    return [
        LogLine(
            at=read_microseconds(int(str(entry["__REALTIME_TIMESTAMP"]))),
            text=cut_line(_message(entry)),
            stream=find_stream(entry),
            cursor=str(entry["__CURSOR"]),
        )
        for entry in entries
    ]
