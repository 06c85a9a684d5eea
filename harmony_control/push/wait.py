"""Waiting for Outcomes: following one device's reports until what was pushed is settled.

    SUCCESS or NOOP of everything -> settled        FAILURE of anything -> settled once the rest is
    gone, under this generation   -> settled        RUNNING, or no word -> waited for, until the time is up
    removals held until approved  -> settled

What of it has come to its end says `harmony_core.settled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime

import attrs

from harmony_control.bus.reports import Report, Reports
from harmony_control.fleet_view.device_status import refusal
from harmony_core.errors import NoAnswer
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.settled import has_failed, is_done
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.lifetimes import LIFETIME_LEAST_S

from .pending_removals import removals_of

__all__ = ["Wanted", "Watcher", "wait_until_settled"]

Watcher = Callable[[ActualState], None]

_LOOK = "Logs on the device: `journalctl -u harmony-agent`"


@attrs.frozen(kw_only=True)
class Wanted:
    """What is waited for: these Scores looked at, and those gone, since *generation*."""

    generation: int
    epoch: int = 0
    manifest_sha256: str = ""
    """Of the manifest with that generation: the device must have taken in this one, and no other."""
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def pages(self, state: ActualState) -> Mapping[str, ScoreStatus]:
        """Return the status of the Scores waited for, as of this generation."""
        return {
            name: page
            for name, page in state.scores.items()
            if name in self.present | self.absent
            and self._is_since(page.observed_generation, state)
        }

    def is_taken_in(self, state: ActualState) -> bool:
        """Return whether the device has taken in this manifest, or a newer one."""
        if state.epoch != self.epoch:
            return False  # one of a greater epoch refuses this one
        if state.generation == self.generation and self.manifest_sha256:
            return state.manifest_sha256 == self.manifest_sha256
        return state.generation >= self.generation

    def _is_since(self, observed_generation: int, state: ActualState) -> bool:
        """Return whether *observed_generation* is this generation or a newer one. One above the newest that
        was taken in belongs to an earlier epoch."""
        return self.generation <= observed_generation <= state.generation

    def is_settled(self, state: ActualState) -> bool:
        """Return whether nothing of the push is under way any more."""
        if not self.is_taken_in(state):
            return False
        pages = self.pages(state)
        held = {name for name, page in pages.items() if removals_of(page)}
        if not self._are_gone(state, self.absent - held):
            return False
        failed = {name for name, page in pages.items() if has_failed(page.outcome)}
        return all(
            name in pages and is_done(pages[name].outcome, behind_failure=bool(failed))
            for name in self.present
        )

    def _are_gone(self, state: ActualState, absent: AbstractSet[str]) -> bool:
        # Not there is not yet gone: the device may not have come to it.
        return not absent or (
            not absent & state.scores.keys() and self._is_since(state.observed_generation, state)
        )


async def wait_until_settled(
    reports: Reports,
    agent_id: str,
    wanted: Wanted,
    *,
    timeout_s: float,
    on_state: Watcher | None = None,
) -> ActualState:
    """Return the state in which everything wanted is settled. Call *on_state* with every state before it.

    Raise `NoAnswer` after *timeout_s* seconds, or as soon as the device reports that it refuses the manifest.
    The error says what is known last, and whether the device is heard at all.
    """
    wait = _Wait(wanted, on_state)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s), reports.reporting(agent_id) as told:
            if (state := await wait.through(told)) is not None:
                return state
            raise NoAnswer(f"{agent_id} refuses what was pushed: {wait.refusal}")
    last = await wait.last_words(reports, agent_id)
    raise NoAnswer(f"{agent_id} has not converged within {timeout_s:g} s: {last}")


class _Wait:
    """One wait, and what it has seen so far."""

    def __init__(self, wanted: Wanted, on_state: Watcher | None) -> None:
        self._wanted = wanted
        self._on_state = on_state
        self._last: Report | None = None
        self.refusal: str | None = None

    async def through(self, reports: AsyncIterator[Report]) -> ActualState | None:
        """Return the state in which everything is settled; None when the device has begun to refuse the
        manifest."""
        async for report in reports:
            first, self._last = self._last is None, report
            if (state := report.state) is None:
                continue
            if self._on_state is not None:
                self._on_state(state)
            if self._wanted.is_settled(state):
                return state
            before, self.refusal = self.refusal, refusal(state)
            # One that stood there before the push is about something else.
            is_new = not first and self.refusal not in {None, before}
            if is_new and not self._wanted.is_taken_in(state):
                return None
        raise AssertionError("reports go on for ever")

    async def last_words(self, reports: Reports, agent_id: str) -> str:
        """Return in words what is known when the time is up."""
        seen = await reports.read_seen(agent_id)
        if seen.heartbeat is None or seen.at is None:
            silent = "it was never heard of"
            if self._last is not None:
                last = f"{self._last.at:%Y-%m-%d %H:%M:%S} UTC"
                silent = f"it is offline, it has missed its heartbeats (last report: {last})"
            remedy = "is it on, does it reach the message server?"
            return f"{silent}. What was pushed waits for it; {remedy} {_LOOK}"
        # After a push it beats at once, also where it has said that its next word will be long in coming.
        ago_s = (datetime.now(UTC) - seen.at).total_seconds()
        online = "it is online"
        if ago_s > LIFETIME_LEAST_S:
            online = f"it was last heard {ago_s:.0f} s ago, so it may have been switched off"
        if self._last is None:
            return f"{online}, but has not reported yet. {_LOOK}"
        state = self._last.state
        if state is None:
            return f"{online}, but its report cannot be read: {self._last.problem}. {_LOOK}"
        if self.refusal:
            return f"it refuses what was pushed: {self.refusal}"
        if not self._wanted.is_taken_in(state):
            behind = f"at generation {state.generation} of {self._wanted.generation}"
            return f"{online}, but still {behind}. {_LOOK}"
        pages = self._wanted.pages(state)
        told = [
            f"{name} {_in_words(page)}"
            for name, page in pages.items()
            if not isinstance(page.outcome, Success | Noop)
        ]
        said = "; ".join(told) or "it has not looked at these Scores yet"
        return f"{said}. The device goes on; see `harmony status {agent_id} --watch`, or wait with --timeout"


def _in_words(page: ScoreStatus) -> str:
    outcome = page.outcome
    if isinstance(outcome, Failure):
        first = outcome.error.message.partition("\n")[0]
        return f"is {outcome.status} ({outcome.error.code}) {first}".rstrip()
    return f"is {outcome.status} ({outcome.reason}) {outcome.message}".rstrip()
