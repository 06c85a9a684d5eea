"""The sites that have a server of their own: a leaf node of the fleet's.

server/sites/sites.json    each site, and where the fleet's servers wait for those of sites
server/sites/ca.pem, …     the authority by which servers of sites and the fleet's know one another
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import attrs

from harmony_core.errors import ConfigError
from harmony_core.wire.names import is_id

from .home import Home, read_if_there, write_json
from .nkey import AccountKeys, Issuer, Nkey

__all__ = [
    "SITE_ACCOUNT",
    "Site",
    "Sites",
    "new_site",
    "read_site_authority",
    "read_sites",
    "save_sites",
]

SITE_ACCOUNT = "SITE-"
"""So begins the name of each account that is a site's, on the fleet's server."""


@attrs.frozen
class Site:
    """One site, and with what its server proves to the fleet's that it is of that site."""

    name: str
    at: str
    """HOST:PORT, as the site's devices reach its server."""
    key: Nkey
    account: AccountKeys
    """Of the site's account, for a fleet whose server has its accounts as JWTs."""

    @property
    def account_name(self) -> str:
        """What the account is called in which the site is, on the fleet's server."""
        return f"{SITE_ACCOUNT}{self.name}"

    @property
    def server_name(self) -> str:
        """The name in the certificate that the site's server shows to its devices: no address."""
        return f"harmony-site-{self.name}"


@attrs.frozen
class Sites:
    """All sites of a fleet."""

    hubs: Sequence[str] = ()
    """HOST:PORT of each of the fleet's servers, as servers of sites reach it; none before the first site."""
    by_name: Mapping[str, Site] = attrs.field(factory=dict[str, Site])

    def named(self, name: str) -> Site:
        """Return that site. `ConfigError` where there is none."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise ConfigError(
                f"there is no site {name!r} (known: {known}); `harmony server --export DIR --leaf "
                f"{name}=HOST:PORT` makes it"
            )
        return self.by_name[name]


def new_site(name: str, at: str) -> Site:
    """Return a site with keys of its own."""
    account = AccountKeys(Issuer.new("account"), Issuer.new("account"))
    return Site(name, at, Nkey.new(), account)


def read_sites(home: Home) -> Sites:
    """Return the sites. `ConfigError` where what is written down is damaged."""
    found = read_if_there(home.sites_json)
    if found is None:
        return Sites()
    try:
        table = json.loads(found)
        sites = {str(name): _site_of(str(name), each) for name, each in table["sites"].items()}
        return Sites([str(each) for each in table["hubs"]], sites)
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"{home.sites_json} is damaged ({error}); put back a copy of it, or delete it, make each site "
            "anew, and let its devices in again"
        ) from error


def _site_of(name: str, table: Mapping[str, object]) -> Site:
    if not is_id(name):
        raise ValueError(f"{name!r} is not a site's name")
    account = AccountKeys(
        Issuer.of_seed(str(table["account"])), Issuer.of_seed(str(table["signs"]))
    )
    return Site(name, str(table["at"]), Nkey.of_seed(str(table["seed"])), account)


def read_site_authority(home: Home) -> str:
    """Return the certificate of who vouches for the servers of sites, in PEM. `ConfigError`."""
    path = home.sites / "ca.pem"
    if (found := read_if_there(path)) is None:
        raise ConfigError(f"there is no {path}; `harmony server --export DIR` makes it")
    return found.decode("utf-8", "replace")


def save_sites(home: Home, sites: Sites) -> None:
    write_json(
        home.sites_json,
        {
            "hubs": list(sites.hubs),
            "sites": {
                name: {
                    "at": each.at,
                    "seed": each.key.seed,
                    "account": each.account.identity.seed,
                    "signs": each.account.signing.seed,
                }
                for name, each in sorted(sites.by_name.items())
            },
        },
    )
