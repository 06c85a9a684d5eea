"""Who may sign what: makes root documents, has them signed, and publishes them.

    the first, or a change of the newest -> trust/next.json, a proposal -> signed by one root key after the
    other, wherever each is kept -> enough of the newest version's and of its own -> published

A proposal is the document in the envelope that it will be published in, with the signatures that it has so
far. It is no secret, and can be carried to where a root key is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

import attrs
from pydantic import ValidationError

from harmony_core.errors import ConfigError, RootRejected, UsageError, WireError
from harmony_core.resources import first_problem
from harmony_core.wire.envelope import (
    Signer,
    VerifyKey,
    format_envelope,
    is_valid_signature,
    pae,
    pin_keys,
    split_envelope,
)
from harmony_core.wire.root import (
    ROOT_MAX_BYTES,
    ROOT_TYPE,
    Root,
    Scope,
    open_pinned_root,
    parse_root,
    refuse_next,
)

from .store import operator_key
from .store.home import Home, read_if_there, write_whole
from .store.roots import read_chain

__all__ = [
    "Proposal",
    "add_scope",
    "change_root",
    "first_root",
    "propose",
    "read_before",
    "remove_scope",
]


T = TypeVar("T", Root, Scope)


@attrs.frozen(kw_only=True)
class Proposal:
    """A root document that is not published yet, and who has signed it."""

    root: Root
    payload: bytes = attrs.field(repr=False)
    signatures: Mapping[str, bytes] = attrs.field(repr=False)
    """By key id."""

    @classmethod
    def of(cls, root: Root) -> Self:
        """Return a draft that nobody has signed. Raise `UsageError` where no device would read it."""
        payload = root.payload()
        if len(payload) > ROOT_MAX_BYTES:
            raise UsageError(
                f"the root document would have {len(payload)} bytes, at most {ROOT_MAX_BYTES} are allowed; "
                "let fewer keys sign, or name fewer kinds"
            )
        return cls(root=root, payload=payload, signatures={})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what is in *path*. Raise `ConfigError`."""
        found = read_if_there(path)
        if found is None:
            raise ConfigError(
                f"there is no {path}: no root document waits to be signed; change the newest one first, as "
                "with `harmony trust add`"
            )
        try:
            payload, signatures = split_envelope(found, payload_type=ROOT_TYPE, fewest=0)
            return cls(root=parse_root(payload), payload=payload, signatures=signatures)
        except WireError as error:
            raise ConfigError(f"{path}: {error.message}") from error

    @property
    def sha256(self) -> str:
        """Of the document itself, whoever has signed it: devices report it of the one that counts."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def envelope(self) -> bytes:
        """The bytes to publish, or to carry on."""
        return format_envelope(self.payload, self.signatures, payload_type=ROOT_TYPE)

    def write(self, path: Path) -> None:
        """Replace *path*. Raise `ConfigError`."""
        write_whole(path, self.envelope, mode=0o644)

    def sign(self, signer: Signer) -> Self:
        """Return it with the signature of *signer* added. Raise `ConfigError` where that one does not
        sign."""
        signature = signer.sign(pae(self.payload, ROOT_TYPE))
        return attrs.evolve(self, signatures={**self.signatures, signer.public.id: signature})

    def find_missing(self, current: Root | None) -> list[str]:
        """Return in words who must still sign; empty where enough have. *current* is the newest one."""
        asked = [("its own", self.root)]
        if current is not None:
            asked.insert(0, (f"version {current.version}'s", current))
        return [
            f"{root.root_threshold - len(valid)} more of {whose} root keys"
            for whose, root in asked
            if len(valid := self._find_valid(root.root_keys)) < root.root_threshold
        ]

    def _find_valid(self, keys: Collection[str]) -> set[str]:
        message = pae(self.payload, ROOT_TYPE)
        public = pin_keys(map(VerifyKey.from_text, keys))
        return {
            keyid
            for keyid, signature in self.signatures.items()
            if keyid in public and is_valid_signature(public[keyid], message, signature)
        }

    def can_sign(self, current: Root | None, keyid: str) -> bool:
        """Return whether the signature of that key is useful, where *current* is the version before."""
        keys = [*self.root.root_keys, *(current.root_keys if current else ())]
        if self.root.version == 1:  # devices take in the first by an operator's signature, too
            keys += [key for scope in self.root.scopes for key in scope.keys]
        return keyid in pin_keys(map(VerifyKey.from_text, keys))

    def refuse_key(self, current: Root | None, keyid: str) -> None:
        """Raise `UsageError` where the signature of that key would count nowhere. See `can_sign`."""
        if not self.can_sign(current, keyid):
            raise UsageError(
                f"{keyid[:16]}… is no root key, neither of this version, {self.root.version}, nor of the one "
                "before, so its signature would count nowhere; sign with one of the root keys that are shown "
                "by `harmony trust show FILE`"
            )


def read_before(root: Root, home: Home, path: Path, before: Path | None) -> Root | None:
    """Return the version before *root*, which waits in *path*; None where *root* is the first.

    Read it from the file *before*; else from *home*; else from the file beside *path*, such as
    ``trust/3.json``. Raise `UsageError` where it is nowhere, or *root* may not follow it; `RootRejected`.
    """
    if root.version == 1:
        return None
    found = _find_before(root, home, path, before)
    try:
        refuse_next(root, found)
    except RootRejected as error:
        raise UsageError(error.message) from error
    return found


def _find_before(root: Root, home: Home, path: Path, before: Path | None) -> Root:
    version = root.version - 1
    beside = path.with_name(f"{version}.json")
    if before is None:
        for each in read_chain(home):
            if (each.fleet, each.version) == (root.fleet, version):
                return each
    envelope = read_if_there(before or beside)
    if envelope is None:
        raise UsageError(
            f"version {version}, which this one follows, is not at {before or beside}, so nobody can tell "
            f"what it changes; carry trust/{version}.json along, and name it with --before"
        )
    return open_pinned_root(envelope, fleet=root.fleet)


def first_root(
    home: Home, root_keys: Sequence[VerifyKey], *, threshold: int, expires_in: timedelta | None
) -> Proposal:
    """Return the first root document: everybody whom devices trust so far, each in a scope of its own, for
    everything.

    The operator's own key has signed it, so that devices that trust that one accept it. Raise `UsageError`
    where the fleet has one.
    """
    if home.control().listen is None:
        raise UsageError(
            "the server is run from another home; who runs it makes the first root document"
        )
    if read_chain(home):
        raise UsageError(
            "this fleet has a root document; see it with `harmony trust show`, and change it with `harmony "
            "trust add`, `remove`, `rotate` and `renew`"
        )
    own = operator_key.load(home)
    others = operator_key.load_all_public(home, home.operators)
    scopes = [Scope(name="admin", keys=(own.public.to_text(),))]
    for name, keys in others.items():
        if keys.signing != own.public:
            scopes.append(Scope(name=name, keys=(keys.signing.to_text(),)))
    now = datetime.now(UTC)
    root = _check(
        Root,
        fleet=home.control().fleet,
        version=1,
        issued_at=now,
        expires_at=None if expires_in is None else now + expires_in,
        root_keys=tuple(each.to_text() for each in root_keys),
        root_threshold=threshold,
        scopes=tuple(scopes),
    )
    return Proposal.of(root).sign(own)


def propose(newest: Root, change: Callable[[Root], Root]) -> Proposal:
    """Return the version after *newest*, with *change*. Raise `UsageError` for an impossible one."""
    root = change(newest)
    root = _check(
        Root,
        **{
            **root.model_dump(),
            "version": newest.version + 1,
            "issued_at": datetime.now(UTC),
        },
    )
    try:
        refuse_next(root, newest)
    except RootRejected as error:
        raise UsageError(error.message) from error
    return Proposal.of(root)


def add_scope(scope: Mapping[str, object]) -> Callable[[Root], Root]:
    """Return the change that adds this scope, or replaces the one of its name."""

    def change(root: Root) -> Root:
        added = _check(Scope, **scope)
        others = tuple(each for each in root.scopes if each.name != added.name)
        return root.model_copy(update={"scopes": (*others, added)})

    return change


def remove_scope(name: str, *, is_stolen: bool) -> Callable[[Root], Root]:
    """Return the change that removes a scope.

    *is_stolen* removes its keys from every other scope, too, and begins a new epoch, which makes void what
    was signed before. It is never refused because of what others need: a threshold that cannot be met any
    more is lowered, and a scope without keys is removed. Raise `UsageError` where there is none of that name.
    """

    def change(root: Root) -> Root:
        gone = next((each for each in root.scopes if each.name == name), None)
        if gone is None:
            names = ", ".join(sorted(each.name for each in root.scopes))
            raise UsageError(f"there is no {name} in the root document; there are: {names}")
        left = [each for each in root.scopes if each is not gone]
        if is_stolen:
            left = [*_without_keys(left, gone.keys)]
        if not left:
            raise UsageError(
                f"without {name} nobody could sign anything; let somebody else sign first: harmony trust add "
                "NAME FILE"
            )
        return root.model_copy(
            update={"scopes": tuple(left), "epoch": root.epoch + (1 if is_stolen else 0)}
        )

    return change


def _without_keys(scopes: Iterable[Scope], gone: Collection[str]) -> Iterator[Scope]:
    for each in scopes:
        keys = tuple(key for key in each.keys if key not in gone)
        if keys:
            threshold = min(each.threshold, len(keys))
            yield _check(Scope, **{**each.model_dump(), "keys": keys, "threshold": threshold})


def change_root(
    *,
    root_keys: Sequence[VerifyKey] | None = None,
    threshold: int | None = None,
    expires_in: timedelta | None = None,
    is_new_epoch: bool = False,
) -> Callable[[Root], Root]:
    """Return the change that replaces the root keys, or how long the document counts, or begins an epoch."""

    def change(root: Root) -> Root:
        update: dict[str, object] = {"epoch": root.epoch + (1 if is_new_epoch else 0)}
        if root_keys is not None:
            update["root_keys"] = tuple(each.to_text() for each in root_keys)
        if threshold is not None:
            update["root_threshold"] = threshold
        if expires_in is not None:
            update["expires_at"] = datetime.now(UTC) + expires_in
        return root.model_copy(update=update)

    return change


def _check(model: type[T], **fields: object) -> T:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from error
