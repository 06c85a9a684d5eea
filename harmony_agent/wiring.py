"""Put the agent together from its configuration: the one place that knows every part."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core import plugins
from harmony_core.assets import Assets, NoAssets
from harmony_core.errors import InvalidManifest, LedgerUnusable, PolicyRefused, VolumeBusy
from harmony_core.nearby import NearbyImages
from harmony_core.place import Place
from harmony_core.plugins import Provider, Registry
from harmony_core.reconciler import MemoryRecords
from harmony_core.secret_values import SecretValues
from harmony_core.wire.actual_state import ActualState, from_json
from harmony_core.wire.assets import find_fetched, find_files
from harmony_core.wire.manifest import SerializedScore, target_of
from harmony_pi_topology.common.worker import Worker
from harmony_pi_topology.containers.quiet import TRANSFER
from harmony_pi_topology.discovery import Discovery, discover

from .agent import Agent
from .apply.controller import Controller
from .apply.crash_guard import CrashGuard
from .apply.decoder import Decoder, SecretOpener
from .apply.dependents import Dependents
from .apply.guard import Guarded
from .apply.holds import AppHolds
from .apply.kept import why_not_kept
from .apply.policy import DevicePolicy
from .apply.prefetch import Prefetch
from .apply.preview import Preview
from .apply.queue import WorkQueue
from .apply.reboots import Reboots
from .apply.reconcile_waiter import ReconcileWaiter
from .apply.removal import Removal
from .apply.rollback import Rollback
from .apply.runner import ScoreRunner
from .bus.connection import Bus
from .bus.own_report import Writer
from .bus.reachability import BusReachability
from .class_watch import ClassWatch
from .clock import monotonic_s
from .config import AgentConfig, TopologyTable
from .drift.backoff import DriftBackoff
from .drift.baseline import Baselines
from .drift.boot_marker import BootMarker
from .drift.detector import DriftDetector
from .drift.watch_list import WatchList
from .drift.watcher import DriftWatcher
from .facts import agent_version, boot_id, read_facts
from .loading.server import Tell, serve
from .plan.device import Device
from .plan.generation import Generations
from .plan.ownership import Ownership
from .plan.plan_cache import PlanCache
from .plan.planner import Planner
from .report.heartbeat import Heartbeat
from .report.inventory import InventoryReporter, read_inventory
from .report.reporter import Reporter
from .report.vitals import read_vitals
from .rpc.server import Requests
from .store.assets import AssetCache
from .store.at_hand import AtHand
from .store.backups import DirectoryBackups
from .store.database import Database
from .store.desired import Desired
from .store.events import Events
from .store.ledger import Ledger
from .store.revisions import Revisions
from .store.signers import Signers
from .store.status import Identity, StatusStore

if TYPE_CHECKING:
    from harmony_core.wire.root import Root

    from .rpc.dispatch import Answering
    from .rpc.transfers import VolumeTransfers

__all__ = [
    "assemble",
    "discover_here",
    "make_asset_cache",
    "open_agent",
    "policy_of",
    "refuse_reboot",
    "refuse_volume_data",
]

log = logging.getLogger(__name__)

_ARCHIVE_MOVED_WITHIN_S = 3600.0
"""A large archive is hashed slowly on an SD card."""
_TURNS_END_WITHIN_S = 30.0
"""So long it is waited for Scores that are being applied, before containers are put to rest."""


@asynccontextmanager
async def open_agent(config: AgentConfig, bus: Bus) -> AsyncGenerator[tuple[Agent, Database]]:
    """Open what is remembered, and what this device offers, and yield an agent that is ready to run on it."""
    path, scratch = config.state_directory / "agent.db", config.runtime_directory
    async with await Database.open(path, scratch=scratch) as database:
        ledger = await Ledger.load(database)
        registry, secret_values = plugins.load(), SecretValues()
        at_hand = AtHand(bus)
        assets = make_asset_cache(config, at_hand)
        found = discover_here(
            registry.providers,
            config.topology,
            config.state_directory,
            bus,
            policy_of(config),
            ledger,
            secret_values,
            assets,
            nearby_images=at_hand.images,
        )
        agent = await assemble(
            config,
            database,
            ledger,
            registry,
            found,
            bus,
            secret_values=secret_values,
            assets=assets,
            at_hand=at_hand,
        )
        yield agent, database
        await found.close()
        await assets.close()


def make_asset_cache(config: AgentConfig, at_hand: AtHand) -> AssetCache:
    """Return the cache of assets, which *at_hand* brings, and of downloads, as the device's policy allows."""
    return AssetCache(
        config.state_directory / "assets",
        at_hand,
        most_bytes=config.assets_max_mib * 1024**2,
        nearby=at_hand,
        find_refusal=policy_of(config).download_refusal,
    )


