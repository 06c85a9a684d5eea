"""Secrets on the wire: each sealed to one device, and bound to what it is for.

    value, for whom -> JSON -> a sealed box (X25519, XSalsa20-Poly1305) -> in the signed entry

The key is the device's own, with which it signs what it says, as X25519 has it: operators know it already, by
a way that is signed. A sealed box does not say who made it; the signature of the manifest does. What is bound
in it keeps it from being of use anywhere else: another device could not open it, another Score, name or
version is refused, and so is one of a generation that has not come yet. So is what was sealed for another
text of the same Score: who may change that, and may not read the secret, could have it told otherwise.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from harmony_core.errors import ConfigError, ManifestRejected, SecretRefused

from . import strict_json
from .envelope import SigningKey, VerifyKey
from .model_fields import Part

if TYPE_CHECKING:
    from nacl.public import PublicKey

__all__ = [
    "VALUE_MAX_BYTES",
    "ReportKey",
    "SealedFor",
    "SealedSecret",
    "open_box",
    "open_sealed",
    "seal_box",
]

VALUE_MAX_BYTES = 16 * 1024
_PLAIN_MAX_BYTES = 8 * VALUE_MAX_BYTES
_HEX16 = r"^[0-9a-f]{16}$"
_HEX64 = r"^[0-9a-f]{64}$"


@attrs.frozen(kw_only=True)
class SealedFor:
    """What a sealed value is for."""

    agent_id: str
    score: str
    name: str
    entry: str
    """What the Score is, by `hash_entry`: its kind, version and spec."""
    epoch: int
    generation: int
    """Of the manifest for which it was sealed; it stands in later ones as long as its entry does."""

    def admits(self, other: SealedFor) -> bool:
        """Return whether what was sealed for *other* may be opened for this: the same, and no newer."""
        same = attrs.evolve(other, epoch=self.epoch, generation=self.generation) == self
        return same and (other.epoch, other.generation) <= (self.epoch, self.generation)


class SealedSecret(Part):
    """One value, as an entry has it."""

    version: Annotated[str, StringConstraints(pattern=_HEX16)]
    """Of what was set later it is greater: milliseconds since 1970 (12 digits), and 4 random ones."""
    key: Annotated[str, StringConstraints(pattern=_HEX16)]
    """The first 16 digits of the id of the device's key."""
    entry: Annotated[str, Field(pattern=_HEX64, exclude_if=lambda given: not given)] = ""
    """Of `SealedFor.entry`, so that also who cannot open it can tell whether it is for this. Empty where it
    was sealed before there was such a thing: no device opens that."""
    box: Annotated[str, StringConstraints(max_length=2 * _PLAIN_MAX_BYTES)]
    """In base64."""

    @classmethod
    def seal(cls, value: str, version: str, what_for: SealedFor, key: VerifyKey) -> Self:
        """Return *value* so that only the device of *key* can read it."""
        plain = {**attrs.asdict(what_for), "v": 2, "version": version, "value": value}
        box = seal_box(json.dumps(plain, ensure_ascii=False).encode(), key)
        return cls(version=version, key=key.id[:16], entry=what_for.entry, box=box)


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    v: Literal[2]
    agent_id: str
    score: str
    name: str
    entry: str
    epoch: int
    generation: int
    version: str
    value: str


def open_sealed(sealed: SealedSecret, what_for: SealedFor, key: SigningKey) -> str:
    """Return the value. Raise `SecretRefused` where it is not for this, or not for *key*."""
    if not sealed.entry:
        raise SecretRefused(
            f"the secret {what_for.name!r} was sealed by an older harmony, which did not bind it to what its "
            "Score says; push the Score again with a newer one, which seals it anew"
        )
    if sealed.key != key.public.id[:16]:
        raise SecretRefused(
            f"the secret {what_for.name!r} was sealed to another key of this device; push the Score again"
        )
    try:
        data = open_box(sealed.box, key)
        plain = _Plain.model_validate(strict_json.loads(data, max_bytes=_PLAIN_MAX_BYTES))
    except (ValueError, ValidationError, ManifestRejected):
        # Nothing of what was in it is told.
        raise SecretRefused(
            f"the secret {what_for.name!r} cannot be opened with this device's key; push the Score again"
        ) from None
    bound = SealedFor(
        agent_id=plain.agent_id,
        score=plain.score,
        name=plain.name,
        entry=plain.entry,
        epoch=plain.epoch,
        generation=plain.generation,
    )
    if bound.entry != what_for.entry and what_for.admits(attrs.evolve(bound, entry=what_for.entry)):
        raise SecretRefused(
            f"the secret {what_for.name!r} was sealed when the Score {what_for.score!r} said something else; "
            "have it pushed by an operator who has the secret, and find out who has changed it"
        )
    if not what_for.admits(bound) or plain.version != sealed.version:
        raise SecretRefused(
            f"the secret {what_for.name!r} was sealed for {bound.name!r} of the Score {bound.score!r} on "
            f"{bound.agent_id!r}, generation {bound.generation} of epoch {bound.epoch}; push the Score "
            "again, and find out who has put it here"
        )
    return plain.value


def seal_box(data: bytes, key: VerifyKey) -> str:
    """Return *data* in a box that only the secret half of *key* opens, in base64. Raise `ConfigError` where
    nothing can be sealed to that key."""
    from nacl.public import SealedBox  # noqa: PLC0415 - few have a secret

    return base64.b64encode(SealedBox(_to_box_key(key)).encrypt(data)).decode()


def _check_report_key(text: str) -> str:
    try:
        _to_box_key(VerifyKey.from_text(text))
    except ConfigError as error:
        raise ValueError(error.message) from error
    return text


ReportKey: TypeAlias = Annotated[str, AfterValidator(_check_report_key)]
"""A device's public key, as one line: what it signs can be verified, and something can be sealed to it."""


def _to_box_key(key: VerifyKey) -> PublicKey:
    from nacl.exceptions import CryptoError  # noqa: PLC0415 - as above
    from nacl.signing import VerifyKey as NaclKey  # noqa: PLC0415 - as above

    try:
        return NaclKey(key.public).to_curve25519_public_key()
    except (CryptoError, RuntimeError) as error:  # PyNaCl's own RuntimeError is both
        raise ConfigError(
            f"{key.id[:16]}… is no key that `harmony keygen` or a device could have made: nothing can be "
            "sealed to it; have it make another one"
        ) from error


def open_box(box: str, key: SigningKey) -> bytes:
    """Return what is in *box*. Raise ValueError where *key* does not open it."""
    from nacl.exceptions import CryptoError  # noqa: PLC0415 - as above
    from nacl.public import SealedBox  # noqa: PLC0415 - as above
    from nacl.signing import SigningKey as NaclKey  # noqa: PLC0415 - as above

    try:
        opened: bytes = SealedBox(NaclKey(key.seed).to_curve25519_private_key()).decrypt(
            base64.b64decode(box, validate=True)
        )
    except (CryptoError, binascii.Error) as error:
        raise ValueError("it does not open") from error
    return opened
