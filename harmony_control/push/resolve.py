"""Tags become digests when a Score is pushed, so that every device runs the very same image.

Which fields hold images is marked in the Score's own fields (`harmony_core.images`), at whatever depth: in
models, lists and objects within. Every tag is asked for once a push, all of them side by side, by the OCI
distribution protocol: HEAD of the manifest, after an anonymous token where the registry wants one.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, get_args
from urllib.parse import urlsplit

import attrs
from pydantic import BaseModel

from harmony_core.errors import ConfigError, ImageNotFound, RegistryUnreachable
from harmony_core.images import IMAGE_MARK, ImageName, parse_image

from .entries import Entry

if TYPE_CHECKING:
    import httpx

__all__ = ["with_digests"]

TopologyT = TypeVar("TopologyT")
ModelT = TypeVar("ModelT", bound=BaseModel)
Change: TypeAlias = Callable[[str], str]

_NAMED = "harmony_registry"
"""Under which a request, and those that it is redirected to, carries the host that the image names."""
CA_VARIABLE = "HARMONY_REGISTRY_CA"

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_HOSTS = {"docker.io": "registry-1.docker.io"}
_REMEDY = "name the image by digest, or push with --no-resolve to let the device choose"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ANSWER_MAX_BYTES = 4 * 1024 * 1024
_TIMEOUT_S = 10.0
_IMAGE_TIMEOUT_S = 30.0
_COLLECTIONS: Mapping[type, Callable[[Iterable[object]], object]] = {
    each: each for each in (list, tuple, set, frozenset)
}


async def with_digests(entries: Mapping[str, Entry[TopologyT]]) -> dict[str, Entry[TopologyT]]:
    """Return *entries*, with every image pinned to the digest that its tag stands for now.

    Images that are pinned already cost nothing. `ImageNotFound`, `RegistryUnreachable`, or `ConfigError`
    for a file of authorities that cannot be read.
    """
    users: dict[str, str] = {}
    for name, entry in entries.items():

        def note(
            reference: str, name: str = name, unknown: frozenset[str] = entry.stand_ins
        ) -> str:
            if reference in unknown:
                return reference  # which image that is, only the device knows
            if (image := _image(reference)) is not None and image.digest is None:
                users.setdefault(reference, name)
            return reference

        _map_images(entry.score, note)
    if not users:
        return dict(entries)
    tags = await _resolve(users)
    return {
        name: attrs.evolve(entry, score=_map_images(entry.score, lambda each: tags.get(each, each)))
        for name, entry in entries.items()
    }


def _map_images(model: ModelT, image: Change) -> ModelT:
    """Return *model* with *image* applied to every image in it; the same object when nothing is
    different."""
    changed: dict[str, object] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        marked = IMAGE_MARK in field.metadata or _is_marked(field.annotation)
        new = _map_value(value, image if marked else _as_it_is, image)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


def _map_value(value: object, text: Change, image: Change) -> object:
    """Return *value* of a field: *text* is for its own texts, *image* for the marked ones of models
    within."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, BaseModel):
        return _map_images(value, image)
    if isinstance(value, dict):
        found = cast("dict[object, object]", value)
        items = {key: _map_value(each, text, image) for key, each in found.items()}
        return items if any(items[key] is not found[key] for key in found) else found
    if (collection := type(value)) in _COLLECTIONS:
        before = [*cast("Iterable[object]", value)]
        after = [_map_value(each, text, image) for each in before]
        is_new = any(a is not b for a, b in zip(before, after, strict=True))
        return _COLLECTIONS[collection](after) if is_new else value
    return value


def _as_it_is(text: str) -> str:
    return text


def _is_marked(annotation: object) -> bool:
    """Return whether the mark is anywhere in it: ``tuple[ImageRef, ...]``, ``ImageRef | None``."""
    return annotation is IMAGE_MARK or any(_is_marked(each) for each in get_args(annotation))


def _image(reference: str) -> ImageName | None:
    try:
        return parse_image(reference)
    except ValueError:
        return None  # beside an image, the field may hold another word


async def _resolve(users: Mapping[str, str]) -> dict[str, str]:
    """Return what each image is pinned to. *users* says which Score wants it, for who reads that it is not
    there."""
    import httpx

    async with httpx.AsyncClient(
        timeout=_TIMEOUT_S,
        verify=_trust(),
        follow_redirects=True,
        # Called before every request, also before each that a redirect leads to.
        event_hooks={"request": [_refuse_astray]},
    ) as client:
        found = await asyncio.gather(*(_pin_for(client, *each) for each in users.items()))
    return dict(zip(users, found, strict=True))