def discover_here(
    providers: Iterable[Provider],
    topology: TopologyTable,
    state_directory: Path,
    bus: Bus,
    policy: DevicePolicy,
    ledger: Ledger | None = None,
    secret_values: SecretValues | None = None,
    assets: Assets | None = None,
    *,
    nearby_images: NearbyImages | None = None,
) -> Discovery:
    """Return what this device offers, without starting anything. Without a *ledger*, only look at it."""
    place = Place(
        root=topology.root,
        secrets_directory=topology.secrets_directory,
        secret_values=secret_values or SecretValues(),
        assets=assets or NoAssets(),
        nearby_images=nearby_images or NearbyImages(),
        podman_url=topology.podman_url,
        records=MemoryRecords() if ledger is None else ledger,
        backups=DirectoryBackups(state_directory / "originals"),
        reachability=BusReachability(bus),
        policy=policy,
    )
    return discover(providers, place, topology.use)


def policy_of(config: AgentConfig) -> DevicePolicy:
    """Return what this device allows."""
    return DevicePolicy(
        "/etc/harmony",
        "/opt/harmony",
        "/etc/systemd/system/harmony-agent.service",
        str(config.state_directory),
        str(config.copy_directory / "floor.copy.json"),
        str(config.runtime_directory),
        rules=config.policy,
    )


