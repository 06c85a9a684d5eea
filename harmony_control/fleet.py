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
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import attrs
from nats.aio.client import Client

from harmony_core.close_names import did_you_mean
from harmony_core.errors import HarmonyError, RevisionConflict, UsageError
from harmony_core.outcome import Outcome
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState, Heartbeat
from harmony_core.wire.envelope import Signer, VerifyKey
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_core.wire.replies import LoggedLine
from harmony_pi_topology import PiTopology

from .audit.ask import audit
from .audit.verify import AuditFault, AuditResult
from .bus.connection import admin
from .bus.devices import refuse_not_enrolled, refuse_unknown
from .bus.reports import InventoryRead, Report, Reports, Seen
from .bus.requests import Asking, Event, Foreseen, Looked, Waits
from .fleet_view.row import DeviceRow, row_of
from .push.base_revision import read_base_revision, read_push_target
from .push.check import check, doubts, refused_by_policy
from .push.entries import Entry, Pushable, as_entry, default_id, serialize
from .push.history import History, explain_conflict, read_history
from .push.pending_removals import removals_held
from .push.push import Change, Contents, Pushed, push
from .push.resolve import with_digests
from .push.wait import Wanted, Watcher, wait_until_settled
from .store.home import Home, check_agent_id

__all__ = [
    "AuditFault",
    "AuditResult",
    "Device",
    "DeviceRow",
    "Fleet",
    "InventoryRead",
    "Pushed",
    "Seen",
    "removals_held",
]

if TYPE_CHECKING:
    # What pushes to one device needs none of it.
    from harmony_core.wire.fleet_index import ClassRule, Freeze
    from harmony_core.wire.root import Root

    from .alerts.channels import Channel
    from .alerts.notifier import Notifier, Watched
    from .alerts.settings import Settings
    from .fleet_view.events import FleetEvent, Untold
    from .fleet_view.watching import SharedWatch
    from .fleet_view.where import Predicate
    from .plan.explain import Explanation
    from .plan.folder import Folder
    from .plan.plan import Plan
    from .rollout.all_classes import Rollouts
    from .rollout.controller import Rollout
    from .rollout.documents import ClassDocuments, Standing
    from .rollout.publish import Published

