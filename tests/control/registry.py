"""A registry's half of the OCI distribution protocol, over TLS, answering as a test has it answer.

A served stand-in for the answers that a real registry gives only in trouble; the real one is asked in the
boxes.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import trustme

__all__ = ["DIGEST", "Answer", "Asked", "Registry", "serving_registry"]

DIGEST = f"sha256:{'ab' * 32}"


@attrs.frozen
class Asked:
    """One request."""

    method: str
    path: str
    """With its query."""
    authorization: str | None
    accept: str


@attrs.frozen
class Answer:
    """What it is answered."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    body: bytes = b""
    cut_off: bool = False
    """The connection ends after half of the body."""

    @classmethod
    def found(cls, digest: str = DIGEST) -> Answer:
        return cls(headers={"Docker-Content-Digest": digest})


@attrs.define
class Registry:
    """Where it is, what its certificate is signed by, what it was asked."""

    host: str
    ca: Path
    asked: list[Asked] = attrs.field(factory=list[Asked])
    answer: Callable[[Asked], Answer] = lambda _: Answer.found()

    @property
    def paths(self) -> list[str]:
        return [f"{each.method} {each.path}" for each in self.asked]


@contextmanager
def serving_registry(root: Path, *, name: str = "localhost") -> Generator[Registry]:
    """At *name*, for the length of the block. Its authority's certificate is written below *root*."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = authority.issue_cert(name)
    own.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - half typed there
    ca = root / "registry-ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    registry = Registry("", ca)
    server = _Server((socket.gethostbyname(name), 0), _handler_of(registry))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    registry.host = f"{name}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Who does not trust the certificate hangs up; that is theirs to tell."""


def _handler_of(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked(
                self.command, self.path, self.headers["Authorization"], self.headers["Accept"] or ""
            )
            registry.asked.append(asked)
            answer = registry.answer(asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                length = len(answer.body) // 2 if answer.cut_off else len(answer.body)
                self.wfile.write(answer.body[:length])
            self.close_connection = answer.cut_off

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *_: object) -> None:
            """Nothing."""

    return Handler
