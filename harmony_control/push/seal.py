"""Secrets on their way to one device: sealed to its key, as the entries that refer to them are pushed.

entry refers to a secret -> unchanged, and none newer here: as it was sealed before
                             else, named in this push, or once in one from here, as it is now
                                  -> the operator's value, if it is no older than what is in force
                                  -> sealed for this device, Score and generation
                             else -> as it was sealed before, with a warning; refused where it was not

Who changes an entry says where its values go, and may have no right to them. So what another operator has
written gets none from who pushes something else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import attrs

from harmony_control.store.home import Home
from harmony_control.store.named_entries import NamedEntries
from harmony_control.store.secrets import FleetSecrets, KeptSecret
from harmony_core.errors import ConfigError, UsageError
from harmony_core.references import find_secrets
from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.manifest import SerializedScore, hash_entry
from harmony_core.wire.sealed import SealedFor, SealedSecret

__all__ = ["SealedEntries", "Sealer", "refers_to_secrets", "without_current_secrets"]


def refers_to_secrets(entries: Mapping[str, SerializedScore]) -> bool:
    """Return whether any of *entries* has a reference to a secret."""
    return any(each.references and find_secrets(each.spec) for each in entries.values())


@attrs.frozen(kw_only=True)
class SealedEntries:
    """Entries with the secrets to which they refer."""

    entries: Mapping[str, SerializedScore]
    key_id: str = ""
    """Of the device's key, where secrets were sealed to it and this home has that key from others."""
    warnings: Sequence[str] = ()
    """What of the secrets here is no good, though nothing had to be sealed with it; and which entries keep
    an older value."""
    named: Mapping[str, SerializedScore] = attrs.field(factory=dict[str, SerializedScore])
    """Of *entries*, those with secrets that are named in this push, or were in one before: to be noted
    (`NamedEntries`)."""


