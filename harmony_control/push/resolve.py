"""Tags become digests when a Score is pushed, so that every device runs the very same image.

Which fields hold images is marked in the Score's own fields (`harmony_core.images`), at whatever depth: in
models, lists and objects within. Every tag is asked for once a push, all of them side by side, by the OCI
distribution protocol: HEAD of the manifest, after a token where the registry wants one. A login that stands
beside an image is that with which it is asked for, and no other image is.
Reference: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeAlias, TypeVar, cast, get_args

import attrs
from pydantic import BaseModel

from harmony_control.cancelling import cancel_all
from harmony_control.registry import Answer, RegistryClient, describe_problem, open_registries
from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import ImageNotFound, RegistryUnreachable
from harmony_core.images import IMAGE_MARK, ImageName, parse_image
from harmony_core.resources import RegistryLogin

from .entries import Entry
from .logins import IMAGE_FIELD, OpenedLogin, find_login, open_login, refuse_image

__all__ = ["find_tags", "with_digests"]

TopologyT = TypeVar("TopologyT")
ModelT = TypeVar("ModelT", bound=BaseModel)
Change: TypeAlias = Callable[[str, RegistryLogin | None], str]
"""What becomes of an image, or of a text, with the login beside it."""
_Asked: TypeAlias = tuple[str, RegistryLogin | None]

_REMEDY = "name the image by digest, or push with --no-resolve to let the device choose"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_IMAGE_TIMEOUT_S = 30.0
_COLLECTIONS: Mapping[type, Callable[[Iterable[object]], object]] = {
    each: each for each in (list, tuple, set, frozenset)
}


async def with_digests(
    entries: Mapping[str, Entry[TopologyT]], secrets: FleetSecrets
) -> dict[str, Entry[TopologyT]]:
    """Return *entries*, with every image pinned to the digest that its tag stands for now.

    An image that is pinned already costs nothing. The passwords of logins are among *secrets*. Raise
    `ImageNotFound`, `RegistryUnreachable`, or `ConfigError` for a file of certificate authorities that cannot
    be read.
    """
    users: dict[_Asked, str] = {}
    for name, entry in entries.items():

        def note(
            reference: str,
            login: RegistryLogin | None,
            name: str = name,
            unknown: frozenset[str] = entry.stand_ins,
        ) -> str:
            if reference in unknown:
                return reference  # which image that is, only the device knows
            if (image := _image(reference)) is not None and image.digest is None:
                users.setdefault((reference, login), name)
            return reference

        _map_images(entry.score, note)
    if not users:
        return dict(entries)
    tags = await _resolve(users, secrets)

    def pin(reference: str, login: RegistryLogin | None) -> str:
        return tags.get((reference, login), reference)

    return {
        name: attrs.evolve(entry, score=_map_images(entry.score, pin))
        for name, entry in entries.items()
    }


def find_tags(score: BaseModel) -> list[str]:
    """Return the images in *score* that are named only by a tag."""
    found: list[str] = []

    def note(reference: str, _: RegistryLogin | None) -> str:
        if (image := _image(reference)) is not None and image.digest is None:
            found.append(reference)
        return reference

    _map_images(score, note)
    return found


def _map_images(model: ModelT, image: Change) -> ModelT:
    """Return *model* with *image* applied to every image in it; the same object where nothing changes."""
    changed: dict[str, object] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        marked = IMAGE_MARK in field.metadata or _is_marked(field.annotation)
        login = find_login(model) if name == IMAGE_FIELD else None
        new = _map_value(value, partial(_call, image, login) if marked else _as_it_is, image)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


def _map_value(value: object, text: Callable[[str], str], image: Change) -> object:
    """Return the *value* of a field, with *text* applied to its own texts, and *image* to the marked texts of
    models in it."""
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


def _call(image: Change, login: RegistryLogin | None, text: str) -> str:
    return image(text, login)


def _as_it_is(text: str) -> str:
    return text


def _is_marked(annotation: object) -> bool:
    """Return whether the mark is anywhere in *annotation*: ``tuple[ImageRef, ...]``, ``ImageRef | None``."""
    return annotation is IMAGE_MARK or any(_is_marked(each) for each in get_args(annotation))


def _image(reference: str) -> ImageName | None:
    try:
        return parse_image(reference)
    except ValueError:
        return None  # beside an image, the field may hold another word


async def _resolve(users: Mapping[_Asked, str], secrets: FleetSecrets) -> dict[_Asked, str]:
    """Return, for each image with its login, the pinned image. *users* names the Score of each image, for the
    error message."""
    logins = {
        login: await asyncio.to_thread(open_login, secrets, login)
        for login in dict.fromkeys(login for _, login in users)
    }
    async with open_registries() as registries:
        pins = [
            asyncio.ensure_future(_pin_for(registries, reference, logins[login], score))
            for (reference, login), score in users.items()
        ]
        try:
            found = await asyncio.gather(*pins)
        finally:
            await cancel_all(
                pins
            )  # none goes on where another has failed, and the client is closed
    return dict(zip(users, found, strict=True))


async def _pin_for(
    registries: RegistryClient, reference: str, given: OpenedLogin, score: str
) -> str:
    try:
        return await _pin(registries, reference, given)
    except (ImageNotFound, RegistryUnreachable) as error:
        raise type(error)(f"{error.message} (Score {score!r} wants it)") from error


async def _pin(registries: RegistryClient, reference: str, given: OpenedLogin) -> str:
    import httpx

    image = parse_image(reference)
    try:
        async with asyncio.timeout(_IMAGE_TIMEOUT_S):
            return image.at(await _digest(registries, image, given))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        problem = describe_problem(error, within_s=_IMAGE_TIMEOUT_S)
        raise RegistryUnreachable(
            f"{image.registry} cannot be asked for {_name(image)}: {problem}; {_REMEDY}"
        ) from error


async def _digest(registries: RegistryClient, image: ImageName, given: OpenedLogin) -> str:
    answer = await _manifest(registries, "HEAD", image, given)
    if answer.status == 200 and not _DIGEST.match(answer.digest):
        # Few registries do not say it to a HEAD; then it is computed from the manifest itself.
        answer = await _manifest(registries, "GET", image, given)
    if (
        refused := refuse_image(answer.status, image.registry, _name(image), given, else_=_REMEDY)
    ) is not None:
        raise refused
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
    """Return the name of the image as its registry knows it."""
    return f"{image.repository}:{image.tag or 'latest'}"


async def _manifest(
    registries: RegistryClient, method: str, image: ImageName, given: OpenedLogin
) -> Answer:
    path = f"manifests/{image.tag or 'latest'}"
    return await registries.ask(method, image.registry, image.repository, path, given.login)
