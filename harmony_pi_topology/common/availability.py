"""Whether a daemon can be used now: it is when it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import Availability

__all__ = ["availability_by"]


async def availability_by(*asks: Callable[[], Awaitable[None]]) -> Availability:
    """Call *asks* in turn. Report the first `CapabilityError` as the reason why it is not available."""
    try:
        for ask in asks:
            await ask()
    except CapabilityError as error:
        return Availability(available=False, reason=error.message)
    return Availability(available=True)
