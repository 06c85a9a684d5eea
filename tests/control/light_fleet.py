"""A fleet of light devices: each follows gates as an agent does, by its rules, and has nothing to change.

Each has its own connection, key and rights. They look when a test has them look, so that nothing depends on
timing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs

from harmony_control.bus.connection import admin
from harmony_control.bus.reports import Reports
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Published, Wish, publish
from harmony_control.store.home import Enrolled
from harmony_control.store.nkey import Nkey
from harmony_core.outcome import Success
from harmony_core.wire.actual_state import LayerPhase, LayerStatus
from harmony_core.wire.admission import find_place, is_let_in, may_begin
from harmony_core.wire.class_manifest import CLASS_TYPE, parse_class_manifest
from harmony_core.wire.envelope import Signer, generate_key, open_envelope
from harmony_core.wire.fleet_index import FLEET_TYPE, parse_index
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import DESIRED_CLASS, FLEET, INDEX_KEY, ROLLOUT, new_mailbox
from harmony_core.wire.times import rfc3339
from tests.nats import Bus, Device, serving

from .scripted_device import ScriptedDevice, failure, page

__all__ = ["CLASS", "LightDevice", "LightFleet", "large_light_fleet", "light_fleet", "score"]

CLASS = "kiosk"
_LAYER = f"class:{CLASS}"


def score(text: str) -> SerializedScore:
    """One Score; what it says is nothing to a light device."""
    spec = {"path": "/etc/motd", "content": text}
    return SerializedScore(id="motd", kind="FileScore", version=1, spec=spec)


@attrs.define
class LightDevice:
    """One of them."""

    scripted: ScriptedDevice
    breaks: frozenset[int] = frozenset()
    """The generations that fail here for good."""
    gate: Gate | None = None
    begun: int = 0
    followed: list[int] = attrs.field(factory=list[int])
    """Every generation that it followed, the newest last."""
    refused: list[Gate] = attrs.field(factory=list[Gate])
    """Gates that were not newer than the one that it has."""
    told_gate: tuple[int, int] | None = None
    """What it says in place of the gate that it has: a lie."""

    @property
    def id(self) -> str:
        return self.scripted.id

    @property
    def received_bytes(self) -> int:
        """What the server has sent it in all, but for headers."""
        return self.scripted.device.client.stats["in_bytes"]

    async def look(self, keys: dict[str, bytes]) -> None:
        """Read the gate, follow it, and report if that has changed anything."""
        found = await self.scripted.device.bucket(ROLLOUT).get(CLASS)
        if found is None:
            return
        opened = open_envelope(found.value, keys, payload_type=GATE_TYPE)
        gate = parse_gate(opened.payload, fleet="home", name=CLASS)
        if self.gate is not None and gate.order <= self.gate.order:
            if gate != self.gate:
                self.refused.append(gate)
            return
        self.gate = gate
        phase = await self._follow(gate, keys)
        await self.report(phase)

    async def _follow(self, gate: Gate, keys: dict[str, bytes]) -> LayerPhase:
        if gate.state == "aborted":
            reached = self.begun == gate.generation
            if reached and self.followed[-1] != gate.stable_generation:
                self.followed.append(gate.stable_generation)
            return "RolledBack" if reached else "Waiting"
        if self.begun != gate.generation and not await self._may_begin(gate, keys):
            return "Waiting"
        if self.begun != gate.generation:
            self.begun = gate.generation
            self.followed.append(gate.generation)
        return "Admitted" if gate.generation in self.breaks else "Applied"

    async def _may_begin(self, gate: Gate, keys: dict[str, bytes]) -> bool:
        place = find_place("home", CLASS, gate.generation, self.id)
        if not is_let_in(gate, place, {}):
            return False  # and nothing that is dear was read for it
        key = f"{CLASS}.{gate.generation}"
        manifest = await self.scripted.device.bucket(DESIRED_CLASS).get(key)
        index = await self.scripted.device.bucket(FLEET).get(INDEX_KEY)
        assert manifest is not None
        assert index is not None
        opened = open_envelope(manifest.value, keys, payload_type=CLASS_TYPE)
        return may_begin(
            parse_class_manifest(opened.payload, fleet="home", name=CLASS),
            gate,
            parse_index(
                open_envelope(index.value, keys, payload_type=FLEET_TYPE).payload, fleet="home"
            ),
            place=place,
            labels={},
            now=datetime.now(UTC),
        ).may

    async def report(self, phase: LayerPhase) -> None:
        """Say what it follows, and how that went."""
        assert self.gate is not None
        generation = self.followed[-1] if self.followed else 0
        outcome = failure("JobFailed", "on purpose") if generation in self.breaks else Success()
        status = attrs.evolve(page(outcome, generation), layer=_LAYER, since=rfc3339(_now()))
        layer = LayerStatus(
            generation=generation,
            observed_generation=generation,
            wanted=self.gate.generation,
            gate=self.told_gate or (self.gate.term, self.gate.seq),
            phase=phase,
            reason="Aborted" if self.gate.state == "aborted" else "",
            message="",
            since=rfc3339(_now()),
        )
        pages = {"motd": status} if generation else {}
        state = attrs.evolve(self.scripted.state(0, pages), layers={_LAYER: layer})
        await self.scripted.report(state)


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.frozen
class LightFleet:
    """All of them, and the control plane."""

    bus: Bus
    reports: Reports
    devices: Sequence[LightDevice]
    keys: dict[str, bytes]

    def rollout(self, cls: type[Rollout] = Rollout, signer: Signer | None = None) -> Rollout:
        """Return a controller, which has seen nothing yet."""
        return cls(self.bus.home, self.bus.admin, self.reports, CLASS, gate_signer=signer)

    async def look(self) -> None:
        """Have each device look once."""
        async with asyncio.TaskGroup() as group:
            for each in self.devices:
                group.create_task(each.look(self.keys))

    async def publish(self, text: str, upto: Sequence[str]) -> Published:
        """Write a new generation, and open its first wave."""
        documents = await ClassDocuments.open(self.bus.home, self.bus.admin)
        wish = Wish(selector="", scores={"motd": score(text)}, upto=[(each, 0) for each in upto])
        return await publish(documents, self.reports, CLASS, lambda _: wish)

    async def go(self, rollout: Rollout) -> Gate:
        """Step after step until there is no other; return the gate then."""
        while True:
            await self.look()
            found = await rollout.step()
            if found.next is None and not found.progress.counts["Progressing"]:
                return found.progress.gate

    def by_place(self, generation: int) -> list[LightDevice]:
        """Return the devices in the order in which that generation comes to them."""
        return sorted(self.devices, key=lambda each: find_place("home", CLASS, generation, each.id))


@asynccontextmanager
async def light_fleet(root: Path, count: int) -> AsyncGenerator[LightFleet]:
    """So many devices on a real server; each was heard."""
    names = [f"pi-{each + 1}" for each in range(count)]
    async with serving(root, *names) as bus:
        devices = [LightDevice(ScriptedDevice(await bus.device(name))) for name in names]
        yield await _begin(bus, devices)


@asynccontextmanager
async def large_light_fleet(root: Path, count: int) -> AsyncGenerator[LightFleet]:
    """As `light_fleet`, of devices that share one connection with the control plane's rights: to let in a
    thousand takes minutes. Each signs with its own key all the same."""
    keys = {f"pi-{each + 1}": generate_key() for each in range(count)}
    async with serving(root) as bus, admin(bus.home) as shared:
        enrolled = {
            name: Enrolled(Nkey.new().public, new_mailbox(), key.public.to_text())
            for name, key in keys.items()
        }
        await asyncio.to_thread(bus.home.save_agents, enrolled)
        devices = [
            LightDevice(ScriptedDevice(Device(name, shared, [], enrolled[name].mailbox, key)))
            for name, key in keys.items()
        ]
        yield await _begin(bus, devices)


async def _begin(bus: Bus, devices: Sequence[LightDevice]) -> LightFleet:
    for each in devices:
        await each.scripted.beat()
    documents = await ClassDocuments.open(bus.home, bus.admin)
    return LightFleet(bus, Reports(bus.home, bus.admin), devices, dict(documents.believed.keys))
