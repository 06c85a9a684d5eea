"""An agent on a clock that jumps: real queue, ledger, plans and drift, over files and a bus that are made up.

What would take a day takes a moment, because whenever nothing can happen before some time, that time is at
once. So nothing here may use threads: the database runs in the loop, and the bus is a variable.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from harmony_agent.agent import Agent
from harmony_agent.bus.connection import Bus, Delivery
from harmony_agent.config import (
    AgentConfig,
    TopologyTable,
    TrustTable,
)
from harmony_agent.policy_toml import JobPolicy, PolicyTable
from harmony_agent.store.database import Database, Statement
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.schema import migrate
from harmony_agent.wiring import assemble
from harmony_core.errors import BusUnreachable
from harmony_core.plugins import Registry
from harmony_core.reconciler import Offers
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState, ScoreStatus, from_json
from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.manifest import Manifest, SerializedScore
from harmony_core.wire.names import DESIRED_CLASS, FLEET, INDEX_KEY, ROLLOUT
from harmony_core.wire.replies import End, Failed, Frame, from_frame
from harmony_core.wire.requests import Ask, new_request, seal_request
from harmony_pi_topology.common.worker import Worker
from harmony_pi_topology.discovery import Discovery
from tests.authority import NATS, REPORT

__all__ = ["VariableBus", "VirtualDevice", "running_device"]

P = ParamSpec("P")
T = TypeVar("T")


class _NoThreads(Worker):
    """Runs what it is given at once, in the loop."""

    def __init__(self) -> None:
        super().__init__("at once", threads=1, timeout_s=1)

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return func(*args, **kwargs)


class _Mortal(Database):
    """Once the process is killed, nothing is written any more, and nobody is told."""

    killed = False

    async def write(self, *statements: Statement) -> None:
        if self.killed:
            await asyncio.Future()
        await super().write(*statements)


class VariableBus:
    """What the agent uses of a bus, with a cable that can be pulled."""

    def __init__(self) -> None:
        self.up = True
        self.desired: bytes | None = None
        self.told: ActualState | None = None
        self.found_report: bytes | None = None
        self.hear: Callable[[], Awaitable[None]] | None = None
        """What becomes of a report that is sent; None for one that arrives."""
        self.on_told: Callable[[ActualState], None] = lambda _: None
        self.roots: dict[int, bytes] = {}
        self.classes: dict[str, bytes] = {}
        """Index, gates and generations of classes, by bucket and key."""
        self.on_class_hint: Callable[[str], None] = lambda _: None
        self._replies: dict[str, asyncio.Queue[Frame]] = {}
        self._news = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def on_connect(self, *listeners: Callable[[], None]) -> None:
        self._listeners += listeners

    def on_request(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        self._receive = receive

    async def reply(self, nonce: str, frame: bytes) -> None:
        if not self.up:
            raise BusUnreachable("the cable is out")
        await self._replies[nonce].put(from_frame(frame))

    async def ask(self, envelope: bytes, nonce: str) -> list[Frame]:
        """Return all frames of what is answered to *envelope*."""
        replies = self._replies[nonce] = asyncio.Queue[Frame]()
        await self._receive(envelope)
        frames = [await replies.get()]
        while not isinstance(frames[-1], End | Failed):
            frames.append(await replies.get())
        return frames

    def put(self, envelope: bytes) -> None:
        self.desired = envelope
        self._news.set()

    def pull_cable(self) -> None:
        self.up = False

    def plug_in(self) -> None:
        self.up = True
        self._news.set()
        for each in self._listeners:
            each()

    async def run(self) -> None:
        await asyncio.Future()

    async def first_answer(self, *, within_s: float) -> None:
        self._news.set()
        await asyncio.sleep(0.01 if self.up else within_s)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            await self._news.wait()
            self._news.clear()
            if self.up and self.desired is not None:
                yield Delivery(envelope=self.desired, fetched=True)

    def doubt(self) -> None:
        self._news.set()

    async def fetch_root(self, version: int) -> bytes | None:
        """Return that root document, if it was put there."""
        return self.roots.get(version)

    async def fetch_index(self) -> bytes | None:
        return self.classes.get(f"{FLEET}.{INDEX_KEY}")

    async def fetch_gate(self, name: str) -> bytes | None:
        return self.classes.get(f"{ROLLOUT}.{name}")

    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None:
        return self.classes.get(f"{DESIRED_CLASS}.{name}.{generation}")

    async def tell(self, actual_state: bytes) -> None:
        if not self.up:
            raise BusUnreachable("the cable is out")
        if self.hear is not None:
            await self.hear()
        self.told = from_json(actual_state, ActualState)
        self.on_told(self.told)

    async def tell_inventory(self, inventory: bytes) -> None:
        """Nobody reads it."""

    async def beat(self, heartbeat: bytes, *, lifetime_s: int) -> bool:
        """Nobody listens."""
        return True


@asynccontextmanager
async def running_device(
    root: Path, offers: Offers, *kinds: type[Score[Any]], jobs: JobPolicy = "none"
) -> AsyncGenerator[VirtualDevice]:
    """One that runs, with these *kinds* of Score; thrown away in the end."""
    device = VirtualDevice(
        root, generate_key(), Registry(kinds), offers, policy=PolicyTable(preset="open", jobs=jobs)
    )
    await device.start()
    try:
        yield device
    finally:
        await device.kill()
        device.close()


class VirtualDevice:
    """A device that can be pushed to, cut off, killed and started again."""

    def __init__(
        self,
        root: Path,
        key: SigningKey,
        registry: Registry,
        offers: Offers,
        *colleagues: SigningKey,
        policy: PolicyTable = PolicyTable(preset="open"),  # noqa: B008 - it is frozen
    ) -> None:
        self.bus = VariableBus()
        self.generation = 0
        self._key = key
        self._registry = registry
        self._offers = offers
        self._config = AgentConfig(
            agent_id="pi-1",
            fleet="home",
            path=root / "etc" / "agent.toml",
            state_directory=root / "state",
            runtime_directory=root / "run",
            nats=NATS,
            report=REPORT,
            trust=TrustTable(
                operator_keys=tuple(each.public.to_text() for each in (key, *colleagues))
            ),
            topology=TopologyTable(),
            policy=policy,
        )
        self._disk = sqlite3.connect(":memory:", check_same_thread=False)
        migrate(self._disk, Path(":memory:"))
        self._database: _Mortal | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._database = database = _Mortal(self._disk, _NoThreads())
        self.ledger = ledger = await Ledger.load(database)
        discovery = Discovery(offers=self._offers, missing={})
        self.agent: Agent = await assemble(
            self._config, database, ledger, self._registry, discovery, cast("Bus", self.bus)
        )
        self.bus.doubt()
        self._task = asyncio.create_task(self.agent.run())

    async def kill(self) -> None:
        """As SIGKILL: what is not in the database is lost."""
        assert self._task is not None
        assert self._database is not None
        self._database.killed = True
        # What waits for the dead database has to be cancelled twice: once more in its own `finally`.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for each in others:
                each.cancel()
            await asyncio.wait(others, timeout=0.001)

    async def reboot(self) -> None:
        """Killed, and started again with nothing in /run."""
        await self.kill()
        shutil.rmtree(self._config.runtime_directory)
        await self.start()

    def events(self) -> list[dict[str, Any]]:
        """The changes that it has noted, oldest first."""
        return [
            json.loads(text) for (text,) in self.mark_stored("SELECT json FROM event ORDER BY seq")
        ]

    def mark_stored(self, query: str) -> list[tuple[Any, ...]]:
        """What the database says, as it would after a power cut now."""
        rows: list[tuple[Any, ...]] = self._disk.execute(query).fetchall()
        return rows

    @contextmanager
    def commits(self) -> Generator[list[str]]:
        """Gathers what is flushed to disk meanwhile, one item a commit."""
        seen: list[str] = []
        self._disk.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
        try:
            yield seen
        finally:
            self._disk.set_trace_callback(None)

    def forget_page(self, score: str) -> None:
        """Take *score*'s page out of the database, as if it was never stored; not while the agent runs."""
        with self._disk:
            self._disk.execute("DELETE FROM score WHERE id = ?", (score,))

    def damage_page(self, score: str) -> None:
        """Make *score*'s page one that cannot be read; not while the agent runs."""
        with self._disk:
            self._disk.execute("UPDATE score SET state = '{' WHERE id = ?", (score,))

    def close(self) -> None:
        """The device is thrown away."""
        self._disk.close()

    def push(
        self, entries: Sequence[SerializedScore], *, by: SigningKey | None = None, **fields: Any
    ) -> None:
        """Push *entries*, all that is wanted, signed *by* one of its operators (the first)."""
        self.generation += 1
        manifest = Manifest(
            fleet="home",
            target="agent:pi-1",
            generation=self.generation,
            issued_at=datetime.now(UTC),
            scores=tuple(entries),
            **fields,
        )
        self.bus.put(seal(manifest.payload(), by or self._key))

    async def ask(self, ask: Ask, *, by: SigningKey | None = None) -> list[Frame]:
        """Return all frames of what it answers to *ask*, signed *by* one of its operators (the first)."""
        request = new_request(ask, fleet="home", agent_id="pi-1", now=datetime.now(UTC))
        return await self.bus.ask(seal_request(request, by or self._key), request.nonce)

    def put_of_class(
        self, at: str, payload: bytes, payload_type: str, by: SigningKey | None = None
    ) -> None:
        """Put a signed document of a class to *at*, bucket and key. Nobody is told of it."""
        self.bus.classes[at] = seal(payload, by or self._key, payload_type=payload_type)

    async def pages(
        self, entries: Sequence[SerializedScore], *, after_s: float = 600, **fields: Any
    ) -> Mapping[str, ScoreStatus]:
        """What is told of every Score, some time after *entries* were pushed."""
        self.push(entries, **fields)
        await asyncio.sleep(after_s)
        assert self.bus.told is not None
        assert self.bus.told.observed_generation == self.generation
        return self.bus.told.scores

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()
