"""Doing one step for many things at once, each with its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from harmony_core.change import Change
from harmony_core.errors import CapabilityError

__all__ = ["copy_error", "gather_results", "require_changes", "say_of", "say_whose"]

T = TypeVar("T")
U = TypeVar("U")
ErrorT = TypeVar("ErrorT", bound=CapabilityError)


async def gather_results(
    items: Sequence[T | Exception], step: Callable[[T], Awaitable[U]]
) -> list[U | Exception]:
    """Return what *step* makes of each item, side by side, in order.

    An error is its item's answer, and is passed on.
    """

    async def one(item: T | Exception) -> U | Exception:
        if isinstance(item, Exception):
            return item
        try:
            return await step(item)
        except Exception as error:  # noqa: BLE001 - one item's error does not stop the others
            return error

    return await asyncio.gather(*map(one, items))


def say_whose(result: Change | Exception, resource: str) -> Change | Exception:
    """Return *result*; an error that names no resource, as a copy that names *resource*.

    A copy, since several resources may have met the very same error.
    """
    if isinstance(result, CapabilityError) and result.resource is None:
        result = copy_error(result)
        result.resource = resource
    return result


def say_of(error: CapabilityError, resource: str) -> CapabilityError:
    """Return *error* as that of *resource*, whatever it was met at on the way."""
    told = copy_error(error)
    told.resource = resource
    return told


def require_changes(results: Sequence[Change | Exception]) -> Sequence[Change]:
    """Return *results*, or raise the first error among them."""
    changes: list[Change] = []
    for each in results:
        if isinstance(each, Exception):
            raise each
        changes.append(each)
    return changes


def copy_error(error: ErrorT) -> ErrorT:
    """Return an equal error of the same type, whatever that is made with: `copy.copy` would call it anew with
    its message alone, which is not enough for a `DidNotStick`."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin
