"""Images for a bundle: what each consists of for one platform, as its registry has it.

    digest -> manifest, or an index of several -> those of the platform -> configuration and layers, by hash

Whatever comes is compared with the hash by which it was asked for, so that the digest in the signed manifest
vouches for all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs

from harmony_control.push.logins import NO_LOGIN, OpenedLogin, refuse_image
from harmony_control.registry import RegistryClient, describe_problem
from harmony_core.errors import ImageNotFound, RegistryUnreachable, UsageError
from harmony_core.images import ImageName, parse_image

__all__ = ["Blob", "Platform", "find_blobs", "parse_platform", "read_blob"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_PLATFORM = re.compile(r"linux/(?P<architecture>[a-z0-9_]{1,20})\Z")
_ARCHITECTURES = {
    "aarch64": "arm64",
    "x86_64": "amd64",
    "armv7l": "arm",
    "armv6l": "arm",
    "armv8l": "arm",
    "riscv64": "riscv64",
}
_CONFIG_MAX_BYTES = 4 * 1024 * 1024
_MANIFESTS_MOST = 32
_ANSWER_WITHIN_S = 10.0


@attrs.frozen
class Platform:
    """For what an image is made."""

    architecture: str
    """Go's word for it, as images have it: ``arm64``."""

    @classmethod
    def of_machine(cls, machine: str) -> Platform | None:
        """Return the platform of a device whose kernel says *machine*; None for one that is not known
        here."""
        found = _ARCHITECTURES.get(machine)
        return None if found is None else cls(found)

    def __str__(self) -> str:
        return f"linux/{self.architecture}"


@attrs.frozen(kw_only=True)
class Blob:
    """One thing that images consist of."""

    digest: str
    size_bytes: int
    image: ImageName
    """In whose repository it is."""
    given: OpenedLogin = NO_LOGIN
    """With what it is asked for there."""
    content: bytes | None = attrs.field(default=None, repr=False)
    """Where it was read already."""


def parse_platform(text: str) -> Platform:
    """Read ``linux/arm64``. `UsageError`."""
    match = _PLATFORM.match(text)
    if match is None:
        raise UsageError(f"{text!r} is no platform; write linux/arm64, linux/arm or linux/amd64")
    return Platform(match["architecture"])


async def find_blobs(
    registries: RegistryClient, references: Mapping[str, OpenedLogin], platform: Platform
) -> list[Blob]:
    """Return all that the images, which are named by digest, each with its login, consist of for *platform*,
    each once.

    Raise `ImageNotFound`, `RegistryUnreachable`; `UsageError` for an image that is only for other platforms.
    """
    blobs: dict[str, Blob] = {}
    for reference, given in references.items():
        image = parse_image(reference)
        for each in await _ask_all(registries, image, given, platform):
            blobs.setdefault(each.digest, each)
    return list(blobs.values())


@asynccontextmanager
async def read_blob(
    registries: RegistryClient, blob: Blob
) -> AsyncGenerator[AsyncGenerator[bytes]]:
    """Yield the content of *blob*, in parts. Raise `RegistryUnreachable`, also where the content is
    another."""
    import httpx

    try:
        async with registries.read_blob(
            blob.image.registry, blob.image.repository, blob.digest, blob.given.login
        ) as parts:
            yield _compare(parts, blob)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _unreachable(blob.image, error) from error


async def _compare(parts: AsyncGenerator[bytes], blob: Blob) -> AsyncGenerator[bytes]:
    digest, size_bytes = hashlib.sha256(), 0
    async for part in parts:
        digest.update(part)
        size_bytes += len(part)
        if size_bytes > blob.size_bytes:
            break
        yield part
    if size_bytes != blob.size_bytes or f"sha256:{digest.hexdigest()}" != blob.digest:
        raise ValueError(f"what it sent as {blob.digest} is something else, or not whole")


