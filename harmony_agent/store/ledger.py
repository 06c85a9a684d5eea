"""The ledger: which Score made which resource, written before the effect.

All of it is also held in memory, so that reading is free and an interpretation that claims nothing new
writes nothing. Claims are per resource *and* Score: a resource that two Scores made alike goes only
with the last of them. Who may claim what is decided in `harmony_agent.plan.ownership`; here it is noted.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Self

import attrs

from harmony_core.errors import LedgerUnusable
from harmony_core.reconciler import JsonRecord
from harmony_core.resources import Resource

from .database import Database, Statement

__all__ = ["Ledger", "Wish"]

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
    leaving: frozenset[str] = frozenset()
    """Exclusive keys of what it was before, held until it is made. After a restart they are not known."""


@attrs.frozen
class Wish:
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
        """The ids of all Scores that hold a claim."""
        return {score for score, claims in self._claims.items() if claims}

    def made_by(self, score: str) -> list[str]:
        """The resource ids that *score* made, newest first: the order of teardown."""
        claims = self._claims[score]
        return sorted(claims, key=lambda resource: claims[resource].seq, reverse=True)

    def wants(self, score: str) -> dict[str, str]:
        """What *score* holds: the hash of each resource's specification, by id."""
        return {rid: claim.spec_hash for rid, claim in self._claims[score].items()}

    def shared(self, resource: str, score: str) -> bool:
        """Whether another Score than *score* holds *resource* too."""
        return bool(self._holders.get(resource, set()) - {score})

    def interrupted(self, score: str) -> bool:
        """Whether the agent was killed between an effect of *score* and the storing of its Outcome."""
        return score in self._interrupted

    def holds(self, score: str, resources: Collection[Resource]) -> bool:
        """Whether *score* holds all of *resources*, as they are specified."""
        claims = self._claims[score]
        return all(
            each.id in claims and claims[each.id].spec_hash == each.spec_hash for each in resources
        )

    def holds_only(self, score: str, resource_ids: Collection[str]) -> bool:
        """Whether *score* holds nothing beside these."""
        return all(rid in resource_ids for rid in self._claims[score])

    def is_settled(self, score: str) -> bool:
        """Whether every effect of *score* is accounted for: none is under way, or was cut short."""
        return not any(claim.intent for claim in self._claims[score].values())

    def holders(self, resource_id: str) -> dict[str, str]:
        """Who holds a resource, and by which specification's hash."""
        return {
            score: self._claims[score][resource_id].spec_hash
            for score in self._holders.get(resource_id, ())
        }

    def users_of(self, key: str) -> list[tuple[str, str]]:
        """Score and resource id of every claim that has the exclusive *key*, such as a port, or leaves it."""
        return [
            (score, rid)
            for score, claims in self._claims.items()
            for rid, claim in claims.items()
            if key in claim.exclusive or key in claim.leaving
        ]

    @property
    def owned(self) -> int:
        """How many resources are owned."""
        return len(self._holders)

    async def claim(self, *wishes: Wish, along: Sequence[Statement] = ()) -> None:
        """Note all of *wishes* in one transaction; durable once this returns, free when already noted.

        *along* is written with them.
        """
        new = [
            (wish.score, resource.id, claim)
            for wish in wishes
            for resource in wish.resources
            if (claim := self._new_claim(wish.score, resource)) is not None
        ]
        taken = [each for wish in wishes for each in wish.taken]
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
        with self._undone_if_unwritten([*taken, *((score, rid) for score, rid, _ in new)]):
            for each in taken:
                self._drop(*each)
            for score, rid, claim in new:
                self._note(score, rid, claim)
            await self._database.write(*statements)

    @contextmanager
    def _undone_if_unwritten(self, claims: Sequence[tuple[str, str]]) -> Generator[None]:
        """What is decided holds at once, since others decide meanwhile; but not if it cannot be written."""
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

    async def written(self) -> None:
        """Wait until everything that was decided is durable, or taken back."""
        while self._unwritten:
            await asyncio.wait(self._unwritten)

    def _new_claim(self, score: str, resource: Resource) -> _Claim | None:
        held = self._claims[score].get(resource.id)
        if held is not None and held.spec_hash == resource.spec_hash:
            return None
        if held is None:
            seq, self._next_seq = self._next_seq, self._next_seq + 1
            leaving = frozenset[str]()
        else:
            seq = held.seq
            leaving = (held.exclusive | held.leaving) - resource.exclusive
        return _Claim(seq, resource.spec_hash, True, resource.exclusive, leaving)

    def made(self, score: str, resource_ids: Iterable[str]) -> None:
        """These are as *score* has claimed them: what they held before, and hold no more, is free."""
        claims = self._claims[score]
        for rid in resource_ids:
            if rid in claims:
                claims[rid].leaving = frozenset()

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        """Note that these resources are gone, or somebody else's concern."""
        held = [rid for rid in resource_ids if rid in self._claims[score]]
        with self._undone_if_unwritten([(score, rid) for rid in held]):
            for rid in held:
                self._drop(score, rid)
            await self._database.write(
                *(
                    ("DELETE FROM claim WHERE resource = ? AND score = ?", (rid, score))
                    for rid in held
                )
            )

    def finish(self, score: str) -> list[Statement]:
        """What to write together with *score*'s Outcome: its effects are accounted for."""
        self._interrupted.discard(score)
        settled = [claim for claim in self._claims[score].values() if claim.intent]
        for claim in settled:
            claim.intent = False
            claim.leaving = frozenset()
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

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        if self._records.get(resource_id) == record:
            return
        before, self._records[resource_id] = self._records.get(resource_id), dict(record)
        with self._remembered_if_unwritten(resource_id, before):
            await self._database.write(
                (
                    "INSERT OR REPLACE INTO record (resource, json) VALUES (?, ?)",
                    (resource_id, json.dumps(record)),
                )
            )

    async def forget(self, resource_id: str) -> None:
        before = self._records.pop(resource_id, None)
        if before is not None:
            with self._remembered_if_unwritten(resource_id, before):
                await self._database.write(
                    ("DELETE FROM record WHERE resource = ?", (resource_id,))
                )

    @contextmanager
    def _remembered_if_unwritten(
        self, resource_id: str, before: JsonRecord | None
    ) -> Generator[None]:
        """What could not be written is not taken for written the next time, unless it changed again."""
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
        self._claims[score][resource] = claim
        self._holders[resource].add(score)
        self._next_seq = max(self._next_seq, claim.seq + 1)

    def _drop(self, score: str, resource: str) -> None:
        self._claims[score].pop(resource, None)
        self._holders[resource].discard(score)
        if not self._holders[resource]:
            del self._holders[resource]
