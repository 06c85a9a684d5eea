"""Why a Score is on a device, or is not: each layer that has to do with it, and what that waits for.

    what is signed (own manifest, index, gates, class manifests) + what the device reports -> Explanation

Nothing is asked of the device: what it reported last is told as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from harmony_control.bus.reports import Presence, Reports
from harmony_control.rollout.documents import ClassDocuments, Read
from harmony_control.rollout.members import read_manifests
from harmony_core.close_names import did_you_mean
from harmony_core.errors import UnknownScore
from harmony_core.wire.actual_state import OWN_LAYER, LayerStatus, ScoreStatus
from harmony_core.wire.admission import find_place, find_slot, find_step
from harmony_core.wire.class_manifest import PLACES, ClassManifest, class_target
from harmony_core.wire.fleet_index import ClassRule
from harmony_core.wire.gate import Gate
from harmony_core.wire.layers import ClassLayer, Merged, merge
from harmony_core.wire.manifest import Manifest

__all__ = ["Explanation", "Layer", "Verdict", "Wave", "explain"]

Verdict: TypeAlias = Literal[
    "Followed", "Overridden", "LeftOut", "Conflict", "NoSuchScore", "ToCome", "ToGo", "NotFollowed"
]
"""Followed: the Score is as this layer has it. Overridden: an upper layer has one of that id. LeftOut: the
device's own manifest does without it. Conflict: two classes of one priority have one. NoSuchScore: this layer
has none. ToCome: the generation that is rolled out has one, and the device does not follow it yet. ToGo: that
generation has none any more. NotFollowed: the device follows no generation of this class."""


@attrs.frozen(kw_only=True)
class Wave:
    """Where the device stands in the rollout of a class."""

    state: str
    """The gate's: running, paused, aborted, done."""
    reason: str
    generation: int
    step: int
    """The device's wave; the first is 0."""
    open_step: int
    steps: int
    slot: int | None
    """None: its label is no number, and it waits."""
    open_slot: int
    place_percent: float
    """Of all places, how many come before the device's."""
    is_canary: bool


@attrs.frozen(kw_only=True)
class Layer:
    """One layer, and what it is to the Score on this device."""

    name: str
    verdict: Verdict
    by: str = ""
    """The layer that overrides it, or is in conflict with it."""
    generation: int
    """Which the device follows, as it says; of its own manifest, the newest that is signed."""
    wanted: int
    """Which is signed for it now."""
    selector: str = ""
    is_selected: bool = True
    """Whether the signed labels are selected by what is rolled out."""
    priority: int | None = None
    wave: Wave | None = None
    status: LayerStatus | None = None
    """As the device reported it last."""


@attrs.frozen(kw_only=True)
class Explanation:
    """Why a Score is as it is on one device."""

    agent_id: str
    score: str
    presence: Presence
    labels: Mapping[str, str]
    status: ScoreStatus | None
    """As the device reported it last; None: it has no such Score, as far as is known."""
    problem: str
    """Why what the device reports cannot be read or believed."""
    layers: Sequence[Layer]
    """The upper first."""


@attrs.frozen
class _Class:
    name: str
    rule: ClassRule
    gate: Read[Gate]
    wanted: ClassManifest
    followed: ClassManifest | None
    status: LayerStatus | None


async def explain(
    documents: ClassDocuments, reports: Reports, agent_id: str, score: str
) -> Explanation:
    """Return why *score* is as it is on the device.

    `UnknownScore` where neither the device nor a layer of it knows one; what reading the buckets raises.
    """
    seen = await reports.read_seen(agent_id)
    own = (await read_manifests(documents, [seen])).get(agent_id)
    labels = own.labels if own is not None else {}
    told: Mapping[str, LayerStatus] = seen.state.layers if seen.state is not None else {}
    classes = [
        each
        for each in await _read_classes(documents, told)
        if each.status is not None or _selects(each, labels)
    ]
    status = seen.state.scores.get(score) if seen.state is not None else None
    _refuse_unknown(agent_id, score, status, own, classes)
    merged = merge(
        own,
        [
            ClassLayer(each.followed, each.rule.priority)
            for each in classes
            if each.followed is not None
        ],
    )
    upper = sorted(classes, key=lambda each: (-each.rule.priority, each.name))
    return Explanation(
        agent_id=agent_id,
        score=score,
        presence=seen.presence,
        labels=labels,
        status=status,
        problem=seen.problem,
        layers=[
            _own_layer(own, score),
            *(_layer(documents.fleet, agent_id, each, own, merged, score) for each in upper),
        ],
    )


