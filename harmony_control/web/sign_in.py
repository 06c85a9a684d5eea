"""Signing in and out, and who may call what.

Every route is for who is signed in, as a viewer at least, unless it says otherwise by ``opt={"role": …}``.
"""

from __future__ import annotations

import attrs
from litestar import Response, delete, get, post
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody

from .calls import Call, Connection, address_of, door_of, word_of
from .sessions import IDLE_S
from .users import PASSWORD_MOST, Role, includes

__all__ = ["ROUTES", "require_role"]


@attrs.frozen(kw_only=True)
class SignIn:
    """A name and a password."""

    name: str
    password: str


@attrs.frozen(kw_only=True)
class Me:
    """Who is signed in."""

    name: str
    role: Role


def require_role(connection: Connection, handler: BaseRouteHandler) -> None:
    """Refuse who is not signed in, or has too small a role. A guard of every route."""
    needed: Role | None = handler.opt.get("role", "viewer")
    if needed is None:
        return
    word = word_of(connection)
    user = door_of(connection).sessions.find(word) if word else None
    if user is None:
        raise NotAuthorizedException("sign in first")
    if not includes(user.role, needed):
        by = (
            f"at the next sign-in, for a group of {user.issuer}, in web-oidc.toml"
            if user.issuer
            else f"with `harmony serve-user add {user.name} --role {needed}`"
        )
        raise PermissionDeniedException(
            f"{user.name} is {user.role} here, and this is for the role {needed}; whoever runs "
            f"`harmony serve` gives it {by}"
        )
    connection.scope["user"] = user


@post("/api/session", opt={"role": None}, sync_to_thread=None, raises=[NotAuthorizedException])
async def sign_in(request: Call, data: JSONBody[SignIn]) -> Response[Me]:
    """Sign in: begins a session, known by a cookie."""
    door = door_of(request)
    if len(data.password) > PASSWORD_MOST or len(data.name) > 64:
        raise NotAuthorizedException("wrong name or password")
    user = await door.sign_in(data.name, data.password, address_of(request))
    if user is None:
        raise NotAuthorizedException("wrong name or password")
    if old := word_of(request):
        door.sessions.end(old)
    cookie = door.cookie_of(door.sessions.begin(user), IDLE_S)
    return Response(Me(name=user.name, role=user.role), cookies=[cookie])


@get("/api/session")
async def who_am_i(request: Call) -> Me:
    """Return who is signed in."""
    return Me(name=request.user.name, role=request.user.role)


@delete("/api/session", opt={"role": None})
async def sign_out(request: Call) -> Response[None]:
    """Sign out: ends the session. Idempotent."""
    door = door_of(request)
    if word := word_of(request):
        door.sessions.end(word)
    return Response(None, status_code=204, cookies=[door.cookie_of("", 0)])


ROUTES = [sign_in, who_am_i, sign_out]
