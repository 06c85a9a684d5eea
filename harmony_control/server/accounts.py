"""The accounts of a fleet as JWTs: the layout of `.config`, signed, for a server whose users have JWTs.

    operator  signs  SYS, CTRL, LOOK, DOOR, FLEET-…    nats.conf knows the operator, and SYS
    account   has a key that signs its users, and the rights of them all as one template

A JWT has at most 1 MiB, and an account's has a line for each device, by which what is sent to it comes into
its mailbox: so a fleet has a largest size here.

The rights of a user stand in the account, not in the user's JWT: a new version of Harmony changes them all at
once. Who is revoked stands there too: whoever was given a JWT, and is not to be let in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from harmony_control.store.home import Enrolled, Home
from harmony_control.store.issuers import (
    FLEETS,
    Issued,
    Issuers,
    note_issued,
    read_issuers,
)
from harmony_control.store.nkey import Issuer
from harmony_control.store.sites import SITE_ACCOUNT, Site
from harmony_core.errors import ConfigError
from harmony_core.wire.names import RENEW_SUBJECT

from .config import (
    MAX_PAYLOAD_BYTES,
    MAX_SUBSCRIPTIONS,
    SITE_MAX_SUBSCRIPTIONS,
    Permissions,
    ServerConfig,
    describe_accounts,
    device_permissions,
    fleet_of,
    invited_permissions,
    reader_permissions,
)
from .jwt import encode

__all__ = [
    "ACCOUNT_MAX_BYTES",
    "FOR_EVER",
    "encode_accounts",
    "encode_operator",
    "encode_system_account",
    "encode_system_user",
    "issue_device",
    "issue_invited",
    "issue_operator",
    "issue_reader",
    "issue_site",
    "sign_for_nobody",
    "wanted_users",
]

ACCOUNT_MAX_BYTES = 1_024**2
"""NATS takes no longer JWT."""
FOR_EVER = 2**53 - 1
"""Whatever was issued before this second is revoked."""
_Layout: TypeAlias = Mapping[str, Mapping[str, object]]
_NO_DEFAULTS: Mapping[str, object] = {"pub": {}, "sub": {}}
_UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
_RENEW = f"{RENEW_SUBJECT}.*"
_DEVICE = device_permissions("{{name()}}", "{{tag(mailbox)}}")
_DEVICE["publish"]["allow"].append(f"{RENEW_SUBJECT}.{{{{name()}}}}")
_TEMPLATES: Mapping[str, Permissions | None] = {
    "CTRL": None,
    **dict.fromkeys(FLEETS, _DEVICE),
    "LOOK": reader_permissions("{{subject()}}"),
    "DOOR": invited_permissions("{{subject()}}"),
}
"""What every user of an account may do; the server puts in name, tag or key. None is everything."""


def wanted_users(config: ServerConfig) -> dict[str, set[str]]:
    """Return the keys to be accepted, by account."""
    return {
        "CTRL": {config.admin, *config.operators.values()},
        "LOOK": set(config.readers.values()),
        "DOOR": set(config.invitations),
        **{
            name: {each.nkey for each in agents.values()}
            for name, agents in config.spread().items()
        },
        **{each.account_name: {each.key.public} for each in config.sites.by_name.values()},
    }


def _describe(config: ServerConfig) -> _Layout:
    """Return what each account has, as in the nats.conf of static keys. In addition, a device may request
    another JWT."""
    found = describe_accounts(config)
    renewal = {"service": {"account": "CTRL", "subject": _RENEW}}
    for name in FLEETS:
        found[name]["imports"] = [renewal, *_rows(found[name], "imports")]
    found["CTRL"]["exports"] = [{"service": _RENEW}, *_rows(found["CTRL"], "exports")]
    return found


def encode_operator(issuers: Issuers, fleet: str) -> str:
    """Return the JWT of the operator, which tells the server whose accounts count."""
    claims = {"system_account": issuers.accounts["SYS"].identity.public}
    return encode(
        issuers.operator,
        issuers.operator.public,
        f"harmony-{fleet}",
        "operator",
        claims,
        issued_at_s=issuers.made_at_s,
    )


def encode_system_account(issuers: Issuers) -> str:
    """Return the JWT of the account in which the server gets the others."""
    claims = {"limits": _limits("SYS", {}), "default_permissions": _NO_DEFAULTS}
    return encode(
        issuers.operator,
        issuers.accounts["SYS"].identity.public,
        "SYS",
        "account",
        claims,
        issued_at_s=issuers.made_at_s,
    )


def encode_system_user(issuers: Issuers, nkey: str, inbox: str) -> str:
    """Return the JWT that lets the key *nkey* tell the server of accounts; that, and nothing else."""
    claims = {
        "pub": {"allow": ["$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"]},
        "sub": {"allow": [f"{inbox}.>"]},
        **_UNLIMITED,
    }
    system = issuers.accounts["SYS"].identity
    return encode(system, nkey, "harmony", "user", claims, issued_at_s=issuers.made_at_s)


def sign_for_nobody(nkey: str) -> str:
    """Return a JWT that lets *nkey* do everything, from an operator whom no server knows."""
    account = Issuer.new("account")
    return encode(account, nkey, "nobody", "user", _UNLIMITED, issued_at_s=int(time.time()))


def encode_accounts(
    issuers: Issuers,
    config: ServerConfig,
    issued: Iterable[Issued],
    *,
    revoked_there: Mapping[str, Iterable[str]],
    issued_at_s: int,
) -> dict[str, str]:
    """Return the JWT of each account but SYS. Raise `ConfigError` where one is too large for a server.

    A key is revoked if it was *issued* a JWT, or is *revoked_there* on the server already, and is not wanted:
    so a home that was restored from a backup accepts nobody again who was revoked meanwhile.
    """
    wanted = wanted_users(config)
    layout = _describe(config)
    templates = _describe_templates(config)
    accounts: dict[str, str] = {}
    for name, table in layout.items():
        unwanted = {each.nkey for each in issued if each.account == name} - wanted[name]
        unwanted |= set(revoked_there.get(name, ())) - wanted[name]
        claims: dict[str, object] = {
            "limits": _limits(name, table),
            "default_permissions": _NO_DEFAULTS,
            "signing_keys": [_signing_key(issuers, name, templates[name])],
            "exports": [_export(each) for each in _rows(table, "exports")],
            "imports": list(_imports(issuers, name, layout)),
            "revocations": dict.fromkeys(sorted(unwanted), FOR_EVER),
        }
        accounts[name] = encode(
            issuers.operator,
            issuers.accounts[name].identity.public,
            name,
            "account",
            claims,
            issued_at_s=issued_at_s,
        )
        if len(accounts[name]) > ACCOUNT_MAX_BYTES:
            remedy = (
                "this site has too many devices; make two of it"
                if name.startswith(SITE_ACCOUNT)
                else "this fleet is too large for JWTs; use a server of static keys"
            )
            raise ConfigError(
                f"the JWT of the account {name} would have {len(accounts[name]):,} bytes, and NATS takes "
                f"{ACCOUNT_MAX_BYTES:,}: {remedy}"
            )
    return accounts


def _rows(table: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", table.get(name, []))


def _limits(name: str, table: Mapping[str, object]) -> dict[str, object]:
    stored = -1 if name == "CTRL" else 0
    limits = cast("Mapping[str, int]", table.get("limits", {}))
    return {
        **_UNLIMITED,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": limits.get("max_connections", -1),
        "leaf": -1 if name.startswith(SITE_ACCOUNT) else 0,
        "mem_storage": stored,
        "disk_storage": stored,
        "streams": stored,
        "consumer": stored,
    }


def _describe_templates(config: ServerConfig) -> dict[str, dict[str, object]]:
    """Return what every user of an account may do, and how much, by account."""
    limits: dict[str, object] = {**_UNLIMITED, "payload": MAX_PAYLOAD_BYTES}
    sites = [each.account_name for each in config.sites.by_name.values()]
    if config.sites.hubs:
        # The server itself grants as many as a site needs. Whose template changes is cut off, once: so a
        # fleet that never had a site keeps those that it had.
        limits["subs"] = MAX_SUBSCRIPTIONS
    found = dict[str, dict[str, object]]()
    for name, each in {**_TEMPLATES, **dict.fromkeys(sites)}.items():
        rights = {} if each is None else {"pub": each["publish"], "sub": each["subscribe"]}
        found[name] = {**limits, **rights}
    of_site = {"subs": SITE_MAX_SUBSCRIPTIONS, "allowed_connection_types": ["LEAFNODE"]}
    return found | {name: found[name] | of_site for name in sites}


def _signing_key(issuers: Issuers, name: str, template: Mapping[str, object]) -> dict[str, object]:
    key = issuers.accounts[name].signing.public
    return {"kind": "user_scope", "key": key, "role": name, "template": template}


def _export(row: Mapping[str, object]) -> dict[str, object]:
    kind = _kind(row)
    made: dict[str, object] = {
        "name": row[kind],
        "subject": row[kind],
        "type": kind,
        # As `accounts` in nats.conf: who imports it shows that it may.
        "token_req": True,
    }
    if row.get("response_type") == "stream":
        made["response_type"] = "Stream"
    return made


def _imports(issuers: Issuers, name: str, layout: _Layout) -> Iterator[dict[str, object]]:
    """Yield what *name* imports, each with the token by which the exporter allows it."""
    tokens: dict[str, str] = {}
    for row in _rows(layout[name], "imports"):
        kind = _kind(row)
        origin = cast("Mapping[str, str]", row[kind])
        exporter = origin["account"]
        (exported,) = (
            str(each[kind])
            for each in _rows(layout[exporter], "exports")
            if kind in each and _covers(str(each[kind]), origin["subject"])
        )
        if exported not in tokens:
            tokens[exported] = _encode_activation(issuers, exporter, name, kind, exported)
        yield {
            "subject": origin["subject"],
            "account": issuers.accounts[exporter].identity.public,
            "token": tokens[exported],
            "type": kind,
            **({"local_subject": row["to"]} if "to" in row else {}),
        }


def _encode_activation(
    issuers: Issuers, exporter: str, importer: str, kind: str, subject: str
) -> str:
    return encode(
        issuers.accounts[exporter].identity,
        issuers.accounts[importer].identity.public,
        subject,
        "activation",
        {"subject": subject, "kind": kind},
        issued_at_s=issuers.made_at_s,
    )


def _kind(row: Mapping[str, object]) -> str:
    return "service" if "service" in row else "stream"


def _covers(pattern: str, subject: str) -> bool:
    """Return whether all that *subject* matches is part of *pattern*."""
    wide, narrow = pattern.split("."), subject.split(".")
    if wide[-1] == ">":
        wide.pop()
        narrow, rest = narrow[: len(wide)], narrow[len(wide) :]
        if not rest:
            return False
    return len(wide) == len(narrow) and all(
        each in {"*", other} and other != ">" for each, other in zip(wide, narrow, strict=True)
    )


def issue_operator(home: Home, nkey: str, name: str) -> str | None:
    """Return the JWT that lets the operator of that key in; None where keys alone do.

    Call this, and the four below, while ``home.editing()`` is held.
    """
    return _issue(home, "CTRL", nkey, name)


def issue_reader(home: Home, nkey: str, name: str) -> str | None:
    """Return the same for an operator who may only read."""
    return _issue(home, "LOOK", nkey, name)


def issue_device(home: Home, agent_id: str, device: Enrolled) -> str | None:
    """Return the same for a device; None for one of a site, whose server knows keys.

    Unless the export said otherwise, it does not expire: a device that was away for years must be able to
    come back.
    """
    if device.site is not None:
        return None
    issuers = read_issuers(home)
    life_s = issuers.device_life_s if issuers else None
    return _issue(
        home,
        fleet_of(device.nkey),
        device.nkey,
        agent_id,
        tags=[f"mailbox:{device.mailbox}"],
        expires_at_s=int(time.time()) + life_s if life_s else None,
    )


def issue_site(home: Home, site: Site) -> str:
    """Return the same for the server of a site. Raise `ConfigError` where keys alone let users in."""
    jwt = _issue(home, site.account_name, site.key.public, site.name)
    if jwt is None:
        raise ConfigError(
            f"{home.issuers_json} is gone, and there are sites; put back a copy of it"
        )
    return jwt


def issue_invited(home: Home, nkey: str, expires_at_s: int) -> str | None:
    """Return the same for the holder of an invitation."""
    return _issue(home, "DOOR", nkey, nkey, expires_at_s=expires_at_s)


def _issue(
    home: Home,
    account: str,
    nkey: str,
    name: str,
    *,
    tags: Sequence[str] = (),
    expires_at_s: int | None = None,
) -> str | None:
    issuers = read_issuers(home)
    if issuers is None:
        return None
    note_issued(home, Issued(account, nkey, expires_at_s))
    claims: dict[str, object] = {"issuer_account": issuers.accounts[account].identity.public}
    if tags:
        claims["tags"] = list(tags)
    return encode(
        issuers.accounts[account].signing,
        nkey,
        name,
        "user",
        claims,
        issued_at_s=int(time.time()),
        expires_at_s=expires_at_s,
    )
