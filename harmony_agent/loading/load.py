"""Load one bundle: look at all of it, take it in as if it had come by the bus, and tell what becomes of it.

    open -> check -> at hand -> root document, manifest, classes -> applied -> told, until all is settled

Nothing of a bundle counts before all of it was read, and is what its index says. From then on it is what the
server would have: the same is verified, refused and remembered. It is at hand for as long as somebody waits,
for what is fetched by its turn.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from typing import Any

import attrs

from harmony_agent.agent import Agent
from harmony_agent.clock import monotonic_s
from harmony_agent.store.at_hand import AtHand
from harmony_agent.store.bundle import Bundle
from harmony_core.errors import (
    BundleRefused,
    BusUnreachable,
    CapabilityError,
    HarmonyError,
    ManifestRejected,
)
from harmony_core.outcome import Noop, Outcome, Success
from harmony_core.settled import count_held_removals, has_failed, is_done
from harmony_core.wire.actual_state import ScoreStatus, score_to_json
from harmony_pi_topology.common.worker import Worker

from .server import Tell

__all__ = ["Loading"]

log = logging.getLogger(__name__)

CONVERGED, FAILED, USAGE, REFUSED, NO_ANSWER = range(5)
"""As `harmony` ends."""
_LOOK_AGAIN_S = 0.2
_TOLD_AGAIN_S = 1.0
_NO_PART_WITHIN_S = 120.0
_WITHIN_S = 300.0
_WITHIN_MOST_S = 24 * 3600.0


@attrs.frozen(kw_only=True)
class Loading:
    """Loads bundles for *agent*, which is *agent_id* of *fleet*."""

    agent: Agent
    at_hand: AtHand
    look: Callable[[Collection[str]], AsyncGenerator[str]]
    """Have these Scores looked at now; yields each as soon as it was."""
    fleet: str
    agent_id: str

    async def take(self, descriptor: int, request: Mapping[str, Any], tell: Tell) -> None:
        """Load the bundle of *descriptor*, and tell how that ends."""
        try:
            ends = await self._load(descriptor, _read_timeout(request), tell)
        except HarmonyError as error:
            log.warning("a bundle is refused: %s", error.message)
            told = {"event": "refused", "code": error.code, "message": error.message}
            await tell({**told, "exit": _exit_code_of(error)})
        else:
            await tell({"event": "end", "exit": ends})

    async def _load(self, descriptor: int, within_s: float, tell: Tell) -> int:
        worker = Worker("bundle check", threads=1, timeout_s=_NO_PART_WITHIN_S)
        try:
            bundle = await worker.run(
                Bundle.open, descriptor, fleet=self.fleet, agent_id=self.agent_id
            )
            try:
                await self._check(worker, bundle, tell)
                with self.at_hand.having(bundle):
                    return await self._take_in(bundle, within_s, tell)
            finally:
                bundle.put_away()
                with suppress(CapabilityError):  # what hangs on a stick ends some day
                    await worker.run(bundle.close)
        except CapabilityError as error:
            raise BundleRefused(f"the bundle cannot be read: {error.message}") from error
        finally:
            worker.close()

    async def _check(self, worker: Worker, bundle: Bundle, tell: Tell) -> None:
        moving = worker.run_while_moving(lambda: bundle.checked_bytes, bundle.check)
        checking = asyncio.ensure_future(moving)
        try:
            while not checking.done():
                await tell(
                    {
                        "event": "checking",
                        "done_bytes": bundle.checked_bytes,
                        "size_bytes": bundle.size_bytes,
                    }
                )
                await asyncio.wait({checking}, timeout=_TOLD_AGAIN_S)
        finally:
            checking.cancel()
        await checking

    async def _take_in(self, bundle: Bundle, within_s: float, tell: Tell) -> int:
        taking = asyncio.ensure_future(self.agent.take_in_all(bundle))
        try:
            refused = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Who hangs up in the midst of it leaves nothing half planned: what was accepted has its turn.
            await asyncio.wait({taking})
            raise
        except BusUnreachable as error:
            raise bundle.trouble or error from None
        desired = self.agent.desired
        wanted = frozenset(desired.entries)
        log.info("a bundle is loaded: generation %d", desired.generation)
        await tell({"event": "loaded", "generation": desired.generation, "scores": len(wanted)})
        looking = asyncio.ensure_future(self._look_at(wanted))
        try:
            ends = await self._wait(bundle, wanted, looking, monotonic_s() + within_s, tell)
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        if refused:
            raise ManifestRejected(refused)
        return ends

    async def _look_at(self, wanted: Collection[str]) -> None:
        """Look at the *wanted* Scores and those of before: these may have waited for what only this bundle
        has."""
        known = {*wanted, *self.agent.controller.statuses.known}
        async with aclosing(self.look(known)) as looked:
            async for _ in looked:
                pass

    async def _wait(
        self,
        bundle: Bundle,
        wanted: frozenset[str],
        looking: asyncio.Future[None],
        until_s: float,
        tell: Tell,
    ) -> int:
        told: dict[str, Outcome] = {}
        leaving = self.agent.controller.statuses.known - wanted
        while True:
            found = self._find_statuses()
            for score in sorted(found):
                if (looking.done() or score in told) or _is_news(found[score].outcome):
                    await _tell_outcome(score, found[score], told, tell)
            for score in sorted(leaving - found.keys()):
                await tell({"event": "removed", "id": score})
            leaving = leaving & found.keys()
            if looking.done() and _is_settled(found, wanted, leaving):
                return _find_end(found, wanted)
            if bundle.trouble is not None:
                raise bundle.trouble
            if monotonic_s() >= until_s:
                return NO_ANSWER
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _find_statuses(self) -> Mapping[str, ScoreStatus]:
        statuses = self.agent.controller.statuses
        found = {each: statuses.status_of(each) for each in statuses.known}
        return {name: each for name, each in found.items() if each is not None}


def _is_news(outcome: Outcome) -> bool:
    """Return whether it is worth reporting before each Score was looked at: what is in order may be so from
    before."""
    return not isinstance(outcome, Success | Noop)


async def _tell_outcome(
    score: str, status: ScoreStatus, told: dict[str, Outcome], tell: Tell
) -> None:
    if told.get(score) != status.outcome:
        told[score] = status.outcome
        state = score_to_json(attrs.evolve(status, resources={}))
        await tell({"event": "outcome", "id": score, "status": state})


def _is_settled(
    found: Mapping[str, ScoreStatus], wanted: Collection[str], leaving: Collection[str]
) -> bool:
    failed = any(has_failed(each.outcome) for each in found.values())
    return all(
        each in found and is_done(found[each].outcome, behind_failure=failed) for each in wanted
    ) and all(count_held_removals(found[each].outcome) for each in leaving)


def _find_end(found: Mapping[str, ScoreStatus], wanted: Collection[str]) -> int:
    is_held = any(count_held_removals(each.outcome) for each in found.values())
    converged = all(isinstance(found[each].outcome, Success | Noop) for each in wanted)
    return CONVERGED if converged and not is_held else FAILED


def _read_timeout(request: Mapping[str, Any]) -> float:
    wanted = request.get("timeout_s", _WITHIN_S)
    if not isinstance(wanted, int | float) or not math.isfinite(wanted):
        return _WITHIN_S
    return min(max(float(wanted), 0.0), _WITHIN_MOST_S)


def _exit_code_of(error: HarmonyError) -> int:
    return REFUSED if isinstance(error, ManifestRejected) else USAGE
