"""Which provider vouches for whom: the home's ``web-oidc.toml``, strict, beside ``web-users.toml``.

::

    name = "Example"
    issuer = "https://id.example.org"
    client_id = "harmony"
    client_secret_file = "web-oidc.secret"
    url = "https://harmony.example.org"

    [roles]
    operator = ["pi-operators"]
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_control.settings_file import (
    Table,
    Url,
    check_url,
    make_context,
    read_secret,
    read_tables,
    resolve_paths,
)
from harmony_control.store.home import Home
from harmony_control.web.users import ROLES, Role
from harmony_core.errors import ConfigError

__all__ = ["CALLBACK", "OidcSettings", "load_oidc_settings", "read_client_secret"]

CALLBACK = "/oidc/callback"
"""Where the provider sends a browser back to."""


def _check_issuer(text: str) -> str:
    parts = urlsplit(check_url(text))
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("an issuer has no user, no query and no fragment")
    return text


def _check_origin(text: str) -> str:
    parts = urlsplit(check_url(text))
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    if text.rstrip("/").lower() != origin or "@" in origin:
        raise ValueError("write it as https://HOST or https://HOST:PORT, with nothing behind")
    # As browsers write it.
    return origin.removesuffix(":443" if parts.scheme == "https" else ":80")


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be of letters that can be seen")
    return text


Line: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_printable)
]
Groups: TypeAlias = Annotated[tuple[Line, ...], Field(max_length=100)]


class RoleGroups(Table):
    """Which values of the claim give which role."""

    viewer: Groups = ()
    operator: Groups = ()
    approver: Groups = ()

    @model_validator(mode="after")
    def _give_some(self) -> Self:
        if not (self.viewer or self.operator or self.approver):
            raise ValueError('nobody would have a role; write, say, viewer = ["a group of theirs"]')
        return self

    def find(self, groups: frozenset[str]) -> Role | None:
        """Return the greatest role that one of *groups* gives; None for none."""
        given = {"viewer": self.viewer, "operator": self.operator, "approver": self.approver}
        return next((role for role in reversed(ROLES) if groups & {*given[role]}), None)


class OidcSettings(Table):
    """All of the file. Claims are named as Kubernetes names them."""

    name: Annotated[Line, StringConstraints(max_length=40)]
    """As people know it: "Sign in with …"."""
    issuer: Annotated[Url, AfterValidator(_check_issuer)]
    """Exactly as the provider itself writes it."""
    client_id: Line
    client_secret_file: Path
    url: Annotated[str, AfterValidator(_check_origin)]
    """Where browsers reach us."""
    ca_file: Path | None = None
    """An authority of one's own, whose certificate the provider has."""
    scopes: Annotated[tuple[Line, ...], Field(max_length=20)] = ("profile",)
    """What is asked for beside ``openid``."""
    username_claim: Line = "sub"
    groups_claim: Line = "groups"
    """It may be within another: ``realm_access.roles``."""
    roles: RoleGroups

    @property
    def callback(self) -> str:
        """The address that is registered at the provider."""
        return f"{self.url}{CALLBACK}"

    @property
    def scope(self) -> str:
        """What is asked for."""
        return " ".join(dict.fromkeys(("openid", *self.scopes)))


def load_oidc_settings(home: Home, *, is_https: bool) -> OidcSettings | None:
    """Return what the home's file says, with paths as seen from it; None where there is none.

    `ConfigError` says what to correct, also of the secret and the authority, and where ``url`` does not fit
    to how we are reached (*is_https*).
    """
    file = home.root / "web-oidc.toml"
    if not file.exists():
        return None
    settings = resolve_paths(read_tables(file, OidcSettings), home.root)
    read_client_secret(settings)
    make_context(settings.ca_file)
    if settings.url.startswith("https:") and not is_https:
        raise ConfigError(
            f"{file}: url is https, and browsers would reach this in clear; give --tls-cert and --tls-key, "
            "or --behind-proxy"
        )
    if is_https and not settings.url.startswith("https:"):
        raise ConfigError(f"{file}: url is http, and this is reached by https; write https://…")
    return settings


def read_client_secret(settings: OidcSettings) -> str:
    """Return the client's secret; it may be changed at any time. `ConfigError` where others can read it."""
    file = settings.client_secret_file
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror}; write the client's secret there, as the provider gave it"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read {file}, so it may be known; run `chmod 600 {file}`")
    return read_secret(file, least=1)
