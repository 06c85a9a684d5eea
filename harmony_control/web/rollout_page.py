"""What is told of rollouts: a line a class, and a page. Made of how each stands. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias, get_args

import attrs

from harmony_control.rollout.all_classes import ClassStanding
from harmony_control.rollout.judge import Judged, MemberState
from harmony_control.rollout.state import Look, Verb, find_orders
from harmony_core.wire.times import rfc3339

from .users import Role, includes

__all__ = [
    "ActionPart",
    "RolloutLine",
    "RolloutPage",
    "action_of",
    "line_of_rollout",
    "page_of_rollout",
]

_LISTED_MOST = 200
"""Devices on a page; the gravest first."""
_ORDER: tuple[MemberState, ...] = (
    "Unhealthy",
    "Waiting",
    "Progressing",
    "Away",
    "RolledBack",
    "Ready",
    "NotReached",
)
_SIGNED_HERE: dict[Verb, Role] = {"pause": "operator", "resume": "approver", "abort": "approver"}
"""What a key for gates may sign, and for whom it does. A pause only ever stops something; the others change
devices. To promote goes faster than the class says, which devices take from an operator's key alone."""

WaveState: TypeAlias = Literal["over", "open", "to come"]


@attrs.frozen(kw_only=True)
class RolloutLine:
    """A class in a list."""

    name: str
    selector: str
    priority: int
    state: str
    """running, paused, aborted, done; none where nothing was rolled out to it."""
    generation: int | None
    wave: int | None
    waves: int | None
    counts: dict[str, int]
    """How many devices are in which state."""
    why: str
    """What is waited for, or why it stands still."""
    since: str | None
    """Since when its gate is as it is."""
    problem: str
    """What went wrong with the last look or step; empty where nothing did."""
    number: int
    """Of the change that made it what it is."""


@attrs.frozen(kw_only=True)
class WavePart:
    """One wave."""

    upto: str
    state: WaveState
    soak_s: int
    soaks_until: str | None
    """Where that is all that is waited for."""
    counts: dict[str, int]


@attrs.frozen(kw_only=True)
class MemberPart:
    """One device of the class."""

    id: str
    wave: int
    slot: int
    state: str
    """NotReached, Away, Waiting, Progressing, Ready, Unhealthy or RolledBack."""
    reason: str
    until: str | None
    """By when it must be in order, where it is on the way there."""
    ready_since: str | None


@attrs.frozen(kw_only=True)
class ActionPart:
    """What somebody may want of it."""

    verb: str
    """pause, resume, abort, promote, or promote --full."""
    is_signed_here: bool
    """Whether it is done when it is asked for; else *command* does it."""
    command: str
    """What an operator runs at a terminal."""
    why: str
    """Why it is not done here; empty where it is."""


@attrs.frozen(kw_only=True)
class RolloutPage:
    """Everything that is known of one rollout."""

    line: RolloutLine
    at: str
    """When this was told, by the clock of `harmony serve`."""
    supersedes: int | None
    deadline_s: int | None
    waves: list[WavePart]
    devices: list[MemberPart]
    """Unhealthy ones first."""
    devices_left: int
    """How many there are beside those."""
    actions: list[ActionPart]
    """For who may do no more than look: none."""
    only_looks: str
    """Why no wave is opened from here; empty where waves are."""


def line_of_rollout(standing: ClassStanding, number: int) -> RolloutLine:
    """Return one class as it is told in a list."""
    look = standing.look
    gate = look.progress.gate if look else None
    return RolloutLine(
        name=standing.name,
        selector=standing.rule.selectors[0].selector,
        priority=standing.rule.priority,
        state=gate.state if gate else "none",
        generation=gate.generation if gate else None,
        wave=gate.step + 1 if gate else None,
        waves=len(look.progress.manifest.rollout.steps) if look else None,
        counts=_count(look.progress.judged) if look else {},
        why=look.why if look else "",
        since=rfc3339(gate.issued_at) if gate else None,
        problem=standing.problem,
        number=number,
    )


def page_of_rollout(
    standing: ClassStanding, number: int, only_looks: str, role: Role, now: datetime
) -> RolloutPage:
    """Return the page of one class for somebody of that *role*."""
    look = standing.look
    manifest = look.progress.manifest if look else None
    judged = sorted(look.progress.judged, key=_gravest_first) if look else []
    return RolloutPage(
        line=line_of_rollout(standing, number),
        at=rfc3339(now),
        supersedes=manifest.supersedes if manifest else None,
        deadline_s=manifest.rollout.deadline_s if manifest else None,
        waves=_waves(look) if look else [],
        devices=[_member_of(each) for each in judged[:_LISTED_MOST]],
        devices_left=max(0, len(judged) - _LISTED_MOST),
        actions=_actions(look, standing.name, only_looks, role) if look else [],
        only_looks=only_looks,
    )


def action_of(name: str, verb: Verb, reason: str, only_looks: str, role: Role) -> ActionPart:
    """Return how *verb* is done by somebody of that *role*: here, or at a terminal."""
    needed = _SIGNED_HERE.get(verb)
    if needed is None:
        why = "an operator's key signs it: it goes faster than the class says"
    elif only_looks:
        why = only_looks
    elif not includes(role, needed):
        why = f"here it is for the role {needed}"
    else:
        why = ""
    first, _, option = verb.partition(" ")
    words = ["harmony", "rollout", first, name, *([option] if option else [])]
    if reason:
        words += ["--reason", reason]
    return ActionPart(verb=verb, is_signed_here=not why, command=shlex.join(words), why=why)


def _actions(look: Look, name: str, only_looks: str, role: Role) -> list[ActionPart]:
    if not includes(role, "operator"):
        return []
    state = look.progress.gate.state
    return [action_of(name, each, "", only_looks, role) for each in find_orders(state)]


def _waves(look: Look) -> list[WavePart]:
    gate = look.progress.gate
    waves: list[WavePart] = []
    for at, step in enumerate(look.progress.manifest.rollout.steps):
        is_open = at == gate.step and gate.state != "done"
        state: WaveState = "open" if is_open else "to come" if at > gate.step else "over"
        waves.append(
            WavePart(
                upto=step.upto,
                state=state,
                soak_s=step.soak_s,
                soaks_until=rfc3339(look.soaks_until) if is_open and look.soaks_until else None,
                counts=_count([each for each in look.progress.judged if each.member.step == at]),
            )
        )
    return waves


def _member_of(judged: Judged) -> MemberPart:
    return MemberPart(
        id=judged.member.id,
        wave=judged.member.step + 1,
        slot=judged.member.slot,
        state=judged.state,
        reason=judged.reason,
        until=rfc3339(judged.until) if judged.until else None,
        ready_since=rfc3339(judged.ready_since) if judged.ready_since else None,
    )


def _gravest_first(judged: Judged) -> tuple[int, int, str]:
    return _ORDER.index(judged.state), judged.member.step, judged.member.id


def _count(judged: Sequence[Judged]) -> dict[str, int]:
    found = Counter(each.state for each in judged)
    states: tuple[MemberState, ...] = get_args(MemberState)
    return {each: found[each] for each in states}
