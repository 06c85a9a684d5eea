"""Text in a unit file, such that it arrives as it was written.

systemd expands ``%`` everywhere and ``$`` in commands, and takes quotes and backslashes in its own sense
(systemd.syntax(7), systemd.service(5)).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["command_line", "escape_specifiers", "quote", "script"]


def script(text: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs *text* with sh, with *words* as ``$1`` and so on; it ends where anything
    fails.

    It sets the language to C: a device has a language of its own, and the script has to read what programs
    answer.
    """
    return ("/bin/sh", "-eu", "-c", f"export LC_ALL=C\n{text}", "sh", *words)


def command_line(command: Sequence[str]) -> str:
    """Return *command* for ``ExecStart=``. The program's path has only plain characters."""
    program, *arguments = command
    return " ".join([program, *(quote(each.replace("$", "$$")) for each in arguments)])


def quote(text: str) -> str:
    """Return *text* as one word, with quotes around it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escape_specifiers(escaped)}"'


def escape_specifiers(text: str) -> str:
    """Return *text* such that systemd's expansion of ``%`` gives it back."""
    return text.replace("%", "%%")
