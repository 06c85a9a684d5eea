"""The ledger: which Score made which resource, written before the effect.

All of it is also held in memory, so that reading is free and an interpretation that claims nothing new
writes nothing. Claims are per resource *and* Score: a resource that two Scores made alike goes only
with the last of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import attrs

from harmony_core.reconciler import JsonRecord
from harmony_core.resources import Resource

from .database import Database, Statement

__all__ = ["Ledger", "ScoreClaims"]


@attrs.define
class _Claim:
    seq: int
    spec_hash: str
    intent: bool


class Ledger:
    """Every claim and every record of this device. Also the reconcilers' `Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: defaultdict[str, dict[str, _Claim]] = defaultdict(dict)
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._records: dict[str, JsonRecord] = {}
        self._interrupted: set[str] = set()
        self._next_seq = 1

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Read what the last run left."""
        ledger = cls(database)
        for seq, resource, score, spec_hash, intent in await database.read(
            "SELECT seq, resource, score, spec_hash, intent FROM claim"
        ):
            ledger._note(score, resource, _Claim(seq, spec_hash, bool(intent)))
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

    def shared(self, resource: str, score: str) -> bool:
        """Whether another Score than *score* holds *resource* too."""
        return bool(self._holders[resource] - {score})

    def interrupted(self, score: str) -> bool:
        """Whether the agent was killed between an effect of *score* and the storing of its Outcome."""
        return score in self._interrupted

    def claims(self, score: str) -> ScoreClaims:
        """The side of the ledger that *score*'s Stage sees."""
        return ScoreClaims(self, score)

    async def claim(self, score: str, resources: Sequence[Resource]) -> None:
        """Note that *score* makes *resources*; durable once this returns, free when already noted."""
        new: dict[str, _Claim] = {}
        for resource in resources:
            rid, spec_hash = resource.id, resource.spec_hash
            held = self._claims[score].get(rid)
            if held is None:
                new[rid] = _Claim(self._next_seq, spec_hash, intent=True)
                self._next_seq += 1
            elif held.spec_hash != spec_hash:
                new[rid] = _Claim(held.seq, spec_hash, intent=True)
        if not new:
            return
        await self._database.write(
            *(
                (
                    "INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, 1)",
                    (claim.seq, rid, score, claim.spec_hash),
                )
                for rid, claim in new.items()
            )
        )
        # Only now: a claim that could not be written must be tried again.
        for rid, claim in new.items():
            self._note(score, rid, claim)

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        """Note that these resources are gone, or somebody else's concern."""
        held = [rid for rid in resource_ids if rid in self._claims[score]]
        await self._database.write(
            *(("DELETE FROM claim WHERE resource = ? AND score = ?", (rid, score)) for rid in held)
        )
        for rid in held:
            self._claims[score].pop(rid, None)
            self._holders[rid].discard(score)

    def finish(self, score: str) -> list[Statement]:
        """What to write together with *score*'s Outcome: its effects are accounted for."""
        self._interrupted.discard(score)
        if not any(claim.intent for claim in self._claims[score].values()):
            return []
        for claim in self._claims[score].values():
            claim.intent = False
        return [("UPDATE claim SET intent = 0 WHERE score = ?", (score,))]

    def get(self, resource_id: str) -> JsonRecord | None:
        return self._records.get(resource_id)

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        if self._records.get(resource_id) == record:
            return
        self._records[resource_id] = dict(record)
        await self._database.write(
            ("INSERT OR REPLACE INTO record VALUES (?, ?)", (resource_id, json.dumps(record)))
        )

    async def forget(self, resource_id: str) -> None:
        if self._records.pop(resource_id, None) is not None:
            await self._database.write(("DELETE FROM record WHERE resource = ?", (resource_id,)))

    def _note(self, score: str, resource: str, claim: _Claim) -> None:
        self._claims[score][resource] = claim
        self._holders[resource].add(score)
        self._next_seq = max(self._next_seq, claim.seq + 1)


@attrs.frozen
class ScoreClaims:
    """`harmony_core.stage.Claims` of one Score."""

    _ledger: Ledger
    _score: str

    async def claim(self, resources: Sequence[Resource]) -> None:
        await self._ledger.claim(self._score, resources)

    async def release(self, resource_ids: Sequence[str]) -> None:
        await self._ledger.release(self._score, resource_ids)
