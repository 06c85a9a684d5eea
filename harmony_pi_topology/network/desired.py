"""What a `NetworkProfile` wishes for: settings by NetworkManager's names, and the values of its secrets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Self
from uuid import UUID, uuid5

import attrs

from harmony_core.errors import InvalidResource
from harmony_core.resources import (
    Ipv4,
    Ipv4Route,
    Ipv6,
    Ipv6Route,
    NetworkProfile,
    SecretRef,
    check_wireguard_key,
)

from .link_settings import find_secrets, settings_of_link
from .settings import (
    BARE,
    EAP_PASSWORD,
    EAP_PRIVATE_KEY_PASSWORD,
    LIVE,
    PRIVATE_KEY,
    PSK,
    Secrets,
    Setting,
    Settings,
)
from .wireguard import find_public_key

__all__ = [
    "DesiredProfile",
    "SecretContent",
    "bare",
    "own_key_of",
    "profile_uuid",
    "resolve_desired",
]

_NAMESPACE: Final = UUID("b0d5e9d2-51a5-4a5e-9a35-6d1a3f0b7c11")
_NEWER: Final = frozenset({("802-11-wireless.mode", "infrastructure")})
"""What goes without saying, and once was not said: what was confirmed then is confirmed still."""
_LAST: Final = -999
"""The least priority that there is."""
_HEX_KEY: Final = re.compile("[0-9a-fA-F]{64}")
"""The key itself that is else made of a Wi-Fi password."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


def _is_wifi_password(text: str) -> bool:
    if _HEX_KEY.fullmatch(text):
        return True
    return 8 <= len(text.encode()) <= 63 and not _CONTROLS.search(text)


def _is_line(text: str) -> bool:
    return bool(text) and text.isprintable()


def _is_key(text: str) -> bool:
    try:
        return check_wireguard_key(text) == text
    except ValueError:
        return False


@attrs.frozen
class _Rule:
    """What the content of a secret has to be."""

    field: str
    """Where the profile names it."""
    what: str
    fits: Callable[[str], bool]


_RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        PSK: _Rule(
            "link.psk",
            "Wi-Fi password, which has 8 to 63 characters, or 64 hexadecimal digits",
            _is_wifi_password,
        ),
        EAP_PASSWORD: _Rule("link.enterprise.password", "password, which is one line", _is_line),
        EAP_PRIVATE_KEY_PASSWORD: _Rule(
            "link.enterprise.private_key_password",
            "password, which is one line",
            _is_line,
        ),
        PRIVATE_KEY: _Rule("link.private_key", "WireGuard key, as wg genkey makes it", _is_key),
    }
)


@attrs.frozen(kw_only=True)
class SecretContent:
    """What is in a secret."""

    content: bytes = attrs.field(repr=False)
    mark: str
    """By which it is told from another."""


@attrs.frozen(kw_only=True)
class DesiredProfile:
    """A `NetworkProfile` whose secrets are known."""

    profile: NetworkProfile
    settings: Settings
    secrets: Secrets = attrs.field(factory=dict[str, str | None], repr=False)
    marks: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """By which each secret that is given to it is told from another, by NetworkManager's names."""

    @property
    def spec(self) -> str:
        """Hex SHA-256 of the settings that an interface takes on, without the secrets.

        It answers whether this was confirmed.
        """
        known = {name: value for name, value in self.live.items() if (name, value) not in _NEWER}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    @property
    def attempt(self) -> str:
        """Hex SHA-256 of `spec` with the marks of its secrets. It answers whether this was tried."""
        if not self.marks:
            return self.spec
        marked = json.dumps([self.spec, self.marks], sort_keys=True)
        return hashlib.sha256(marked.encode()).hexdigest()

    @property
    def on_trial(self) -> Settings:
        """The settings while it is not confirmed: nothing activates the profile by itself once it was rolled
        back."""
        return {**self.settings, "connection.autoconnect": False}

    @property
    def unproven(self) -> Settings:
        """The settings on disk while the device was never reached through it: the profile replaces no other
        by itself.

        A Wi-Fi network may be the only one where the device is taken next, so it is used where there is no
        other.
        """
        if self.profile.may_be_out_of_range:
            return {**self.settings, "connection.autoconnect-priority": _LAST}
        return self.on_trial

    @property
    def public_key(self) -> str | None:
        """The public key of a WireGuard link whose private key is known."""
        private_key = self.secrets.get(PRIVATE_KEY)
        return None if private_key is None else find_public_key(private_key)

    def with_own_key(self, content: bytes) -> Self:
        """Return the same profile with the private key that the device has made for it."""
        key = _read_secret(self.profile, PRIVATE_KEY, content, None)
        return attrs.evolve(self, secrets={PRIVATE_KEY: key, **self.secrets})

    @property
    def live(self) -> Settings:
        """The settings that an interface with this profile takes on."""
        return {name: value for name, value in self.settings.items() if name in LIVE}


