"""What can be done to one resource: small typed steps, which code asks and people read as text.

A reconciler plans steps, takes them, and tells them in `Change.steps`. Nothing reads their text back: whoever
wants to know whether something is restarted looks for `Restarted`, and for the reasons in its fields. A
resource type that does something of its own derives its own `Step`, beside its reconciler; `Did` is for what
nobody asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import attrs

__all__ = [
    "Changed",
    "Created",
    "DeletedData",
    "Did",
    "Disabled",
    "Downloaded",
    "Enabled",
    "KeptVolume",
    "Left",
    "LoadedData",
    "Pulled",
    "PutBack",
    "Recreated",
    "Removed",
    "Renamed",
    "Restarted",
    "SavedData",
    "Started",
    "Step",
    "Stopped",
    "Wrote",
    "list_due",
]


def _frozen(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


class Step(ABC):
    """One thing that was done to a resource, or in a dry run would be."""

    __slots__ = ()

    @abstractmethod
    def __str__(self) -> str:
        """Return what was done, in the words of the wire and for people, such as ``restarted: its file
        changed``."""


@attrs.frozen
class Did(Step):
    """Something that needs no type of its own, since nothing asks for it."""

    text: str

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class Created(Step):
    """The resource, or the part *what* of it, was not there and is now."""

    what: str = ""

    def __str__(self) -> str:
        return f"created {self.what}".rstrip()


@attrs.frozen
class Wrote(Step):
    """The part *what* has other content now."""

    what: str

    def __str__(self) -> str:
        return f"wrote {self.what}"


@attrs.frozen
class Changed(Step):
    """The attribute *name*, such as ``mode``, had the value *before* and has *after* now."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name} {self.before} → {self.after}"


@attrs.frozen
class Removed(Step):
    """The resource, or the part *what* of it, is gone."""

    what: str = ""

    def __str__(self) -> str:
        return f"removed {self.what}".rstrip()


@attrs.frozen
class PutBack(Step):
    """*What* is again as it was before Harmony."""

    what: str

    def __str__(self) -> str:
        return f"put back {self.what}"


@attrs.frozen
class Left(Step):
    """The resource stays as it is, although it was to be removed."""

    why: str

    def __str__(self) -> str:
        return f"left: {self.why}"


@attrs.frozen
class Renamed(Step):
    """The resource has its name again; it was called *before*."""

    before: str

    def __str__(self) -> str:
        return f"renamed: it was called {self.before}"


@attrs.frozen
class Enabled(Step):
    """It starts by itself from now on."""

    def __str__(self) -> str:
        return "enabled"


@attrs.frozen
class Disabled(Step):
    """It does not start by itself any more."""

    def __str__(self) -> str:
        return "disabled"


@attrs.frozen
class Started(Step):
    """It was started."""

    def __str__(self) -> str:
        return "started"


@attrs.frozen
class Stopped(Step):
    """It was stopped."""

    def __str__(self) -> str:
        return "stopped"


@attrs.frozen(kw_only=True)
class Restarted(Step):
    """It was restarted, since it ran from something else than what is there now."""

    changed: tuple[str, ...] = ()
    """What has other content than when it was started: paths, or ``its file``."""
    gone: tuple[str, ...] = ()
    """The paths of what it was started with and is not there any more."""
    is_origin_unknown: bool = False
    """Whether nobody can tell what it was started from."""
    lost: tuple[str, ...] = ()
    """Which settings of the kernel are others than it has made, in words."""

    def __str__(self) -> str:
        reasons = [f"{', '.join(self.changed)} changed"] if self.changed else []
        if self.is_origin_unknown:
            reasons.append("it is not known what it was started from")
        reasons += [f"{path} is gone" for path in self.gone]
        reasons += self.lost
        return f"restarted: {'; '.join(reasons)}"


@attrs.frozen
class Pulled(Step):
    """Its image was fetched from its registry."""

    def __str__(self) -> str:
        return "pulled"


@attrs.frozen
class Downloaded(Step):
    """Its content was fetched from the *address*."""

    address: str

    def __str__(self) -> str:
        return f"downloaded from {self.address}"


@attrs.frozen(kw_only=True)
class Recreated(Step):
    """The container was removed and made anew: *fields* of its specification, or files, have changed."""

    fields: frozenset[str] = attrs.field(default=frozenset(), converter=_frozen)
    is_removal_cut_short: bool = False
    """Whether what was there was half removed."""

    def __str__(self) -> str:
        reasons = [f"{', '.join(sorted(self.fields))} changed"] if self.fields else []
        if self.is_removal_cut_short:
            reasons.append("its removal was cut short")
        return f"recreated: {'; '.join(reasons)}"


@attrs.frozen(kw_only=True)
class KeptVolume(Step):
    """The volume *name* stays on the device, though no container sees it at *target* any more; or no Score
    wants it."""

    name: str
    target: str = ""

    def __str__(self) -> str:
        where = f" ({self.target})" if self.target else " and its data"
        return f"kept volume {self.name}{where}; delete it with: podman volume rm {self.name}"


@attrs.frozen
class DeletedData(Step):
    """The volume *name* is gone, and all that was in it."""

    name: str

    def __str__(self) -> str:
        return f"deleted volume {self.name} with all its data"


@attrs.frozen
class SavedData(Step):
    """All that is in the volume *name* was put into an archive, for somebody who may read it."""

    name: str
    size_bytes: int

    def __str__(self) -> str:
        return f"saved the data of volume {self.name} ({self.size_bytes} bytes)"


@attrs.frozen
class LoadedData(Step):
    """The volume *name* has the data of an archive. What was there is at *previous*, or gone."""

    name: str
    size_bytes: int
    previous: str = ""
    taken_back: bool = False
    """Whether it has its data from before again."""

    def __str__(self) -> str:
        if self.taken_back:
            return f"replaced the data of volume {self.name}, and put back what was there"
        kept = f"; the data from before is at {self.previous}" if self.previous else ""
        return f"replaced the data of volume {self.name} ({self.size_bytes} bytes){kept}"


def list_due(steps: Mapping[Step, bool]) -> tuple[Step, ...]:
    """Return those of *steps* that are due, in their order."""
    return tuple(step for step, is_due in steps.items() if is_due)
