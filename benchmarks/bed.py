"""What everything is measured on: the real nats-server, with agents and floors connected as devices.

A push is timed from when its signed envelope is handed to the bus until the report of it is seen by an
ordered consumer. Agent and floor have the same rights, the same server and the same hand that pushes.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import attrs
from nats.aio.msg import Msg

from harmony_control.store import operator_key
from harmony_control.store.home import write_toml
from harmony_core.wire.envelope import Signer, seal
from harmony_core.wire.manifest import Manifest, SerializedScore, target_of
from tests.nats import Bus, serving

from .cache import cache
from .processes import tree

__all__ = [
    "Bed",
    "Program",
    "agent_command",
    "file_scores",
    "floor_account",
    "floor_command",
    "floor_start",
    "making",
]

_UNIT = Path(__file__).parent.parent / "deploy" / "harmony-agent.service"
_SEEN_WITHIN_S = 30.0
_READY_WITHIN_S = 30.0
_READS = "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state"


class _Stream(Protocol):
    """What is used of nats-py's JetStream, whose own signatures are half typed."""

    async def subscribe(self, subject: str, *, cb: Any, ordered_consumer: bool) -> object: ...


class _Client(Protocol):
    """And of its plain connection."""

    async def subscribe(self, subject: str, *, cb: Any) -> object: ...


@contextmanager
def _scratch() -> Generator[Path]:
    """Beside the cache and not below /tmp, which may be memory: flushing has to cost what it costs."""
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=cache()))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def file_scores(directory: str, count: int, content: str) -> list[SerializedScore]:
    """*count* files, each of *content* and its number."""
    return [
        SerializedScore(
            id=f"file-{number:03}",
            kind="FileScore",
            version=1,
            spec={"path": f"{directory}/file-{number:03}", "content": f"{content}{number}\n"},
        )
        for number in range(count)
    ]


