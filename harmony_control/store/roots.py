"""The root documents of the fleet, as this home knows them: ``trust/1.json``, ``trust/2.json``, …

Which one was the first here is noted in ``trust/first.sha256``: no other takes its place by itself. Every
version is kept: who was away goes from one to the next. `harmony_control.bus.roots` learns of those
that somebody else has published. A home without any trusts the keys in ``operators/``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from harmony_core.errors import ConfigError, OutOfScope, RootRejected
from harmony_core.wire.envelope import Signer, VerifyKey, pin_keys
from harmony_core.wire.names import FLEET_WIDE

from . import operator_key
from .home import Home, read_if_there, write_whole

if TYPE_CHECKING:
    from harmony_core.wire.root import (
        Root,
        Scope,
        Signed,
    )  # a fleet without one needs no model of it

__all__ = [
    "Believed",
    "Pins",
    "RootHashes",
    "find_signing_keyids",
    "open_next",
    "read_believed",
    "read_chain",
    "read_envelope",
    "read_hashes",
    "read_pins",
    "read_record_keys",
    "save_root",
]


_NONE: Mapping[Scope, Mapping[str, bytes]] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=False)
class Believed:
    """Whose signatures count in this home."""

    root: Root | None
    """The newest root document; None for a fleet without."""
    keys: Mapping[str, bytes]
    """Who may sign manifests now, by key id."""
    this_epoch: Sequence[Root] = ()
    """The root documents of this epoch, the oldest first."""
    earlier: Mapping[Scope, Mapping[str, bytes]] = _NONE
    """Every scope that any root document of the epochs before has had for manifests, with its keys."""

    def find_keys(self, what: Signed, target: str | None = None) -> Mapping[str, bytes]:
        """Return the keys that may sign *what*; *target* is as of `Root.find_keys`."""
        if self.root is None:
            return self.keys
        return self.root.find_keys(what, datetime.now(UTC), target)

    def find_built_upon(self, target: str) -> Mapping[str, bytes]:
        """Return the keys on whose signatures for *target*, if still effective there, new ones may build:
        also those that were removed since, or may sign for less now, in the same epoch."""
        return self.keys if self.root is None else _pick(self._scopes, target)

    def find_counting(self, target: str) -> Mapping[str, bytes]:
        """Return the same, for what nobody says to be in force: each key only as far as it signs by the last
        root document that has it. Who signs for less by now, or did before it was removed, can still write
        it."""
        found = self.find_built_upon(target)
        if self.root is None:
            return found
        now = datetime.now(UTC)
        return {
            keyid: key
            for keyid, key in found.items()
            if keyid in self._last[keyid].find_keys("manifest", now, target)
        }

    def refuse_out_of_scope(
        self, kinds: Iterable[str], keyids: Collection[str], target: str
    ) -> None:
        """Raise `OutOfScope` where those who have signed for *target*, *keyids* of `find_counting`, may not
        change Scores of all *kinds* there: by the newest root document, or the last that has one who was
        removed since."""
        if self.root is None:
            return
        from harmony_core.wire.root import check_kinds

        kinds, now = list(kinds), datetime.now(UTC)
        last = {self._last[each].version: self._last[each] for each in keyids}
        refused: OutOfScope | None = None
        for _, root in sorted({**last, self.root.version: self.root}.items(), reverse=True):
            try:
                check_kinds(root, kinds, keyids, now, target)
            except OutOfScope as error:
                refused = refused or error
            else:
                return
        assert refused is not None
        raise refused

    @cached_property
    def _scopes(self) -> Mapping[Scope, Mapping[str, bytes]]:
        return _list_scopes(self.this_epoch)

    @cached_property
    def _last(self) -> Mapping[str, Root]:
        """The last root document of this epoch that has a key for anything, by key id."""
        return {
            VerifyKey.from_text(key).id: root
            for root in self.this_epoch
            for scope in root.scopes
            for key in scope.keys
        }

    def find_void(self, target: str) -> Mapping[str, bytes]:
        """Return the keys whose signatures for *target* a new epoch has made void: nothing builds on them,
        and nobody is alarmed."""
        counting = self.find_built_upon(target)
        return {
            keyid: key
            for keyid, key in _pick(self.earlier, target).items()
            if keyid not in counting
        }


def find_signing_keyids(root: Root, signers: Sequence[Signer], now: datetime) -> Sequence[str]:
    """Return the key ids of those of *signers* who may sign manifests by *root*.

    `OutOfScope` where none of them may, `RootExpired` where nobody may any more.
    """
    from harmony_core.wire.root import refuse_over  # only in a fleet that has one

    refuse_over(root, now)
    keys = root.find_keys("manifest", now)
    keyids = [each.public.id for each in signers if each.public.id in keys]
    if not keyids:
        own = signers[0].public.id
        raise OutOfScope(
            f"{own[:16]}… may sign nothing by the root document, version {root.version}; have the one who "
            "holds its root keys let you: harmony trust add NAME operator.pub"
        )
    return keyids


@attrs.frozen(kw_only=True)
class Pins:
    """What a device or another operator is told to trust: the newest root document, else keys."""

    operator_keys: tuple[str, ...] = ()
    root: str | None = None

    def to_table(self) -> dict[str, object]:
        """Return it as the table ``[trust]`` of an agent.toml."""
        return (
            {"operator_keys": list(self.operator_keys)}
            if self.root is None
            else {"root": self.root}
        )


def read_pins(home: Home) -> Pins:
    """Return what a new device must trust. Raise `ConfigError`."""
    if chain := read_chain(home):
        return Pins(root=_read(_path(home, chain[-1].version)).decode())
    return Pins(
        operator_keys=tuple(each.to_text() for each in operator_key.load_trusted(home)),
    )


def read_believed(home: Home) -> Believed:
    """Return whose signatures count here. Raise `ConfigError` for what is damaged."""
    chain = read_chain(home)
    if not chain:
        keys = pin_keys(operator_key.load_trusted(home))
        return Believed(root=None, keys=keys)
    newest = chain[-1]
    keys = newest.find_keys("manifest", datetime.now(UTC))
    return Believed(
        root=newest,
        keys=keys,
        this_epoch=[each for each in chain if each.epoch == newest.epoch],
        earlier=_list_scopes(each for each in chain if each.epoch != newest.epoch),
    )


def read_record_keys(home: Home) -> Mapping[str, bytes]:
    """Return whose records of devices have counted in this epoch, also of those who were taken out since:
    readers have seen them, and believe none that is older. `ConfigError`."""
    chain = read_chain(home)
    if not chain:
        return pin_keys(operator_key.load_trusted(home))
    scopes = _list_scopes((each for each in chain if each.epoch == chain[-1].epoch), "device")
    return _pick(scopes, FLEET_WIDE)


def _list_scopes(
    roots: Iterable[Root], what: Signed = "manifest"
) -> Mapping[Scope, Mapping[str, bytes]]:
    scopes = dict.fromkeys(
        each for root in roots for each in root.scopes if what in each.signs
    )  # most are in each of the versions
    return {each: pin_keys(map(VerifyKey.from_text, each.keys)) for each in scopes}


def _pick(scopes: Mapping[Scope, Mapping[str, bytes]], target: str) -> Mapping[str, bytes]:
    """Return the keys of those of *scopes* that sign for *target*."""
    return {
        keyid: key
        for scope, keys in scopes.items()
        if scope.covers(target)
        for keyid, key in keys.items()
    }


def read_chain(home: Home) -> list[Root]:
    """Return the root documents that are kept here, the oldest first. Each is verified by the one before.

    `ConfigError` where one is damaged. The first is believed as it stands: it is this home's own.
    """
    versions = home.root_versions()
    if not versions:
        return []
    from harmony_core.wire.root import open_next_root, open_pinned_root

    chain: list[Root] = []
    fleet = home.control().fleet
    for version in versions:
        path = _path(home, version)
        home.refuse_open(path)
        try:
            root = (
                open_next_root(_read(path), chain[-1])
                if chain
                else open_pinned_root(_read(path), fleet=fleet)
            )
        except RootRejected as error:
            raise ConfigError(
                f"{path}: {error.message}; put back a copy of it, or delete it and what comes after: it is "
                "fetched again"
            ) from error
        chain.append(root)
    return chain


class RootHashes:
    """Knows the SHA-256 of each root document that is kept in a home, and reads them when that changes."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._read_at_ns = 0
        self._hashes: Mapping[int, str] = {}

    def read(self) -> Mapping[int, str]:
        """Return them by version; none where one is damaged, which those say who need it. Blocks."""
        try:
            changed_at_ns = self._home.trust.stat().st_mtime_ns
        except OSError:
            return {}
        if changed_at_ns != self._read_at_ns:
            try:
                self._hashes = read_hashes(self._home)
            except ConfigError:
                self._hashes = {}
            self._read_at_ns = changed_at_ns
        return self._hashes