async def _pin_for(client: httpx.AsyncClient, reference: str, score: str) -> str:
    try:
        return await _pin(client, reference)
    except (ImageNotFound, RegistryUnreachable) as error:
        raise type(error)(f"{error.message} (Score {score!r} wants it)") from error


async def _pin(client: httpx.AsyncClient, reference: str) -> str:
    import httpx

    image = parse_image(reference)
    try:
        async with asyncio.timeout(_IMAGE_TIMEOUT_S):
            return image.at(await _digest(client, image))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise RegistryUnreachable(
            f"{image.registry} cannot be asked for {_name(image)}: {_problem(error)}; {_REMEDY}"
        ) from error


async def _refuse_astray(request: httpx.Request) -> None:
    """Raise ValueError for where a registry may not send us: what is answered there would be signed.

    Only https; nothing that is on this machine or its own link, unless the image itself names it; and from a
    registry that is public, nothing in a private network.
    """
    if request.url.scheme != "https":
        raise ValueError(f"it leads to {request.url}, which is not https")
    host = request.url.host
    named = str(request.extensions[_NAMED])
    if request.url.netloc.decode("ascii") == named:
        return
    addresses = await _addresses(host, request.url.port or 443)
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


def _problem(error: Exception) -> str:
    said = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"{said}; if it is your own registry, set {CA_VARIABLE} to the file with its CA certificate"
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said:
        return f"{said}; it does not speak TLS, and Harmony asks registries by HTTPS only"
    if isinstance(error, TimeoutError):
        return f"no answer within {_IMAGE_TIMEOUT_S:.0f} s"
    return said


async def _digest(client: httpx.AsyncClient, image: ImageName) -> str:
    answer = await _manifest(client, "HEAD", image)
    if answer.status == 200 and not _DIGEST.match(answer.digest):
        # Few registries do not say it to a HEAD; then it is computed from the manifest itself.
        answer = await _manifest(client, "GET", image)
    if answer.status in {401, 403}:
        raise ImageNotFound(
            f"{image.registry} requires a login for {_name(image)} (HTTP "
            f"{answer.status}), and Harmony has none; check the name, or {_REMEDY}"
        )
    if answer.status == 404:
        raise ImageNotFound(
            f"{image.registry} has no {_name(image)} (HTTP 404); check the name and the tag"
        )
    if answer.status != 200:
        raise RegistryUnreachable(
            f"{image.registry} answered HTTP {answer.status} to {_name(image)}; {_REMEDY}"
        )
    if _DIGEST.match(answer.digest):
        return answer.digest
    return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"


def _name(image: ImageName) -> str:
    """Return the image as its registry knows it."""
    return f"{image.repository}:{image.tag or 'latest'}"


async def _manifest(client: httpx.AsyncClient, method: str, image: ImageName) -> _Answer:
    """Return the registry's answer, after an anonymous token where it asks for one."""
    host = _HOSTS.get(image.registry, image.registry)
    url = f"https://{host}/v2/{image.repository}/manifests/{image.tag or 'latest'}"
    headers = {"Accept": _ACCEPT}
    answer = await _ask(client, method, url, named=host, headers=headers)
    if answer.status == 401 and (token := await _token(client, answer, named=host)):
        headers["Authorization"] = f"Bearer {token}"
        answer = await _ask(client, method, url, named=host, headers=headers)
    return answer


async def _token(client: httpx.AsyncClient, refusal: _Answer, *, named: str) -> str | None:
    """Return an anonymous token, as the registry's challenge describes where to get one; None for no
    offer."""
    scheme, _, rest = refusal.challenge.partition(" ")
    challenge: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = challenge.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith("https://"):
        return None
    answer = await _ask(client, "GET", realm, named=named, params=challenge)
    if answer.status != 200:
        return None
    body: Any = json.loads(answer.body)
    said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    return str(said.get("token") or said.get("access_token") or "") or None


@attrs.frozen(kw_only=True)
class _Answer:
    status: int
    digest: str
    challenge: str
    body: bytes


async def _ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    named: str,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
) -> _Answer:
    """Send one request and return its answer; ValueError for an answer larger than any manifest. *named* is
    the host in the image."""
    body = bytearray()
    async with client.stream(
        method, url, headers=headers, params=params, extensions={_NAMED: named}
    ) as answer:
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _ANSWER_MAX_BYTES:
                raise ValueError(f"its answer is larger than {_ANSWER_MAX_BYTES} bytes")
    return _Answer(
        status=answer.status_code,
        digest=str(answer.headers.get("Docker-Content-Digest", "")),
        challenge=str(answer.headers.get("WWW-Authenticate", "")),
        body=bytes(body),
    )


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
