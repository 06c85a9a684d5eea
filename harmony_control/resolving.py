"""Tags become digests when a Score is pushed, so that every device runs the very same image.

Which fields hold images is marked in the Score's own fields (`harmony_core.images`). The registry is asked
by the OCI distribution protocol: HEAD of the manifest, after an anonymous token where it wants one.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from pydantic import BaseModel

from harmony_core.errors import ImageNotFound, RegistryUnreachable
from harmony_core.images import IMAGE_MARK, ImageName, parse_image

from .entries import Entry

if TYPE_CHECKING:
    import httpx

__all__ = ["resolve", "with_digests"]

ModelT = TypeVar("ModelT", bound=BaseModel)

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


async def with_digests(entry: Entry) -> Entry:
    """*entry*, with every image that its Score names pinned to the digest that its tag stands for now.

    Images that are pinned already cost nothing. `ImageNotFound`, or `RegistryUnreachable`.
    """
    replaced = await _replaced(entry.score)
    if replaced is entry.score:
        return entry
    return attrs.evolve(entry, score=replaced)


async def _replaced(model: ModelT) -> ModelT:
    """*model*, with every marked field below it resolved; the same object when nothing changed."""
    changed: dict[str, object] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        new = value
        if IMAGE_MARK in field.metadata and isinstance(value, str):
            new = await resolve(value)
        elif isinstance(value, BaseModel):
            new = await _replaced(value)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


async def resolve(reference: str) -> str:
    """*reference* with its tag's digest; itself when it has one."""
    image = parse_image(reference)
    return reference if image.digest else image.at(await _digest(image))


async def _digest(image: ImageName) -> str:
    import httpx

    host = _HOSTS.get(image.registry, image.registry)
    url = f"https://{host}/v2/{image.repository}/manifests/{image.tag or 'latest'}"
    try:
        async with httpx.AsyncClient(timeout=10, verify=_trust(), follow_redirects=True) as client:
            answer = await client.head(url, headers={"Accept": _ACCEPT})
            if answer.status_code == 401:
                token = await _token(client, answer)
                answer = await client.head(
                    url, headers={"Accept": _ACCEPT, "Authorization": f"Bearer {token}"}
                )
    except (httpx.HTTPError, OSError) as error:
        problem = str(error) or type(error).__name__
        raise RegistryUnreachable(
            f"{image.registry} cannot be asked for {image.pull}: {problem}; {_REMEDY}"
        ) from error
    if answer.status_code in {401, 403, 404}:
        raise ImageNotFound(
            f"{image.registry} has no {image.repository}:{image.tag or 'latest'} for us "
            f"(HTTP {answer.status_code}); check the name and the tag"
        )
    digest = answer.headers.get("Docker-Content-Digest", "")
    if answer.status_code != 200 or not _DIGEST.match(digest):
        raise RegistryUnreachable(
            f"{image.registry} answered HTTP {answer.status_code} without a digest; {_REMEDY}"
        )
    return str(digest)


async def _token(client: httpx.AsyncClient, refusal: httpx.Response) -> str:
    """An anonymous token, as the registry's challenge describes where to get one."""
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', refusal.headers.get("WWW-Authenticate", "")))
    realm = challenge.pop("realm", "")
    if not realm.startswith("https://"):
        return ""
    answer = await client.get(realm, params=challenge)
    body = cast("dict[str, Any]", answer.json()) if answer.status_code == 200 else {}
    return str(body.get("token") or body.get("access_token") or "")


def _trust() -> ssl.SSLContext:
    """The system's authorities, and those in the file that $HARMONY_REGISTRY_CA names."""
    context = ssl.create_default_context()
    if extra := os.environ.get("HARMONY_REGISTRY_CA"):
        context.load_verify_locations(extra)
    return context
