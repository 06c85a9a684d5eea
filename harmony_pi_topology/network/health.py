"""Bringing network profiles up: asked for once, then looked at until they are, or are not.

    ask -> coming -> up, with all its addresses -> forgotten
                  -> down again                 -> its failure is told once; the next look asks again

What was asked for ends with the process; the next one finds the profile coming, up or down, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from harmony_core.change import NotReady
from harmony_core.errors import OwnershipConflict

from .daemon import NetworkDaemon
from .profile_plan import NetworkPlan
from .records import FoundNetwork

__all__ = ["NetworkUse"]

_ADDRESSES_WITHIN_S = 10.0
"""An address is first asked for on the wire, whether somebody else has it."""
_LOOK_AGAIN_S = 0.5
_CABLE_S = 30.0


class NetworkUse:
    """At most one request a profile."""

    def __init__(self, daemon: NetworkDaemon, *, monotonic_s: Callable[[], float]) -> None:
        self._daemon = daemon
        self._monotonic_s = monotonic_s
        self._asked_s: dict[str, float] = {}
        self._pushed_out: set[tuple[str, str]] = set()

    async def bring_up(self, plan: NetworkPlan) -> None:
        """Activate the profile of *plan*, or apply its changes, if *plan* says so."""
        if plan.steps.bring_up is None:
            return
        if plan.steps.bring_up != "apply" or not await self._daemon.apply(plan.uuid):
            self._pushed_out.add((plan.profile.name, plan.found.interface.uses))
            await self._daemon.activate(plan.uuid, plan.interface)
        self._asked_s[plan.uuid] = self._monotonic_s()

    def patient(self, plan: NetworkPlan) -> NetworkPlan:
        """Return *plan* without a request that was made a moment ago."""
        there = plan.there
        waits = there is not None and there.use == "up" and plan.steps.bring_up == "apply"
        if waits and not plan.steps.changed and plan.uuid in self._asked_s:
            return attrs.evolve(plan, steps=attrs.evolve(plan.steps, bring_up=None))
        return plan

    def why_not(self, plan: NetworkPlan) -> str | None:
        """Return why the last request has not succeeded; None where it has, or is still under way. Return
        each reason only once."""
        there, asked_s = plan.there, self._asked_s.get(plan.uuid)
        if there is None or asked_s is None:
            return None
        if there.use == "down" and plan.profile.is_to_be_up:
            del self._asked_s[plan.uuid]
            return there.reason or "it did not stay up"
        if there.use != "up":
            return None
        if not there.missing_addresses:
            del self._asked_s[plan.uuid]
        elif self._monotonic_s() - asked_s > _ADDRESSES_WITHIN_S:
            del self._asked_s[plan.uuid]
            missing = ", ".join(sorted(there.missing_addresses))
            return f"{there.interface} does not take {missing}; another device may have it"
        return None

    def refuse_a_fight(self, plan: NetworkPlan, rival: str) -> None:
        """Raise `OwnershipConflict` when *plan* would replace the active profile *rival* a second time.

        Once is how one profile follows another. Twice means that both are desired.
        """
        if plan.steps.bring_up == "activate" and (plan.profile.name, rival) in self._pushed_out:
            raise OwnershipConflict(
                f"{plan.profile.name} and {rival} are both to be in use on "
                f"{plan.found.interface.name}; "
                'set the state of one of them to "kept", or leave it out',
                resource=plan.id,
            )

    def is_gone(self, name: str) -> None:
        """Forget the conflicts of the profile *name*, which is gone."""
        self._pushed_out = {each for each in self._pushed_out if name not in each}

    def forget(self, uuid: str) -> None:
        """Forget the last request for the profile with *uuid*."""
        self._asked_s.pop(uuid, None)

    def pending(self, plan: NetworkPlan, found: FoundNetwork) -> NotReady | None:
        """Return what *plan* still waits for, where *found* is the present state; None where nothing is
        left."""
        there, name = found.profile, plan.profile.name
        if there is None or there.use in {"coming", "going"}:
            return self._not_ready(plan, f"{name} is being brought up")
        if there.use == "up":
            if missing := there.missing_addresses:
                told = ", ".join(sorted(missing))
                return self._not_ready(plan, f"{there.interface} does not have {told} yet")
            self.forget(plan.uuid)
            return None
        if not plan.profile.is_to_be_up:
            return None
        if found.interface.readiness == "no carrier":
            return NotReady(
                f"{name} waits for a cable in {found.interface.name}",
                resource=plan.id,
                look_again_s=_CABLE_S,
            )
        return self._not_ready(plan, f"{name} is being brought up")

    def _not_ready(self, plan: NetworkPlan, message: str) -> NotReady:
        return NotReady(message, resource=plan.id, reason="Progressing", look_again_s=_LOOK_AGAIN_S)
