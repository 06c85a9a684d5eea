"""What each device would follow by a folder: its own Scores, and those of all its classes. Pure.

    own manifests as they would be + classes -> merged, by device -> conflicts; what each follows of a layer

Devices that the same classes select, with the same ids of their own and the same `without`, are merged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import attrs

from harmony_control.push.entries import AnyEntry
from harmony_control.rollout.publish import Wish
from harmony_core.errors import UsageError
from harmony_core.wire.class_manifest import ClassManifest, class_target
from harmony_core.wire.layers import ClassLayer, Merged, explain_conflict, merge
from harmony_core.wire.manifest import Manifest, SerializedScore, target_of
from harmony_core.wire.selector import Selector

__all__ = [
    "SelectedLayer",
    "find_followed",
    "make_own",
    "merge_each",
    "refuse_conflicts",
    "to_layer",
]


@attrs.frozen
class SelectedLayer:
    """The layer of a class, and who has it."""

    selector: Selector
    layer: ClassLayer


def to_layer(fleet: str, name: str, wish: Wish) -> ClassLayer:
    """Return the layer that a device of the class would have with *wish*."""
    manifest = ClassManifest(
        fleet=fleet,
        target=class_target(name),
        generation=1,
        issued_at=datetime.now(UTC),
        scores=tuple(wish.scores.values()),
    )
    return ClassLayer(manifest, wish.priority or 0)


def make_own(
    fleet: str,
    agent_id: str,
    before: Manifest | None,
    *,
    labels: Mapping[str, str],
    without: Sequence[str],
    scores: Mapping[str, SerializedScore] | None,
) -> Manifest:
    """Return *before* with these labels, `without` and Scores; None leaves the Scores as they are."""
    base = before or Manifest(
        fleet=fleet, target=target_of(agent_id), generation=1, issued_at=datetime.now(UTC)
    )
    update: dict[str, object] = {"labels": dict(labels), "without": tuple(without)}
    if scores is not None:
        update["scores"] = tuple(scores.values())
    return base.model_copy(update=update)


def merge_each(
    own: Mapping[str, Manifest | None], classes: Sequence[SelectedLayer]
) -> dict[str, Merged]:
    """Return the merged state of each device, by id. The entries of its own layer may be another device's,
    with the same ids."""
    known: dict[object, Merged] = {}
    found: dict[str, Merged] = {}
    for name, manifest in own.items():
        labels = manifest.labels if manifest else {}
        layers = [each.layer for each in classes if each.selector.matches(labels)]
        key = (
            tuple(each.name for each in layers),
            frozenset(each.id for each in manifest.scores) if manifest else frozenset[str](),
            frozenset(manifest.without) if manifest else frozenset[str](),
        )
        if key not in known:
            known[key] = merge(manifest, layers)
        found[name] = known[key]
    return found


def refuse_conflicts(merged: Mapping[str, Merged]) -> None:
    """Raise `UsageError` where two classes of one priority want different things of one Score of a device."""
    for name, each in sorted(merged.items()):
        for score, between in each.conflicts.items():
            raise UsageError(explain_conflict(score, between, name))


def find_followed(
    merged: Merged, layer: str, scores: Mapping[str, AnyEntry]
) -> dict[str, AnyEntry]:
    """Return those of *scores*, which *layer* has, that a device follows: no upper layer has them, the device
    does not exclude them, and they are in no conflict."""
    return {
        name: entry
        for name, entry in scores.items()
        if merged.layers.get(name) == layer and name not in merged.conflicts
    }
