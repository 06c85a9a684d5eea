"""The root document: who may sign what in a fleet. Root keys sign it, and nothing else.

    root keys, k of n, off line -> root document, version N -> the keys that sign manifests, requests, records
    enough root keys of version N, and of N + 1 -> version N + 1

As in The Update Framework: a device goes from version to version, one at a time, so that whoever takes the
message server, or a key that only signs manifests, can make none. A new *epoch* makes everything older that
was signed void: what a stolen key has signed, however high its generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_core.errors import OutOfScope, RootExpired, RootRejected, WireError

from . import strict_json
from .envelope import (
    SIGNATURES_MAX,
    VerifyKey,
    is_valid_signature,
    pae,
    pin_keys,
    split_envelope,
)
from .model_fields import Kind, Part, PublicKey, ScoreId, UtcTime
from .times import rfc3339

if TYPE_CHECKING:
    from .manifest import Manifest, SerializedScore

__all__ = [
    "ROOT_MAX_BYTES",
    "ROOT_TYPE",
    "Root",
    "Scope",
    "Signed",
    "check_kinds",
    "check_scope",
    "check_target",
    "find_changed_kinds",
    "hash_root",
    "open_first_root",
    "open_next_root",
    "open_pinned_root",
    "parse_root",
    "refuse_next",
    "refuse_over",
]

ROOT_TYPE = "application/vnd.harmony.root.v1+json"
ROOT_MAX_BYTES = 32 * 1024
_VERSION_MAX = 2**31 - 1
_EPOCH_MAX = 2**53 - 1
ANY_KIND = "*"
"""In `find_changed_kinds`: what concerns every Score, such as a label."""

Signed: TypeAlias = Literal["manifest", "request", "device"]
"""What a key may sign: what devices are to be, what they are asked, who they are."""


def _refuse_repeats(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names one more than once")
    return values


Keys: TypeAlias = Annotated[
    tuple[PublicKey, ...],
    Field(min_length=1, max_length=64, fail_fast=True),
    AfterValidator(_refuse_repeats),
]
Threshold: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=SIGNATURES_MAX)]
Pattern: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*?]([a-z0-9*?-]{0,61}[a-z0-9*?])?$")
]
"""A name, or names in which ``*`` stands for any characters and ``?`` for one."""
Patterns: TypeAlias = Annotated[
    tuple[Pattern, ...],
    Field(min_length=1, max_length=256, fail_fast=True),
    AfterValidator(_refuse_repeats),
]


class Scope(Part):
    """Keys, and what counts that they sign."""

    name: ScoreId
    """Such as the operator's name, or what is done with the keys."""
    keys: Keys
    threshold: Threshold = 1
    """How many of them must sign the same manifest. One is enough for a request or a record."""
    # What is wrong with thousands of them is not told of each: making the words would take longest.
    kinds: (
        Annotated[tuple[Kind, ...], Field(fail_fast=True), AfterValidator(_refuse_repeats)] | None
    ) = None
    """The kinds of Score that they may add, change and remove; nobody else may then. None: all kinds that no
    other scope names, and labels."""
    signs: Annotated[
        tuple[Signed, ...], Field(min_length=1, fail_fast=True), AfterValidator(_refuse_repeats)
    ] = (
        "manifest",
        "request",
        "device",
    )
    until: UtcTime | None = None
    """From then on, nothing new that they sign counts."""
    classes: Annotated[Patterns | None, Field(exclude_if=lambda given: given is None)] = None
    """They sign for these classes. Where this or `agents` is given, they sign for nothing that neither names;
    where neither is, for all. Written only where it is given: an agent that knows of none refuses it."""
    agents: Annotated[Patterns | None, Field(exclude_if=lambda given: given is None)] = None
    """They sign for these devices: their own manifests, and requests to them."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.threshold > len(self.keys):
            raise ValueError(
                f"the threshold of {self.name} is {self.threshold}, and it has {len(self.keys)} keys"
            )
        return self

    @model_validator(mode="after")
    def _signs_only_what_has_a_target(self) -> Self:
        if self.is_limited and "device" in self.signs:
            raise ValueError(
                f"{self.name} signs for some classes or devices only, and who a device is concerns the whole "
                "fleet: leave `device` out of its `signs`"
            )
        if self.is_limited and self.agents is None and "request" in self.signs:
            raise ValueError(
                f"{self.name} signs for classes only, and a request is for a device: leave `request` out of "
                "its `signs`, or name the `agents`"
            )
        return self

    @property
    def is_limited(self) -> bool:
        """Whether they sign for some classes or devices only."""
        return self.classes is not None or self.agents is not None

    def covers(self, target: str) -> bool:
        """Return whether they sign for *target*: a manifest's, or `names.FLEET_WIDE`."""
        if not self.is_limited:
            return True
        what, _, name = target.partition(":")
        patterns = {"class": self.classes, "agent": self.agents}.get(what)
        return any(fnmatchcase(name, each) for each in patterns or ())

    def is_over(self, now: datetime) -> bool:
        """Return whether what they sign from *now* on counts no longer."""
        return self.until is not None and self.until <= now

    def count(self, keyids: Collection[str]) -> int:
        """Return how many of its own keys are among *keyids*."""
        return len(pin_keys(map(VerifyKey.from_text, self.keys)).keys() & set(keyids))


