"""A registry of images, asked by the OCI distribution protocol, anonymously and by HTTPS alone.

    https://<registry>/v2/<repository>/… -> 401 -> a token, where it says that there is one -> the same again

A registry may send whoever asks elsewhere, and what is answered there would be signed, or carried to devices:
so it is looked where that is, before each request.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, cast
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
class Answer:
    """What a registry has answered, as a whole."""

    status: int
    digest: str
    challenge: str
    body: bytes


@asynccontextmanager
async def open_client() -> AsyncGenerator[httpx.AsyncClient]:
    """Yield what asks servers by HTTPS, and is led by none to where it may not; each request carries
    `say_named`. `ConfigError` for a file of authorities that cannot be read."""
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
    """Return the extensions of a request, by which is known that somebody has named *host*."""
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
        self._tokens: dict[tuple[str, str], str] = {}
        """By registry and repository, those that were given."""

    async def ask(self, method: str, registry: str, repository: str, path: str) -> Answer:
        """Return its answer about *path* of the repository: ``manifests/…``. ValueError for one that is
        larger than any manifest."""
        host, url = _url_of(registry, repository, path)
        headers = {"Accept": MANIFEST_TYPES, **self._authorize(host, repository)}
        answer = await self._ask(method, url, named=host, headers=headers)
        if answer.status == 401 and await self._log_in(answer.challenge, host, repository):
            headers |= self._authorize(host, repository)
            answer = await self._ask(method, url, named=host, headers=headers)
        return answer

    @asynccontextmanager
    async def read_blob(
        self, registry: str, repository: str, digest: str
    ) -> AsyncGenerator[AsyncGenerator[bytes]]:
        """Yield the parts of a blob, as the registry sends it. ValueError where it sends none."""
        host, url = _url_of(registry, repository, f"blobs/{digest}")
        for is_first in (True, False):
            headers = {"Accept-Encoding": "identity", **self._authorize(host, repository)}
            async with self._client.stream(
                "GET", url, headers=headers, extensions=say_named(host)
            ) as answer:
                if answer.status_code == 401 and is_first:  # a token is good for a few minutes
                    challenge = str(answer.headers.get("WWW-Authenticate", ""))
                    if await self._log_in(challenge, host, repository):
                        continue
                if answer.status_code != 200:
                    raise ValueError(f"it answered HTTP {answer.status_code} for {digest}")
                yield cast("AsyncGenerator[bytes]", answer.aiter_raw(_PART_BYTES))
                return

    def _authorize(self, host: str, repository: str) -> Mapping[str, str]:
        token = self._tokens.get((host, repository))
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def _log_in(self, challenge: str, host: str, repository: str) -> bool:
        """Return whether there is an anonymous token now, from where the registry's challenge says."""
        scheme, _, rest = challenge.partition(" ")
        asked: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = asked.pop("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith("https://"):
            return False
        answer = await self._ask("GET", realm, named=host, params=asked)
        if answer.status != 200:
            return False
        body: Any = json.loads(answer.body)
        said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
        token = str(said.get("token") or said.get("access_token") or "")
        if token:
            self._tokens[host, repository] = token
        return bool(token)

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
            challenge=str(answer.headers.get("WWW-Authenticate", "")),
            body=bytes(body),
        )


def _url_of(registry: str, repository: str, path: str) -> tuple[str, str]:
    """Return the host that is asked, and the address."""
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
    """Raise ValueError for where a registry may not send us: what is answered there would be signed.

    Only https; nothing that is on this machine or its own link, unless the image itself names it; and from a
    registry that is public, nothing in a private network. A name that only the proxy of the environment knows
    is that one's to judge.
    """
    if request.url.scheme != "https":
        raise ValueError(f"it leads to {request.url.copy_with(query=None)}, which is not https")
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
