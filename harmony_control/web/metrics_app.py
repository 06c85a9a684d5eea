"""`/metrics` over HTTP: for who has the token, or on an address of its own for whoever reaches that.

Prometheus cannot sign in, and its token is no user: it opens this and nothing else.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path

import attrs
from litestar.enums import ScopeType
from litestar.types import Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from harmony_core.errors import ConfigError

__all__ = ["MetricsApp", "TokenFile"]

TOKEN_LEAST = 20
"""Characters: nobody finds such a one by trying, so attempts need not be counted."""


@attrs.frozen
class TokenFile:
    """A file with one line, the token. It is read on each use, so that it can be changed at any time."""

    path: Path

    def read(self) -> str:
        """Return the token. `ConfigError` for a file that cannot be read, or has none that is fit."""
        try:
            token = self.path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot read the token in {self.path}: {error}; write one there: openssl rand -hex 32"
            ) from error
        if len(token) < TOKEN_LEAST or not token.isprintable() or " " in token:
            raise ConfigError(
                f"{self.path} must have one line with at least {TOKEN_LEAST} characters and no space: "
                "openssl rand -hex 32"
            )
        return token

    def matches(self, header: str) -> bool:
        """Return whether *header* is ``Bearer`` and the token. Nothing matches where that cannot be read."""
        scheme, _, given = header.partition(" ")
        try:
            token = self.read()
        except ConfigError:
            return False
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), token.encode()
        )


class MetricsApp:
    """An application of ASGI that answers `GET /metrics`; with *token*, only for who has it."""

    def __init__(self, registry: CollectorRegistry, token: TokenFile | None = None) -> None:
        self._registry = registry
        self._token = token

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"].rstrip("/") != "/metrics":
            await _answer(send, 404, b"only /metrics is here\n")
        elif scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, b"only GET\n", {"allow": "GET, HEAD"})
        elif self._token and not self._token.matches(headers.get(b"authorization", "")):
            await _answer(
                send,
                401,
                b"send the header Authorization: Bearer TOKEN, with the token of --metrics-token-file\n",
                {"www-authenticate": "Bearer"},
            )
        else:
            encode, content_type = choose_encoder(headers.get(b"accept", ""))
            await _answer(send, 200, encode(self._registry), {"content-type": content_type})


async def _answer(
    send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    told = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    start: Message = {"type": "http.response.start", "status": status, "headers": encoded}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
