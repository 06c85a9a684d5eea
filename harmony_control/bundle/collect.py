"""What goes into a bundle: all that the device would fetch, as it stands on the server.

    own manifest -> its labels -> classes of the index -> gate of each -> the generations that it is about
                 \\-> assets, downloads and images that all these name  root documents, every version

Only the device's own manifest is verified here, so that nobody carries what cannot count. All else the device
verifies, as it does whenever it fetches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import attrs
from nats.aio.client import Client
from pydantic import ValidationError

from harmony_control.bus.classes import class_key
from harmony_control.bus.connection import Bucket
from harmony_control.bus.roots import refresh
from harmony_control.push.logins import IMAGE_FIELD, OpenedLogin, find_login, open_login
from harmony_control.push.resolve import find_tags
from harmony_control.store.home import Home
from harmony_control.store.named_entries import NamedEntries
from harmony_control.store.roots import read_believed
from harmony_control.store.secrets import FleetSecrets
from harmony_core import plugins
from harmony_core.errors import EntryRefused, ManifestRejected, StoreError, UsageError
from harmony_core.images import parse_image
from harmony_core.references import Reference, replace_references
from harmony_core.resources import Asset, Download, RegistryLogin, first_problem
from harmony_core.wire import strict_json
from harmony_core.wire.assets import asset_id, find_assets, find_downloads
from harmony_core.wire.bundle import find_pinned_images
from harmony_core.wire.class_manifest import CLASS_TYPE
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES, PAYLOAD_TYPE, split_envelope
from harmony_core.wire.fleet_index import FLEET_TYPE
from harmony_core.wire.fleet_index import parse_index as parse_fleet_index
from harmony_core.wire.gate import GATE_TYPE, parse_gate
from harmony_core.wire.manifest import Manifest, SerializedScore, reinstate, target_of
from harmony_core.wire.names import (
    DESIRED_CLASS,
    DESIRED_STATE,
    FLEET,
    INDEX_KEY,
    ROLLOUT,
    TRUST,
)

from .downloads import Wanted

__all__ = ["Contents", "collect"]


@attrs.frozen(kw_only=True)
class Contents:
    """What one device would fetch."""

    fleet: str
    agent_id: str
    generation: int
    documents: Mapping[str, bytes]
    """By ``<bucket>/<key>``."""
    assets: tuple[Asset, ...]
    downloads: tuple[Wanted, ...]
    """All that Scores name, also the same content several times."""
    images: Mapping[str, OpenedLogin]
    """Of registries, each by its digest, with what it is fetched with: those from archives are among the
    assets."""
    warnings: tuple[str, ...]


async def collect(
    home: Home,
    client: Client,
    agent_id: str,
    *,
    with_images: bool = True,
    with_downloads: bool = True,
) -> Contents:
    """Read all that a bundle needs.

    Raise `UsageError` where nothing was ever pushed to the device, or, *with_images*, an image is named only
    by a tag; `ManifestRejected` for a manifest that nobody trusted here has signed; `StoreError`.
    """
    await refresh(home, client)
    fleet = await asyncio.to_thread(lambda: home.control().fleet)
    envelope, manifest = await _read_own(home, client, fleet, agent_id)
    documents = {f"{DESIRED_STATE}/{agent_id}": envelope}
    documents |= await _read_roots(client)
    documents |= await _read_classes(client, fleet, manifest.labels)
    payloads = [_parse(name, each) for name, each in documents.items() if _has_scores(name)]
    assets = {asset_id(each): each for each in _find_all_assets(payloads)}
    in_assets = {f"sha256:{each.sha256}" for each in assets.values()}
    downloads, unread = _find_all_downloads(payloads if with_downloads else (), manifest.labels)
    named = dict.fromkeys(
        each
        for payload in (payloads if with_images else ())
        for each in find_pinned_images(payload)
        if parse_image(each).digest not in in_assets
    )
    images = await asyncio.to_thread(_open_logins, home, agent_id, named, manifest)
    return Contents(
        fleet=fleet,
        agent_id=agent_id,
        generation=manifest.generation,
        documents=documents,
        assets=tuple(assets.values()),
        downloads=downloads,
        images=images,
        warnings=(
            *(await asyncio.to_thread(_look_for_tags, payloads) if with_images else ()),
            *unread,
        ),
    )


async def _read_own(
    home: Home, client: Client, fleet: str, agent_id: str
) -> tuple[bytes, Manifest]:
    found = await Bucket(client, DESIRED_STATE).get(agent_id)
    if found is None:
        raise UsageError(
            f"nothing was ever pushed to {agent_id}; push to it first, as if it were there: harmony "
            f"push-score {agent_id} FILE --no-wait"
        )
    believed = await asyncio.to_thread(read_believed, home)
    trusted = believed.find_built_upon(target_of(agent_id))
    accepted = reinstate(found.value, trusted=trusted, fleet=fleet, agent_id=agent_id)
    return found.value, accepted.manifest


async def _read_roots(client: Client) -> dict[str, bytes]:
    """Return every version: nobody knows which of them the device has."""
    bucket, found = Bucket(client, TRUST), dict[str, bytes]()
    while (entry := await bucket.get(str(len(found) + 1))) is not None:
        found[f"{TRUST}/{len(found) + 1}"] = entry.value
    return found


async def _read_classes(client: Client, fleet: str, labels: Mapping[str, str]) -> dict[str, bytes]:
    """Return the fleet index, and for each class to which the device may belong, what its gate allows."""
    entry = await Bucket(client, FLEET).get(INDEX_KEY)
    if entry is None:
        return {}
    found = {f"{FLEET}/{INDEX_KEY}": entry.value}
    gates, manifests = Bucket(client, ROLLOUT), Bucket(client, DESIRED_CLASS)
    index = parse_fleet_index(_split(entry.value, FLEET_TYPE), fleet=fleet)
    for name, rule in index.classes.items():
        if not rule.may_select(labels) or (read := await gates.get(name)) is None:
            continue
        found[f"{ROLLOUT}/{name}"] = read.value
        gate = parse_gate(_split(read.value, GATE_TYPE), fleet=fleet, name=name)
        for generation in sorted({gate.generation, gate.stable_generation} - {0}):
            key = class_key(name, generation)
            if (manifest := await manifests.get(key)) is None:
                raise StoreError(
                    f"generation {generation} of class {name} is not on the server; apply that class again"
                )
            found[f"{DESIRED_CLASS}/{key}"] = manifest.value
    return found


def _has_scores(name: str) -> bool:
    return name.partition("/")[0] in {DESIRED_STATE, DESIRED_CLASS}


def _parse(name: str, envelope: bytes) -> Mapping[str, Any]:
    """Return the content of a manifest, whoever has signed it."""
    is_own = name.startswith(f"{DESIRED_STATE}/")
    payload = _split(envelope, PAYLOAD_TYPE if is_own else CLASS_TYPE)
    value = strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES)
    return value if isinstance(value, dict) else {}


def _split(envelope: bytes, payload_type: str) -> bytes:
    try:
        return split_envelope(envelope, payload_type=payload_type)[0]
    except ManifestRejected as error:
        raise StoreError(
            f"what stands on the server cannot be read: {error.message}; push or apply it again"
        ) from error


def _read_entries(payload: Mapping[str, Any]) -> Iterator[SerializedScore]:
    for raw in cast("list[object]", payload.get("scores", [])):
        try:
            yield SerializedScore.model_validate(raw)
        except ValidationError as error:
            raise StoreError(
                f"what stands on the server cannot be read: {first_problem(error)}; push or apply it again, "
                "or update this harmony"
            ) from error


def _find_all_assets(payloads: Iterable[Mapping[str, Any]]) -> Iterator[Asset]:
    for payload in payloads:
        yield from (each for each in find_assets(dict(payload)) if each.key is not None)


def _look_for_tags(payloads: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return warnings about Scores that cannot be searched. Raise `UsageError` for a tag without a digest.

    Nobody has signed which image a tag stands for, so that whoever writes the stick could choose it.
    """
    registry, unread = plugins.load(), list[str]()
    for payload in payloads:
        for entry in _read_entries(payload):
            try:
                score = registry.find(entry.kind).model_validate(entry.spec)
            except (ValidationError, EntryRefused):
                unread.append(entry.id)  # of a kind that is not installed here, or with references
                continue
            for tag in find_tags(score):
                raise UsageError(
                    f"{entry.id!r} names the image {tag} by its tag alone, and which image that is, nobody "
                    "has signed; push it again without --no-resolve"
                )
    if not unread:
        return ()
    return (
        f"not looked through for images without a digest, which would be missing: {', '.join(unread)}",
    )


