"""One device on a real bus, with files that are made up: what the agent's own tests stand on."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from harmony_agent.store.database import Database
from harmony_control.bus.classes import hint_devices
from harmony_core import (
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.change import NotReady
from harmony_core.errors import FactMissing
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState, ScoreStatus, from_json
from harmony_core.wire.class_manifest import CLASS_TYPE, PLACES, ClassManifest
from harmony_core.wire.envelope import Signer, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex
from harmony_core.wire.gate import GATE_TYPE, Gate
from harmony_core.wire.manifest import Manifest, SerializedScore
from harmony_core.wire.names import DESIRED_CLASS, FLEET, INDEX_KEY, ROLLOUT
from tests.device import running_agent
from tests.nats import Bus

__all__ = [
    "Broken",
    "Note",
    "Rig",
    "Several",
    "Sleeper",
    "Unit",
    "Unready",
    "code",
    "entry",
    "status",
]


class Note(Score[HasFiles]):
    path: str = "/etc/note"
    text: str = "hello"

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        note = File(path=self.path, content=self.text.encode())
        return outcome_of(await topology.files.ensure(note))


class Unit(Score[HasSystemd]):
    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        raise AssertionError("not to be interpreted where there is no systemd")


class Sleeper(Score[HasSystemd]):
    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        content = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
        unit = SystemdUnit(name="sleeper.service", content=content, enabled=None)
        return outcome_of(await topology.systemd.ensure(unit))


class Several(Score[HasFiles]):
    """Several files of one text, in the order in which they are written; some only where a label says so."""

    paths: tuple[str, ...]
    text: str = "hello"
    asks: str = ""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        wanted = [File(path=path, content=self.text.encode()) for path in self.paths]
        if self.asks:
            try:
                wanted = wanted if inventory.labels[self.asks] == "yes" else []
            except FactMissing:
                wanted = []
        return outcome_of(await topology.files.ensure(*wanted))


class Unready(Score[HasFiles]):
    """A file that is in place, and never serves."""

    path: str = "/etc/unready"

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        await topology.files.ensure(File(path=self.path, content=b"unready"))
        raise NotReady("is being waited for", resource=f"file:{self.path}", look_again_s=0.05)


class Broken(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise ZeroDivisionError("a defect")


def entry(score: Score[Any], id: str, **more: Any) -> SerializedScore:
    return SerializedScore(
        id=id, kind=score.kind, version=score.version, spec=score.model_dump(mode="json"), **more
    )


@attrs.define
class Rig:
    """One device's control plane, by hand: signs and puts, and reads what is said."""

    bus: Bus
    root: Path
    key: Signer
    files: FakeFiles
    gates: int = 0
    """How many were written."""
    first: str = ""
    """The hash of a class's first generation."""

    async def put(self, generation: int, *entries: SerializedScore, **fields: Any) -> None:
        await self.put_bytes(self.sealed(generation, *entries, **fields))

    def sealed(self, generation: int, *entries: SerializedScore, **fields: Any) -> bytes:
        fields = {"fleet": "home", "target": "agent:pi-1", **fields}
        manifest = Manifest(
            generation=generation, issued_at=datetime.now(UTC), scores=entries, **fields
        )
        return seal(manifest.payload(), self.key)

    async def put_index(self, generation: int, key: Signer | None = None, **fields: Any) -> None:
        """Write the fleet index; of classes: who belongs to each from its first generation on."""
        index = FleetIndex(
            fleet="home", generation=generation, issued_at=datetime.now(UTC), **fields
        )
        value = seal(index.payload(), key or self.key, payload_type=FLEET_TYPE)
        await self.bus.bucket(FLEET).put(INDEX_KEY, value)
        await hint_devices(self.bus.admin, ["pi-1"])

    async def put_class(
        self,
        name: str,
        generation: int,
        *entries: SerializedScore,
        key: Signer | None = None,
        **fields: Any,
    ) -> str:
        """Write one generation of a class. Return the hash by which a gate knows it."""
        fields = {"issued_at": datetime.now(UTC), **fields}
        manifest = ClassManifest(
            fleet="home",
            target=f"class:{name}",
            generation=generation,
            scores=entries,
            **fields,
        )
        value = seal(manifest.payload(), key or self.key, payload_type=CLASS_TYPE)
        await self.bus.bucket(DESIRED_CLASS).put(f"{name}.{generation}", value)
        return hashlib.sha256(manifest.payload()).hexdigest()

    async def open_gate(
        self,
        name: str,
        generation: int,
        sha256: str,
        *,
        key: Signer | None = None,
        also: Sequence[Signer] = (),
        **fields: Any,
    ) -> None:
        """Write a gate of a class: open for all, unless *fields* say otherwise. *also* sign it, too."""
        self.gates += 1
        fields = {"state": "running", "places": PLACES, "term": 1, **fields}
        gate = Gate(
            fleet="home",
            name=name,
            generation=generation,
            sha256=sha256,
            issued_at=datetime.now(UTC),
            seq=self.gates,
            **fields,
        )
        value = seal(gate.payload(), key or self.key, *also, payload_type=GATE_TYPE)
        await self.bus.bucket(ROLLOUT).put(name, value)
        await hint_devices(self.bus.admin, ["pi-1"], name)

    async def put_bytes(self, value: bytes) -> None:
        await self.bus.bucket("desired-state").put("pi-1", value)

    async def state(self) -> ActualState | None:
        found = await self.bus.bucket("actual-state").get("pi-1")
        return from_json(found.value, ActualState) if found and found.value else None

    async def until(
        self, holds: Callable[[ActualState], bool], *, within_s: float = 10
    ) -> ActualState:
        last = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    last = await self.state()
                    if last is not None and holds(last):
                        return last
                    await asyncio.sleep(0.02)
        raise AssertionError(f"never so; last seen: {last}")

    async def seen(self, generation: int) -> Mapping[str, ScoreStatus]:
        """Every Score, once all were looked at under *generation*."""
        state = await self.until(lambda state: state.observed_generation >= generation)
        return state.scores

    async def worked(self) -> None:
        """Its queue has advanced twice since this was asked: what was due has had its turn."""
        seen: set[int] = set()
        async with asyncio.timeout(10):
            while len(seen) < 3:
                if beat := await self.bus.bucket("heartbeat").get("pi-1"):
                    seen.add(beat.revision)
                await asyncio.sleep(0.02)

    async def events(self) -> Sequence[Mapping[str, Any]]:
        """What the agent has noted of its changes; not while it runs."""
        async with await Database.open(self.root / "state" / "agent.db") as database:
            return [json.loads(text) for (text,) in await database.read("SELECT json FROM event")]

    @asynccontextmanager
    async def agent(
        self, offers: Offers | None = None, *, kinds: Sequence[type[Score[Any]]] = ()
    ) -> AsyncGenerator[None]:
        async with running_agent(
            self.bus.home,
            "pi-1",
            self.root,
            registry=Registry([Note, Several, Sleeper, Unready, Unit, Broken, *kinds]),
            offers={"FileSystemHost": self.files} if offers is None else offers,
            missing={"SystemdHost": "no systemd here"},
            secret_values=self.files.secret_values,
        ):
            yield


def status(scores: Mapping[str, ScoreStatus]) -> dict[str, str]:
    return {name: page.outcome.status for name, page in scores.items()}


def code(page: ScoreStatus) -> str:
    assert isinstance(page.outcome, Failure)
    return page.outcome.error.code
