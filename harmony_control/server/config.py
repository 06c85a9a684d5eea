"""nats.conf: accounts, so that a device can reach its own keys and nothing else.

JetStream lives in CTRL; devices are users of FLEET, which imports a handful of subjects. Rights per
subject would not be enough: NATS checks the subject of a message but not its *reply* subject, and in
one account a device could have the server itself write into another one's desired state. In those of
devices, `FLEETS`, there is no key to be written to. What remains is that a device can have a message of its
choice delivered to a live subscription whose subject it knows. So what reaches a device comes on subjects
with a part that nobody can guess, its mailbox; still a hint is worth nothing until its signature is verified,
and a reply nothing that its own reader does not check.

For the same reason who may only look is no user of CTRL, but of LOOK, which imports one verb, to read: in
CTRL, the right to make a consumer or to have an answer sent somewhere would be the right to write.

They are several, over which devices are spread by their keys: whenever the server reads its configuration,
it compares each import of an account with all others of that account, and a device's mailbox is one.

The file is JSON, which NATS' own format includes, so that nothing in a path or a name can be anything
but text. It is always rendered whole, from `ServerConfig`, and never edited; without blanks, since until the
server has read all of it, whoever is revoked stays connected.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias

import attrs

from harmony_control.bus.connection import inbox_prefix as control_inbox_prefix
from harmony_control.store.home import Enrolled, check_agent_id
from harmony_control.store.issuers import FLEETS
from harmony_control.store.sites import Sites
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.names import (
    ACTUAL_STATE,
    ASSETS,
    DESIRED_CLASS,
    DESIRED_STATE,
    DEVICES,
    ENROL_SUBJECT,
    FLEET,
    HEARTBEAT,
    INDEX_KEY,
    INVENTORY,
    MAIL,
    MAILBOXES,
    ROLLOUT,
    TRUST,
    is_id,
)

from .buckets import HEARTBEAT_WATCH

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "MAX_SUBSCRIPTIONS",
    "RELAY",
    "SITE_MAX_SUBSCRIPTIONS",
    "Gate",
    "Listen",
    "Permissions",
    "ServerConfig",
    "describe_accounts",
    "describe_gate",
    "device_permissions",
    "fleet_of",
    "inbox_prefix",
    "invited_permissions",
    "permissions",
    "reader_permissions",
    "refuse_equal_keys",
    "relayed",
    "render",
    "to_document",
]

MAX_PAYLOAD_BYTES = 1_280 * 1_024
"""1 MiB, the largest message of any bucket, and room for its headers."""
_MAX_FILE_STORE_BYTES = 16 * 1_024**3
_MAX_MEMORY_STORE_BYTES = 512 * 1_024**2
_MAX_CONTROL_LINE_BYTES = 4 * 1_024
_MAX_CONNECTIONS = 65_536
_CONNECTIONS_FOR_EACH = 4
"""A device has one, makes another to see whether it can, and has some that are not yet given up."""
_CONNECTIONS_BESIDE = 64
_MAX_GUESTS = 1_024
"""Connections of who may only look, and of who is invited: of each account in all."""
MAX_SUBSCRIPTIONS = 64
"""Of one connection: a device needs four, and `harmony` some ten."""
SITE_MAX_SUBSCRIPTIONS = 4_096
"""Of the one connection that a site's server and the fleet's share; each of its devices has 64 at most."""
_MAX_PENDING_BYTES = 16 * 1_024**2
"""Of what one connection has not read yet; beyond that it is cut."""
_HANDSHAKE_TIMEOUT_S = 10
"""A Pi Zero at its start takes some seconds."""
_LOG_BYTES = 16 * 1_024**2
_LOG_FILES = 3

_DIRECT_GET = "$JS.API.DIRECT.GET"
_READS = (
    # What a device may ask of the control plane's account; the last token is its own id.
    f"{_DIRECT_GET}.KV_{DESIRED_STATE}.$KV.{DESIRED_STATE}.*",
    f"{_DIRECT_GET}.KV_{DESIRED_CLASS}.$KV.{DESIRED_CLASS}.*.*",
    f"{_DIRECT_GET}.KV_{FLEET}.$KV.{FLEET}.*",
    f"{_DIRECT_GET}.KV_{ROLLOUT}.$KV.{ROLLOUT}.*",
    f"{_DIRECT_GET}.KV_{ACTUAL_STATE}.$KV.{ACTUAL_STATE}.*",
    f"{_DIRECT_GET}.KV_{TRUST}.$KV.{TRUST}.*",
    f"{_DIRECT_GET}.KV_{ASSETS}.$KV.{ASSETS}.*.*.*",
)
_SERVICES = (
    *_READS,
    f"$KV.{ACTUAL_STATE}.*",
    f"$KV.{HEARTBEAT}.*",
    f"$KV.{INVENTORY}.*",
    "harmony.reply.*.*",
)
_LOOK = f"{_DIRECT_GET}.>"
"""To read any message of any bucket, and nothing else."""
_LOOKS = (
    # With `_READS`, all of it. None of them is part of another: no account with a JWT may export both.
    f"{_DIRECT_GET}.*",
    *(
        f"{_DIRECT_GET}.{stream}.>"
        for stream in (f"KV_{HEARTBEAT}", f"KV_{INVENTORY}", f"KV_{DEVICES}", HEARTBEAT_WATCH)
    ),
)
_STREAMS = (f"{MAIL}.*.*",)
RELAY = "harmony.relay"
"""Below it a site's server passes on what devices send."""
Permissions: TypeAlias = dict[str, dict[str, list[str]]]
"""What one user may publish, and to what it may subscribe."""
_WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound to


