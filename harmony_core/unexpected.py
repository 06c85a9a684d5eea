"""Whatever is raised becomes one of Harmony's own errors, so that it can be told, and tried again.

HarmonyError -> itself      anything else -> InternalError: what it was, and where it was raised

Whose an error is, is said here too: whoever asked for something of one resource names it, and an error that
names none is copied and names that one. Several resources may have met the same error; each has its own copy.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import ParamSpec, TypeVar, cast

from .errors import HarmonyError, InternalError

__all__ = ["as_harmony_error", "is_cancelled_by_others", "leaves_of", "place_of", "without_exit"]

P = ParamSpec("P")
T = TypeVar("T")


def as_harmony_error(error: BaseException, *, resource: str | None = None) -> HarmonyError:
    """Return *error* itself if it is one of Harmony's, else the `InternalError` that it caused.

    Where it names no resource, return a copy that names *resource*, the id of what was asked for.
    """
    if isinstance(error, HarmonyError):
        if resource is None or error.resource is not None:
            return error
        return error.with_resource(resource)
    found = InternalError(
        f"{type(error).__name__}: {error}{place_of(error)}; a defect of Harmony, or of what stands behind "
        "the capability; it is tried again, see also: journalctl -u harmony-agent",
        resource=resource,
    )
    found.__cause__ = error
    return found


async def without_exit(call: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Await ``call(*args)``, which may be foreign code.

    Turn what would end the process, or only looks like a cancellation, into an `InternalError` like any
    other.
    """
    try:
        return await call(*args, **kwargs)
    except asyncio.CancelledError as error:
        if is_cancelled_by_others():
            raise
        raise as_harmony_error(error) from error
    except SystemExit as error:
        raise as_harmony_error(error) from error


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, or the errors of which it is a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves_of(each)
    else:
        yield error


def place_of(error: BaseException) -> str:
    """Return where *error* was raised, as ``" (line N of FILE)"``; empty when that is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""


def is_cancelled_by_others() -> bool:
    """Return whether somebody asked for the cancellation that is passing through the current task.

    Otherwise what was awaited cancelled itself: that is an error like any other, and nobody wanted this task
    to end.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
