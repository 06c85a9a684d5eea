"""The end of a log, as the end of a message."""

from __future__ import annotations

__all__ = ["LOG_TAIL_BYTES", "LOG_TAIL_LINES", "log_tail", "printable"]

LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 2048


def log_tail(log: bytes) -> str:
    """Return the last lines of *log*, as the end of a message: at most `LOG_TAIL_LINES`, and `LOG_TAIL_BYTES`
    of UTF-8.

    Nothing in them acts on the terminal that shows them.
    """
    lines = "\n".join(printable(log[-LOG_TAIL_BYTES:]).split("\n")[-LOG_TAIL_LINES:])
    # Cut again: what is no text has become longer.
    lines = lines.encode()[-LOG_TAIL_BYTES:].decode(errors="ignore")
    return f"; its last lines:\n{lines}" if lines else "; it has logged nothing"


def printable(log: bytes) -> str:
    """Return what was written as text that cannot control the terminal that shows it."""
    text = log.decode(errors="replace").rstrip("\n")
    return "".join(each if each.isprintable() or each in "\t\n" else "\ufffd" for each in text)