def _open_logins(
    home: Home, agent_id: str, images: Iterable[str], manifest: Manifest
) -> Mapping[str, OpenedLogin]:
    """Return each of *images* with what it is fetched with: of the login that *manifest* has beside it, in a
    Score that was pushed by name from here.

    Others are nobody's here: *manifest* alone is verified, and who could write another would have passwords
    sent where he likes; so would another operator by a Score of his. A class has no secrets anyway.
    """
    secrets, named = FleetSecrets(home), NamedEntries(home, agent_id)
    logins, others = dict[str, RegistryLogin](), dict[str, OpenedLogin]()
    for entry in manifest.scores:
        if not entry.references:
            continue
        is_named = entry in named
        for image, login in _find_logins(entry.spec):
            if is_named:
                logins.setdefault(image, login)
            else:
                others.setdefault(image, OpenedLogin(why_none=_tell_unnamed(agent_id, entry.id)))
    return {
        each: others[each]
        if each in others and each not in logins
        else open_login(secrets, logins.get(each))
        for each in images
    }


def _tell_unnamed(agent_id: str, score: str) -> str:
    return (
        f"{score} was never pushed by name from this directory as it is now, and another operator may have "
        f"changed it; look at it, and push your own file of it: harmony push-score {agent_id} FILE"
    )


