"""Signing in by the provider, over HTTP: is there one, off to it, and back."""

from __future__ import annotations

from html import escape

import attrs
from litestar import Response, get, post

from harmony_control.web.calls import Call, address_of, door_of, oidc_of, word_of
from harmony_control.web.problems import problem_of
from harmony_control.web.sessions import VOUCHED_LIFE_S
from harmony_core.errors import HarmonyError

from .begun import WITHIN_S
from .faults import NotOffered
from .settings import CALLBACK
from .signing_in import Back, OidcSignIn

__all__ = ["ROUTES"]

_PART_MOST = 4096
"""Characters of what a provider sends back."""


@attrs.frozen(kw_only=True)
class Offered:
    """Who else vouches for people: a name, or empty for nobody."""

    provider: str


@attrs.frozen(kw_only=True)
class Onward:
    """Where the browser goes now."""

    location: str


@get("/api/oidc", opt={"role": None})
async def offered(request: Call) -> Offered:
    """Return with whom one can sign in beside a password."""
    oidc = oidc_of(request)
    return Offered(provider=oidc.settings.name if oidc else "")


@post("/api/oidc", opt={"role": None}, status_code=200)
async def begin(request: Call) -> Response[Onward]:
    """Begin a sign-in with the provider: the browser goes to where this says."""
    oidc, door = _need_oidc(request), door_of(request)
    origin = request.headers.get("origin", "")
    location, word = await oidc.begin(origin, address_of(request))
    cookie = door.cookie_of(word, WITHIN_S, name=door.oidc_cookie)
    return Response(Onward(location=location), cookies=[cookie])


@get(CALLBACK, opt={"role": None}, include_in_schema=False)
async def come_back(request: Call) -> Response[str]:
    """Take back who the provider has sent, and go on to the page; a problem is a page in words."""
    door = door_of(request)
    try:
        word = request.cookies.get(door.oidc_cookie, "")
        user = await _need_oidc(request).end(_read_back(request), word, address_of(request))
    except HarmonyError as error:
        status, problem = problem_of(error)
        return Response(_page(problem.message), status_code=status, media_type="text/html")
    if old := word_of(request):
        door.sessions.end(old)
    cookies = [
        door.cookie_of(door.sessions.begin(user), VOUCHED_LIFE_S),
        door.cookie_of("", 0, name=door.oidc_cookie),
    ]
    return Response("", status_code=303, headers={"Location": "/"}, cookies=cookies)


def _need_oidc(request: Call) -> OidcSignIn:
    oidc = oidc_of(request)
    if oidc is None:
        raise NotOffered("nobody else signs people in here; sign in with a name and a password")
    return oidc


def _read_back(request: Call) -> Back:
    def one(name: str) -> str:
        found = request.query_params.getall(name, [])
        return found[0] if len(found) == 1 and len(found[0]) <= _PART_MOST else ""

    return Back(state=one("state"), code=one("code"), error=one("error"), issuer=one("iss"))


def _page(message: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Harmony: not signed in</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/app.css">
</head>
<body>
<div id="app"><main class="signin"><div class="box">
<h1><img src="/icon.svg" alt="" width="28" height="28"> Not signed in</h1>
<p role="alert">{escape(message)}</p>
<p><a class="button" href="/">Back to signing in</a></p>
</div></main></div>
</body>
</html>
"""


ROUTES = [offered, begin, come_back]
