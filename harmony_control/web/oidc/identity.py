"""Who somebody is here, by what the provider says of them: a name and a role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from harmony_control.web.users import User
from harmony_core.visible import cut, visible, word

from .faults import ProviderFault, SignInRefused
from .settings import OidcSettings

__all__ = ["find_claim", "identify"]

PREFIX = "oidc:"
"""No user of ``web-users.toml`` has such a name, so nobody passes for one."""
NAME_MOST = 64
_GROUPS_TOLD = 10


def identify(claims: Mapping[str, Any], settings: OidcSettings) -> User:
    """Return the user that *claims* speak of, with the greatest role that their groups give.

    `SignInRefused` for who has none; `ProviderFault` where there is no name.
    """
    name = f"{PREFIX}{_name_of(claims, settings)}"
    groups = _groups_of(find_claim(claims, settings.groups_claim))
    role = settings.roles.find(groups)
    if role is None:
        told = ", ".join(sorted(groups)[:_GROUPS_TOLD])
        named = f"its claim {settings.groups_claim} says: {cut(visible(told), 300)}"
        raise SignInRefused(
            f"{settings.name} knows you as {name}, and you have no role here; "
            f"{named if groups else f'it tells of no {settings.groups_claim}'}. "
            f"Whoever runs `harmony serve` says in web-oidc.toml which give a role"
        )
    return User(name=name, role=role, issuer=settings.name)


def find_claim(claims: Mapping[str, Any], path: str) -> object:
    """Return the claim of that name; else the one that *path* leads to, with a dot before each name that is
    within another; None for none.

    A dot may be part of a name, as in ``https://example.org/groups``, and of a client's id.
    """
    if path in claims:
        return claims[path]
    for at, letter in enumerate(path):
        if letter == "." and isinstance(outer := claims.get(path[:at]), dict):
            found = find_claim(cast("dict[str, Any]", outer), path[at + 1 :])
            if found is not None:
                return found
    return None


def _name_of(claims: Mapping[str, Any], settings: OidcSettings) -> str:
    claim = settings.username_claim
    found = claims.get(claim)
    if claim == "email" and claims.get("email_verified") is not True:
        raise ProviderFault(
            f"{settings.name} has not verified that e-mail address; verify it there, or have another "
            "username_claim in web-oidc.toml"
        )
    if not isinstance(found, str) or not _can_be_shown(found):
        raise ProviderFault(
            f"{settings.name} tells no name: the claim {claim} is missing, or cannot be one; have another "
            "username_claim in web-oidc.toml, or ask for the scope that brings it (scopes)"
        )
    return found


def _can_be_shown(name: str) -> bool:
    """Return whether *name* is short, and is read as what it is: it stands in what devices are told."""
    return 0 < len(name) <= NAME_MOST and name.isprintable() and word(name) == name


def _groups_of(found: object) -> frozenset[str]:
    match found:
        case str():
            return frozenset({found})
        case list():
            groups = cast("list[object]", found)
            return frozenset(each for each in groups if isinstance(each, str))
        case _:
            return frozenset()