async def _ask_all(
    registries: RegistryClient, image: ImageName, given: OpenedLogin, platform: Platform
) -> Sequence[Blob]:
    import httpx

    try:
        top = await _ask(registries, image, image.digest or "", given)
        manifests = [top]
        if (listed := _read(top).get("manifests")) is not None:
            chosen = _choose(listed, platform)
            if not chosen:
                raise UsageError(f"{_name(image)} is not made for {platform}; {_REMEDY}")
            manifests = [await _ask(registries, image, each, given) for each in chosen]
        found = [top, *manifests]
        for each in manifests:
            found += await _find_parts(registries, each, platform)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _unreachable(image, error) from error
    return found


_NO_IMAGES = "leave all images out with --no-images"
_REMEDY = "name the platform of the device (--platform), or have the Score want another image"


async def _ask(
    registries: RegistryClient, image: ImageName, digest: str, given: OpenedLogin
) -> Blob:
    """Return a manifest or an index."""
    path = f"manifests/{digest}"
    answer = await registries.ask("GET", image.registry, image.repository, path, given.login)
    if (
        refused := refuse_image(
            answer.status, image.registry, _name(image), given, else_=_NO_IMAGES
        )
    ) is not None:
        raise refused
    if answer.status == 404:
        raise ImageNotFound(
            f"{image.registry} has no {_name(image)} (HTTP 404) any more; push another"
        )
    if answer.status != 200:
        raise ValueError(f"it answered HTTP {answer.status}")
    return _check(image, digest, answer.body, given)


def _check(image: ImageName, digest: str, content: bytes, given: OpenedLogin) -> Blob:
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ValueError(f"what it sent as {digest} is something else")
    return Blob(digest=digest, size_bytes=len(content), image=image, given=given, content=content)


def _read(blob: Blob) -> Mapping[str, Any]:
    value: Any = json.loads(blob.content or b"")
    if not isinstance(value, dict):
        raise ValueError(f"{blob.digest} is no manifest")  # noqa: TRY004 - of an answer, told as such
    return cast("Mapping[str, Any]", value)


def _choose(listed: object, platform: Platform) -> list[str]:
    """Return the digests of all that an index has for *platform*: podman decides which variant fits."""
    chosen: list[str] = []
    for each in cast("list[object]", listed) if isinstance(listed, list) else []:
        match each:
            case {
                "digest": str(digest),
                "platform": {"os": "linux", "architecture": platform.architecture},
            } if _DIGEST.match(digest):
                chosen.append(digest)
            case _:
                pass
    return chosen[:_MANIFESTS_MOST]


async def _find_parts(registries: RegistryClient, manifest: Blob, platform: Platform) -> list[Blob]:
    """Return the configuration and the layers that a manifest names."""
    image, said = manifest.image, _read(manifest)
    config = _describe(manifest, said.get("config"))
    if config.size_bytes > _CONFIG_MAX_BYTES:
        raise ValueError(f"the configuration {config.digest} is larger than any")
    async with registries.read_blob(
        image.registry, image.repository, config.digest, config.given.login
    ) as parts:
        content = b"".join([part async for part in _compare(parts, config)])
    config = attrs.evolve(config, content=content)
    made_for = _read(config).get("architecture")
    if made_for != platform.architecture:
        raise UsageError(
            f"{_name(image)} is made for linux/{made_for}, and the device is {platform}; {_REMEDY}"
        )
    layers = said.get("layers")
    if not isinstance(layers, list):
        raise ValueError(f"{manifest.digest} names no layers")  # noqa: TRY004 - as above
    return [config, *(_describe(manifest, each) for each in cast("list[object]", layers))]


def _describe(manifest: Blob, found: object) -> Blob:
    match found:
        case {"digest": str(digest), "size": int(size_bytes)} if _DIGEST.match(digest):
            return attrs.evolve(manifest, digest=digest, size_bytes=size_bytes, content=None)
        case _:
            raise ValueError("a manifest names something without its digest and size")


def _unreachable(image: ImageName, error: Exception) -> RegistryUnreachable:
    problem = describe_problem(error, within_s=_ANSWER_WITHIN_S)
    return RegistryUnreachable(f"{image.registry} cannot be asked for {_name(image)}: {problem}")


def _name(image: ImageName) -> str:
    return image.repository + (f":{image.tag}" if image.tag else f"@{image.digest}")
