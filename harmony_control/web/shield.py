"""What stands before every request and behind every reply, whatever route it is for.

A browser is told to load nothing from elsewhere, to run no script but ours and to show us in nobody's frame.
A request that would change something is refused unless it comes from our own page: a browser says so by
itself, in headers that no page can set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Shield"]

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Shield:
    """Wraps an application of ASGI."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *_ENCODED]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        if scope["method"] in _SAFE or _is_from_our_page(scope):
            await self._inner(scope, receive, with_headers)
        else:
            await _refuse(with_headers)


def _is_from_our_page(scope: HTTPScope) -> bool:
    """Return whether a browser says that our own page sent it, or a person by typing the address."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    try:
        origin = urlsplit(headers.get(b"origin", ""))
    except ValueError:
        return False
    return bool(origin.netloc) and origin.netloc == headers.get(b"host")


async def _refuse(send: Send) -> None:
    body = json.dumps(
        {
            "code": "CrossSiteRequest",
            "message": "this was not sent by Harmony's own page; a program sends the header "
            "Origin: https://HOST with the address that it calls",
        }
    ).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
