"""JWTs as NATS reads them, signed with an nkey: of an operator, an account, or a user."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from harmony_control.store.nkey import Issuer

__all__ = ["encode"]

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2


def encode(
    issuer: Issuer,
    subject: str,
    name: str,
    kind: str,
    claims: Mapping[str, object],
    *,
    issued_at_s: int,
    expires_at_s: int | None = None,
) -> str:
    """Return the JWT in which *issuer* states *claims* about the holder of the key *subject*, which is of
    that *kind*.

    The same arguments give the same text.
    """
    body: dict[str, object] = {
        "iss": issuer.public,
        "sub": subject,
        "name": name,
        "iat": issued_at_s,
        "nats": {**claims, "type": kind, "version": _VERSION},
    }
    if expires_at_s is not None:
        body["exp"] = expires_at_s
    digest = hashlib.sha256(_to_json(body)).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_to_text(_to_json(_HEADER))}.{_to_text(_to_json(body))}"
    return f"{signed}.{_to_text(issuer.sign(signed.encode()))}"


def _to_json(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