@attrs.frozen
class Listen:
    """Where the server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Return the address that ``HOST:PORT`` is, with an IPv6 address in brackets."""
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise UsageError(
                f"{text!r} is not an address to listen on; write HOST:PORT, such as "
                "127.0.0.1:4222 or 0.0.0.0:4222"
            )
        if (":" in bare) != (bare != host):
            raise UsageError(f"{text!r}: write an IPv6 address in brackets, such as [::1]:4222")
        return cls(bare, int(port))

    @classmethod
    def of_url(cls, url: str) -> Listen:
        """Return the address that ``tls://HOST:PORT`` names."""
        return cls.parse(url.removeprefix("tls://"))

    def __str__(self) -> str:
        return f"{_bracket(self.host)}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an address, and no name."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def local_url(self) -> str:
        """How this machine reaches it."""
        host = "127.0.0.1" if self.host in _WILDCARD_HOSTS else self.host
        return f"tls://{_bracket(host)}:{self.port}"

    @property
    def fleet_url(self) -> str:
        """How devices reach it; a guess when it listens on every address."""
        host = _outward_address() if self.host in _WILDCARD_HOSTS else self.host
        return f"tls://{_bracket(host)}:{self.port}"


@attrs.frozen
class Gate:
    """Where the fleet's server waits for those of sites."""

    listen: Listen
    certificate: Path
    """With which it proves to them who it is, in PEM; its key is in *key*."""
    key: Path


@attrs.frozen(kw_only=True)
class ServerConfig:
    """All that nats.conf depends on."""

    fleet: str
    listen: Listen
    directory: Path
    """Where log, pid and JetStream's files go."""
    admin: str
    """The control plane's public nkey."""
    operators: Mapping[str, str]
    """The public nkeys of other operators, by name."""
    readers: Mapping[str, str]
    """The public nkeys of who may only look, by name."""
    agents: Mapping[str, Enrolled]
    """By id."""
    invitations: Sequence[str]
    """The public nkeys with which a device may ask to be let in."""
    certificate: Path
    """With which the server proves who it is, in PEM; its key is in *key*."""
    key: Path
    sites: Sites = attrs.field(factory=Sites)
    gate: Gate | None = None
    """None where there never was a site."""

    def agents_of(self, site: str | None) -> dict[str, Enrolled]:
        """Return the devices that connect to the server of *site*; for None, to the fleet's own."""
        return {name: each for name, each in self.agents.items() if each.site == site}

    def spread(self) -> dict[str, dict[str, Enrolled]]:
        """Return the devices of each of `FLEETS`, by id."""
        found: dict[str, dict[str, Enrolled]] = {name: {} for name in FLEETS}
        for agent_id, each in self.agents_of(None).items():
            found[fleet_of(each.nkey)][agent_id] = each
        return found