class Root(Part):
    """Who may sign what."""

    v: Literal[1] = 1
    fleet: ScoreId
    version: Annotated[int, Field(strict=True, ge=1, le=_VERSION_MAX)]
    epoch: Annotated[int, Field(strict=True, ge=0, le=_EPOCH_MAX)] = 0
    """The one of every manifest that is to count from now on."""
    issued_at: UtcTime
    expires_at: UtcTime | None = None
    """From then on devices take in nothing new, and say so. What is in force stays in force."""
    root_keys: Annotated[Keys, Field(max_length=SIGNATURES_MAX)]
    root_threshold: Threshold
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.root_threshold > len(self.root_keys):
            raise ValueError(
                f"root_threshold is {self.root_threshold}, and there are {len(self.root_keys)} root keys"
            )
        names = [each.name for each in self.scopes]
        if len(set(names)) != len(names):
            raise ValueError("scopes: two have the same name")
        signing = {key for each in self.scopes for key in each.keys}
        if both := signing & set(self.root_keys):
            raise ValueError(
                f"{VerifyKey.from_text(min(both)).id[:16]}… is a root key and in a scope; use a key of its "
                "own for each"
            )
        return self

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        return strict_json.dumps(self.model_dump(mode="json"))

    def is_over(self, now: datetime) -> bool:
        """Return whether it has expired at *now*."""
        return self.expires_at is not None and self.expires_at <= now

    def find_keys(
        self, what: Signed, now: datetime, target: str | None = None
    ) -> Mapping[str, bytes]:
        """Return the keys that may sign *what* at *now*, by key id, in the form that `open_envelope` takes.

        They may sign it for *target*, as in `Scope.covers`; None is for anything at all.
        """
        return pin_keys(
            VerifyKey.from_text(key)
            for each in self.scopes
            if what in each.signs
            and not each.is_over(now)
            and (target is None or each.covers(target))
            for key in each.keys
        )

    def find_scopes_of(self, kind: str, target: str) -> list[Scope]:
        """Return the scopes whose keys may change Scores of *kind* on *target*: of those that sign for that,
        those that name the kind, else those that name none."""
        can = [each for each in self.scopes if "manifest" in each.signs and each.covers(target)]
        named = [each for each in can if each.kinds is not None and kind in each.kinds]
        return named or [each for each in can if each.kinds is None]


def parse_root(payload: bytes) -> Root:
    """Read a payload. Trust only one that enough keys have signed. Raise `RootRejected`."""
    try:
        value = strict_json.loads(payload, max_bytes=ROOT_MAX_BYTES, max_depth=6)
        return Root.model_validate(value)
    except ValidationError as error:
        from harmony_core.resources import first_problem  # noqa: PLC0415 - only where something is wrong

        raise RootRejected(f"not a root document: {first_problem(error)}") from error
    except WireError as error:
        raise RootRejected(f"not a root document: {error.message}") from error


def hash_root(envelope: bytes) -> str:
    """Return the hex SHA-256 of the root document in *envelope*, whoever has signed it: ``root_sha256`` of a
    report. `RootRejected` for what is no envelope of one."""
    payload, _ = _split(envelope)
    return hashlib.sha256(payload).hexdigest()


def open_pinned_root(envelope: bytes, *, fleet: str) -> Root:
    """Return the root in *envelope*, which was pinned: it is whole if enough of its own keys have signed it.

    `RootRejected`.
    """
    payload, signatures = _split(envelope)
    root = parse_root(payload)
    _refuse_fleet(root, fleet)
    _refuse_few(root, payload, signatures)
    return root