def profile_uuid(name: str) -> str:
    """Return the UUID of the profile that is made under *name*: the same on every device."""
    return str(uuid5(_NAMESPACE, name))


def resolve_desired(
    profile: NetworkProfile, contents: Mapping[str, SecretContent]
) -> DesiredProfile:
    """Return *profile* with the *contents* of its secrets, by NetworkManager's names.

    Raise `InvalidResource` for a secret that is not valid.
    """
    settings: dict[str, Setting] = {
        "connection.autoconnect": profile.autoconnect,
        "connection.autoconnect-priority": profile.priority,
        **dict(settings_of_link(profile.link)),
    }
    for family, ip in (("ipv4", profile.ipv4), ("ipv6", profile.ipv6)):
        if ip is not None:
            settings.update({f"{family}.{name}": value for name, value in _of_ip(ip)})
    secrets = {
        name: _read_secret(profile, name, contents[name].content, given)
        if name in contents
        else None
        for name, given in find_secrets(profile.link).items()
    }
    marks = {name: each.mark for name, each in contents.items()}
    return DesiredProfile(profile=profile, settings=settings, secrets=secrets, marks=marks)


def bare(desired: DesiredProfile) -> Settings:
    """Return the settings of the same interface without any address, which can be activated without harm."""
    links = {name: value for name, value in desired.on_trial.items() if not name.startswith("ipv")}
    # Where peers are, everything may be sent to them.
    alone: Settings = {name: () for name in ("wireguard.peers",) if name in links}
    return {**links, **BARE, **alone}


def own_key_of(name: str) -> str:
    """Return the name, among the device's secrets, of the key that it makes for the profile *name*."""
    return f"wireguard.{profile_uuid(name)}"


def _of_ip(ip: Ipv4 | Ipv6) -> Iterator[tuple[str, Setting]]:
    given: dict[str, Setting | None] = {
        "method": ip.method,
        "addresses": ip.addresses,
        "gateway": ip.gateway,
        "routes": None if ip.routes is None else tuple(map(_of_route, ip.routes)),
        "dns": ip.dns,
        "dns-search": ip.dns_search,
        "route-metric": ip.metric,
        "never-default": None if ip.default_route is None else not ip.default_route,
        "ignore-auto-dns": ip.ignore_auto_dns,
    }
    return ((name, value) for name, value in given.items() if value is not None)


def _of_route(route: Ipv4Route | Ipv6Route) -> str:
    """Return the route as nmcli writes it: ``10.0.0.0/8 192.168.7.1 50``."""
    parts = (route.to, route.via, None if route.metric is None else str(route.metric))
    return " ".join(part for part in parts if part is not None)


_OF_PEERS: Final = _Rule(
    "link.peers.preshared_key", "WireGuard key, as wg genpsk makes it", _is_key
)


def _read_secret(
    profile: NetworkProfile, name: str, content: bytes, given: SecretRef | str | None
) -> str:
    """Return the text of a secret, without the newline that a text file may have at its end."""
    rule = _RULES.get(name, _OF_PEERS)
    try:
        text = content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        text = ""
    if not rule.fits(text):
        remedy = (
            "set the right one (harmony secret set), and push again"
            if isinstance(given, str)
            else "put the right one into the device's secrets directory"
        )
        raise InvalidResource(
            f"the secret that {rule.field} names is no {rule.what}; {remedy}", resource=profile.id
        )
    return text