def fleet_of(nkey: str) -> str:
    """Return the account of the device with that key, which it keeps for as long as the key."""
    return FLEETS[hashlib.sha256(nkey.encode()).digest()[0] % len(FLEETS)]


def render(config: ServerConfig) -> str:
    """Return the text of nats.conf. The same config gives the same text. Raise UsageError for a name that is
    not allowed."""
    if not is_id(config.fleet):
        raise UsageError(
            f"{config.fleet!r} cannot be a fleet's name: use 1 to 63 lower-case letters, digits and "
            "inner hyphens, such as home"
        )
    refuse_equal_keys(config)
    return json.dumps(to_document(config), separators=(",", ":"), ensure_ascii=False) + "\n"


def refuse_equal_keys(config: ServerConfig) -> None:
    """Raise `ConfigError` where two have one key: the server would accept none of its configuration."""
    holders = [
        ("the control plane", config.admin),
        *((f"the operator {name}", key) for name, key in config.operators.items()),
        *((f"the operator {name}", key) for name, key in config.readers.items()),
        *((f"the device {name}", each.nkey) for name, each in config.agents.items()),
        *((f"the device {name}", each.mailbox) for name, each in config.agents.items()),
        *(("an invitation", key) for key in config.invitations),
        *((f"the site {name}", each.key.public) for name, each in config.sites.by_name.items()),
    ]
    found: dict[str, str] = {}
    for holder, key in holders:
        if key in found:
            raise ConfigError(
                f"{holder} and {found[key]} would have the same key or mailbox; make a new one for one"
            )
        found[key] = holder


def permissions(agent_id: str, mailbox: str) -> Permissions:
    """Return all that one device may do: read its own keys, the root documents, and what concerns classes and
    assets; write its own state, heartbeat and inventory; get hints and requests; and answer.

    No consumer, no stream's information, and never a DIRECT.GET without a subject after it: its body could
    then name any message of the bucket.
    """
    return device_permissions(check_agent_id(agent_id), mailbox)


def device_permissions(name: str, mailbox: str) -> Permissions:
    """Return the same for what stands for an id and a mailbox, as in a template; see `permissions`."""
    publish = [
        f"{_DIRECT_GET}.KV_{DESIRED_STATE}.$KV.{DESIRED_STATE}.{name}",
        f"{_DIRECT_GET}.KV_{ACTUAL_STATE}.$KV.{ACTUAL_STATE}.{name}",
        f"{_DIRECT_GET}.KV_{TRUST}.$KV.{TRUST}.*",
        # Of all classes: who belongs to which, a device finds out by itself.
        f"{_DIRECT_GET}.KV_{FLEET}.$KV.{FLEET}.{INDEX_KEY}",
        f"{_DIRECT_GET}.KV_{ROLLOUT}.$KV.{ROLLOUT}.*",
        f"{_DIRECT_GET}.KV_{DESIRED_CLASS}.$KV.{DESIRED_CLASS}.*.*",
        # Whoever has not the manifest knows no id, nor what opens it.
        f"{_DIRECT_GET}.KV_{ASSETS}.$KV.{ASSETS}.*.*.*",
        f"$KV.{ACTUAL_STATE}.{name}",
        f"$KV.{HEARTBEAT}.{name}",
        f"$KV.{INVENTORY}.{name}",
        # The last token is the nonce of the request that is answered.
        f"harmony.reply.{name}.*",
    ]
    subscribe = [
        f"_INBOX_{name}.>",
        f"{MAILBOXES}.{mailbox}.*",
    ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}}


