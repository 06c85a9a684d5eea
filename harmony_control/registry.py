"""A registry of images, asked by the OCI distribution protocol, by HTTPS alone.

    https://<registry>/v2/<repository>/… -> 401 -> a token, where it says that there is one, for a login or
                                                   for anybody; or the login itself (Basic)
                                         -> the same again

A registry may send whoever asks elsewhere, and what is answered there would be signed, or carried to devices:
so it is looked where that is, before each request. A login is given to the registry that the image names, and
to where that one itself says that it gives tokens, both by https; it is not taken along by a redirect.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import attrs

from harmony_core.errors import ConfigError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "CA_VARIABLE",
    "MANIFEST_TYPES",
    "TIMEOUT_S",
    "Answer",
    "Login",
    "RegistryClient",
    "describe_problem",
    "open_client",
    "open_registries",
    "say_named",
]

CA_VARIABLE = "HARMONY_REGISTRY_CA"
MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_NAMED = "harmony_registry"
"""Under which a request, and those that it is redirected to, carries the host that the image names."""
_HOSTS = {"docker.io": "registry-1.docker.io"}
_ANSWER_MAX_BYTES = 4 * 1024 * 1024
TIMEOUT_S = 10.0
_REDIRECTS_MOST = 5
_PART_BYTES = 256 * 1024


@attrs.frozen(kw_only=True)
class _Challenge:
    """What is wanted of who asks: `WWW-Authenticate`, of RFC 9110."""

    text: str
    wanted_by: str
    """The host that wants it."""

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """Return that of *answer*, after redirects."""
        wanted_by = answer.url.netloc.decode("ascii")
        return cls(text=str(answer.headers.get("WWW-Authenticate", "")), wanted_by=wanted_by)

    @property
    def takes_passwords(self) -> bool:
        return re.search(r"(?:^|,)\s*basic\b", self.text, re.IGNORECASE) is not None

    def find_token_server(self) -> tuple[str, dict[str, str]] | None:
        """Return where there are tokens, and what is to be asked for there; None where there are none."""
        match = re.search(r"(?:^|,)\s*bearer\s+(.*)", self.text, re.IGNORECASE | re.DOTALL)
        asked: dict[str, str] = {}
        for name, value in re.findall(r'(\w+)="([^"]*)"', match[1] if match else ""):
            asked.setdefault(name, value)  # what follows may be of another way to log in
        realm = asked.pop("realm", "")
        return (realm, asked) if realm else None


@attrs.frozen(kw_only=True)
class Login:
    """Who asks a registry, and with which password, which is never shown."""

    username: str
    password: str = attrs.field(repr=False)

    @property
    def basic(self) -> str:
        """What proves it, as a header says it."""
        said = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(said).decode()}"


@attrs.frozen(kw_only=True)
class Answer:
    """What a registry has answered, as a whole."""

    status: int
    digest: str
    challenge: _Challenge
    body: bytes


@asynccontextmanager
async def open_client() -> AsyncGenerator[httpx.AsyncClient]:
    """Yield a client that asks servers by HTTPS, and follows no redirect to a forbidden place; each request
    carries `say_named`. Raise `ConfigError` for a file of authorities that cannot be read."""
    import httpx

    async with httpx.AsyncClient(
        timeout=TIMEOUT_S,
        verify=_trust(),
        follow_redirects=True,
        max_redirects=_REDIRECTS_MOST,
        # Called before every request, also before each that a redirect leads to.
        event_hooks={"request": [_refuse_astray]},
    ) as client:
        yield client


def say_named(host: str) -> dict[str, str]:
    """Return the extensions of a request that mark *host* as named by somebody."""
    return {_NAMED: host}


@asynccontextmanager
async def open_registries() -> AsyncGenerator[RegistryClient]:
    """Yield what asks registries. `ConfigError` as `open_client`."""
    async with open_client() as client:
        yield RegistryClient(client)


class RegistryClient:
    """Asks any registry. Raises what httpx raises, OSError and ValueError: `describe_problem` has words for
    them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._proofs: dict[tuple[str, str, Login | None], str] = {}
        """By registry, repository and login, what is said there to be let in: tokens, mostly."""

    async def ask(
        self, method: str, registry: str, repository: str, path: str, login: Login | None = None
    ) -> Answer:
        """Return its answer about *path* of the repository: ``manifests/…``; where it gives no token, that
        of who refuses it.

        *login* is given to this registry, and to where it gives tokens, if that is wanted. ValueError for an
        answer that is larger than any manifest, and where the login would go to anybody else.
        """
        host, url = _url_of(registry, repository, path)
        headers = {"Accept": MANIFEST_TYPES, **self._authorize(host, repository, login)}
        answer = await self._ask(method, url, named=host, headers=headers)
        if answer.status != 401:
            return answer
        if (refused := await self._log_in(answer.challenge, url, host, repository, login)) is None:
            headers |= self._authorize(host, repository, login)
            return await self._ask(method, url, named=host, headers=headers)
        return answer if refused == 401 else attrs.evolve(answer, status=refused)

    @asynccontextmanager
    async def read_blob(
        self, registry: str, repository: str, digest: str, login: Login | None = None
    ) -> AsyncGenerator[AsyncGenerator[bytes]]:
        """Yield the parts of a blob, as the registry sends it. ValueError where there are none, and as
        `ask`."""
        host, url = _url_of(registry, repository, f"blobs/{digest}")
        for is_first in (True, False):
            headers = {
                "Accept-Encoding": "identity",
                **self._authorize(host, repository, login),
            }
            async with self._client.stream(
                "GET", url, headers=headers, extensions=say_named(host)
            ) as answer:
                if answer.status_code == 401 and is_first:  # a token is good for a few minutes
                    challenge = _Challenge.of(answer)
                    if await self._log_in(challenge, url, host, repository, login) is None:
                        continue
                if answer.status_code != 200:
                    raise ValueError(f"it answered HTTP {answer.status_code} for {digest}")
                yield cast("AsyncGenerator[bytes]", answer.aiter_raw(_PART_BYTES))
                return

    def _authorize(self, host: str, repository: str, login: Login | None) -> Mapping[str, str]:
        proof = self._proofs.get((host, repository, login))
        return {} if proof is None else {"Authorization": proof}

    async def _log_in(
        self, challenge: _Challenge, url: str, host: str, repository: str, login: Login | None
    ) -> int | None:
        """Have what proves *login*, or an anonymous token, as the challenge to *url* says. Return None where
        there is one now, and else with which status it was refused."""
        if login is not None:
            _refuse_stranger(challenge, url)
        place = host, repository, login
        if (found := challenge.find_token_server()) is None:
            if login is None or not challenge.takes_passwords:
                return 401
            self._proofs[place] = login.basic
            return None
        realm, asked = found
        if not realm.startswith("https://"):
            if login is None:
                return 401
            raise ValueError("it wants logins without TLS, where anybody could read them")
        headers = {} if login is None else {"Authorization": login.basic}
        answer = await self._ask("GET", realm, named=host, params=asked, headers=headers)
        if answer.status != 200:
            return answer.status if answer.status in {403, 429} or answer.status >= 500 else 401
        body: Any = json.loads(answer.body)
        said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
        token = str(said.get("token") or said.get("access_token") or "")
        if not token:
            return 401
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token that it gives is none")
        self._proofs[place] = f"Bearer {token}"
        return None

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        named: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request. *named* is the host in the image."""
        body = bytearray()
        async with self._client.stream(
            method, url, headers=headers, params=params, extensions=say_named(named)
        ) as answer:
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _ANSWER_MAX_BYTES:
                    raise ValueError(f"its answer is larger than {_ANSWER_MAX_BYTES} bytes")
        return Answer(
            status=answer.status_code,
            digest=str(answer.headers.get("Docker-Content-Digest", "")),
            challenge=_Challenge.of(answer),
            body=bytes(body),
        )


def _refuse_stranger(challenge: _Challenge, url: str) -> None:
    """Raise ValueError where it is not who is asked at *url* that wants a login."""
    import httpx

    if challenge.wanted_by != httpx.URL(url).netloc.decode("ascii"):
        raise ValueError(
            f"it leads to {challenge.wanted_by}, which wants a login, and that goes to the registry alone"
        )


def _url_of(registry: str, repository: str, path: str) -> tuple[str, str]:
    """Return the host to ask, and the address."""
    host = _HOSTS.get(registry, registry)
    return host, f"https://{host}/v2/{repository}/{path}"


def describe_problem(error: Exception, *, within_s: float) -> str:
    """Return in words why a registry, which was waited for so long, has not answered."""
    said = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"{said}; if it is your own server, set {CA_VARIABLE} to the file with its CA certificate"
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said:
        return f"{said}; it does not speak TLS, and Harmony asks registries by HTTPS only"
    if isinstance(error, TimeoutError):
        return f"no answer within {within_s:.0f} s"
    return said


async def _refuse_astray(request: httpx.Request) -> None:
    """Raise ValueError for a place to which a registry may not redirect us: what is answered there would be
    signed.

    Accept only https; nothing on this machine or its own link, unless the image itself names it; and from a
    public registry, nothing in a private network. A name that only the proxy of the environment knows is for
    the proxy to judge.
    """
    if request.url.scheme != "https":
        # Not the whole address: who has chosen it may have been given a login.
        raise ValueError(
            f"it leads to {request.url.scheme}://{request.url.host}, which is not https"
        )
    host = request.url.host
    named = str(request.extensions[_NAMED])
    if request.url.netloc.decode("ascii") == named:
        return
    try:
        addresses = await _addresses(host, request.url.port or 443)
    except socket.gaierror:
        if "https" not in getproxies():
            raise
        return
    for address in addresses:
        if address.is_loopback or address.is_link_local or address.is_unspecified:
            raise ValueError(
                f"it leads to {host} ({address}), which is this machine or its own link"
            )
    private = [address for address in addresses if not address.is_global]
    if private and await _is_public(named):
        raise ValueError(
            f"it leads to {host} ({private[0]}), which is in a private network, and {named} is not"
        )


async def _is_public(named: str) -> bool:
    """Return whether the host that an image names has public addresses only."""
    url = urlsplit(f"//{named}")
    found = await _addresses(url.hostname or "", url.port or 443)
    return all(address.is_global for address in found)


async def _addresses(host: str, port: int) -> list[IPv4Address | IPv6Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    mapped = [getattr(each, "ipv4_mapped", None) for each in addresses]
    return [inner or each for each, inner in zip(addresses, mapped, strict=True)]


def _trust() -> ssl.SSLContext:
    """Return the system's authorities, and those in the file that $HARMONY_REGISTRY_CA names."""
    context = ssl.create_default_context()
    if extra := os.environ.get(CA_VARIABLE):
        try:
            context.load_verify_locations(extra)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{CA_VARIABLE}={extra} cannot be read as certificates: {error}; correct the variable"
            ) from error
    return context
