"""Is a device heard? From its heartbeats, and from the server's word that one has ended.

A newer heartbeat beats an older end, however the two arrive: they come by two ways, of which each may be
the slower. Newer is what counts further, or is of another boot; and no end is believed that came before the
newest heartbeat could have ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs

from harmony_control.bus.reports import Known, Reading
from harmony_core.wire.actual_state import Heartbeat

__all__ = ["end", "hear"]

_SAME = timedelta(seconds=0.5)
"""One time is told in different precision, depending on how it was asked for."""


def hear(known: Known, beat: Reading[Heartbeat]) -> Known:
    """Return what is known of a device once *beat* has come."""
    newest = known.beat
    if newest is None or newest.value is None or beat.value is None:
        return attrs.evolve(known, beat=beat, ended_at=None)
    if newest.value.boot_id == beat.value.boot_id and newest.value.counter >= beat.value.counter:
        return known
    return attrs.evolve(known, beat=beat, ended_at=None)


def end(known: Known, at: datetime, *, age: timedelta) -> Known:
    """Return what is known of a device once the server has said, *at* that time, that a heartbeat has ended.

    *age*: for how long the server keeps one.
    """
    if known.beat is not None and at < known.beat.entry.written_at + age - _SAME:
        return known  # of an older one
    return attrs.evolve(known, ended_at=at)
