"""What is in force: the device's own manifest and those of its classes, as one.

Another object whenever anything of it changes, so that whoever has worked for one can tell that it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import attrs

from harmony_core.errors import ClassConflict, EntryRefused
from harmony_core.wire.actual_state import OWN_LAYER, LayerPhase
from harmony_core.wire.manifest import Accepted, SerializedScore
from harmony_core.wire.ordering import graph_faults

if TYPE_CHECKING:
    from harmony_core.wire.class_manifest import ClassManifest  # a device of no class needs none

__all__ = ["FollowedClass", "InForce", "LayerNote"]


@attrs.frozen(kw_only=True)
class FollowedClass:
    """One generation of a class, which this device follows."""

    manifest: ClassManifest
    priority: int
    keyids: Sequence[str]
    """Who has signed it."""


@attrs.frozen(kw_only=True)
class LayerNote:
    """What is known of one class here, apart from its Scores: see `LayerStatus`."""

    generation: int
    wanted: int
    gate: tuple[int, int] | None
    phase: LayerPhase
    reason: str
    message: str
    since: str


@attrs.frozen(kw_only=True, eq=False)
class InForce:
    """Made by `of`."""

    own: Accepted | None
    classes: Sequence[FollowedClass] = ()
    entries: Mapping[str, SerializedScore]
    """By id; each as the very object that it was before, where it says the same."""
    faults: Mapping[str, EntryRefused]
    """Entries that cannot be followed."""
    followers: Mapping[str, Sequence[str]]
    """Who waits for an entry, by its id; who has no followers is not in it."""
    left_out: frozenset[str] = frozenset()
    """The layers of which nothing is followed, since there would be too many Scores."""
    newest_keyids: Sequence[str] = ()
    """Who has signed what came into force last."""
    class_layers: Mapping[str, str]
    """Of a Score of a class, that layer; by id."""

    @classmethod
    def of(
        cls,
        own: Accepted | None,
        classes: Sequence[FollowedClass],
        *,
        before: InForce | None,
        newest_keyids: Sequence[str],
    ) -> Self:
        """Return the result of *own* and *classes*, where *before* was effective."""
        known: Mapping[str, SerializedScore] = before.entries if before is not None else {}
        layers: Mapping[str, str] = {}
        conflicts: Mapping[str, ClassConflict] = {}
        left_out: frozenset[str] = frozenset()
        if classes:
            from harmony_core.wire.layers import (  # noqa: PLC0415 - as above
                ClassLayer,
                explain_conflict,
                merge,
            )

            merged = merge(
                own.manifest if own else None,
                [ClassLayer(each.manifest, each.priority) for each in classes],
            )
            scores: Sequence[SerializedScore] = tuple(merged.entries.values())
            layers, left_out = merged.layers, merged.too_many
            conflicts = {
                name: ClassConflict(explain_conflict(name, between))
                for name, between in merged.conflicts.items()
            }
        else:
            scores = own.manifest.scores if own else ()
        return cls(
            own=own,
            classes=tuple(classes),
            entries={entry.id: _reuse(entry, known) for entry in scores},
            faults={**graph_faults(scores), **conflicts},
            followers=_followers(scores),
            left_out=left_out,
            newest_keyids=newest_keyids,
            class_layers={name: layer for name, layer in layers.items() if layer != OWN_LAYER},
        )

    @property
    def generation(self) -> int:
        """Return that of the device's own manifest; 0 for none."""
        return self.own.manifest.generation if self.own else 0

    def layer_of(self, score: str) -> str:
        """Return the layer that *score* comes from; of one that is not wanted, the device's own."""
        return self.class_layers.get(score, OWN_LAYER)

    def generation_of(self, score: str) -> int:
        """Return the generation of the manifest that *score* comes from, in its own layer."""
        followed = self._find(score)
        return self.generation if followed is None else followed.manifest.generation

    def keyids_of(self, score: str) -> Sequence[str]:
        """Return who has signed the manifest that *score* comes from; for a Score that is gone, the
        newest."""
        if score not in self.entries:
            return self.newest_keyids
        followed = self._find(score)
        if followed is not None:
            return followed.keyids
        return self.own.keyids if self.own else ()

    @property
    def removals_allowed(self) -> int:
        """Return how many resources may go at once, by all that is in force."""
        own = self.own.manifest.removals_allowed if self.own else 0
        return own + sum(each.manifest.removals_allowed for each in self.classes)

    def layer_generation(self, layer: str) -> int:
        """Return the effective generation of *layer*; 0 where there is none."""
        if layer == OWN_LAYER:
            return self.generation
        followed = self._find_class(layer)
        return followed.manifest.generation if followed is not None else 0

    def _find(self, score: str) -> FollowedClass | None:
        return self._find_class(self.class_layers.get(score))

    def _find_class(self, layer: str | None) -> FollowedClass | None:
        return next((each for each in self.classes if each.manifest.target == layer), None)


def _reuse(entry: SerializedScore, known: Mapping[str, SerializedScore]) -> SerializedScore:
    """Return the object that *entry* was before, if it says the same, as most do; else *entry*."""
    before = known.get(entry.id)
    # Their fields, since pydantic's own comparison is ten times as slow.
    return before if before is not None and before.__dict__ == entry.__dict__ else entry


def _followers(entries: Sequence[SerializedScore]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        for waited_for in entry.after:
            found.setdefault(waited_for, []).append(entry.id)
    return found
