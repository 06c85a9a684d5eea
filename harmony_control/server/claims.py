"""Tells a NATS server, whose users are an operator's, of the fleet's accounts: who is in, who is revoked.

The server keeps what it was told (`resolver` in nats.conf), and has it after a restart. What it has already
is not told again: the server looks anew at each account that it is told of, with all its connections.

Each server of a cluster has to say that it has taken it: else somebody may still be connected there who was
revoked. One that is not reached is not waited for: it asks the others when it is back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.client import Client

from harmony_control.bus.connection import bus_errors, close, connect, server_id
from harmony_control.bus_url import split_url
from harmony_control.store.home import Home
from harmony_control.store.issuers import (
    Issuers,
    read_issued,
    read_issuers,
)
from harmony_control.store.nkey import Nkey
from harmony_core.errors import BusUnreachable, ConfigError, StoreError
from harmony_core.wire.jwt import decode_jwt

from .accounts import encode_accounts, encode_system_user
from .config import ServerConfig

__all__ = ["find_stale_accounts", "update_accounts"]

_ANSWERS_WITHIN_S = 10.0


def update_accounts(home: Home, config: ServerConfig) -> None:
    """Have the server at the home's address use *config* when this returns: who is revoked is disconnected.

    Raise `BusUnreachable`, `StoreError`; then it may use a part of it, and this may be repeated.
    """
    # In a thread of its own: who calls this may be in a loop that runs.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(asyncio.run, _update(home, config)).result()


async def _update(home: Home, config: ServerConfig) -> None:
    issuers = _issuers_of(home)
    urls = split_url((await asyncio.to_thread(home.control)).url)
    async with _system(home, issuers) as client:
        stale = await _find_stale(home, issuers, config, client)
        servers = (
            await _find_servers(home, issuers, urls) if stale and len(urls) > 1 else set[str]()
        )
        for name, token in stale.items():
            await _tell(client, name, token, servers or {server_id(client)})


async def _find_servers(home: Home, issuers: Issuers, urls: Iterable[str]) -> set[str]:
    """Return the ids of those of the servers that are reached."""
    found: set[str] = set()
    for url in urls:
        with suppress(BusUnreachable):
            async with _system(home, issuers, url) as client:
                found.add(server_id(client))
    return found


async def _tell(client: Client, name: str, token: str, servers: AbstractSet[str]) -> None:
    """Return once each of *servers* has accepted *token* of the account *name*; more may answer."""
    waited_for = set(servers)
    inbox = client.new_inbox()
    with bus_errors(f"telling the server of the account {name}"):
        answers = await client.subscribe(inbox)  # pyright: ignore[reportUnknownMemberType] - nats-py's own
        await client.publish("$SYS.REQ.CLAIMS.UPDATE", token.encode(), reply=inbox)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                while waited_for:
                    answer = json.loads((await answers.next_msg(_ANSWERS_WITHIN_S)).data)
                    _raise_if_refused(name, answer)
                    waited_for.discard(answer.get("server", {}).get("id"))
        finally:
            await answers.unsubscribe()


async def find_stale_accounts(home: Home, config: ServerConfig) -> list[str]:
    """Return the accounts for which the server at the home's address knows something else than *config*
    says."""
    issuers = await asyncio.to_thread(_issuers_of, home)
    async with _system(home, issuers) as client:
        return list(await _find_stale(home, issuers, config, client))


def _issuers_of(home: Home) -> Issuers:
    issuers = read_issuers(home)
    if issuers is None:
        raise ConfigError(
            f"{home.root} issues no JWTs; `harmony server --export DIR --jwt` begins with it"
        )
    return issuers


async def _find_stale(
    home: Home, issuers: Issuers, config: ServerConfig, client: Client
) -> dict[str, str]:
    """Return what the server must be told, by account."""
    there = {
        name: await _look_up(client, keys.identity.public)
        for name, keys in issuers.accounts.items()
        if name != "SYS"
    }
    issued = await asyncio.to_thread(read_issued, home)
    # Newer than what stands there: a server of a cluster that was away takes no other from the rest of them.
    latest_s = max((each["iat"] for each in there.values() if each), default=0)
    wanted = encode_accounts(
        issuers,
        config,
        issued,
        revoked_there={
            name: found["nats"].get("revocations", {}) for name, found in there.items() if found
        },
        issued_at_s=max(int(time.time()), latest_s + 1),
    )
    return {
        name: token
        for name, token in wanted.items()
        if _without_issue(decode_jwt(token)) != _without_issue(there[name])
    }


def _without_issue(claims: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: each for name, each in (claims or {}).items() if name not in {"iat", "jti"}}


async def _look_up(client: Client, account: str) -> dict[str, Any] | None:
    """Return what the server knows of *account*; None where it knows nothing."""
    with bus_errors("asking the server for its accounts"):
        answer = await client.request(
            f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"", timeout=_ANSWERS_WITHIN_S
        )
    try:
        return decode_jwt(answer.data.decode()) if answer.data else None
    except ValueError as error:
        raise StoreError(f"what the server says of the account {account} is no JWT") from error


def _raise_if_refused(name: str, answer: Mapping[str, Any]) -> None:
    if answer.get("data", {}).get("code") != 200:
        said = answer.get("error", {}).get("description", "it does not say why")
        raise StoreError(
            f"the server did not take the account {name}: {said}; does it run by what `harmony server "
            "--export` has written?"
        )


@asynccontextmanager
async def _system(home: Home, issuers: Issuers, url: str | None = None) -> AsyncGenerator[Client]:
    """Connect as the user who may tell the server about accounts, with a key that is forgotten after the
    block."""
    config = await asyncio.to_thread(home.control)
    key = Nkey.new()
    inbox = f"_INBOX_{key.public}"
    client = await connect(
        url or config.url,
        seed=key.seed,
        jwt=encode_system_user(issuers, key.public, inbox),
        authority=await asyncio.to_thread(home.read_authority, config),
        server_name=config.server_name,
        inbox=inbox,
    )
    try:
        yield client
    finally:
        await close(client)
