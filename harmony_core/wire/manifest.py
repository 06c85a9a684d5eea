"""The manifest: everything that one agent is to be, and how it is taken in.

    envelope -> size -> signature -> parse -> fleet -> target -> generation -> expiry -> scope -> Accepted

The order is the trust boundary: nothing is parsed before a pinned key is known to have signed it, and
nothing is compared before it is known to be whole. What fails here refuses the manifest as a whole, and
the last good one stays in force. An entry's ``spec`` stays opaque: what is wrong inside it is that
Score's own failure, later.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import attrs
from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_core.errors import (
    DuplicateScoreId,
    Equivocation,
    InvalidManifest,
    IssuedInFuture,
    ManifestExpired,
    StaleGeneration,
    WrongEpoch,
    WrongFleet,
    WrongTarget,
)
from harmony_core.resources import SecretName, first_problem, in_words

from . import strict_json
from .envelope import PAYLOAD_MAX_BYTES, open_envelope
from .model_fields import Kind, Part, ScoreId, UtcTime
from .names import ID_PATTERN, target_of
from .sealed import SealedSecret
from .times import rfc3339

if TYPE_CHECKING:
    from .root import Root  # a fleet without one needs no model of it

__all__ = [
    "API_VERSION",
    "GENERATION_MAX",
    "SCORES_MOST",
    "Accepted",
    "Floor",
    "Manifest",
    "ScorePolicy",
    "SerializedScore",
    "accept",
    "hash_entry",
    "parse_manifest",
    "reinstate",
    "spec_hash",
    "target_of",
]

SCORES_MOST = 400
"""In one manifest: the report on as many fits into one message, whatever becomes of them."""

API_VERSION: Literal["harmony/v1"] = "harmony/v1"
GENERATION_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

Fleet: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Target: TypeAlias = Annotated[str, StringConstraints(pattern=f"^agent:{ID_PATTERN[1:]}")]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=GENERATION_MAX)]
Generation: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=GENERATION_MAX)]
SpecVersion: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
DeadlineSeconds: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=7 * 24 * 3600)]
LabelName: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"),
    in_words("a label's name has 1 to 63 letters, digits and inner ._/-, such as site"),
]
LabelValue: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$"),
    in_words("a label's value is one line of at most 256 characters"),
]


def _without_repeats(ids: tuple[str, ...]) -> tuple[str, ...]:
    repeated = _find_repeated(ids)
    if repeated:
        more = f" (and {len(repeated) - 1} more)" if len(repeated) > 1 else ""
        raise ValueError(f"{repeated[0]}{more} stands here more than once")
    return ids


def _find_repeated(ids: Iterable[str]) -> list[str]:
    """Return which of *ids* occur more than once, in one walk: there may be very many."""
    return sorted(each for each, times in Counter(ids).items() if times > 1)


class ScorePolicy(Part):
    """How one Score is to be treated, whatever its kind."""

    drift: Literal["enforce", "report"] = "enforce"
    """Put right what somebody else has changed, or only say so."""
    on_failure: Literal["keep", "rollback"] = "keep"
    """Leave things as they are, or go back to the last specification that converged."""
    deadline_s: DeadlineSeconds | None = None
    """How long a new specification may take to converge before it is rolled back; None: 5 minutes."""


@cache
def _usual_policy() -> ScorePolicy:
    """Return the policy of an entry that has none of its own. It is made when first needed: otherwise every
    command would wait for it."""
    return ScorePolicy()


class SerializedScore(Part):
    """One entry of a manifest: a Score that nobody has decoded yet."""

    id: ScoreId
    kind: Kind
    version: SpecVersion
    spec: dict[str, Any]
    after: Annotated[tuple[ScoreId, ...], AfterValidator(_without_repeats)] = ()
    """The ids that must have converged before this one is interpreted."""
    policy: ScorePolicy = Field(default_factory=_usual_policy)
    references: Annotated[bool, Field(strict=True, exclude_if=lambda given: not given)] = False
    """Whether references in its spec's texts are resolved on the device (`harmony_core.references`). Written
    only where it is so: an agent that knows of none refuses it, and takes no reference for plain text."""
    secrets: Annotated[
        dict[SecretName, SealedSecret],
        Field(max_length=64, exclude_if=lambda given: not given),
    ] = Field(default_factory=dict[str, SealedSecret])
    """The values of the secrets to which its spec refers, by name. Not written where there is none."""


class Manifest(Part):
    """All Scores of one agent, as an operator has signed them."""

    api_version: Literal["harmony/v1"] = API_VERSION
    fleet: Fleet
    target: Target
    epoch: Count = 0
    """Raised when generations have to begin anew; compared before the generation."""
    generation: Generation
    issued_at: UtcTime
    expires_at: UtcTime | None = None
    """Not accepted from then on. What is in force by then stays in force."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict[str, str]
    )
    removals_allowed: Count = 0
    """How many resources this manifest may take away at once, where that would else be held."""
    scores: tuple[SerializedScore, ...] = ()
    without: Annotated[
        tuple[ScoreId, ...], Field(max_length=SCORES_MOST), AfterValidator(_without_repeats)
    ] = ()
    """The ids of a class's Scores that this device does without. Not written where there is none."""

    @property
    def order(self) -> tuple[int, int]:
        """What makes one manifest newer than another."""
        return (self.epoch, self.generation)

    def payload(self) -> bytes:
        """Return the bytes to sign; `parse_manifest` reads an equal Manifest from them.

        `TooLarge`, `TooDeep` or `NotJson` if a spec contains what no device would read.
        """
        fields = self.model_dump(mode="json")
        for name in self._left_out():
            del fields[name]
        data = strict_json.dumps(fields)
        strict_json.loads(data, max_bytes=PAYLOAD_MAX_BYTES)
        return data

    def _left_out(self) -> Sequence[str]:
        """Return which fields are not written: an agent that does not know them reads the rest."""
        return () if self.without else ("without",)

    @model_validator(mode="after")
    def _can_be_told_apart_and_reported(self) -> Self:
        if len(self.scores) > SCORES_MOST:
            raise InvalidManifest(
                f"scores: {len(self.scores)} are more than the {SCORES_MOST} that a device can report on; "
                "let one Score make several things"
            )
        ids = [score.id for score in self.scores]
        if len(set(ids)) != len(ids):
            raise DuplicateScoreId(
                f"scores: the id {_find_repeated(ids)[0]!r} is used by several entries; rename one of them"
            )
        return self

    @model_validator(mode="after")
    def _expires_after_it_was_issued(self) -> Self:
        if self.expires_at is not None and self.expires_at <= self.issued_at:
            raise ValueError("expires_at must be later than issued_at")
        return self


