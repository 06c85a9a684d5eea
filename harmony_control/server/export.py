"""Writes what somebody needs who runs a NATS server of their own for a fleet.

    nats.conf                the whole configuration, with the reason of each part as a comment
    server.pem, server.key   with which the server proves who it is
    buckets/*.json           the streams to be made, as `nats stream add --config` reads them

For a cluster nats.conf and certificates are in a folder for each server, which have besides:

    cluster.pem, .key        with which it proves to the others who it is; cluster-ca.pem has issued theirs

It is the configuration of `harmony server`, but for what belongs to that one's process: its log and its pid.
For a site nats.conf and certificates of its server are in a folder ``site-NAME``; it needs no streams.

With JWTs, who is in which account is not in it: the server is told of that by `.claims`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import cast

import attrs

from harmony_control.store.home import Home, read_if_there, write_json, write_whole
from harmony_control.store.issuers import Issuers, create_issuers, read_issuers, save_issuers
from harmony_control.store.sites import Site, read_sites
from harmony_core.errors import ConfigError, UsageError

from .accounts import encode_operator, encode_system_account, issue_operator, issue_site
from .apply import bring_up_to_date, gate_of, server_config, server_pid
from .buckets import REPLICAS, describe_buckets
from .cluster import Node, parse_nodes, with_routes
from .config import ServerConfig, to_document
from .leaf import describe_leaf, parse_site, remove_site, save_with_hubs, with_site
from .process import IssuedCertificate, prepare

__all__ = ["STORE", "export"]

STORE = Path("/var/lib/nats")
_COMMENT_WIDTH = 100
_OWN = ("pid_file", "log_file", "logfile_size_limit", "logfile_max_num")
_COMMENTS = {
    "": (
        "For NATS 2.12 or newer, written by `harmony server --export`. Whenever a device or an "
        "operator was added or removed, write it again, and have the server read it again: "
        "nats-server --signal reload."
    ),
    "jwt": (
        "For NATS 2.12 or newer, written by `harmony server --export --jwt`. It stays as it is when devices "
        "or operators come and go: `harmony server` tells the server of them, through the account SYS."
    ),
    "leaf": (
        "The server of a site, for NATS 2.12 or newer, written by `harmony server --export`. It keeps "
        "nothing, and must be written again whenever a device of this site was added or removed: then "
        "restart it. A reload is not enough, for each device has an account of its own, by which it reaches "
        "what is its own and no more. Keep site.creds beside it secret."
    ),
    "leafnodes": (
        "Between servers of sites and the fleet's. What one of a site may carry stands in the account SITE-… "
        "on the fleet's server: what the devices of that site may, and no more."
    ),
    "ping_interval": "A line that is cut without a word is found after three of these.",
    "operator": (
        "Whose accounts count: those that the key in the home of Harmony has signed. Name no other operator "
        "here. The accounts are CTRL (operators, and JetStream), FLEET-00 to FLEET-15 (devices, without "
        "JetStream: NATS checks to which subject a message goes, and not where its reply is to go), LOOK "
        "(operators who may only look) and DOOR (who has an invitation, and is no device yet)."
    ),
    "resolver": (
        "Where the server keeps the accounts that it was told of, and with them who is revoked: it must "
        "outlast a restart. The account SYS has to be there before it can be told anything."
    ),
    "tls": (
        "TLS 1.3 alone, and before a word of NATS' own protocol, so that nobody on the way can "
        "change one. Devices and operators trust the authority that has issued this "
        "certificate, and no other."
    ),
    "cluster": (
        "The other servers of the cluster, and how they prove who they are: by an authority of their own: "
        "who is taken for one of them may do everything. Let nobody but them reach this port. They keep each "
        "bucket together: a write is acknowledged when two of three have it on their disks."
    ),
    "max_payload": "The largest message of any bucket, with room for headers.",
    "max_control_line": (
        "What one stolen key could use up: lengths of lines, connections, subscriptions of each "
        "(a device needs four), what one has not read, and how long it may take to read it."
    ),
    "jetstream": (
        "An acknowledged write must be on the disk: by default NATS waits up to two minutes, "
        "and a power cut takes back what an operator was told is kept."
    ),
    "accounts.CTRL": (
        "The control plane: operators, by their public keys, and JetStream. What devices may "
        "ask of it is exported one by one."
    ),
    "accounts.FLEET-00": (
        "The devices, in this and 15 more, by their keys. No JetStream is there: NATS checks to "
        "which subject a message goes, and not where its reply is to go, so in one account with "
        "the buckets a device could have the server write into another's. Each may publish and "
        "subscribe to what its own id or mailbox is part of, and to nothing else: no stream's "
        "information, no consumer, no DIRECT.GET without a subject behind it."
    ),
    "accounts.LOOK": (
        "Operators who may only look. They read the buckets, and are in an account of their own for "
        "the same reason as devices."
    ),
    "accounts.DOOR": (
        "Who has an invitation, and is no device yet. Who answers them is `harmony server`, and "
        "no other; with this one, let devices in by `harmony add-agent`."
    ),
}


def export(
    home: Home,
    directory: Path,
    *,
    listen: str | None,
    fleet: str | None,
    issued: IssuedCertificate | None,
    with_jwts: bool = False,
    device_life: timedelta | None = None,
    cluster: str | None = None,
    leaf: str | None = None,
    with_new_key: bool = False,
    without_leaf: str | None = None,
) -> None:
    """Write the files to *directory*, after the home's newest state. What was there of them is replaced.

    *listen*, *fleet* and *issued* are as of `running`, and remembered; `UsageError` where one is given and a
    server of *home* runs, and where *directory* is that server's own. *with_jwts*, once given, is remembered,
    too: users are let in by JWTs, of which the server is told by `update_accounts`. So is *device_life*: for
    how long a device is let in by one, which it renews before; a new one of each device has it. And so is
    *cluster*: the addresses of its servers (`parse_nodes`), until *listen* names a single one; and *leaf*: a
    site, and where its server is (`parse_site`). *with_new_key* the server that it had is let in no more.
    The site *without_leaf* is removed first (`remove_site`).
    """
    _refuse_own_files(home, directory)
    site = _parse_leaf(leaf, with_new_key=with_new_key)
    if site is not None and not (with_jwts or home.issuers_json.exists()):
        raise UsageError(
            "--leaf goes with --jwt: a server of static keys does not cut off a site's server that is "
            "connected, when it reads that a device or that server is revoked"
        )
    if with_jwts:
        _begin_with_jwts(home)
    if device_life is not None:
        _let_devices_expire(home, device_life)
    if server_pid(home) is None:
        prepare(home, listen, fleet, issued, cluster=cluster)
    elif (listen, fleet, issued, cluster) != (None, None, None, None):
        raise UsageError(
            f"a server runs from {home.root}, with options of its own; end it first, or leave --listen, "
            "--cluster, --fleet and --tls-… away"
        )
    if without_leaf is not None:
        remove_site(home, without_leaf)
    with home.editing():
        sites = read_sites(home)
        if site is not None:
            sites = with_site(home, sites, *site, with_new_key=with_new_key)
        if site is not None or sites.hubs:
            save_with_hubs(home, home.control(), sites)
    _write_all(home, directory)
    if with_new_key:
        bring_up_to_date(home)


def _write_all(home: Home, directory: Path) -> None:
    """Write what *home* says to *directory*."""
    with home.editing():
        nodes = home.control().cluster
        config = server_config(home, home.control())
        issuers = read_issuers(home)
        if issuers is not None:
            _ensure_own_jwt(home, config.admin)
        for site in config.sites.by_name.values():
            _write_leaf(home, directory / f"site-{site.name}", config, site)
    if nodes is None:
        _write_server(directory, config, issuers)
    else:
        _write_cluster(home, directory, config, issuers, parse_nodes(nodes))
    for name, options in describe_buckets(1 if nodes is None else REPLICAS).items():
        write_json(directory / "buckets" / f"{name}.json", options)


def _parse_leaf(leaf: str | None, *, with_new_key: bool) -> tuple[str, str] | None:
    if leaf is not None:
        return parse_site(leaf)
    if with_new_key:
        raise UsageError("--new-key goes with --leaf SITE=HOST:PORT: it is that site's server's")
    return None


def _write_leaf(home: Home, directory: Path, config: ServerConfig, site: Site) -> None:
    """Write what the server of *site* needs."""
    files = directory.absolute()
    for name, source in (
        ("server.pem", home.sites / f"{site.server_name}.pem"),
        ("server.key", home.sites / f"{site.server_name}.key"),
        ("sites-ca.pem", home.sites / "ca.pem"),
    ):
        write_whole(files / name, source.read_bytes())
    write_whole(files / "site.creds", _encode_credentials(issue_site(home, site), site.key.seed))
    document = describe_leaf(config, site, files)
    write_whole(files / "nats.conf", _render_with_comments(document, "leaf"))


def _encode_credentials(jwt: str, seed: str) -> str:
    """Return *jwt* and *seed* as NATS reads both from one file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _write_cluster(
    home: Home,
    directory: Path,
    config: ServerConfig,
    issuers: Issuers | None,
    nodes: Sequence[Node],
) -> None:
    # Slow to load, and needed nowhere else.
    from .authority import ensure_route_certificates

    with home.editing():
        ensure_route_certificates(home, config.fleet, {each.at.host for each in nodes})
    for number, node in enumerate(nodes):
        files = (directory / node.name).absolute()
        for name, source in (
            ("cluster.pem", home.cluster / f"{node.at.host}.pem"),
            ("cluster.key", home.cluster / f"{node.at.host}.key"),
            ("cluster-ca.pem", home.cluster / "ca.pem"),
        ):
            write_whole(files / name, source.read_bytes())
        complete = partial(with_routes, fleet=config.fleet, node=node, nodes=nodes, files=files)
        own = attrs.evolve(config, gate=gate_of(home, config.sites, node.listen, number))
        _write_server(files, own, issuers, complete)


