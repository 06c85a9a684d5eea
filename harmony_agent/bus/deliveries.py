"""Our desired state, as it comes: hints that carry the whole value, and what is fetched to be sure.

    connected           -> fetched  \\
    every 30 min or so  -> fetched   >- stream() -> whoever accepts manifests -> wrong? -> doubt()
    a hint              ------------/                                                        |
    a new root document is hinted -> before all others, once a second at the most             |
                            ^------- no sooner than a breath later; and a fetch, once a minute

A hint can be lost, or be anybody's: only what is fetched says what stands there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Protocol

import attrs

from harmony_agent.clock import monotonic_s, wait_until
from harmony_core.errors import BusUnreachable

__all__ = ["Deliveries", "Delivery"]

log = logging.getLogger(__name__)

RESYNC_S = 30 * 60.0
SITE_RESYNC_S = 5 * 60.0
"""Behind the server of a site, which may have lost the fleet's for a moment while something was pushed."""
DOUBT_S = 60.0
_FETCH_AGAIN_S = 5.0
_BREATH_S = 0.05
_ROOT_HINTS_APART_S = 1.0
_HINTED_BYTES_PER_S = 1024 * 1024
"""Of hints that turn out wrong; who sends much of that costs us little."""


@attrs.frozen(kw_only=True)
class Delivery:
    """A value of our desired-state key, or that there is none (``envelope`` None: no instruction).

    Only what was fetched can be an error; a hint that proves wrong is dropped.
    """

    envelope: bytes | None = None
    fetched: bool = False
    is_root_hint: bool = False
    """Whether it says only that there may be a newer root document."""


class Source(Protocol):
    """Where our key can be fetched: `harmony_agent.bus.connection.Bus`."""

    async def fetch_desired(self) -> bytes | None:
        """Return our key's value, None where there is none. Raises `BusUnreachable`."""
        ...


class Deliveries:
    """Knows what has come, what is to be fetched, and when. All times are on the loop's clock."""

    def __init__(self, slowness: float = 1.0) -> None:
        """Fetch without need *slowness* times less often."""
        self._slowness = slowness
        self._source: Source | None = None
        self._fetched: Delivery | None = None
        self._hint: bytes | None = None
        self._hinted_bytes = 0
        self._hints_from = 0.0
        """Until then no hint is looked at: the last ones were wrong."""
        self._is_root_hinted = False
        self._root_hints_from = 0.0
        self._fetch_at = 0.0
        self._again_in_s: float | None = None
        self._resync_s = RESYNC_S
        self._doubted_at = -DOUBT_S
        self._woken = asyncio.Event()
        self._answered = asyncio.Event()

    def connect(
        self,
        source: Source,
        fetched: bytes | None,
        *,
        again_in_s: float | None = None,
        resync_s: float = RESYNC_S,
    ) -> None:
        """Fetch from *source* from now on; *fetched* was already fetched there.

        With *again_in_s*, it may be old although nothing newer is hinted: fetch once more after that many
        seconds.
        """
        self._source = source
        self._again_in_s = again_in_s
        self._resync_s = resync_s
        self._fetched = Delivery(envelope=fetched, fetched=True)
        self._woken.set()

    def disconnect(self) -> None:
        """Fetch nothing until there is a connection again."""
        self._source = None

    def hint(self, envelope: bytes) -> None:
        """Take what was pushed to us; a newer one replaces an older one."""
        self._hint = envelope
        self._woken.set()

    def hint_root(self) -> None:
        """Check whether there is a newer root document: what comes after it may need that one."""
        self._is_root_hinted = True
        self._woken.set()

    async def stream(self) -> AsyncIterator[Delivery]:
        """Yield our desired state, newest only: as it is pushed, and as it is fetched. Never end."""
        while True:
            await self._until_due()
            if (fetched := self._fetched) is not None:
                self._fetched = None
                self._schedule_resync()
                if self._again_in_s is not None:
                    self._fetch_at = monotonic_s() + self._again_in_s
                yield fetched
                self._answered.set()
            elif self._is_root_hinted and monotonic_s() >= self._root_hints_from:
                self._is_root_hinted = False
                self._root_hints_from = monotonic_s() + _ROOT_HINTS_APART_S
                yield Delivery(is_root_hint=True)
            elif (hint := self._hint) is not None and monotonic_s() >= self._hints_from:
                self._hint, self._hinted_bytes = None, len(hint)
                yield Delivery(envelope=hint, fetched=False)
            elif self._source is not None:
                self._schedule_resync()
                try:
                    yield Delivery(envelope=await self._source.fetch_desired(), fetched=True)
                    self._answered.set()
                except BusUnreachable as error:
                    log.info("%s", error.message)
                    self._fetch_at = monotonic_s() + _FETCH_AGAIN_S

    async def first_answer(self, *, within_s: float) -> None:
        """Wait until our desired state was fetched and dealt with once, or *within_s* seconds have passed."""
        if not await wait_until(self._answered, latest_s=monotonic_s() + within_s):
            log.info("no answer from the control plane yet; going on with what is stored")

    def doubt(self) -> None:
        """Fetch, because a hint was wrong or may be lost; at the earliest one minute after the last doubt.

        Ignore hints for a moment: the larger the wrong one was, the longer. This limits how many bytes a
        second are verified for nothing.
        """
        breath_s = max(_BREATH_S, self._hinted_bytes / _HINTED_BYTES_PER_S)
        self._hints_from, self._hinted_bytes = monotonic_s() + breath_s, 0
        due = max(monotonic_s(), self._doubted_at + DOUBT_S)
        if due < self._fetch_at:
            self._fetch_at = self._doubted_at = due
            self._woken.set()

    async def _until_due(self) -> None:
        while self._fetched is None and ((due := self._due()) is None or monotonic_s() < due):
            self._woken.clear()
            await wait_until(self._woken, latest_s=due)

    def _due(self) -> float | None:
        """Return when there is something to deliver; None while nothing is known to come."""
        dues = [self._fetch_at] if self._source is not None else []
        if self._hint is not None:
            dues.append(self._hints_from)
        if self._is_root_hinted:
            dues.append(self._root_hints_from)
        return min(dues, default=None)

    def _schedule_resync(self) -> None:
        spread = random.uniform(0.5, 1.5)  # noqa: S311 - not secrecy
        self._fetch_at = monotonic_s() + self._resync_s * self._slowness * spread
