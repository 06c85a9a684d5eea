"""Whole agents on folders, each in a child of its own, so that a tracer can do its worst to it.

Run as a program, it answers each line of JSON on its input (`Case`) with one on its output: how the child
ended, as `os.waitpid` says it. A child is an agent with its own memory on disk, real threads and real
files; only the bus is a variable. It ends once it has told that its newest manifest is dealt with.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import attrs
import cattrs

from harmony_agent.agent import Agent
from harmony_agent.bus.connection import Bus
from harmony_agent.config import AgentConfig, TopologyTable, TrustTable
from harmony_agent.store.database import Database
from harmony_agent.store.ledger import Ledger
from harmony_agent.wiring import assemble, discover_here, policy_of
from harmony_core import plugins
from harmony_core.outcome import Noop, Success
from harmony_core.plugins import Registry
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.manifest import Manifest
from harmony_scores import DirectoryScore, FileScore
from tests.agent.rig import entry
from tests.agent.virtual import VariableBus
from tests.authority import NATS, REPORT

__all__ = ["Case"]

_WITHIN_S = 30.0
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
    is_watched: bool = False
    """Whether it is written down what the agent knew at its start (`started.json`), and, line by line, what
    it was asked for and has said to anybody (`said`)."""


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
        scores=tuple(
            entry(score, path.strip("/").replace("/", "-")) for path, score in wanted.items()
        ),
    )
    return seal(manifest.payload(), key)


def _config(folder: Path, key: SigningKey) -> AgentConfig:
    return AgentConfig(
        agent_id="pi-1",
        fleet="home",
        path=folder / "etc" / "agent.toml",
        state_directory=folder / "state",
        runtime_directory=folder / "run",
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


async def _converge(case: Case, key: SigningKey) -> None:
    folder, bus = Path(case.folder), VariableBus()
    if case.is_watched:
        _write_line(folder / "said", {"asked": case.generation})
    config = _config(folder, key)
    bus.put(_sealed(case, key))
    async with await Database.open(config.state_directory / "agent.db") as database:
        ledger = await Ledger.load(database)
        found = discover_here(
            plugins.load().providers,
            config.topology,
            config.state_directory,
            cast("Bus", bus),
            policy_of(config),
            ledger,
        )
        registry = Registry([FileScore, DirectoryScore])
        agent = await assemble(config, database, ledger, registry, found, cast("Bus", bus))
        tasks = [asyncio.create_task(agent.run())]
        if case.is_watched:
            (folder / "started.json").write_text(json.dumps(await _known(agent, database)))
            tasks.append(asyncio.create_task(_watch(folder / "said", bus, agent)))
        try:
            await _told(bus, case)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
            await found.close()
    assert bus.told is not None
    (folder / "told.json").write_bytes(to_json(bus.told))


async def _known(agent: Agent, database: Database) -> Mapping[str, object]:
    desired = agent.desired
    return {
        "generation": desired.generation,
        "floor": desired.floor.generation if desired.floor else 0,
        "floor_lost": desired.floor_lost,
        "damaged": str(database.damaged or ""),
        "reserved": await database.read("SELECT reserved FROM report_counter"),
        "events": [json.loads(each) for (each,) in await database.read("SELECT json FROM event")],
    }


async def _watch(path: Path, bus: VariableBus, agent: Agent) -> None:
    """Write down each report and event."""
    bus.on_told = lambda state: _write_line(path, {"report": json.loads(to_json(state))})
    async for event in agent.controller.events.follow():
        _write_line(path, {"event": event})


def _write_line(path: Path, said: Mapping[str, object]) -> None:
    """Add it in one call, so that who counts calls has it as a whole."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(said).encode() + b"\n")


def _child(case: Case, key: SigningKey) -> None:
    answer = 1
    try:
        asyncio.run(_converge(case, key))
        answer = 0
    except BaseException:  # noqa: BLE001 - it ends with the child
        traceback.print_exc()
    finally:
        os._exit(answer)


def _say(answer: Any) -> None:
    # By a call that is not struck: a tracer counts this process' own calls, too.
    os.writev(1, [json.dumps(answer).encode() + b"\n"])


def main() -> None:
    """Serve until the input ends."""
    # A tracer that is no ancestor needs leave on machines that are careful with it (PR_SET_PTRACER).
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))
    key = generate_key()
    for line in sys.stdin:
        case = cattrs.structure(json.loads(line), Case)
        pid = os.fork()
        if pid == 0:
            _child(case, key)
        _say(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
