"""Rollouts: how each stands, and what may be wanted of it.

What a key for gates may sign is done here, where this home has one that devices take. Everything else is
proposed: as the command that an operator runs at a terminal. An operator's key signs nothing here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import attrs
from litestar import get, post
from litestar.params import JSONBody, PathParameter

from harmony_control.rollout.all_classes import ClassStanding
from harmony_control.rollout.state import Verb, check_reason
from harmony_core.errors import UnknownClass

from .calls import Call, fleet_of, live_of
from .rollout_page import ActionPart, RolloutLine, RolloutPage, action_of, page_of_rollout

__all__ = ["ROUTES"]

ClassName = Annotated[str, PathParameter(max_length=63, description="the class, such as kiosk")]


@attrs.frozen(kw_only=True)
class RolloutList:
    """Every class."""

    only_looks: str
    """Why no wave is opened from here; empty where waves are."""
    rollouts: list[RolloutLine]


@attrs.frozen(kw_only=True)
class Order:
    """What somebody wants of a rollout."""

    verb: Literal["pause", "resume", "abort", "promote", "promote --full"]
    reason: str = ""
    """One line, for whoever reads the history."""


@attrs.frozen(kw_only=True)
class Ordered:
    """What came of it."""

    is_done: bool
    """Whether the gate was written. Else an operator runs the command of *action*."""
    state: str
    """Of the gate then."""
    action: ActionPart


def _standing_of(request: Call, name: str) -> tuple[ClassStanding, int]:
    found = live_of(request).rollouts.find(name)
    if found is None:
        raise UnknownClass(f"there is no class {name[:63]!r} in this fleet")
    return found


@get("/api/rollouts")
async def rollouts(request: Call) -> RolloutList:
    """Return every class, and how its rollout stands."""
    board = live_of(request).rollouts
    return RolloutList(only_looks=board.only_looks, rollouts=board.lines())


@get("/api/rollouts/{name:str}")
async def rollout_page(request: Call, name: ClassName) -> RolloutPage:
    """Return a rollout: its waves, its devices with the gravest first, and what may be wanted of it."""
    standing, number = _standing_of(request, name)
    only_looks = live_of(request).rollouts.only_looks
    return page_of_rollout(standing, number, only_looks, request.user.role, datetime.now(UTC))


@post("/api/rollouts/{name:str}/orders", opt={"role": "operator"}, status_code=200)
async def order(request: Call, name: ClassName, data: JSONBody[Order]) -> Ordered:
    """Pause, resume, abort or promote it; what is not signed here is answered with the command for it."""
    standing, _ = _standing_of(request, name)
    check_reason(data.reason)
    verb: Verb = data.verb
    live, who = live_of(request), request.user
    action = action_of(name, verb, data.reason, live.rollouts.only_looks, who.role)
    if not action.is_signed_here:
        state = standing.look.progress.gate.state if standing.look else "none"
        return Ordered(is_done=False, state=state, action=action)
    told = f"{_DONE[verb]} by {who.name}" + (f": {data.reason}" if data.reason else "")
    gate = await fleet_of(request).rollout(name, by_gate_key_only=True).order(verb, told)
    live.look_again()
    return Ordered(is_done=True, state=gate.state, action=action)


_DONE: dict[Verb, str] = {"pause": "paused", "resume": "resumed", "abort": "aborted"}

ROUTES = [rollouts, rollout_page, order]
