"""Text in a unit file, such that it arrives as it was written.

systemd expands ``%`` everywhere and ``$`` in commands, and takes quotes and backslashes in its own sense
(systemd.syntax(7), systemd.service(5)).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["command_line", "escape_specifiers", "quote", "script"]


def script(text: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs *text* with sh, as ``$1`` and so on with *words*; it ends where anything
    fails.

    A device has a language of its own, in which programs answer; the script is to read what they say.
    """
    return ("/bin/sh", "-eu", "-c", f"export LC_ALL=C\n{text}", "sh", *words)


def command_line(command: Sequence[str]) -> str:
    """Return *command* as ``ExecStart=`` has it. The program's path has only plain characters."""
    program, *arguments = command
    return " ".join([program, *(quote(each.replace("$", "$$")) for each in arguments)])


def quote(text: str) -> str:
    """Return *text* as one word, with quotes around it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escape_specifiers(escaped)}"'


def escape_specifiers(text: str) -> str:
    """Return *text* such that systemd's expansion of ``%`` gives it back."""
    return text.replace("%", "%%")
