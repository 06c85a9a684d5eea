"""The name in the certificate that the embedded server makes for itself.

Apart from `.tls`, so that who only needs the name does not load TLS.
"""

from __future__ import annotations

__all__ = ["SERVER_NAME"]

SERVER_NAME = "harmony-server"
"""No address, since that may change: who verifies asks for this name wherever the server is."""
