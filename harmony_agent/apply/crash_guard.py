"""A Score whose code kills the agent must not do so for ever.

While a Score's own code holds the event loop, its id stands in a small shared-memory file below /run:
no system call a step, and it is still there after SIGKILL, a watchdog's abort or a crash in C. Whoever
stands there at the next start has one kill more; three, and it is `Poisoned` until its spec changes. An
interpretation that ends, well or badly, clears the count. A reboot clears everything.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import types
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

from harmony_core.errors import Poisoned

__all__ = ["CrashGuard"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_KILLS = 3
_SLOT_BYTES = 256
_NOBODY = bytes(_SLOT_BYTES)


class CrashGuard:
    """Who was running when the agent was killed, and how often. Open once, at start."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._counts_path = directory / "kills.json"
        self._kills: dict[str, int] = _read_counts(self._counts_path)
        self._slot = _open_slot(directory / "running")
        if suspect := self._slot[:].rstrip(b"\0").decode(errors="replace"):
            self._kills[suspect] = self._kills.get(suspect, 0) + 1
            self._write_counts()
            self._slot[:] = _NOBODY

    @property
    def suspects(self) -> frozenset[str]:
        """The ids of Scores that were running when the agent was killed: interpret these last."""
        return frozenset(key.partition(" ")[0] for key in self._kills)

    def check(self, score_id: str, spec_hash: str) -> None:
        """Raise `Poisoned` for a Score that has killed the agent too often with this very spec."""
        if self._kills.get(f"{score_id} {spec_hash}", 0) >= MOST_KILLS:
            raise Poisoned(
                f"interpreting this Score has ended the agent {MOST_KILLS} times; "
                "it is not tried again until its spec changes. Look at its package's code"
            )

    @types.coroutine
    def guard(
        self, score_id: str, spec_hash: str, work: Coroutine[Any, Any, T]
    ) -> Generator[Any, Any, T]:
        """Await *work*, with the Score's id in the slot whenever its code runs."""
        mark = f"{score_id} {spec_hash}".encode().ljust(_SLOT_BYTES, b"\0")
        thrown: BaseException | None = None
        while True:
            self._slot[:] = mark
            try:
                awaited = work.send(None) if thrown is None else work.throw(thrown)
            except StopIteration as end:
                result: T = end.value
                break
            finally:
                self._slot[:] = _NOBODY
            try:
                thrown = None
                yield awaited  # what comes back is always None: a future keeps its result to itself
            except BaseException as error:  # noqa: BLE001 - cancellation too is the coroutine's to handle
                thrown = error
        self.clear(score_id, spec_hash)
        return result

    def clear(self, score_id: str, spec_hash: str) -> None:
        """Forget the suspicion against *score_id*: its run ended by itself."""
        if self._kills.pop(f"{score_id} {spec_hash}", None) is not None:
            self._write_counts()

    def _write_counts(self) -> None:
        try:
            self._counts_path.write_text(json.dumps(self._kills), "utf-8")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._counts_path, error)


def _open_slot(path: Path) -> mmap.mmap:
    try:
        with path.open("ab+") as file:
            # With its room taken now: to write into a mapped page for which there is none is a SIGBUS.
            os.posix_fallocate(file.fileno(), 0, _SLOT_BYTES)
            file.truncate(_SLOT_BYTES)
            return mmap.mmap(file.fileno(), _SLOT_BYTES)
    except OSError as error:
        log.warning("%s cannot be used, and kills are not counted: %s", path, error)
        return mmap.mmap(-1, _SLOT_BYTES)


def _read_counts(path: Path) -> dict[str, int]:
    try:
        counts: dict[str, int] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return counts
