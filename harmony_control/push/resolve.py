"""Tags become digests when a Score is pushed, so that every device runs the very same image.

Which fields hold images is marked in the Score's own fields (`harmony_core.images`), at whatever depth: in
models, lists and objects within. Every tag is asked for once a push, all of them side by side, by the OCI
distribution protocol: HEAD of the manifest, after an anonymous token where the registry wants one.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar, cast, get_args

import attrs
from pydantic import BaseModel

from harmony_control.registry import Answer, RegistryClient, describe_problem, open_registries
from harmony_core.errors import ImageNotFound, RegistryUnreachable
from harmony_core.images import IMAGE_MARK, ImageName, parse_image

from .entries import Entry

__all__ = ["find_tags", "with_digests"]

TopologyT = TypeVar("TopologyT")
ModelT = TypeVar("ModelT", bound=BaseModel)
Change: TypeAlias = Callable[[str], str]

_REMEDY = "name the image by digest, or push with --no-resolve to let the device choose"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
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


def find_tags(score: BaseModel) -> list[str]:
    """Return the images in *score* that are named by a tag alone."""
    found: list[str] = []

    def note(reference: str) -> str:
        if (image := _image(reference)) is not None and image.digest is None:
            found.append(reference)
        return reference

    _map_images(score, note)
    return found


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
    async with open_registries() as registries:
        found = await asyncio.gather(*(_pin_for(registries, *each) for each in users.items()))
    return dict(zip(users, found, strict=True))


async def _pin_for(registries: RegistryClient, reference: str, score: str) -> str:
    try:
        return await _pin(registries, reference)
    except (ImageNotFound, RegistryUnreachable) as error:
        raise type(error)(f"{error.message} (Score {score!r} wants it)") from error


async def _pin(registries: RegistryClient, reference: str) -> str:
    import httpx

    image = parse_image(reference)
    try:
        async with asyncio.timeout(_IMAGE_TIMEOUT_S):
            return image.at(await _digest(registries, image))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        problem = describe_problem(error, within_s=_IMAGE_TIMEOUT_S)
        raise RegistryUnreachable(
            f"{image.registry} cannot be asked for {_name(image)}: {problem}; {_REMEDY}"
        ) from error


async def _digest(registries: RegistryClient, image: ImageName) -> str:
    answer = await _manifest(registries, "HEAD", image)
    if answer.status == 200 and not _DIGEST.match(answer.digest):
        # Few registries do not say it to a HEAD; then it is computed from the manifest itself.
        answer = await _manifest(registries, "GET", image)
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


async def _manifest(registries: RegistryClient, method: str, image: ImageName) -> Answer:
    path = f"manifests/{image.tag or 'latest'}"
    return await registries.ask(method, image.registry, image.repository, path)