def _find_logins(spec: object) -> Iterator[tuple[str, RegistryLogin]]:
    """Yield the images in *spec* that have a login beside them, with that."""
    if isinstance(spec, Mapping):
        fields = cast("Mapping[str, object]", spec)
        image, login = fields.get(IMAGE_FIELD), find_login(fields)
        if isinstance(image, str) and login is not None:
            yield image, login
        spec = list(fields.values())
    if isinstance(spec, list | tuple):
        for each in cast("list[object]", spec):
            yield from _find_logins(each)


def _find_all_downloads(
    payloads: Iterable[Mapping[str, Any]], labels: Mapping[str, str]
) -> tuple[tuple[Wanted, ...], tuple[str, ...]]:
    """Return what a device with these *labels* fetches from the web, and warnings about addresses that only
    the device itself knows."""
    found, unread = list[Wanted](), list[str]()
    for payload in payloads:
        for entry in _read_entries(payload):
            for each in find_downloads(entry.spec):
                try:
                    fields = _resolve(each, labels) if entry.references else each
                    wanted = Wanted(score=entry.id, download=Download.model_validate(fields))
                except (KeyError, ValidationError):
                    unread.append(entry.id)
                else:
                    found.append(wanted)
    if not unread:
        return tuple(found), ()
    told = (
        "not in the bundle are downloads whose addresses only the device knows: "
        f"{', '.join(dict.fromkeys(unread))}; for a device that cannot fetch them, push the files themselves "
        "(asset_from)"
    )
    return tuple(found), (told,)


def _resolve(download: Mapping[str, object], labels: Mapping[str, str]) -> Mapping[str, object]:
    """Return *download* with its references resolved. Raise KeyError for one that is no label known here."""

    def value_of(reference: Reference) -> str:
        if reference.namespace != "labels":
            raise KeyError(reference.member)
        return labels[reference.member]

    return cast("Mapping[str, object]", replace_references(dict(download), value_of))