def _write_server(
    directory: Path,
    config: ServerConfig,
    issuers: Issuers | None,
    complete: Callable[[Mapping[str, object]], Mapping[str, object]] = dict,
) -> None:
    """Write nats.conf and the certificate of one server; *complete* adds what is its own."""
    certificate, key = directory / "server.pem", directory / "server.key"
    wanted = [(config.certificate, certificate), (config.key, key)]
    gate = config.gate
    if gate is not None:
        moved_gate = attrs.evolve(
            gate,
            certificate=(directory / "sites.pem").absolute(),
            key=(directory / "sites.key").absolute(),
        )
        wanted += [(gate.certificate, moved_gate.certificate), (gate.key, moved_gate.key)]
        gate = moved_gate
    for source, target in wanted:
        content = read_if_there(source)
        if content is None:
            raise ConfigError(
                f"there is no {source}; start `harmony server` once, which looks at it"
            )
        write_whole(target, content)
    moved = attrs.evolve(
        config, directory=STORE, certificate=certificate.absolute(), key=key.absolute(), gate=gate
    )
    document = complete(to_document(moved))
    if issuers is not None:
        document = _with_operator(document, issuers, config.fleet)
    write_whole(directory / "nats.conf", _render_with_comments(document))


def _refuse_own_files(home: Home, directory: Path) -> None:
    own = home.server.resolve()
    if directory.resolve().is_relative_to(own) or own.is_relative_to(directory.resolve()):
        raise UsageError(
            f"in {directory} are the files of the server that is run from this home; name another directory"
        )


