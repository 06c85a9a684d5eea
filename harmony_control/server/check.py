"""Looks from outside whether a NATS server has the layout of a fleet's: as operator, stranger and device.

Whatever is called right here was tried or read. What cannot be seen from outside is told as not looked at.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from nats.aio.client import Client

from harmony_control.bus.connection import admin, close, cluster_of, connect
from harmony_control.bus_url import bus_url, split_url
from harmony_control.store.home import Home
from harmony_control.store.nkey import Nkey
from harmony_control.store.sites import Site, read_site_authority, read_sites
from harmony_core.errors import BusUnreachable, HarmonyError, UsageError
from harmony_core.wire.jwt import Claims
from harmony_core.wire.times import rfc3339
from harmony_core.wire.tls import describe_tls_error, verifying_context

from .accounts import sign_for_nobody
from .apply import server_config
from .buckets import find_differences
from .check_device import Probe, look_at_device
from .claims import find_stale_accounts
from .config import MAX_PAYLOAD_BYTES, inbox_prefix
from .finding import Finding

__all__ = ["check_server"]

_OLDEST = (2, 12)
_SPEAKS_WITHIN_S = 1.0
_ANSWERS_WITHIN_S = 5.0


@attrs.frozen
class _Server:
    """How the server is reached, and whom it must prove to be."""

    url: str
    authority: str
    server_name: str

    @asynccontextmanager
    async def connected(
        self,
        seed: str | None,
        *,
        jwt: str | None = None,
        inbox: str | None = None,
        refusals: list[str] | None = None,
    ) -> AsyncGenerator[Client]:
        client = await connect(
            self.url,
            seed=seed,
            jwt=jwt,
            authority=self.authority,
            server_name=self.server_name,
            inbox=inbox,
            refusals=refusals,
        )
        try:
            yield client
        finally:
            await close(client)


async def check_server(home: Home, url: str, device: Path | None) -> list[Finding]:
    """Return what is right and wrong with the server at *url*, checked with the operator's key of *home*.

    For a cluster, check each server that *url* names, and what they keep together. For the server of a site,
    check that one, and whether devices reach the fleet's through it.

    *device* is the agent.toml of a device that is enrolled there and runs nowhere. Raise `BusUnreachable`
    where the server does not accept the operator.
    """
    config = await asyncio.to_thread(home.control)
    try:
        server = _Server(bus_url(url), home.read_authority(config), config.server_name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    probe = None if device is None else await asyncio.to_thread(Probe.read, device)
    sites = await asyncio.to_thread(read_sites, home)
    site = next((each for each in sites.by_name.values() if server.url == f"tls://{each.at}"), None)
    if site is not None:
        return await _check_leaf(home, server.url, site, probe)
    key = await asyncio.to_thread(Nkey.read, config.admin_seed)
    jwt = await asyncio.to_thread(config.read_jwt)
    async with server.connected(key.seed, jwt=jwt) as operator:
        found = [
            *[each async for each in _look_at_servers(server, key.seed, jwt)],
            *[await _look_at_gate(home, each) for each in sites.hubs],
            *await _look_at_accounts(home),
            *await _look_at_buckets(operator),
        ]
        if probe is None:
            found.append(
                Finding(
                    "not looked at",
                    "what a device may do",
                    "it takes a device's key: harmony add-agent probe --out FILE, have the server know of "
                    "it, add --device FILE, and afterwards harmony retire probe",
                )
            )
        else:
            found += await _look_at_device(server, operator, probe)
    return [*found, *_unseen()]


async def _check_leaf(home: Home, url: str, site: Site, probe: Probe | None) -> list[Finding]:
    """Return what is right and wrong with the server of *site*, which knows no operators, only devices."""
    authority = await asyncio.to_thread(read_site_authority, home)
    server = _Server(url, authority, site.server_name)
    known = f"it proves to be the server of the site {site.name}"
    try:
        found = [
            await _look_at_proof(known, url, authority, site.server_name),
            await _look_for_words_in_clear(server),
            await _look_for_older_tls(server),
            await _look_for_strangers(server),
        ]
    except OSError as error:
        return [Finding("wrong", known, f"{url} is not reached: {error}; is NATS running there?")]
    if probe is None:
        return [
            *found,
            Finding(
                "not looked at",
                "what a device may do, and whether the fleet's server is reached",
                f"it takes a device's key: harmony add-agent probe --site {site.name} --out FILE, export "
                "again, have both servers know of it, add --device FILE, and afterwards harmony retire probe",
            ),
        ]
    async with admin(home) as client:
        return [*found, *await _look_at_device(server, client, probe, at_site=True)]


async def _look_at_gate(home: Home, hub: str) -> Finding:
    authority = await asyncio.to_thread(read_site_authority, home)
    what = f"{hub}: it waits for servers of sites"
    try:
        host, _ = _address(f"tls://{hub}")
        return await _look_at_proof(what, f"tls://{hub}", authority, host)
    except OSError as error:
        remedy = "its configuration must have what `harmony server --export DIR` writes, leafnodes"
        return Finding("wrong", what, f"it does not ({error}); {remedy}")


async def _look_at_proof(what: str, url: str, authority: str, name: str) -> Finding:
    """Return whether the server at *url* has a certificate of *authority* for *name*. Raise OSError if nobody
    answers."""
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            _, writer = await asyncio.open_connection(
                *_address(url), ssl=verifying_context(authority), server_hostname=name
            )
    except ssl.SSLError as error:
        return Finding("wrong", what, f"it does not: {describe_tls_error(error)}; export again")
    writer.close()
    return Finding("right", what)


async def _look_at_servers(server: _Server, seed: str, jwt: str | None) -> AsyncIterator[Finding]:
    """Yield the findings about each server by itself."""
    urls = split_url(server.url)
    clusters: set[str] = set()
    for url in urls:
        one = attrs.evolve(server, url=url)
        named = f"{url}: " if len(urls) > 1 else ""
        known = f"{named}it proves to be the fleet's server, and knows this operator"
        try:
            async with one.connected(seed, jwt=jwt) as client:
                clusters.add(cluster_of(client))
                found = [
                    Finding("right", known),
                    _look_at_version(client),
                    _look_at_payload(client),
                    await _look_for_words_in_clear(one),
                    await _look_for_older_tls(one),
                    await _look_for_strangers(one),
                ]
        except (BusUnreachable, OSError) as error:
            if not named:
                raise
            yield Finding("wrong", known, getattr(error, "message", str(error)))
            continue
        for each in found:
            is_named = each.what == known
            yield each if is_named else attrs.evolve(each, what=f"{named}{each.what}")
    if len(urls) > 1:
        what = "they are one cluster"
        if len(clusters) == 1 and "" not in clusters:
            yield Finding("right", what)
        else:
            remedy = "`harmony server --export DIR --cluster …` has what each must have"
            yield Finding("wrong", what, f"they are not; {remedy}")


def _unseen() -> Iterable[Finding]:
    """Yield what only the server's own configuration, or its system account, can tell."""
    yield Finding(
        "not looked at",
        "whether an acknowledged write is on the disk",
        'nobody sees it from outside; its configuration must have sync_interval: "always"',
    )
    yield Finding(
        "not looked at",
        "other accounts, other users, and limits of connections",
        "nobody sees them from outside; `harmony server --export DIR` writes what must be there, and no more",
    )


