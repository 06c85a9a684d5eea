"""What is to be done about one unit, as typed steps. Shared by every reconciler of units.

    desired, found, remembered, on disk -> Steps: write, enable or disable, start or restart or stop

A restart is a comparison of states, so it is neither lost nor done twice when the agent is killed: the
record says from which contents an *invocation* was started, and a restart is due while that very
invocation runs and the contents are others now. An invocation that is not in the record (started at
boot, by hand, by systemd, or just before the agent was killed) was started from what systemd had loaded
then; where that cannot be told, it is restarted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from harmony_core.errors import InvalidResource, NotOurs, PolicyRefused, UnitFailed
from harmony_core.resources import Active, Inactive, SystemdUnit, UnitState
from harmony_core.steps import (
    Created,
    Disabled,
    Enabled,
    Left,
    PutBack,
    Removed,
    Restarted,
    Started,
    Step,
    Stopped,
    Wrote,
    list_due,
)
from harmony_core.unit_install import install_section
from harmony_pi_topology.files.plan import CHANGED_SINCE, COMPARED_MAX_BYTES, LEFT, diff_of

from .records import ITS_FILE, Contents, FoundUnit, UnitRecord, digest

__all__ = [
    "Removal",
    "Steps",
    "check_desired",
    "check_not_alias",
    "check_not_overridden",
    "diff_unit",
    "find_unmet",
    "plan_removal",
    "plan_steps",
    "predict_state",
    "predict_state_after_removal",
    "read_install_lines",
    "takes_precedence",
]


_OVER_OURS = (
    "/etc/systemd/system.control/",
    "/run/systemd/system.control/",
    "/run/systemd/transient/",
    "/run/systemd/generator.early/",
)
"""Where systemd looks for unit files before it looks into /etc/systemd/system."""
_INSTALLABLE = frozenset({"enabled", "enabled-runtime", "disabled", "linked", "linked-runtime"})
_HINT = re.compile(r"\s*(WantedBy|RequiredBy|UpheldBy|Alias|DefaultInstance)\s*=\s*\S")
_ONESHOT = re.compile(r"^\s*Type\s*=\s*oneshot\s*$", re.MULTILINE)
_REMAINS = re.compile(r"^\s*RemainAfterExit\s*=\s*(1|yes|true|on|y|t)\s*$", re.MULTILINE)
_SUB_WHEN_UP = {
    "service": "running",
    "socket": "listening",
    "timer": "waiting",
    "path": "waiting",
    "target": "active",
    "slice": "active",
    "mount": "mounted",
    "automount": "waiting",
}


@attrs.frozen(kw_only=True)
class Steps:
    """What is to be done, in this order."""

    disable: bool = False
    make_way: bool = False
    """A link, perhaps a mask, or an empty directory has taken the place of our file, and goes."""
    write: Literal["create", "replace"] | None = None
    enable: bool = False
    job: Literal["start", "restart", "stop"] | None = None
    restart: Restarted = attrs.field(factory=Restarted)
    """What a restart is for."""

    def __bool__(self) -> bool:
        return bool(self.in_order)

    @property
    def in_order(self) -> tuple[Step, ...]:
        steps: dict[Step, bool] = {
            Disabled(): self.disable,
            Removed("what had taken the place of its file"): self.make_way,
            Created(ITS_FILE): self.write == "create",
            Wrote(ITS_FILE): self.write == "replace",
            Enabled(): self.enable,
            Started(): self.job == "start",
            self.restart: self.job == "restart",
            Stopped(): self.job == "stop",
        }
        return list_due(steps)


def plan_steps(
    unit: SystemdUnit,
    found: FoundUnit,
    record: UnitRecord,
    *,
    before: bytes | None,
    origin: Contents,
    desired: Contents,
    right_mode: bool = True,
    taken: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Steps:
    """Return the steps that make *found* as *unit* says.

    *before* is the unit file that is there; *taken* says that something else is there that may be removed.
    *origin* is what the run *found* was started from, *desired* what it should be started from. *settings*
    are those of the kernel that it names, with their current values.
    """
    content = _content(unit)
    write = content is not None and (content != before or not right_mode)
    job, restart = _job(unit, found, record, origin, desired)
    # What is restarted anyway makes its settings anew, and what is coming up is just making them.
    is_settled = unit.state == "running" and found.is_up and job is None
    if is_settled and (lost := _find_lost_settings(unit, settings)):
        job, restart = "restart", Restarted(lost=lost)
    return Steps(
        disable=unit.enabled is False and found.enabled is True,
        make_way=taken,
        write=None if not write else "create" if before is None else "replace",
        enable=unit.enabled is True and (found.enabled is not True or _installs_anew(unit, before)),
        job=job,
        restart=restart,
    )


def _find_lost_settings(unit: SystemdUnit, found: Mapping[str, str]) -> tuple[str, ...]:
    """Return in words which settings of *unit* differ in the kernel; leave out one that cannot be read."""
    return tuple(
        f"{path} is {found[path]}, not {value}"
        for path, value in sorted(unit.settings.items())
        if path in found and found[path].split() != value.split()
    )


def _job(
    unit: SystemdUnit, found: FoundUnit, record: UnitRecord, origin: Contents, desired: Contents
) -> tuple[Literal["start", "restart", "stop"] | None, Restarted]:
    none = Restarted()
    is_up_for_good = unit.is_slice and unit.state == "running" and found.is_up
    if unit.state is None or is_up_for_good:
        return None, none
    if unit.state == "stopped":
        return ("stop" if found.is_to_run else None), none
    if found.is_up or found.is_coming:
        restart = record.of_run(found, origin).plan_restart(desired)
        return ("restart", restart) if restart is not None else (None, none)
    if not found.is_dead or found.has_job:
        return None, none
    if record.has_run(found) and record.plan_restart(desired) is None:
        return None, none
    return "start", none


def diff_unit(unit: SystemdUnit, before: bytes | None, steps: Steps) -> str | None:
    """Return what is to change in its unit file. *before* must be readable for everybody."""
    content = _content(unit)
    if before is None or content is None or steps.write is None:
        return None
    if max(len(before), len(content)) > COMPARED_MAX_BYTES:
        return None
    return diff_of(f"/{unit.name}", before, content)


def check_desired(
    unit: SystemdUnit, found: FoundUnit, *, has_place: bool = False, may_come: bool = False
) -> None:
    """Raise what prevents *unit*, before anything is touched.

    *has_place* says that the unit file is ours. A mask is at the place of such a file, so it has replaced it.
    *may_come* says that what it uses has changed since systemd read all files, and that it may be made from
    that.
    """
    if found.is_masked and not has_place:
        raise PolicyRefused(
            f"{unit.name} is masked on this device; run systemctl unmask {unit.name} there, "
            "or leave it out of the Score",
            resource=unit.id,
        )
    is_missing = unit.content is None and not found.exists and not may_come
    if is_missing and (unit.state == "running" or unit.enabled):
        raise UnitFailed(
            f"{unit.name} does not exist on this device; install what brings it, or give the unit's content, "
            "or name in uses the file that systemd makes it from, such as a Quadlet",
            resource=unit.id,
        )
    if unit.enabled and not _can_be_enabled(unit, found):
        why = (
            "its unit file has no [Install] section with WantedBy= or the like; add one,"
            if unit.content is not None
            else f"its unit file is {found.enablement or 'missing'}; name the unit that can be,"
        )
        raise InvalidResource(
            f"{unit.name} cannot be enabled: {why} or set enabled to null", resource=unit.id
        )


def check_not_alias(unit: SystemdUnit, found: FoundUnit) -> None:
    """Raise `InvalidResource` where the name of *unit* is only another name of some unit."""
    if found.unit_id not in {"", unit.name}:
        raise InvalidResource(
            f"{unit.name} is another name (an alias) of {found.unit_id} on this device; "
            f"name {found.unit_id} in the Score",
            resource=unit.id,
        )


def takes_precedence(fragment: str) -> bool:
    """Return whether systemd prefers the unit file at that path to one in /etc/systemd/system."""
    return fragment.startswith(_OVER_OURS)


def check_not_overridden(unit: SystemdUnit, found: FoundUnit, path: str) -> None:
    """Raise `NotOurs` where systemd has read another unit file than that at *path*, which is ours."""
    if unit.content is not None and found.fragment not in {"", path}:
        raise NotOurs(
            f"{unit.name} is run from {found.fragment}, which is in force in place of Harmony's "
            f"{path}; remove {found.fragment} on the device and run systemctl daemon-reload there, "
            "or leave the unit out of the Score",
            resource=unit.id,
        )


def find_unmet(unit: SystemdUnit, found: FoundUnit) -> str | None:
    """Return in words which of its credentials *unit* is not loaded with, that it is not in its slice, or
    that what it starts is not there; None where it is as desired."""
    where = ", ".join(found.loaded_drop_ins) or "what else systemd reads of it"
    if unit.slice not in {None, found.slice}:
        return (
            f"{unit.name} is to run in {unit.slice}, and systemd has it in {found.slice or 'none'}; take "
            f"Slice= out of {where} on the device, and run there: systemctl daemon-reload"
        )
    for name, path in sorted(unit.credentials.items()):
        if (other := found.credentials.get(name)) != path:
            instead = "not at all" if other is None else f"from {other}"
            return (
                f"{unit.name} is to be loaded with the credential {name} from {path}, and systemd loads it "
                f"{instead}; take LoadCredential= out of {where} on the device, and run there: systemctl "
                "daemon-reload"
            )
    if found.lacking and found.is_up:
        return (
            f"{unit.name} starts {', '.join(found.lacking)}, which is not there; have that made before it, "
            "or correct its file"
        )
    return None


def _can_be_enabled(unit: SystemdUnit, found: FoundUnit) -> bool:
    if unit.content is None:
        return found.enablement in _INSTALLABLE
    return bool(read_install_lines(unit.content))


def _installs_anew(unit: SystemdUnit, before: bytes | None) -> bool:
    if unit.content is None or before is None:
        return False
    return read_install_lines(unit.content) != read_install_lines(before.decode(errors="replace"))


def read_install_lines(text: str) -> list[str]:
    """Return the lines of its [Install] sections that say from where it is linked."""
    return [line for line in install_section(text) if _HINT.match(line)]


def predict_state(
    unit: SystemdUnit, found: FoundUnit, steps: Steps, *, now: str
) -> UnitState | None:
    """Return the state of *found* once *steps* are done and it has settled. *now* is RFC 3339."""
    enabled = unit.enabled if steps.enable or steps.disable else found.enabled
    if steps.write == "create" and enabled is None and read_install_lines(unit.content or ""):
        enabled = False
    if steps.job in {None, "stop"}:
        now_is = found if steps.job is None else attrs.evolve(found, active="inactive", sub="dead")
        load = "loaded" if steps.write is not None else found.load
        state = attrs.evolve(now_is, load=load).state
        return attrs.evolve(state, enabled=enabled) if state is not None else None
    oneshot = found.oneshot if unit.content is None else _ONESHOT.search(unit.content) is not None
    if oneshot and not _REMAINS.search(unit.content or ""):
        return Inactive(sub="dead", result="success", enabled=enabled, drop_ins=found.drop_ins)
    sub = "exited" if oneshot else _SUB_WHEN_UP[unit.name.rpartition(".")[2]]
    return Active(since=now, sub=sub, result="success", enabled=enabled, drop_ins=found.drop_ins)


@attrs.frozen(kw_only=True)
class Removal:
    """What is to be undone, in this order."""

    stop: bool = False
    takes_back: bool = False
    """Its stop has to be run, and to succeed: one that does not run is started for it."""
    disable: bool = False
    remove_file: bool = False
    put_back: bool = False
    """The file that was there before takes the place of ours."""
    enable: bool = False
    relink: bool = False
    """It stays enabled, but from where the file that comes back says."""
    job: Literal["start", "restart"] | None = None
    leave: Left | None = None
    """Why the unit stays, if that is all there is to say."""

    @property
    def in_order(self) -> tuple[Step, ...]:
        steps: dict[Step, bool] = {
            Stopped(): self.stop,
            Disabled(): self.disable,
            Removed(ITS_FILE): self.remove_file,
            PutBack(ITS_FILE): self.put_back,
            Enabled(): self.enable,
            Started(): self.job == "start",
            Restarted(changed=(ITS_FILE,)): self.job == "restart",
        }
        due = list_due(steps)
        return due if self.leave is None else (*due, self.leave)

    @property
    def reloads(self) -> bool:
        return self.disable or self.remove_file or self.put_back


def plan_removal(
    found: FoundUnit, record: UnitRecord, *, file: bytes | None, backup: bytes | None
) -> Removal:
    """Return what undoes what the record says was done, as far as it still must be undone.

    *file* is the unit file in our place, *backup* the one that was there before us. The backup is restored
    only in place of what we wrote.
    """
    if record.left:
        return Removal()
    ours = record.wrote and not record.existed
    replaced = backup is not None and file not in {None, backup}
    put_back = replaced and digest(file) in record.replaced_with
    disable = found.enabled is True and not record.was_enabled
    file_changes = put_back or (ours and file is not None)
    takes_back = record.takes_back and ours and file is not None and found.load == "loaded"
    stop = found.is_to_run and not record.was_active and (ours or record.started)
    stop = stop and not found.members
    return Removal(
        stop=stop or takes_back,
        takes_back=takes_back,
        disable=disable and (ours or record.enabled),
        remove_file=ours and file is not None,
        put_back=put_back,
        enable=record.was_enabled and record.disabled and found.enabled is False,
        relink=record.was_enabled and found.enabled is True and file_changes,
        job=_job_of_removal(found, record, file_changes, file),
        leave=_find_why_left(found, replaced=replaced, goes=ours or put_back),
    )


def _find_why_left(found: FoundUnit, *, replaced: bool, goes: bool) -> Left | None:
    if goes and found.members:
        return Left(f"up as long as {', '.join(found.members)} runs in it")
    if goes or not found.exists:
        return None
    return CHANGED_SINCE if replaced else LEFT


def _job_of_removal(
    found: FoundUnit, record: UnitRecord, file_changes: bool, file: bytes | None
) -> Literal["start", "restart"] | None:
    """Return what restores the earlier activity; also when a kill came after the file was restored."""
    if not record.was_active or (found.is_slice and not found.is_dead):
        return None
    started_from = record.started_from.get(ITS_FILE) if record.is_of(found) else None
    put_back_already = record.prior is not None and started_from not in {None, digest(file)}
    comes_back = file_changes or put_back_already
    if found.is_dead:
        # Stopped by us, or failed from our file: not stopped by somebody else.
        fell = comes_back and found.active == "failed"
        return "start" if record.stopped or fell else None
    return "restart" if comes_back else None


def predict_state_after_removal(found: FoundUnit, due: Removal) -> UnitState | None:
    """Return the state that remains once *due* is done."""
    if due.stop:
        found = attrs.evolve(found, active="inactive", sub="dead", result="success")
    if due.job is not None:
        found = attrs.evolve(found, active="active", sub="running", result="success")
    if due.disable or due.enable:
        found = attrs.evolve(found, enablement="enabled" if due.enable else "disabled")
    return found.state


def _content(unit: SystemdUnit) -> bytes | None:
    return None if unit.content is None else unit.content.encode()
