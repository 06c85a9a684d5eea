"""Baselines: how each Score was when it was last found in order. What differs from that has drifted.

    found in order -> baseline -> a change is due -> wanted otherwise, or again?  -> "desired", no drift
                                                  -> a file that it uses changed? -> "dependency"
                                                  -> switched off, and not kept?  -> "boot"
                                                  -> else                         -> "drift"

A baseline lasts as long as the Score's entry is the same: over newer manifests, and over restarts. It ends
when the entry, or a fact that the Score reads, has changed; and when something that no Score has made
stands in its way, since what mends that is no drift of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from harmony_agent.plan.device import Device, find_reconciler
from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.events import Cause
from harmony_core.change import Change
from harmony_core.inventory import Facts
from harmony_core.reconciler import Placed
from harmony_core.resources import File, Resource, ResourceId, resource_id
from harmony_core.wire.manifest import SerializedScore, spec_hash

from .boot_marker import BootMarker

__all__ = ["Baseline", "Baselines"]


@attrs.frozen(kw_only=True)
class Baseline:
    """What a Score was like when it was last found in order."""

    entry: SerializedScore
    wants: Mapping[str, str]
    """The hash of each resource's specification, by id."""
    looked: int
    """How many changes had been made on this device when it was looked at."""
    places: Mapping[str, str]
    """Where each reconciler acted that says so, by type of resource."""
    since_boot: bool
    """Whether that was since the device was switched on."""
    recalled: bool = False
    """Whether it was the last run that found it so."""

    def includes(self, wanted: Mapping[str, Resource]) -> bool:
        """Return whether all that is *wanted* was wanted then, with the same specifications."""
        return all(self.wants.get(rid) == each.spec_hash for rid, each in wanted.items())


class Baselines:
    """Knows what was in order when, and so why a change is due."""

    def __init__(self, device: Device, boot_marker: BootMarker) -> None:
        self._device = device
        self._boot_marker = boot_marker
        self._placed = [each for each in device.offers.values() if isinstance(each, Placed)]
        self._baselines: dict[str, Baseline] = {}
        self._facts_read: dict[str, frozenset[str]] = {}
        # Changes are counted, so that "was that file changed after I was looked at?" needs no clock. A look
        # begins before it sees anything: it may have missed whatever was changed since. A baseline made of
        # the plans of a manifest was looked at after that manifest came, whenever its Score's turn was.
        self._changes = self._changes_before_manifest = 0
        self._changed_at: dict[str, int] = {}
        """Which of all changes was the newest of each resource."""
        self._look_began_at: dict[str, int] = {}

    def keep_unchanged(self, entries: Iterable[SerializedScore]) -> None:
        """Drop the baselines of all that *entries*, which are effective now, want in another form."""
        wanted = {entry.id: entry for entry in entries}
        for score, baseline in list(self._baselines.items()):
            entry = wanted.get(score)
            if entry is None or (
                entry is not baseline.entry and spec_hash(entry) != spec_hash(baseline.entry)
            ):
                del self._baselines[score]
        self._changes_before_manifest = self._changes
        oldest = min((each.looked for each in self._baselines.values()), default=self._changes)
        self._changed_at = {rid: at for rid, at in self._changed_at.items() if at > oldest}

    def recall(self, entry: SerializedScore, wants: Mapping[str, str]) -> None:
        """Take *entry* as in order, since the last run left it so, with these hashes by resource id."""
        self._baselines[entry.id] = Baseline(
            entry=entry,
            wants=wants,
            looked=self._changes,
            places=self._places(),
            since_boot=entry.id in self._boot_marker,
            recalled=True,
        )

    def settle(self, result: RunResult) -> None:
        """Take what *result* has found, which is all in order, as its Score's baseline."""
        score = result.entry.id
        self._boot_marker.add(score)
        self._baselines[score] = Baseline(
            entry=result.entry,
            wants={rid: wanted.spec_hash for rid, wanted in result.wanted.items()},
            looked=max(self._look_began_at.get(score, 0), self._changes_before_manifest),
            places=self._places(),
            since_boot=True,
        )

    def get(self, score: str) -> Baseline | None:
        """Return the baseline of *score*; None where it is not known to have been in order."""
        return self._baselines.get(score)

    def drop(self, score: str) -> None:
        """Forget the baseline of *score*: what is changed for it next is no drift."""
        self._baselines.pop(score, None)

    def forget(self, score: str) -> None:
        """Forget everything about *score*, which is no longer wanted."""
        self.drop(score)
        self._look_began_at.pop(score, None)
        self._facts_read.pop(score, None)

    def count_change(self, change: Change) -> None:
        """Count *change*, for whatever Score it was made."""
        self._changes += 1
        self._changed_at[change.resource] = self._changes

    def begin_look(self, score: str) -> None:
        """Note that a look at *score* begins: it may not see what is changed from now on."""
        self._look_began_at[score] = self._changes

    def note_facts_read(self, score: str, names: Iterable[str]) -> None:
        """Note which facts and labels *score* reads."""
        self._facts_read[score] = frozenset(names)

    def update_facts(self, facts: Facts) -> None:
        """Set *facts* as the device's; what is changed because one of them has changed is not drift."""
        before = attrs.asdict(self._device.facts, recurse=False)
        after = attrs.asdict(facts, recurse=False)
        changed = {name for name, value in after.items() if before[name] != value}
        self._device.facts = facts
        for score, names in self._facts_read.items():
            if names & changed:
                self.drop(score)

    def find_drift(self, result: RunResult) -> list[Change]:
        """Return those of *result*'s changes that are due because somebody else has changed something."""
        baseline = self._baselines.get(result.entry.id)
        if baseline is None or not baseline.includes(result.wanted):
            return []
        return [
            change
            for change in result.changes
            if self.cause(change, result.wanted, baseline) == "drift"
        ]

    def cause(
        self, change: Change, wanted: Mapping[str, Resource], baseline: Baseline
    ) -> Cause | None:
        """Return why *change* is due, where all was as in *baseline*; None where the manifest wants another
        state."""
        resource = wanted.get(change.resource)
        if resource is None:  # it is to be gone: that is no news only if it was to be so then
            is_news = change.resource in baseline.wants or not baseline.includes(wanted)
        else:
            is_news = baseline.wants.get(change.resource) != resource.spec_hash
        resource_type = ResourceId.parse(change.resource).resource_type
        if is_news or baseline.places.get(resource_type) != self._places().get(resource_type):
            return None
        if getattr(resource, "recurring", False):
            return None  # it is wanted again
        used: Sequence[str] = getattr(resource, "uses", ())
        if any(
            self._changed_at.get(resource_id(File.resource_type, path), 0) > baseline.looked
            for path in used
        ):
            return "dependency"
        if not baseline.since_boot and not self._survives_reboot(change.resource):
            return "boot"
        return "drift"

    def _survives_reboot(self, changed: str) -> bool:
        resource_type, key = ResourceId.parse(changed)
        reconciler = find_reconciler(self._device.offers, resource_type)
        return reconciler is not None and reconciler.resource_class.survives_reboot(key)

    def _places(self) -> Mapping[str, str]:
        return {each.resource_class.resource_type: each.place for each in self._placed}
