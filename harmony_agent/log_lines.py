"""The agent's own log: what others wrote in it never begins a line, steers a terminal or hides.

    a record                        -> one line, its line ends and control characters written out
    an error of a record            -> its frames, and one line of what each error of its chain says
    what is told past the log       -> into the log: warnings, and errors that nobody has caught

The journal takes each line of standard error as an entry of its own, and a line that is too long as several:
a container could write entries in the name of the agent. So every line is escaped and cut here, at the one
handler, whoever logs it.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO, cast

from harmony_core.visible import word

__all__ = ["LINE_MAX_BYTES", "LogLines", "begin_logging"]

LINE_MAX_BYTES = 8 * 1024
"""The journal cuts a line at 48 KiB (LineMax= in journald.conf(5))."""
_INDENT = "  "
_FRAMES_MOST = 30
"""Of a recursion without end, those next to where it was raised."""

log = logging.getLogger(__name__)


class LogLines(logging.Formatter):
    """Formats every record so. The journal adds time and unit itself."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [f"{record.levelname} {record.getMessage()}"]
        if record.exc_info and record.exc_info[1] is not None:
            lines += (_INDENT + line for line in _describe(record.exc_info[1], set()))
        return "\n".join(_cut(word(line)) for line in lines)


def begin_logging(stream: TextIO, *, verbose: bool) -> None:
    """Log to *stream*, and have everything logged that Python itself would write to standard error."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLines())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = threading.excepthook = _log_found


def _log_found(found: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> None:
    _log_uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, _: TracebackType | None
) -> None:
    log.critical("nobody has caught %s", kind.__name__, exc_info=error)


def _describe(error: BaseException, described: set[int]) -> Iterator[str]:
    """Yield the lines of a traceback: what led to *error* before it, the parts of a group after it."""
    described.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in described:
        yield from _describe(before, described)
        yield "which led to:"
    for frame in traceback.extract_tb(error.__traceback__, limit=-_FRAMES_MOST):
        yield f'File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line}'
    yield "".join(traceback.format_exception_only(error)).rstrip("\n")
    for part in _parts(error):
        if id(part) not in described:
            yield from (_INDENT + line for line in _describe(part, described))


def _parts(error: BaseException) -> tuple[BaseException, ...]:
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions


def _cut(line: str) -> str:
    whole = line.encode()
    if len(whole) <= LINE_MAX_BYTES:
        return line
    return f"{whole[:LINE_MAX_BYTES].decode(errors='ignore')}… ({len(whole)} bytes)"