@attrs.frozen(kw_only=True)
class Accepted:
    """A manifest that may be acted on, with the bytes that prove it."""

    manifest: Manifest
    envelope: bytes = attrs.field(repr=False)
    payload_sha256: str
    keyids: tuple[str, ...]
    """The pinned keys that signed it."""


@attrs.frozen(kw_only=True)
class Floor:
    """What was accepted last, apart from its content: nothing older is accepted, whoever has signed it."""

    epoch: int
    generation: int
    payload_sha256: str
    issued_at: datetime = attrs.field(eq=False)

    @classmethod
    def of(cls, accepted: Accepted) -> Self:
        """Return the floor that *accepted* makes."""
        manifest = accepted.manifest
        return cls(
            epoch=manifest.epoch,
            generation=manifest.generation,
            payload_sha256=accepted.payload_sha256,
            issued_at=manifest.issued_at,
        )

    @property
    def order(self) -> tuple[int, int]:
        """What comparisons use: epoch, then generation, as `Manifest.order`."""
        return (self.epoch, self.generation)

    def counts_in(self, root: Root | None) -> bool:
        """Return whether its time is a lower bound of today's, where *root* counts: the date of an epoch that
        is over may be a thief's."""
        return root is None or self.epoch == root.epoch

    def admits(self, accepted: Accepted) -> bool:
        """Return whether *accepted* is this manifest itself, or a newer one."""
        if accepted.manifest.order == self.order:
            return accepted.payload_sha256 == self.payload_sha256
        return accepted.manifest.order > self.order


def parse_manifest(payload: bytes) -> Manifest:
    """Read a payload *that a pinned key has signed*; any `ManifestRejected` of the payload itself."""
    value = strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise InvalidManifest(
            f"{first_problem(error)}; correct it and push again, or update the older side"
        ) from error


def accept(
    envelope: bytes,
    *,
    trusted: Mapping[str, bytes],
    fleet: str,
    agent_id: str,
    current: Accepted | None,
    now: datetime,
    floor: Floor | None = None,
    latest: datetime | None = None,
    root: Root | None = None,
) -> Accepted:
    """Take in what was read from the bus, or raise the `ManifestRejected` that says why not.

    Returns *current* itself when *envelope* carries the very payload that is in force, also after its
    expiry. A device without a clock's battery may wake in the past, so *now* (aware) counts only where
    it is later than the ``issued_at`` of what was accepted last, which a pinned key has vouched for in this
    epoch.

    *floor* is what was accepted last, where that is known apart from *current*; it alone decides then what
    is too old. *latest*: what was issued after it is refused; None where no clock can be trusted.
    *root* says which epoch it is, and who may change what; *trusted* are the keys that it gives. Without one
    the epoch is that of what was accepted last, or 0: nobody begins another.
    """
    if current is not None and envelope == current.envelope:
        return current  # also where who signed it may sign nothing any more
    new = reinstate(envelope, trusted=trusted, fleet=fleet, agent_id=agent_id)
    if current is not None and new.payload_sha256 == current.payload_sha256:
        return current
    if floor is None and current is not None:
        floor = Floor.of(current)
    if floor is not None:
        if new.manifest.order == floor.order:
            _refuse_other_content(new, floor)
            return new  # it was in force already, and is only not known any more
        _refuse_older(new.manifest, floor)
        if floor.counts_in(root):
            now = max(now, floor.issued_at)
    _refuse_expired(new.manifest, now)
    if latest is not None:
        _refuse_future(new.manifest, latest)
    if root is None:
        _refuse_new_epoch(new.manifest, floor)
    else:
        _refuse_by_root(root, new, current, now)
    return new


