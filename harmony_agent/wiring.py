"""Putting the agent together from its configuration: the one place that knows every part."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.errors import LedgerUnusable
from harmony_core.plugins import Registry
from harmony_core.reconciler import MemoryRecords
from harmony_pi_topology.discovery import Discovery, discover

from .agent import Agent
from .apply.controller import Interpreter
from .apply.crash_guard import Poison
from .apply.decoder import Decoder
from .apply.dependents import Dependents
from .apply.guard import Guarded
from .apply.holds import AppHolds
from .apply.policy import DevicePolicy
from .apply.prefetch import Preparation
from .apply.queue import WorkQueue
from .apply.reconcile_waiter import Turns
from .apply.removal import Removal
from .apply.rollback import Rollback
from .apply.runner import Device, Staging
from .bus.connection import Bus
from .bus.reachability import BusReachability
from .config import AgentConfig, TopologyTable
from .drift.backoff import Patience
from .drift.boot_marker import SinceBoot
from .drift.watcher import Drift
from .facts import agent_version, boot_id, read_facts
from .plan.desired import Desired
from .plan.ownership import Ownership
from .plan.plan_cache import Replay
from .plan.planner import Planner
from .report.heartbeat import Heartbeat
from .report.reporter import Reporter
from .rpc.server import Requests
from .store.backups import DirectoryOriginals
from .store.database import Database
from .store.events import Events
from .store.ledger import Ledger
from .store.revisions import Lineage
from .store.signers import Signers
from .store.status import Book, Identity

if TYPE_CHECKING:
    from .rpc.dispatch import Answering

__all__ = ["assemble", "found_here", "policy_of"]

log = logging.getLogger(__name__)


def found_here(
    topology: TopologyTable,
    state_directory: Path,
    bus: Bus,
    policy: DevicePolicy,
    ledger: Ledger | None = None,
) -> Discovery:
    """What this device offers, without starting anything. Without a *ledger* it is only to be looked at."""
    return discover(
        root=topology.root,
        secrets_directory=topology.secrets_directory,
        podman_url=topology.podman_url,
        records=MemoryRecords() if ledger is None else ledger,
        originals=DirectoryOriginals(state_directory / "originals"),
        reachability=BusReachability(bus),
        policy=policy,
    )


def policy_of(config: AgentConfig) -> DevicePolicy:
    """What this device allows."""
    return DevicePolicy(
        "/etc/harmony",
        "/opt/harmony",
        "/etc/systemd/system/harmony-agent.service",
        str(config.state_directory),
        str(config.runtime_directory),
        jobs=config.policy.jobs,
        allowed=config.policy.allow,
    )


async def assemble(
    config: AgentConfig,
    database: Database,
    ledger: Ledger,
    registry: Registry,
    discovery: Discovery,
    bus: Bus | None = None,
) -> Agent:
    """An agent that is ready to run, with what the last run left. *bus*: one that was begun already."""
    desired = await Desired.load(config, database)
    identity = Identity(agent_id=config.agent_id, agent_version=agent_version(), boot_id=boot_id())
    book = await Book.load(identity, registry, database)
    # From the first report on: without it, whoever pushes would take this for a device that can nothing.
    book.offer(discovery.found())
    book.tell_floor(lost=desired.floor_lost, unkept=desired.floor_unkept)
    if database.trouble:
        log.error("%s", database.trouble)
        book.forgetful(LedgerUnusable(database.trouble))
    if database.damaged:
        book.lose(database.damaged.path)
    device = Device(
        offers=discovery.offers,
        missing=discovery.missing,
        policy=policy_of(config),
        facts=read_facts(registry.kinds),
        agent_id=config.agent_id,
    )
    signers = await Signers.load(database)
    events = await Events.load(database, desired, signers)
    lineage = await Lineage.load(database)
    since_boot = SinceBoot(config.runtime_directory)
    patience = Patience(config.runtime_directory / "patience")
    drift = Drift(
        device=device,
        book=book,
        ledger=ledger,
        since_boot=since_boot,
        patience=patience,
        events=events,
        read_facts=partial(read_facts, registry.kinds),
    )
    events.listen(drift.note)
    events.judged_by(drift)
    dependents = Dependents(book, desired)
    events.listen_by_score(dependents.note)
    interpreter = _interpreter(
        device=device,
        registry=registry,
        drift=drift,
        dependents=dependents,
        desired=desired,
        ledger=ledger,
        lineage=lineage,
        book=book,
        poison=Poison(config.runtime_directory),
        events=events,
        signers=signers,
    )
    interpreter.begin()
    interpreter.accept()
    interpreter.recall()
    patience.recall(_now())
    turns = Turns(Guarded(do=interpreter.work, desired=desired, book=book).work)
    queue = WorkQueue(turns.work)
    dependents.look = queue.add
    bus = bus or Bus.of(config)
    requests = Requests(partial(_answering, config, bus, interpreter, turns, queue, _now()))
    bus.on_request(requests.receive)
    reporter = Reporter(book, bus, queue)

    async def look() -> None:
        book.expire(desired.expired)
        await desired.keep_floor()
        book.tell_floor(lost=desired.floor_lost, unkept=desired.floor_unkept)
        interpreter.rollback.note()
        await _look_at_memory(database, book)
        book.offer(await discovery.look())

    heartbeat = Heartbeat(book=book, bus=bus, queue=queue, every_s=config.heartbeat_s, look=look)
    bus.on_connect(reporter.tell_again, heartbeat.beat_soon)
    return Agent(
        bus=bus,
        desired=desired,
        queue=queue,
        interpreter=interpreter,
        drift=drift,
        reporter=reporter,
        heartbeat=heartbeat,
        requests=requests,
    )


async def _look_at_memory(database: Database, book: Book) -> None:
    """What is noted is kept in files, and those may have been deleted."""
    try:
        await database.look()
    except LedgerUnusable as error:
        log.error("%s", error.message)  # noqa: TRY400 - the message says it all
        book.miss(error.message)
    else:
        book.miss("")
        if database.rewritten is not None:
            book.write_anew(database.rewritten)


def _answering(
    config: AgentConfig,
    bus: Bus,
    interpreter: Interpreter,
    turns: Turns,
    queue: WorkQueue,
    started_s: float,
) -> Answering:
    # Most devices are hardly ever asked.
    from .rpc.dispatch import Answering  # noqa: PLC0415
    from .rpc.handlers import Answers  # noqa: PLC0415
    from .rpc.logs import ScoreLogs  # noqa: PLC0415

    logs = ScoreLogs(
        offers=interpreter.staging.device.offers,
        ledger=interpreter.ledger,
        known=interpreter.concerned,
    )
    answers = Answers(
        desired=interpreter.desired,
        pages=interpreter.book,
        events=interpreter.events,
        foresight=interpreter.planner,
        logs=logs,
        turns=turns,
        queue=queue,
        holds=interpreter.holds,
        insistence=interpreter.drift,
    )
    desired = interpreter.desired
    return Answering(
        send=bus.reply,
        items=answers.of,
        vouched_for=lambda: [desired.floor.issued_at] if desired.floor else [],
        trusted=config.trusted,
        fleet=config.fleet,
        agent_id=config.agent_id,
        started_s=started_s,
    )


def _interpreter(
    *,
    device: Device,
    registry: Registry,
    drift: Drift,
    dependents: Dependents,
    desired: Desired,
    ledger: Ledger,
    lineage: Lineage,
    book: Book,
    poison: Poison,
    events: Events,
    signers: Signers,
) -> Interpreter:
    ownership = Ownership(ledger)
    staging = Staging(
        device=device,
        decoder=Decoder(registry),
        desired=desired,
        ownership=ownership,
        poison=poison,
        events=events,
    )
    holds = AppHolds(offers=device.offers, ledger=ledger)
    removal = Removal(
        holds=holds,
        offers=device.offers,
        desired=desired,
        ledger=ledger,
        lineage=lineage,
        book=book,
        events=events,
    )
    replay = Replay(staging=staging, desired=desired)
    rollback = Rollback(lineage=lineage, book=book)
    planner = Planner(
        staging=staging,
        rollback=rollback,
        replay=replay,
        desired=desired,
        ledger=ledger,
        lineage=lineage,
        ownership=ownership,
        removal=removal,
        book=book,
    )
    return Interpreter(
        staging=staging,
        planner=planner,
        replay=replay,
        removal=removal,
        preparation=Preparation(device=device, ownership=ownership),
        holds=holds,
        rollback=rollback,
        drift=drift,
        dependents=dependents,
        desired=desired,
        ledger=ledger,
        lineage=lineage,
        ownership=ownership,
        book=book,
        poison=poison,
        events=events,
        signers=signers,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
