"""The signed envelope of a manifest or a request: DSSE v1, Ed25519, over the exact bytes of the payload.

    envelope bytes  ->  size  ->  strict shape  ->  a valid signature by a pinned key  ->  payload bytes

Nobody may parse a payload that did not come out of `open_envelope`. What is signed is DSSE's
pre-authentication encoding, so no canonical JSON is needed, and the type is signed with the content:
what was signed as one thing is never taken for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import attrs

from harmony_core.errors import BadEnvelope, ConfigError, TooLarge, UntrustedSignature

from . import strict_json

__all__ = [
    "ENVELOPE_MAX_BYTES",
    "PAYLOAD_MAX_BYTES",
    "PAYLOAD_TYPE",
    "SIGNATURES_MAX",
    "Opened",
    "Signer",
    "SigningKey",
    "VerifyKey",
    "format_envelope",
    "generate_key",
    "is_valid_signature",
    "key_id",
    "open_envelope",
    "pae",
    "pin_keys",
    "seal",
    "split_envelope",
]

PAYLOAD_TYPE = "application/vnd.harmony.manifest.v1+json"
PAYLOAD_MAX_BYTES = 256 * 1024
ENVELOPE_MAX_BYTES = 352 * 1024
SIGNATURES_MAX = 8

_SEED_PREFIX = "harmony-ed25519-seed:"
_PUBLIC_PREFIX = "harmony-ed25519:"
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def key_id(public: bytes) -> str:
    """Return the hexadecimal SHA-256 of the 32 raw bytes of a public key."""
    return hashlib.sha256(public).hexdigest()


@attrs.frozen
class VerifyKey:
    """An operator's public key, as a device pins it."""

    public: bytes

    @property
    def id(self) -> str:
        return key_id(self.public)

    def to_text(self) -> str:
        """Return one line, ``harmony-ed25519:<base64>``."""
        return _PUBLIC_PREFIX + base64.b64encode(self.public).decode()

    @classmethod
    def from_text(cls, text: str) -> VerifyKey:
        """Read that line, white space around it ignored; `ConfigError` on anything else."""
        return cls(_key_bytes(text, _PUBLIC_PREFIX))


class Signer(Protocol):
    """Whoever can sign: a key in a file, or one that never leaves its hardware."""

    @property
    def public(self) -> VerifyKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature of *message*."""
        ...


@attrs.frozen
class SigningKey:
    """An operator's secret key. Never shown: neither its repr nor an error contains the seed."""

    seed: bytes = attrs.field(repr=False)

    @property
    def public(self) -> VerifyKey:
        return VerifyKey(bytes(_nacl_key(self.seed).verify_key))

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature; the same for the same message, always."""
        signature: bytes = _nacl_key(self.seed).sign(message).signature
        return signature

    def to_text(self) -> str:
        """Return one line, ``harmony-ed25519-seed:<base64>``; belongs into a file of mode 0600."""
        return _SEED_PREFIX + base64.b64encode(self.seed).decode()

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Read that line, white space around it ignored; `ConfigError` on anything else."""
        return cls(_key_bytes(text, _SEED_PREFIX))


@attrs.frozen(kw_only=True)
class Opened:
    """What a trusted key has signed: the exact payload, and the ids of the pinned keys that did."""

    payload: bytes
    keyids: tuple[str, ...]


def generate_key() -> SigningKey:
    """Return a new key from the operating system's randomness."""
    return SigningKey(secrets.token_bytes(32))


def pin_keys(keys: Iterable[VerifyKey]) -> Mapping[str, bytes]:
    """Return the form in which `open_envelope` takes the trusted keys: raw public key by key id."""
    return {key.id: key.public for key in keys}


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return DSSE v1's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, *keys: Signer, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return the envelope of *payload*, signed by each of *keys* (1 to 8); `TooLarge` above 256 KiB."""
    ids = {key.public.id for key in keys}
    if not 1 <= len(ids) == len(keys) <= SIGNATURES_MAX:
        raise ConfigError(f"sign with 1 to {SIGNATURES_MAX} different keys, not {len(keys)}")
    _refuse_large("payload", len(payload), PAYLOAD_MAX_BYTES)
    message = pae(payload, payload_type)
    signatures = {key.public.id: key.sign(message) for key in keys}
    return format_envelope(payload, signatures, payload_type=payload_type)


def format_envelope(
    payload: bytes, signatures: Mapping[str, bytes], *, payload_type: str = PAYLOAD_TYPE
) -> bytes:
    """Return the envelope of *payload* with *signatures*, by key id."""
    return strict_json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
                for keyid, signature in signatures.items()
            ],
        }
    )


def open_envelope(
    data: bytes, trusted: Mapping[str, bytes], *, payload_type: str = PAYLOAD_TYPE
) -> Opened:
    """Return the payload of *data*, if one of the *trusted* keys (raw public key by key id) has signed it as
    what *payload_type* says.

    In this order: `TooLarge`; `NotUtf8`, `NotJson`, `DuplicateKey` or `TooDeep` of the envelope itself;
    `BadEnvelope`; `UntrustedSignature`. Signatures by unknown keys, and wrong ones, count for nothing
    and harm nothing as long as one is valid.
    """
    payload, signatures = split_envelope(data, payload_type=payload_type)
    message = pae(payload, payload_type)
    valid = tuple(
        keyid
        for keyid, signature in signatures.items()
        if (public := trusted.get(keyid)) is not None
        and is_valid_signature(public, message, signature)
    )
    if not valid:
        raise UntrustedSignature(_explain_untrusted(signatures, trusted))
    return Opened(payload=payload, keyids=valid)