def open_first_root(envelope: bytes, *, fleet: str, operator_keys: Mapping[str, bytes]) -> Root:
    """Return the root in *envelope*, for a device that so far has pinned *operator_keys* only.

    It is the first version, and one of those keys has signed it too. `RootRejected`.
    """
    payload, signatures = _split(envelope)
    if not _find_valid(operator_keys, payload, signatures):
        raise RootRejected(
            "the first root document was signed by no operator whose key is pinned here; have the one who "
            "let this device in sign it too, or enroll it again"
        )
    root = parse_root(payload)
    _refuse_fleet(root, fleet)
    if root.version != 1:
        raise RootRejected(f"version: {root.version} is not the first root document")
    _refuse_few(root, payload, signatures)
    return root


def open_next_root(envelope: bytes, current: Root) -> Root:
    """Return the root in *envelope*, which follows *current*.

    Enough keys of *current* have signed it, and enough of its own; it is of the next version, and of no
    earlier epoch. Neither's expiry is asked: an expired one can still be renewed. `RootRejected`.
    """
    payload, signatures = _split(envelope)
    # Before it is read: nothing that enough root keys have not signed is.
    _refuse_few(current, payload, signatures)
    root = parse_root(payload)
    _refuse_fleet(root, current.fleet)
    refuse_next(root, current)
    _refuse_few(root, payload, signatures)
    return root


def refuse_next(root: Root, current: Root) -> None:
    """Raise `RootRejected` unless *root* may follow *current*, whoever signs it."""
    if root.version != current.version + 1:
        raise RootRejected(
            f"version: {root.version} does not follow {current.version}; one version follows the other"
        )
    if root.epoch < current.epoch:
        raise RootRejected(
            f"epoch: {root.epoch} is before {current.epoch}; an epoch never goes back"
        )


def refuse_over(root: Root, now: datetime) -> None:
    """Raise `RootExpired` where *root* has expired at *now*."""
    if root.is_over(now):
        assert root.expires_at is not None
        raise RootExpired(
            f"the root document, version {root.version}, has expired at {rfc3339(root.expires_at)}, it is "
            f"{rfc3339(now)} here; renew it with `harmony trust renew`, or set the clock"
        )


def check_scope(
    root: Root, new: Manifest, before: Manifest | None, keyids: Collection[str], now: datetime
) -> None:
    """Raise `OutOfScope` unless those who signed *new*, *keyids*, may change what it changes of *before*.

    What it does not change needs no leave, but one of them signs for its target; without *before*, it changes
    everything. Stateless but for that.
    """
    check_target(root, keyids, now, new.target)
    check_kinds(root, find_changed_kinds(new, before), keyids, now, new.target)


def check_kinds(
    root: Root, kinds: Iterable[str], keyids: Collection[str], now: datetime, target: str
) -> None:
    """Raise `OutOfScope` unless those who signed, *keyids*, may change Scores of each of *kinds* on *target*,
    as `Scope.covers` has it."""
    for kind in kinds:
        scopes = root.find_scopes_of(kind, target)
        if not any(_is_met(each, keyids, now) for each in scopes):
            raise OutOfScope(_explain_scope(kind, scopes, keyids, now))


def check_target(root: Root, keyids: Collection[str], now: datetime, target: str) -> None:
    """Raise `OutOfScope` unless one of those who signed, *keyids*, signs manifests for *target*."""
    if not root.find_keys("manifest", now, target).keys().isdisjoint(keyids):
        return
    can = [each for each in root.scopes if "manifest" in each.signs and each.covers(target)]
    who = ", ".join(sorted(each.name for each in can if not each.is_over(now))) or "nobody"
    raise OutOfScope(
        f"signed by {_list_signers(keyids)}, and by the root document {_describe_target(target)} is signed "
        f"by {who}; have one of them sign it, or let this key do so, with `harmony trust add`"
    )


def _describe_target(target: str) -> str:
    what, _, name = target.partition(":")
    match what:
        case "class":
            return f"what is for the class {name}"
        case "agent":
            return f"what is for the device {name}"
        case _:
            return "what is for the whole fleet, such as who belongs to a class,"


def _list_signers(keyids: Collection[str]) -> str:
    return ", ".join(f"{each[:16]}…" for each in sorted(keyids)) or "nobody"


