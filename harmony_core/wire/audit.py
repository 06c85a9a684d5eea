"""The audit chain: each event of a device is hashed with the hash before it, so the last one is of them all.

    hash before, exact bytes of the event -> SHA-256 -> the hash before the next event

Whoever has seen one hash can tell later whether any event up to it was changed, taken out or put in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["CHAIN_START", "EVENTS_KEPT", "AuditHead", "event_to_text", "hash_event"]

CHAIN_START = "0" * 64
"""The hash before the first event."""
EVENTS_KEPT = 2_000
"""The newest that a device keeps."""

_DOMAIN = b"harmony event v1\n"
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


@attrs.frozen(kw_only=True)
class AuditHead:
    """How far the chain goes: the number of its last event, and that one's hash."""

    seq: int
    """0 where there is no event yet."""
    head: str
    """64 lower-case hexadecimal digits; `CHAIN_START` where there is no event yet."""


def event_to_text(event: Mapping[str, Any]) -> str:
    """Return the text of *event*, as it is stored, hashed and reported: compact JSON, without lone
    surrogates."""
    return _ENCODER.encode(event).encode(errors="replace").decode()


def hash_event(prior: str, text: bytes) -> str:
    """Return the hash of an event with exactly that *text*; *prior* is the hash before, in hexadecimal."""
    return hashlib.sha256(b"".join((_DOMAIN, bytes.fromhex(prior), text))).hexdigest()
