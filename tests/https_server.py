"""A web server over TLS, with an authority of its own, that can also do what web servers should not."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trustme

from harmony_core.resources import Download

__all__ = ["Asked", "Page", "Web", "environment_of", "serving_web"]

_BLOCK_BYTES = 16 * 1024
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@attrs.define
class Page:
    """What is at one path, and how it is given."""

    content: bytes = b""
    tag: str = '"1"'
    """By which it says that it is the same content; none where it is empty."""
    status: int = 0
    """If not 0, then this is answered, and no content."""
    headers: Mapping[str, str] = attrs.Factory(dict[str, str])
    raw: bytes | None = None
    """All that is answered, whatever was asked."""
    cut_after: int | None = None
    """So many bytes of content an answer has before the connection ends."""
    stalls_after: int | None = None
    """So many bytes an answer has before nothing comes any more."""
    pause_s: float = 0.0
    """Between any two blocks."""
    knows_ranges: bool = True
    says_length: bool = True
    in_chunks: bool = False
    then: Page | None = None
    """What is there once this was asked for."""


@attrs.frozen
class Asked:
    """One request."""

    path: str
    headers: Mapping[str, str]
    """With names in lower case."""

    @property
    def begin(self) -> int:
        """From which byte on it was asked."""
        return int(self.headers.get("range", "bytes=0-")[len("bytes=") : -1])


@attrs.define
class Web:
    """The pages by their paths, and what was asked."""

    port: int
    ca: Path
    pages: dict[str, Page] = attrs.Factory(dict[str, Page])
    asked: list[Asked] = attrs.Factory(list[Asked])
    sent_bytes: int = 0
    """Of contents."""
    open: int = 0
    """How many connections."""
    _held: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/model.bin") -> str:
        return f"https://{self.server}{path}"

    def put(self, content: bytes, path: str = "/model.bin", **how: Any) -> Download:
        """Have *content* at *path*, given as *how* says; return what a Score says of it."""
        self.pages[path] = Page(content, **how)
        return Download(url=self.url(path), sha256=hashlib.sha256(content).hexdigest())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        path = first.split(" ")[1]
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        asked = Asked(path, headers)
        self.asked.append(asked)
        page = self.pages.get(path, Page(status=404))
        if page.then is not None:
            self.pages[path] = page.then
        if page.raw is not None:
            writer.write(page.raw)
            await writer.drain()
            await asyncio.sleep(page.pause_s)
            return
        head, body = _compose(page, asked)
        writer.write(head)
        await self._send(page, body, reader, writer)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
            await writer.wait_closed()

    async def _send(
        self,
        page: Page,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        stops = [each for each in (page.cut_after, page.stalls_after) if each is not None]
        for start in range(0, len(body), _BLOCK_BYTES):
            block = body[start : min(start + _BLOCK_BYTES, *stops, len(body))]
            self.sent_bytes += len(block)
            writer.write(
                b"%x\r\n%s\r\n" % (len(block), block) if page.in_chunks and block else block
            )
            await writer.drain()
            if stops and start + _BLOCK_BYTES >= min(stops) and min(stops) < len(body):
                if page.stalls_after is not None:
                    held = asyncio.ensure_future(self._held.wait())
                    left = asyncio.ensure_future(reader.read())
                    await asyncio.wait((held, left), return_when=asyncio.FIRST_COMPLETED)
                    held.cancel()
                    left.cancel()
                # What was written is to arrive.
                writer.close()
                await writer.wait_closed()
                raise ConnectionResetError
            await asyncio.sleep(page.pause_s)
        if page.in_chunks:
            writer.write(b"0\r\n\r\n")

    def let_go(self) -> None:
        """End the connections on which nothing comes any more."""
        self._held.set()


def _compose(page: Page, asked: Asked) -> tuple[bytes, bytes]:
    headers = {"Connection": "close", **page.headers}
    status, body, total = page.status or 200, page.content, len(page.content)
    if page.status:
        body = b""
    elif page.tag:
        headers["ETag"] = page.tag
    if not page.status and page.knows_ranges and "range" in asked.headers:
        is_same = asked.headers.get("if-range", page.tag) == page.tag
        if asked.begin >= total:
            status, body = 416, b""
            headers["Content-Range"] = f"bytes */{total}"
        elif is_same:
            status, body = 206, page.content[asked.begin :]
            headers["Content-Range"] = f"bytes {asked.begin}-{total - 1}/{total}"
    if page.in_chunks:
        headers["Transfer-Encoding"] = "chunked"
    elif page.says_length:
        headers.setdefault("Content-Length", str(len(body)))
    lines = [f"HTTP/1.1 {status} So", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode(), body


@asynccontextmanager
async def serving_web(
    directory: Path, *, authority: trustme.CA | None = None, name: str = "127.0.0.1"
) -> AsyncGenerator[Web]:
    """A server whose certificate is for *name*; that of its authority is in *directory*."""
    authority = authority or trustme.CA()
    web = Web(0, directory / "web-ca.pem")
    authority.cert_pem.write_to_path(str(web.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = authority.issue_cert(name)
    own.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - half typed there
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=context)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        web.let_go()
        server.close()
        async with asyncio.timeout(10):
            while web.open:
                await asyncio.sleep(0.01)


def environment_of(web: Web) -> dict[str, str]:
    """Return what makes a process believe *web*, as if its authority were among the system's, and ask it
    itself."""
    return {
        "SSL_CERT_FILE": str(web.ca),
        "SSL_CERT_DIR": str(web.ca.parent / "no-others"),
        **{each: "" for name in _PROXIES for each in (name, name.upper())},
    }
