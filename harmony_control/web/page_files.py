"""The page itself: built files that come with Harmony, the same for everybody, signed in or not."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import attrs
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from .calls import Call

__all__ = ["page_routes"]

STATIC = Path(__file__).parent / "static"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@attrs.frozen
class _File:
    data: bytes
    gzipped: bytes
    tag: str
    media_type: str


def page_routes() -> list[HTTPRouteHandler]:
    """Return a route for each file of the page; they are read once."""
    return [_route(path, name, media_type) for path, (name, media_type) in _FILES.items()]


def _route(path: str, name: str, media_type: str) -> HTTPRouteHandler:
    data = (STATIC / name).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    file = _File(data, gzip.compress(data, 9, mtime=0), tag, media_type)

    @get(path, opt={"role": None}, include_in_schema=False)
    async def page_file(request: Call) -> Response[bytes]:
        # Asked for anew each time, and sent anew only where it is another: an update shows at once.
        headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(b"", status_code=304, headers=headers)
        data = file.data
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            data = file.gzipped
        return Response(data, headers=headers, media_type=file.media_type)

    return page_file
