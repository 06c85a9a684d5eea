"""A new generation of a class: written, and its first wave opened.

    assets -> class manifest -> fleet index, where who belongs to the class changes
           -> gate of the first wave -> hints

In this order, so that who is interrupted anywhere has changed no device, and goes on by doing it again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import attrs
from pydantic import ValidationError

from harmony_control.assets.seal import assets_of, give_keys
from harmony_control.assets.upload import upload
from harmony_control.bus.classes import hint_devices
from harmony_control.bus.reports import Reports, Seen
from harmony_core.errors import RevisionConflict, StoreError, UsageError
from harmony_core.resources import first_problem
from harmony_core.wire.admission import (
    HOW_TO_MEND_SLOTS,
    explain_slot,
    find_place,
    find_slot,
    find_step,
)
from harmony_core.wire.class_manifest import (
    PLACES,
    ClassManifest,
    Rollout,
    Step,
    class_target,
    explain_class_secret,
)
from harmony_core.wire.fleet_index import ClassRule, FleetIndex, Selected
from harmony_core.wire.gate import Gate
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import FLEET_WIDE
from harmony_core.wire.selector import parse_selector

from .documents import ClassDocuments, Read, Standing
from .index import change_index

__all__ = [
    "Published",
    "Wish",
    "WishFor",
    "complete_waves",
    "make_rollout",
    "publish",
    "steps_of",
]

_TRIES = 20


@attrs.frozen(kw_only=True)
class Wish:
    """What a class is to be."""

    selector: str | None
    """Who belongs to it; None: as before, and after an abort as before that."""
    priority: int | None = None
    scores: Mapping[str, SerializedScore]
    """All of them, by id."""
    upto: Sequence[tuple[str, int]] = ()
    """The waves: how many devices, as ``1%`` or ``5``, and for how many seconds they are to soak. Where the
    last is not ``100%``, another comes that is; so with none, everybody is reached at once."""
    settings: Rollout = attrs.field(factory=Rollout)
    """All else of how it is rolled out."""

    def __attrs_post_init__(self) -> None:
        if (why := explain_class_secret(self.scores.values())) is not None:
            raise UsageError(why)


WishFor: TypeAlias = Callable[[Standing], Wish]
"""From what a class is now to what it is to be."""


@attrs.frozen(kw_only=True)
class Published:
    """A generation whose first wave is open."""

    name: str
    generation: int
    supersedes: int
    members: Sequence[str]
    """By id: who belongs to the class by this generation."""
    leaving: Sequence[str]
    """Who belonged to it, and does no more."""
    first_wave: Sequence[str]
    waiting: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Of `members` and `leaving`, by id: who does not start with it, and what to do; as `find_slotless`."""


def _refuse_running(gate: Read[Gate] | None) -> None:
    """Raise `UsageError` where a rollout has not ended."""
    if gate is not None and gate.value.state in {"running", "paused"}:
        raise UsageError(
            f"generation {gate.value.generation} of {gate.value.name} is being rolled out "
            f"({gate.value.state}); let it end, or: harmony rollout abort {gate.value.name}"
        )


async def publish(
    documents: ClassDocuments, reports: Reports, name: str, wish_for: WishFor
) -> Published:
    """Write a new generation of the class *name*, and open its first wave.

    Ask *wish_for* again where somebody else was quicker; raise what it raises. Raise `UsageError` where a
    rollout of the class has not ended, for what cannot be a selector or a wave, and for a class that does not
    exist and for which no selector is given; `MissingCapability` for an image that does not run on a device
    of it; `OutOfScope`; `StoreError`s, after which it can be repeated.
    """
    for _ in range(_TRIES):
        index = await documents.read_index()
        gate = await documents.read_gate(name, index)
        _refuse_running(gate)
        standing = await documents.read_standing(name, gate)
        wish = wish_for(standing)
        known = standing.manifest.scores if standing.manifest else ()
        keyed = await asyncio.to_thread(give_keys, documents.home, wish.scores, known)
        wish = attrs.evolve(wish, scores=keyed)
        try:
            return await _publish(documents, reports, name, wish, index, gate, known)
        except RevisionConflict:
            continue  # somebody else was quicker: what it stands on may be another thing by now
    raise StoreError(f"others keep writing the class {name} at the same time; try again")