def relayed(agent_id: str, mailbox: str) -> dict[str, str]:
    """Return to which subject a site's server relays what a device sends, by the subject that the device
    uses.

    Under its own name, NATS would not let it out of a leaf node: whatever is about JetStream stays on the
    side on which it was sent. The subject contains the mailbox, which is another with each key: so the
    fleet's server cuts off a revoked device, whatever the site's server knows.
    """
    sent = permissions(agent_id, mailbox)["publish"]["allow"]
    return {each: f"{RELAY}.{mailbox}.{each}" for each in sent}


def reader_permissions(nkey: str) -> Permissions:
    """Return all that an operator may do who may only read: ask for what is in the buckets, and get the
    answers."""
    return {
        "publish": {"allow": [_LOOK]},
        "subscribe": {"allow": [f"{control_inbox_prefix(nkey)}.>"]},
    }


def invited_permissions(nkey: str) -> Permissions:
    """Return all that the holder of an invitation may do: ask one thing, of the control plane alone, to be
    enrolled."""
    return {
        "publish": {"allow": [f"{ENROL_SUBJECT}.{nkey}"]},
        "subscribe": {"allow": [f"_INBOX_{nkey}.>"]},
    }


def inbox_prefix(agent_id: str) -> str:
    """Return the subject under which a device's replies arrive; it may subscribe to no other inbox."""
    return f"_INBOX_{check_agent_id(agent_id)}"


def to_document(config: ServerConfig) -> dict[str, object]:
    """Return the content of nats.conf."""
    directory = config.directory
    limit = SITE_MAX_SUBSCRIPTIONS if config.sites.hubs else MAX_SUBSCRIPTIONS
    return {
        "server_name": f"harmony-{config.fleet}",
        "listen": str(config.listen),
        "tls": {
            "cert_file": str(config.certificate),
            "key_file": str(config.key),
            "min_version": "1.3",
            # Before a word of the protocol, so that there is nothing that anybody on the way could change.
            "handshake_first": True,
            "timeout": _HANDSHAKE_TIMEOUT_S,
        },
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_control_line": _MAX_CONTROL_LINE_BYTES,
        "max_connections": _MAX_CONNECTIONS,
        "max_subscriptions": limit,
        "max_pending": _MAX_PENDING_BYTES,
        "write_deadline": "10s",
        "pid_file": str(directory / "nats.pid"),
        "log_file": str(directory / "nats.log"),
        "logfile_size_limit": _LOG_BYTES,
        "logfile_max_num": _LOG_FILES,
        "jetstream": {
            "store_dir": str(directory / "jetstream"),
            # An acknowledged write is on the disk: by default it would be two minutes later.
            "sync_interval": "always",
            "max_file_store": _MAX_FILE_STORE_BYTES,
            "max_memory_store": _MAX_MEMORY_STORE_BYTES,
        },
        **({"leafnodes": describe_gate(config.gate)} if config.gate else {}),
        "accounts": describe_accounts(config),
    }


def describe_gate(gate: Gate) -> dict[str, object]:
    """Return how a server listens for those of sites."""
    return {
        "listen": str(gate.listen),
        "tls": {
            "cert_file": str(gate.certificate),
            "key_file": str(gate.key),
            "min_version": "1.3",
            "handshake_first": True,
            "timeout": _HANDSHAKE_TIMEOUT_S,
        },
        # A site's server has been told of each; an address as a server sees itself may lead nowhere.
        "no_advertise": True,
    }


