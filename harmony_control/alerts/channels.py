"""How a message leaves: a web hook, or an e-mail. Each says whether somebody has taken it.

A web hook is signed as Stripe signs its own: the header has a time and an HMAC-SHA256 of time, dot and body,
so whoever receives it knows who has sent it, and that nobody sends an old one again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import smtplib
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Protocol

import httpx

from harmony_control.settings_file import make_context, read_secret
from harmony_core.errors import ConfigError

from .message import Message
from .settings import Email, Settings, Webhook

__all__ = ["Channel", "EmailChannel", "WebhookChannel", "make_channels", "sign"]

TIMEOUT_S = 10.0
SIGNATURE_HEADER = "Harmony-Signature"


class Channel(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str: ...

    async def send(self, message: Message) -> str:
        """Send it once. Return in words why it was not accepted; empty once it was."""
        ...


def sign(body: bytes, secret: str, at_s: int) -> str:
    """Return the header that belongs to *body* at that time, in seconds since 1970."""
    found = hmac.new(secret.encode(), f"{at_s}.".encode() + body, "sha256")
    return f"t={at_s},v1={found.hexdigest()}"


class WebhookChannel:
    """Sends JSON by POST."""

    def __init__(self, settings: Webhook) -> None:
        self.name = settings.name
        self._settings = settings

    async def send(self, message: Message) -> str:
        """Send *message*. Any status but 200 to 299, or none in time, is a refusal."""
        body = json.dumps(message.to_json(), ensure_ascii=False).encode(errors="replace")
        try:
            secret = await asyncio.to_thread(read_secret, self._settings.secret_file)
            context = await asyncio.to_thread(make_context, self._settings.ca_file)
        except ConfigError as error:
            return error.message
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "harmony",
            SIGNATURE_HEADER: sign(body, secret, int(time.time())),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx.AsyncClient(verify=context, timeout=TIMEOUT_S, trust_env=False) as client,
                client.stream("POST", self._settings.url, content=body, headers=headers) as reply,
            ):
                # What it answers beside is not read: it may have no end.
                return "" if reply.is_success else f"it answers with {reply.status_code}"
        except TimeoutError:
            return f"it did not answer in {TIMEOUT_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"{type(error).__name__}: {error}"


class EmailChannel:
    """Sends mails by SMTP."""

    def __init__(self, settings: Email) -> None:
        self.name = settings.name
        self._settings = settings

    async def send(self, message: Message) -> str:
        """Send *message*. It is sent once the server has accepted it for all recipients."""
        try:
            return await asyncio.to_thread(self._send, self._make(message))
        except (ConfigError, smtplib.SMTPException, OSError) as error:
            return f"{type(error).__name__}: {error}"

    def _make(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = message.title[:200]
        mail["From"] = self._settings.sender
        mail["To"] = ", ".join(self._settings.to)
        mail["Date"] = formatdate()
        mail["Message-ID"] = make_msgid(domain="harmony.invalid")
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.to_text())
        return mail

    def _send(self, mail: EmailMessage) -> str:
        settings = self._settings
        context = make_context(settings.ca_file)
        server = (
            smtplib.SMTP_SSL(settings.host, settings.port, timeout=TIMEOUT_S, context=context)
            if settings.tls == "tls"
            else smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_S)
        )
        with server:
            if settings.tls == "starttls":
                server.starttls(context=context)
            if settings.password_file is not None:
                server.login(settings.user, read_secret(settings.password_file, least=1))
            refused = server.send_message(mail)
        return f"it refuses {', '.join(sorted(refused))}" if refused else ""


def make_channels(settings: Settings) -> list[Channel]:
    """Return all that the file names."""
    return [
        *(WebhookChannel(each) for each in settings.webhook),
        *(EmailChannel(each) for each in settings.email),
    ]