def _look_at_version(client: Client) -> Finding:
    version = client.connected_server_version
    what = "its version"
    if (version.major, version.minor) < _OLDEST:
        return Finding("wrong", what, f"it is NATS {version}; use 2.12 or newer")
    return Finding("right", what, f"NATS {version}")


def _look_at_payload(client: Client) -> Finding:
    what = "max_payload"
    if client.max_payload < MAX_PAYLOAD_BYTES:
        return Finding("wrong", what, f"it is {client.max_payload}; set {MAX_PAYLOAD_BYTES}")
    return Finding("right", what)


async def _look_for_words_in_clear(server: _Server) -> Finding:
    what = "nothing is said in clear"
    reader, writer = await asyncio.open_connection(*_address(server.url))
    try:
        async with asyncio.timeout(_SPEAKS_WITHIN_S):
            said = await reader.read(4)
    except (TimeoutError, OSError):
        said = b""
    finally:
        writer.close()
    if said:
        return Finding("wrong", what, "it speaks before TLS; set handshake_first: true in tls")
    return Finding("right", what)


async def _look_for_older_tls(server: _Server) -> Finding:
    what = "TLS 1.3 alone"
    # Only what it would speak is looked at here: who it is was proved before.
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    older.check_hostname, older.verify_mode = False, ssl.CERT_NONE
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            _, writer = await asyncio.open_connection(*_address(server.url), ssl=older)
    except ssl.SSLError:
        return Finding("right", what)
    except (OSError, TimeoutError) as error:
        return Finding(
            "not looked at", what, f"it did not answer: {type(error).__name__}; try again"
        )
    writer.close()
    return Finding("wrong", what, 'it speaks TLS 1.2, too; set min_version: "1.3" in tls')


