"""Reboots: who awaits that the device is booted anew, and what stands behind `RebootHost` on it.

A state that has a field ``awaits_reboot``, and it is true, says that its thing is in place, and that only a
boot brings it into force. The agent gathers these, and boots the device by its `RebootRule`: once for each
cause, since a boot that did not help would not help again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

import attrs

from .resources import RebootRuleAt

__all__ = ["RebootNote", "Rebooting"]

_NAMED_MOST = 5


@attrs.frozen(kw_only=True)
class RebootNote:
    """What has to be remembered over a boot."""

    boot_id: str = ""
    """In which boot the next one was asked for; empty where none was."""
    at: str = ""
    """When that was (RFC 3339)."""
    causes: tuple[str, ...] = ()
    """For what it was asked for: who awaits it, what, and how that is, with spaces between."""
    words: str = ""
    """Why it was asked for, as the audit has it."""
    signed_by: tuple[str, ...] = ()
    """Who has asked for it by a request; empty where it is by the rule."""
    is_told: bool = False
    """Whether the audit has it: it may be lost where the device goes down in the midst of that."""
    in_vain: tuple[str, ...] = ()
    """For what a boot was asked for, and it is still awaited: never asked for again."""
    why: str = ""
    """Why these are in vain."""
    helped: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    """What boots of the last day have brought into force, and when each of these was asked for."""

    def in_words(self) -> str:
        """Return in words which reboots were in vain, with what to do."""
        named = ", ".join(" ".join(each.split(" ")[:2]) for each in self.in_vain[:_NAMED_MOST])
        return (
            f"{named}: {self.why}; look on the device why (journalctl -b), and change the Score that asks "
            "for it, or boot by hand"
        )


@runtime_checkable
class Rebooting(Protocol):
    """A `Reconciler` of the `RebootRule` that can boot its device."""

    def read_rule(self) -> RebootRuleAt | None:
        """Return the rule; None where there is none."""
        ...

    def read_note(self) -> RebootNote:
        """Return what was noted last."""
        ...

    async def note(self, note: RebootNote) -> None:
        """Remember *note*, durably once this returns."""

    async def find_system_reasons(self) -> Collection[str]:
        """Return why the system itself says that it must be rebooted, such as the names of packages."""
        ...

    async def find_obstacles(self) -> Collection[str]:
        """Return who says that the device must not go down now, and why. Raise a `CapabilityError`."""
        ...

    async def reboot(self) -> None:
        """Stop everything that runs, in order, and reboot the device. Return once that has begun."""
