"""What a device says is signed by it: each report, heartbeat and part of an answer, over its exact bytes.

    bytes -> DSSE's encoding, with the type -> Ed25519 by the device's report key -> a header beside the bytes

Not by its nkey: with that one a device signs whatever a server sends it to log in, so a hostile server could
have it sign a report. Who reads knows the public half from the enrolment of the device.
"""

from __future__ import annotations

import base64
import binascii

from .envelope import SigningKey, is_valid_signature, pae

__all__ = [
    "ACTUAL_STATE_TYPE",
    "HEARTBEAT_TYPE",
    "INVENTORY_TYPE",
    "REPLY_TYPE",
    "SIGNATURE_HEADER",
    "is_signed_by",
    "reply_content",
    "sign",
]

SIGNATURE_HEADER = "Harmony-Signature"
ACTUAL_STATE_TYPE = "application/vnd.harmony.actual-state.v1+json"
HEARTBEAT_TYPE = "application/vnd.harmony.heartbeat.v1+json"
INVENTORY_TYPE = "application/vnd.harmony.inventory.v1+json"
REPLY_TYPE = "application/vnd.harmony.reply.v1"


def sign(key: SigningKey, content_type: str, content: bytes) -> str:
    """Return the header's value that signs *content* as *content_type*."""
    return base64.b64encode(key.sign(pae(content, content_type))).decode()


def is_signed_by(public: bytes, content_type: str, content: bytes, signature: str) -> bool:
    """Return whether *signature*, a header's value, is by the holder of *public* and fits *content*."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == 64 and is_valid_signature(public, pae(content, content_type), raw)


def reply_content(nonce: str, frame: bytes) -> bytes:
    """Return what is signed of one part of an answer: it answers that request, and no other."""
    return nonce.encode() + b"\n" + frame