def _begin_with_jwts(home: Home) -> None:
    """Have the users of the home's server be let in by JWTs from now on. Idempotent."""
    if server_pid(home) is not None:
        raise UsageError(
            f"a server of static keys runs from {home.root}; end it first: with --jwt another takes its place"
        )
    with home.editing():
        create_issuers(home)


def _let_devices_expire(home: Home, life: timedelta) -> None:
    with home.editing():
        issuers = read_issuers(home)
        if issuers is None:
            raise UsageError("--expire goes with --jwt: a key alone does not expire")
        save_issuers(home, attrs.evolve(issuers, device_life_s=int(life.total_seconds()) or None))


def _ensure_own_jwt(home: Home, admin: str) -> None:
    own = home.control().jwt
    if not own.exists():
        write_whole(own, f"{issue_operator(home, admin, 'admin')}\n")


def _with_operator(
    document: Mapping[str, object], issuers: Issuers, fleet: str
) -> dict[str, object]:
    """Return *document* with whose accounts count, in place of the accounts."""
    system = issuers.accounts["SYS"].identity.public
    return {
        **{name: each for name, each in document.items() if name != "accounts"},
        "operator": encode_operator(issuers, fleet),
        "system_account": system,
        "resolver": {
            "type": "full",
            "dir": str(STORE / "jwt"),
            "allow_delete": False,
            # A server of a cluster that was away asks the others who was revoked: by default after 2 min.
            "interval": "2s",
        },
        "resolver_preload": {system: encode_system_account(issuers)},
    }


def _render_with_comments(document: Mapping[str, object], begin: str | None = None) -> str:
    own = {name: each for name, each in document.items() if name not in _OWN}
    if begin is None:
        begin = "" if "accounts" in own else "jwt"
    return "\n".join([*_comment(begin), *_lines(own)]) + "\n"


def _lines(table: Mapping[str, object], path: str = "", indent: str = "") -> Iterator[str]:
    """Yield *table* in NATS' own format, of which JSON is a part. A table in which something has a comment is
    opened."""
    for name, value in table.items():
        at = f"{path}{name}"
        yield from (indent + line for line in _comment(at))
        if any(each.startswith(f"{at}.") for each in _COMMENTS):
            yield f"{indent}{name} {{"
            yield from _lines(cast("Mapping[str, object]", value), f"{at}.", f"{indent} ")
            yield f"{indent}}}"
        else:
            text = json.dumps(value, indent=1, ensure_ascii=False).replace("\n", f"\n{indent}")
            yield f"{indent}{name}: {text}"


def _comment(at: str) -> Iterator[str]:
    if at in _COMMENTS:
        yield ""
        yield from (
            f"# {line}" for line in wrap(_COMMENTS[at], _COMMENT_WIDTH, break_on_hyphens=False)
        )
