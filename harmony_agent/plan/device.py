"""The device that Scores are interpreted on, as the rest of the agent sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from harmony_core.inventory import Facts, Inventory
from harmony_core.reconciler import AnyReconciler, Offers
from harmony_core.stage import Policy

__all__ = ["AgentPolicy", "Device", "find_reconciler"]


class AgentPolicy(Policy, Protocol):
    """What this device allows, of a Score as a whole too: `harmony_agent.apply.policy.DevicePolicy`."""

    def kind_refusal(self, kind: str) -> str | None:
        """Return why no Score of this *kind* is interpreted here, with the remedy; None when it is."""


def find_reconciler(offers: Offers, resource_type: str) -> AnyReconciler | None:
    """Return what reconciles this type of resource here; None where nothing does."""
    for reconciler in offers.values():
        if reconciler.resource_class.resource_type == resource_type:
            return reconciler
    return None


@attrs.define(kw_only=True)
class Device:
    """What a Score is interpreted on: what is offered, what is allowed, what is known."""

    offers: Offers
    missing: Mapping[str, str]
    """What is not offered here, and why."""
    policy: AgentPolicy
    facts: Facts
    """Read again now and then."""
    agent_id: str

    def inventory(self, labels: Mapping[str, str]) -> Inventory:
        """Return what a Score may read of this device today: its facts, and *labels*."""
        return Inventory(agent_id=self.agent_id, facts=self.facts, labels=labels)