@attrs.frozen
class Program:
    """An agent, or a floor, that runs."""

    pid: int
    began: float
    """When it was started, by `time.perf_counter`."""
    _process: asyncio.subprocess.Process

    @property
    def pids(self) -> list[int]:
        return tree(self.pid)

    async def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def round_ms(self) -> float:
        """Have a floor that waits for it do one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return float(await self.line())

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()


class Bed:
    """One server, and whoever is connected to it. Make it with `making`."""

    def __init__(self, bus: Bus, root: Path, key: Signer, stack: AsyncExitStack) -> None:
        self.bus = bus
        self.root = root
        self._key = key
        self._stack = stack
        self._generations: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._pushed: dict[str, set[str]] = {}
        self._observed: dict[str, int] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self._read_at: dict[str, float] = {}
        self._turned = asyncio.Event()

    async def watch(self) -> None:
        """See every report from now on, and every reading of a desired state."""
        stream: _Stream = self.bus.admin.jetstream()
        await stream.subscribe("$KV.actual-state.*", cb=self._see, ordered_consumer=True)
        client: _Client = self.bus.admin
        await client.subscribe(f"{_READS}.*", cb=self._see_read)
        await self.bus.admin.flush()

    async def _see_read(self, message: Msg) -> None:
        self._read_at[message.subject.rpartition(".")[2]] = time.perf_counter()
        self._turned.set()

    async def _see(self, message: Msg) -> None:
        agent = message.subject.rpartition(".")[2]
        if message.data:
            self._reports[agent] = json.loads(message.data)
            self._observed[agent] = self._reports[agent]["observed_generation"]
            self._turned.set()

    def sealed(self, agent: str, scores: Sequence[SerializedScore]) -> tuple[int, bytes]:
        """Return the next generation of *agent*'s manifest: its number, and the signed envelope."""
        generation = self._generations[agent] = self._generations.get(agent, 0) + 1
        manifest = Manifest(
            fleet="home",
            target=target_of(agent),
            generation=generation,
            issued_at=datetime.now(UTC),
            removals_allowed=10_000,
            scores=tuple(scores),
        )
        return generation, seal(manifest.payload(), self._key)

    async def push(self, agent: str, scores: Sequence[SerializedScore]) -> float:
        """Milliseconds until the report of *scores* was seen."""
        generation, envelope = self.sealed(agent, scores)
        self._pushed[agent] = {score.id for score in scores}
        began = time.perf_counter()
        await self.put(agent, envelope)
        return await self.seen_ms(agent, generation, began)

    async def put(self, agent: str, envelope: bytes) -> None:
        """Hand *envelope* to the bus, by compare-and-swap."""
        last = self._revisions.get(agent, 0)
        bucket = self.bus.bucket("desired-state")
        self._revisions[agent] = await bucket.update(agent, envelope, last=last)

    async def seen_ms(self, agent: str, generation: int, began: float) -> float:
        """Milliseconds from *began* until *agent* has told of *generation*."""
        async with asyncio.timeout(_SEEN_WITHIN_S):
            while self._observed.get(agent, 0) < generation:
                self._turned.clear()
                await self._turned.wait()
        return (time.perf_counter() - began) * 1_000

    async def read_ms(self, agent: str, began: float) -> float:
        """Milliseconds from *began* until *agent* has asked for its desired state."""
        async with asyncio.timeout(_SEEN_WITHIN_S):
            while self._read_at.get(agent, 0.0) < began:
                self._turned.clear()
                await self._turned.wait()
        return (self._read_at[agent] - began) * 1_000

    async def until(self, agent: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the newest report of *agent* *holds*."""
        async with asyncio.timeout(_SEEN_WITHIN_S):
            while agent not in self._reports or not holds(self._reports[agent]):
                self._turned.clear()
                await self._turned.wait()

    def statuses(self, agent: str) -> set[str]:
        """Return the statuses in the newest report of *agent*: of all Scores that were pushed, and no
        others."""
        report = self._reports[agent]
        assert not report["truncated"], report
        assert report["scores"].keys() == self._pushed[agent], report
        return {page["outcome"]["status"] for page in report["scores"].values()}

    async def agent(
        self,
        name: str,
        *,
        heartbeat_s: float = 30.0,
        prefix: Sequence[str] = (),
        python: Sequence[str] = (),
        environ: Mapping[str, str] = {},
        **topology: str,
    ) -> Program:
        """Start the real agent, as the device *name*, a folder below the bed unless *topology* says
        otherwise.

        *python* are the arguments of an interpreter that runs it, rather than the installed command.
        """
        config = await self.agent_config(name, heartbeat_s=heartbeat_s, **topology)
        with self.log(name).open("ab") as log:
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                *prefix,
                *agent_command(config, python),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **unit_environment(), **environ},
            )
        return self._kept(Program(process.pid, began, process))

    async def agent_config(self, name: str, *, heartbeat_s: float = 30.0, **topology: str) -> Path:
        """agent.toml of *name*, enrolled if it is not yet."""
        table = await self._enrolled(name)
        folder = self.device(name)
        folder.mkdir(exist_ok=True)
        table |= {
            "state_directory": str(self.state(name)),
            "runtime_directory": str(self.root / f"{name}.run"),
            "heartbeat_s": heartbeat_s,
            "topology": {"root": str(folder), **topology},
        }
        path = self.root / f"{name}.toml"
        await asyncio.to_thread(write_toml, path, table)
        return path

    def device(self, name: str) -> Path:
        """Return the folder that stands for the device *name*."""
        return self.root / f"{name}.device"

    def state(self, name: str) -> Path:
        """Where the agent *name* keeps what it remembers."""
        return self.root / f"{name}.state"

    def log(self, name: str) -> Path:
        """Return the log of the agent *name*."""
        return self.root / f"{name}.log"

    async def floor(self, module: str, name: str, *, ready: bool = True, **more: object) -> Program:
        """Start the floor *module*, as the device *name*. Return it once it is *ready*, if it reports that at
        all."""
        told = await self.told(name, **more)
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *floor_command(module, told),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        program = self._kept(Program(process.pid, began, process))
        if ready:
            async with asyncio.timeout(_READY_WITHIN_S):
                assert (await program.line()).startswith("ready")
        return program

    async def told(self, name: str, **more: object) -> Path:
        """Write the file that tells a floor who it is, and return its path."""
        table = await self._enrolled(name)
        directory = self.root / f"{name}.floor"
        directory.mkdir(exist_ok=True)
        told: Mapping[str, object] = {
            **floor_account(table["nats"]),
            "agent": name,
            "key": self._key.public.public.hex(),
            "directory": str(directory),
            "database": str(directory / "floor.db"),
            "root": None,
            **more,
        }
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(told))
        return path

    async def _enrolled(self, name: str) -> dict[str, Any]:
        if name not in self.bus.home.agents():
            await self.bus.enrol(name)
        return tomllib.loads(self.bus.home.agent_toml(name).read_text())

    def _kept(self, program: Program) -> Program:
        self._stack.push_async_callback(program.stop)
        return program


@asynccontextmanager
async def making() -> AsyncGenerator[Bed]:
    """Make a bed of its own, in a directory that is deleted with it."""
    with _scratch() as root:
        async with serving(root) as bus, AsyncExitStack() as stack:
            bed = Bed(bus, root, operator_key.load(bus.home), stack)
            await bed.watch()
            yield bed


def agent_command(config: Path, python: Sequence[str] = ()) -> list[str]:
    """Return the command that a device's service unit runs; or one that runs it with *python*."""
    installed = [str(Path(sys.executable).with_name("harmony-agent"))]
    return [*([sys.executable, *python] if python else installed), "run", "--config", str(config)]


def unit_environment() -> dict[str, str]:
    """Return what a device's service unit puts into the agent's environment."""
    lines = _UNIT.read_text().splitlines()
    given = (line.removeprefix("Environment=") for line in lines if line.startswith("Environment="))
    return dict(each.split("=", 1) for each in given)


def floor_account(nats: Mapping[str, Any]) -> dict[str, object]:
    """Return what a floor is told about the bus: all of agent.toml's table of it, and the one address by
    itself."""
    return {**nats, "url": nats["servers"][0]}


def floor_command(module: str, told: Path) -> list[str]:
    """Return the command that runs a floor."""
    return [sys.executable, "-c", floor_start(module), str(told)]


def floor_start(module: str) -> str:
    """Return the program that an interpreter runs."""
    return f"from benchmarks.floors.{module} import main; main()"
