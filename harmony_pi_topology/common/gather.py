"""Doing one step for many things at once, each with its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from harmony_core.change import Change
from harmony_core.errors import CapabilityError

__all__ = ["gather_results", "name_resource", "require_changes"]

T = TypeVar("T")
U = TypeVar("U")


async def gather_results(
    items: Sequence[T | Exception], step: Callable[[T], Awaitable[U]]
) -> list[U | Exception]:
    """Return the result of *step* for each item, in order; all run at the same time.

    An error is the result of its item, and is returned.
    """

    async def one(item: T | Exception) -> U | Exception:
        if isinstance(item, Exception):
            return item
        try:
            return await step(item)
        except Exception as error:  # noqa: BLE001 - one item's error does not stop the others
            return error

    return await asyncio.gather(*map(one, items))


def name_resource(result: Change | Exception, resource: str) -> Change | Exception:
    """Return *result*; an error that names no resource, as a copy that names *resource*, an id."""
    if isinstance(result, CapabilityError) and result.resource is None:
        return result.with_resource(resource)
    return result


def require_changes(results: Sequence[Change | Exception]) -> Sequence[Change]:
    """Return *results*, or raise the first error among them."""
    changes: list[Change] = []
    for each in results:
        if isinstance(each, Exception):
            raise each
        changes.append(each)
    return changes