def reinstate(
    envelope: bytes, *, trusted: Mapping[str, bytes], fleet: str, agent_id: str
) -> Accepted:
    """Accept *envelope*, which this agent itself has kept over a restart: half of `accept`.

    Whoever signed it must still be pinned, and it must be for this fleet and agent; but it was in force
    already, so neither order nor expiry is asked.
    """
    opened = open_envelope(envelope, trusted)
    manifest = parse_manifest(opened.payload)
    if manifest.fleet != fleet:
        raise WrongFleet(
            f"fleet: signed for {manifest.fleet!r}, this device belongs to {fleet!r}; "
            "push it from the fleet's own control plane"
        )
    if manifest.target != target_of(agent_id):
        raise WrongTarget(
            f"target: signed for {manifest.target!r}, this is {target_of(agent_id)!r}; "
            "push it to the device that it is meant for"
        )
    return Accepted(
        manifest=manifest,
        envelope=envelope,
        payload_sha256=hashlib.sha256(opened.payload).hexdigest(),
        keyids=opened.keyids,
    )


def _refuse_by_root(root: Root, new: Accepted, current: Accepted | None, now: datetime) -> None:
    from .root import check_scope, refuse_over  # noqa: PLC0415 - as above

    # Whoever dates a manifest ahead is judged as of then: it sets what counts as now here.
    now = max(now, new.manifest.issued_at)
    refuse_over(root, now)
    if new.manifest.epoch != root.epoch:
        raise WrongEpoch(
            f"epoch: {new.manifest.epoch}, and by the root document, version {root.version}, it is "
            f"{root.epoch}; push again"
        )
    check_scope(root, new.manifest, current.manifest if current else None, new.keyids, now)


def _refuse_new_epoch(new: Manifest, floor: Floor | None) -> None:
    """Raise `WrongEpoch` unless *new*, by no root document, is of the current epoch."""
    epoch = floor.epoch if floor is not None else 0
    if new.epoch != epoch:
        raise WrongEpoch(
            f"epoch: {new.epoch}, and it is {epoch} here; only a root document begins another, which "
            "`harmony trust init` makes. Push again, and find out who has signed this one"
        )


def spec_hash(entry: SerializedScore) -> str:
    """Return the hexadecimal SHA-256 of what an entry wants: kind, version, spec and policy, in any order of
    keys."""
    wanted: dict[str, Any] = {
        "kind": entry.kind,
        "version": entry.version,
        "spec": entry.spec,
        "policy": dict(entry.policy),
        **({"references": True} if entry.references else {}),
        # Not their boxes: the same value, sealed anew, is the same wish.
        **(
            {"secrets": {name: each.version for name, each in entry.secrets.items()}}
            if entry.secrets
            else {}
        ),
    }
    return hashlib.sha256(strict_json.dumps(wanted, sort_keys=True)).hexdigest()


def hash_entry(entry: SerializedScore) -> str:
    """Return the hexadecimal SHA-256 of the kind, version and spec of *entry*, with unresolved references. It
    does not depend on who wants the entry or on its policy. The entry's secrets are bound to it."""
    said: dict[str, Any] = {"kind": entry.kind, "version": entry.version, "spec": entry.spec}
    return hashlib.sha256(strict_json.dumps(said, sort_keys=True)).hexdigest()


def _refuse_other_content(new: Accepted, floor: Floor) -> None:
    if new.payload_sha256 != floor.payload_sha256:
        raise Equivocation(
            f"generation: {new.manifest.generation} is in force with other content "
            f"(sha256 {floor.payload_sha256[:16]}…, now {new.payload_sha256[:16]}…); "
            "push a higher generation, and find out who signed two"
        )


def _refuse_older(new: Manifest, floor: Floor) -> None:
    if new.order < floor.order:
        raise StaleGeneration(
            f"generation: {new.generation} of epoch {new.epoch} is older than "
            f"{floor.generation} of epoch {floor.epoch}, which was accepted here; "
            "push again, with a higher generation"
        )


def _refuse_future(new: Manifest, latest: datetime) -> None:
    if new.issued_at > latest:
        raise IssuedInFuture(
            f"issued_at: {rfc3339(new.issued_at)} is more than a day ahead of this device's clock, which is "
            "set by a time server; set the clock of whoever signed it, and push again"
        )


def _refuse_expired(new: Manifest, now: datetime) -> None:
    if new.expires_at is not None and new.expires_at <= now:
        raise ManifestExpired(
            f"expires_at: {rfc3339(new.expires_at)} has passed, it is {rfc3339(now)} here; "
            "push again with a later one, or set the device's clock"
        )
