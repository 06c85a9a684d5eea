"""The clocks: the loop's for how long, the device's for when; and whether the latter may be believed.

A Raspberry Pi has no clock that runs without power: until a time server was asked it may be any time, and
then nothing may be refused because of it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harmony_core.wire.times import rfc3339

__all__ = ["find_zone", "is_set_by_a_time_server", "monotonic_s", "timestamp", "wait_until"]

_TICK_S = 1e-6
"""More than the resolution of any clock that a loop goes by."""
_SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
"""Made by systemd-timesyncd once it has set the clock, and gone with the next boot."""


def monotonic_s() -> float:
    """Return the running loop's time in seconds: for waits and durations, since nobody sets it."""
    return asyncio.get_running_loop().time()


async def wait_until(event: asyncio.Event, *, latest_s: float | None) -> bool:
    """Wait for *event* until *latest_s* on the loop's clock; None is for ever. Return whether it came.

    Where it did not, it is *latest_s* or later.
    """
    try:
        async with asyncio.timeout_at(latest_s):
            return await event.wait()
    except TimeoutError:
        # A loop lets timers end too early by the resolution of its clock. Whoever then looked whether it is
        # time would wait anew, and on a clock that goes on only while nobody has anything to do, for ever.
        if latest_s is not None and monotonic_s() < latest_s:
            await asyncio.sleep(_TICK_S)
        return False


def find_zone() -> object:
    """Return what distinguishes the time zone of the operating system now from any other; read again each
    time."""
    time.tzset()  # a process does not look by itself whether another was set
    return time.timezone, time.altzone, time.tzname


def timestamp(*, in_s: float = 0.0) -> str:
    """Return the device's time, or what it will be in *in_s* seconds, as RFC 3339 in UTC."""
    return rfc3339(datetime.now(UTC) + timedelta(seconds=in_s))


def is_set_by_a_time_server() -> bool:
    """Return whether systemd-timesyncd has set the clock since boot; False where another program does
    that."""
    try:
        return _SYNCHRONIZED.exists()
    except OSError:  # then nobody knows, and nothing is refused because of it
        return False