async def assemble(
    config: AgentConfig,
    database: Database,
    ledger: Ledger,
    registry: Registry,
    discovery: Discovery,
    bus: Bus | None = None,
    *,
    secret_values: SecretValues | None = None,
    assets: AssetCache | None = None,
    at_hand: AtHand | None = None,
) -> Agent:
    """Return an agent that is ready to run, with what the last run left. *bus* is one that was begun already.
    *secret_values*, *assets* and *at_hand* are those that *discovery*'s reconcilers know."""
    desired = await Desired.load(config, database)
    identity = Identity(
        agent_id=config.agent_id,
        agent_version=agent_version(),
        boot_id=boot_id(),
        policy=config.policy.preset,
        heartbeat_s=math.ceil(config.heartbeat_s),
    )
    statuses = await StatusStore.load(identity, registry.with_errors(discovery.errors), database)
    _tell_what_is_known(statuses, discovery, desired, database)
    class_watch = await ClassWatch.load(config, database, desired, statuses)
    device = Device(
        offers=discovery.offers,
        missing=discovery.missing,
        policy=policy_of(config),
        facts=read_facts(registry.kinds),
        agent_id=config.agent_id,
    )
    signers = await Signers.load(database)
    events = await Events.load(database, desired, signers)
    revisions = await Revisions.load(database)
    if assets is not None:
        _tell_what_is_needed(assets, desired, revisions)
    baselines = Baselines(device, BootMarker(config.runtime_directory))
    drift = DriftDetector(
        device=device,
        statuses=statuses,
        ledger=ledger,
        events=events,
        baselines=baselines,
        backoff=DriftBackoff(config.runtime_directory / "patience"),
        watch_list=WatchList(),
    )
    events.listen(baselines.count_change)
    events.set_classifier(drift)
    dependents = Dependents(statuses, desired)
    events.listen_by_score(dependents.note_change)
    controller = _controller(
        device=device,
        decoder=Decoder(
            registry,
            SecretOpener(
                agent_id=config.agent_id,
                key=config.report_key,
                read_order=lambda: (desired.epoch, desired.generation),
                values=secret_values or SecretValues(),
            ),
        ),
        drift=drift,
        dependents=dependents,
        desired=desired,
        ledger=ledger,
        revisions=revisions,
        statuses=statuses,
        crash_guard=CrashGuard(config.runtime_directory),
        events=events,
        signers=signers,
    )
    controller.begin()
    controller.accept()
    controller.recall()
    drift.backoff.recall(monotonic_s())
    reconcile_waiter = ReconcileWaiter(
        Guarded(do=controller.reconcile, desired=desired, statuses=statuses).work
    )
    queue = WorkQueue(reconcile_waiter.work)
    dependents.look = queue.enqueue
    bus = bus or Bus.of(config)
    bus.on_written_over = lambda writer: statuses.device.set_written_over(
        is_copied=writer is Writer.COPY
    )
    reporter = Reporter(statuses, events.chain, bus, queue)
    bus.on_report_found = reporter.tell_again

    reboots = Reboots(
        offers=discovery.offers,
        ledger=ledger,
        statuses=statuses,
        holds=controller.holds,
        events=events,
        queue=queue,
        flush=database.write,
        now_at_least=desired.now_at_least,
        why_not_kept=lambda: why_not_kept(config.state_directory),
        permit=lambda keyids: refuse_reboot(
            policy_of(config),
            desired.trust.root,
            target_of(config.agent_id),
            keyids,
            desired.now_at_least(),
        ),
    )
    transfers = _Once(partial(_volume_transfers, config, controller, queue))
    requests = Requests(
        partial(
            _answering,
            config,
            bus,
            controller,
            reconcile_waiter,
            queue,
            reboots,
            transfers,
            monotonic_s(),
        )
    )
    bus.on_request(requests.receive)
    bus.on_class_hint = class_watch.hint

    async def look() -> None:
        await _look_at_what_is_desired(desired, statuses)
        controller.rollback.note()
        await _look_at_memory(database, statuses)
        statuses.device.set_capabilities(await discovery.look())
        if assets is not None:
            await assets.collect()
        await reboots.look()

    heartbeat = Heartbeat(
        statuses=statuses,
        bus=bus,
        queue=queue,
        every_s=config.heartbeat_s,
        look=look,
        read_vitals=partial(read_vitals, config.state_directory),
    )
    inventory = InventoryReporter(
        bus=bus,
        read=partial(read_inventory, config.agent_id, partial(read_facts, registry.kinds)),
        count=statuses.counter.next,
    )
    statuses.due.on_news = heartbeat.note_activity
    requests.on_taken = heartbeat.note_activity
    note_if_forgotten = _forgotten_noter(bus, database, desired, statuses, events)
    note_if_forgotten()
    bus.on_connect(
        class_watch.look_soon,
        note_if_forgotten,
        partial(_heed_last_report, bus, database, statuses, events),
        reporter.tell_again,
        heartbeat.beat_soon,
        inventory.tell_again,
    )
    return Agent(
        bus=bus,
        desired=desired,
        queue=queue,
        controller=controller,
        watcher=DriftWatcher(device, drift, partial(read_facts, registry.kinds)),
        reporter=reporter,
        heartbeat=heartbeat,
        inventory=inventory,
        requests=requests,
        class_watch=class_watch,
        keep_transfers=partial(_keep_transfers, config, database, ledger, transfers),
        serve_loads=partial(
            _serve_loads,
            config,
            at_hand or AtHand(bus),
            partial(reconcile_waiter.reconcile_now, queue=queue),
        ),
    )


