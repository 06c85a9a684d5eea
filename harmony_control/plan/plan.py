"""What a folder would change: compared with what is signed, by device and by class. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from harmony_control.assets.seal import without_keys
from harmony_control.bus.reports import Reports, Seen
from harmony_control.push.check import find_unable
from harmony_control.push.entries import AnyEntry, serialize
from harmony_control.push.resolve import with_digests
from harmony_control.push.seal import without_current_secrets
from harmony_control.rollout.documents import ClassDocuments, Read, Standing
from harmony_control.rollout.members import read_manifests
from harmony_control.rollout.publish import Wish, find_slotless, make_rollout
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_core.close_names import did_you_mean
from harmony_core.errors import HarmonyError, OutOfScope, UsageError
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.admission import SLOT_LABEL, find_slot
from harmony_core.wire.class_manifest import ClassManifest, Rollout, Window, class_target
from harmony_core.wire.fleet_index import ClassRule, FleetIndex
from harmony_core.wire.gate import Gate
from harmony_core.wire.layers import ClassLayer, Merged
from harmony_core.wire.manifest import Manifest, SerializedScore
from harmony_core.wire.names import FLEET_WIDE, target_of
from harmony_core.wire.selector import parse_selector

from .folder import Folder
from .followed import (
    SelectedLayer,
    find_followed,
    make_own,
    merge_each,
    refuse_conflicts,
    to_layer,
)
from .model import RolloutSpec
from .rollout_words import describe_rollout, find_changed_settings

__all__ = [
    "ClassChange",
    "DeviceChange",
    "Difference",
    "KnownClass",
    "Plan",
    "find_same_slot",
    "make_plan",
    "make_wish",
    "read_classes",
    "serialize_all",
]


@attrs.frozen(kw_only=True)
class Difference:
    """What differs between two sets of Scores, by id."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @classmethod
    def between(
        cls, before: Mapping[str, SerializedScore], after: Mapping[str, SerializedScore]
    ) -> Difference:
        """Return what *after* has that differs from *before*."""
        return cls(
            added=sorted(after.keys() - before.keys()),
            changed=sorted(
                name
                for name in after.keys() & before.keys()
                # The same content has another key with another operator.
                if without_keys(after[name]) != without_keys(before[name])
            ),
            removed=sorted(before.keys() - after.keys()),
        )