TopologyT = TypeVar("TopologyT")
TopologyT_co = TypeVar("TopologyT_co", covariant=True)
TIMEOUT_S = 300.0
_POLICY_WAITS = Waits(answer_s=2.0, all_s=10.0)
"""A push goes on without the answer: to plan may take as long as a daemon there hangs."""


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
        """Connected by what the operator's directory *home* says, until the end of the block.

        What is pushed is signed by the operator's own key, and by *sign_with*, where more than one must.

        `$HARMONY_HOME`, else ~/.harmony, unless given. `ConfigError` names what is missing there and the
        command that makes it; `BusUnreachable` when no server answers.
        """
        found = Home.of(home)
        async with admin(found) as client:
            yield cls(found, client, sign_with)

    @overload
    def device(self, agent_id: str) -> Device[PiTopology]: ...
    @overload
    def device(self, agent_id: str, *, topology: type[TopologyT]) -> Device[TopologyT]: ...
    def device(self, agent_id: str, *, topology: type[Any] = PiTopology) -> Device[Any]:
        """Return the device of that id, whether it was ever heard of or not. `UsageError` for what cannot be
        an id.

        *topology* is the class that says what it offers, for the type checker alone: a `PiTopology`, or one
        derived from it that has another package's capabilities too.
        """
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

    def rollout(self, name: str, *, by_gate_key_only: bool = False) -> Rollout:
        """Return the rollout of the class *name*, whether there is one or not.

        *by_gate_key_only*: nothing is signed with an operator's key.
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
        """Yield how all rollouts stand, as often as it is asked for, and open waves by this home's gate.key.

        As `rollout.all_classes.follow_rollouts`. `ConfigError` for a gate.key that is none.
        """
        from .rollout.all_classes import follow_rollouts

        told = follow_rollouts(self.home, self._client, self._reports, self._watch.joined)
        async with aclosing(told):
            async for each in told:
                yield each

    async def classes(self) -> Mapping[str, ClassRule]:
        """Return who belongs to each class. Raises what `plan` raises of the buckets."""
        index = await (await self._documents()).read_index()
        return index.value.classes if index is not None else {}

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
        and so does all else of how it is rolled out; of a new class, everybody is reached at once.
        Raises what `publish` raises, and what `Device.put` raises of an image's tag.
        """
        from .rollout.publish import Wish, publish

        documents = await self._documents()
        plain = {each: as_entry(value) for each, value in entries.items()}
        if resolve:
            plain = {**await with_digests(plain)}
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
        """Return what *folder* would change; as `make_plan`."""
        from .plan.plan import make_plan

        return await make_plan(await self._documents(), self._reports, folder, resolve=resolve)

    def apply(
        self, plan: Plan, *, prune: bool = False
    ) -> AsyncIterator[tuple[str, Pushed] | Published]:
        """Write what *plan* says, and yield each thing that was written; as `apply_plan`."""

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
        """Return what the device would come to by all that *folder* asks of it, its classes included.

        Asked of the device itself, by the labels that it has now; nothing is done. Raises what `plan` and
        `Asking` raise.
        """
        from .plan.merged import merge_for

        await refuse_unknown(self.home, self._client, agent_id)
        entries = await merge_for(
            await self._documents(), self._reports, folder, agent_id, resolve=resolve
        )
        return await Asking(self.home, self._client, agent_id).diff(entries, whole=True)

    async def explain(self, agent_id: str, score: str) -> Explanation:
        """Return why the device has the Score, or has not: which layer asks for it, and what that waits for.

        `UnknownDevice`; `UnknownScore` where neither the device nor any of its layers knows such a Score; and
        what `plan` raises of the buckets.
        """
        from .plan.explain import explain

        await refuse_unknown(self.home, self._client, agent_id)
        return await explain(await self._documents(), self._reports, agent_id, score)

    async def freeze(self, *, until: datetime | None = None, reason: str = "") -> None:
        """Have no device begin with a new generation of any class, *until* then or until `thaw`.

        A freeze of before is replaced. What is pushed to one device still comes to it, and an abort brings
        devices back. `UsageError` for a reason that is too long or more than a line; `OutOfScope`.
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
        """Make this home's key for gates, unless it has one, and have devices take gates that it signs.

        Such a key can open a wave no sooner than a class says, and send devices back. Return its public half.
        """
        from .rollout.index import add_gate_key
        from .store.gate_key import make_gate_key

        key = await asyncio.to_thread(make_gate_key, self.home)
        await add_gate_key(await self._documents(), self._reports, key.public)
        return key.public

    async def _documents(self) -> ClassDocuments:
        from .rollout.documents import ClassDocuments

        return await ClassDocuments.open(self.home, self._client, self._sign_with)

    async def read_root(self) -> Root | None:
        """Return the newest root document; None for a fleet without. `StoreError`s."""
        from .bus.roots import refresh

        return await refresh(self.home, self._client)

    async def alerts(
        self, watched: Watched, settings: Settings, channels: Sequence[Channel]
    ) -> Notifier:
        """Return who tells people of what is wrong with what is *watched*, by *channels*. `StoreError`s."""
        from .alerts.notifier import Notifier

        fleet = (await asyncio.to_thread(self.home.control)).fleet
        notifier = Notifier(watched, self._client, fleet, settings, channels)
        await notifier.begin()
        return notifier

    async def rows(self) -> list[DeviceRow]:
        """Return each of `agents` in one row: where it stands on three axes, and why."""
        return [row_of(each) for each in await self.agents()]

    @asynccontextmanager
    async def watch_rows(self) -> AsyncGenerator[AsyncIterator[list[DeviceRow]]]:
        """Yield all `rows`, then those that have changed, whenever any have; at most four lists a second.

        A device that is silent is told when the server announces it; nobody polls. Of one that is retired
        its last row comes once more, with `DeviceRow.is_gone`.
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
        """Yield the newest *lines* changes that were made to all devices of which *holds* is true, by time;
        then, with *follow*, every change from then on, as it comes. `Untold` is a device that did not tell.

        Each device that is heard is asked once, a few at a time; after that only those whose reports say
        that they have noted more. Times are of the devices' own clocks. Raises what `Device.events` raises
        where asking at all is not possible.
        """
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
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Yield every state that any device reports, the newest of each first."""
        async with _states(self._reports, "*") as states:
            yield states


class Device(Generic[TopologyT_co]):
    """One device, typed by the topology that it runs."""

    def __init__(
        self,
        agent_id: str,
        home: Home,
        client: Client,
        reports: Reports,
        sign_with: Sequence[Signer] = (),
    ) -> None:
        self.id = agent_id
        self._sign_with = sign_with
        self._home = home
        self._client = client
        self._reports = reports
        self._asking = Asking(home, client, agent_id)

    async def push(
        self,
        score: Score[TopologyT_co],
        *,
        id: str | None = None,
        after: Iterable[str] = (),
        policy: ScorePolicy | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Outcome:
        """Add or replace one Score and wait for its Outcome.

        *id* is the kind's name in lower case unless given. Raises `NoAnswer` when the device has not
        settled in *timeout_s*, and what `put` raises.
        """
        score_id = default_id(score) if id is None else id
        entry = Entry(score, after, policy or ScorePolicy())
        state = await self.put_and_wait({score_id: entry}, timeout_s=timeout_s)
        return state.scores[score_id].outcome

    async def put_and_wait(
        self,
        entries: Mapping[str, Pushable[TopologyT_co]],
        *,
        remove: Iterable[str] = (),
        timeout_s: float = TIMEOUT_S,
        force: bool = False,
        resolve: bool = True,
    ) -> ActualState:
        """Do `put`, then `wait`."""
        pushed = await self.put(entries, remove=remove, force=force, resolve=resolve)
        return await self.wait(pushed, timeout_s=timeout_s)

    async def put(
        self,
        entries: Mapping[str, Pushable[TopologyT_co]],
        *,
        remove: Iterable[str] = (),
        force: bool = False,
        resolve: bool = True,
        expires_in: timedelta | None = None,
    ) -> Pushed:
        """Add or replace *entries*, drop the ids in *remove*, sign, and write. Does not wait.

        A device that has not taken it in when *expires_in* is over never does.

        Raises `NotEnrolled` for a device that there is not; `MissingCapability`, `UnknownKind` or
        `UnsupportedVersion` for what the device would refuse, `PolicyRefused` for what its owner does not
        allow (asked of the device, where it is heard); `StaleGeneration` where more would be undone
        than is known here, and `UntrustedSignature` where somebody else has written the bucket (none of them
        with *force*); `UnknownDependency` or `DependencyCycle`; `ImageNotFound` or `RegistryUnreachable` for
        an image's tag (not without *resolve*); `UsageError` and `StoreError`s.
        """
        if not force:
            await refuse_not_enrolled(self._home, self._client, self.id)
        checked, report = await self._check(entries, force=force, resolve=resolve)
        unasked = () if force else await self._ask_policy(checked, report)
        removed = frozenset(remove)
        change = _merge(checked, removed)
        pushed = await self._push(
            change,
            force=force,
            # What is named is meant: only what goes unnamed is ever held for being very much.
            removals_allowed=_count_resources(removed, report.state if report else None),
            expires_in=expires_in,
        )
        return attrs.evolve(
            pushed,
            changed=frozenset(checked),
            removed=removed - checked.keys(),
            warnings=(*await self._doubts(report), *unasked),
        )

    async def _push(
        self,
        change: Change,
        *,
        force: bool = False,
        removals_allowed: int = 0,
        expires_in: timedelta | None = None,
    ) -> Pushed:
        return await push(
            self._home,
            self._client,
            self.id,
            change,
            force=force,
            removals_allowed=removals_allowed,
            expires_in=expires_in,
            signers=self._sign_with,
        )

    async def _ask_policy(
        self, checked: Mapping[str, SerializedScore], report: Report | None
    ) -> tuple[str, ...]:
        """Raise `PolicyRefused` for what the device's own policy forbids, as the device says.

        Only Scores know what they would touch, and only on the device; so it is asked, where it is heard. One
        that is away, or does not answer, refuses it when it arrives. That it did not answer is returned.
        """
        if not checked or report is None or report.state is None or not report.state.policy:
            return ()
        if not await self._reports.is_heard(self.id):
            return ()
        asking = Asking(self._home, self._client, self.id, _POLICY_WAITS)
        try:
            found = await asking.diff(list(checked.values()))
        except HarmonyError as error:
            unasked = (
                f"{self.id} did not say whether its policy allows this, and refuses it when it arrives if "
                f"it does not: {error.message}"
            )
            return (unasked,)
        if refused := refused_by_policy(found, checked):
            raise refused[0]
        return ()

    async def _doubts(self, report: Report | None) -> tuple[str, ...]:
        return doubts(self.id, report, await asyncio.to_thread(self._home.agents))

    async def _check(
        self, entries: Mapping[str, Pushable[TopologyT_co]], *, force: bool, resolve: bool
    ) -> tuple[dict[str, SerializedScore], Report | None]:
        """Return *entries* as they would stand in a manifest, and what the device has said last."""
        plain = {name: as_entry(value) for name, value in entries.items()}
        checked = {name: serialize(name, entry) for name, entry in plain.items()}
        report = await self._reports.read_report(self.id)
        if report is not None and report.state is not None and not force:
            check(report.state, plain)
        if resolve:
            for name, entry in (await with_digests(plain)).items():
                if entry.score is not plain[name].score:
                    checked[name] = serialize(name, entry)
        return checked, report

    async def diff(
        self,
        entries: Mapping[str, Pushable[TopologyT_co]],
        *,
        whole: bool = False,
        force: bool = False,
        resolve: bool = True,
    ) -> list[Foreseen]:
        """Return what would change on the device if *entries* were pushed, or were all there is (*whole*).

        Asked of the device itself, and by the very code that would change it; nothing is done. Raises what
        `put` raises before it writes, and what `Asking` raises.
        """
        await self.refuse_unknown()
        checked, _ = await self._check(entries, force=force, resolve=resolve)
        return await self._asking.diff(list(checked.values()), whole=whole)

    @asynccontextmanager
    async def logs(
        self, score: str, *, since: datetime | None = None, lines: int = 100, follow: bool = False
    ) -> AsyncGenerator[AsyncIterator[LoggedLine]]:
        """Yield, as `Asking.logs`, the newest lines that a Score's units and containers have logged."""
        async with self._asking.logs(score, since=since, lines=lines, follow=follow) as told:
            yield told

    @asynccontextmanager
    async def events(
        self,
        *,
        score: str | None = None,
        since: datetime | None = None,
        lines: int = 100,
        follow: bool = False,
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """Yield, as `Asking.events`, the newest changes that were made to the device."""
        async with self._asking.events(
            score=score, since=since, lines=lines, follow=follow
        ) as told:
            yield told

    async def audit(self) -> AuditResult:
        """Return whether what it tells of its past is whole, and is what was seen of it here; as `audit`."""
        return await audit(self._asking)

    @asynccontextmanager
    async def reconcile(
        self, score: str | None = None, *, enforce: bool = False
    ) -> AsyncGenerator[AsyncIterator[Looked]]:
        """Have, as `Asking.reconcile`, the device look at a Score, or at all, now."""
        async with self._asking.reconcile(score, enforce=enforce) as told:
            yield told

    async def release(self, score: str) -> None:
        """Do now, as `Asking.release`, what an application has asked to put off."""
        await self._asking.release(score)

    async def put_again(self, *, force: bool = False) -> Pushed:
        """Write what was signed last once more, from the operator's own store: after the server lost it.

        `UsageError` where there is no Score in it, and when nothing was ever signed for it from here.
        """
        if not force:
            await refuse_not_enrolled(self._home, self._client, self.id)
        stored = self._home.manifest_json(self.id)
        if not await asyncio.to_thread(stored.exists):
            raise UsageError(
                f"nothing was ever pushed to {self.id} from {self._home.root}; name the Score files "
                "to push, or use the directory that it was pushed from"
            )

        def again(found: Contents) -> Contents:
            if not found.scores:
                # Of what cannot be read, too: never an empty manifest in its place.
                raise UsageError(
                    f"there is no Score to push to {self.id} again in {stored}, or none that was signed by "
                    "an operator trusted here; name the Score files to push"
                )
            return found

        pushed = await self._push(again, force=force)
        return attrs.evolve(pushed, changed=frozenset(pushed.entries))

    async def labels(self) -> Mapping[str, str]:
        """Return its labels, as they were signed last. Raises what `history` raises."""
        return (await self.history()).labels

    async def label(self, changes: Mapping[str, str | None], *, force: bool = False) -> Pushed:
        """Set labels, and take away those that shall be None; its Scores are interpreted with them, all anew.

        `UsageError` for what cannot be a label, and for one to be taken away that is not there; and what
        `put` raises of what stands in the bucket.
        """
        if not force:
            await self.refuse_unknown()
        report = await self._reports.read_report(self.id)
        pushed = await self._push(_label_change(self.id, changes), force=force)
        return attrs.evolve(
            pushed, changed=frozenset(pushed.entries), warnings=await self._doubts(report)
        )

    async def approve(self, shown: ActualState | None = None) -> Pushed:
        """Sign what is in force once more, with leave for the removals that the device holds back.

        As many resources as it has told of in *shown*, which somebody has agreed to (None: in what it says
        now), and no more. `UsageError` when it holds none, and when it is another number, or another
        generation, by now: then nothing is signed.
        """
        await self.refuse_unknown()
        state = await self.state()
        if state is None or not state.removals_held:
            raise UsageError(f"{self.id} has no removal that waits for approval")
        agreed = state if shown is None else shown

        def approved(found: Contents) -> Contents:
            before = (agreed.generation, agreed.removals_held)
            if before != (state.generation, state.removals_held):
                now = f"{state.removals_held} of generation {state.generation}"
            elif found.generation != state.generation:
                now = (
                    f"not known yet, since {self.id} has not taken in generation {found.generation}"
                )
            else:
                return found
            raise UsageError(
                f"nothing was signed: what waits for approval has changed; it was {agreed.removals_held} "
                f"of generation {agreed.generation}, and is {now}; run `harmony approve {self.id}` again"
            )

        pushed = await self._push(
            approved,
            # Of Scores, too, that have not come to it yet: less would be held again.
            removals_allowed=state.removals_held,
        )
        held, kept = removals_held(state), frozenset(pushed.entries)
        return attrs.evolve(
            pushed, changed=kept & held.keys(), removed=frozenset(held.keys() - kept)
        )

    async def history(self) -> History:
        """Return every generation of its desired state that can still be read, and what each changed.

        `UnknownDevice` for one that there is not, and of which nothing is stored.
        """
        history = await read_history(self._home, self._client, self.id)
        if not history.generations:
            await self.refuse_unknown()
        return history

    async def read_desired(self) -> Mapping[str, SerializedScore]:
        """Return the entries of its newest manifest, by id. Raises what `put` raises of the bucket."""
        await self.refuse_unknown()
        known = await read_base_revision(
            await read_push_target(self._home, self._client, self.id), force=False
        )
        return Contents.of(known.base).scores

    async def refuse_unknown(self) -> None:
        """Raise `UnknownDevice` if it is neither enrolled here nor was ever heard of."""
        await refuse_unknown(self._home, self._client, self.id)

    async def rollback(
        self,
        to: int | tuple[int, int] | None = None,
        *,
        force: bool = False,
        shown: History | None = None,
    ) -> Pushed:
        """Sign what was wanted in generation *to* once more, as a new generation; *to* may be its epoch and
        number.

        Without *to*: in the newest one that wanted something else than the newest of all. *shown* is the
        history by which somebody has chosen it (None: as it is now). `RevisionConflict` where something
        else was pushed since that was read: then nothing is signed. `UsageError` for a generation that is
        out of reach, or the same as what is wanted now; and what `put` raises. With *force* the device is
        not asked whether its policy allows it.
        """
        history = await self.history() if shown is None else shown
        target = history.target(to)
        wanted = Contents.of(target.manifest)
        newest = history.generations[-1]
        looked_at = Contents.of(newest.manifest)
        removed = frozenset(looked_at.scores.keys() - wanted.scores.keys())
        changed = target.since(newest.manifest)
        report = await self._reports.read_report(self.id)
        again = {name: wanted.scores[name] for name in (*changed.added, *changed.replaced)}
        unasked = () if force else await self._ask_policy(again, report)

        def back(found: Contents) -> Contents:
            if not found.says_the_same_as(looked_at):
                raise RevisionConflict(f"{self.id}: generation {found.generation} came meanwhile")
            return wanted

        try:
            pushed = await self._push(
                back,
                removals_allowed=_count_resources(removed, report.state if report else None),
            )
        except RevisionConflict as error:
            why = explain_conflict(history, await self.history())
            raise RevisionConflict(f"{self.id} was not rolled back: {why}") from error
        # By other labels, any of them may come to something else.
        concerned = pushed.entries if changed.relabelled else (*changed.added, *changed.replaced)
        return attrs.evolve(pushed, changed=frozenset(concerned), removed=removed, warnings=unasked)

    async def wait(
        self, pushed: Pushed, *, timeout_s: float = TIMEOUT_S, on_state: Watcher | None = None
    ) -> ActualState:
        """Wait until what *pushed* changed, what that waits for, what depends on it, and what was in order
        before, was looked at since and is converged, failed or gone.

        Returns the state then; every state on the way is told to *on_state*. Raises `NoAnswer`.
        """
        wanted = Wanted(
            generation=pushed.generation,
            epoch=pushed.epoch,
            manifest_sha256=pushed.manifest_sha256,
            present=pushed.concerned,
            absent=pushed.removed,
        )
        return await wait_until_settled(
            self._reports, self.id, wanted, timeout_s=timeout_s, on_state=on_state
        )

    async def remove(self, *ids: str, timeout_s: float = TIMEOUT_S) -> ActualState:
        """Remove Scores and wait until what they made is gone. `UsageError` for an unknown id."""
        return await self.put_and_wait({}, remove=ids, timeout_s=timeout_s)

    async def state(self) -> ActualState | None:
        """Return what the device said last; None when it never said anything that can be read."""
        report = await self._reports.read_report(self.id)
        return report.state if report else None

    async def heartbeat(self) -> Heartbeat | None:
        """Return its newest heartbeat; None when none counts."""
        return await self._reports.read_heartbeat(self.id)

    async def read_seen(self) -> Seen:
        """Return what it said last, and whether it is heard now."""
        return await self._reports.read_seen(self.id)

    async def read_inventory(self) -> InventoryRead | None:
        """Return of what it says that it consists, without a value where that is not believed, for a problem;
        None where it never told."""
        return await self._reports.read_inventory(self.id)

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Yield every state that it reports, the newest first of all."""
        async with _states(self._reports, self.id) as states:
            yield states


@asynccontextmanager
async def _states(reports: Reports, agent_id: str) -> AsyncGenerator[AsyncIterator[ActualState]]:
    async with reports.reporting(agent_id) as told:

        async def states() -> AsyncGenerator[ActualState]:
            async for report in told:
                if report.state is not None:
                    yield report.state

        async with aclosing(states()) as each:
            yield each


def _count_resources(scores: Iterable[str], state: ActualState | None) -> int:
    """Return how many resources these Scores have, as far as the device has said, and so may go unasked; none
    where data would go for good with one."""
    pages = [state.scores[name] for name in scores if name in state.scores] if state else []
    if any(page.deletes_data for page in pages):
        return 0
    return sum(page.resources_total for page in pages)


def _merge(new: Mapping[str, SerializedScore], removed: frozenset[str]) -> Change:
    def change(before: Contents) -> Contents:
        if unknown := sorted(removed - before.scores.keys()):
            known = ", ".join(sorted(before.scores)) or "none"
            hint = did_you_mean(unknown[0], before.scores)
            raise UsageError(
                f"there is no Score {unknown[0]!r} on this device; there are: {known}{hint}"
            )
        kept = {name: entry for name, entry in before.scores.items() if name not in removed}
        return attrs.evolve(before, scores={**kept, **new})

    return change


def _label_change(agent_id: str, changes: Mapping[str, str | None]) -> Change:
    def change(before: Contents) -> Contents:
        removed = {name for name, value in changes.items() if value is None}
        if unknown := sorted(removed - before.labels.keys()):
            known = ", ".join(sorted(before.labels)) or "none"
            raise UsageError(f"{agent_id} has no label {unknown[0]!r}; it has: {known}")
        merged = {**before.labels, **changes}
        return attrs.evolve(
            before, labels={name: value for name, value in merged.items() if value is not None}
        )

    return change
