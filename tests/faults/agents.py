"""Whole agents over folders, each a process of its own: the wiring of `harmony-agent run`, save for what a
folder has not.

Run as a program it starts one for each line of JSON on its input (`Case`), and answers each with its pid.
All that an agent needs is loaded once, and an agent is a fork. All end with this program.

What is put in place of a device's own: systemd is on a private bus, podman at a socket of its own, and
each file is beneath a folder. Every verb that changes the device says so in shared memory for as long as
it lasts (`Applying`), by which a fault is seen to hit an apply.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import json
import logging
import mmap
import os
import signal
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import cattrs

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus
from harmony_agent.config import AgentConfig, TopologyTable
from harmony_agent.single_instance import alone
from harmony_agent.store.backups import DirectoryBackups
from harmony_agent.store.database import Database
from harmony_agent.store.ledger import Ledger
from harmony_agent.wiring import assemble, discover_here, policy_of
from harmony_core import plugins
from harmony_core.reconciler import AnyReconciler
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.discovery import Discovery
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.reconciler import SdbusSystemd

__all__ = ["Apply", "Applying", "Case"]

log = logging.getLogger(__name__)

_ANSWER_WITHIN_S = 10.0
"""Of podman: shorter than a device's minute, or a run of thousands of faults would wait for hours."""
_PDEATHSIG = 1
_FIRST_TRY_S = 1.0


@attrs.frozen(kw_only=True)
class Case:
    """One device: its agent.toml, and where everything is."""

    toml: str
    disk: str
    """Its root and what its agent remembers are here."""
    run: str
    """What does not outlive a boot, the sockets of its daemons, and the log of its agent."""


@attrs.frozen
class Apply:
    """What is being changed."""

    under_way: int
    """How many verbs are."""
    begun: int
    """How often there was one after none: another number is another apply."""
    generation: int
    """Of the manifest that was in force when the newest verb began."""

    def is_still(self, before: Apply) -> bool:
        """Return whether what was under way *before* has not ended since."""
        return bool(before.under_way and self.under_way) and before.begun == self.begun


class Applying:
    """What one device is being changed by, in shared memory."""

    _FORM = struct.Struct("<IQQ")

    def __init__(self, run: Path) -> None:
        self.find_generation: Callable[[], int] = lambda: 0
        with (run / "applying").open("ab+") as file:
            file.truncate(self._FORM.size)
            self._memory = mmap.mmap(file.fileno(), self._FORM.size)

    @property
    def now(self) -> Apply:
        return Apply(*self._FORM.unpack(self._memory))

    def begin(self) -> None:
        now = self.now
        begun = now.begun + (not now.under_way)
        self._FORM.pack_into(self._memory, 0, now.under_way + 1, begun, self.find_generation())

    def end(self) -> None:
        now = self.now
        self._FORM.pack_into(self._memory, 0, now.under_way - 1, now.begun, now.generation)

    def forget(self) -> None:
        """Nothing is under way: whoever was killed says nothing of an end."""
        self._FORM.pack_into(self._memory, 0, 0, self.now.begun, 0)


def _traced(reconciler: AnyReconciler, applying: Applying) -> AnyReconciler:
    """*reconciler*, which says from now on when it changes something."""
    for verb in ("converge", "remove"):
        setattr(reconciler, verb, partial(_do, getattr(reconciler, verb), applying))
    return reconciler


async def _do(
    verb: Callable[..., Awaitable[Any]], applying: Applying, what: Sequence[Any], *, apply: bool
) -> Any:
    if not apply:
        return await verb(what, apply=False)
    applying.begin()
    try:
        return await verb(what, apply=True)
    finally:
        applying.end()


async def _no_tail(unit: str, lines: int) -> str:
    """These units log nothing."""
    del unit, lines
    return ""


def _discover(
    config: AgentConfig, bus: Bus, ledger: Ledger, run: Path, applying: Applying
) -> Discovery:
    root = config.topology.root
    found = discover_here(
        plugins.load().providers,
        config.topology,
        config.state_directory,
        bus,
        policy_of(config),
        ledger,
    )
    mine: dict[str, AnyReconciler] = {
        "SystemdHost": SdbusSystemd(
            records=ledger,
            backups=DirectoryBackups(config.state_directory / "originals"),
            address=f"unix:path={run}/bus",
            files=Root(str(root)),
            journal_tail=_no_tail,
        ),
        "ContainerRuntime": PodmanContainers(
            f"unix://{run}/podman.sock",
            records=ledger,
            root=root,
            answer_within_s=_ANSWER_WITHIN_S,
        ),
    }
    offers = {name: _traced(each, applying) for name, each in {**found.offers, **mine}.items()}
    missing = {name: why for name, why in found.missing.items() if name not in mine}
    return attrs.evolve(found, offers=offers, missing=missing)


async def _run(case: Case) -> None:
    disk, run = Path(case.disk), Path(case.run)
    config = configuration.load(Path(case.toml)).model_copy(
        update={
            "floor_directory": disk / "etc",
            "state_directory": disk / "state",
            "runtime_directory": run / "run",
            "heartbeat_s": 2.0,
            "topology": TopologyTable(root=disk / "root", podman_url=f"unix://{run}/podman.sock"),
        }
    )
    applying = Applying(run)
    applying.forget()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_tasks)
    with alone(config.state_directory):
        while await _run_once(config, run, applying):
            log.warning("the agent's database can be read again: beginning anew")


def _tell_tasks() -> None:
    """Tell what the agent waits for, for whoever looks for what went wrong."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def _run_once(config: AgentConfig, run: Path, applying: Applying) -> bool:
    """As `harmony_agent.startup` has it: whether to begin anew."""
    begins_anew = False
    bus = Bus.of(config)
    bus.begin()
    await bus.first_try(within_s=_FIRST_TRY_S)
    path, scratch = config.state_directory / "agent.db", config.runtime_directory
    async with await Database.open(path, scratch=scratch) as database:
        ledger = await Ledger.load(database)
        found = _discover(config, bus, ledger, run, applying)
        agent = await assemble(config, database, ledger, plugins.load(), found, bus)
        applying.find_generation = lambda: agent.desired.generation
        running = asyncio.create_task(agent.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)

        def begin_anew() -> None:
            nonlocal begins_anew
            begins_anew = True
            running.cancel()

        database.on_sight = begin_anew
        with suppress(asyncio.CancelledError):
            await running
        await found.close()
    return begins_anew


def _become(case: Case) -> None:
    """Be this agent, and nothing else, to the end."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Path(case.run, "log").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", force=True)
    status = 1
    try:
        asyncio.run(_run(case))
        status = 0
    except BaseException:
        log.exception("the agent has ended")
    finally:
        os._exit(status)


def main() -> None:
    """Serve until the input ends."""
    plugins.load()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that have ended
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(cattrs.structure(json.loads(line), Case))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
