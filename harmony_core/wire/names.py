"""Names that cross the wire: buckets, agent ids, Score ids, classes, kinds.

One rule for ids, because they become NATS subject tokens and file names: a name such as ``*`` or
``pi.1`` must never reach a permission template or a subject.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b32decode, b32encode
from binascii import crc_hqx

__all__ = [
    "ACTUAL_STATE",
    "ALERTS",
    "ASSETS",
    "DESIRED_CLASS",
    "DESIRED_STATE",
    "DEVICES",
    "ENROL_SUBJECT",
    "FLEET",
    "FLEET_WIDE",
    "HEARTBEAT",
    "ID_PATTERN",
    "INDEX_KEY",
    "INVENTORY",
    "JWT_PATTERN",
    "KIND_PATTERN",
    "MAIL",
    "MAILBOXES",
    "MAILBOX_PATTERN",
    "RENEW_SUBJECT",
    "ROLLOUT",
    "SERVER_NAME",
    "TRUST",
    "fingerprint",
    "is_id",
    "is_mailbox",
    "is_public_nkey",
    "new_mailbox",
    "target_of",
]

DESIRED_STATE = "desired-state"
ACTUAL_STATE = "actual-state"
HEARTBEAT = "heartbeat"
DEVICES = "devices"
INVENTORY = "inventory"
"""The buckets; in each of them, a device's key is its id."""
DESIRED_CLASS = "desired-class"
"""The bucket of the class manifests; a key is ``<class>.<generation>``, and never written again."""
FLEET = "fleet"
"""The bucket of the fleet index, under `INDEX_KEY`."""
INDEX_KEY = "index"
FLEET_WIDE = "fleet"
"""The target of what is for all devices and classes alike: of the fleet index, say."""
ROLLOUT = "rollout"
"""The bucket of the gates; a key is a class."""
TRUST = "trust"
"""The bucket of the fleet's root documents; a key is a version."""
MAIL = "harmony.mail"
"""``<MAIL>.<id>.<what>``: where the control plane puts what is to come into a device's mailbox as *what*."""
ASSETS = "assets"
"""The bucket of content that is too large for manifests, encrypted: `harmony_core.wire.assets`."""
ALERTS = "alerts"
"""The bucket of what people were told; for the control plane alone."""

ID_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""1 to 63 lower-case letters, digits and inner hyphens (a DNS label, RFC 1123)."""

KIND_PATTERN = r"^[A-Za-z][A-Za-z0-9]{0,62}$"
"""A Python class's name, without underscores."""

ENROL_SUBJECT = "harmony.enrol"
"""Below it, by the public key of an invitation, whoever holds that may ask to be let in."""

RENEW_SUBJECT = "harmony.renew"
"""Below it, by its id, a device asks for a new JWT, where its server wants one that expires."""

MAILBOXES = "harmony.mailbox"
"""Below it is what is sent to devices: ``harmony.mailbox.<mailbox>.desired-state``, ``….request``,
``….trust``."""

MAILBOX_PATTERN = r"^[a-z2-7]{26}$"
"""16 random bytes in base32. Part of a subject, so that only who knows it can address the device."""

JWT_PATTERN = r"^[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{86}$"
"""As NATS takes it: header, claims and an Ed25519 signature, in base64 for URLs without padding."""

SERVER_NAME = "harmony-server"
"""In the certificate that the embedded server makes for itself. No address, since that may change."""

_ID = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_NKEY = re.compile(r"U[A-Z2-7]{55}\Z")
_NKEY_USER = 20 << 3
_MAILBOX = re.compile(MAILBOX_PATTERN.removesuffix("$") + r"\Z")


def is_id(text: str) -> bool:
    """Return whether *text* may be an agent id, a Score id or a class."""
    return _ID.match(text) is not None


def target_of(agent_id: str) -> str:
    """Return the ``target`` of a manifest that is meant for one agent."""
    return f"agent:{agent_id}"


def is_mailbox(text: str) -> bool:
    """Return whether *text* has the form that `new_mailbox` makes."""
    return _MAILBOX.match(text) is not None


def is_public_nkey(text: str) -> bool:
    """Return whether *text* is a user's public nkey: its prefix, and its checksum (CRC-16/XMODEM)."""
    if _NKEY.match(text) is None:
        return False
    raw = b32decode(text)
    return raw[0] == _NKEY_USER and crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


def new_mailbox() -> str:
    """Return a mailbox that nobody has, and nobody can guess."""
    return b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def fingerprint(nkey: str, report_key: str) -> str:
    """Return what two people compare to see that they mean the same device: 16 hexadecimal digits, in fours.

    It depends on both public keys of the device.
    """
    digest = hashlib.sha256(f"{nkey}\n{report_key}".encode()).hexdigest()[:16]
    return "-".join(digest[at : at + 4] for at in range(0, 16, 4))
