"""OpenID providers for the tests of `harmony serve`: a real one in a process of its own, and one that lies.

The real one is node-oidc-provider (`provider/`), by npm. `Liar` stands in for faults alone: what no real one
does, and what one does that is broken or not ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import html
import json
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urljoin, urlsplit

import attrs
import httpx
import pytest
import trustme
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from deploy.page import NODE, install
from harmony_control.fleet import Fleet
from harmony_control.web.oidc.provider import Provider
from harmony_control.web.oidc.settings import OidcSettings, load_oidc_settings
from harmony_control.web.oidc.signing_in import OidcSignIn
from harmony_control.web.serving import serving_beside

from .ground import Site, running

__all__ = [
    "FOLDER",
    "SECRET",
    "Liar",
    "Vouched",
    "lying",
    "lying_over_tls",
    "real_provider",
    "sign_in_there",
    "vouched_by",
    "write_settings",
]

FOLDER = Path(__file__).parent / "provider"
SECRET = "a+secret:of/50%"
"""With what a careless client does not encode."""
GROUPS = {
    "ada": ["staff", "pi-operators"],
    "bob": ["staff", "pi-viewers", "pi-approvers"],
    "eve": ["staff"],
}
_ROLES = """[roles]
viewer = ["pi-viewers"]
operator = ["pi-operators"]
approver = ["pi-approvers"]
"""


@attrs.frozen(kw_only=True)
class Vouched:
    """A site that has a provider."""

    site: Site
    settings: OidcSettings
    oidc: OidcSignIn

    @asynccontextmanager
    async def browser(self) -> AsyncGenerator[httpx.AsyncClient]:
        """A client that keeps cookies, and is sent nowhere unasked."""
        url = self.site.url
        async with httpx.AsyncClient(base_url=url, headers={"Origin": url}, timeout=20) as client:
            yield client


def write_settings(root: Path, issuer: str, url: str, more: str = "") -> Path:
    """Write ``web-oidc.toml`` and the secret into the home *root*; return the file."""
    secret = root / "web-oidc.secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    file = root / "web-oidc.toml"
    file.write_text(
        f'name = "Example"\nissuer = "{issuer}"\nclient_id = "harmony"\n'
        f'client_secret_file = "{secret.name}"\nurl = "{url}"\n{more}\n{_ROLES}'
    )
    return file


@asynccontextmanager
async def vouched_by(
    fleet: Fleet,
    issuer: str,
    address: str,
    more: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Vouched]:
    """Serve *fleet* at *address*, with the provider *issuer*."""
    write_settings(fleet.home.root, issuer, f"http://{address}", more)
    settings = load_oidc_settings(fleet.home, is_https=False)
    assert settings is not None
    oidc = OidcSignIn(settings, Provider(settings), clock)
    async with running(fleet, address=address, oidc=oidc) as site:
        yield Vouched(site=site, settings=settings, oidc=oidc)


@asynccontextmanager
async def real_provider(
    address: str, *, in_userinfo: bool = False, algorithm: str = "RS256"
) -> AsyncGenerator[str]:
    """Run one that knows the site at *address* as a client; yield its issuer."""
    if not await asyncio.to_thread(_install):
        why = "npm cannot fetch the provider of tests/web/provider"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    told = {
        "redirect": f"http://{address}/oidc/callback",
        "groups": GROUPS,
        "inUserinfo": in_userinfo,
        "algorithm": algorithm,
    }
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        "provider.js",
        json.dumps(told),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["issuer"]
    finally:
        process.stdin.close()
        await process.wait()


def _install() -> bool:
    # Several processes of tests may come at once.
    with (FOLDER / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install(FOLDER)


async def sign_in_there(browser: httpx.AsyncClient, location: str, name: str) -> str:
    """Go to *location* and sign in as *name*, as a person does; return where one is sent back to."""
    reply = await browser.get(location)
    while True:
        while reply.is_redirect:
            onward = urljoin(str(reply.url), reply.headers["location"])
            if urlsplit(onward).path == "/oidc/callback":
                return onward
            reply = await browser.get(onward)
        assert reply.status_code == 200, reply.text
        found = re.search(r'<form[^>]* action="([^"]+)"', reply.text)
        assert found, reply.text
        prompt = re.search(r'name="prompt" value="(\w+)"', reply.text)
        assert prompt, reply.text
        fields = {"prompt": prompt[1]}
        if prompt[1] == "login":
            fields |= {"login": name, "password": "any"}
        form = urljoin(str(reply.url), html.unescape(found[1]))
        reply = await browser.post(form, data=fields)


Claims = dict[str, Any]


@attrs.define(kw_only=True)
class Liar:
    """A provider whose answers a test decides; unless it does, they are right.

    It signs everybody in as ada, an operator. Nobody is shown anything: a test goes to the callback itself.
    """

    issuer: str
    key: RSAKey = attrs.field(
        factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
    )
    claims: Callable[[Claims], Claims] = lambda claims: claims
    """What becomes of the right claims."""
    sign: Callable[[Claims, RSAKey], str] | None = None
    """How claims become a token."""
    answers: dict[str, tuple[int, bytes]] = attrs.field(factory=dict[str, tuple[int, bytes]])
    """By path, what is said in the place of what is right."""
    metadata: Callable[[dict[str, Any]], dict[str, Any]] = lambda metadata: metadata
    nonce: str = ""
    """That of the last sign-in, which it has learned as the browser came."""
    asked: list[tuple[str, dict[str, str]]] = attrs.field(factory=list[tuple[str, dict[str, str]]])
    """What it was asked: path and form."""

    def come(self, location: str) -> dict[str, str]:
        """Note what a browser brings that was sent to *location*; return that."""
        brought = {name: found[0] for name, found in parse_qs(urlsplit(location).query).items()}
        self.nonce = brought["nonce"]
        return brought

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            return
        body = b""
        while True:
            message: Mapping[str, Any] = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        self.asked.append((path, dict(parse_qsl(body.decode()))))
        status, answer = self.answers.get(path) or (200, json.dumps(self._say(path)).encode())
        headers = [(b"content-type", b"application/json")]
        if 300 <= status < 400:
            headers, answer = [(b"location", answer)], b""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    def _say(self, path: str) -> dict[str, Any]:
        match path:
            case "/.well-known/openid-configuration":
                return self.metadata(
                    {
                        "issuer": self.issuer,
                        "authorization_endpoint": f"{self.issuer}/auth?tenant=1",
                        "token_endpoint": f"{self.issuer}/token",
                        "jwks_uri": f"{self.issuer}/jwks",
                        "userinfo_endpoint": f"{self.issuer}/me",
                    }
                )
            case "/jwks":
                return dict(KeySet([self.key]).as_dict())
            case "/token":
                return {"access_token": "opaque", "token_type": "Bearer", "id_token": self._token()}
            case _:
                return {"sub": "ada", "groups": ["pi-approvers"]}

    def _token(self) -> str:
        now = int(time.time())
        claims = self.claims(
            {
                "iss": self.issuer,
                "sub": "ada",
                "aud": "harmony",
                "exp": now + 60,
                "iat": now,
                "nonce": self.nonce,
                "groups": ["pi-operators"],
            }
        )
        if self.sign is not None:
            return self.sign(claims, self.key)
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key, algorithms=["RS256"])


@asynccontextmanager
async def lying() -> AsyncGenerator[Liar]:
    """Run a `Liar`, in clear."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        liar = Liar(issuer=f"http://127.0.0.1:{listening.getsockname()[1]}")
        async with serving_beside(liar, listening):
            yield liar


@asynccontextmanager
async def lying_over_tls(root: Path) -> AsyncGenerator[Liar]:
    """Run a `Liar` whose certificate is by the authority in ``ca.pem`` of *root*."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(root / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(root / "provider.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        liar = Liar(issuer=f"https://127.0.0.1:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            liar,
            lifespan="off",
            log_config=None,
            ssl_certfile=root / "provider.pem",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield liar
        finally:
            server.should_exit = True
            await task
