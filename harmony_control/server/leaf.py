"""A site's server: a leaf node of the fleet's, for devices behind a line that is thin, or is cut at times.

    device --its nkey--> leaf: DEVICE-pi-1 --> SITE-shop --the site's JWT--> fleet's: SITE-shop --> CTRL

It stores nothing, and decides nothing: the fleet's server lets it carry what its devices may, and no more.
NATS lets nothing about JetStream through a leaf node (``$JS.API.>`` and ``$KV.>`` are denied on every one),
so the leaf gives these subjects another name, and the site's account on the fleet's server gives it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from harmony_control.bus_url import is_loopback
from harmony_control.store.home import ControlConfig, Enrolled, Home
from harmony_control.store.sites import Site, Sites, new_site, read_sites, save_sites
from harmony_core.errors import UsageError
from harmony_core.wire.names import MAILBOXES, is_id

from .apply import apply_configuration
from .cluster import parse_nodes
from .config import (
    MAX_SUBSCRIPTIONS,
    RELAY,
    Listen,
    ServerConfig,
    permissions,
    relayed,
    to_document,
)

__all__ = [
    "GATE_ABOVE",
    "SITE_NAME_MAX",
    "describe_leaf",
    "parse_site",
    "remove_site",
    "save_with_hubs",
    "with_site",
]

GATE_ABOVE = 3_200
"""As between 4222 and 7422, which are NATS' own."""
SITE_NAME_MAX = 51
"""With what is before it, in the certificate of the site's server, it has 64: no more are allowed there."""
_DEFAULT_PORT = 4222
_PING_S = 20
"""A line that is cut without a word is found after three of them; by default that is after six minutes."""
_HANDSHAKE_TIMEOUT_S = 10
_DEVICE_CONNECTIONS = 8
"""Of one device: it has one, a second while it looks whether it could connect, and some that were cut. It
has `MAX_SUBSCRIPTIONS` in all of them together."""
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - a server's


def parse_site(text: str) -> tuple[str, str]:
    """Return the name and the address that ``shop=HOST:PORT`` is. `UsageError`."""
    name, _, address = text.partition("=")
    if not is_id(name):
        raise UsageError(
            f"--leaf {text}: {name!r} cannot be a site's name; write NAME=HOST:PORT, such as "
            "shop=192.168.7.2:4222, the name of lower-case letters, digits and inner hyphens"
        )
    if len(name) > SITE_NAME_MAX:
        raise UsageError(
            f"--leaf {text}: a site's name has at most {SITE_NAME_MAX} letters, and this one has "
            f"{len(name)}; choose a shorter one"
        )
    has_port = address.rpartition(":")[2].isdigit() and not address.endswith("]")
    at = Listen.parse(address if has_port else f"{address}:{_DEFAULT_PORT}")
    if not at.host or at.host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise UsageError(
            f"--leaf {text}: write the address at which the site's devices find its server, such as "
            f"{name}=192.168.7.2:4222"
        )
    return name, str(at)


def with_site(home: Home, sites: Sites, name: str, at: str, *, with_new_key: bool) -> Sites:
    """Return *sites* with the site *name*, whose server is at *at*. What is known of it stays, except,
    *with_new_key*, its key and its certificate."""
    site, fresh = sites.by_name.get(name), new_site(name, at)
    if site is None:
        site = fresh
    elif with_new_key:
        site = attrs.evolve(site, key=fresh.key)
        for path in _certificate_of(home, site.server_name):
            path.unlink(missing_ok=True)
    site = attrs.evolve(site, at=at)
    return attrs.evolve(sites, by_name={**sites.by_name, name: site})


def save_with_hubs(home: Home, config: ControlConfig, sites: Sites) -> None:
    """Store *sites*, and where the fleet's servers listen for theirs; make all certificates that are missing.

    Call this while ``home.editing()`` is held. Raise `UsageError` where a port would be too high, or a site
    would look for the fleet's server on its own machine.
    """
    # Slow to load, and needed nowhere else.
    from .authority import ensure_site_certificates

    if config.cluster is not None:
        servers = [each.at for each in parse_nodes(config.cluster)]
    else:
        servers = [Listen.of_url(Listen.parse(config.listen or "").fleet_url)]
    if any(each.port + GATE_ABOVE > 65_535 for each in servers):
        raise UsageError(
            f"servers of sites find the fleet's {GATE_ABOVE} ports above its own; choose a port below "
            f"{65_536 - GATE_ABOVE}"
        )
    _refuse_own_machine(servers, sites)
    hubs = [str(attrs.evolve(each, port=each.port + GATE_ABOVE)) for each in servers]
    sites = attrs.evolve(sites, hubs=hubs)
    names = {each.host for each in servers}
    names |= {each.server_name for each in sites.by_name.values()}
    ensure_site_certificates(home, config.fleet, names)
    save_sites(home, sites)


