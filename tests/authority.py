"""An authority of the tests' own, for servers that are not ours, and for configurations that need one."""

# trustme knows of another library's contexts, which are not typed here.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import ssl

import trustme

from harmony_agent.bus.link import Account
from harmony_agent.config import NatsTable, ReportTable
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.names import SERVER_NAME

__all__ = ["AUTHORITY", "NATS", "REPORT", "account", "serving_context"]

_AUTHORITY = trustme.CA()
AUTHORITY = _AUTHORITY.cert_pem.bytes().decode()
"""Its certificate, in PEM."""


NATS = NatsTable(servers=("tls://nowhere",), seed=f"SU{'A' * 56}", mailbox="a" * 26, ca=AUTHORITY)
"""What agent.toml says of a bus that nobody connects to."""


REPORT = ReportTable(key=generate_key().to_text())
"""What agent.toml says of how the device signs what it says."""


def account(*servers: str) -> Account:
    """As whom an agent connects to *servers* that let anybody in."""
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    return Account(
        agent_id="pi-1",
        servers=servers,
        seed=seed,
        mailbox="a" * 26,
        ca=AUTHORITY,
        server_name=SERVER_NAME,
    )


def serving_context(name: str = SERVER_NAME) -> ssl.SSLContext:
    """How to be a server of that *name*, whom everybody believes that pins `AUTHORITY`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _AUTHORITY.issue_cert(name).configure_cert(context)
    return context