@attrs.frozen(kw_only=True, slots=False)
class Sealer:
    """Seals for one device, by the secrets of an operator's home."""

    home: Home
    agent_id: str
    report_key: str
    """Of the device, as one line; empty where it is not known."""
    is_enrolled_here: bool
    """Whether this home has let the device in, so that it knows the key by itself."""
    epoch: int
    generation: int
    named: Collection[str]
    """The ids of the entries that stand in this push as this operator has written them, changed or not."""

    @cached_property
    def _secrets(self) -> FleetSecrets:
        return FleetSecrets(self.home)

    @cached_property
    def _named_before(self) -> NamedEntries:
        return NamedEntries(self.home, self.agent_id)

    def seal(
        self, entries: Mapping[str, SerializedScore], before: Mapping[str, SerializedScore]
    ) -> SealedEntries:
        """Return *entries*, each with its secrets sealed, where *before* is in force.

        An entry that is unchanged keeps its sealed secrets, unless a newer value can be opened here; warn
        where the value here is older, or is not valid, and where this home never named the entry. An entry of
        an earlier manifest that was never named here keeps its secrets of then, if they have the value here.
        Raise `UsageError` for a secret that does not exist here, that this operator cannot open, or that is
        older here than in *before*; for an entry that was never named here and has no secrets to keep; and
        where others report another key of the device than the one used so far. Raise `ConfigError`.
        """
        warnings: dict[str, None] = {}
        if refers_to_secrets(entries):
            self._refuse_another_key(before)
        newest = _find_versions(before)
        sealed = {
            name: self._seal_entry(each, before.get(name), newest, warnings)
            for name, each in entries.items()
        }
        is_sealed = not self.is_enrolled_here and any(each.secrets for each in sealed.values())
        return SealedEntries(
            entries=sealed,
            key_id=VerifyKey.from_text(self.report_key).id if is_sealed else "",
            warnings=tuple(warnings),
            named={
                name: each for name, each in sealed.items() if each.secrets and self._is_named(each)
            },
        )

    def _is_named(self, entry: SerializedScore) -> bool:
        return entry.id in self.named or entry in self._named_before

    def _seal_entry(
        self,
        entry: SerializedScore,
        before: SerializedScore | None,
        newest: Mapping[str, str],
        warnings: dict[str, None],
    ) -> SerializedScore:
        names = find_secrets(entry.spec) if entry.references else ()
        if not names:
            return entry.model_copy(update={"secrets": {}}) if entry.secrets else entry
        key = self._key(entry.id)
        known: Mapping[str, SealedSecret] = {}
        if before is not None and _without_secrets(before) == _without_secrets(entry):
            known = _find_fitting(before.secrets, entry, key)
        is_named = self._is_named(entry)
        sealed: dict[str, SealedSecret] = {}
        for name in names:
            kept = known.get(name)
            if kept is not None and self._is_newer_here(name, kept.version, warnings):
                if is_named:
                    kept = None
                else:
                    warnings[self._tell_unnamed(entry, name)] = None
            if kept is None and is_named:
                kept = self._seal_one(entry, name, key, newest.get(name, ""))
            sealed[name] = kept or self._find_former(entry, name, key, newest.get(name, ""))
        return entry.model_copy(update={"secrets": sealed})

    def _find_former(
        self, entry: SerializedScore, name: str, key: VerifyKey, newest: str
    ) -> SealedSecret:
        """Return what an entry of an earlier manifest had there, where that is the value of today."""
        found = _find_fitting(entry.secrets, entry, key).get(name)
        here = _read_if_kept(self._secrets, name)
        if found is None or here is None or found.version != here.version or here.version < newest:
            raise UsageError(self._tell_unnamed(entry, name))
        return found

    def _tell_unnamed(self, entry: SerializedScore, name: str) -> str:
        return (
            f"{entry.id}: the value here of the secret {name!r} is not given to this Score of "
            f"{self.agent_id}, which was never pushed by name from this directory as it is now: another "
            "operator may have changed it; look at it, and push your own file of it: harmony push-score "
            f"{self.agent_id} FILE"
        )

    def _is_newer_here(self, name: str, version: str, warnings: dict[str, None]) -> bool:
        try:
            kept = _read_if_kept(self._secrets, name)
        except ConfigError as error:
            warnings[f"{self.agent_id} keeps the secret {name!r} that it has: {error.message}"] = (
                None
            )
            return False
        if kept is not None and kept.version < version:
            warnings[f"{self.agent_id} keeps the secret {name!r} that it has: {_OLDER}"] = None
        return kept is not None and kept.version > version

    def _seal_one(
        self, entry: SerializedScore, name: str, key: VerifyKey, newest: str
    ) -> SealedSecret:
        score = entry.id
        try:
            found = self._secrets.open(name)
        except UsageError as error:
            raise type(error)(f"{score}: {error.message}") from error
        if found.version < newest:
            raise UsageError(f"{score}: of the secret {name!r} of {self.agent_id}, {_OLDER}")
        what_for = SealedFor(
            agent_id=self.agent_id,
            score=score,
            name=name,
            entry=hash_entry(entry),
            epoch=self.epoch,
            generation=self.generation,
        )
        try:
            return SealedSecret.seal(found.value, found.version, what_for, key)
        except ConfigError as error:
            raise self._refuse_key(error) from error

    def _key(self, score: str) -> VerifyKey:
        if not self.report_key:
            raise UsageError(
                f"{score}: the key of {self.agent_id} is not known here, so nothing can be sealed for it; "
                "push where it was enrolled, or after that was"
            )
        try:
            return VerifyKey.from_text(self.report_key)
        except ConfigError as error:
            raise self._refuse_key(error) from error

    def _refuse_another_key(self, before: Mapping[str, SerializedScore]) -> None:
        """Raise `UsageError` where a record gives the device another key: whoever signs such a record would
        get all secrets."""
        if self.is_enrolled_here or not self.report_key:
            return
        key, pinned = self._key("").id, self.home.read_sealed_to(self.agent_id)
        sealed_to = {each.key for entry in before.values() for each in entry.secrets.values()}
        others = [each for each in ([pinned] if pinned else sealed_to) if not key.startswith(each)]
        if others:
            raise UsageError(
                f"{self.agent_id} has another key now, {key[:16]}, and its secrets were sealed to "
                f"{', '.join(each[:16] for each in sorted(others))}; ask who has enrolled it whether that is "
                f"right, and if so: harmony secret accept-key {self.agent_id} {key[:16]}"
            )

    def _refuse_key(self, error: ConfigError) -> ConfigError:
        return ConfigError(
            f"{self.agent_id}: its key is no good: {error.message}; find out who has enrolled it "
            "with that, and enrol it again"
        )


def without_current_secrets(secrets: FleetSecrets, entry: SerializedScore) -> SerializedScore:
    """Return *entry*, of a manifest, without its sealed secrets, as a person writes it. Return it unchanged
    where one of its secrets was set again since, or was sealed for other content: it then differs from what a
    person writes, and is pushed. Raise `ConfigError`."""
    for name, each in entry.secrets.items():
        if each.entry != hash_entry(entry):
            return entry
        kept = _read_if_kept(secrets, name)
        if kept is not None and kept.version > each.version:
            return entry
    return _without_secrets(entry) if entry.secrets else entry


_OLDER = (
    "the value here is older than the one in force; copy secrets/ of who has set that, or set it anew: "
    "harmony secret set"
)


def _read_if_kept(secrets: FleetSecrets, name: str) -> KeptSecret | None:
    return secrets.read(name) if secrets.is_kept(name) else None


def _find_versions(entries: Mapping[str, SerializedScore]) -> Mapping[str, str]:
    """Return the newest version of each secret in *entries*."""
    newest: dict[str, str] = {}
    for entry in entries.values():
        for name, each in entry.secrets.items():
            newest[name] = max(each.version, newest.get(name, ""))
    return newest


def _find_fitting(
    boxes: Mapping[str, SealedSecret], entry: SerializedScore, key: VerifyKey
) -> Mapping[str, SealedSecret]:
    """Return those of *boxes* that the device with *key* may open for what *entry* says."""
    said = hash_entry(entry)
    return {
        name: each for name, each in boxes.items() if each.key == key.id[:16] and each.entry == said
    }


def _without_secrets(entry: SerializedScore) -> SerializedScore:
    return entry.model_copy(update={"secrets": {}})
