"""Whether this device's clock may be held against what somebody else's says.

A Raspberry Pi has no clock that runs without power: until a time server was asked it may be any time, and
then nothing may be refused because of it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_set_by_a_time_server"]

_SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
"""Made by systemd-timesyncd once it has set the clock, and gone with the next boot."""


def is_set_by_a_time_server() -> bool:
    """Return whether systemd-timesyncd has set the clock since boot; False where another does that."""
    return _SYNCHRONIZED.exists()
