"""Who is told: a real server of HTTP, and a real server of SMTP, each on a free port."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from tests.ports import free_address

__all__ = [
    "SECRET",
    "HookReceiver",
    "MailReceiver",
    "receiving_hooks",
    "receiving_mails",
    "write_settings",
]

SECRET = "a-secret-that-is-long-enough"


@attrs.define
class HookReceiver:
    """Takes what is posted, if it is signed; answers with ``status``."""

    url: str
    status: int = 204
    taken: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    refused: int = 0
    arrived: threading.Event = attrs.field(factory=threading.Event)

    @property
    def alerts(self) -> list[tuple[str, str, str, int]]:
        """State, kind, group and count of each alert taken."""
        return [
            (each["state"], each["kind"], each["of"], each["count"])
            for message in self.taken
            for each in message["alerts"]
        ]

    def take(self, body: bytes, signature: str) -> int:
        fields = dict(each.split("=", 1) for each in signature.split(","))
        wanted = hmac.new(SECRET.encode(), f"{fields['t']}.".encode() + body, "sha256").hexdigest()
        if not hmac.compare_digest(wanted, fields["v1"]):
            return 401
        if self.status >= 300:
            self.refused += 1
        else:
            self.taken.append(json.loads(body))
        self.arrived.set()
        return self.status


@contextmanager
def receiving_hooks() -> Generator[HookReceiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(body, self.headers["Harmony-Signature"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = HookReceiver(f"http://127.0.0.1:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@attrs.define
class MailReceiver:
    """Takes every mail, but for those to whom it ``refuses``."""

    port: int
    refuses: frozenset[str] = frozenset()
    taken: list[EmailMessage] = attrs.field(factory=list[EmailMessage])
    recipients: list[list[str]] = attrs.field(factory=list[list[str]])

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address in self.refuses:
            return "550 not here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        found = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.taken.append(found)
        self.recipients.append(list(map(str, envelope.rcpt_tos)))
        return "250 OK"


@contextmanager
def receiving_mails() -> Generator[MailReceiver]:
    host, _, port = free_address().rpartition(":")
    receiver = MailReceiver(int(port))
    controller = Controller(receiver, hostname=host, port=int(port))
    controller.start()
    try:
        yield receiver
    finally:
        controller.stop()


def write_settings(root: Path, hook: HookReceiver, *more: str, wait_s: float = 0) -> Path:
    """An alerts file with that one receiver."""
    (root / "hook.secret").write_text(SECRET + "\n")
    file = root / "alerts.toml"
    text = (
        f'wait_s = {wait_s}\n{"".join(more)}\n[[webhook]]\nname = "ops"\nurl = "{hook.url}"\n'
        'secret_file = "hook.secret"\n'
    )
    file.write_text(text)
    return file