def read_hashes(home: Home) -> Mapping[int, str]:
    """Return the SHA-256 of each root document that is kept here, by version. `ConfigError`."""
    versions = [each.version for each in read_chain(home)]
    if not versions:
        return {}
    from harmony_core.wire.root import hash_root

    return {each: hash_root(read_envelope(home, each)) for each in versions}


def read_envelope(home: Home, version: int) -> bytes:
    """Return the signed document of that *version*. `ConfigError`."""
    return _read(_path(home, version))


def save_root(home: Home, version: int, envelope: bytes) -> None:
    """Keep *envelope*, which was verified as that *version*. `ConfigError`, also where another document of
    that version is kept: none is replaced."""
    from harmony_core.wire.root import hash_root

    path = _path(home, version)
    kept = read_if_there(path)
    if kept is not None and hash_root(kept) != hash_root(envelope):
        raise ConfigError(
            f"{path} is another root document of that version than sha256 {hash_root(envelope)}; find out "
            "who has made two, and delete the one that is not to count"
        )
    if not read_chain(home):
        write_whole(_first(home), hash_root(envelope).encode(), mode=0o644)
    write_whole(path, envelope, mode=0o644)


def open_next(home: Home, envelope: bytes, newest: Root | None) -> Root:
    """Return the root document in *envelope*, if it follows *newest* (None: if it is the first).

    `RootRejected`.
    """
    from harmony_core.wire.root import open_first_root, open_next_root

    if newest is not None:
        return open_next_root(envelope, newest)
    trusted = pin_keys(operator_key.load_trusted(home))
    root = open_first_root(envelope, fleet=home.control().fleet, operator_keys=trusted)
    _refuse_another_first(home, envelope)
    return root


def _refuse_another_first(home: Home, envelope: bytes) -> None:
    from harmony_core.wire.root import hash_root

    before = read_if_there(_first(home))
    sha256 = hash_root(envelope)
    if before is not None and before.decode("ascii", "replace").strip() != sha256:
        raise RootRejected(
            f"this home has followed another root document first, by {_first(home)}, than sha256 "
            f"{sha256}; put back a copy of the documents in {home.trust}. If that one is to count here from "
            "now on, compare the sha256 with who has made it, and delete that file"
        )


def _first(home: Home) -> Path:
    return home.trust / "first.sha256"


def _path(home: Home, version: int) -> Path:
    return home.trust / f"{version}.json"


def _read(path: Path) -> bytes:
    found = read_if_there(path)
    if found is None:
        raise ConfigError(f"there is no {path}; put back a copy of it")
    return found