async def _read_classes(documents: ClassDocuments, told: Mapping[str, LayerStatus]) -> list[_Class]:
    index = await documents.read_index()
    found: list[_Class] = []
    for name, rule in (index.value.classes if index is not None else {}).items():
        gate = await documents.read_gate(name, index)
        if gate is None:
            continue  # nothing was rolled out to it
        wanted = await documents.read_manifest(name, gate.value.generation)
        if wanted is None:
            continue
        status = told.get(class_target(name))
        at = status.generation if status is not None else 0
        followed = await documents.read_manifest(name, at) if at else None
        manifest = followed.value if followed is not None else None
        found.append(_Class(name, rule, gate, wanted.value, manifest, status))
    return found


def _selects(found: _Class, labels: Mapping[str, str]) -> bool:
    selector = found.rule.find_selector(found.wanted.generation)
    return selector is not None and selector.matches(labels)


def _refuse_unknown(
    agent_id: str,
    score: str,
    status: ScoreStatus | None,
    own: Manifest | None,
    classes: Sequence[_Class],
) -> None:
    manifests = [own, *(each.wanted for each in classes), *(each.followed for each in classes)]
    known = {each.id for manifest in manifests if manifest is not None for each in manifest.scores}
    known |= set(own.without) if own is not None else set()
    if status is None and score not in known:
        hint = did_you_mean(score, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
        raise UnknownScore(
            f"neither {agent_id} nor any class that it belongs to has a Score {score!r}{hint}"
        )


def _own_layer(own: Manifest | None, score: str) -> Layer:
    generation = own.generation if own is not None else 0
    has = own is not None and score in {each.id for each in own.scores}
    return Layer(
        name=OWN_LAYER,
        verdict="Followed" if has else "NoSuchScore",
        generation=generation,
        wanted=generation,
    )


def _layer(
    fleet: str, agent_id: str, found: _Class, own: Manifest | None, merged: Merged, score: str
) -> Layer:
    labels = own.labels if own is not None else {}
    verdict, by = _judge(found, own, merged, score)
    generation = found.gate.value.generation
    return Layer(
        name=class_target(found.name),
        verdict=verdict,
        by=by,
        generation=found.status.generation if found.status is not None else 0,
        wanted=generation,
        selector=found.rule.find_selector_text(generation) or "",
        is_selected=_selects(found, labels),
        priority=found.rule.priority,
        wave=_wave(fleet, agent_id, found, labels),
        status=found.status,
    )


def _judge(found: _Class, own: Manifest | None, merged: Merged, score: str) -> tuple[Verdict, str]:
    """Return the relation of the layer to the Score, and which other layer affects that."""
    name = class_target(found.name)
    wants = score in {each.id for each in found.wanted.scores}
    if found.followed is None:
        return ("ToCome" if wants else "NotFollowed"), ""
    if score not in {each.id for each in found.followed.scores}:
        return ("ToCome" if wants else "NoSuchScore"), ""
    if own is not None and score in own.without:
        return "LeftOut", OWN_LAYER
    if name in (between := merged.conflicts.get(score, ())):
        return "Conflict", ", ".join(each for each in between if each != name)
    if merged.layers.get(score) != name:
        return "Overridden", merged.layers.get(score, "")
    return ("Followed" if wants or found.followed == found.wanted else "ToGo"), ""


def _wave(fleet: str, agent_id: str, found: _Class, labels: Mapping[str, str]) -> Wave:
    gate, rollout = found.gate.value, found.wanted.rollout
    place = find_place(fleet, found.name, gate.generation, agent_id)
    step = find_step(rollout, place, labels)
    by_place = next(at for at, each in enumerate(rollout.steps) if place < each.places)
    return Wave(
        state=gate.state,
        reason=gate.reason,
        generation=gate.generation,
        step=step,
        open_step=gate.step,
        steps=len(rollout.steps),
        slot=find_slot(labels),
        open_slot=gate.slot,
        place_percent=round(place / PLACES * 100, 2),
        is_canary=step < by_place,
    )