def find_changed_kinds(new: Manifest, before: Manifest | None) -> list[str]:
    """Return the kinds of the Scores that *new* adds, changes, removes, or puts into another order.

    With `ANY_KIND` where it concerns all: other labels, which any Score may read; leave for removals, which
    may be of any Score's; other Scores of classes that are done without, which may be of any kind; and where
    it is not known what it changes, so that it may remove anything.
    """
    old = {each.id: each for each in before.scores} if before else {}
    wanted = {each.id: each for each in new.scores}
    kinds = {
        each.kind
        for name in old.keys() | wanted.keys()
        for each in _differing(old.get(name), wanted.get(name))
    }
    kinds |= {each.kind for each in _find_moved(list(old), new.scores)}
    if before is None or new.removals_allowed or set(new.without) != set(before.without):
        kinds.add(ANY_KIND)
    if new.labels != (before.labels if before else {}):
        kinds |= {ANY_KIND, *(each.kind for each in new.scores)}
    return sorted(kinds)


def _differing(
    old: SerializedScore | None, new: SerializedScore | None
) -> Iterator[SerializedScore]:
    both = [each for each in (old, new) if each is not None]
    # By their JSON: to Python, true is 1.
    if len({each.model_dump_json() for each in both}) != 1 or len(both) != 2:
        yield from both


def _find_moved(old: Sequence[str], new: Sequence[SerializedScore]) -> Iterator[SerializedScore]:
    """Yield each entry of *new* that has passed another since the ids *old*, or was passed by one.

    Of two that want the same resource, the first has it: who puts a Score before another's changes that one,
    too. What is new has a place behind all that were there.
    """
    before = {name: place for place, name in enumerate(old)}
    places = [before.get(each.id, len(before)) for each in new]
    highest = accumulate(places, max)
    lowest = reversed(list(accumulate(reversed(places), min)))
    for each, place, high, low in zip(new, places, highest, lowest, strict=True):
        if high > place or low < place:
            yield each


def _is_met(scope: Scope, keyids: Collection[str], now: datetime) -> bool:
    return not scope.is_over(now) and scope.count(keyids) >= scope.threshold


def _explain_scope(
    kind: str, scopes: Sequence[Scope], keyids: Collection[str], now: datetime
) -> str:
    what = (
        "labels, removals, `without` and all at once"
        if kind == ANY_KIND
        else f"Scores of the kind {kind}"
    )
    signed = _list_signers(keyids)
    if not scopes:
        return f"by the root document nobody may change {what}; let somebody, with `harmony trust`"
    can = "; or ".join(
        f"{each.threshold} of {each.name} ({len(each.keys)} key{'s' * (len(each.keys) != 1)}"
        + (f", not since {rfc3339(each.until)}" if each.until and each.is_over(now) else "")
        + ")"
        for each in scopes
    )
    return f"signed by {signed}, and by the root document {what} are changed by {can}; have them sign it"


def _split(envelope: bytes) -> tuple[bytes, dict[str, bytes]]:
    try:
        return split_envelope(envelope, payload_type=ROOT_TYPE)
    except WireError as error:
        raise RootRejected(f"not a signed root document: {error.message}") from error


def _refuse_fleet(root: Root, fleet: str) -> None:
    if root.fleet != fleet:
        raise RootRejected(f"fleet: the root document is of {root.fleet!r}, and this is {fleet!r}")


def _refuse_few(root: Root, payload: bytes, signatures: Mapping[str, bytes]) -> None:
    """Raise `RootRejected` unless enough of the root keys of *root* have signed *payload*."""
    keys = pin_keys(map(VerifyKey.from_text, root.root_keys))
    valid = _find_valid(keys, payload, signatures)
    if len(valid) < root.root_threshold:
        raise RootRejected(
            f"signed by {len(valid)} root key{'s' * (len(valid) != 1)} of version {root.version}, "
            f"{root.root_threshold} must; have more of them sign it: harmony trust sign"
        )


def _find_valid(
    keys: Mapping[str, bytes], payload: bytes, signatures: Mapping[str, bytes]
) -> set[str]:
    """Return which of *keys* have signed *payload*. A key counts once, whatever name it has."""
    message = pae(payload, ROOT_TYPE)
    valid = {
        keys[keyid]
        for keyid, signature in signatures.items()
        if keyid in keys and is_valid_signature(keys[keyid], message, signature)
    }
    return {keyid for keyid, public in keys.items() if public in valid}
