"""Ownership: whose is what, decided from the ledger and from what the newest plans name.

Claims are per resource id. Equal specifications are shared. Where they differ::

    the owner's newest plan still names it  ->  OwnershipConflict for whoever comes second
    its plan does not, or it is gone        ->  the claim moves; the resource is not removed in between
    its plan could not be made (yet)        ->  the newcomer waits

Among newcomers the order of the manifest decides. The same holds for exclusive keys, such as a port,
with one difference: what holds the key is another resource, so that it has to go first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import attrs

from harmony_core.change import NotReady
from harmony_core.errors import OwnershipConflict
from harmony_core.resources import Resource

from .database import Statement
from .ledger import Ledger, Wish

__all__ = ["Ownership", "ScoreClaims"]

_ASK_AGAIN_S = 1.0


@attrs.frozen
class _Named:
    """The resource ids that a Score names, and whether that is all of them."""

    ids: frozenset[str]
    whole: bool


class Ownership:
    """Asked before every claim."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._scores: frozenset[str] = frozenset()
        self._named: dict[str, _Named] = {}

    def begin(self, scores: Collection[str]) -> None:
        """A manifest of these *scores* is in force, and none of them was planned yet."""
        self._scores = frozenset(scores)
        self._named.clear()

    def names(self, score: str, ids: Collection[str], *, whole: bool) -> None:
        """What *score* was found to name; *whole*: and nothing else."""
        self._named[score] = _Named(frozenset(ids), whole)

    def leftover(self, score: str, ids: Collection[str]) -> list[str]:
        """What *score* holds beside *ids*, newest first."""
        if self._ledger.holds_only(score, ids):
            return []
        return [rid for rid in self._ledger.made_by(score) if rid not in ids]

    def claims(self, score: str) -> ScoreClaims:
        """The side of the ledger that *score*'s Stage sees."""
        return ScoreClaims(self, score)

    async def claim(self, score: str, resources: Sequence[Resource]) -> None:
        """As `harmony_core.stage.Claims.claim`, for *score*."""
        await (
            self._ledger.written()
        )  # what was decided in a plan has no effect before it is durable
        if not self._ledger.holds(score, resources):
            await self._ledger.claim(self._wish(score, resources, {}))

    async def claim_all(
        self, planned: Sequence[tuple[str, Sequence[Resource]]], along: Sequence[Statement]
    ) -> None:
        """Claim for several Scores in one transaction, those first that come first; *along* goes with it.

        Whoever cannot have all of its resources gets none here, and is told when its turn comes.
        """
        wishes = [wish for _, wish in self._decided(planned) if isinstance(wish, Wish)]
        await self._ledger.claim(*wishes, along=along)

    def refused(
        self, planned: Sequence[tuple[str, Sequence[Resource]]]
    ) -> dict[str, OwnershipConflict | NotReady]:
        """Which of *planned* `claim_all` would not claim for, and why. Claims nothing."""
        return {score: why for score, why in self._decided(planned) if not isinstance(why, Wish)}

    def _decided(
        self, planned: Sequence[tuple[str, Sequence[Resource]]]
    ) -> Iterator[tuple[str, Wish | OwnershipConflict | NotReady]]:
        promised: dict[str, Resource] = {}
        for score, resources in planned:
            if self._ledger.holds(score, resources):
                continue
            try:
                yield score, self._wish(score, resources, promised)
            except (OwnershipConflict, NotReady) as why:
                yield score, why
            else:
                promised.update((each.id, each) for each in resources)

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        await self._ledger.release(score, resource_ids)

    def _wish(
        self, score: str, resources: Sequence[Resource], promised: dict[str, Resource]
    ) -> Wish:
        taken: list[tuple[str, str]] = []
        for resource in resources:
            first = promised.get(resource.id)
            if first is not None and first.spec_hash != resource.spec_hash:
                raise _conflict(resource, "another Score that stands before this one")
            taken += self._taken_for(score, resource)
            self._refuse_used_keys(score, resource)
        return Wish(score, resources, taken)

    def _taken_for(self, score: str, resource: Resource) -> list[tuple[str, str]]:
        others = {
            owner
            for owner, spec_hash in self._ledger.holders(resource.id).items()
            if owner != score and spec_hash != resource.spec_hash
        }
        for owner in sorted(others):
            if self._still_named(owner, resource.id, waiting=resource):
                raise _conflict(resource, owner)
        return [(owner, resource.id) for owner in others]

    def _refuse_used_keys(self, score: str, resource: Resource) -> None:
        for key in resource.exclusive:
            for owner, rid in self._ledger.users_of(key):
                if owner == score or rid == resource.id:
                    continue
                if self._still_named(owner, rid, waiting=resource):
                    raise OwnershipConflict(
                        f"{resource.id} needs {key}, which {rid} of Score {owner!r} holds; "
                        "give one of them another",
                        resource=resource.id,
                    )
                raise _wait(resource, f"until {rid}, which holds {key}, is gone")

    def _still_named(self, owner: str, rid: str, *, waiting: Resource) -> bool:
        if owner not in self._scores:
            return False
        named = self._named.get(owner)
        if named is not None and rid in named.ids:
            return True
        if named is None or not named.whole:
            raise _wait(waiting, f"for Score {owner!r}, which owns {rid} and could not be planned")
        return False


def _conflict(resource: Resource, owner: str) -> OwnershipConflict:
    return OwnershipConflict(
        f"{resource.id} is Score {owner!r}'s, with another specification; "
        "make both the same, or take it out of one of them",
        resource=resource.id,
    )


def _wait(resource: Resource, what: str) -> NotReady:
    return NotReady(
        f"waits {what}", resource=resource.id, reason="Blocked", look_again_s=_ASK_AGAIN_S
    )


@attrs.frozen
class ScoreClaims:
    """`harmony_core.stage.Claims` of one Score."""

    _ownership: Ownership
    _score: str

    async def claim(self, resources: Sequence[Resource]) -> None:
        await self._ownership.claim(self._score, resources)

    async def release(self, resource_ids: Sequence[str]) -> None:
        await self._ownership.release(self._score, resource_ids)
