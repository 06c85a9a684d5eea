"""What is found of a unit at one moment, and what is remembered of it in between.

Shared by every reconciler of units, so that all of them remember, and judge, alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Self, TypeAlias, TypedDict, cast

import attrs

from harmony_core.reconciler import JsonRecord
from harmony_core.resources import Activating, Active, Failed, Inactive, SystemdUnit, UnitState
from harmony_core.steps import Restarted

__all__ = [
    "ABSENT",
    "ITS_FILE",
    "ORIGIN_UNKNOWN",
    "Contents",
    "FoundUnit",
    "UnitRecord",
    "digest",
    "list_contents",
    "with_drop_ins",
]

Contents: TypeAlias = Mapping[str, str]
"""What a unit is started from: the digest of its file, if that is ours, and of each file that it uses; and,
if its file is ours, which drop-ins systemd had read besides."""

ITS_FILE = "its file"
ABSENT = "absent"
ORIGIN_UNKNOWN = "it is not known what it was started from"
_NOT_KNOWN: Contents = {ORIGIN_UNKNOWN: ""}
_DROP_IN = "drop-in "
_IN_FORCE = "in force"


def list_contents(
    unit: SystemdUnit,
    content: bytes | None,
    uses: Mapping[str, str],
    drop_ins: Collection[str] = (),
) -> Contents:
    """Return the digests of what the unit is made from.

    *content* is that of the unit file, counted only if it is ours; *uses* are digests already. *drop_ins* are
    the paths of those that systemd has read.
    """
    if unit.content is None:
        return dict(uses)
    return with_drop_ins({ITS_FILE: digest(content), **uses}, drop_ins)


def with_drop_ins(contents: Contents, drop_ins: Collection[str]) -> Contents:
    """Return *contents* with these drop-ins in place of others; without any, where the unit's file is not
    ours."""
    kept = {name: each for name, each in contents.items() if not name.startswith(_DROP_IN)}
    if ITS_FILE not in kept:
        return kept
    others = {_DROP_IN + path: _IN_FORCE for path in drop_ins if path not in kept}
    return {**kept, **others}


def digest(content: bytes | None) -> str:
    """Return the hexadecimal SHA-256 of *content*; None is a file that is not there, which differs from an
    empty one."""
    return ABSENT if content is None else hashlib.sha256(content).hexdigest()


@attrs.frozen(kw_only=True)
class FoundUnit:
    """What systemd says of a unit at one moment. Times are seconds of the monotonic clock, 0 for never."""

    load: str = "loaded"
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    conditions_met: bool = True
    oneshot: bool = False
    enablement: str = ""
    """systemd's UnitFileState; empty when there is no unit file."""
    has_job: bool = False
    invocation: str = ""
    restarts: int = 0
    """How often systemd restarted it by itself, since somebody last started it."""
    left_inactive_s: float = 0.0
    up_since_s: float = 0.0
    up_until_s: float = 0.0
    since: str = ""
    """When it was last up, RFC 3339."""
    problem: str = ""
    """Why systemd could not load it."""
    drop_ins: tuple[str, ...] = ()
    """Those in force that are for this unit and came with no package."""
    loaded_drop_ins: tuple[str, ...] = ()
    """All that systemd has read for it."""
    fragment: str = ""
    """The path of the unit file that systemd has read, and runs it from at its next start."""
    is_outdated: bool = False
    """What systemd has read is not what is on the disk any more."""
    was_read_before: bool = True
    """systemd has read no unit files since this invocation began, so it began from what is loaded now."""
    began_at_s: float = 0.0
    """When this invocation began, as the wall clock was then."""
    unit_id: str = ""
    """Its own name; that of which it is an alias, if it is one."""
    names: tuple[str, ...] = ()
    """All its names."""
    never_elapses: bool = False
    """It is a timer of which no time is still to come, and none has come."""
    frozen: bool = False
    """Its processes stand still, and systemd does nothing to it, until it is thawed."""
    running_services: tuple[str, ...] = ()
    """Of a socket: those of the services that it starts which run, and so keep it from being started."""
    members: tuple[str, ...] = ()
    """Of a slice: what is up in it, and would be stopped with it."""
    lacking: tuple[str, ...] = ()
    """Of a socket, a path or a timer: what it is to start, and systemd has not loaded."""
    credentials: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The file of each credential that it is loaded with, by name; asked for only where it needs some."""
    slice: str = ""
    """That in which it runs, or would; asked for only where it has to be a certain one."""

    @property
    def is_up(self) -> bool:
        return self.active in {"active", "reloading", "refreshing"}

    @property
    def is_dead(self) -> bool:
        return self.active in {"inactive", "failed"}

    @property
    def has_succeeded(self) -> bool:
        """Whether it is a oneshot that has ended with success."""
        return self.oneshot and self.active == "inactive" and self.result == "success"

    @property
    def is_coming(self) -> bool:
        return self.active == "activating"

    @property
    def is_to_run(self) -> bool:
        """Whether it runs or starts, or is going to."""
        return self.is_up or self.is_coming or (self.is_dead and self.has_job)

    @property
    def waits_to_be_restarted(self) -> bool:
        """Its process ended, and systemd is about to start it again."""
        return self.is_coming and self.sub.startswith("auto-restart")

    @property
    def is_masked(self) -> bool:
        """Whether nobody may start it, by a link to /dev/null in the place of its unit file."""
        return self.load == "masked" or self.enablement.startswith("masked")

    @property
    def is_slice(self) -> bool:
        return self.unit_id.endswith(".slice")

    @property
    def exists(self) -> bool:
        return self.load != "not-found" or bool(self.enablement) or not self.is_dead

    @property
    def enabled(self) -> bool | None:
        """Whether it starts at boot; None where that is not its own to say."""
        if self.enablement == "enabled":
            return True
        return False if self.enablement in {"disabled", "enabled-runtime"} else None

    @property
    def state(self) -> UnitState | None:
        if not self.exists:
            return None
        told = _Told(sub=self.sub, result=self.result, enabled=self.enabled, drop_ins=self.drop_ins)
        if self.is_up:
            return Active(since=self.since, **told)
        if self.is_dead:
            return Failed(**told) if self.active == "failed" else Inactive(**told)
        return Activating(**told)


class _Told(TypedDict):
    """What is told of a unit however it is."""

    sub: str
    result: str
    enabled: bool | None
    drop_ins: tuple[str, ...]


@attrs.frozen(kw_only=True)
class UnitRecord:
    """What must be remembered of a unit, whatever becomes of the agent."""

    existed: bool = False
    """A unit file stood where ours is, before we first wrote it."""
    was_enabled: bool = False
    was_active: bool = False
    wrote: bool = False
    enabled: bool = False
    started: bool = False
    loaded: str = ""
    """The digest of our file that systemd has read; empty while it has not, or may not have."""
    invocation: str = ""
    started_from: Contents = attrs.field(factory=dict[str, str])
    """What *invocation* was started from; for a oneshot, what it last ran from."""
    starting_from: Contents = attrs.field(factory=dict[str, str])
    """What it is about to be started from, as long as that is not known to have happened."""
    seen: str = ""
    """Another invocation, that a plan has seen since: systemd may read files before it is judged."""
    seen_from: Contents = attrs.field(factory=dict[str, str])
    ran: bool = False
    """That oneshot came to a good end."""
    restarts: int = 0
    up_since_s: float = 0.0
    takes_back: bool = False
    """Its stop takes back what was done, and so has to be run, and to succeed, before it goes."""
    left: bool = False
    """It was removed, and stays because it had been there before."""
    disabled: bool = False
    stopped: bool = False
    also_before: Mapping[str, bool] = attrs.field(factory=dict[str, bool])
    """Of the units that its ``Also=`` names: whether each was enabled before we enabled or disabled this."""
    giving_back: Mapping[str, bool] = attrs.field(factory=dict[str, bool])
    """Of those: whether each is to be enabled once this has been disabled, as long as that is not done."""
    replaced_with: Sequence[str] = ()
    """The digests of what we wrote last over the file that existed, and of what we are about to write."""
    prior: JsonRecord | None = None
    """The mode, owner and extras of the file that existed; its content is kept apart."""

    @classmethod
    def first(cls, found: FoundUnit) -> Self:
        """Return the record of a unit that was never touched."""
        return cls(was_enabled=found.enabled is True, was_active=not found.is_dead)

    @classmethod
    def read(cls, record: JsonRecord) -> Self:
        """Return the record that `written` wrote, without the fields of a newer agent."""
        known = {field.name for field in attrs.fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})

    @property
    def written(self) -> JsonRecord:
        return cast("JsonRecord", attrs.asdict(self))

    def also_wanted(self, now: Mapping[str, bool]) -> dict[str, bool]:
        """Return whether units that its ``Also=`` names stay enabled when it is removed; *now* says whether
        they are enabled: what we did not enable stays as it is."""
        return {
            other: enabled and not (self.enabled and self.also_before.get(other) is False)
            for other, enabled in now.items()
        }

    def has_place_of(self, unit: SystemdUnit) -> bool:
        """Return whether *unit*'s file is ours: something else at its place has been put there since."""
        return unit.content is not None and self.wrote and not self.left

    def replacing_with(self, its_digest: str) -> Self:
        """Return the record with what is about to be written over a file that existed; a kill may come before
        that is done."""
        others = [each for each in self.replaced_with if each != its_digest]
        return attrs.evolve(self, replaced_with=[*others[-1:], its_digest])

    def of_run(self, found: FoundUnit, started_from: Contents) -> Self:
        """Return the record with the invocation that *found* is, or was, started from these contents."""
        return attrs.evolve(
            self,
            invocation=found.invocation,
            started_from=dict(started_from),
            starting_from={},
            seen="",
            seen_from={},
            ran=found.has_succeeded,
            restarts=found.restarts,
            up_since_s=found.up_since_s if found.is_up else 0.0,
        )

    def is_of(self, found: FoundUnit) -> bool:
        """Return whether the invocation in this record is that of *found*."""
        return found.invocation != "" and found.invocation == self.invocation

    def origin(
        self, found: FoundUnit, now: Contents, *, path: str, untouched: Collection[str]
    ) -> Contents:
        """Return what the run *found* was started from, as well as that can be known.

        *now* is on disk, *path* is that of our unit file; *untouched* are the used files that are as they
        were when it began.

        A run that is not in this record was begun at boot, by hand, by systemd, or by us just before we were
        killed. It was started from what systemd had loaded then. That is what it has loaded now, if it has
        read no files since; and that is what is on disk, unless systemd says otherwise. What cannot be found
        in this way is unknown, and never counts as ours.
        """
        if self.is_of(found):
            return self.started_from
        if found.invocation != "" and found.invocation == self.seen:
            return self.seen_from
        if found.is_outdated or not found.was_read_before:
            return _NOT_KNOWN
        about_to = {
            name: each for name, each in self.starting_from.items() if now.get(name) == each
        }
        known = {*untouched, *about_to, *self._still_absent(now)}
        origin = {name: each for name, each in now.items() if name in known or name == ITS_FILE}
        if ITS_FILE in now and found.fragment != path:
            origin[ITS_FILE] = found.fragment
        return with_drop_ins(origin, found.loaded_drop_ins)

    def _still_absent(self, now: Contents) -> Collection[str]:
        return [name for name in now if now[name] == self.started_from.get(name) == ABSENT]

    def has_run(self, found: FoundUnit) -> bool:
        """Return whether it is a oneshot that has run from what is in this record, and ended with success."""
        if not found.has_succeeded:
            return False
        if found.up_since_s and found.up_since_s >= found.left_inactive_s:
            return False  # one that remains active until somebody stops it: somebody has
        # One that is over may be unloaded, or run again at boot: that it has run, only the record knows.
        return self.ran or self.is_of(found)

    def plan_restart(self, now: Contents) -> Restarted | None:
        """Return the restart that is due, with which of *now* differ from what was started from, and which
        drop-ins are gone since then; None where nothing requires one.

        A drop-in that has come since is no reason: it is somebody else's.
        """
        if ORIGIN_UNKNOWN in self.started_from and now:
            return Restarted(is_origin_unknown=True)
        differ = tuple(
            name
            for name in now
            if not name.startswith(_DROP_IN) and self.started_from.get(name) != now[name]
        )
        gone = tuple(
            name.removeprefix(_DROP_IN)
            for name in self.started_from
            if name.startswith(_DROP_IN) and name not in now
        )
        return Restarted(changed=differ, gone=gone) if differ or gone else None
