"""The keys that sign JWTs, for a NATS server of one's own, and to whom one was given.

    server/issuers.json    the operator's key, and two of each account: who it is, and who signs its users
    server/issued.json     to which user keys of which account a JWT was given

A JWT cannot be taken back: who is to be let in no more is named in its account. So it is written down before
it is given away, and what is written down there stays until it has expired.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import cast

import attrs

from harmony_core.errors import ConfigError

from .home import Home, read_if_there, write_json
from .nkey import AccountKeys, Issuer
from .sites import SITE_ACCOUNT, read_sites

__all__ = [
    "ACCOUNTS",
    "FLEETS",
    "Issued",
    "Issuers",
    "create_issuers",
    "note_issued",
    "read_issued",
    "read_issuers",
    "save_issuers",
]

FLEETS = tuple(f"FLEET-{number:02}" for number in range(16))
"""The accounts of devices. An account's JWT names each of its devices, and has at most 1 MiB; and a server of
static keys compares, at each reload, each import of an account with all others of that account."""
ACCOUNTS = ("SYS", "CTRL", "LOOK", "DOOR", *FLEETS)


@attrs.frozen(kw_only=True)
class Issuers:
    """All keys that sign JWTs."""

    operator: Issuer
    accounts: Mapping[str, AccountKeys]
    """By the name, one of `ACCOUNTS`, or of a site."""
    made_at_s: int
    """In seconds since 1970; what never changes is signed as of then."""
    device_life_s: int | None = None
    """For how long the JWT of a device lets it in; None is for ever."""


@attrs.frozen
class Issued:
    """That a user of *account* was given a JWT."""

    account: str
    nkey: str
    expires_at_s: int | None
    """None where it lets in for ever, unless it is revoked."""


def create_issuers(home: Home) -> Issuers:
    """Make the keys, unless they are there. Return them. To be called while ``home.editing()`` is held."""
    if (found := read_issuers(home)) is not None:
        return found
    made = Issuers(
        operator=Issuer.new("operator"),
        accounts={
            name: AccountKeys(Issuer.new("account"), Issuer.new("account")) for name in ACCOUNTS
        },
        made_at_s=int(time.time()),
    )
    save_issuers(home, made)
    return made


def save_issuers(home: Home, issuers: Issuers) -> None:
    keys = {
        name: [each.identity.seed, each.signing.seed]
        for name, each in issuers.accounts.items()
        if name in ACCOUNTS
    }
    write_json(
        home.issuers_json,
        {
            "operator": issuers.operator.seed,
            "made_at_s": issuers.made_at_s,
            "device_life_s": issuers.device_life_s,
            **keys,
        },
    )


def read_issuers(home: Home) -> Issuers | None:
    """Return the keys; None where the users of this fleet's server have no JWTs. `ConfigError` if damaged."""
    found = read_if_there(home.issuers_json)
    if found is None:
        return None
    try:
        table = json.loads(found)
        accounts: dict[str, AccountKeys] = {}
        for name in ACCOUNTS:
            identity, signing = table[name]
            accounts[name] = AccountKeys(Issuer.of_seed(identity), Issuer.of_seed(signing))
        sites = read_sites(home).by_name.values()
        accounts |= {each.account_name: each.account for each in sites}
        return Issuers(
            operator=Issuer.of_seed(table["operator"]),
            accounts=accounts,
            made_at_s=int(table["made_at_s"]),
            device_life_s=table["device_life_s"] and int(table["device_life_s"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"{home.issuers_json} is damaged ({error}); put back a copy of it: without these keys nobody can "
            "be let in or revoked any more"
        ) from error


def read_issued(home: Home) -> list[Issued]:
    """Return who was given a JWT that may still let in. `ConfigError`."""
    found = read_if_there(home.issued_json)
    try:
        table = cast("dict[str, list[object]]", json.loads(found)) if found is not None else {}
        return [_issued_of(key, each) for key, each in table.items()]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{home.issued_json} is damaged ({error}); put back a copy of it, or whoever was revoked since "
            "is let in again"
        ) from error


def _issued_of(key: str, entry: list[object]) -> Issued:
    account, _, nkey = key.partition(":")
    (expires_at_s,) = entry
    is_known = account in ACCOUNTS or account.startswith(SITE_ACCOUNT)
    if not is_known or not isinstance(expires_at_s, int | None):
        raise ValueError(f"{key!r} is no user of an account")
    return Issued(account, nkey, expires_at_s)


def note_issued(home: Home, issued: Issued) -> None:
    """Remember *issued*. To be called before it is given away, while ``home.editing()`` is held."""
    now_s = time.time()
    kept: dict[tuple[str, str], Issued] = {}
    # Of two that one key was given, that which lets in longer is last.
    for each in sorted(
        (*read_issued(home), issued), key=lambda each: each.expires_at_s or math.inf
    ):
        if each.expires_at_s is None or each.expires_at_s > now_s:
            kept[each.account, each.nkey] = each
    write_json(
        home.issued_json,
        {f"{each.account}:{each.nkey}": [each.expires_at_s] for each in kept.values()},
    )