async def _publish(
    documents: ClassDocuments,
    reports: Reports,
    name: str,
    wish: Wish,
    index: Read[FleetIndex] | None,
    gate: Read[Gate] | None,
    known: Collection[SerializedScore],
) -> Published:
    """Publish what *wish* wants of the class *name*. *known* are the Scores of the class as it is now."""
    stable, stable_sha256 = gate.value.settled if gate is not None else (0, None)
    seen = await reports.read_all_seen()
    layers = [each.state.layers.get(class_target(name)) for each in seen if each.state]
    generation = await documents.find_next_generation(
        name, gate, [each.wanted for each in layers if each is not None]
    )
    rule = _next_rule(name, index.value if index else None, wish, generation, stable)
    labels = {each.agent_id: each.labels for each in seen}
    members = _select(rule, generation, labels)
    before = _select(rule, stable, labels) if stable else []
    if any("image_blobs" in each.spec for each in wish.scores.values()):
        from harmony_control.push.platforms import check_platforms

        otherwise = "leave it out by the class's selector"
        await check_platforms(reports, members, wish.scores, otherwise=otherwise)
    rollout = make_rollout(documents.fleet, name, generation, members, wish)
    manifest = ClassManifest(
        fleet=documents.fleet,
        target=class_target(name),
        epoch=documents.epoch,
        generation=generation,
        issued_at=datetime.now(UTC),
        removals_allowed=_count_removed(name, wish.scores.keys(), seen),
        scores=tuple(wish.scores.values()),
        supersedes=stable,
        rollout=rollout,
    )
    # Only now: what is refused is put nowhere.
    documents.refuse_unscoped(sorted({each.kind for each in manifest.scores}), manifest.target)
    if _change_rule(name, index.value if index else None, wish, generation, stable):
        documents.refuse_unscoped(["*"], FLEET_WIDE)
    await upload(documents.client, assets_of(wish.scores.values()), assets_of(known))
    sha256 = await documents.write_manifest(manifest)
    await change_index(
        documents, reports, lambda known: _change_rule(name, known, wish, generation, stable)
    )
    waves = {
        each: find_step(rollout, find_place(documents.fleet, name, generation, each), labels[each])
        for each in {*members, *before}
    }
    slots = {each: find_slot(labels[each]) or 0 for each, step in waves.items() if step == 0}
    slot = min(slots.values(), default=0)
    await documents.write_gate(
        Gate(
            fleet=documents.fleet,
            name=name,
            epoch=documents.epoch,
            generation=generation,
            sha256=sha256,
            stable_generation=stable,
            stable_sha256=stable_sha256,
            state="running",
            step=0,
            slot=slot,
            places=rollout.steps[0].places,
            canary=rollout.canary,
            term=gate.value.term if gate else 1,
            seq=1,
            issued_at=datetime.now(UTC),
            reason=f"wave 1 of {len(rollout.steps)}: {rollout.steps[0].upto}",
        ),
        gate,
    )
    opened = sorted(each for each, own in slots.items() if own <= slot)
    await hint_devices(documents.client, opened, name)
    return Published(
        name=name,
        generation=generation,
        supersedes=stable,
        members=members,
        leaving=sorted(set(before) - set(members)),
        first_wave=opened,
        waiting=find_slotless({each: labels[each] for each in waves}),
    )


def _change_rule(
    name: str, index: FleetIndex | None, wish: Wish, generation: int, stable: int
) -> Mapping[str, object]:
    classes = index.classes if index is not None else {}
    rule = _next_rule(name, index, wish, generation, stable)
    return {} if classes.get(name) == rule else {"classes": {**classes, name: rule}}


