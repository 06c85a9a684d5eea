"""For how long a heartbeat counts: as it says itself, in bounds that hold for all.

It says so in a header of NATS, by which the server drops it in time, and announces that. The server alone
keeps the upper bound but for one word: a heartbeat with the lifetime ``never`` it would keep for ever. So
what is no number of seconds is read as if nothing was said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = [
    "LIFETIME_HEADER",
    "LIFETIME_LEAST_S",
    "LIFETIME_MOST_S",
    "compute_lifetime_s",
    "find_lifetime_s",
]

LIFETIME_HEADER = "Nats-TTL"
LIFETIME_LEAST_S = 90.0
"""Of a heartbeat that does not say: older agents send one every 30 s."""
LIFETIME_MOST_S = 1_800.0
_INTERVALS = 3
"""So many heartbeats must be missing."""
_SECONDS = re.compile(r"[0-9]{1,9}")


def compute_lifetime_s(interval_s: float) -> int:
    """Return for how many seconds a heartbeat counts if the next one follows after *interval_s*."""
    return math.ceil(min(max(_INTERVALS * interval_s, LIFETIME_LEAST_S), LIFETIME_MOST_S))


def find_lifetime_s(headers: Mapping[str, str] | None) -> float | None:
    """Return the lifetime in these headers of a heartbeat, at most `LIFETIME_MOST_S`; None where there is
    none."""
    said = (headers or {}).get(LIFETIME_HEADER, "")
    return min(float(said), LIFETIME_MOST_S) if _SECONDS.fullmatch(said) else None