async def _look_for_strangers(server: _Server) -> Finding:
    what = "who has no key, or another, is not let in"
    stranger = Nkey.new()
    strangers = [
        (None, None),
        (stranger.seed, None),
        (stranger.seed, sign_for_nobody(stranger.public)),
    ]
    for seed, jwt in strangers:
        # What is refused while it connects, `connect` raises.
        with suppress(BusUnreachable):
            async with server.connected(seed, jwt=jwt):
                remedy = "take no_auth_user away, and every user without an nkey"
                return Finding("wrong", what, f"it was let in; {remedy}")
    return Finding("right", what)


async def _look_at_accounts(home: Home) -> list[Finding]:
    """Return whether a server whose users have JWTs knows the accounts that *home* has."""
    if not home.issuers_json.exists():
        return []
    what = "the accounts, and who is revoked"
    try:
        config = await asyncio.to_thread(lambda: server_config(home, home.control()))
        stale = await find_stale_accounts(home, config)
    except HarmonyError as error:
        return [Finding("wrong", what, f"{error.message}")]
    if stale:
        remedy = "`harmony server` tells it"
        return [Finding("wrong", what, f"it has others: {', '.join(stale)}; {remedy}")]
    return [Finding("right", what)]


async def _look_at_buckets(client: Client) -> list[Finding]:
    try:
        found = await find_differences(client)
    except HarmonyError as error:
        return [Finding("wrong", "JetStream", f"{error.message}; enable it for the account CTRL")]
    remedy = "buckets/{}.json of `harmony server --export DIR` has what it must have"
    return [
        Finding("wrong", f"the stream {name}", f"{'; '.join(differing)}; {remedy.format(name)}")
        if differing
        else Finding("right", f"the stream {name}")
        for name, differing in found.items()
    ]


async def _look_at_device(
    server: _Server, operator: Client, probe: Probe, *, at_site: bool = False
) -> list[Finding]:
    refusals: list[str] = []
    inbox = inbox_prefix(probe.agent_id)
    try:
        async with server.connected(
            probe.seed, jwt=probe.jwt, inbox=inbox, refusals=refusals
        ) as client:
            first = [_look_at_version(client), _look_at_payload(client)] if at_site else []
            return [
                *first,
                *await look_at_device(client, operator, probe, refusals),
            ]
    except BusUnreachable as error:
        return [Finding("wrong", "a device is let in", _find_expired(probe) or error.message)]


def _find_expired(probe: Probe) -> str | None:
    """Return that the JWT of *probe* has expired, and what to do; None where it has not, or there is none."""
    expires_at_s = Claims.of(probe.jwt).expires_at_s if probe.jwt else None
    if expires_at_s is None or expires_at_s > time.time():
        return None
    since = rfc3339(datetime.fromtimestamp(expires_at_s, UTC))
    return (
        f"the JWT in the file of {probe.agent_id} has expired on {since}; harmony add-agent {probe.agent_id} "
        "--replace --out FILE makes a new one"
    )


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 4222
