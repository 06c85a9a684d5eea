"""Back-off: whoever fails waits twice as long each time, up to a maximum; and not all at the same moment."""

from __future__ import annotations

import random

import attrs

__all__ = ["Backoff"]

_DOUBLINGS_MOST = 32
"""Far beyond any most; a float does not double for ever."""


@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait after a failure."""

    first_s: float
    most_s: float
    jitter: float = 0.0
    """By how large a part a wait is shorter or longer at random: a fleet must not come back all at once."""

    def wait_s(self, failures: int) -> float:
        """Return how many seconds to wait after *failures* in a row."""
        doubled_s = self.first_s * 2.0 ** min(failures, _DOUBLINGS_MOST)
        return min(self.most_s, doubled_s) * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - spread
