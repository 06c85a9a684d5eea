"""Fleet: the control plane as a Python API.

::

    async with Fleet.connect() as fleet:
        outcome = await fleet.device("pi-1").push(WebAppScore(…), id="web")

A Score that needs what a Pi cannot offer is a type error at ``push``: a device is typed by the topology
it runs. What *this* Pi lacks is `MissingCapability`, raised before anything is pushed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from nats.aio.client import Client

from harmony_core.errors import HarmonyError, UnknownDevice, UsageError
from harmony_core.wire.actual_state import ActualState

from .bus.connection import admin
from .bus.devices import describe_unknown, refuse_unknown
from .bus.reports import InventoryRead, Report, Reports, Seen
from .fleet_view.row import DeviceRow, row_of
from .store.home import Home, check_agent_id

__all__ = ["DeviceRow", "Fleet", "InventoryRead", "Report", "Seen"]

if TYPE_CHECKING:
    # Who only looks at devices waits for none of it.
    from harmony_core.wire.envelope import Signer, VerifyKey
    from harmony_core.wire.fleet_index import ClassRule, Freeze
    from harmony_pi_topology import PiTopology

    from .alerts.channels import Channel
    from .alerts.notifier import Notifier, Watched
    from .alerts.settings import Settings
    from .assets.stored import FleetAssets
    from .bus.requests import Event, Foreseen
    from .device import Device, Prepared
    from .fleet_view.events import FleetEvent, Untold
    from .fleet_view.watching import SharedWatch
    from .fleet_view.where import Predicate
    from .plan.explain import Explanation
    from .plan.folder import Folder
    from .plan.plan import Plan
    from .push.entries import Entry, Pushable
    from .push.push import Pushed
    from .push.several import PreparedPush
    from .rollout.all_classes import Rollouts
    from .rollout.controller import Rollout
    from .rollout.documents import ClassDocuments, Standing
    from .rollout.publish import Published
    from .roots import RootDocuments

TopologyT = TypeVar("TopologyT")


class Fleet:
    """Every device of one operator. Made by `connect`."""

    def __init__(self, home: Home, client: Client, sign_with: Sequence[Signer] = ()) -> None:
        self._sign_with = sign_with
        self.home = home
        self._client = client
        self._reports = Reports(home, client)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, home: Home | Path | str | None = None, *, sign_with: Sequence[Signer] = ()
    ) -> AsyncGenerator[Fleet]:
        """Connect with the settings in the operator's directory *home*, until the end of the block.

        What is pushed is signed by the operator's own key, and by *sign_with*, if more than one must sign.

        *home* is `$HARMONY_HOME`, else ~/.harmony, unless given. Raise `ConfigError` with what is missing
        there and the command that makes it; `BusUnreachable` when no server answers.
        """
        found = Home.of(home)
        async with admin(found) as client:
            yield cls(found, client, sign_with)

    @overload
    def device(self, agent_id: str) -> Device[PiTopology]: ...
    @overload
    def device(self, agent_id: str, *, topology: type[TopologyT]) -> Device[TopologyT]: ...
    def device(self, agent_id: str, *, topology: type[Any] | None = None) -> Device[Any]:
        """Return the device of that id, whether it was ever heard of or not. Raise `UsageError` for what
        cannot be an id.

        *topology* is the class that says what the device offers, only for the type checker: a `PiTopology`,
        or one derived from it that has another package's capabilities too.
        """
        from .device import Device

        del topology  # what the device really offers, it says itself
        return Device(
            check_agent_id(agent_id), self.home, self._client, self._reports, self._sign_with
        )

    @property
    def is_connected(self) -> bool:
        """Whether the message server is reached now. It is tried again and again while it is not."""
        return self._client.is_connected

    async def agents(self) -> list[Seen]:
        """Return every device that is enrolled here, has reported or has been heard, by id."""
        return await self._reports.read_all_seen()

    async def read_agent(self, agent_id: str) -> Seen:
        """Return one of `agents`. Raise `UsageError` for what cannot be an id; `UnknownDevice` for one that
        is not enrolled, was never heard, and to which nothing was pushed."""
        seen = await self._reports.read_seen(check_agent_id(agent_id))
        enrolled = await asyncio.to_thread(self.home.agents)
        if seen.presence == "Never" and seen.wanted is None and agent_id not in enrolled:
            raise UnknownDevice(describe_unknown(agent_id, enrolled))
        return seen

    def rollout(self, name: str, *, by_gate_key_only: bool = False) -> Rollout:
        """Return the rollout of the class *name*, whether there is one or not.

        With *by_gate_key_only*, nothing is signed with an operator's key.
        """
        from .rollout.controller import Rollout
        from .store.gate_key import load_gate_key

        return Rollout(
            self.home,
            self._client,
            self._reports,
            name,
            sign_with=self._sign_with,
            gate_signer=load_gate_key(self.home),
            by_gate_key_only=by_gate_key_only,
            watch=self._watch.joined,
        )

    async def follow_rollouts(self) -> AsyncGenerator[Rollouts]:
        """Yield the state of all rollouts, whenever it is asked for, and open waves with this home's
        gate.key.

        See `rollout.all_classes.follow_rollouts`. Raise `ConfigError` for a gate.key that is none.
        """
        from .rollout.all_classes import follow_rollouts

        told = follow_rollouts(self.home, self._client, self._reports, self._watch.joined)
        async with aclosing(told):
            async for each in told:
                yield each

    async def classes(self) -> Mapping[str, ClassRule]:
        """Return who belongs to each class. Raise what `plan` raises about the buckets."""
        index = await (await self._documents()).read_index()
        return index.value.classes if index is not None else {}

    async def prepare(
        self,
        agent_ids: Sequence[str],
        entries: Mapping[str, Pushable[PiTopology]],
        *,
        force: bool = False,
        resolve: bool = True,
    ) -> PreparedPush:
        """Ask each device whether it would accept *entries*, a few at a time, and whether they can be merged
        into its desired state. Write nothing.

        Each tag is resolved once, so that all run the same image. Raise what `Device.put` raises about that;
        what a device would refuse is in `PreparedPush.refused`.
        """
        from .push.several import PreparedPush, each_of

        plain = await _as_entries(self.home, entries, resolve=resolve)
        devices = {each: self.device(each) for each in agent_ids}

        async def prepare(_: str, device: Device[PiTopology]) -> Prepared:
            ready = await device.prepare(plain, force=force, resolve=False)
            await device.check_prepared(ready, force=force)
            return ready

        answers = await each_of(devices, prepare)
        return PreparedPush(devices=devices, answers=answers, force=force)

    async def diff(
        self,
        agent_ids: Sequence[str],
        entries: Mapping[str, Pushable[PiTopology]],
        *,
        whole: bool = False,
        force: bool = False,
        resolve: bool = True,
    ) -> Mapping[str, list[Foreseen] | HarmonyError]:
        """Return what `Device.diff` returns for each of the devices, asked a few at a time, or its error.

        Each tag is resolved once. Raise what `Device.put` raises about that.
        """
        from .push.several import each_of

        plain = await _as_entries(self.home, entries, resolve=resolve)
        return await each_of(
            {each: self.device(each) for each in agent_ids},
            lambda _, device: device.diff(plain, whole=whole, force=force, resolve=False),
        )

    async def push_class(
        self,
        name: str,
        entries: Mapping[str, Pushable[PiTopology]],
        *,
        selector: str | None = None,
        priority: int | None = None,
        upto: Sequence[tuple[str, int]] | None = None,
        canary: str | None = None,
        remove: Iterable[str] = (),
        resolve: bool = True,
    ) -> Published:
        """Add or replace *entries* in the class *name*, drop the ids in *remove*, and open the first wave.

        Does not wait, and opens no further wave: `rollout` does. *upto* are the waves, each with how many
        devices (``1%``, ``5``) and for how many seconds it soaks. What is None stays as it is for the class,
        and so do all its other settings of the rollout; a new class reaches everybody at once. Raise
        `UsageError` for a canary that would be everybody, what `publish` raises, and what `Device.put` raises
        about an image's tag.
        """
        from harmony_core.wire.selector import parse_selector

        from .push.entries import serialize
        from .rollout.publish import Wish, publish

        if canary is not None and parse_selector(canary).is_of_all:
            raise UsageError(
                f"a canary that names no labels would be every device of {name}; name some, such as "
                "ring=canary"
            )
        documents = await self._documents()
        plain = await _as_entries(self.home, entries, resolve=resolve)
        added = {each: serialize(each, entry) for each, entry in plain.items()}
        dropped = set(remove)

        def wish_for(standing: Standing) -> Wish:
            before = standing.manifest
            scores = {each.id: each for each in before.scores} if before else {}
            if unknown := sorted(dropped - scores.keys()):
                raise UsageError(f"the class {name} has no Score {unknown[0]!r}")
            kept = {each: entry for each, entry in scores.items() if each not in dropped}
            said = {} if canary is None else {"canary": canary}
            return Wish(
                selector=selector,
                priority=priority,
                scores={**kept, **added},
                upto=standing.upto if upto is None else upto,
                settings=standing.rollout.model_copy(update=said),
            )

        return await publish(documents, self._reports, name, wish_for)

    async def plan(self, folder: Folder, *, resolve: bool = True) -> Plan:
        """Return what *folder* would change; see `make_plan`."""
        from .plan.plan import make_plan

        return await make_plan(await self._documents(), self._reports, folder, resolve=resolve)

    def apply(
        self, plan: Plan, *, prune: bool = False
    ) -> AsyncIterator[tuple[str, Pushed] | Published]:
        """Write what *plan* says, and yield each thing that was written; see `apply_plan`."""

        from .plan.apply import apply_plan

        async def each() -> AsyncIterator[tuple[str, Pushed] | Published]:
            documents = await self._documents()
            async for done in apply_plan(
                self.home, self._client, documents, self._reports, plan, prune=prune
            ):
                yield done

        return each()

    async def plan_device(
        self, folder: Folder, agent_id: str, *, resolve: bool = True
    ) -> list[Foreseen]:
        """Return what the device would change with all that *folder* wants of it, its classes included.

        The device itself is asked, with the labels that it has now; nothing is changed. Raise what `plan` and
        `Asking` raise.
        """
        from .bus.requests import Asking
        from .plan.merged import merge_for

        await refuse_unknown(self.home, self._client, agent_id)
        entries = await merge_for(
            await self._documents(), self._reports, folder, agent_id, resolve=resolve
        )
        return await Asking(self.home, self._client, agent_id).diff(entries, whole=True)

    async def explain(self, agent_id: str, score: str) -> Explanation:
        """Return why the device has the Score, or has not: which layer wants it, and what that waits for.

        Raise `UnknownDevice`; `UnknownScore` where neither the device nor any of its layers knows such a
        Score; and what `plan` raises about the buckets.
        """
        from .plan.explain import explain

        await refuse_unknown(self.home, self._client, agent_id)
        return await explain(await self._documents(), self._reports, agent_id, score)

    async def freeze(self, *, until: datetime | None = None, reason: str = "") -> None:
        """Let no device begin a new generation of any class, *until* that time or until `thaw`.

        This replaces an earlier freeze. What is pushed to one device still reaches it, and an abort brings
        devices back. Raise `UsageError` for a reason that is too long or more than a line; `OutOfScope`.
        """
        from pydantic import ValidationError

        from harmony_core.resources import first_problem
        from harmony_core.wire.fleet_index import Freeze

        from .rollout.index import write_freeze

        try:
            freeze = Freeze(until=until, reason=reason)
        except ValidationError as error:
            raise UsageError(f"freeze: {first_problem(error)}") from error
        await write_freeze(await self._documents(), self._reports, freeze)

    async def thaw(self) -> bool:
        """End a freeze. Return whether there was one."""
        from .rollout.index import write_freeze

        return await write_freeze(await self._documents(), self._reports, None)

    async def read_freeze(self) -> Freeze | None:
        """Return the freeze that holds now; None for none."""
        from .rollout.index import read_freeze

        return await read_freeze(await self._documents())

    async def allow_gate_key(self) -> VerifyKey:
        """Make this home's key for gates, unless it has one, and let devices accept gates that it signs.
        Return its public half.

        Such a key can open a wave no sooner than a class says, and send devices back.
        """
        from .rollout.index import add_gate_key
        from .store.gate_key import make_gate_key

        key = await asyncio.to_thread(make_gate_key, self.home)
        await add_gate_key(await self._documents(), self._reports, key.public)
        return key.public

    async def _documents(self) -> ClassDocuments:
        from .rollout.documents import ClassDocuments

        return await ClassDocuments.open(self.home, self._client, self._sign_with)

    async def check_retirable(self, *agent_ids: str) -> None:
        """Raise what `retire` raises, before anything is done."""
        from .enrol import check_retirable

        await check_retirable(self.home, self._client, *agent_ids)

    async def retire(self, *agent_ids: str) -> None:
        """Revoke the keys of these devices at once, and forget them, as `Device.retire` does one. Nothing is
        done where one is not known."""
        from .enrol import retire

        await retire(self.home, self._client, *agent_ids)

    @cached_property
    def assets(self) -> FleetAssets:
        """What the server has of files that are too large for manifests."""
        from .assets.stored import FleetAssets

        return FleetAssets(self.home, self._client)

    @cached_property
    def roots(self) -> RootDocuments:
        """The root documents, which say who may sign what."""
        from .roots import RootDocuments

        return RootDocuments(self.home, self._client, self._reports)

    async def alerts(
        self, watched: Watched, settings: Settings, channels: Sequence[Channel]
    ) -> Notifier:
        """Return the notifier that tells people what is wrong with what is *watched*, through *channels*.
        Raise `StoreError`s."""
        from .alerts.notifier import Notifier

        fleet = (await asyncio.to_thread(self.home.control)).fleet
        notifier = Notifier(watched, self._client, fleet, settings, channels)
        await notifier.begin()
        return notifier

    async def rows(self) -> list[DeviceRow]:
        """Return one row for each of `agents`: its state on three axes, and why."""
        return [row_of(each) for each in await self.agents()]

    @asynccontextmanager
    async def watch_rows(self) -> AsyncGenerator[AsyncIterator[list[DeviceRow]]]:
        """Yield all `rows`, then those that have changed, whenever any have; at most four lists a second.

        The server announces it when a device is silent; nobody polls. The last row of a retired device is
        yielded once more, with `DeviceRow.is_gone`.
        """
        async with self._watch.joined() as watch, aclosing(watch.rows()) as rows:
            yield rows

    @cached_property
    def _watch(self) -> SharedWatch:
        from .fleet_view.watching import SharedWatch

        return SharedWatch(self._reports)

    @asynccontextmanager
    async def events(
        self,
        holds: Predicate = lambda _: True,
        *,
        since: datetime | None = None,
        lines: int = 100,
        follow: bool = False,
    ) -> AsyncGenerator[AsyncIterator[FleetEvent | Untold]]:
        """Yield the newest *lines* changes that were made to all devices for which *holds* is true, by time;
        then, with *follow*, every change from then on. `Untold` is a device that did not answer.

        Each device that is heard is asked once, a few at a time; after that only those whose reports say that
        they have recorded more. Times are of the devices' own clocks. Raise what `Device.events` raises where
        asking is not possible at all.
        """
        from .bus.requests import Asking
        from .fleet_view.events import following_events, read_events

        async def read(agent_id: str, *, after: int | None) -> list[Event]:
            asking = Asking(self.home, self._client, agent_id)
            async with asking.events(since=since, after=after, lines=lines) as events:
                return [each async for each in events]

        if follow:
            async with following_events(self.watch_rows, read, holds, lines=lines) as told:
                yield told
            return

        async def past() -> AsyncGenerator[FleetEvent | Untold]:
            rows = [each for each in await self.rows() if holds(each)]
            for each in await read_events(rows, read, lines=lines):
                yield each

        async with aclosing(past()) as told:
            yield told

    @asynccontextmanager
    async def watch_reports(self, agent_id: str = "*") -> AsyncGenerator[AsyncIterator[Report]]:
        """Yield everything that the device (every device, by ``*``) reports, beginning with the newest; also
        what cannot be read or believed, and why."""
        async with self._reports.reporting(agent_id) as reports:
            yield reports

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Yield every state that any device reports, beginning with the newest of each."""
        async with self._reports.states() as states:
            yield states


async def _as_entries(
    home: Home, entries: Mapping[str, Pushable[PiTopology]], *, resolve: bool
) -> Mapping[str, Entry[PiTopology]]:
    """Return them as entries; with *resolve*, resolve each tag once and put a digest in its place."""
    from .push.entries import as_entry
    from .push.resolve import with_digests
    from .store.secrets import FleetSecrets

    plain = {each: as_entry(value) for each, value in entries.items()}
    return await with_digests(plain, FleetSecrets(home)) if resolve else plain
