"""Back-off of repairs of what somebody keeps changing: each one waits twice as long as the last.

The first drift is put right at once. If it comes back within ten minutes, it is a repeat offender: the
wait grows from 1 s to 5 min, and is forgotten after ten minutes without drift. Only the repair waits:
looking, and telling what was seen, does not. What a person asks for is done at once.

Kept below /run, so that an agent that is killed waits as long afterwards, and nothing is written to
disk. The clock is the kernel's monotonic one: the same for every process, until the device is switched off.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import attrs

from harmony_agent.backoff import Backoff

__all__ = ["DriftBackoff"]

log = logging.getLogger(__name__)

QUIET_PERIOD_S = 600.0
_WAIT = Backoff(first_s=1.0, most_s=300.0)
REPEAT_OFFENDER_REPAIRS = 3
"""After so many repairs in a row, a condition tells of it."""


@attrs.frozen
class _Repairs:
    last: float
    count: int
    is_insisted: bool = False
    """Whether somebody has asked for the next repair: it does not wait."""


class DriftBackoff:
    """All times are seconds of one monotonic clock. *path* is where it is kept; None for nowhere."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._repairs: dict[str, _Repairs] = {}

    def recall(self, now: float) -> None:
        """Continue with what the last process has left, if it can be read."""
        if self._path is None or not self._path.exists():
            return
        try:
            kept = json.loads(self._path.read_text("utf-8"))
            for score, (last, count) in kept.items():
                if last <= now:
                    self._repairs[score] = _Repairs(float(last), int(count))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning(
                "%s cannot be read, and repairs wait as if there had been none: %s",
                self._path,
                error,
            )

    def record_repair(self, score: str, now: float) -> None:
        """Record that drift of *score* was repaired."""
        before = self._repairs.get(score)
        count = before.count + 1 if before and now - before.last < QUIET_PERIOD_S else 1
        self._repairs[score] = _Repairs(now, count)
        self._keep()

    def wait_s(self, score: str, now: float) -> float:
        """Return how many seconds a repair of *score* has to wait from *now*."""
        repairs = self._repairs.get(score)
        if repairs is None or repairs.is_insisted:
            return 0.0
        if now - repairs.last >= QUIET_PERIOD_S or repairs.count < 2:
            return 0.0
        due = repairs.last + _WAIT.wait_s(repairs.count - 2)
        return max(0.0, due - now)

    def insist(self, score: str) -> None:
        """Let the next repair of *score* begin without a wait."""
        if (repairs := self._repairs.get(score)) is not None:
            self._repairs[score] = attrs.evolve(repairs, is_insisted=True)

    def insist_everywhere(self) -> None:
        """Let the next repair of each Score begin without a wait."""
        for score in list(self._repairs):
            self.insist(score)

    def repeat_offenders(self, now: float) -> dict[str, int]:
        """Return the Scores that somebody changes again and again, with the number of repairs."""
        return {
            score: each.count
            for score, each in self._repairs.items()
            if each.count >= REPEAT_OFFENDER_REPAIRS and now - each.last < QUIET_PERIOD_S
        }

    def forget(self, score: str) -> None:
        if self._repairs.pop(score, None) is not None:
            self._keep()

    def _keep(self) -> None:
        if self._path is None:
            return
        kept = {score: (each.last, each.count) for score, each in self._repairs.items()}
        try:
            self._path.write_text(json.dumps(kept), "utf-8")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