async def _look_at_what_is_desired(desired: Desired, statuses: StatusStore) -> None:
    """Store what no older manifest may undo, and report what is wrong with it."""
    statuses.device.set_stale(desired.expired)
    await desired.keep_floor()
    await desired.trust.keep()
    statuses.device.set_trust_problem(desired.trust)
    statuses.device.set_floor_problem(desired)


def _tell_what_is_known(
    statuses: StatusStore, discovery: Discovery, desired: Desired, database: Database
) -> None:
    # From the first report on: without it, whoever pushes would take this for a device that can nothing.
    statuses.device.set_capabilities(discovery.list_known())
    statuses.device.set_floor_problem(desired)
    statuses.device.set_trust_problem(desired.trust)
    if database.trouble:
        log.error("%s", database.trouble)
        statuses.device.set_unwritable(LedgerUnusable(database.trouble))
    _tell_of_memory(database, statuses)


def _tell_what_is_needed(assets: AssetCache, desired: Desired, revisions: Revisions) -> None:
    assets.find_needed = partial(_find_needed_assets, desired, revisions)
    assets.find_needed_files = partial(_find_needed_files, desired, revisions)


def _find_needed_assets(desired: Desired, revisions: Revisions) -> Collection[str] | None:
    """Return the hashes of what must be fetched for what is effective or rolled back to; None while no
    manifest is known."""
    if desired.in_force is None:
        return None
    entries = _list_kept_entries(desired, revisions)
    return {sha256 for entry in entries for sha256 in find_fetched(entry.spec)}


def _find_needed_files(desired: Desired, revisions: Revisions) -> Collection[str]:
    """Return those of them that are the content of files."""
    entries = _list_kept_entries(desired, revisions)
    return {sha256 for entry in entries for sha256 in find_files(entry.spec)}


def _list_kept_entries(desired: Desired, revisions: Revisions) -> Iterator[SerializedScore]:
    """Yield what is effective, and what it can be rolled back to."""
    yield from desired.entries.values()
    yield from filter(None, map(revisions.last_known_good, revisions.known))


async def _look_at_memory(database: Database, statuses: StatusStore) -> None:
    """Report whether the database files can be used: they may have been deleted."""
    try:
        await database.look()
    except LedgerUnusable as error:
        log.error("%s", error.message)  # noqa: TRY400 - the message says it all
        statuses.device.set_missed(error.message)
    else:
        statuses.device.set_missed("")
        _tell_of_memory(database, statuses)


def _tell_of_memory(database: Database, statuses: StatusStore) -> None:
    """Report whether the agent's records are lost, or had to be written again."""
    if database.rewritten is not None:
        statuses.device.set_rewritten(database.rewritten)
    else:
        statuses.device.set_ledger_lost(database.damaged.path if database.damaged else None)


def _forgotten_noter(
    bus: Bus, database: Database, desired: Desired, statuses: StatusStore, events: Events
) -> Callable[[], None]:
    """Return a function that reports when there was a manifest here before, and the database knows none.

    It was deleted then. The files of the floor know that, if they are still there, and so does whoever has
    this device's reports: so call it at each connection.
    """
    says_more = bool(database.damaged or database.trouble)
    is_new = desired.floor is None  # now, before anything is accepted

    def note() -> None:
        if says_more or statuses.device.problems.forgotten:
            return
        generation = desired.forgotten
        if is_new and bus.found_report:
            with suppress(InvalidManifest):
                generation = from_json(bus.found_report, ActualState).generation
        if generation:
            statuses.device.set_forgotten(generation)
            events.record_loss(
                "the agent's database was deleted while the agent was stopped, or the device was set up anew",
                # Higher than anybody has counted.
                last_seq=int(datetime.now(UTC).timestamp()),
            )

    return note


