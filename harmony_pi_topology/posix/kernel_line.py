"""The line that the kernel was booted with, word by word."""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_kernel_words"]


def read_kernel_words(proc: Path) -> tuple[str, ...]:
    """Return the words of cmdline in *proc*, the device's /proc; none where it cannot be read."""
    try:
        return tuple((proc / "cmdline").read_text("utf-8", errors="replace").split())
    except OSError:
        return ()
