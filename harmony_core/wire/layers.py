"""Layers: what a device is to be in all, out of its own manifest and those of its classes. Pure.

    its own manifest > the class with the highest priority > … > the lowest

Where two have a Score of one id, the upper is followed. Two classes of the same priority that have one are in
conflict: neither is followed, and the Score says so. `Manifest.without` names what the device does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from .actual_state import OWN_LAYER
from .class_manifest import ClassManifest
from .manifest import SCORES_MOST, Manifest, SerializedScore

__all__ = ["ClassLayer", "Merged", "explain_conflict", "merge"]


@attrs.frozen
class ClassLayer:
    """What one class asks of a device."""

    manifest: ClassManifest
    priority: int

    @property
    def name(self) -> str:
        """Return the layer's name: ``class:`` and the class."""
        return self.manifest.target


@attrs.frozen(kw_only=True)
class Merged:
    """All that is asked of a device."""

    entries: Mapping[str, SerializedScore]
    """By id, in the order of the layers, the device's own first."""
    layers: Mapping[str, str]
    """By a Score's id: the name of its layer."""
    conflicts: Mapping[str, tuple[str, ...]]
    """By id: the layers of one priority that each have such a Score. The entry is one of theirs."""
    too_many: frozenset[str] = frozenset()
    """The layers that are left out whole, since there would be more Scores than a device can report on."""


def merge(own: Manifest | None, classes: Sequence[ClassLayer]) -> Merged:
    """Return the result of *own*, a device's manifest, and its *classes*."""
    entries: dict[str, SerializedScore] = {}
    layers: dict[str, str] = {}
    conflicts: dict[str, tuple[str, ...]] = {}
    too_many: set[str] = set()
    priorities: dict[str, int] = {}
    without = set(own.without) if own is not None else set[str]()
    for entry in own.scores if own is not None else ():
        entries[entry.id], layers[entry.id] = entry, OWN_LAYER
    for layer in sorted(classes, key=lambda each: (-each.priority, each.name)):
        wanted = [each for each in layer.manifest.scores if each.id not in without]
        new = [each for each in wanted if each.id not in entries]
        if len(entries) + len(new) > SCORES_MOST:
            too_many.add(layer.name)
            continue
        for entry in wanted:
            if entry.id not in entries:
                entries[entry.id], layers[entry.id] = entry, layer.name
                priorities[entry.id] = layer.priority
            elif priorities.get(entry.id) == layer.priority and entry != entries[entry.id]:
                known = conflicts.get(entry.id, (layers[entry.id],))
                conflicts[entry.id] = (*known, layer.name)
    return Merged(entries=entries, layers=layers, conflicts=conflicts, too_many=frozenset(too_many))


def explain_conflict(score: str, between: Sequence[str], agent_id: str = "") -> str:
    """Return in words that the layers *between* which a Score stands are in conflict, on that device."""
    both = f", both select {agent_id}," if agent_id else ","
    return (
        f"{' and '.join(between)} have the same priority{both} and each has another Score {score!r}; give "
        "one class a higher priority, or rename one of the Scores"
    )
