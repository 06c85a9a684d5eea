"""FirewallScore: what may come in."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from harmony_core import Firewall, HasFirewall, Inventory, Outcome, Score, outcome_of
from harmony_core.resources import ConfirmWithin, FirewallName, FirewallRule

from ._whole import refused_as_fields

__all__ = ["FirewallScore"]


class FirewallScore(Score[HasFirewall]):
    """Of what comes from outside, only what is allowed here comes in, to the device and to its containers.

    That goes for the ports that containers publish, too. Answers, what the containers themselves send, and
    what IP needs to work always come in; what goes out is not touched, nor are the tables of others. A change
    is tried first: it stays when the control plane is reached by a new connection, and is taken back by the
    device itself when it is not. A device has one.
    """

    name: FirewallName = Field(description="What it is called, such as base.")
    input: Literal["drop", "reject"] = Field(
        default="drop",
        description="What becomes of all else: it is dropped without a word, or refused with one.",
    )
    allow: tuple[FirewallRule, ...] = Field(
        default=(),
        description="What may come in, each by port (80, 6000-6010), protocol (tcp, udp), from (networks) "
        "and interface; all of what it says has to fit.",
    )
    confirm_within_s: ConfirmWithin = Field(
        default=60,
        description="How long a change may take to prove that the device is still reached, in seconds.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._firewall()
        return self

    async def interpret(self, inventory: Inventory, topology: HasFirewall) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.firewall.ensure(self._firewall()))

    def _firewall(self) -> Firewall:
        return Firewall(**{name: getattr(self, name) for name in type(self).model_fields})
