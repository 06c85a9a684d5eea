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

    async def bring_up(self, this: NetworkPlan) -> None:
        """Do that step of *this*, if it is due."""
        if this.steps.bring_up is None:
            return
        if this.steps.bring_up != "apply" or not await self._daemon.apply(this.uuid):
            self._pushed_out.add((this.profile.name, this.found.interface.uses))
            await self._daemon.activate(this.uuid, this.profile.link.interface)
        self._asked_s[this.uuid] = self._monotonic_s()

    def patient(self, this: NetworkPlan) -> NetworkPlan:
        """*this*, without asking again for what was asked for a moment ago."""
        there = this.there
        waits = there is not None and there.use == "up" and this.steps.bring_up == "apply"
        if waits and not this.steps.change and this.uuid in self._asked_s:
            return attrs.evolve(this, steps=attrs.evolve(this.steps, bring_up=None))
        return this

    def why_not(self, this: NetworkPlan) -> str | None:
        """Why what was asked for has not come about; told once."""
        there, asked_s = this.there, self._asked_s.get(this.uuid)
        if there is None or asked_s is None:
            return None
        if there.use == "down" and this.profile.is_to_be_up:
            del self._asked_s[this.uuid]
            return there.reason or "it did not stay up; see journalctl -u NetworkManager"
        if there.use != "up":
            return None
        if not there.missing_addresses:
            del self._asked_s[this.uuid]
        elif self._monotonic_s() - asked_s > _ADDRESSES_WITHIN_S:
            del self._asked_s[this.uuid]
            missing = ", ".join(sorted(there.missing_addresses))
            return f"{there.interface} does not take {missing}; another device may have it"
        return None

    def refuse_a_fight(self, this: NetworkPlan, rival: str) -> None:
        """Raise `OwnershipConflict` when *this* would push the profile *rival* out once more.

        Once is how one profile follows another. Twice means that both are wished for.
        """
        if this.steps.bring_up == "activate" and (this.profile.name, rival) in self._pushed_out:
            raise OwnershipConflict(
                f"{this.profile.name} and {rival} are both to be in use on "
                f"{this.found.interface.name}; "
                'set the state of one of them to "kept", or leave it out',
                resource=this.id,
            )

    def is_gone(self, name: str) -> None:
        """The profile *name* fights no more."""
        self._pushed_out = {each for each in self._pushed_out if name not in each}

    def forget(self, uuid: str) -> None:
        """Nothing is expected of it any more."""
        self._asked_s.pop(uuid, None)

    def pending(self, this: NetworkPlan, found: FoundNetwork) -> NotReady | None:
        """What is still waited for, *found* being how it is now."""
        there, name = found.profile, this.profile.name
        if there is None or there.use in {"coming", "going"}:
            return self._not_ready(this, f"{name} is being brought up")
        if there.use == "up":
            if missing := there.missing_addresses:
                return self._not_ready(this, f"{', '.join(sorted(missing))} not there yet")
            self.forget(this.uuid)
            return None
        if not this.profile.is_to_be_up:
            return None
        if found.interface.readiness == "no carrier":
            return NotReady(
                f"{name} waits for a cable in {found.interface.name}",
                resource=this.id,
                look_again_s=_CABLE_S,
            )
        return self._not_ready(this, f"{name} is being brought up")

    def _not_ready(self, this: NetworkPlan, message: str) -> NotReady:
        return NotReady(message, resource=this.id, reason="Progressing", look_again_s=_LOOK_AGAIN_S)
