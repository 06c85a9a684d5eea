"""Whole agents on folders, each in a child of its own, so that a tracer can do its worst to it.

Run as a program, it reads a line of JSON for each child (`Case`). The child says what it tells its bus, a
line `Told` each, and goes on when it is answered by an empty line: so whoever asked can look at the device at
that very moment. Then comes how it ended (`Ended`).

A child is an agent with its own memory on disk, real threads and real files; only the bus is a variable. It
ends once it has told that its newest manifest is dealt with.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import cast

import attrs
import cattrs

import harmony_agent
import harmony_core
import harmony_pi_topology
from harmony_agent.bus.connection import Bus
from harmony_agent.config import AgentConfig, TopologyTable, TrustTable
from harmony_agent.single_instance import alone
from harmony_agent.store.database import Database
from harmony_agent.store.ledger import Ledger
from harmony_agent.wiring import assemble, discover_here, policy_of
from harmony_core import plugins
from harmony_core.errors import HarmonyError
from harmony_core.outcome import Noop, Success
from harmony_core.plugins import Provider, Registry
from harmony_core.wire.actual_state import ActualState, to_json
from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.manifest import Manifest
from harmony_scores import DirectoryScore, FileScore
from tests.agent.rig import entry
from tests.agent.virtual import VariableBus
from tests.authority import NATS, REPORT

__all__ = ["DEFECT", "DONE", "GAVE_UP", "Case", "Ended", "Told", "id_of"]

DONE, DEFECT, GAVE_UP = 0, 1, 2
"""How a child ends that is not killed. It gives up as the program does, which is started again."""
_WITHIN_S = 30.0
_HEARTBEAT_S = 0.5
"""What is not a Score's own trouble, such as a disk that took nothing, is looked at again with it."""
_ISSUED_AT = datetime(2026, 1, 1, tzinfo=UTC)
"""A generation that is asked for again is the same to the last bit."""


@attrs.frozen(kw_only=True)
class Case:
    """A device below *folder*, and what it shall be from *generation* on."""

    folder: str
    generation: int
    files: Mapping[str, str]
    """Contents by path."""
    directories: Mapping[str, str]
    """Modes by path."""


@attrs.frozen
class Told:
    """What the agent tells: JSON of an `ActualState`."""

    told: str


@attrs.frozen
class Ended:
    """How the child ended: what `os.waitpid` says."""

    status: int


def id_of(path: str) -> str:
    """Return the id of the Score that wants *path*."""
    return path.strip("/").replace("/", "-")


def _sealed(case: Case, key: SigningKey) -> bytes:
    wanted: dict[str, FileScore | DirectoryScore] = {
        **{path: FileScore(path=path, content=text) for path, text in case.files.items()},
        **{
            path: DirectoryScore.model_validate({"path": path, "mode": mode})
            for path, mode in case.directories.items()
        },
    }
    manifest = Manifest(
        fleet="home",
        target="agent:pi-1",
        generation=case.generation,
        issued_at=_ISSUED_AT,
        scores=tuple(entry(score, id_of(path)) for path, score in wanted.items()),
    )
    return seal(manifest.payload(), key)


def _config(folder: Path, key: SigningKey) -> AgentConfig:
    return AgentConfig(
        agent_id="pi-1",
        fleet="home",
        path=folder / "etc" / "agent.toml",
        state_directory=folder / "state",
        runtime_directory=folder / "run",
        heartbeat_s=_HEARTBEAT_S,
        nats=NATS,
        report=REPORT,
        trust=TrustTable(operator_keys=(key.public.to_text(),)),
        topology=TopologyTable(root=folder / "device"),
    )


async def _told(bus: VariableBus, case: Case) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not _is_dealt_with(bus, case):
            await asyncio.sleep(0.002)


def _is_dealt_with(bus: VariableBus, case: Case) -> bool:
    state = bus.told
    return (
        state is not None
        and state.observed_generation == case.generation
        and len(state.scores) == len(case.files) + len(case.directories)
        and all(isinstance(page.outcome, Success | Noop) for page in state.scores.values())
    )


async def _converge(case: Case, key: SigningKey, providers: Sequence[Provider]) -> bool:
    """Run an agent until *case* is dealt with. Return whether to begin anew, as `startup.run` has it."""
    folder, bus = Path(case.folder), VariableBus()
    bus.on_told = _tell
    config = _config(folder, key)
    bus.put(_sealed(case, key))
    begins_anew = False
    path = config.state_directory / "agent.db"
    async with await Database.open(path, scratch=config.runtime_directory) as database:
        ledger = await Ledger.load(database)
        found = discover_here(
            providers,
            config.topology,
            config.state_directory,
            cast("Bus", bus),
            policy_of(config),
            ledger,
        )
        registry = Registry([FileScore, DirectoryScore])
        agent = await assemble(config, database, ledger, registry, found, cast("Bus", bus))
        running = asyncio.create_task(agent.run())
        telling = asyncio.create_task(_told(bus, case))

        def begin_anew() -> None:
            nonlocal begins_anew
            begins_anew = True
            telling.cancel()

        database.on_sight = begin_anew
        try:
            with suppress(asyncio.CancelledError):
                await telling
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await found.close()
    return begins_anew


def _child(case: Case, key: SigningKey, providers: Sequence[Provider]) -> None:
    answer = DEFECT
    try:
        with alone(_config(Path(case.folder), key).state_directory):
            while asyncio.run(_converge(case, key, providers)):
                pass
        answer = DONE
    except (HarmonyError, OSError) as error:  # as the program itself
        print(f"gave up: {error!r}", file=sys.stderr)
        answer = GAVE_UP
    except BaseException:  # noqa: BLE001 - it ends with the child
        traceback.print_exc()
    finally:
        os._exit(answer)


def _tell(state: ActualState) -> None:
    _say(Told(to_json(state).decode()))
    _hear()


# A tracer counts this process' own calls, too: it speaks and hears by such as are not struck.


def _say(answer: Told | Ended) -> None:
    os.writev(1, [json.dumps(cattrs.unstructure(answer)).encode() + b"\n"])


def _hear() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = bytearray(1)
        if os.readv(0, [piece]) == 0:
            return b""
        line += piece
    return bytes(line)


def _lines() -> Iterator[bytes]:
    """Yield what is asked. An answer to a child that was killed before it heard it is nothing to us."""
    while line := _hear():
        if line.strip():
            yield line


def _load_everything(package: ModuleType) -> None:
    """So that what is struck is an agent at work, and not Python that loads it."""
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "testing" not in each.name and "__main__" not in each.name:
            importlib.import_module(each.name)


def main() -> None:
    """Serve until the input ends."""
    # A tracer that is no ancestor needs leave on machines that are careful with it (PR_SET_PTRACER).
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))
    for package in (harmony_core, harmony_pi_topology, harmony_agent):
        _load_everything(package)
    key, providers = generate_key(), plugins.load().providers
    for line in _lines():
        case = cattrs.structure(json.loads(line), Case)
        pid = os.fork()
        if pid == 0:
            _child(case, key, providers)
        _say(Ended(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
