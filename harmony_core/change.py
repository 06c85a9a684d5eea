"""What one look at one resource found, did, and still waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from .errors import CapabilityError
    from .resources import State  # whoever only reads Outcomes is spared every model of a resource
    from .steps import Step

__all__ = ["Change", "Changes", "NotReady", "Progress", "UnknownUntilApplied"]


@attrs.frozen(kw_only=True)
class Progress:
    """How far something is: ``done`` of ``total`` *unit*; total is None while it is not known."""

    done: int
    total: int | None
    unit: str


WaitingReason: TypeAlias = Literal["NotReady", "Progressing", "Blocked", "Held"]


class NotReady(Exception):
    """Everything asked for is in place, but it does not serve yet. The Outcome is RUNNING.

    Not an error: no back-off, no attempt counted. The Score is interpreted again in *look_again_s*.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str,
        reason: WaitingReason = "NotReady",
        progress: Progress | None = None,
        look_again_s: float = 1.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource
        self.reason: WaitingReason = reason
        self.progress = progress
        self.look_again_s = look_again_s


class UnknownUntilApplied(NotReady):
    """In a dry run, something was asked that only the change itself can answer. The plan ends here."""


@attrs.frozen(kw_only=True)
class Change:
    """One resource, before and after. Without ``steps`` nothing was done (or would be, in a dry run)."""

    resource: str
    """Its id, such as ``unit:web.service``."""
    steps: tuple[Step, ...] = ()
    """What was done, in order: ``(Enabled(), Restarted(changed=("its file",)))``."""
    before: State | None = None
    after: State | None = None
    diff: str | None = None
    """A unified diff, for content that everybody on the device may read. Never of a secret."""
    pending: NotReady | None = None
    """Set when the resource is in place but does not serve yet."""
    doubt: CapabilityError | None = None
    """In a dry run: why it would fail as the device is now, unless what comes before it changes that."""

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def actions(self) -> tuple[str, ...]:
        """The steps as text, for the wire and for people: ``("enabled", "restarted: its file changed")``."""
        return tuple(map(str, self.steps))


@attrs.frozen
class Changes:
    """The changes of one call, in the order of its resources."""

    items: tuple[Change, ...] = ()

    @property
    def changed(self) -> bool:
        return any(change.steps for change in self.items)

    @classmethod
    def of(cls, items: Iterable[Change]) -> Changes:
        return cls(tuple(items))

    def __iter__(self) -> Iterator[Change]:
        return iter(self.items)

    def __add__(self, other: Changes) -> Changes:
        return Changes(self.items + other.items)