def _next_rule(
    name: str, index: FleetIndex | None, wish: Wish, generation: int, stable: int
) -> ClassRule:
    """Return who belongs to the class from *generation* on, which supersedes *stable*, and who did before."""
    known = index.classes.get(name) if index is not None else None
    if wish.selector is not None:
        parse_selector(wish.selector)
    if known is None:
        if wish.selector is None:
            raise UsageError(
                f"there is no class {name!r} yet; say who belongs to it, such as: --selector role={name}"
            )
        return ClassRule(
            priority=wish.priority or 0,
            selectors=(Selected(since=generation, selector=wish.selector),),
        )
    selectors = known.selectors
    wanted = known.find_selector_text(stable) if wish.selector is None else wish.selector
    if wanted is not None and wanted != selectors[0].selector:
        selectors = (Selected(since=generation, selector=wanted), *selectors)[:8]
    priority = known.priority if wish.priority is None else wish.priority
    return ClassRule(priority=priority, selectors=selectors)


def _select(rule: ClassRule, generation: int, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    selector = rule.find_selector(generation)
    if selector is None:
        return []
    return sorted(each for each, found in labels.items() if selector.matches(found))


def find_slotless(labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return which devices have a label ``slot`` that is no number, of *labels* by id, and what to do about
    it. They start with no generation, and keep nobody else from that."""
    return {
        agent_id: f"{agent_id} starts with no generation: label slot: {why}; {HOW_TO_MEND_SLOTS}, "
        f"such as: harmony label {agent_id} slot=1"
        for agent_id, each in sorted(labels.items())
        if (why := explain_slot(each))
    }


def make_rollout(
    fleet: str, name: str, generation: int, members: Collection[str], wish: Wish
) -> Rollout:
    """Return how that generation reaches *members*. Raise `UsageError` for impossible waves and settings."""
    try:
        steps = steps_of(fleet, name, generation, members, wish.upto)
        return Rollout.model_validate({**dict(wish.settings), "steps": steps})
    except ValidationError as error:
        raise UsageError(f"the rollout of {name}: {first_problem(error, Rollout)}") from error


def complete_waves(upto: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
    """Return *upto* with a last wave that is everybody."""
    return upto if upto and upto[-1][0] == "100%" else [*upto, ("100%", 0)]


def steps_of(
    fleet: str,
    name: str,
    generation: int,
    members: Collection[str],
    upto: Sequence[tuple[str, int]],
) -> tuple[Step, ...]:
    """Return the waves, each with exactly as many of *members* as *upto* says: percents are rounded to the
    nearest number, and at least 1; the last wave is everybody. `UsageError` for what is no number."""
    places = sorted(find_place(fleet, name, generation, each) for each in members)
    steps: list[Step] = []
    for text, soak_s in complete_waves(upto):
        count = _count(text, len(places))
        bound = PLACES if count >= len(places) else places[count - 1] + 1 if count else 0
        steps.append(Step(upto=text, places=bound, soak_s=soak_s))
    if [each.places for each in steps] != sorted(each.places for each in steps):
        raise UsageError("each wave must reach as many devices as the one before, or more")
    return (*steps[:-1], steps[-1].model_copy(update={"places": PLACES}))


def _count(text: str, of: int) -> int:
    number = text.removesuffix("%").strip()
    try:
        value = float(number) if text.endswith("%") else int(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf or (text.endswith("%") and value > 100):
        raise UsageError(f"{text!r} is no wave: write how many devices, such as 5, 1% or 100%")
    if not text.endswith("%"):
        return min(int(value), of)
    return 0 if value == 0 else max(1, round(value / 100 * of))


def _count_removed(name: str, kept: Collection[str], seen: Sequence[Seen]) -> int:
    """Return how many resources of one device may be removed because they are named: the most that any device
    has of the Scores that this generation of the class no longer has; 0 where the removal of one would delete
    data for good."""
    gone = [
        [
            page
            for score, page in each.state.scores.items()
            if page.layer == class_target(name) and score not in kept
        ]
        for each in seen
        if each.state is not None
    ]
    if any(page.deletes_data for pages in gone for page in pages):
        return 0
    return max((sum(page.resources_total for page in pages) for pages in gone), default=0)