def describe_accounts(config: ServerConfig) -> dict[str, dict[str, object]]:
    """Return who is in which account, and what passes between them, in the form of nats.conf."""
    sites = config.sites.by_name
    accounts = {
        "CTRL": _control_account(
            (config.admin, *config.operators.values()),
            [*FLEETS, *(each.account_name for each in sites.values())],
        ),
        **{name: _fleet_account(agents) for name, agents in config.spread().items()},
        # Both always there: what a reload adds to accounts is seen by who is connected, a new account is not.
        "LOOK": _look_account(config.readers.values()),
        "DOOR": _door_account(config.invitations),
    }
    accounts |= {
        each.account_name: _site_account(config.agents_of(name)) for name, each in sites.items()
    }
    return accounts


def _control_account(operators: Iterable[str], fleets: Sequence[str]) -> dict[str, object]:
    services = [
        {"service": subject, "accounts": [*fleets, *(["LOOK"] if subject in _READS else [])]}
        for subject in _SERVICES
    ]
    streams = [{"stream": subject, "accounts": fleets} for subject in _STREAMS]
    door = [{"service": f"{ENROL_SUBJECT}.*", "accounts": ["DOOR"]}]
    # As a stream: one question has many answers.
    look = [
        {"service": subject, "accounts": ["LOOK"], "response_type": "stream"} for subject in _LOOKS
    ]
    return {
        "jetstream": "enabled",
        "users": [{"nkey": each} for each in operators],
        "exports": services + streams + door + look,
    }


def _look_account(readers: Iterable[str]) -> dict[str, object]:
    users = [{"nkey": each, "permissions": reader_permissions(each)} for each in readers]
    return {
        "users": users,
        "limits": {"max_connections": _MAX_GUESTS},
        "imports": [{"service": _in_control(each)} for each in (*_READS, *_LOOKS)],
    }


def _door_account(invitations: Sequence[str]) -> dict[str, object]:
    users = [{"nkey": each, "permissions": invited_permissions(each)} for each in invitations]
    return {
        "users": users,
        "limits": {"max_connections": _MAX_GUESTS},
        "imports": [{"service": _in_control(f"{ENROL_SUBJECT}.*")}],
    }


def _fleet_account(agents: Mapping[str, Enrolled]) -> dict[str, object]:
    users = [
        {"nkey": each.nkey, "permissions": permissions(agent_id, each.mailbox)}
        for agent_id, each in sorted(agents.items())
    ]
    services = [{"service": _in_control(subject)} for subject in _SERVICES]
    # NATS knows no limit of one user: whoever has one key takes those of other devices, not of operators.
    most = _CONNECTIONS_BESIDE + _CONNECTIONS_FOR_EACH * len(agents)
    return {
        "users": users,
        "limits": {"max_connections": most},
        "imports": services + _mailboxes(agents),
    }


def _site_account(agents: Mapping[str, Enrolled]) -> dict[str, object]:
    """Return the account in which a site's server is, with nobody else.

    What is imported decides what that server reaches: what its devices may, subject by subject. It has no
    list of what it may publish: whenever an import comes or goes, NATS 2.15 looks for what a leaf node has
    *subscribed* to in that list, and drops what it does not find, without a word to the leaf node.
    """
    services = [
        {"service": _in_control(subject), "to": name}
        for agent_id, each in sorted(agents.items())
        for subject, name in relayed(agent_id, each.mailbox).items()
    ]
    return {"imports": [*services, *_mailboxes(agents)]}


def _mailboxes(agents: Mapping[str, Enrolled]) -> list[dict[str, object]]:
    # One for each device: the server looks through all of them at every subscription.
    return [
        {"stream": _in_control(f"{MAIL}.{agent_id}.*"), "to": f"{MAILBOXES}.{each.mailbox}.$1"}
        for agent_id, each in sorted(agents.items())
    ]


def _in_control(subject: str) -> dict[str, str]:
    return {"account": "CTRL", "subject": subject}


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _outward_address() -> str:
    # Connecting a datagram socket sends nothing; it only asks which of our addresses leads outward.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return _own_name()
        return str(probe.getsockname()[0])


def _own_name() -> str:
    """Return the name by which others on the network find this machine without DNS: that of multicast DNS."""
    name = socket.gethostname()
    return name if "." in name else f"{name}.local"
