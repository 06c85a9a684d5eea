"""Asking a person before what cannot be taken back."""

from __future__ import annotations

import asyncio
import sys

from harmony_core.errors import UsageError

__all__ = ["confirm"]


async def confirm(question: str) -> bool:
    """Return whether the person at the terminal says yes. Raise `UsageError` where there is no terminal."""
    if not sys.stdin.isatty():
        raise UsageError("this is not a terminal, so nobody can be asked: pass --yes to confirm")
    answer = await asyncio.to_thread(input, f"{question} [y/N] ")
    return answer.strip().lower() in {"y", "yes"}
