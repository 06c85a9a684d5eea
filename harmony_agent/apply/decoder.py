"""Decode an entry of the manifest into a Score that can be interpreted: once, while it stays the same.

    entry -> its references, as this device answers them today, and a word for each secret -> the Score

Every manifest repeats every entry, and most of them are what they were; so the Score of each is kept, with
the hash of what it wants, until its entry says something else, or the device answers something else to what
its references ask. That is asked at each decoding, so that whoever runs the Score knows what it has read.

What is only previewed is decoded aside: its boxes may be anybody's, and so nothing of them is kept, and no
word that stands for a value in force is ever given another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

import attrs

from harmony_core.errors import SecretMissing
from harmony_core.inventory import Inventory
from harmony_core.plugins import Registry
from harmony_core.references import Reference, find_references, look_up, replace_references
from harmony_core.score import AnyScore
from harmony_core.secret_values import SecretValues, secret_word
from harmony_core.wire.envelope import SigningKey
from harmony_core.wire.manifest import SerializedScore, hash_entry, spec_hash
from harmony_core.wire.sealed import SealedFor, open_sealed

__all__ = ["Decoded", "Decoder", "SecretOpener"]


@attrs.frozen(kw_only=True)
class Decoded:
    """A Score, and of what it was decoded."""

    entry: SerializedScore
    score: AnyScore
    spec_hash: str
    values: Mapping[Reference, str]
    """What each of its references stood for then; of a secret, its word."""

    @property
    def secret_words(self) -> frozenset[str]:
        """What stands in its fields for secrets."""
        return frozenset(
            word for reference, word in self.values.items() if reference.namespace == "secret"
        )


@attrs.frozen(kw_only=True)
class SecretOpener:
    """Opens what was sealed for this device, and gives the values to whoever writes them."""

    agent_id: str
    key: SigningKey
    read_order: Callable[[], tuple[int, int]]
    """Epoch and generation of what is in force."""
    values: SecretValues
    lent: list[str] | None = None
    """The words that were lent to what is only previewed; None where it is in force."""

    def open(self, entry: SerializedScore, name: str) -> str:
        """Return the word that stands for the secret *name* of *entry*. Raise `SecretMissing`,
        `SecretRefused`."""
        sealed = entry.secrets.get(name)
        if sealed is None:
            raise SecretMissing(
                f"{entry.id} has no secret {name!r} with it; push it with `harmony`, which seals it for this "
                "device"
            )
        epoch, generation = self.read_order()
        what_for = SealedFor(
            agent_id=self.agent_id,
            score=entry.id,
            name=name,
            entry=hash_entry(entry),
            epoch=epoch,
            generation=generation,
        )
        word = secret_word(entry.id, name, sealed.version)
        value = open_sealed(sealed, what_for, self.key)
        if self.lent is None:
            self.values.put(word, value)
        else:
            word = self.values.lend(word, value)
            self.lent.append(word)
        return word


class Decoder:
    """Decodes by *registry*, with secrets by *secrets*."""

    def __init__(self, registry: Registry, secrets: SecretOpener) -> None:
        self._registry = registry
        self._secrets = secrets
        self._decoded: dict[str, Decoded] = {}

    def decode(self, entry: SerializedScore, inventory: Inventory) -> Decoded:
        """Return the Score that *entry* describes, as `Registry.decode` does. That costs time only when
        *entry*, or what *inventory* answers to its references, has changed. Raise `FactMissing` where a
        reference has no value here."""
        known = self._decoded.get(entry.id)
        if known is not None and known.entry is not entry:
            known = None
        references: Iterable[Reference] = ()
        if known is not None:
            references = known.values
        elif entry.references:
            references = find_references(entry.spec)
        values = {
            each: (
                known.values[each] if known is not None else self._secrets.open(entry, each.member)
            )
            if each.namespace == "secret"
            else look_up(each, inventory)
            for each in references
        }
        if known is None or known.values != values:
            known = Decoded(
                entry=entry,
                score=self._registry.decode(_resolve(entry, values)),
                spec_hash=spec_hash(entry),
                values=values,
            )
            self._decoded[entry.id] = known
        return known

    @contextmanager
    def aside(self) -> Generator[Decoder]:
        """Yield a decoder for what is not effective; nothing of it is kept."""
        lent: list[str] = []
        try:
            yield Decoder(self._registry, attrs.evolve(self._secrets, lent=lent))
        finally:
            self._secrets.values.take_back(lent)

    def forget_earlier(self, score_id: str) -> None:
        """Keep only the secrets of this Score's newest decoding. Do not call this while it is run."""
        known = self._decoded.get(score_id)
        self._secrets.values.keep_only(score_id, known.secret_words if known is not None else ())

    def forget_all_but(self, score_ids: Iterable[str]) -> None:
        """Keep nothing of Scores that are no longer wanted."""
        wanted = set(score_ids)
        self._decoded = {key: value for key, value in self._decoded.items() if key in wanted}
        self._secrets.values.forget_all_but(wanted)


def _resolve(entry: SerializedScore, values: Mapping[Reference, str]) -> SerializedScore:
    if not entry.references:
        return entry
    spec = replace_references(entry.spec, values.__getitem__)
    return entry.model_copy(update={"spec": spec})
