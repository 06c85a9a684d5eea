"""Tags become digests when a Score is pushed, so that every device runs the very same image.

Which fields hold images is marked in the Score's own fields (`harmony_core.images`), at whatever depth: in
models, lists and objects within. Every tag is asked for once a push, all of them side by side, by the OCI
distribution protocol: HEAD of the manifest, after an anonymous token where the registry wants one.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, get_args

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
_MANIFEST_MAX_BYTES = 4 * 1024 * 1024
_TIMEOUT_S = 10.0
_COLLECTIONS: Mapping[type, Callable[[Iterable[object]], object]] = {
    each: each for each in (list, tuple, set, frozenset)
}


async def with_digests(entries: Mapping[str, Entry[TopologyT]]) -> dict[str, Entry[TopologyT]]:
    """*entries*, with every image pinned to the digest that its tag stands for now.

    Images that are pinned already cost nothing. `ImageNotFound`, `RegistryUnreachable`, or `ConfigError`
    for a file of authorities that cannot be read.
    """
    tags: dict[str, str] = {}

    def note(reference: str) -> str:
        if (image := _image(reference)) is not None and image.digest is None:
            tags[reference] = reference
        return reference

    for entry in entries.values():
        _mapped(entry.score, note)
    if not tags:
        return dict(entries)
    tags = await _resolved(list(tags))
    return {
        name: attrs.evolve(entry, score=_mapped(entry.score, lambda each: tags.get(each, each)))
        for name, entry in entries.items()
    }


def _mapped(model: ModelT, image: Change) -> ModelT:
    """*model*, with *image* applied to every image in it; the same object when nothing is different."""
    changed: dict[str, object] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        marked = IMAGE_MARK in field.metadata or _is_marked(field.annotation)
        new = _mapped_value(value, image if marked else _as_it_is, image)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


def _mapped_value(value: object, text: Change, image: Change) -> object:
    """*value* of a field: *text* is for its own texts, *image* for the marked ones of models within."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, BaseModel):
        return _mapped(value, image)
    if isinstance(value, dict):
        found = cast("dict[object, object]", value)
        items = {key: _mapped_value(each, text, image) for key, each in found.items()}
        return items if any(items[key] is not found[key] for key in found) else found
    if (collection := type(value)) in _COLLECTIONS:
        before = [*cast("Iterable[object]", value)]
        after = [_mapped_value(each, text, image) for each in before]
        is_new = any(a is not b for a, b in zip(before, after, strict=True))
        return _COLLECTIONS[collection](after) if is_new else value
    return value


def _as_it_is(text: str) -> str:
    return text


def _is_marked(annotation: object) -> bool:
    """Whether the mark is anywhere in it: ``tuple[ImageRef, ...]``, ``ImageRef | None``."""
    return annotation is IMAGE_MARK or any(_is_marked(each) for each in get_args(annotation))


def _image(reference: str) -> ImageName | None:
    try:
        return parse_image(reference)
    except ValueError:
        return None  # beside an image, the field may hold another word


async def _resolved(references: list[str]) -> dict[str, str]:
    import httpx

    async with httpx.AsyncClient(
        timeout=_TIMEOUT_S, verify=_trust(), follow_redirects=True
    ) as client:
        found = await asyncio.gather(*(_pinned(client, each) for each in references))
    return dict(zip(references, found, strict=True))


async def _pinned(client: httpx.AsyncClient, reference: str) -> str:
    import httpx

    image = parse_image(reference)
    try:
        return image.at(await _digest(client, image))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        problem = str(error) or type(error).__name__
        raise RegistryUnreachable(
            f"{image.registry} cannot be asked for {image.pull}: {problem}; {_REMEDY}"
        ) from error


async def _digest(client: httpx.AsyncClient, image: ImageName) -> str:
    answer = await _manifest(client, "HEAD", image)
    if answer.status_code == 200 and not _DIGEST.match(_digest_header(answer)):
        # Few registries do not say it to a HEAD; then it is computed from the manifest itself.
        answer = await _manifest(client, "GET", image)
    if answer.status_code in {401, 403}:
        raise ImageNotFound(
            f"{image.registry} gives {image.pull} to nobody without a login (HTTP "
            f"{answer.status_code}), and Harmony asks anonymously; check the name, or {_REMEDY}"
        )
    if answer.status_code == 404:
        raise ImageNotFound(
            f"{image.registry} has no {image.pull} (HTTP 404); check the name and the tag"
        )
    if answer.status_code != 200:
        raise RegistryUnreachable(
            f"{image.registry} answered HTTP {answer.status_code} to {image.pull}; {_REMEDY}"
        )
    said = _digest_header(answer)
    return said if _DIGEST.match(said) else f"sha256:{hashlib.sha256(answer.content).hexdigest()}"


async def _manifest(client: httpx.AsyncClient, method: str, image: ImageName) -> httpx.Response:
    """The registry's answer, after an anonymous token where it asks for one."""
    host = _HOSTS.get(image.registry, image.registry)
    url = f"https://{host}/v2/{image.repository}/manifests/{image.tag or 'latest'}"
    headers = {"Accept": _ACCEPT}
    answer = await client.request(method, url, headers=headers)
    if answer.status_code == 401 and (token := await _token(client, answer)):
        headers["Authorization"] = f"Bearer {token}"
        answer = await client.request(method, url, headers=headers)
    return answer


async def _token(client: httpx.AsyncClient, refusal: httpx.Response) -> str | None:
    """An anonymous token, as the registry's challenge describes where to get one; None for no offer."""
    scheme, _, rest = refusal.headers.get("WWW-Authenticate", "").partition(" ")
    challenge: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = challenge.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith("https://"):
        return None
    answer = await client.get(realm, params=challenge)
    if answer.status_code != 200:
        return None
    body: Any = answer.json()
    said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    return str(said.get("token") or said.get("access_token") or "") or None


def _digest_header(answer: httpx.Response) -> str:
    return str(answer.headers.get("Docker-Content-Digest", ""))


def _trust() -> ssl.SSLContext:
    """The system's authorities, and those in the file that $HARMONY_REGISTRY_CA names."""
    context = ssl.create_default_context()
    if extra := os.environ.get(CA_VARIABLE):
        try:
            context.load_verify_locations(extra)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{CA_VARIABLE}={extra} cannot be read as certificates: {error}; correct the variable"
            ) from error
    return context
