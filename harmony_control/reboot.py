"""Boot a device anew, and wait until it is back and its Scores have settled.

    its newest report: in which boot it is -> asked to end that one -> "not now"? -> asked again in a while
        |
    a report out of another boot -> each Score looked at since, and in order or failed for good -> settled

What counts is what the device reports and signs, not what it answers: an answer may be cut short when it goes
down, and nobody acts on one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

import attrs

from harmony_core.errors import NoAnswer, RebootPostponed, TooManyRequests
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.settled import has_failed, is_done
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.replies import RebootAsked

from .bus.devices import refuse_unknown
from .bus.reports import Reports
from .bus.requests import Asking

__all__ = ["Rebooted", "TellPostponed", "reboot"]

_ASK_AGAIN_S = 5.0
_UNHEARD = Running(reason="Progressing", message="not reported since the boot")
TellPostponed: TypeAlias = Callable[[str], None]
"""Called with why the device is not booted yet, once for each reason."""


@attrs.frozen(kw_only=True)
class Rebooted:
    """What became of it."""

    asked: RebootAsked
    state: ActualState | None = None
    """What the device has reported last, out of its new boot; None where that was not waited for."""
    unheard: frozenset[str] = frozenset()
    """The Scores that it had before, and has said nothing of since."""

    @property
    def unconverged(self) -> Mapping[str, Outcome]:
        """Return the Outcomes of the Scores that are not in order in the new boot, by id."""
        pages: Mapping[str, ScoreStatus] = self.state.scores if self.state is not None else {}
        return {
            name: page.outcome for name, page in sorted(pages.items()) if not _is_in_order(page)
        } | dict.fromkeys(sorted(self.unheard), _UNHEARD)


async def reboot(
    asking: Asking,
    reports: Reports,
    *,
    if_needed: bool,
    wait: bool,
    timeout_s: float,
    on_postponed: TellPostponed | None = None,
    on_begun: Callable[[RebootAsked], None] | None = None,
) -> Rebooted:
    """Reboot the device; with *wait*, return once its Scores have settled in the new boot.

    While it says "not now", ask it again, with *wait*, and call *on_postponed* with the reason; call
    *on_begun* when it goes down. *if_needed* reboots only where something needs it. Scores that are not in
    order when *timeout_s* is over are in `Rebooted.unconverged`. Raise `NoAnswer` where it never reported, or
    is not back by then; `RebootPostponed` where it could not be asked in that time; and what `Asking.reboot`
    raises.
    """
    before = await _read_state(asking, reports)
    until = _now() + timeout_s
    asked = await _ask(
        asking,
        before.boot_id,
        if_needed=if_needed,
        until=until if wait else 0.0,
        on_postponed=on_postponed,
    )
    if not asked.begun:
        return Rebooted(asked=asked)
    if on_begun is not None:
        on_begun(asked)
    if not wait:
        return Rebooted(asked=asked)
    state = await _wait_until_settled(reports, before, timeout_s=max(until - _now(), 0.0))
    if state is None:
        raise NoAnswer(
            f"{asking.agent_id} is not back out of another boot within {timeout_s:g} s; it was asked for one "
            f"at {asked.at}. Does it hang, going down or coming up? See: harmony status {asking.agent_id}"
        )
    return Rebooted(asked=asked, state=state, unheard=_find_unheard(state, before))


async def _read_state(asking: Asking, reports: Reports) -> ActualState:
    agent_id = asking.agent_id
    await refuse_unknown(asking.home, asking.client, agent_id)
    report = await reports.read_report(agent_id)
    if report is None or report.state is None:
        why = "has never reported" if report is None else f"cannot be believed: {report.problem}"
        raise NoAnswer(
            f"{agent_id} {why}, so that it is not known which boot is to end; see: harmony status {agent_id}"
        )
    return report.state


async def _ask(
    asking: Asking,
    boot_id: str,
    *,
    if_needed: bool,
    until: float,
    on_postponed: TellPostponed | None,
) -> RebootAsked:
    told = ""
    while True:
        try:
            return await asking.reboot(boot_id, if_needed=if_needed)
        except (RebootPostponed, TooManyRequests) as error:
            if _now() + _ASK_AGAIN_S > until:
                raise
            if on_postponed is not None and error.message != told:
                on_postponed(error.message)
            told = error.message
        await asyncio.sleep(_ASK_AGAIN_S)


async def _wait_until_settled(
    reports: Reports, before: ActualState, *, timeout_s: float
) -> ActualState | None:
    """Return the state, from another boot, in which every Score has settled, or else the newest one when the
    time is over; None where there is none."""
    last: ActualState | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s), reports.states(before.agent_id) as states:
            async for state in states:
                if state.boot_id == before.boot_id:
                    continue
                last = state
                if _is_settled(state, before):
                    break
    return last


def _is_settled(state: ActualState, before: ActualState) -> bool:
    pages = state.scores
    if _find_unheard(state, before):
        return False
    failed = [name for name in pages if _has_failed(name, pages[name], before)]
    return all(
        page.looked_at is not None
        and (
            name in failed
            or (not has_failed(page.outcome) and is_done(page.outcome, behind_failure=bool(failed)))
        )
        for name, page in pages.items()
    )


def _find_unheard(state: ActualState, before: ActualState) -> frozenset[str]:
    """Return the Scores of which nothing is known: a device that has lost its state learns only gradually
    what it should be."""
    if state.generation > before.generation and state.observed_generation == state.generation:
        return frozenset()  # it was given something else meanwhile, and has all of that
    return frozenset(before.scores.keys() - state.scores.keys())


def _is_in_order(page: ScoreStatus) -> bool:
    """Return whether the Score was looked at in this boot, and is as desired."""
    return page.looked_at is not None and isinstance(page.outcome, Success | Noop)


def _has_failed(name: str, page: ScoreStatus, before: ActualState) -> bool:
    """Return whether waiting for *page* is useless: it has failed for good, or as it did before.

    What fails in a new way is tried again, since much is not there yet just after a boot.
    """
    if not isinstance(page.outcome, Failure) or not has_failed(page.outcome):
        return False
    old = before.scores[name].outcome if name in before.scores else None
    is_as_before = isinstance(old, Failure) and old.error.code == page.outcome.error.code
    return page.outcome.error.retry_at is None or is_as_before


def _now() -> float:
    return asyncio.get_running_loop().time()
