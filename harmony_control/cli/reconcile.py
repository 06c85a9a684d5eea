"""``harmony reconcile AGENT [SCORE ...]``, ``harmony release AGENT SCORE``: now, not in its time."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.device import Looked
from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.errors import NoAnswer
from harmony_core.outcome import Failure, Running
from harmony_core.outcome_words import describe_outcome, status_word
from harmony_core.visible import word
from harmony_core.wire.actual_state import score_to_json

from .common import home_of, out
from .exits import CONVERGED, FAILED, NO_ANSWER, find_gravest

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Have Scores looked at now. Return 0 when all of them have converged or are gone, 1 when one has failed,
    4 while one waits."""
    return asyncio.run(_release(options) if options.name == "release" else _reconcile(options))


async def _reconcile(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    found = [CONVERGED]
    async with Fleet.connect(home_of(options)) as fleet:
        device = fleet.device(agent_id)
        try:
            async with asyncio.timeout(options.timeout):
                for score in dict.fromkeys(options.scores or [None]):
                    async with device.reconcile(score, enforce=options.enforce) as scores:
                        async for looked in scores:
                            _show(options, looked)
                            found.append(_exit_code(looked))
        except TimeoutError:
            raise NoAnswer(
                f"{agent_id} has not looked at all of it within {options.timeout:g} s; what it has begun "
                f"goes on: see `harmony status {agent_id}`"
            ) from None
    return find_gravest(found)


async def _release(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        await fleet.device(agent_id).release(options.score)
    out(options, {"event": "released", "id": options.score}, f"{options.score:<20} released")
    return CONVERGED


def _show(options: argparse.Namespace, looked: Looked) -> None:
    name = word(looked.score)
    if (page := looked.state) is None:
        out(options, {"event": "removed", "id": looked.score}, f"{name:<20} gone")
        return
    out(
        options,
        {"event": "outcome", "id": looked.score, **score_to_json(page)},
        f"{name:<20} {status_word(page.outcome):<9} {describe_outcome(page.outcome)}".rstrip(),
    )


def _exit_code(looked: Looked) -> int:
    match looked.state and looked.state.outcome:
        case Failure():
            return FAILED
        case Running():
            return NO_ANSWER
        case _:
            return CONVERGED
