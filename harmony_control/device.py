"""Device: one device, and what can be asked of it and done to it. Made by `Fleet.device`."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

import attrs
from nats.aio.client import Client

from harmony_core.close_names import did_you_mean
from harmony_core.errors import HarmonyError, RevisionConflict, UsageError
from harmony_core.outcome import Outcome
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState, Heartbeat
from harmony_core.wire.envelope import Signer
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_core.wire.replies import (
    ListedVolume,
    LoggedLine,
    RebootAsked,
    VolumeArchived,
    VolumeLoaded,
)

from .audit.ask import audit
from .audit.verify import AuditFault, AuditResult
from .bus.devices import refuse_not_enrolled, refuse_unknown
from .bus.reports import InventoryRead, Report, Reports, Seen
from .bus.requests import Asking, Event, Foreseen, Looked, Waits
from .bus.volume_data import TellProgress, VolumeSender, VolumeTaker, load_volume, save_volume
from .enrol import retire
from .push.base_revision import read_base_revision, read_push_target
from .push.check import check, doubts, refused_by_policy
from .push.entries import Entry, Pushable, as_entry, default_id, serialize
from .push.history import Differences, Generation, History, explain_conflict, read_history
from .push.pending_removals import removals_held
from .push.push import Change, Contents, Pushed, check_push, push, seal_secrets
from .push.resolve import with_digests
from .push.seal import refers_to_secrets
from .push.several import PreparedPush
from .push.wait import Wanted, Watcher, wait_until_settled
from .store.home import Home
from .store.secrets import FleetSecrets

if TYPE_CHECKING:
    from .bundle.write import Bundled
    from .reboot import Rebooted, TellPostponed

__all__ = [
    "TIMEOUT_S",
    "AuditFault",
    "AuditResult",
    "Device",
    "Differences",
    "Event",
    "Foreseen",
    "Generation",
    "History",
    "Looked",
    "Prepared",
    "PreparedPush",
    "Pushable",
    "Pushed",
    "Waits",
    "refused_by_policy",
    "removals_held",
]

TopologyT_co = TypeVar("TopologyT_co", covariant=True)
TIMEOUT_S = 300.0
_POLICY_WAITS = Waits(answer_s=2.0, all_s=10.0)
"""A push goes on without the answer: to plan may take as long as a daemon there hangs."""


@attrs.frozen(kw_only=True)
class Prepared:
    """Scores that one device would take, as far as it can be asked."""

    entries: Mapping[str, SerializedScore]
    """By id."""
    report: Report | None
    """What the device has said last."""
    warnings: tuple[str, ...]


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
        """Push one Score, which is added or replaced, and wait for its Outcome.

        *id* is the kind's name in lower case unless given. Raise `NoAnswer` when the device has not settled
        in *timeout_s* seconds, and what `put` raises.
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

        A device that has not accepted it when *expires_in* is over never does.

        Raise `NotEnrolled` for a device that does not exist; `MissingCapability`, `UnknownKind` or
        `UnsupportedVersion` for what the device would refuse, `PolicyRefused` for what its owner does not
        allow (the device is asked, where it is heard); `StaleGeneration` where more would be undone than is
        known here, and `UntrustedSignature` where somebody else has written the bucket (none of them with
        *force*); `UnknownDependency` or `DependencyCycle`; `ImageNotFound` or `RegistryUnreachable` for an
        image's tag (not without *resolve*); `UsageError` and `StoreError`s.
        """
        ready = await self.prepare(entries, force=force, resolve=resolve)
        return await self.put_prepared(ready, remove=remove, force=force, expires_in=expires_in)

    async def prepare(
        self,
        entries: Mapping[str, Pushable[TopologyT_co]],
        *,
        force: bool = False,
        resolve: bool = True,
    ) -> Prepared:
        """Return *entries* as they can be pushed to this device. Write nothing; raise as `put` does."""
        if not force:
            await refuse_not_enrolled(self._home, self._client, self.id)
        checked, report = await self._check(entries, force=force, resolve=resolve)
        unasked = () if force else await self._ask_policy(checked, report)
        return Prepared(entries=checked, report=report, warnings=unasked)

    async def check_prepared(self, ready: Prepared, *, force: bool = False) -> None:
        """Raise what `put_prepared` would raise with what is known now: about the merged manifest, about who
        has signed what it is built upon, and about what the device has accepted. Write nothing."""
        await check_push(
            self._home,
            self._client,
            self.id,
            _merge(ready.entries, frozenset()),
            named=ready.entries,
            force=force,
            signers=self._sign_with,
        )

    async def put_prepared(
        self,
        ready: Prepared,
        *,
        remove: Iterable[str] = (),
        force: bool = False,
        expires_in: timedelta | None = None,
    ) -> Pushed:
        """Do what `put` does once everything is prepared."""
        removed = frozenset(remove)
        state = ready.report.state if ready.report else None
        pushed = await self._push(
            _merge(ready.entries, removed),
            named=ready.entries,
            force=force,
            # What is named is meant: only what goes unnamed is ever held for being very much.
            removals_allowed=_count_resources(removed, state),
            expires_in=expires_in,
        )
        return attrs.evolve(
            pushed,
            changed=frozenset(ready.entries),
            removed=removed - ready.entries.keys(),
            warnings=(*await self._doubts(ready.report), *ready.warnings, *pushed.warnings),
        )

    async def _push(
        self,
        change: Change,
        *,
        named: Collection[str] = (),
        force: bool = False,
        removals_allowed: int = 0,
        expires_in: timedelta | None = None,
    ) -> Pushed:
        return await push(
            self._home,
            self._client,
            self.id,
            change,
            named=named,
            force=force,
            removals_allowed=removals_allowed,
            expires_in=expires_in,
            signers=self._sign_with,
        )

    async def _ask_policy(
        self, checked: Mapping[str, SerializedScore], report: Report | None
    ) -> tuple[str, ...]:
        """Raise `PolicyRefused` for what the device's own policy forbids, as the device says.

        Only Scores know what they would touch, and only on the device; so the device is asked, where it is
        heard. One that is away, or does not answer, refuses it when it arrives. Return why it did not answer.
        """
        if not checked or report is None or report.state is None or not report.state.policy:
            return ()
        if not await self._reports.is_heard(self.id):
            return ()
        try:
            found = await self._ask_within(_POLICY_WAITS).diff(list(checked.values()))
        except HarmonyError as error:
            unasked = (
                f"{self.id} did not say whether its policy allows this, and refuses it when it arrives if "
                f"it does not: {error.message}"
            )
            return (unasked,)
        if refused := refused_by_policy(found, checked):
            raise refused[0]
        return ()

    def _ask_within(self, waits: Waits) -> Asking:
        return Asking(self._home, self._client, self.id, waits)

    async def _doubts(self, report: Report | None) -> tuple[str, ...]:
        return doubts(self.id, report, await asyncio.to_thread(self._home.agents))

    async def _check(
        self, entries: Mapping[str, Pushable[TopologyT_co]], *, force: bool, resolve: bool
    ) -> tuple[dict[str, SerializedScore], Report | None]:
        """Return *entries* as they would be in a manifest, and what the device has reported last."""
        plain = {name: as_entry(value) for name, value in entries.items()}
        checked = {name: serialize(name, entry) for name, entry in plain.items()}
        report = await self._reports.read_report(self.id)
        if report is not None and report.state is not None and not force:
            check(report.state, plain)
        if not force and any("image_blobs" in each.spec for each in checked.values()):
            from .push.platforms import check_platforms

            await check_platforms(self._reports, [self.id], checked)
        if resolve:
            resolved = await with_digests(plain, FleetSecrets(self._home))
            for name, entry in resolved.items():
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

        The device itself is asked, and uses the same code with which it would change it; nothing is changed.
        Raise what `put` raises before it writes, and what `Asking` raises.
        """
        await self.refuse_unknown()
        checked, _ = await self._check(entries, force=force, resolve=resolve)
        if refers_to_secrets(checked):
            place = await read_push_target(self._home, self._client, self.id)
            known = await read_base_revision(place, force=True)
            before = Contents.of(known.base).scores
            # As of what is in force: the device opens nothing that is for later.
            sealed = await seal_secrets(
                place, checked, before, known.epoch, known.reported, named=checked
            )
            checked = dict(sealed.entries)
        return await self._asking.diff(list(checked.values()), whole=whole)

    @asynccontextmanager
    async def logs(
        self, score: str, *, since: datetime | None = None, lines: int = 100, follow: bool = False
    ) -> AsyncGenerator[AsyncIterator[LoggedLine]]:
        """Yield the newest lines that a Score's units and containers have logged; see `Asking.logs`."""
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
        waits: Waits | None = None,
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """Yield the newest changes that were made to the device; see `Asking.events`.

        *waits* says how long to wait for what, for a caller with less time.
        """
        asking = self._asking if waits is None else self._ask_within(waits)
        async with asking.events(score=score, since=since, lines=lines, follow=follow) as told:
            yield told

    async def audit(self) -> AuditResult:
        """Return whether the device's record of its past is whole, and is what was seen of it here; see
        `audit`."""
        return await audit(self._asking)

    @asynccontextmanager
    async def reconcile(
        self, score: str | None = None, *, enforce: bool = False
    ) -> AsyncGenerator[AsyncIterator[Looked]]:
        """Have the device look at a Score, or at all, now; see `Asking.reconcile`."""
        async with self._asking.reconcile(score, enforce=enforce) as told:
            yield told

    async def reboot(
        self,
        *,
        if_needed: bool = False,
        wait: bool = True,
        timeout_s: float = TIMEOUT_S,
        on_postponed: TellPostponed | None = None,
        on_begun: Callable[[RebootAsked], None] | None = None,
    ) -> Rebooted:
        """Reboot the device; with *wait*, return when its Scores have settled again. See
        `harmony_control.reboot.reboot`."""
        from .reboot import reboot

        return await reboot(
            self._asking,
            self._reports,
            if_needed=if_needed,
            wait=wait,
            timeout_s=timeout_s,
            on_postponed=on_postponed,
            on_begun=on_begun,
        )

    async def volumes(self) -> list[ListedVolume]:
        """Return all volumes of the device, whoever made them, by name; see `Asking.volumes`."""
        return await self._asking.volumes()

    async def save_volume(
        self, volume: str, take: VolumeTaker, *, stop: bool, tell: TellProgress
    ) -> VolumeArchived:
        """Pass everything in *volume* to *take*; see `harmony_control.bus.volume_data.save_volume`."""
        return await save_volume(self._asking, volume, take, stop=stop, tell=tell)

    async def load_volume(
        self,
        volume: str,
        give: VolumeSender,
        *,
        of_bytes: int | None,
        keep_previous: bool,
        tell: TellProgress,
    ) -> VolumeLoaded:
        """Replace the content of *volume* by what *give* returns; see
        `harmony_control.bus.volume_data.load_volume`."""
        return await load_volume(
            self._asking,
            volume,
            give,
            of_bytes=of_bytes,
            keep_previous=keep_previous,
            tell=tell,
        )

    async def bundle(
        self,
        file: BinaryIO,
        *,
        platform: str | None = None,
        with_images: bool = True,
        with_downloads: bool = True,
        tell: TellProgress,
        warn: Callable[[str], None],
    ) -> Bundled:
        """Write to *file* all that the server has for this device, what it downloads, and the images that it
        names; see `harmony_control.bundle.write.write_bundle`.

        The images are for *platform*: if it is not given, for what the device has reported that it is, else
        for linux/arm64. Raise what `collect` raises, too.
        """
        from .bundle.collect import collect
        from .bundle.images import Platform, parse_platform
        from .bundle.write import write_bundle

        chosen = None if platform is None else parse_platform(platform)
        await refuse_unknown(self._home, self._client, self.id)
        contents = await collect(
            self._home,
            self._client,
            self.id,
            with_images=with_images,
            with_downloads=with_downloads,
        )
        for each in contents.warnings:
            warn(each)
        if chosen is None:
            said = await self.read_inventory()
            value = said.value if said is not None else None
            chosen = Platform.of_machine(value.architecture) if value is not None else None
        return await write_bundle(
            file,
            contents,
            self._client,
            chosen or Platform("arm64"),
            tell=tell,
        )

    async def release(self, score: str) -> None:
        """Do now what an application has asked to delay; see `Asking.release`."""
        await self._asking.release(score)

    async def put_again(self, *, force: bool = False) -> Pushed:
        """Write again what was signed last, from the operator's own store: for a server that has lost it.

        Raise `UsageError` where there is no Score in it, and when nothing was ever signed for it from here.
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
        """Return the device's labels, as they were signed last. Raise what `history` raises."""
        return (await self.history()).labels

    async def label(self, changes: Mapping[str, str | None], *, force: bool = False) -> Pushed:
        """Set labels, and remove those whose value is None; all its Scores are interpreted again with them.

        Raise `UsageError` for what cannot be a label, and for a label to be removed that is not there; and
        what `put` raises about the bucket.
        """
        if not force:
            await self.refuse_unknown()
        report = await self._reports.read_report(self.id)
        pushed = await self._push(_label_change(self.id, changes), force=force)
        return attrs.evolve(
            pushed,
            changed=frozenset(pushed.entries),
            warnings=(*await self._doubts(report), *pushed.warnings),
        )

    async def approve(self, shown: ActualState | None = None) -> Pushed:
        """Sign the effective manifest again, with approval of the removals that the device holds back.

        Approve as many resources as it has reported in *shown*, to which somebody has agreed (None: in its
        report now), and no more. Raise `UsageError` when it holds none, and when the number or the generation
        has changed since: then nothing is signed.
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

        Raise `UnknownDevice` for one that does not exist and for which nothing is stored.
        """
        history = await read_history(self._home, self._client, self.id)
        if not history.generations:
            await self.refuse_unknown()
        return history

    async def read_desired(self) -> Mapping[str, SerializedScore]:
        """Return the entries of the device's newest manifest, by id. Raise what `put` raises about the
        bucket."""
        await self.refuse_unknown()
        known = await read_base_revision(
            await read_push_target(self._home, self._client, self.id), force=False
        )
        return Contents.of(known.base).scores

    async def refuse_unknown(self) -> None:
        """Raise `UnknownDevice` if the device is neither enrolled here nor was ever heard of."""
        await refuse_unknown(self._home, self._client, self.id)

    async def rollback(
        self,
        to: int | tuple[int, int] | None = None,
        *,
        force: bool = False,
        shown: History | None = None,
    ) -> Pushed:
        """Sign what was wanted in generation *to* again, as a new generation; *to* may be its epoch and
        number.

        Without *to*, choose the newest one that wanted something else than the newest of all. *shown* is the
        history from which somebody has chosen (None: as it is now). Raise `RevisionConflict` where something
        else was pushed since that was read: then nothing is signed. Raise `UsageError` for a generation that
        can no longer be read, or that equals what is wanted now; and what `put` raises. With *force*, do not
        ask the device whether its policy allows it.
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
        return attrs.evolve(
            pushed,
            changed=frozenset(concerned),
            removed=removed,
            warnings=(*unasked, *pushed.warnings),
        )

    async def retire(self) -> None:
        """Revoke the device's key, and forget the device: its desired state, its reports, what is kept here.

        What runs on the device stays as it is. Raise `UnknownDevice` where nothing is known of it;
        `ConfigError` where the server is not run from this home.
        """
        await retire(self._home, self._client, self.id)

    async def wait(
        self, pushed: Pushed, *, timeout_s: float = TIMEOUT_S, on_state: Watcher | None = None
    ) -> ActualState:
        """Wait until all Scores concerned were looked at since *pushed*, and have converged, failed or are
        gone.

        They are those that *pushed* changed, those that these wait for, those that depend on them, and those
        that were in order before. Return the state then; call *on_state* with every state on the way. Raise
        `NoAnswer`.
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
        """Remove Scores and wait until what they made is gone. Raise `UsageError` for an unknown id."""
        return await self.put_and_wait({}, remove=ids, timeout_s=timeout_s)

    async def state(self) -> ActualState | None:
        """Return what the device reported last; None when it never reported anything that can be read."""
        report = await self._reports.read_report(self.id)
        return report.state if report else None

    async def heartbeat(self) -> Heartbeat | None:
        """Return the device's newest heartbeat; None when none counts."""
        return await self._reports.read_heartbeat(self.id)

    async def read_seen(self) -> Seen:
        """Return what the device reported last, and whether it is heard now."""
        return await self._reports.read_seen(self.id)

    async def read_inventory(self) -> InventoryRead | None:
        """Return the inventory that the device has reported; where it cannot be believed, a problem in place
        of the value; None where it never reported one."""
        return await self._reports.read_inventory(self.id)

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Yield every state that the device reports, beginning with the newest."""
        async with self._reports.states(self.id) as states:
            yield states


def _count_resources(scores: Iterable[str], state: ActualState | None) -> int:
    """Return how many resources these Scores have, as far as the device has reported: so many may be removed
    without approval. 0 where the removal of one would delete data for good."""
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
                f"there is no Score {unknown[0]!r} on this device; there are: {known}{hint} (one of a class "
                "is left out by `without`: docs/classes.md)"
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
