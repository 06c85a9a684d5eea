"""Who belongs to a class, and how each is: labels as they were signed, and what each device says itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from harmony_control.bus.newest import newest_of
from harmony_control.bus.reports import Seen
from harmony_core.errors import ManifestRejected
from harmony_core.outcome import ErrorInfo, Failure, Noop, Success
from harmony_core.visible import cut, word
from harmony_core.wire.actual_state import ActualState, LayerStatus, ScoreStatus
from harmony_core.wire.admission import find_place, find_slot, find_step
from harmony_core.wire.class_manifest import ClassManifest, class_target
from harmony_core.wire.envelope import open_envelope
from harmony_core.wire.fleet_index import ClassRule
from harmony_core.wire.manifest import Manifest, parse_manifest, target_of
from harmony_core.wire.names import DESIRED_STATE
from harmony_core.wire.times import parse_rfc3339

from .documents import ClassDocuments
from .judge import Member

__all__ = ["Members", "read_manifests"]

_SAID_MOST = 200


async def read_manifests(documents: ClassDocuments, seen: Sequence[Seen]) -> dict[str, Manifest]:
    """Return the manifests of these devices' own, by id: only those that the device reports to have taken in,
    or that somebody has signed who may by now."""
    found = await newest_of(documents.client, DESIRED_STATE, [each.agent_id for each in seen])
    taken_in = {each.agent_id: each.state.manifest_sha256 for each in seen if each.state}

    def verify() -> dict[str, Manifest]:
        verified: dict[str, Manifest] = {}
        for each in found:
            target = target_of(each.key)
            try:
                opened = open_envelope(each.value, documents.believed.find_built_upon(target))
                manifest = parse_manifest(opened.payload)
            except ManifestRejected:
                continue  # its device refuses it, too, and says so
            counting = documents.believed.find_counting(target)
            is_in_force = hashlib.sha256(opened.payload).hexdigest() == taken_in.get(each.key)
            if not is_in_force and counting.keys().isdisjoint(opened.keyids):
                continue  # as above
            if (manifest.fleet, manifest.target) == (documents.fleet, target):
                verified[each.key] = manifest
        return verified

    return await asyncio.to_thread(verify)


class Members:
    """The members of one class. What has not changed since the last look is not made out anew.

    Where a fleet is followed, that is nearly everybody.
    """

    def __init__(self) -> None:
        self._by: tuple[ClassRule, str, int] | None = None
        self._known: dict[str, tuple[Seen, Member | None]] = {}

    def find(
        self, fleet: str, seen: Sequence[Seen], rule: ClassRule, manifest: ClassManifest
    ) -> list[Member]:
        """Return the members of the class that *manifest* is of: those whom *rule* selects now, and those
        that still follow it."""
        by = (rule, manifest.name, manifest.generation)
        if by != self._by:
            self._by, self._known = by, {}
        before = self._known
        self._known = {}
        selectors = [
            selector
            for generation in (manifest.generation, manifest.supersedes)
            if (selector := rule.find_selector(generation)) is not None
        ]
        for each in seen:
            known = before.get(each.agent_id)
            if known is None or known[0] is not each:
                is_member = any(selector.matches(each.labels) for selector in selectors)
                known = each, _member(fleet, manifest, each) if is_member else None
            self._known[each.agent_id] = known
        return [member for _, member in self._known.values() if member is not None]


def _member(fleet: str, manifest: ClassManifest, seen: Seen) -> Member:
    place = find_place(fleet, manifest.name, manifest.generation, seen.agent_id)
    state = seen.state
    layer = state.layers.get(class_target(manifest.name)) if state else None
    has_begun = layer is not None and _has_begun(layer, manifest)
    # What it says of another generation, it says before it has heard of this one.
    waits = layer is not None and layer.phase == "Waiting" and layer.wanted == manifest.generation
    return Member(
        id=seen.agent_id,
        step=find_step(manifest.rollout, place, seen.labels),
        # Who has a slot that is no number does not begin: nobody after the first slot goes past it.
        slot=find_slot(seen.labels) or 0,
        is_heard=seen.presence == "Heard" and not seen.problem,
        heard_at=seen.at,
        generation=layer.generation if layer else 0,
        begun_at=_time(layer.since) if layer and has_begun else None,
        waits_for=layer.reason if layer and waits else "",
        ready_since=_ready_since(state, layer, manifest) if state and layer and has_begun else None,
        is_back=_is_back(state, layer, manifest) if state and layer else False,
        failure=_failure(state, layer, manifest) if state and layer else "",
        trouble=_trouble(state, layer, manifest) if state and layer else "",
        gate=(layer.gate or (0, 0)) if layer and layer.wanted == manifest.generation else (0, 0),
    )


def _has_begun(layer: LayerStatus, manifest: ClassManifest) -> bool:
    # Who leaves the class by this generation follows nothing of it, and has begun all the same.
    follows = layer.generation in {manifest.generation, 0}
    return (
        follows and layer.wanted == manifest.generation and layer.phase in {"Admitted", "Applied"}
    )


def _ready_since(
    state: ActualState, layer: LayerStatus, manifest: ClassManifest
) -> datetime | None:
    """Return since when all Scores of the class have been in order, with this generation of it."""
    if layer.phase != "Applied":
        return None
    pages = _find_pages(state, manifest)
    if not _are_in_order(pages, layer):
        return None
    # An Outcome that did not change with this generation has been so for longer than it.
    return max([_time(layer.since), *(_time(page.since) for page in pages)])


def _find_pages(state: ActualState, manifest: ClassManifest) -> list[ScoreStatus]:
    return [page for page in state.scores.values() if page.layer == class_target(manifest.name)]


def _are_in_order(pages: Sequence[ScoreStatus], layer: LayerStatus) -> bool:
    return all(
        page.observed_generation == layer.generation and isinstance(page.outcome, Success | Noop)
        for page in pages
    )


def _is_back(state: ActualState, layer: LayerStatus, manifest: ClassManifest) -> bool:
    """Return whether the device has gone back to what *manifest* supersedes, and all is in order with
    that."""
    return (
        layer.phase == "RolledBack"
        and layer.wanted == manifest.generation
        and layer.generation in {manifest.supersedes, 0}
        and _are_in_order(_find_pages(state, manifest), layer)
    )


def _failure(state: ActualState, layer: LayerStatus, manifest: ClassManifest) -> str:
    """Return what will not recover by itself, in the device's own words."""
    if layer.phase == "Refused":
        return _shorten(f"{layer.reason}: {layer.message}")
    return next(
        (
            _said(name, error)
            for name, error in _find_errors(state, layer, manifest)
            if error.retry_at is None
        ),
        "",
    )


def _trouble(state: ActualState, layer: LayerStatus, manifest: ClassManifest) -> str:
    """Return what has failed last, also where that is tried again."""
    return next((_said(*each) for each in _find_errors(state, layer, manifest)), "")


def _find_errors(
    state: ActualState, layer: LayerStatus, manifest: ClassManifest
) -> Iterator[tuple[str, ErrorInfo]]:
    """Yield by Score what has failed of what is rolled out."""
    if layer.generation != manifest.generation:
        return
    for name, page in state.scores.items():
        if (
            page.layer == class_target(manifest.name)
            and page.observed_generation == manifest.generation
            and isinstance(page.outcome, Failure)
        ):
            yield name, page.outcome.error


def _said(score: str, error: ErrorInfo) -> str:
    return _shorten(f"{score}: {error.code}: {error.message}")


def _shorten(text: str) -> str:
    """Return *text* on one line, and so short that there is room for others beside it."""
    return cut(word(" ".join(text.split())), _SAID_MOST)


def _time(text: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError:
        return datetime.now(UTC)  # nobody is ready for longer than is known
