"""This device's own report on the bus, as it is known to stand there, over all connections of one run.

sent -> acknowledged at a revision -> found again at that one, or a lower one: the server lost its newest
                                   -> at a higher one, with what was sent: the acknowledgement was lost
                                   -> at a higher one, with anything else: somebody has written over it
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from enum import Enum

from harmony_core.wire.device_signature import ACTUAL_STATE_TYPE, is_signed_by
from harmony_core.wire.envelope import SigningKey

__all__ = ["OwnReport", "Writer"]

_UNACKNOWLEDGED_MOST = 64
_COUNTER = re.compile(rb'"counter":[0-9]+')


class Writer(Enum):
    """Who has written over this device's report."""

    STRANGER = "somebody without this device's key"
    COPY = "somebody with this device's key"


class OwnReport:
    """Knows what was reported by this process, and what stands there instead."""

    def __init__(self, key: SigningKey) -> None:
        self.revision = 0
        """On which the next report builds."""
        self.value: bytes | None = None
        """What stands there; None for nothing."""
        self._is_ours = False
        self._public = key.public.public
        self._is_known = False
        self._sent: deque[bytes] = deque(maxlen=_UNACKNOWLEDGED_MOST)

    @property
    def is_ours(self) -> bool:
        """Whether this device has signed what stands there, in this run or an earlier one."""
        return self._is_ours

    def is_current(self, value: bytes) -> bool:
        """Return whether this device has already reported *value*, apart from its counter."""
        return (
            self._is_ours
            and self.value is not None
            and _without_counter(self.value) == _without_counter(value)
        )

    def note_sent(self, value: bytes) -> None:
        """Note that *value* is being sent."""
        self._sent.append(_digest(value))

    def note_acknowledged(self, value: bytes, revision: int) -> None:
        """Note that *value* is stored, at *revision*."""
        self.value, self.revision, self._is_known = value, revision, True
        self._is_ours = True
        self._sent.clear()

    def note_found(self, value: bytes | None, revision: int, signature: str) -> Writer | None:
        """Note that *value* was read, at *revision*. Return who else has written it; None for nobody.

        A value from before this process wrote anything is by an earlier one, or by an unknown writer.
        """
        is_newer = self._is_known and revision > self.revision
        self.value, self.revision, self._is_known = value, revision, True
        self._is_ours = value is not None and is_signed_by(
            self._public, ACTUAL_STATE_TYPE, value, signature
        )
        if not is_newer or (value is not None and _digest(value) in self._sent):
            return None
        return Writer.COPY if self._is_ours else Writer.STRANGER


def _without_counter(value: bytes) -> bytes:
    # The first: it stands before whatever others may have named.
    return _COUNTER.sub(b"", value, count=1)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