def remove_site(home: Home, name: str) -> None:
    """Have the fleet's server no longer accept that of the site *name*, and forget the site.

    Raise `UsageError` while it has devices; `ConfigError` where there is no such site; `BusUnreachable` and
    `StoreError` where the fleet's server was not told: then repeat it.
    """
    with home.editing():
        sites = read_sites(home)
        at = sites.named(name).at
        if devices := sorted(each for each, found in home.agents().items() if found.site == name):
            raise UsageError(
                f"the site {name} has devices: {', '.join(devices)}; take them out with `harmony retire`, or "
                "let them in elsewhere with `harmony add-agent ID --replace`"
            )
        # Another key, which nobody is given: so the one that its server has is revoked.
        save_sites(home, with_site(home, sites, name, at, with_new_key=True))
        apply_configuration(home)
        others = {each: site for each, site in sites.by_name.items() if each != name}
        save_sites(home, attrs.evolve(sites, by_name=others))


def _refuse_own_machine(servers: Iterable[Listen], sites: Sites) -> None:
    own = [each for each in servers if is_loopback(f"tls://{each}")]
    if not own:
        return
    for site in sites.by_name.values():
        if not is_loopback(f"tls://{site.at}"):
            raise UsageError(
                f"the server of the site {site.name} would look for the fleet's at {own[0]}, which leads "
                "back to its own machine; name the address at which sites reach the fleet's, such as "
                "--listen nats.example.org:4222"
            )


def _certificate_of(home: Home, name: str) -> tuple[Path, Path]:
    return home.sites / f"{name}.pem", home.sites / f"{name}.key"


def describe_leaf(config: ServerConfig, site: Site, files: Path) -> dict[str, object]:
    """Return what nats.conf of the server of *site* holds, which has its other files in *files*."""
    at = Listen.parse(site.at)
    document = to_document(
        attrs.evolve(config, certificate=files / "server.pem", key=files / "server.key")
    )
    own = {
        name: each
        for name, each in document.items()
        if name not in {"jetstream", "accounts", "leafnodes"}
    }
    return {
        **own,
        "server_name": f"harmony-{config.fleet}-{site.name}",
        "listen": str(at if at.is_address else attrs.evolve(at, host=_EVERY_ADDRESS)),
        "ping_interval": f"{_PING_S}s",
        "leafnodes": {"remotes": [_describe_remote(config.sites, site, files)]},
        "accounts": _describe_accounts(config, site),
    }


def _describe_remote(sites: Sites, site: Site, files: Path) -> dict[str, object]:
    return {
        "urls": [f"tls://{each}" for each in sites.hubs],
        "account": site.account_name,
        "credentials": str(files / "site.creds"),
        "tls": {
            "ca_file": str(files / "sites-ca.pem"),
            "min_version": "1.3",
            "handshake_first": True,
            "timeout": _HANDSHAKE_TIMEOUT_S,
        },
    }


def _describe_accounts(config: ServerConfig, site: Site) -> dict[str, object]:
    """Return the account that is connected to the fleet's server, and one for each device.

    So nobody names where a neighbour's writes go, and limits are of a device: of one user NATS has none.
    """
    devices = {
        f"DEVICE-{agent_id}": _describe_device(agent_id, each, site.account_name)
        for agent_id, each in sorted(config.agents_of(site.name).items())
    }
    exports = [
        {kind: subject, "accounts": list(devices)}
        for kind, subject in (("service", f"{RELAY}.>"), ("stream", f"{MAILBOXES}.*.*"))
    ]
    return {site.account_name: {"exports": exports}, **devices}


def _describe_device(agent_id: str, device: Enrolled, carrier: str) -> dict[str, object]:
    """Return the account of one device, whose messages pass through the account *carrier*."""
    sent = [
        {"service": {"account": carrier, "subject": name}, "to": subject}
        for subject, name in relayed(agent_id, device.mailbox).items()
    ]
    mail = {"stream": {"account": carrier, "subject": f"{MAILBOXES}.{device.mailbox}.*"}}
    return {
        "users": [{"nkey": device.nkey, "permissions": permissions(agent_id, device.mailbox)}],
        "limits": {
            "max_connections": _DEVICE_CONNECTIONS,
            "max_subscriptions": MAX_SUBSCRIPTIONS // _DEVICE_CONNECTIONS,
        },
        "imports": [*sent, mail],
    }
