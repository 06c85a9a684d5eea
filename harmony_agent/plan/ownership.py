"""Ownership: whose is what, decided from the ledger and from what the newest plans name.

Claims are per resource id. Equal specifications are shared. Where they differ, one wish counts::

    an owner's newest plan keeps it as it is  ->  that; OwnershipConflict for whoever wants another
    its owners' newest plans change it        ->  theirs; where these differ, the manifest's order decides
    no owner's plan names it any more         ->  the claim moves; the resource is not removed in between
    an owner's plan could not be made (yet)   ->  the others wait

Among newcomers, too, the order of the manifest decides. The same holds for exclusive keys, such as a port,
with one difference: what holds the key is another resource, so that it has to go, or to change, first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import attrs

from harmony_agent.store.database import Statement
from harmony_agent.store.ledger import Ledger, Wish
from harmony_core.change import NotReady
from harmony_core.errors import OwnershipConflict
from harmony_core.resources import Resource
from harmony_core.wire.manifest import SerializedScore

from .desired_index import Wishes

__all__ = ["Ownership", "ScoreClaims"]

_ASK_AGAIN_S = 1.0


class _Awaited(NotReady):
    """By what the newest plans say, what is waited for comes of itself."""


@attrs.define
class _Promised:
    """Who comes before, and what they are going to have."""

    specs: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    keys: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])

    def add(self, score: str, resources: Sequence[Resource]) -> None:
        for each in resources:
            self.specs[each.id] = (score, each.spec_hash)
            self.keys.update(dict.fromkeys(each.exclusive, (score, each.id)))


class Ownership:
    """Asked before every claim."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wishes = Wishes()

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """A manifest of these *entries* is in force, and none of them was planned yet."""
        self._wishes.begin(entries)

    def names(
        self, score: str, ids: Collection[str], wanted: Mapping[str, Resource], *, whole: bool
    ) -> None:
        """What *score* was found to name, and what of it to want; *whole*: and nothing else."""
        self._wishes.note(score, ids, wanted, whole=whole)

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
            await self._ledger.claim(self._wish(score, resources, _Promised()))

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
        """Which of *planned* would not get what they want, and why. Claims nothing.

        What only waits for another to make way will get it.
        """
        return {
            score: why
            for score, why in self._decided(planned)
            if not isinstance(why, Wish | _Awaited)
        }

    def _decided(
        self, planned: Sequence[tuple[str, Sequence[Resource]]]
    ) -> Iterator[tuple[str, Wish | OwnershipConflict | NotReady]]:
        promised = _Promised()
        for score, resources in planned:
            if self._ledger.holds(score, resources):
                continue
            try:
                yield score, self._wish(score, resources, promised)
            except (OwnershipConflict, NotReady) as why:
                yield score, why
            else:
                promised.add(score, resources)

    async def may_remove(self, score: str, resource_ids: Sequence[str]) -> None:
        """As `harmony_core.stage.Claims.may_remove`, for *score*."""
        why = self.kept_from(score, resource_ids)
        if isinstance(why, OwnershipConflict) and why.resource is not None:
            await self._ledger.release(score, [why.resource])
        if why is not None:
            raise why

    def kept_from(
        self, score: str, resource_ids: Iterable[str]
    ) -> OwnershipConflict | NotReady | None:
        """Why *score* may not take these away; None when it may."""
        try:
            for rid in resource_ids:
                self._refuse_removal(score, rid)
        except (OwnershipConflict, NotReady) as why:
            return why
        return None

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        await self._ledger.release(score, resource_ids)

    def _wish(self, score: str, resources: Sequence[Resource], promised: _Promised) -> Wish:
        taken: list[tuple[str, str]] = []
        for resource in resources:
            first, spec_hash = promised.specs.get(resource.id, (score, resource.spec_hash))
            if spec_hash != resource.spec_hash:
                raise _conflict(resource, first)
            taken += self._taken_for(score, resource)
            for key in sorted(resource.exclusive):
                first, rid = promised.keys.get(key, (score, resource.id))
                if first != score and rid != resource.id:
                    raise _key_conflict(resource, key, first, rid)
                self._refuse_used(key, score, resource)
        return Wish(score, resources, taken)

    def _taken_for(self, score: str, resource: Resource) -> list[tuple[str, str]]:
        """The claims that end with this one: all that hold a resource want it alike."""
        holders = self._ledger.holders(resource.id)
        wishes = {
            owner: self._wished_by(owner, held, resource)
            for owner, held in holders.items()
            if owner != score
        }
        if score in holders:
            wishes[score] = resource.spec_hash
        ranked = [
            (wish != holders[owner], self._wishes.place(owner), owner)
            for owner, wish in wishes.items()
            if wish is not None
        ]
        if ranked and wishes[first := min(ranked)[2]] != resource.spec_hash:
            raise _conflict(resource, first)
        return [
            (owner, resource.id)
            for owner, held in holders.items()
            if owner != score and held != resource.spec_hash
        ]

    def _wished_by(self, owner: str, held: str, resource: Resource) -> str | None:
        """What *owner*, which holds it by *held*, wants of *resource* now; None for nothing."""
        if held == resource.spec_hash and self._wishes.is_open(owner, resource.id):
            return held  # whatever its plan will be, nothing is taken from it
        if not self._still_names(owner, resource.id, waiting=resource.id):
            return None
        wanted = self._wishes.of(owner, resource.id)
        return held if wanted is None else wanted.spec_hash

    def _refuse_used(self, key: str, score: str, resource: Resource) -> None:
        for owner, rid in self._ledger.users_of(key):
            if owner == score or rid == resource.id:
                continue
            if self._keeps(key, owner, rid, waiting=resource.id):
                raise _key_conflict(resource, key, owner, rid)
            if self._waits_for(owner, score):
                raise OwnershipConflict(
                    f"{resource.id} needs {key}, which {rid} of Score {owner!r} leaves only after Score "
                    f"{score!r} is done; push one of them with a free one first, then both as meant",
                    resource=resource.id,
                )
            raise _wait(resource.id, f"until {rid} has left {key}", _Awaited)

    def _keeps(self, key: str, owner: str, rid: str, *, waiting: str) -> bool:
        """Whether *owner* still wants *key*, which its *rid* holds."""
        if key in self._wishes.keys(owner):
            return True
        # What is only looked at stays as it is.
        named = self._still_names(owner, rid, waiting=waiting)
        return named and self._wishes.of(owner, rid) is None

    def _waits_for(self, owner: str, score: str) -> bool:
        """Whether *owner* cannot go on before *score*: for a key, or by ``after``; however indirectly."""
        seen: set[str] = set()
        front = {owner}
        while front and score not in front:
            seen |= front
            front = {each for waiting in front for each in self._waited_for(waiting)} - seen
        return bool(front)

    def _waited_for(self, score: str) -> set[str]:
        keys = self._wishes.keys(score)
        users = {owner for key in keys for owner, _ in self._ledger.users_of(key)}
        return users.union(self._wishes.after(score)) - {score}

    def _refuse_removal(self, score: str, rid: str) -> None:
        others = self._wishes.wanting(rid).union(self._ledger.holders(rid)) - {score}
        for owner in sorted(others):
            if self._still_names(owner, rid, waiting=rid):
                raise OwnershipConflict(
                    f"{rid} is not to be taken away, since Score {owner!r} wants it; take it out of one "
                    "of them, or do not name it here, which lets go of it too",
                    resource=rid,
                )
            raise _wait(rid, f"until Score {owner!r} has let go of it", _Awaited)

    def _still_names(self, owner: str, rid: str, *, waiting: str) -> bool:
        if self._wishes.is_open(owner, rid):
            raise _wait(waiting, f"for Score {owner!r}, which owns {rid} and could not be planned")
        return self._wishes.names(owner, rid)


def _conflict(resource: Resource, owner: str) -> OwnershipConflict:
    return OwnershipConflict(
        f"{resource.id} is wanted otherwise by Score {owner!r}, which comes first; "
        "make both the same, or take it out of one of them",
        resource=resource.id,
    )


def _key_conflict(resource: Resource, key: str, owner: str, rid: str) -> OwnershipConflict:
    return OwnershipConflict(
        f"{resource.id} needs {key}, which {rid} of Score {owner!r} has; give one of them another",
        resource=resource.id,
    )


def _wait(resource: str, what: str, kind: type[NotReady] = NotReady) -> NotReady:
    return kind(f"waits {what}", resource=resource, reason="Blocked", look_again_s=_ASK_AGAIN_S)


@attrs.frozen
class ScoreClaims:
    """`harmony_core.stage.Claims` of one Score."""

    _ownership: Ownership
    _score: str

    async def claim(self, resources: Sequence[Resource]) -> None:
        await self._ownership.claim(self._score, resources)

    async def may_remove(self, resource_ids: Sequence[str]) -> None:
        await self._ownership.may_remove(self._score, resource_ids)

    async def release(self, resource_ids: Sequence[str]) -> None:
        await self._ownership.release(self._score, resource_ids)