def _refuse_large(what: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise TooLarge(
            f"the {what} has {size_bytes} bytes, at most {max_bytes} are allowed; "
            "push fewer Scores, or refer to large content by its hash"
        )


def split_envelope(
    data: bytes, *, payload_type: str = PAYLOAD_TYPE, fewest: int = 1
) -> tuple[bytes, dict[str, bytes]]:
    """Return the payload, and the signatures by key id, of what must be a DSSE v1 envelope with *fewest*
    signatures or more.

    Nothing is verified: only who adds a signature, or shows to a person what is to be signed, may ask.
    """
    _refuse_large("envelope", len(data), ENVELOPE_MAX_BYTES)
    value = strict_json.loads(data, max_bytes=ENVELOPE_MAX_BYTES, max_depth=3)
    envelope = _object(value, "envelope", {"payload", "payloadType", "signatures"})
    payload = _payload(envelope["payload"])
    if envelope["payloadType"] != payload_type:
        raise _bad("payloadType", f"must be {payload_type!r}")
    listed = envelope["signatures"]
    if not isinstance(listed, list) or not fewest <= len(listed) <= SIGNATURES_MAX:
        raise _bad("signatures", f"must be a list of {fewest} to {SIGNATURES_MAX}")
    signatures: dict[str, bytes] = {}
    for index, each in enumerate(listed):
        keyid, signature = _signature(each, f"signatures[{index}]")
        if keyid in signatures:
            raise _bad(f"signatures[{index}].keyid", f"{keyid} has signed before")
        signatures[keyid] = signature
    return payload, signatures


def _payload(value: object) -> bytes:
    payload = _base64(value, "payload")
    _refuse_large("payload", len(payload), PAYLOAD_MAX_BYTES)
    return payload


def _signature(value: strict_json.JsonValue, where: str) -> tuple[str, bytes]:
    fields = _object(value, where, {"keyid", "sig"})
    keyid = fields["keyid"]
    if not isinstance(keyid, str) or not _KEY_ID.fullmatch(keyid):
        raise _bad(f"{where}.keyid", "must be 64 lower-case hexadecimal digits")
    signature = _base64(fields["sig"], f"{where}.sig")
    if len(signature) != 64:
        raise _bad(f"{where}.sig", f"must be 64 bytes, not {len(signature)}")
    return keyid, signature


def _object(
    value: strict_json.JsonValue, where: str, keys: set[str]
) -> dict[str, strict_json.JsonValue]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise _bad(where, f"must be an object of exactly {', '.join(sorted(keys))}")
    return value


def _base64(value: object, where: str) -> bytes:
    """Return the bytes of the base64 text *value*: standard alphabet, padded, and no other text for the same
    bytes, so that a signature has one form only."""
    if isinstance(value, str):
        try:
            # Lenient, and twice as fast as the strict form: the comparison refuses more than that would.
            raw = binascii.a2b_base64(value)
        except (binascii.Error, ValueError):
            raw = None
        if raw is not None and binascii.b2a_base64(raw, newline=False).decode() == value:
            return raw
    raise _bad(where, "must be standard base64, padded and canonical")


def _bad(where: str, problem: str) -> BadEnvelope:
    return BadEnvelope(f"{where}: {problem}; have `harmony` sign it anew")


def _explain_untrusted(signatures: Iterable[str], trusted: Mapping[str, bytes]) -> str:
    """Return why no signature counts: the key is not pinned here, or the bytes were changed. Each has its own
    remedy."""
    known = [keyid for keyid in signatures if keyid in trusted]
    if known:
        return f"the signature by {_list_keyids(known)} does not fit these bytes; push it again"
    return (
        f"signed by {_list_keyids(signatures)}, pinned here: {_list_keyids(trusted)}; "
        "sign with a pinned key, or pin this one on the device"
    )


def _list_keyids(keyids: Iterable[str]) -> str:
    return ", ".join(f"{keyid[:16]}…" for keyid in sorted(keyids)) or "none"


def _nacl_key(seed: bytes) -> Any:
    # Imported when a key is first used: reading a configuration or asking for help needs none.
    from nacl.signing import SigningKey as NaclSigningKey  # noqa: PLC0415

    return NaclSigningKey(seed)


def is_valid_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the 64 bytes of *signature* are by the holder of *public* (32 bytes), over *message*."""
    from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - as above
    from nacl.signing import VerifyKey as NaclVerifyKey  # noqa: PLC0415 - as above

    try:
        NaclVerifyKey(public).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _key_bytes(text: str, prefix: str) -> bytes:
    line = text.strip()
    try:
        raw = base64.b64decode(line.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if line != prefix + base64.b64encode(raw).decode() or len(raw) != 32:
        raise ConfigError(
            f"not a key: one line of {prefix}<base64 of 32 bytes> was expected; "
            "make one with `harmony keygen`"
        )
    return raw