@attrs.frozen(kw_only=True)
class ClassChange:
    """A new generation of a class, and why."""

    name: str
    is_new: bool
    scores: Difference
    selector: tuple[str, str] | None = None
    """Before and after, where it changes."""
    priority: tuple[int, int] | None = None
    rollout: Mapping[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    """Before and after, by setting, of those that change of how it is rolled out; as fleet.yaml has them."""
    members: Sequence[str]
    joining: Sequence[str] = ()
    leaving: Sequence[str] = ()
    waiting: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Of members and leaving, by id: who does not start with it, and what to do; as `find_slotless`."""
    unable: Mapping[str, HarmonyError] = attrs.field(factory=dict[str, HarmonyError])
    """The members that could not follow it, as they report what they can, and why."""
    unsigned: OutOfScope | None = None
    """Why those who would sign it may not sign for this class, or change who belongs to it."""
    before: ClassManifest | None = attrs.field(repr=False)
    """What the class is now; None for nothing."""
    wish: Wish = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class DeviceChange:
    """A new manifest of one device, and why."""

    id: str
    labels: Mapping[str, tuple[str | None, str | None]]
    """Before and after, by name, of those that change."""
    scores: Difference
    without: Difference
    wanted_labels: Mapping[str, str]
    wanted_scores: Mapping[str, SerializedScore] | None = attrs.field(repr=False)
    """None: as they are."""
    wanted_without: Sequence[str]
    unable: HarmonyError | None = None
    """Why the device could not follow it, or a class that does not change, as it reports what it can."""
    unsigned: OutOfScope | None = None
    """Why those who would sign it may not sign for this device."""
    before: Manifest | None = attrs.field(repr=False)
    """What the device is to be now; None for nothing."""


@attrs.frozen(kw_only=True)
class Plan:
    """All that would change."""

    classes: Sequence[ClassChange]
    devices: Sequence[DeviceChange]
    retired: Sequence[ClassChange] = ()
    """Classes that the folder does not have: what `apply` takes away with *prune*."""
    not_in_folder: Sequence[str] = ()
    """Devices that the folder does not have, with labels, Scores or `without` of their own. These stay."""
    same_slot: Mapping[str, Mapping[int, Sequence[str]]] = attrs.field(
        factory=dict[str, Mapping[int, Sequence[str]]]
    )
    """Of each class that changes, or in which a label ``slot`` does: the members of one slot, by slot. They
    begin at once."""

    def __bool__(self) -> bool:
        return self.is_to_be_written(prune=False)

    def is_to_be_written(self, *, prune: bool) -> bool:
        """Return whether `apply` would write anything."""
        return bool(self.classes or self.devices or (prune and self.retired))


async def make_plan(
    documents: ClassDocuments, reports: Reports, folder: Folder, *, resolve: bool = True
) -> Plan:
    """Return what *folder* would change.

    Raise `UsageError` for a folder of another fleet, for devices that do not exist, for impossible waves, and
    where two classes of one priority want different things of one Score on some device; `ImageNotFound` or
    `RegistryUnreachable` for an image's tag (not without *resolve*); and what reading the buckets raises.
    """
    spec = folder.spec
    if spec.fleet not in {None, documents.fleet}:
        raise UsageError(
            f"this folder is of the fleet {spec.fleet!r}, and the operator's directory of "
            f"{documents.fleet!r}; use the other directory: --home"
        )
    seen = {each.agent_id: each for each in await reports.read_all_seen()}
    _refuse_unknown(sorted(spec.devices.keys() - seen.keys()), seen)
    manifests = await read_manifests(documents, list(seen.values()))
    devices = [
        new
        for name in sorted(spec.devices)
        if (new := await _plan_device(documents.home, folder, name, manifests.get(name), resolve))
        is not None
    ]
    own: dict[str, Manifest | None] = {name: manifests.get(name) for name in seen}
    own |= {each.id: _foresee(documents.fleet, each) for each in devices}
    labels = {name: each.labels if each else {} for name, each in own.items()}
    index = await documents.read_index()
    known = await read_classes(documents, index)
    wishes = {
        name: await make_wish(documents.home, folder, name, resolve)
        for name in sorted(spec.classes)
    }
    layers = [
        SelectedLayer(
            parse_selector(spec.classes[name].selector), to_layer(documents.fleet, name, wish)
        )
        for name, wish in wishes.items()
    ]
    refuse_conflicts(merge_each(own, layers))
    states = {name: each.state for name, each in seen.items() if each.state is not None}
    staying = (each.find_layer() for name, each in known.items() if name not in spec.classes)
    merged = merge_each(own, [*layers, *(each for each in staying if each is not None)])
    changes = [
        attrs.evolve(change, unable=_find_unable(change, folder, states, merged))
        for name, wish in wishes.items()
        if (change := _plan_class(name, wish, known.get(name), labels)) is not None
    ]
    for each in changes:
        make_rollout(documents.fleet, each.name, 1, each.members, each.wish)
    retired = [
        change
        for name in sorted(known.keys() - spec.classes.keys())
        if (change := _plan_class(name, known[name].empty(), known[name], labels)) is not None
    ]
    unchanged = spec.classes.keys() - {each.name for each in changes}
    devices = [
        attrs.evolve(
            each,
            unable=find_unable(
                states[each.id], _find_scores(each.id, folder, unchanged, merged[each.id])
            ),
        )
        if each.id in states
        else each
        for each in devices
    ]
    slot_changes = {each.id for each in devices if SLOT_LABEL in each.labels}
    same_slot = {
        name: found
        for name in wishes
        if (members := _select(spec.classes[name].selector, labels))
        and (name not in unchanged or members & slot_changes)
        and (found := find_same_slot({each: labels[each] for each in members}))
    }
    return Plan(
        classes=[_look_who_signs(documents, each) for each in changes],
        devices=[
            attrs.evolve(each, unsigned=_find_unsigned(documents, target_of(each.id)))
            for each in devices
        ],
        retired=[_look_who_signs(documents, each) for each in retired],
        not_in_folder=sorted(
            name
            for name, each in manifests.items()
            if name not in spec.devices and (each.labels or each.scores or each.without)
        ),
        same_slot=same_slot,
    )


def _look_who_signs(documents: ClassDocuments, change: ClassChange) -> ClassChange:
    unsigned = _find_unsigned(documents, class_target(change.name))
    if unsigned is None and (change.is_new or change.selector or change.priority):
        unsigned = _find_unsigned(documents, FLEET_WIDE)
    return attrs.evolve(change, unsigned=unsigned)


def _find_unsigned(documents: ClassDocuments, target: str) -> OutOfScope | None:
    try:
        documents.refuse_target(target)
    except OutOfScope as error:
        return error
    return None


def find_same_slot(members: Mapping[str, Mapping[str, str]]) -> dict[int, Sequence[str]]:
    """Return which of *members*, labels by id, have one slot, by slot: they may begin at once, which halves
    of a pair must not. Without a label it is 0. Empty where nobody has such a label."""
    if not any(SLOT_LABEL in labels for labels in members.values()):
        return {}
    found: dict[int, list[str]] = {}
    for agent_id in sorted(members):
        if (slot := find_slot(members[agent_id])) is not None:
            found.setdefault(slot, []).append(agent_id)
    return {slot: those for slot, those in sorted(found.items()) if len(those) > 1}


def _foresee(fleet: str, change: DeviceChange) -> Manifest:
    """Return the device's own manifest as *change* would make it."""
    return make_own(
        fleet,
        change.id,
        change.before,
        labels=change.wanted_labels,
        without=change.wanted_without,
        scores=change.wanted_scores,
    )


def _find_unable(
    change: ClassChange,
    folder: Folder,
    states: Mapping[str, ActualState],
    merged: Mapping[str, Merged],
) -> dict[str, HarmonyError]:
    """Return which members say that they cannot do what they would get, and why. One that was never heard may
    be able to."""
    layer, scores = class_target(change.name), folder.class_scores[change.name]
    return {
        name: error
        for name in change.members
        if name in states
        and (error := find_unable(states[name], find_followed(merged[name], layer, scores)))
    }


def _find_scores(
    agent_id: str, folder: Folder, unchanged: Collection[str], merged: Merged
) -> dict[str, AnyEntry]:
    """Return what the folder lets the device follow: its own Scores, and those of classes that do not change,
    since a class that changes is listed by itself."""
    found = dict(folder.device_scores.get(agent_id, {}))
    for name in sorted(unchanged):
        found |= find_followed(merged, class_target(name), folder.class_scores[name])
    return found


@attrs.frozen
class KnownClass:
    """What the server has of a class."""

    rule: ClassRule
    gate: Read[Gate] | None
    standing: Standing

    @property
    def selector(self) -> str:
        """Who belongs to it: after an abort, who did before."""
        manifest = self.standing.manifest
        found = self.rule.find_selector_text(manifest.generation) if manifest else None
        return self.rule.selectors[0].selector if found is None else found

    def find_layer(self) -> SelectedLayer | None:
        """Return what the devices of the class have of it; None where there is nothing, or nobody knows who
        they are."""
        manifest = self.standing.manifest
        if manifest is None:
            return None
        selector = self.rule.find_selector(manifest.generation)
        if selector is None:
            return None
        return SelectedLayer(selector, ClassLayer(manifest, self.rule.priority))

    def empty(self) -> Wish:
        """Return the class without its Scores; all else stays, and so do its settings of the rollout."""
        standing = self.standing
        return Wish(selector=None, scores={}, upto=standing.upto, settings=standing.rollout)


async def read_classes(
    documents: ClassDocuments, index: Read[FleetIndex] | None
) -> dict[str, KnownClass]:
    """Return every class of *index*, by name."""
    found: dict[str, KnownClass] = {}
    for name, rule in (index.value.classes if index else {}).items():
        gate = await documents.read_gate(name, index)
        found[name] = KnownClass(rule, gate, await documents.read_standing(name, gate))
    return found


def _refuse_unknown(unknown: Sequence[str], known: Mapping[str, Seen]) -> None:
    if unknown:
        hint = did_you_mean(unknown[0], known)
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UsageError(
            f"there is no device {unknown[0]}{more} in this fleet{hint}; let it in first: harmony enroll "
            "root@HOST"
        )


async def serialize_all(
    home: Home, entries: Mapping[str, AnyEntry], *, resolve: bool
) -> dict[str, SerializedScore]:
    """Return *entries* as they would stand in a manifest; with *resolve*, tags of images as digests."""
    resolved = await with_digests(entries, FleetSecrets(home)) if resolve else entries
    return {name: serialize(name, entry) for name, entry in resolved.items()}


async def _plan_device(
    home: Home, folder: Folder, name: str, manifest: Manifest | None, resolve: bool
) -> DeviceChange | None:
    spec = folder.spec.devices[name]
    secrets = FleetSecrets(home)
    before = (
        {each.id: without_current_secrets(secrets, each) for each in manifest.scores}
        if manifest
        else {}
    )
    wanted = None
    if name in folder.device_scores:
        wanted = await serialize_all(home, folder.device_scores[name], resolve=resolve)
    labels = manifest.labels if manifest else {}
    changed = {
        label: (labels.get(label), spec.labels.get(label))
        for label in sorted({*labels, *spec.labels})
        if labels.get(label) != spec.labels.get(label)
    }
    scores = Difference.between(before, wanted) if wanted is not None else Difference()
    had, has = set(manifest.without if manifest else ()), set(spec.without)
    without = Difference(added=sorted(has - had), removed=sorted(had - has))
    if not (changed or scores or without):
        return None
    return DeviceChange(
        id=name,
        labels=changed,
        scores=scores,
        without=without,
        wanted_labels=spec.labels,
        wanted_scores=wanted,
        wanted_without=spec.without,
        before=manifest,
    )


async def make_wish(home: Home, folder: Folder, name: str, resolve: bool) -> Wish:
    """Return what *folder* wants the class *name* to be."""
    spec = folder.spec.classes[name]
    return Wish(
        selector=spec.selector,
        priority=spec.priority,
        scores=await serialize_all(home, folder.class_scores[name], resolve=resolve),
        upto=[(each.upto, each.soak) for each in spec.rollout.steps],
        settings=_settings(spec.rollout),
    )


def _settings(spec: RolloutSpec) -> Rollout:
    return Rollout(
        canary=spec.canary,
        success_percent=spec.success,
        unhealthy_percent=spec.max_unhealthy,
        online_percent=spec.online_min,
        deadline_s=spec.deadline,
        windows=tuple(
            Window(days=each.days, begin=each.begin, until=each.until) for each in spec.windows
        ),
        on_stop=spec.on_stop,
    )


def _plan_class(
    name: str, wish: Wish, known: KnownClass | None, labels: Mapping[str, Mapping[str, str]]
) -> ClassChange | None:
    before = known.standing.manifest if known else None
    scores = Difference.between(
        {each.id: each for each in before.scores} if before else {}, wish.scores
    )
    former = known.selector if known else None
    selector = former if wish.selector is None else wish.selector
    assert selector is not None
    priority = known.rule.priority if known else 0
    wanted = priority if wish.priority is None else wish.priority
    had = _select(former, labels) if former is not None and before is not None else set[str]()
    has = _select(selector, labels)
    is_new = known is None or known.gate is None
    rollout: dict[str, tuple[str, str]] = {}
    if known is not None and not is_new:
        standing = known.standing
        rollout = find_changed_settings(
            describe_rollout(standing.upto, standing.rollout),
            describe_rollout(wish.upto, wish.settings),
        )
    if not (is_new or scores or former != selector or priority != wanted or rollout):
        return None
    return ClassChange(
        name=name,
        is_new=is_new,
        scores=scores,
        selector=(former or "", selector) if former != selector else None,
        priority=(priority, wanted) if priority != wanted else None,
        rollout=rollout,
        members=sorted(has),
        joining=sorted(has - had),
        leaving=sorted(had - has),
        waiting=find_slotless({each: labels[each] for each in had | has}),
        before=before,
        wish=wish,
    )


def _select(selector: str, labels: Mapping[str, Mapping[str, str]]) -> set[str]:
    found = parse_selector(selector)
    return {name for name, each in labels.items() if found.matches(each)}
