"""Every rollout of a fleet at once: how each stands, and, where this home's key for gates counts, its steps.

    fleet index -> each class: look, or step -> how it stands -> whoever shows it

Any number may do it side by side, as with `Rollout` itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress

import attrs
from nats.aio.client import Client

from harmony_control.bus.reports import Reports
from harmony_control.fleet_view.watching import FleetWatch
from harmony_control.store.gate_key import load_gate_key
from harmony_control.store.home import Home
from harmony_core.errors import HarmonyError, UnknownClass
from harmony_core.wire.envelope import Signer
from harmony_core.wire.fleet_index import ClassRule, FleetIndex

from .controller import Rollout
from .documents import ClassDocuments
from .state import Look

__all__ = ["ClassStanding", "Rollouts", "follow_rollouts"]


@attrs.frozen(kw_only=True)
class ClassStanding:
    """How one class stands."""

    name: str
    rule: ClassRule
    look: Look | None
    """None where nothing was rolled out to it, or *problem* says why that is not known."""
    problem: str = ""
    """What went wrong with the last look or step."""


@attrs.frozen(kw_only=True)
class Rollouts:
    """How all stand."""

    classes: Mapping[str, ClassStanding]
    only_looks: str
    """Why no wave is opened from here; empty where waves are."""


async def follow_rollouts(
    home: Home,
    client: Client,
    reports: Reports,
    watch: Callable[[], AbstractAsyncContextManager[FleetWatch]],
) -> AsyncGenerator[Rollouts]:
    """Yield the state of all rollouts, whenever it is asked for, and do those steps that gate.key allows.

    Nothing is signed with an operator's key here. Raise what ends the watch, what reading the fleet index
    raises, and `ConfigError` for a gate.key that is none.
    """
    rollouts: dict[str, Rollout] = {}
    gate_signer: Signer | None = None
    async with watch() as watched:
        while True:
            before, gate_signer = gate_signer, await asyncio.to_thread(load_gate_key, home)
            if gate_signer != before:
                rollouts = {}
            index = await (await ClassDocuments.open(home, client)).read_index()
            only_looks = _find_why_not(gate_signer, index.value if index else None)
            classes = index.value.classes if index is not None else {}
            rollouts = {
                name: rollouts.get(name)
                or Rollout(
                    home, client, reports, name, gate_signer=gate_signer, by_gate_key_only=True
                )
                for name in sorted(classes)
            }
            yield Rollouts(
                classes={
                    name: await _stand(rollout, classes[name], watched, only_look=bool(only_looks))
                    for name, rollout in rollouts.items()
                },
                only_looks=only_looks,
            )


def _find_why_not(signer: Signer | None, index: FleetIndex | None) -> str:
    if signer is None:
        return "there is no gate.key in its home; `harmony rollout key` makes one"
    if index is None or signer.public.to_text() not in index.gate_keys:
        return "devices take no gates from its gate.key; `harmony rollout key` has them take it"
    return ""


async def _stand(
    rollout: Rollout, rule: ClassRule, watch: FleetWatch, *, only_look: bool
) -> ClassStanding:
    look: Look | None = None
    problem = ""
    try:
        look = await (rollout.read(watch) if only_look else rollout.step(watch))
        if look.next is not None and not only_look:
            look = await rollout.read(watch)
    except UnknownClass:
        pass  # it has a selector, and nothing was rolled out to it yet
    except HarmonyError as error:
        problem = error.message
        with suppress(HarmonyError):
            look = await rollout.read(watch)
    return ClassStanding(name=rollout.name, rule=rule, look=look, problem=problem)
