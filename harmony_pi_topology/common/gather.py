"""Doing one step for many things at once, each with its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

__all__ = ["gather_results"]

T = TypeVar("T")
U = TypeVar("U")


async def gather_results(
    items: Sequence[T | Exception], step: Callable[[T], Awaitable[U]]
) -> list[U | Exception]:
    """*step* of each item, side by side, in order. An error is its item's answer, and is passed on."""

    async def one(item: T | Exception) -> U | Exception:
        if isinstance(item, Exception):
            return item
        try:
            return await step(item)
        except Exception as error:  # noqa: BLE001 - one item's error does not stop the others
            return error

    return await asyncio.gather(*map(one, items))
