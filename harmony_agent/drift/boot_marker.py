"""Which Scores were found in order since the device was switched on.

Kept below /run, so that nothing is written to disk, an agent that starts anew knows it still, and a reboot
forgets it.
"""

from __future__ import annotations

import logging
from pathlib import Path

__all__ = ["BootMarker"]

log = logging.getLogger(__name__)


class BootMarker:
    """One line a Score."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / "in-order"
        self._scores = set[str]()
        if self._path.exists():
            self._scores.update(self._path.read_text("utf-8").split())

    def __contains__(self, score: str) -> bool:
        return score in self._scores

    def add(self, score: str) -> None:
        """Record that *score* was found in order."""
        if score in self._scores:
            return
        self._scores.add(score)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{score}\n")
        except OSError as error:
            log.warning(
                "%s cannot be written: %s", self._path, error
            )  # then a restart counts as a boot
