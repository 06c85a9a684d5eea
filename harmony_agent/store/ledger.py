"""The ledger: which Score made which resource, written before the effect.

All of it is also held in memory, so that reading is free and an interpretation that claims nothing new
writes nothing. Claims are per resource *and* Score: a resource that two Scores made alike goes only
with the last of them. Who may claim what is decided in `harmony_agent.plan.ownership`; here it is noted.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import attrs

from harmony_core.claims import collide, names_of, slot_of
from harmony_core.errors import LedgerUnusable
from harmony_core.reconciler import DELETES_DATA, JsonRecord
from harmony_core.resources import Resource

from .database import Database, Statement

__all__ = ["ClaimRequest", "Ledger"]

_CLAIM = (
    "INSERT OR REPLACE INTO claim (seq, resource, score, spec_hash, intent, exclusive) "
    "VALUES (?, ?, ?, ?, 1, ?)"
)


@attrs.define
class _Claim:
    seq: int
    spec_hash: str
    intent: bool
    exclusive: frozenset[str]
    """What it claims beside its own id."""
    leaving: frozenset[str] = frozenset()
    """The same of what it was before, held until it is made. After a restart that is not known."""


@attrs.frozen
class ClaimRequest:
    """That one Score makes these resources from now on."""

    score: str
    resources: Sequence[Resource]
    taken: Sequence[tuple[str, str]] = ()
    """Claims, as Score and resource id, that end thereby: the resource moves, and is not removed."""


class Ledger:
    """Every claim and every record of this device. Also the reconcilers' `Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: defaultdict[str, dict[str, _Claim]] = defaultdict(dict)
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._users: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        """Score and resource id of every claim, by the slots of what it claims."""
        self._records: dict[str, JsonRecord] = {}
        self._interrupted: set[str] = set()
        self._next_seq = 1
        self._unwritten: set[asyncio.Future[None]] = set()

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Read what the last run left."""
        ledger = cls(database)
        for seq, resource, score, spec_hash, intent, exclusive in await database.read(
            "SELECT seq, resource, score, spec_hash, intent, exclusive FROM claim"
        ):
            claim = _Claim(seq, spec_hash, bool(intent), frozenset(json.loads(exclusive)))
            ledger._note(score, resource, claim)
            if intent:
                ledger._interrupted.add(score)
        for resource, text in await database.read("SELECT resource, json FROM record"):
            ledger._records[resource] = json.loads(text)
        return ledger

    def scores(self) -> set[str]:
        """Return the ids of all Scores that hold a claim."""
        return {score for score, claims in self._claims.items() if claims}

    def owned_by(self, score: str) -> list[str]:
        """Return the resource ids that *score* made, newest first: the order of teardown."""
        claims = self._claims[score]
        return sorted(claims, key=lambda resource: claims[resource].seq, reverse=True)

    def wants(self, score: str) -> dict[str, str]:
        """Return what *score* holds: the hash of each resource's specification, by id."""
        return {rid: claim.spec_hash for rid, claim in self._claims[score].items()}

    def is_shared(self, resource: str, score: str) -> bool:
        """Return whether another Score than *score* holds *resource* too, under whatever name."""
        users = (each for name in names_of(resource) for each in self.key_holders(name))
        return any(owner != score for owner, _ in users)

    def was_interrupted(self, score: str) -> bool:
        """Return whether the agent was killed between an effect of *score* and the storing of its Outcome."""
        return score in self._interrupted

    def holds(self, score: str, resources: Collection[Resource]) -> bool:
        """Return whether *score* holds all of *resources*, as they are specified."""
        claims = self._claims[score]
        return all(
            each.id in claims
            and claims[each.id].spec_hash == each.spec_hash
            and claims[each.id].exclusive == each.exclusive
            for each in resources
        )

    def holds_only(self, score: str, resource_ids: Collection[str]) -> bool:
        """Return whether *score* holds nothing beside these."""
        return all(rid in resource_ids for rid in self._claims[score])

    def is_settled(self, score: str) -> bool:
        """Return whether every effect of *score* is accounted for: none is under way, or was cut short."""
        return not any(claim.intent for claim in self._claims[score].values())

    def is_partly_settled(self, score: str) -> bool:
        """Return whether *score* holds something that is accounted for, and something that is not yet."""
        return len({bool(claim.intent) for claim in self._claims[score].values()}) == 2

    def holders(self, resource_id: str) -> dict[str, str]:
        """Return who holds a resource, and by which specification's hash."""
        return {
            score: self._claims[score][resource_id].spec_hash
            for score in self._holders.get(resource_id, ())
        }

    def key_holders(self, key: str, *, beside: str = "") -> list[tuple[str, str]]:
        """Return Score and resource id of all that have, or are still giving up, what conflicts with *key*.

        Such as an overlapping port, or the name of a unit. Leave out the resource of the id *beside*.
        """
        users = [each for each in self._users.get(slot_of(key), ()) if each[1] != beside]
        return [
            (score, rid)
            for score, rid in sorted(users)
            if any(collide(key, each) for each in _all_of(rid, self._claims[score][rid]))
        ]

    @property
    def owned(self) -> int:
        """How many resources are owned."""
        return len(self._holders)

    async def claim(self, *requests: ClaimRequest, along: Sequence[Statement] = ()) -> None:
        """Note all of *requests* in one transaction; durable once this returns, free when already noted.

        *along* is written with them.
        """
        new = [
            (request.score, resource.id, claim)
            for request in requests
            for resource in request.resources
            if (claim := self._new_claim(request.score, resource)) is not None
        ]
        taken = [each for request in requests for each in request.taken]
        statements: list[Statement] = [
            *along,
            *(("DELETE FROM claim WHERE score = ? AND resource = ?", each) for each in taken),
        ]
        statements += (
            (
                _CLAIM,
                (claim.seq, rid, score, claim.spec_hash, json.dumps(sorted(claim.exclusive))),
            )
            for score, rid, claim in new
        )
        with self._undo_if_unwritten([*taken, *((score, rid) for score, rid, _ in new)]):
            for each in taken:
                self._drop(*each)
            for score, rid, claim in new:
                self._note(score, rid, claim)
            await self._database.write(*statements)

    @contextmanager
    def _undo_if_unwritten(self, claims: Sequence[tuple[str, str]]) -> Generator[None]:
        """Within the block, let *claims* hold at once, since others decide meanwhile; undo them if they
        cannot be written."""
        before = [(score, rid, self._claims[score].get(rid)) for score, rid in claims]
        written = asyncio.get_running_loop().create_future()
        self._unwritten.add(written)
        try:
            yield
        except LedgerUnusable:
            for score, rid, claim in before:
                if claim is None:
                    self._drop(score, rid)
                else:
                    self._note(score, rid, claim)
            raise
        finally:
            self._unwritten.discard(written)
            written.set_result(None)

    async def wait_written(self) -> None:
        """Wait until everything that was decided is durable, or taken back."""
        while self._unwritten:
            await asyncio.wait(self._unwritten)

    def _new_claim(self, score: str, resource: Resource) -> _Claim | None:
        held = self._claims[score].get(resource.id)
        if self.holds(score, [resource]):
            return None
        exclusive = resource.exclusive
        if held is None:
            seq, self._next_seq = self._next_seq, self._next_seq + 1
            leaving = frozenset[str]()
        else:
            seq = held.seq
            leaving = (held.exclusive | held.leaving) - exclusive
        return _Claim(seq, resource.spec_hash, True, exclusive, leaving)

    def mark_made(self, score: str, resource_ids: Iterable[str]) -> None:
        """Note that these are as *score* has claimed them, and free what they held before and hold no
        more."""
        for rid in resource_ids:
            self._leave(score, rid)

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        """Note that these resources are gone, or somebody else's concern."""
        held = [rid for rid in resource_ids if rid in self._claims[score]]
        with self._undo_if_unwritten([(score, rid) for rid in held]):
            for rid in held:
                self._drop(score, rid)
            await self._database.write(
                *(
                    ("DELETE FROM claim WHERE resource = ? AND score = ?", (rid, score))
                    for rid in held
                )
            )

    def finish(self, score: str) -> list[Statement]:
        """Return what to write together with *score*'s Outcome: its effects are accounted for."""
        self._interrupted.discard(score)
        cut_short = {rid: claim for rid, claim in self._claims[score].items() if claim.intent}
        settled = list(cut_short.values())
        for rid, claim in cut_short.items():
            claim.intent = False
            self._leave(score, rid)
        # Each by what it was claimed for: by the time this is written, a newer claim may stand there.
        return [
            (
                "UPDATE claim SET intent = 0 WHERE seq = ? AND spec_hash = ?",
                (claim.seq, claim.spec_hash),
            )
            for claim in settled
        ]

    def get(self, resource_id: str) -> JsonRecord | None:
        return self._records.get(resource_id)

    def deletes_data(self, resource_id: str) -> bool:
        """Return whether removing this resource deletes data for good."""
        record = self._records.get(resource_id)
        return record is not None and bool(record.get(DELETES_DATA))

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        if self._records.get(resource_id) == record:
            return
        before, self._records[resource_id] = self._records.get(resource_id), dict(record)
        with self._undo_record_if_unwritten(resource_id, before):
            await self._database.write(
                (
                    "INSERT OR REPLACE INTO record (resource, json) VALUES (?, ?)",
                    (resource_id, json.dumps(record)),
                )
            )

    async def forget(self, resource_id: str) -> None:
        before = self._records.pop(resource_id, None)
        if before is not None:
            with self._undo_record_if_unwritten(resource_id, before):
                await self._database.write(
                    ("DELETE FROM record WHERE resource = ?", (resource_id,))
                )

    @contextmanager
    def _undo_record_if_unwritten(
        self, resource_id: str, before: JsonRecord | None
    ) -> Generator[None]:
        """Within the block, undo the record if it cannot be written, unless it changed again: the next write
        must not take it for written."""
        now = self._records.get(resource_id)
        try:
            yield
        except LedgerUnusable:
            if self._records.get(resource_id) is now:
                if before is None:
                    self._records.pop(resource_id, None)
                else:
                    self._records[resource_id] = before
            raise

    def _note(self, score: str, resource: str, claim: _Claim) -> None:
        self._unlist(score, resource)
        self._claims[score][resource] = claim
        for key in _all_of(resource, claim):
            self._users[slot_of(key)].add((score, resource))
        self._holders[resource].add(score)
        self._next_seq = max(self._next_seq, claim.seq + 1)

    def _drop(self, score: str, resource: str) -> None:
        self._unlist(score, resource)
        self._claims[score].pop(resource, None)
        self._holders[resource].discard(score)
        if not self._holders[resource]:
            del self._holders[resource]

    def _leave(self, score: str, resource: str) -> None:
        """Free what *resource* held before and holds no more."""
        claim = self._claims[score].get(resource)
        if claim is not None and claim.leaving:
            self._unlist(score, resource)
            claim.leaving = frozenset()
            self._note(score, resource, claim)

    def _unlist(self, score: str, resource: str) -> None:
        if (claim := self._claims[score].get(resource)) is None:
            return
        for slot in map(slot_of, _all_of(resource, claim)):
            users = self._users[slot]
            users.discard((score, resource))
            if not users:
                del self._users[slot]


def _all_of(resource_id: str, claim: _Claim) -> Iterator[str]:
    """Yield everything that *claim*, on the resource of this id, has or leaves."""
    yield from names_of(resource_id)
    yield from claim.exclusive
    yield from claim.leaving
