"""One unit on its way through one converge: what was found, what is due, what has been done.

    begun -> steps due? -> noted (a record, before the first effect) -> … -> after (a record, at the end)

Shared by every reconciler of units. Killed between any two steps, the next pass finds from the record and
the disk what is still due.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError
from harmony_core.reconciler import JsonRecord
from harmony_core.resources import SystemdUnit

from .health_rules import ended_before_it_settled
from .plan import Steps, expected_state, refuse_what_cannot_be, steps_due, unit_diff
from .records import ITS_FILE, Contents, FoundUnit, UnitRecord, contents

__all__ = ["UnitPass", "begun"]


@attrs.frozen(kw_only=True)
class UnitPass:
    """Made by `begun`."""

    unit: SystemdUnit
    found: FoundUnit
    record: UnitRecord
    """As it was when the pass began."""
    before: bytes | None
    """The unit file that was there."""
    before_as_ours: bool
    prior: JsonRecord
    """Mode, owner and extras of that file."""
    now: Contents
    wish: Contents
    steps: Steps
    job_result: str | None = "done"
    """None while its job is under way."""

    @property
    def reloads(self) -> bool:
        """Whether unit files have to be read: this one was not noted as read, links change, or it is
        started from a drop-in that it uses."""
        steps, unit = self.steps, self.unit
        unread = unit.content is not None and self.record.loaded != self.wish[ITS_FILE]
        starts = steps.job in {"start", "restart"}
        drops_in = starts and any(f"/{unit.name}.d/" in path for path in unit.uses)
        changes = steps.disable or steps.enable or steps.write is not None
        return unread or drops_in or changes or self.found.is_masked

    @property
    def acts(self) -> bool:
        return bool(self.steps) or self.reloads

    @property
    def replaces_another_s(self) -> bool:
        """Whether a file that is not ours is about to be written over, for the first time."""
        return self.steps.write == "replace" and not self.record.wrote

    @property
    def noted(self) -> UnitRecord:
        """The record from before the first effect; for a removal, too, if we get no further than this."""
        record, starts = self._with_deeds, self.steps.job in {"start", "restart"}
        if (self.found.is_up or self.found.is_coming) and not record.is_of(self.found):
            # Before its file is replaced: later it could not be told any more what it was started from.
            record = record.of_run(self.found, record.origin(self.found, self.now))
        return attrs.evolve(
            record,
            loaded="" if self.reloads else record.loaded,
            starting_from=dict(self.wish) if starts else {},
        )

    def has_just_failed(self, told: str | None) -> bool:
        """Whether it would only be started again after a failure that nobody has heard of.

        *told* is the invocation whose failure was told last.
        """
        found, record = self.found, self.record
        return (
            self.only_starts
            and found.invocation != told
            and record.is_of(found)
            and not record.changed(self.wish)
            and ended_before_it_settled(self.unit, found)
        )

    @property
    def only_starts(self) -> bool:
        """Nothing else is due, so that nothing speaks for its going better this time."""
        return self.steps == Steps(job="start")

    def after(self, found: FoundUnit) -> UnitRecord:
        """The record, once *found* is what became of it."""
        loaded = self.wish.get(ITS_FILE, "")
        record = attrs.evolve(self._with_deeds, loaded=loaded, starting_from={})
        if self.steps.job in {"start", "restart"}:
            return record.of_run(found, self.wish)
        # A start that systemd repeats by itself is compared with the record until it is up.
        begins = found.is_coming and not record.is_of(found) and found.restarts <= record.restarts
        if found.is_up or begins or record.has_run(found):
            return record.of_run(found, self.record.origin(found, self.now))
        return record

    @property
    def _with_deeds(self) -> UnitRecord:
        """The record, with what removal will have to undo."""
        record, steps = self.record, self.steps
        first_written = steps.write is not None and not record.wrote
        if self.replaces_another_s:
            record = attrs.evolve(record, prior=dict(self.prior))
        if steps.write is not None and (self.replaces_another_s or record.prior is not None):
            record = record.replacing_with(self.wish[ITS_FILE])
        return attrs.evolve(
            record,
            existed=self.before is not None if first_written else record.existed,
            wrote=record.wrote or steps.write is not None,
            enabled=(record.enabled or steps.enable) and not steps.disable,
            started=(record.started or steps.job == "start") and steps.job != "stop",
            disabled=(record.disabled or steps.disable) and not steps.enable,
            stopped=(record.stopped or steps.job == "stop") and steps.job in {None, "stop"},
            left=False,
        )

    def planned(self, *, now: str) -> Change:
        """What its steps would do. *now* is RFC 3339."""
        after = expected_state(self.unit, self.found, self.steps, now=now)
        return attrs.evolve(self.change(self.found, None), after=after)

    def change(self, found: FoundUnit, pending: NotReady | None) -> Change:
        """What its steps did, *found* being how it is now."""
        before = self.before if self.before_as_ours else None
        return Change(
            resource=self.unit.id,
            actions=self.steps.words,
            before=self.found.state,
            after=found.state,
            diff=unit_diff(self.unit, before, self.steps),
            pending=pending,
        )


def begun(
    unit: SystemdUnit,
    found: FoundUnit,
    record: UnitRecord | None,
    *,
    file: bytes | None,
    as_ours: bool,
    uses: Mapping[str, str],
    prior: JsonRecord | None = None,
    obstacle: CapabilityError | None = None,
    gives_way: bool = False,
) -> UnitPass:
    """The pass of *unit*. Raises what stands in its way.

    *file* is the unit file in our place, *as_ours* whether its mode and owner are as we write them, *prior*
    what they are, *uses* the digests of the files that it uses. *obstacle* is why no file can be written
    there; where the place is ours and the obstacle *gives_way*, it goes.
    """
    has_place = record is not None and record.has_place_of(unit)
    refuse_what_cannot_be(unit, found, has_place=has_place)  # a mask is an obstacle, too
    if obstacle is not None and not (has_place and gives_way):
        raise obstacle
    if record is None or record.left:
        record = UnitRecord.first(found)
    now = contents(unit, file, uses)
    wish = contents(unit, (unit.content or "").encode(), uses)
    steps = steps_due(
        *(unit, found, record),
        before=file,
        now=now,
        wish=wish,
        right_mode=as_ours,
        taken=obstacle is not None,
    )
    return UnitPass(
        unit=unit,
        found=found,
        record=record,
        before=file,
        before_as_ours=as_ours,
        prior=prior or {},
        now=now,
        wish=wish,
        steps=steps,
    )
