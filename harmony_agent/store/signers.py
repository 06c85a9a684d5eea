"""Signers: who signed the entry of each Score, as it stands now.

    a newer manifest -> which entries are new, changed or gone? -> those are by who signed this manifest
                                                                -> all others are by who they were by

A manifest is signed whole, by whoever pushed last; several operators push to one device. So a device
compares each manifest with the one before, and remembers who changed what. Where it has missed manifests
in between, whoever signed the one that it has seen stands for them.

A row says which form of the entry it is about. So it may be written before or after the manifest itself,
and one that is about another form counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Self

import attrs

from harmony_core.wire.manifest import SerializedScore

from .database import Database
from .in_force import InForce

__all__ = ["Signers"]

_SAVE = "INSERT OR REPLACE INTO signer (score, entry, keyids) VALUES (?, ?, ?)"
_FORGET = "DELETE FROM signer WHERE score = ?"
_GONE = ""


@attrs.frozen
class _Signed:
    """*entry* None: that it is gone."""

    entry: SerializedScore | None
    keyids: tuple[str, ...]


class Signers:
    """Read once at start; what changes is written with the manifest that has changed it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored: dict[str, tuple[str, tuple[str, ...]]] = {}
        """What the last run left: the form of the entry, and who signed it."""
        self._signed: dict[str, _Signed] = {}

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Read what the last run left."""
        signers = cls(database)
        for score, form, keyids in await database.read("SELECT score, entry, keyids FROM signer"):
            signers._stored[score] = (form, tuple(json.loads(keyids)))
        return signers

    def of(self, score: str) -> tuple[str, ...]:
        """Return the keys that signed *score*'s entry as it is now, or that it is gone; () if unknown."""
        signed = self._signed.get(score)
        return signed.keyids if signed is not None else ()

    def begin(self, in_force: InForce, known: Collection[str]) -> None:
        """Record who signed what is *in_force*.

        *known* are the Scores for which there is still something to do, wanted or not.
        """
        before, self._signed = self._signed, {}
        stored, self._stored = self._stored, {}
        entries = in_force.entries
        for score, entry in entries.items():
            signed = before.get(score) or _restore_signed(entry, stored.get(score))
            if signed is None or signed.entry is not entry:
                signed = _Signed(entry, tuple(in_force.keyids_of(score)))
                self._save(score, _form(entry), signed)
            self._signed[score] = signed
        for score in (before.keys() | stored.keys() | set(known)) - entries.keys():
            self._leave(score, before.get(score), stored.get(score), in_force, score in known)

    def _leave(
        self,
        score: str,
        signed: _Signed | None,
        stored: tuple[str, tuple[str, ...]] | None,
        in_force: InForce,
        is_known: bool,
    ) -> None:
        """Note by whose order *score* is no longer wanted, for as long as something of it is left."""
        if not is_known:
            self._database.along((_FORGET, (score,)))
            return
        if signed is None and stored is not None and stored[0] == _GONE:
            signed = _Signed(None, stored[1])
        if signed is None or signed.entry is not None:
            signed = _Signed(None, tuple(in_force.newest_keyids))
            self._save(score, _GONE, signed)
        self._signed[score] = signed

    def _save(self, score: str, form: str, signed: _Signed) -> None:
        self._database.along((_SAVE, (score, form, json.dumps(signed.keyids))))


def _restore_signed(
    entry: SerializedScore, stored: tuple[str, tuple[str, ...]] | None
) -> _Signed | None:
    if stored is None or stored[0] != _form(entry):
        return None
    return _Signed(entry, stored[1])


def _form(entry: SerializedScore) -> str:
    return hashlib.sha256(entry.model_dump_json().encode()).hexdigest()
