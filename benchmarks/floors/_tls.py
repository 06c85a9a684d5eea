"""TLS with the server that a floor is told of, and with no other."""

from __future__ import annotations

import ssl
from typing import Any

__all__ = ["tls"]


def tls(told: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which nats-py speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=told["ca"])
    return {"tls": context, "tls_hostname": told["tls_server_name"], "tls_handshake_first": True}
