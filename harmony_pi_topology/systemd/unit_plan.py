"""One unit on its way through one converge: what was found, what is due, what has been done.

    plan_unit -> steps due? -> noted (a record, before the first effect) -> … -> after (a record, at the end)

Shared by every reconciler of units. Killed between any two steps, the next call finds from the record and
the disk what is still due.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError, UnitFailed
from harmony_core.reconciler import JsonRecord
from harmony_core.resources import SystemdUnit

from .health_rules import describe_held_socket, has_ended_before_settling
from .plan import (
    Steps,
    check_desired,
    check_not_alias,
    check_not_overridden,
    diff_unit,
    find_unmet,
    plan_steps,
    predict_state,
    takes_precedence,
)
from .records import (
    ITS_FILE,
    ORIGIN_UNKNOWN,
    Contents,
    FoundUnit,
    UnitRecord,
    list_contents,
    with_drop_ins,
)

__all__ = ["UnitPlan", "plan_unit"]


@attrs.frozen(kw_only=True)
class UnitPlan:
    """Made by `plan_unit`, which has looked at nothing itself."""

    unit: SystemdUnit
    found: FoundUnit
    record: UnitRecord
    """As it was when the plan was made."""
    is_ours: bool
    """There was such a record already."""
    before: bytes | None
    """The unit file that was there."""
    before_as_ours: bool
    attributes: JsonRecord
    """Mode, owner and extras of that file."""
    now: Contents
    desired: Contents
    path: str
    """Where its unit file is, if it is ours."""
    untouched: Collection[str]
    """The used files that are as they were when what was found began."""
    steps: Steps
    also: Mapping[str, bool] = attrs.field(factory=dict[str, bool])
    """Of the units that its ``Also=`` names, whether each was enabled; where it is enabled or disabled."""
    job_result: str | None = "done"
    """None while its job is under way."""

    @property
    def reloads(self) -> bool:
        """Whether unit files have to be read: ours was not noted as read or another one is in force, links
        change, or it is started, and what systemd has read of it is not what is there."""
        steps, unit = self.steps, self.unit
        is_another_s = self.found.fragment not in {"", self.path}
        unread = self.is_new_content or (unit.content is not None and is_another_s)
        # What is in a slice is limited anew once its file, or a drop-in, is read: no start is due for that.
        unread = unread or (unit.is_slice and self.found.is_outdated)
        # systemd itself compares times of files, which is not enough where a clock was set back: so a used
        # file that is systemd's to read (a template, a drop-in of any kind, a Quadlet) is read anyway.
        outdated = self.found.is_outdated or any("/systemd/" in path for path in unit.uses)
        starts = steps.job in {"start", "restart"}
        changes = steps.disable or steps.enable or steps.write is not None
        return unread or (starts and outdated) or changes or self.found.is_masked

    @property
    def is_new_content(self) -> bool:
        """Whether systemd is to read another unit file than it has read of ours."""
        return self.unit.content is not None and self.record.loaded != self.desired[ITS_FILE]

    @property
    def giving_back(self) -> Mapping[str, bool]:
        """What is to be enabled or not once this unit has been disabled; also after a kill in between."""
        return self.also if self.steps.disable else self.record.giving_back

    @property
    def acts(self) -> bool:
        return bool(self.steps or self.reloads or self.giving_back)

    @property
    def replaces_another_s(self) -> bool:
        """Whether a file that is not ours is about to be written over, for the first time."""
        return self.steps.write == "replace" and not self.record.wrote

    @property
    def noted(self) -> UnitRecord:
        """The record from before the first effect; for a removal, too, if we get no further than this."""
        record, starts = self._with_deeds, self.steps.job in {"start", "restart"}
        return attrs.evolve(
            self._with_run(record),
            loaded="" if self.reloads else record.loaded,
            giving_back=dict(self.giving_back),
            starting_from=dict(self.desired) if starts else {},
        )

    def _with_run(self, record: UnitRecord) -> UnitRecord:
        """Return *record* with what was found running: once files are written and read, nobody could tell
        from what it was started."""
        if (self.found.is_up or self.found.is_coming) and not record.is_of(self.found):
            return record.of_run(self.found, self._origin(self.record, self.found))
        return record

    def _origin(self, record: UnitRecord, found: FoundUnit) -> Contents:
        """Return what the run that *found* is was started from, *record* being what is known of it."""
        return record.origin(found, self.now, path=self.path, untouched=self.untouched)

    def check_socket_startable(self) -> None:
        """Raise `UnitFailed` where it is a socket that is to be started while its service runs."""
        held = self.found.running_services
        if held and self.steps.job in {"start", "restart"}:
            raise UnitFailed(
                f"{self.unit.name} {describe_held_socket(self.unit.name, held)}",
                resource=self.unit.id,
            )

    def check_effective(self, found: FoundUnit) -> None:
        """Raise where systemd does not have what it was told: `NotOurs` where another unit file is effective,
        `UnitFailed` where enablement, credentials or slice differ."""
        check_not_overridden(self.unit, found, self.path)
        is_enabled = found.enabled is True
        if (self.steps.disable and is_enabled) or (self.steps.enable and not is_enabled):
            deed = "enabled" if self.steps.enable else "disabled"
            raise UnitFailed(
                f"{self.unit.name} was {deed}, and systemd says that it is "
                f"{found.enablement or 'not there'}; look for what changes its links on the device",
                resource=self.unit.id,
            )

        if (unmet := find_unmet(self.unit, found)) is not None:
            raise UnitFailed(unmet, resource=self.unit.id)

    def unmet(self, found: FoundUnit) -> NotReady | None:
        """Return that the unit is not loaded with its credentials, not in its slice, or that what it starts
        is not there; None where all is as it is to be."""
        unmet = find_unmet(self.unit, found)
        return None if unmet is None else NotReady(unmet, resource=self.unit.id)

    @property
    def seen(self) -> UnitRecord | None:
        """The record with the run that was found, for a plan to note; None where there is nothing to note.

        Later, once systemd has read files anew, it could not be told what that was started from. How it
        fares is left to be judged.
        """
        found, record = self.found, self.record
        runs = (found.is_up or found.is_coming) and not record.is_of(found)
        if self.acts or not self.is_ours or not runs or found.invocation in {"", record.seen}:
            return None
        origin = self._origin(record, found)
        if ORIGIN_UNKNOWN in origin:
            return None
        return attrs.evolve(record, seen=found.invocation, seen_from=dict(origin))

    def has_just_failed(self, told: str | None) -> bool:
        """Return whether it would only be started again after a failure that nobody has heard of.

        *told* is the invocation whose failure was told last.
        """
        found, record = self.found, self.record
        return (
            self.only_starts
            and found.invocation != told
            and record.is_of(found)
            and record.plan_restart(self.desired) is None
            and has_ended_before_settling(self.unit, found)
        )

    @property
    def only_starts(self) -> bool:
        """Nothing else is due, so that nothing speaks for its going better this time."""
        return self.steps == Steps(job="start")

    def after(self, found: FoundUnit) -> UnitRecord:
        """Return the record, once *found* is what became of it."""
        loaded = self.desired.get(ITS_FILE, "")
        record = attrs.evolve(
            self._with_deeds, loaded=loaded, starting_from={}, giving_back=dict[str, bool]()
        )
        if self.unit.state == "stopped" and found.is_dead:
            record = attrs.evolve(record, started=False)
        if self.steps.job in {"start", "restart"}:
            return record.of_run(found, with_drop_ins(self.desired, found.loaded_drop_ins))
        # A start that systemd repeats by itself is compared with the record until it is up.
        begins = found.is_coming and not record.is_of(found) and found.restarts <= record.restarts
        if found.is_up or begins or record.has_run(found):
            return record.of_run(found, self._origin(self._with_run(self.record), found))
        return record

    @property
    def _with_deeds(self) -> UnitRecord:
        """The record, with what removal will have to undo."""
        record, steps = self.record, self.steps
        first_written = steps.write is not None and not record.wrote
        if self.replaces_another_s:
            record = attrs.evolve(record, prior=dict(self.attributes))
        if steps.write is not None and (self.replaces_another_s or record.prior is not None):
            record = record.replacing_with(self.desired[ITS_FILE])
        return attrs.evolve(
            record,
            existed=self.before is not None if first_written else record.existed,
            wrote=record.wrote or steps.write is not None,
            enabled=(record.enabled or steps.enable) and not steps.disable,
            started=record.started or steps.job == "start",
            disabled=(record.disabled or steps.disable) and not steps.enable,
            stopped=(record.stopped or steps.job == "stop") and steps.job in {None, "stop"},
            also_before={**self.also, **record.also_before},
            takes_back=self.unit.takes_back,
            left=False,
        )

    def preview(self, *, now: str) -> Change:
        """Return what its steps would do. *now* is RFC 3339."""
        after = predict_state(self.unit, self.found, self.steps, now=now)
        return attrs.evolve(self.change(self.found, None), after=after)

    def change(self, found: FoundUnit, pending: NotReady | None) -> Change:
        """Return what its steps did, *found* being how it is now."""
        before = self.before if self.before_as_ours else None
        return Change(
            resource=self.unit.id,
            steps=self.steps.in_order,
            before=self.found.state,
            after=found.state,
            diff=diff_unit(self.unit, before, self.steps),
            pending=pending,
        )


def plan_unit(
    unit: SystemdUnit,
    found: FoundUnit,
    record: UnitRecord | None,
    *,
    file: bytes | None,
    as_ours: bool,
    uses: Mapping[str, str],
    path: str = "",
    untouched: Collection[str] = (),
    override_is_gone: bool = False,
    attributes: JsonRecord | None = None,
    obstacle: CapabilityError | None = None,
    gives_way: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
    may_come: bool = False,
) -> UnitPlan:
    """Plan what makes *found* as *unit* says. Raises what stands in its way.

    *file* is the unit file in our place, *as_ours* whether its mode and owner are as we write them,
    *attributes* what they are, *uses* the digests of the files that it uses, *untouched* those of them that
    are as they were when what was found began. *path* is where our unit file is; *override_is_gone*: what
    systemd has read in place of it is not on the disk any more. *obstacle* is why no file can be written
    there; where the place is ours and the obstacle *gives_way*, it goes. *settings* are those of the kernel
    that it names, as they are. *may_come* is as in `check_desired`.
    """
    has_place = record is not None and record.has_place_of(unit)
    path = path or f"/etc/systemd/system/{unit.name}"
    if not has_place:  # else the link that makes it one has taken the place of our file
        check_not_alias(unit, found)
    if takes_precedence(found.fragment) and not override_is_gone:
        check_not_overridden(unit, found, path)
    # A mask is an obstacle, too.
    check_desired(unit, found, has_place=has_place, may_come=may_come)
    if obstacle is not None and not (has_place and gives_way):
        raise obstacle
    is_ours = record is not None and not record.left
    if record is None or record.left:
        record = UnitRecord.first(found)
    now = list_contents(unit, file, uses, found.loaded_drop_ins)
    desired = list_contents(unit, (unit.content or "").encode(), uses, found.loaded_drop_ins)
    steps = plan_steps(
        *(unit, found, record),
        before=file,
        origin=record.origin(found, now, path=path, untouched=untouched),
        desired=desired,
        right_mode=as_ours,
        taken=obstacle is not None,
        settings=settings,
    )
    plan = UnitPlan(
        unit=unit,
        found=found,
        record=record,
        is_ours=is_ours,
        before=file,
        before_as_ours=as_ours,
        attributes=attributes or {},
        now=now,
        desired=desired,
        path=path,
        untouched=untouched,
        steps=steps,
    )
    plan.check_socket_startable()
    return plan
