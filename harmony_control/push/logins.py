"""Logins at registries, as Scores name them, with the values of this operator's secrets.

    image and login, side by side in a Score -> each secret, opened here -> who asks the registry
                                                or why it cannot be, which is told where one is wanted

So whoever looks a tag up, or fetches an image, asks as the device will. What only the device knows (labels)
is in no login here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs
from pydantic import BaseModel, ValidationError

from harmony_control.registry import Login
from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import HarmonyError, ImageNotFound, RegistryUnreachable, UsageError
from harmony_core.references import Reference, has_references, replace_references
from harmony_core.resources import RegistryLogin

__all__ = ["IMAGE_FIELD", "NO_LOGIN", "OpenedLogin", "find_login", "open_login", "refuse_image"]

IMAGE_FIELD = "image"
"""The field with the image whose registry a `login` in the same object is for."""


@attrs.frozen(kw_only=True)
class OpenedLogin:
    """What there is of a Score's login."""

    login: Login | None = None
    why_none: str = ""
    """Why there is none, where the Score names one."""


NO_LOGIN = OpenedLogin()
"""Of an image without a login."""


def find_login(fields: Mapping[str, object] | BaseModel) -> RegistryLogin | None:
    """Return the login beside the image in *fields*, of a Score or in the form of a manifest; None where
    there is none."""
    found = getattr(fields, "login", None) if isinstance(fields, BaseModel) else fields.get("login")
    if isinstance(found, RegistryLogin):
        return found
    if isinstance(fields, BaseModel) or not isinstance(found, Mapping):
        return None
    try:
        return RegistryLogin.model_validate(dict(cast("Mapping[str, object]", found)))
    except ValidationError:
        return None  # of another kind of thing


def open_login(secrets: FleetSecrets, login: RegistryLogin | None) -> OpenedLogin:
    """Return *login* with the value of its secret, as far as this operator can open it. This reads files."""
    if login is None:
        return NO_LOGIN
    try:
        return OpenedLogin(login=_open(secrets, login))
    except HarmonyError as error:
        return OpenedLogin(why_none=error.message)


def _open(secrets: FleetSecrets, login: RegistryLogin) -> Login:
    def value_of(reference: Reference) -> str:
        if reference.namespace != "secret":
            raise UsageError(f"what {reference} in its password stands for, only the device knows")
        return secrets.open(reference.member).value

    if has_references(login.username):
        raise UsageError("what its username stands for, only the device knows")
    return Login(
        username=login.username,
        password=cast("str", replace_references(login.password, value_of)),
    )


def refuse_image(
    status: int, registry: str, name: str, given: OpenedLogin, *, else_: str
) -> ImageNotFound | RegistryUnreachable | None:
    """Return the error that *status*, the answer of a registry, means for the login of the image *name*; None
    where it means nothing for that. *else_* is another thing that can be done."""
    match status, given.login:
        case 429, None:
            return RegistryUnreachable(
                f"{registry} answered HTTP 429 to {name}: too much was asked of it without a login"
                f"{_because(given)}; wait, {_GIVE}, or {else_}"
            )
        case 429, Login(username=username):
            return RegistryUnreachable(
                f"{registry} answered HTTP 429 to {name}: too much was asked of it by {username!r}; wait, or "
                f"{else_}"
            )
        case ((401 | 403), None):
            return ImageNotFound(
                f"{registry} requires a login for {name} (HTTP {status}){_because(given)}; check the name, "
                f"{_GIVE}, or {else_}"
            )
        case 401, Login(username=username):
            return ImageNotFound(
                f"{registry} does not take the login of {username!r} for {name} (HTTP 401); correct username "
                "in login, set the password anew (harmony secret set), or let that user pull it"
            )
        case 403, Login(username=username):
            return ImageNotFound(
                f"{registry} does not let {username!r} pull {name} (HTTP 403); let that user pull it, or "
                "correct the name, or the login"
            )
        case _:
            return None


_GIVE = "give the image a login (username, password; in a compose file x-harmony-login)"


def _because(given: OpenedLogin) -> str:
    return f", and that of its Score could not be used: {given.why_none}" if given.why_none else ""
