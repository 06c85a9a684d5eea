"""The envelope: only what a pinned key signed comes out, and only in one form of bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_core.errors import (
    BadEnvelope,
    ConfigError,
    DuplicateKey,
    ManifestRejected,
    NotJson,
    NotUtf8,
    TooDeep,
    TooLarge,
    UntrustedSignature,
)
from harmony_core.wire.envelope import (
    ENVELOPE_MAX_BYTES,
    PAYLOAD_MAX_BYTES,
    PAYLOAD_TYPE,
    SigningKey,
    VerifyKey,
    generate_key,
    key_id,
    open_envelope,
    pae,
    pin_keys,
    seal,
)

KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))
TRUSTED = pin_keys([KEY.public])
PAYLOAD = b'{"hello":"pi"}'

Fields = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def fields_of(envelope: bytes) -> Fields:
    fields: Fields = json.loads(envelope)
    return fields


def altered(change: Callable[[Fields], Any], envelope: bytes | None = None) -> bytes:
    fields = fields_of(envelope or seal(PAYLOAD, KEY))
    change(fields)
    return json.dumps(fields).encode()


def signature(message: bytes, key: SigningKey = KEY) -> Fields:
    return {"keyid": key.public.id, "sig": b64(key.sign(message))}


def other_last_character(text: str) -> str:
    """The same bytes in a second base64 form: the bits that padding leaves over are not zero."""
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(body[-1]) + 1]
    return body[:-1] + last + "=" * (len(text) - len(body))


def with_larger_s(sig: str) -> bytes:
    """A second signature that a careless verifier takes: the scalar plus the order of the group."""
    raw = base64.b64decode(sig)
    order = 2**252 + 27742317777372353535851937790883648493
    larger = int.from_bytes(raw[32:], "little") + order
    return raw[:32] + larger.to_bytes(32, "little")


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_what_was_sealed_comes_out_byte_for_byte(payload: bytes) -> None:
    opened = open_envelope(seal(payload, KEY), TRUSTED)
    assert (opened.payload, opened.keyids) == (payload, (KEY.public.id,))


def test_sealing_the_same_payload_again_gives_the_same_bytes() -> None:
    assert seal(PAYLOAD, KEY) == seal(PAYLOAD, KEY)


def test_the_encoding_that_is_signed_is_dsse_version_1() -> None:
    encoded = pae(b"hello world", "http://example.com/HelloWorld")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_lengths_in_the_encoding_are_of_bytes_not_of_characters() -> None:
    assert pae("é".encode(), "ü") == "DSSEv1 2 ü 2 é".encode()


def test_signatures_are_those_of_rfc_8032() -> None:
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    key = SigningKey(seed)
    assert key.public.public.hex() == (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    )
    assert key.sign(b"\xaf\x82").hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )


def test_a_key_id_is_the_hex_sha256_of_the_raw_public_key() -> None:
    assert key_id(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert KEY.public.id == key_id(KEY.public.public)


def test_keys_survive_being_written_as_a_line_of_text() -> None:
    key = generate_key()
    assert SigningKey.from_text(f" {key.to_text()}\n") == key
    assert VerifyKey.from_text(f"{key.public.to_text()}\r\n") == key.public
    assert key.to_text().startswith("harmony-ed25519-seed:")
    assert key.public.to_text().startswith("harmony-ed25519:")


def test_two_generated_keys_differ() -> None:
    assert generate_key() != generate_key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "harmony-ed25519-seed:",
        KEY.public.to_text(),
        KEY.to_text().removeprefix("harmony-ed25519-seed:"),
        KEY.to_text()[:-1],
        KEY.to_text() + "=",
        KEY.to_text() * 2,
        KEY.to_text().replace(":", ": "),
        f"harmony-ed25519-seed:{b64(bytes(31))}",
        f"harmony-ed25519-seed:{b64(bytes(64))}",
        f"harmony-ed25519-seed:{other_last_character(b64(bytes(32)))}",
        "harmony-ed25519-seed:é",
    ],
)
def test_a_line_that_is_not_a_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not a key.*harmony keygen") as refused:
        SigningKey.from_text(text)
    assert KEY.to_text()[30:50] not in str(refused.value)


def test_a_secret_key_does_not_show_itself() -> None:
    assert "seed" not in repr(KEY)
    assert str(KEY.seed) not in repr(KEY)


def test_one_valid_signature_by_a_pinned_key_is_enough() -> None:
    opened = open_envelope(seal(PAYLOAD, STRANGER, KEY), TRUSTED)
    assert opened.keyids == (KEY.public.id,)


def test_every_pinned_key_that_signed_is_named_in_the_envelope_s_order() -> None:
    opened = open_envelope(seal(PAYLOAD, STRANGER, KEY), pin_keys([KEY.public, STRANGER.public]))
    assert opened.keyids == (STRANGER.public.id, KEY.public.id)


def test_a_wrong_signature_beside_a_valid_one_counts_for_nothing() -> None:
    def spoil(fields: Fields) -> None:
        fields["signatures"][0]["sig"] = b64(bytes(64))

    envelope = altered(spoil, seal(PAYLOAD, STRANGER, KEY))
    trusted = pin_keys([KEY.public, STRANGER.public])
    assert open_envelope(envelope, trusted).keyids == (KEY.public.id,)


def test_white_space_and_order_of_keys_do_not_matter() -> None:
    fields = fields_of(seal(PAYLOAD, KEY))
    envelope = json.dumps(dict(reversed(fields.items())), indent=2).encode()
    assert open_envelope(envelope, TRUSTED).payload == PAYLOAD


def test_the_largest_payload_with_eight_signatures_passes_and_one_byte_more_does_not() -> None:
    keys = [SigningKey(bytes([n]) * 32) for n in range(8)]
    envelope = seal(bytes(PAYLOAD_MAX_BYTES), *keys)
    assert len(envelope) <= ENVELOPE_MAX_BYTES
    assert len(open_envelope(envelope, pin_keys(key.public for key in keys)).keyids) == 8
    with pytest.raises(TooLarge, match=r"payload.*262145 bytes, at most 262144"):
        seal(bytes(PAYLOAD_MAX_BYTES + 1), KEY)


@pytest.mark.parametrize("keys", [[], [KEY, KEY], [SigningKey(bytes([n]) * 32) for n in range(9)]])
def test_sealing_needs_one_to_eight_different_keys(keys: list[SigningKey]) -> None:
    with pytest.raises(ConfigError, match="1 to 8 different keys"):
        seal(PAYLOAD, *keys)


LARGE = bytes(PAYLOAD_MAX_BYTES + 1)
SIGNED = fields_of(seal(PAYLOAD, KEY))
ONE = SIGNED["signatures"][0]

MALFORMED: dict[str, tuple[bytes, type[ManifestRejected], str]] = {
    "too many bytes": (b" " * (ENVELOPE_MAX_BYTES + 1), TooLarge, "envelope.*at most 360448"),
    "too many bytes, and rubbish": (b"\xff" * (ENVELOPE_MAX_BYTES + 1), TooLarge, "envelope"),
    "a payload that is too large, signed": (
        altered(lambda f: f.update(payload=b64(LARGE), signatures=[signature(pae(LARGE))])),
        TooLarge,
        "payload has 262145 bytes, at most 262144",
    ),
    "a payload that is too large, and no signature": (
        altered(lambda f: f.update(payload=b64(LARGE), signatures=[])),
        TooLarge,
        "payload",
    ),
    "empty": (b"", NotJson, "empty"),
    "cut short": (seal(PAYLOAD, KEY)[:-1], NotJson, "byte"),
    "UTF-16": (seal(PAYLOAD, KEY).decode().encode("utf-16"), NotUtf8, "byte 0"),
    "payload twice": (
        b'{"payload":"","payload":""}',
        DuplicateKey,
        "payload",
    ),
    "payload as an object": (altered(lambda f: f.update(payload={})), BadEnvelope, "payload"),
    "deeper than any envelope": (
        altered(lambda f: f.update(payload=[[[]]])),
        TooDeep,
        "deeper than 3",
    ),
    "a list": (b"[]", BadEnvelope, "object of exactly payload, payloadType, signatures"),
    "null": (b"null", BadEnvelope, "envelope"),
    "the bare payload": (PAYLOAD, BadEnvelope, "envelope"),
    "a field more": (altered(lambda f: f.update(note="")), BadEnvelope, "exactly"),
    "no payload": (altered(lambda f: f.pop("payload")), BadEnvelope, "exactly"),
    "no payloadType": (altered(lambda f: f.pop("payloadType")), BadEnvelope, "exactly"),
    "no signatures": (altered(lambda f: f.pop("signatures")), BadEnvelope, "exactly"),
    "another payloadType": (
        altered(lambda f: f.update(payloadType="application/json")),
        BadEnvelope,
        "payloadType: must be 'application/vnd.harmony",
    ),
    "payloadType in capitals": (
        altered(lambda f: f.update(payloadType=PAYLOAD_TYPE.upper())),
        BadEnvelope,
        "payloadType",
    ),
    "payload null": (altered(lambda f: f.update(payload=None)), BadEnvelope, "payload"),
    "payload a number": (altered(lambda f: f.update(payload=1)), BadEnvelope, "payload"),
    "payload as plain text": (altered(lambda f: f.update(payload="{}")), BadEnvelope, "base64"),
    "payload without padding": (
        altered(lambda f: f.update(payload=f["payload"].rstrip("="))),
        BadEnvelope,
        "payload: must be standard base64, padded and canonical",
    ),
    "payload with a line break": (
        altered(lambda f: f.update(payload=f["payload"][:8] + "\n" + f["payload"][8:])),
        BadEnvelope,
        "payload",
    ),
    "payload in the URL alphabet": (
        altered(lambda f: f.update(payload=base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode())),
        BadEnvelope,
        "payload",
    ),
    "payload in a second form of base64": (
        altered(lambda f: f.update(payload=other_last_character(f["payload"]))),
        BadEnvelope,
        "payload",
    ),
    "payload in other letters": (
        altered(lambda f: f.update(payload="é" * 4)),
        BadEnvelope,
        "payload",
    ),
    "signatures as an object": (
        altered(lambda f: f.update(signatures=ONE)),
        BadEnvelope,
        "signatures: must be a list of 1 to 8",
    ),
    "no signature": (altered(lambda f: f.update(signatures=[])), BadEnvelope, "1 to 8"),
    "9 signatures": (altered(lambda f: f.update(signatures=[ONE] * 9)), BadEnvelope, "1 to 8"),
    "900 signatures": (altered(lambda f: f.update(signatures=[ONE] * 900)), BadEnvelope, "1 to 8"),
    "9,999 signatures": (altered(lambda f: f.update(signatures=[ONE] * 9_999)), TooLarge, "bytes"),
    "one signature twice": (
        altered(lambda f: f.update(signatures=[ONE, ONE])),
        BadEnvelope,
        r"signatures\[1\]\.keyid.*has signed before",
    ),
    "a signature as text": (
        altered(lambda f: f.update(signatures=["sig"])),
        BadEnvelope,
        r"signatures\[0\]: must be an object of exactly keyid, sig",
    ),
    "a signature with a field more": (
        altered(lambda f: f["signatures"][0].update(cert="")),
        BadEnvelope,
        r"signatures\[0\]",
    ),
    "a signature without keyid": (
        altered(lambda f: f["signatures"][0].pop("keyid")),
        BadEnvelope,
        r"signatures\[0\]",
    ),
    "keyid in capitals": (
        altered(lambda f: f["signatures"][0].update(keyid=ONE["keyid"].upper())),
        BadEnvelope,
        r"signatures\[0\]\.keyid: must be 64 lower-case hexadecimal digits",
    ),
    "keyid with a line break": (
        altered(lambda f: f["signatures"][0].update(keyid=ONE["keyid"] + "\n")),
        BadEnvelope,
        "keyid",
    ),
    "keyid null": (
        altered(lambda f: f["signatures"][0].update(keyid=None)),
        BadEnvelope,
        "keyid",
    ),
    "sig of 63 bytes": (
        altered(lambda f: f["signatures"][0].update(sig=b64(bytes(63)))),
        BadEnvelope,
        r"signatures\[0\]\.sig: must be 64 bytes, not 63",
    ),
    "sig of 65 bytes": (
        altered(lambda f: f["signatures"][0].update(sig=b64(bytes(65)))),
        BadEnvelope,
        "not 65",
    ),
    "sig empty": (altered(lambda f: f["signatures"][0].update(sig="")), BadEnvelope, "not 0"),
    "sig in a second form of base64": (
        altered(lambda f: f["signatures"][0].update(sig=other_last_character(ONE["sig"]))),
        BadEnvelope,
        "base64",
    ),
    "malformed, and by a stranger": (
        altered(lambda f: f.update(note=""), seal(PAYLOAD, STRANGER)),
        BadEnvelope,
        "exactly",
    ),
}

FORGED: dict[str, tuple[bytes, str]] = {
    "signed by a stranger": (seal(PAYLOAD, STRANGER), "pinned here.*pin this one on the device"),
    "a stranger's signature under a pinned keyid": (
        altered(lambda f: f["signatures"][0].update(sig=b64(STRANGER.sign(pae(PAYLOAD))))),
        "does not fit these bytes",
    ),
    "a pinned signature under a stranger's keyid": (
        altered(lambda f: f["signatures"][0].update(keyid=STRANGER.public.id)),
        "pinned here",
    ),
    "another payload": (
        altered(lambda f: f.update(payload=b64(PAYLOAD + b" "))),
        "does not fit these bytes",
    ),
    "no payload at all": (altered(lambda f: f.update(payload="")), "does not fit these bytes"),
    "the payload signed without its encoding": (
        altered(lambda f: f.update(signatures=[signature(PAYLOAD)])),
        "does not fit these bytes",
    ),
    "signed as another type": (
        altered(lambda f: f.update(signatures=[signature(pae(PAYLOAD, "application/json"))])),
        "does not fit these bytes",
    ),
    "a signature of zeroes": (
        altered(lambda f: f["signatures"][0].update(sig=b64(bytes(64)))),
        "does not fit these bytes",
    ),
    "the same signature with S + L": (
        altered(lambda f: f["signatures"][0].update(sig=b64(with_larger_s(ONE["sig"])))),
        "does not fit these bytes",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_envelope_is_refused_with_place_and_remedy(case: str) -> None:
    data, error, message = MALFORMED[case]
    with pytest.raises(error, match=message) as refused:
        open_envelope(data, TRUSTED)
    assert "; " in refused.value.message, "a refusal says what to do"


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_envelope_is_refused_and_the_remedy_told(case: str) -> None:
    data, message = FORGED[case]
    with pytest.raises(UntrustedSignature, match=message):
        open_envelope(data, TRUSTED)


def test_without_pinned_keys_nothing_is_trusted() -> None:
    with pytest.raises(UntrustedSignature, match="pinned here: none"):
        open_envelope(seal(PAYLOAD, KEY), {})


def test_a_key_of_small_order_that_fits_any_message_is_not_trusted() -> None:
    weak = VerifyKey(bytes([1]) + bytes(31))
    sig = b64(bytes([1]) + bytes(63))
    envelope = altered(lambda f: f.update(signatures=[{"keyid": weak.id, "sig": sig}]))
    with pytest.raises(UntrustedSignature):
        open_envelope(envelope, pin_keys([weak]))


def test_no_single_flipped_bit_of_an_envelope_is_accepted() -> None:
    envelope = seal(b'{"a":1}', KEY)
    accepted: list[int] = []
    for bit in range(len(envelope) * 8):
        flipped = bytearray(envelope)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            open_envelope(bytes(flipped), TRUSTED)
        except ManifestRejected:
            continue
        accepted.append(bit)
    assert accepted == []