def _heed_last_report(bus: Bus, database: Database, statuses: StatusStore, events: Events) -> None:
    """Continue the counter after what this device has reported before, and record it where its database is an
    older one: then it has reported more events than that knows."""
    try:
        said = from_json(bus.found_report or b"", ActualState)
    except InvalidManifest:
        return
    statuses.counter.go_beyond(said.counter)
    told = said.audit
    if told is not None and told.seq > events.chain.last_seq and not database.is_blind:
        events.record_loss(
            f"the last report told of event {told.seq}, and the agent's database ends at event "
            f"{events.chain.last_seq}: an older one was put back, or its disk has lost what it had taken",
            last_seq=told.seq,
        )


async def _serve_loads(
    config: AgentConfig,
    at_hand: AtHand,
    look: Callable[[Collection[str]], AsyncGenerator[str]],
    agent: Agent,
) -> None:
    """Let root load bundles here."""

    async def take(descriptor: int, request: Mapping[str, object], tell: Tell) -> None:
        from .loading.load import Loading  # noqa: PLC0415 - most devices never load one

        loading = Loading(
            agent=agent,
            at_hand=at_hand,
            look=look,
            fleet=config.fleet,
            agent_id=config.agent_id,
        )
        await loading.take(descriptor, request, tell)

    await serve(config.runtime_directory, take)


def _answering(
    config: AgentConfig,
    bus: Bus,
    controller: Controller,
    reconcile_waiter: ReconcileWaiter,
    queue: WorkQueue,
    reboots: Reboots,
    transfers: Callable[[], VolumeTransfers],
    started_s: float,
) -> Answering:
    # Most devices are hardly ever asked.
    from .rpc.dispatch import Answering  # noqa: PLC0415
    from .rpc.handlers import Answers  # noqa: PLC0415
    from .rpc.logs import ScoreLogs  # noqa: PLC0415
    from .rpc.volumes import DeviceVolumes  # noqa: PLC0415

    logs = ScoreLogs(
        offers=controller.runner.device.offers,
        ledger=controller.ledger,
        known=controller.known_scores,
    )
    answers = Answers(
        desired=controller.desired,
        statuses=controller.statuses,
        events=controller.events,
        chain=controller.events.chain,
        preview_source=controller.preview,
        logs=logs,
        reconcile_now=partial(reconcile_waiter.reconcile_now, queue=queue),
        look=queue.enqueue,
        holds=controller.holds,
        insistence=controller.drift,
        rebooter=reboots,
        volumes=DeviceVolumes(offers=logs.offers, ledger=logs.ledger),
        transfers=transfers(),
    )
    desired, target = controller.desired, target_of(config.agent_id)
    return Answering(
        send=bus.reply,
        items=answers.of,
        vouched_for=lambda: [desired.floor.issued_at] if desired.floor else [],
        trusted=lambda: desired.trust.find_keys("request", desired.now_at_least(), target),
        fleet=config.fleet,
        agent_id=config.agent_id,
        started_s=started_s,
    )


class _Once:
    """Makes what sees to volumes on their way, when it is first asked for: mostly nobody ever does."""

    def __init__(self, make: Callable[[], VolumeTransfers]) -> None:
        self._make = make
        self.made: VolumeTransfers | None = None

    def __call__(self) -> VolumeTransfers:
        if self.made is None:
            self.made = self._make()
        return self.made


def _volume_transfers(
    config: AgentConfig, controller: Controller, queue: WorkQueue
) -> VolumeTransfers:
    from .rpc.transfers import VolumeTransfers  # noqa: PLC0415 - as above

    desired, policy = controller.desired, policy_of(config)
    target = target_of(config.agent_id)
    worker = Worker("volume spool", threads=2, timeout_s=_ARCHIVE_MOVED_WITHIN_S)

    def permit(volume: str, keyids: Sequence[str]) -> None:
        now = desired.now_at_least()
        refuse_volume_data(policy, desired.trust.root, target, volume, keyids, now)

    async def settle() -> None:
        with queue.pause():
            await queue.wait_idle(within_s=_TURNS_END_WITHIN_S)
            if queue.busy:
                raise VolumeBusy(
                    "Scores are being applied, which takes long; ask again once that is done"
                )

    return VolumeTransfers(
        offers=controller.runner.device.offers,
        ledger=controller.ledger,
        spool=_spool_of(config),
        key=config.report_key,
        permit=permit,
        settle=settle,
        aside=worker.run,
        record=controller.events.record_request,
    )


