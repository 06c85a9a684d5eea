"""Ownership: whose is what, decided from the ledger and from what the newest plans name.

Claims are per resource id, and per name that a resource has or uses beside (`harmony_core.claims`): one thing
has one owner under all its names. Equal specifications are shared. Where they differ, one of them counts::

    an owner's newest plan keeps it as it is  ->  that; OwnershipConflict for whoever wants another
    its owners' newest plans change it        ->  theirs; where these differ, the manifest's order decides
    no owner's plan names it any more         ->  the claim moves; the resource is not removed in between
    an owner's plan could not be made (yet)   ->  the others wait

Among newcomers, too, the order of the manifest decides. The same holds for what a resource claims beside its
id, such as a port, with one difference: what holds it is another resource, so that it has to go, or to
change, first. Where two were made before it was seen that they are one, the manifest's order decides, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import attrs

from harmony_agent.store.database import Statement
from harmony_agent.store.ledger import ClaimRequest, Ledger
from harmony_core.change import NotReady
from harmony_core.claims import collide, in_words, names_of, slot_of
from harmony_core.errors import OwnershipConflict
from harmony_core.resources import Resource

from .desired_index import DesiredIndex
from .generation import Generations
from .run_result import RunResult

__all__ = ["Ownership", "ScoreClaims"]

_ASK_AGAIN_S = 1.0


class _Awaited(NotReady):
    """By what the newest plans say, what is waited for comes of itself."""


@attrs.define
class _Promised:
    """Who comes before, and what they are going to have."""

    specs: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    _users: dict[str, list[tuple[str, str, str]]] = attrs.field(
        factory=dict[str, list[tuple[str, str, str]]]
    )

    def add(self, score: str, resource: Resource, keys: Iterable[str]) -> None:
        self.specs[resource.id] = (score, resource.spec_hash)
        for key in keys:
            self._users.setdefault(slot_of(key), []).append((key, score, resource.id))

    def key_holders(self, key: str) -> Iterator[tuple[str, str]]:
        """Yield Score and resource id of all that are going to have a key that conflicts with *key*."""
        for other, score, rid in self._users.get(slot_of(key), ()):
            if collide(key, other):
                yield score, rid


class Ownership:
    """Asked before every claim."""

    def __init__(self, ledger: Ledger, generations: Generations) -> None:
        self._ledger = ledger
        self._generations = generations

    @property
    def _index(self) -> DesiredIndex:
        return self._generations.current.index

    def note_plan(self, result: RunResult) -> None:
        """Note what the Score of *result* was found to name, and what of it to want."""
        self._index.note(
            result.entry.id,
            result.referenced,
            result.wanted,
            result.identities,
            completed=result.completed,
        )

    def holds(self, score: str, resources: Collection[Resource]) -> bool:
        """Return whether *score* holds all of *resources*, and alone, under all their names."""
        return self._ledger.holds(score, resources) and not any(
            self._users_of(key, beside=resource.id)
            for resource in resources
            for key in self._index.keys_of(score, resource)
        )

    def key_holders(self, score: str, wanted: Iterable[Resource]) -> set[tuple[str, str]]:
        """Return Score and resource id of all that have, under other ids, what *score* needs for *wanted*."""
        return {
            each
            for resource in wanted
            for key in self._index.keys_of(score, resource)
            for each in self._users_of(key, beside=resource.id)
        }

    def identities(self, score: str) -> Mapping[str, frozenset[str]]:
        """Return, by resource id, the other names by which the device knows what *score* was last found to
        want."""
        return self._index.identities(score)

    def find_unnamed(self, score: str, ids: Collection[str]) -> list[str]:
        """Return what *score* holds beside *ids*, newest first."""
        if self._ledger.holds_only(score, ids):
            return []
        return [rid for rid in self._ledger.owned_by(score) if rid not in ids]

    def claims(self, score: str) -> ScoreClaims:
        """Return the side of the ledger that *score*'s Stage sees."""
        return ScoreClaims(self, score)

    async def claim(
        self,
        score: str,
        resources: Sequence[Resource],
        identities: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Claim *resources* for *score*, once what was planned is durable; see
        `harmony_core.stage.Claims.claim`."""
        await (
            self._ledger.wait_written()
        )  # what was decided in a plan has no effect before it is durable
        self._index.identify(score, identities)
        if not self.holds(score, resources):
            await self._ledger.claim(self._request_claims(score, resources, _Promised()))

    async def claim_all(
        self, planned: Sequence[tuple[str, Sequence[Resource]]], along: Sequence[Statement]
    ) -> None:
        """Claim for several Scores in one transaction, in the order of the manifest. *along* is written with
        it.

        A Score that cannot have all of its resources gets none here; its own turn reports that.
        """
        requests = [
            request
            for _, request in self._decide_claims(planned)
            if isinstance(request, ClaimRequest)
        ]
        await self._ledger.claim(*requests, along=along)

    def find_refused(
        self, planned: Sequence[tuple[str, Sequence[Resource]]]
    ) -> dict[str, OwnershipConflict | NotReady]:
        """Return which of *planned* would not get what they want, and why. Claim nothing.

        A Score that only waits until another releases something will get it.
        """
        return {
            score: why
            for score, why in self._decide_claims(planned)
            if not isinstance(why, ClaimRequest | _Awaited)
        }

    def _decide_claims(
        self, planned: Sequence[tuple[str, Sequence[Resource]]]
    ) -> Iterator[tuple[str, ClaimRequest | OwnershipConflict | NotReady]]:
        promised = _Promised()
        for score, resources in planned:
            if self.holds(score, resources):
                continue
            try:
                yield score, self._request_claims(score, resources, promised)
            except (OwnershipConflict, NotReady) as why:
                yield score, why
            else:
                for each in resources:
                    promised.add(score, each, self._index.keys_of(score, each))

    async def may_remove(self, score: str, resource_ids: Sequence[str]) -> None:
        """Raise unless *score* may remove these; see `harmony_core.stage.Claims.may_remove`."""
        why = self.refusal_to_remove(score, resource_ids)
        if isinstance(why, OwnershipConflict) and why.resource is not None:
            await self._ledger.release(score, [why.resource])
        if why is not None:
            raise why

    def refusal_to_remove(
        self, score: str, resource_ids: Iterable[str]
    ) -> OwnershipConflict | NotReady | None:
        """Return why *score* may not remove these; None when it may."""
        try:
            for rid in resource_ids:
                self._refuse_removal(score, rid)
        except (OwnershipConflict, NotReady) as why:
            return why
        return None

    async def release(self, score: str, resource_ids: Sequence[str]) -> None:
        await self._ledger.release(score, resource_ids)

    def _request_claims(
        self, score: str, resources: Sequence[Resource], promised: _Promised
    ) -> ClaimRequest:
        taken: list[tuple[str, str]] = []
        mine = _Promised()
        for resource in resources:
            first, spec_hash = promised.specs.get(resource.id, (score, resource.spec_hash))
            if spec_hash != resource.spec_hash:
                raise _conflict(resource, first)
            taken += self._claims_ended_by(score, resource)
            keys = sorted(self._index.keys_of(score, resource))
            for key in keys:
                for first, rid in (*promised.key_holders(key), *mine.key_holders(key)):
                    if rid != resource.id:
                        raise _key_conflict(resource, key, first, rid)
                self._refuse_used(key, score, resource)
            mine.add(score, resource, keys)
        return ClaimRequest(score, resources, taken)

    def _claims_ended_by(self, score: str, resource: Resource) -> list[tuple[str, str]]:
        """Return the claims that end with this one: all that hold a resource want it alike."""
        # Whoever holds it now, and still wants it, is ranked: first those whose plan keeps it as it is, then
        # those who change it, each by their place in the manifest. The first one's specification wins: if
        # that is not ours, ours is the conflict. If it is, the claims of all who hold it otherwise move here
        # in one transaction, so that at no moment nobody owns the resource, and nobody takes it away in
        # between. Whose plan could not be made (yet) is waited for, by `_still_names`.
        holders = self._ledger.holders(resource.id)
        requests = {
            owner: self._desired_by(owner, held, resource)
            for owner, held in holders.items()
            if owner != score
        }
        if score in holders:
            requests[score] = resource.spec_hash
        ranked = [
            (request != holders[owner], self._index.place(owner), owner)
            for owner, request in requests.items()
            if request is not None
        ]
        if ranked and requests[first := min(ranked)[2]] != resource.spec_hash:
            raise _conflict(resource, first)
        return [
            (owner, resource.id)
            for owner, held in holders.items()
            if owner != score and held != resource.spec_hash
        ]

    def _desired_by(self, owner: str, held: str, resource: Resource) -> str | None:
        """Return what *owner*, which holds it by *held*, wants of *resource* now; None for nothing."""
        if held == resource.spec_hash and self._index.is_open(owner, resource.id):
            return held  # whatever its plan will be, nothing is taken from it
        if not self._still_names(owner, resource.id, waiting=resource.id):
            return None
        wanted = self._index.of(owner, resource.id)
        return held if wanted is None else wanted.spec_hash

    def _refuse_used(self, key: str, score: str, resource: Resource) -> None:
        for owner, rid in self._users_of(key, beside=resource.id):
            if owner == score and not self._wants(key, owner, rid):
                continue  # it makes way for what the same Score wants now
            if self._agrees(key, owner):
                continue
            if owner == score or self._keeps(key, owner, rid, waiting=resource):
                if self._had_first(score, resource, owner):
                    continue
                raise _key_conflict(resource, key, owner, rid)
            if self._waits_for(owner, score):
                raise OwnershipConflict(
                    f"{resource.id} needs {in_words(key)}, which {rid} of Score {owner!r} leaves only after "
                    f"Score {score!r} is done; push one of them with a free one first, then both as meant",
                    resource=resource.id,
                )
            raise _wait(resource.id, f"until {rid} has left {in_words(key)}", _Awaited)

    def _users_of(self, key: str, *, beside: str) -> list[tuple[str, str]]:
        """Return Score and resource id of all that have what conflicts with *key*, also by other names that
        the device knows."""
        users = self._ledger.key_holders(key, beside=beside)
        for owner, rid in self._index.known_as(key):
            if rid != beside and (owner, rid) not in users and owner in self._ledger.holders(rid):
                users.append((owner, rid))
        return users

    def _wants(self, key: str, owner: str, rid: str) -> bool:
        """Return whether *owner* wants *rid* so that it has what cannot be had beside *key*."""
        wanted = self._index.of(owner, rid)
        keys = () if wanted is None else self._index.keys_of(owner, wanted)
        return any(collide(key, each) for each in keys)

    def _agrees(self, key: str, owner: str) -> bool:
        """Return whether *owner*, too, wants *key*, and both may have it."""
        return not collide(key, key) and any(key == each for _, each in self._index.keys(owner))

    def _had_first(self, score: str, resource: Resource, owner: str) -> bool:
        """Return whether *score* has *resource* as firmly as *owner* has the same thing, and comes first."""
        places = self._index.place(score), self._index.place(owner)
        return self._ledger.holds(score, [resource]) and places[0] < places[1]

    def _keeps(self, key: str, owner: str, rid: str, *, waiting: Resource) -> bool:
        """Return whether *owner* still wants *key*, which its *rid* holds."""
        wanted = self._index.keys(owner)
        if any(collide(key, each) for holder, each in wanted if holder != waiting.id):
            return True
        # What is only looked at stays as it is.
        named = self._still_names(owner, rid, waiting=waiting.id)
        return named and self._index.of(owner, rid) is None

    def _waits_for(self, owner: str, score: str) -> bool:
        """Return whether *owner* cannot go on before *score*: for a key, or by ``after``; however
        indirectly."""
        seen: set[str] = set()
        front = {owner}
        while front and score not in front:
            seen |= front
            front = {each for waiting in front for each in self._blockers_of(waiting)} - seen
        return bool(front)

    def _blockers_of(self, score: str) -> set[str]:
        users = {
            owner
            for rid, key in self._index.keys(score)
            for owner, _ in self._users_of(key, beside=rid)
            if not self._agrees(key, owner)
        }
        return users.union(self._index.after(score)) - {score}

    def _refuse_removal(self, score: str, rid: str) -> None:
        others = {(owner, rid) for owner in self._index.wanting(rid)}
        for name in names_of(rid):
            others.update(self._users_of(name, beside=""))
        for owner, other in sorted(others):
            if owner == score:
                continue
            if self._still_names(owner, other, waiting=rid):
                known = "" if other == rid else f" as {other}"
                raise OwnershipConflict(
                    f"{rid} is not to be taken away, since Score {owner!r} wants it{known}; take it out "
                    "of one of them, or do not name it here, which lets go of it too",
                    resource=rid,
                )
            raise _wait(rid, f"until Score {owner!r} has let go of it", _Awaited)

    def _still_names(self, owner: str, rid: str, *, waiting: str) -> bool:
        if self._index.is_open(owner, rid):
            raise _wait(waiting, f"for Score {owner!r}, which owns {rid} and could not be planned")
        return self._index.names(owner, rid)


def _conflict(resource: Resource, owner: str) -> OwnershipConflict:
    return OwnershipConflict(
        f"{resource.id} belongs to Score {owner!r}, which comes first and specifies it differently; "
        "make both the same, or take it out of one of them",
        resource=resource.id,
    )


def _key_conflict(resource: Resource, key: str, owner: str, rid: str) -> OwnershipConflict:
    return OwnershipConflict(
        f"{resource.id} needs {in_words(key)}, which {rid} of Score {owner!r} has; give one of them another, "
        "or take it out of one of them",
        resource=resource.id,
    )


def _wait(resource: str, what: str, kind: type[NotReady] = NotReady) -> NotReady:
    return kind(f"waits {what}", resource=resource, reason="Blocked", look_again_s=_ASK_AGAIN_S)


@attrs.frozen
class ScoreClaims:
    """`harmony_core.stage.Claims` of one Score."""

    _ownership: Ownership
    _score: str

    async def claim(
        self,
        resources: Sequence[Resource],
        identities: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        await self._ownership.claim(self._score, resources, identities)

    async def may_remove(self, resource_ids: Sequence[str]) -> None:
        await self._ownership.may_remove(self._score, resource_ids)

    async def release(self, resource_ids: Sequence[str]) -> None:
        await self._ownership.release(self._score, resource_ids)
