"""Is a device heard? From its heartbeats, and from the server's word that one has ended.

A newer heartbeat beats an older end, however the two arrive: they come by two ways, of which each may be
the slower. Newer is what counts further, or is of another boot; and no end is believed that came before the
newest heartbeat could have ended, or of a device that is offline already.

A device that sends few heartbeats tells its vitals with some of them: until the next of those, the last ones
stand.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs

from harmony_control.bus.lifetimes import lifetime_of
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
    if newest.value.boot_id == beat.value.boot_id and beat.value.vitals is None:
        beat = attrs.evolve(beat, value=_with_vitals_of(newest, beat))
    return attrs.evolve(known, beat=beat, ended_at=None)


def _with_vitals_of(older: Reading[Heartbeat], newer: Reading[Heartbeat]) -> Heartbeat | None:
    if older.value is None or newer.value is None or older.value.vitals is None:
        return newer.value
    vitals, passed = older.value.vitals, newer.entry.written_at - older.entry.written_at
    if vitals.clock_ms is not None:
        # It is compared with when its heartbeat came.
        passed_ms = round(passed.total_seconds() * 1_000)
        vitals = attrs.evolve(vitals, clock_ms=vitals.clock_ms + passed_ms)
    return attrs.evolve(newer.value, vitals=vitals)


def end(known: Known, at: datetime, *, unsaid_s: float) -> Known:
    """Return what is known of a device once the server has said, *at* that time, that a heartbeat has ended.

    *unsaid_s*: for how long one counts that does not say.
    """
    if known.beat is None:
        return known if known.heard_at else attrs.evolve(known, ended_at=at)
    if at < known.beat.entry.written_at + lifetime_of(known.beat.entry, unsaid_s=unsaid_s) - _SAME:
        return known  # of an older one
    return attrs.evolve(known, ended_at=at)