def refuse_volume_data(
    policy: DevicePolicy,
    root: Root | None,
    target: str,
    volume: str,
    keyids: Sequence[str],
    now: datetime,
) -> None:
    """Raise `OutOfScope` or `PolicyRefused` where *keyids* may not read or replace the data of *volume* of
    the device *target*.

    Whoever may push a container that sees the volume can do both in that way; nobody else may.
    """
    if root is not None:
        from harmony_core.wire.root import check_kinds  # noqa: PLC0415 - as above

        check_kinds(root, ["VolumeScore", "ContainerScore"], keyids, now, target)
    if (why := policy.volume_data_refusal(volume)) is not None:
        raise PolicyRefused(why)


def refuse_reboot(
    policy: DevicePolicy, root: Root | None, target: str, keyids: Sequence[str], now: datetime
) -> None:
    """Raise `OutOfScope` or `PolicyRefused` where *keyids* may not reboot the device *target*.

    Whoever may push a RebootScore can reboot it in that way; nobody else may.
    """
    if root is not None:
        from harmony_core.wire.root import check_kinds  # noqa: PLC0415 - as above

        check_kinds(root, ["RebootScore"], keyids, now, target)
    if (why := policy.kind_refusal("RebootScore")) is not None:
        raise PolicyRefused(f"nobody boots this device by a request: {why}")


async def _keep_transfers(
    config: AgentConfig,
    database: Database,
    ledger: Ledger,
    transfers: _Once,
) -> None:
    """Finish what the last agent has left of transfers; at the end, give up those of this one."""
    left = await database.aside(_spool_of(config).exists)
    if left or ledger.get(TRANSFER) is not None:
        await transfers().recover()
    try:
        await asyncio.Event().wait()
    finally:
        if transfers.made is not None:
            await transfers.made.close()


def _spool_of(config: AgentConfig) -> Path:
    return config.state_directory / "volumes"


def _controller(
    *,
    device: Device,
    decoder: Decoder,
    drift: DriftDetector,
    dependents: Dependents,
    desired: Desired,
    ledger: Ledger,
    revisions: Revisions,
    statuses: StatusStore,
    crash_guard: CrashGuard,
    events: Events,
    signers: Signers,
) -> Controller:
    generations = Generations()
    ownership = Ownership(ledger, generations)
    runner = ScoreRunner(
        device=device,
        decoder=decoder,
        desired=desired,
        ownership=ownership,
        crash_guard=crash_guard,
        events=events,
    )
    holds = AppHolds(offers=device.offers, ledger=ledger)
    removal = Removal(
        generations=generations,
        holds=holds,
        offers=device.offers,
        desired=desired,
        ledger=ledger,
        revisions=revisions,
        statuses=statuses,
        events=events,
    )
    plan_cache = PlanCache(device=device, desired=desired)
    rollback = Rollback(revisions=revisions, statuses=statuses)
    planner = Planner(
        generations=generations,
        runner=runner,
        effective=rollback.effective,
        plan_cache=plan_cache,
        desired=desired,
        ledger=ledger,
        revisions=revisions,
        ownership=ownership,
        statuses=statuses,
    )
    return Controller(
        runner=runner,
        generations=generations,
        planner=planner,
        preview=Preview(
            planner=planner, runner=runner, rollback=rollback, removal=removal, ledger=ledger
        ),
        plan_cache=plan_cache,
        removal=removal,
        prefetch=Prefetch(device=device, ownership=ownership, generations=generations),
        holds=holds,
        rollback=rollback,
        drift=drift,
        dependents=dependents,
        desired=desired,
        ledger=ledger,
        revisions=revisions,
        ownership=ownership,
        statuses=statuses,
        crash_guard=crash_guard,
        events=events,
        signers=signers,
    )
