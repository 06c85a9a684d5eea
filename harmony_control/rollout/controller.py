"""The controller of rollouts: looks, decides, signs, writes; and may die or be doubled at any moment.

    what is said of the class and by its devices -> `judge.judge`, `state.look` -> another gate?
        -> all of it read anew: still another? -> write it, if nobody else has -> hint those whom it lets in

Whether there is anything to do is told by a watch of the fleet: a look costs the same, however many devices
there are. What is written is decided by what stands on the server then. Two of them decide the same by the
same; the gate's compare-and-swap has one of them write it. Where devices have accepted a later gate than the
server has, that has lost what it had: the next one is of a term of its own, so that devices take it.

Heartbeats are lost with the server, and none comes while it is cut off. So nobody is silent to a controller
that has not reached one and the same server, look after look, for as long as a heartbeat counts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from time import monotonic

from nats.aio.client import Client

from harmony_control.bus.classes import hint_devices
from harmony_control.bus.connection import server_id
from harmony_control.bus.reports import Reports, Seen
from harmony_control.fleet_view.watching import FleetWatch, watching
from harmony_control.server.buckets import HEARTBEAT_AGE_S
from harmony_control.store.home import Home
from harmony_core.errors import (
    BusUnreachable,
    ConfigError,
    RevisionConflict,
    StoreError,
    UnknownClass,
)
from harmony_core.wire.envelope import Signer
from harmony_core.wire.fleet_index import FleetIndex
from harmony_core.wire.gate import Gate

from .documents import ClassDocuments, Known, Read
from .judge import Member, Progress, Stored, judge, reaches
from .members import Members
from .memory import Memory
from .state import Look, Verb, look, order

__all__ = ["LOOK_AGAIN_S", "Rollout"]

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 2.0
"""Between two looks."""
_WHOLE_AGAIN_S = 300.0
"""So often all devices are read anew, since a watch is not told who was let in."""
_REMIND_AGAIN_S = 30.0
"""So often those are hinted again that have not heard of the gate."""
_TRIES = 20
_TERMS_AHEAD_MOST = 1_000
"""A device that says that it has accepted a gate of a later term than that is not believed: else one device
could say the greatest that there is, and no gate could ever be newer."""


class Rollout:
    """The rollout of one class."""

    def __init__(
        self,
        home: Home,
        client: Client,
        reports: Reports,
        name: str,
        *,
        sign_with: Sequence[Signer] = (),
        gate_signer: Signer | None = None,
        by_gate_key_only: bool = False,
        watch: Callable[[], AbstractAsyncContextManager[FleetWatch]] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Control the rollout *name*.

        *gate_signer* signs in place of an operator where devices accept that; with *by_gate_key_only*, nobody
        else signs. *watch* begins to watch the fleet, or shares a watch that exists.
        """
        self.name = name
        self._home = home
        self._client = client
        self._reports = reports
        self._sign_with = sign_with
        self._gate_signer = gate_signer
        self._by_gate_key_only = by_gate_key_only
        self._begin_watch = watch or (lambda: watching(reports))
        self._memory = Memory()
        self._members = Members()
        self._clock = clock
        self._reached = ""
        """By what the server is known that was reached by the last look; empty where none was."""
        self._reached_at_s = math.inf
        """Since when it was by each look."""
        self._known: Known | None = None
        self._whole_at_s = -math.inf
        self._reminded_at_s = -math.inf

    async def read(self, watch: FleetWatch | None = None) -> Look:
        """Return the state of the rollout, and what would come next. Write nothing.

        Use what *watch* knows of the devices; None: what is on the server now. A device that is not heard in
        this way is silent, also where the server has just been started. Raise `UnknownClass` where nothing
        was rolled out to the class; `UntrustedSignature` for what nobody trusted here has signed;
        `StoreError`s.
        """
        with self._noting_outages():
            seen = await self._find_seen(watch)
            _, found = await self._look(seen, is_silence_known=watch is None or self._is_settled())
        return found

    @contextmanager
    def _noting_outages(self) -> Generator[None]:
        try:
            yield
        except BusUnreachable:
            self._reached = ""
            raise

    def _is_settled(self) -> bool:
        """Return whether looks have reached the server for so long that it must have heard all devices that
        are there."""
        now_s, reached = self._clock(), server_id(self._client)
        if reached != self._reached:
            self._reached, self._reached_at_s = reached, now_s
        return now_s - self._reached_at_s >= HEARTBEAT_AGE_S

    async def _find_seen(self, watch: FleetWatch | None) -> Sequence[Seen]:
        now_s = self._clock()
        if watch is None or watch.is_in_doubt or now_s - self._whole_at_s > _WHOLE_AGAIN_S:
            seen = await self._reports.read_all_seen()
            self._whole_at_s = now_s
            return seen
        return watch.read()

    async def _open(self) -> ClassDocuments:
        return await ClassDocuments.open(self._home, self._client, self._sign_with)

    async def _look(
        self, seen: Sequence[Seen], *, is_silence_known: bool
    ) -> tuple[ClassDocuments, Look]:
        documents = await self._open()
        self._known = await documents.read_known(self.name, self._known)
        known, now = self._known, datetime.now(UTC)
        members = self._members.find(documents.fleet, seen, known.rule, known.manifest)
        members = self._memory.complete(
            known.manifest.generation, members, now, is_silence_known=is_silence_known
        )
        gates = [Stored(each.value, each.written_at) for each in known.gates]
        progress = judge(known.gate.value, gates, known.manifest, members, now)
        return documents, look(progress, now)

    async def history(self) -> list[Gate]:
        """Return every gate of the class that the server still has, the oldest first."""
        documents = await self._open()
        index = await documents.read_index()
        return [each.value for each in await documents.read_gates(self.name, index)]

    async def follow_history(self) -> AsyncGenerator[Gate]:
        """Yield every gate that the server still has, the oldest first, and then each that comes, for ever.

        What cannot be read for a while is read again; at first, what `history` raises is raised, and
        `UnknownClass` where there is none.
        """
        newest = (-1, 0, 0, 0)
        if not (gates := await self.history()):
            raise UnknownClass(f"nothing was rolled out to a class {self.name} yet")
        while True:
            for gate in gates:
                if gate.order > newest:
                    newest = gate.order
                    yield gate
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                gates = await self.history()
            except StoreError as error:
                log.warning("%s: %s", self.name, error.message)

    async def step(self, watch: FleetWatch | None = None) -> Look:
        """Look once, and do the next step. Return what was found; `Look.next` is what was written.

        *watch* says whether there is anything to do; the devices' present reports decide what is done. Raise
        what `read` raises. Leave somebody else's gate that came meanwhile as it is.
        """
        with self._noting_outages():
            return await self._step(watch)

    async def _step(self, watch: FleetWatch | None) -> Look:
        seen = await self._find_seen(watch)
        for _ in range(_TRIES):
            documents, found = await self._look(seen, is_silence_known=self._is_settled())
            if found.next is not None and watch is not None:
                seen = await self._reports.read_all_seen()
                documents, found = await self._look(seen, is_silence_known=self._is_settled())
            if found.next is None:
                await self._remind(found.progress)
                return found
            try:
                await self._write(documents, found.progress, found.next)
            except RevisionConflict:
                # What is next may be another thing by now.
                seen = await self._reports.read_all_seen()
                continue
            return found
        raise StoreError(f"others keep writing the gate of {self.name}; try again")

    async def run(self, *, only_look: bool = False) -> AsyncGenerator[Look]:
        """Do all steps, and yield each look, until the rollout is done or aborted. Read again what cannot be
        read for a while. With *only_look*, write nothing: somebody else does the steps."""
        while True:
            try:
                async with self._begin_watch() as watch:
                    while True:
                        found = await (self.read(watch) if only_look else self.step(watch))
                        yield found
                        after = None if only_look else found.next
                        state = (after or found.progress.gate).state
                        if state == "aborted" or (state == "done" and self._is_over(found)):
                            return
                        await asyncio.sleep(LOOK_AGAIN_S)
            except StoreError as error:
                self._reached = ""
                log.warning("%s: %s", self.name, error.message)
                await asyncio.sleep(LOOK_AGAIN_S)

    def _is_over(self, found: Look) -> bool:
        return found.next is None and not any(
            each.state == "Progressing" for each in found.progress.judged
        )

    async def order(self, verb: Verb, reason: str = "") -> Gate:
        """Do what a person wants, signed as an operator, or with the key for gates where nobody else signs.

        Raise `UsageError` where that cannot be done; `RevisionConflict` where a generation was published that
        nobody had looked at; and what `read` raises.
        """
        looked_at: int | None = None
        for _ in range(_TRIES):
            documents, found = await self._look(
                await self._reports.read_all_seen(), is_silence_known=self._is_settled()
            )
            generation = found.progress.gate.generation
            if looked_at not in {None, generation}:
                raise RevisionConflict(
                    f"nothing was done: generation {generation} of the class {self.name} was published "
                    f"meanwhile, and {verb} was for generation {looked_at}; see `harmony rollout status "
                    f"{self.name}`, and do it again if it is meant for that, too"
                )
            looked_at = generation
            gate = order(found.progress, verb, reason, datetime.now(UTC))
            by_operator = not self._by_gate_key_only
            try:
                return await self._write(documents, found.progress, gate, by_operator=by_operator)
            except RevisionConflict:
                continue  # a controller was quicker: what is wanted may be another thing by now
        raise StoreError(f"others keep writing the gate of {self.name}; try again")

    async def _write(
        self, documents: ClassDocuments, before: Progress, gate: Gate, *, by_operator: bool = False
    ) -> Gate:
        """Write *gate* in place of the one that *before* is about, and tell the devices concerned."""
        index = await documents.read_index()
        stored = await documents.read_gate(self.name, index)
        if stored is None or stored.value != before.gate:
            raise RevisionConflict(f"rollout.{self.name}: somebody else has written it")
        gate = _outrun(gate, [each.member for each in before.judged])
        signer = None if by_operator else self._find_signer(index)
        await documents.write_gate(gate, stored, signer)
        log.info("%s: %s, %s", self.name, gate.state, gate.reason)
        concerned = [
            each.member.id
            for each in before.judged
            if gate.state in {"aborted", "paused"} or reaches(gate, each.member)
        ]
        await hint_devices(self._client, concerned, self.name)
        return gate

    def _find_signer(self, index: Read[FleetIndex] | None) -> Signer | None:
        """Return this home's key for gates, where devices accept its signature; None where an operator must
        sign."""
        own = self._gate_signer
        if own is not None and index is not None and own.public.to_text() in index.value.gate_keys:
            return own
        if self._by_gate_key_only:
            raise ConfigError(
                f"{self._home.root} has no gate.key that devices take gates from; where an operator's key "
                "is, `harmony rollout key` makes one"
            )
        return None

    async def _remind(self, progress: Progress) -> None:
        """Tell the devices again that have not heard of the gate: its writer may have died before."""
        now_s = self._clock()
        if now_s - self._reminded_at_s < _REMIND_AGAIN_S:
            return
        self._reminded_at_s = now_s
        await hint_devices(self._client, progress.find_unaware(), self.name)


def _outrun(gate: Gate, members: Sequence[Member]) -> Gate:
    """Return *gate* with a number above all that devices report to have accepted of this generation."""
    told = [each.gate for each in members if each.gate[0] <= gate.term + _TERMS_AHEAD_MOST]
    newest = max(told, default=(0, 0))
    if newest >= (gate.term, gate.seq):
        return gate.model_copy(update={"term": newest[0] + 1, "seq": 1})
    return gate
