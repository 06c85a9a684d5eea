"""What is found of a unit at one moment, and what is remembered of it in between.

Shared by every reconciler of units, so that all of them remember, and judge, alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Self, TypeAlias, TypedDict, cast

import attrs

from harmony_core.reconciler import JsonRecord
from harmony_core.resources import Activating, Active, Failed, Inactive, SystemdUnit, UnitState

__all__ = ["ABSENT", "ITS_FILE", "Contents", "FoundUnit", "UnitRecord", "contents", "digest"]

Contents: TypeAlias = Mapping[str, str]
"""What a unit is started from: the digest of its file, if it is ours, and of each file that it uses."""

ITS_FILE = "its file"
ABSENT = "absent"


def contents(unit: SystemdUnit, content: bytes | None, uses: Mapping[str, str]) -> Contents:
    """*content* is that of the unit file, counted only if it is ours; *uses* are digests already."""
    return dict(uses) if unit.content is None else {ITS_FILE: digest(content), **uses}


def digest(content: bytes | None) -> str:
    """Hex SHA-256; None is a file that is not there, which differs from an empty one."""
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

    @property
    def is_up(self) -> bool:
        return self.active in {"active", "reloading", "refreshing"}

    @property
    def is_dead(self) -> bool:
        return self.active in {"inactive", "failed"}

    @property
    def is_coming(self) -> bool:
        return self.active == "activating"

    @property
    def is_to_run(self) -> bool:
        """It runs or starts, or will."""
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
    ran: bool = False
    """That oneshot came to a good end."""
    restarts: int = 0
    up_since_s: float = 0.0
    left: bool = False
    """It was removed, and stays because it had been there before."""
    disabled: bool = False
    stopped: bool = False
    replaced_with: Sequence[str] = ()
    """The digests of what we wrote last over the file that existed, and of what we are about to write."""
    prior: JsonRecord | None = None
    """The mode, owner and extras of the file that existed; its content is kept apart."""

    @classmethod
    def first(cls, found: FoundUnit) -> Self:
        """Of a unit that was never touched."""
        return cls(was_enabled=found.enabled is True, was_active=not found.is_dead)

    @classmethod
    def read(cls, record: JsonRecord) -> Self:
        """As `written`; fields that a newer agent wrote are ignored."""
        known = {field.name for field in attrs.fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})

    @property
    def written(self) -> JsonRecord:
        return cast("JsonRecord", attrs.asdict(self))

    def has_place_of(self, unit: SystemdUnit) -> bool:
        """Whether *unit*'s file is ours: what stands there instead of it has been put there since."""
        return unit.content is not None and self.wrote and not self.left

    def replacing_with(self, its_digest: str) -> Self:
        """With what is about to be written over a file that existed; a kill may come before it is."""
        others = [each for each in self.replaced_with if each != its_digest]
        return attrs.evolve(self, replaced_with=[*others[-1:], its_digest])

    def of_run(self, found: FoundUnit, started_from: Contents) -> Self:
        """With the invocation that *found* is, or was, started from these contents."""
        return attrs.evolve(
            self,
            invocation=found.invocation,
            started_from=dict(started_from),
            starting_from={},
            ran=found.oneshot and found.active == "inactive" and found.result == "success",
            restarts=found.restarts,
            up_since_s=found.up_since_s if found.is_up else 0.0,
        )

    def is_of(self, found: FoundUnit) -> bool:
        """Whether the invocation in this record is the one that *found* is, or was."""
        return found.invocation != "" and found.invocation == self.invocation

    def origin(self, found: FoundUnit, now: Contents) -> Contents:
        """What the run that *found* is was started from, as well as can be known. *now* is on disk.

        A run that is not in this record was begun at boot, by hand, or by us just before we were killed.
        Its unit file was the one on disk, which nobody else writes over. But a file that it uses may
        have been changed since, a moment ago and by us: so one that is not what it was, or was to be, is
        counted as changed since. In doubt there is a restart too many, never one too few.
        """
        if self.is_of(found):
            return self.started_from
        if not self.started_from or self.starting_from == now:
            return now
        return {
            name: now[name] if name == ITS_FILE else self.started_from.get(name, "") for name in now
        }

    def has_run(self, found: FoundUnit) -> bool:
        """Whether it is a oneshot that has run from what is in this record, and came to a good end."""
        if not found.oneshot or found.active != "inactive" or found.result != "success":
            return False
        if found.up_since_s and found.up_since_s >= found.left_inactive_s:
            return False  # one that remains active until somebody stops it: somebody has
        # One that is over may be unloaded, or run again at boot: that it has run, only the record knows.
        return self.ran or self.is_of(found)

    def changed(self, now: Contents) -> tuple[str, ...]:
        """Which of *now* differ from what was started from."""
        return tuple(name for name in now if self.started_from.get(name) != now[name])
