"""RebootScore: when a device may be booted anew."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harmony_core import HasReboots, Inventory, Outcome, RebootRule, Score, outcome_of
from harmony_core.resources import RebootWhen

from ._whole import refused_as_fields

__all__ = ["RebootScore"]


class RebootScore(Score[HasReboots]):
    """The device is booted anew when something awaits that: at once, in a window of time, or never.

    What awaits it is what other Scores have changed and only a boot brings into force, as a BootConfigScore
    does, and what Debian's packages say in /run/reboot-required. Nothing is cut short: no Score may be under
    way, no application may hold, and nobody may inhibit a shutdown (systemd-inhibit) or install packages.
    Booted is once for each cause; what a boot has not brought into force is a FAILURE. Without this Score,
    the device is never booted by itself, and says RebootRequired; `harmony reboot` boots it.
    """

    when: RebootWhen = Field(
        description="now: as soon as nothing is under way; window: then, and in the window; never."
    )
    window: str = Field(
        default="",
        max_length=256,
        description="When the window begins, as systemd.time(7) has it, in the device's time zone: "
        "Sun 03:00.",
    )
    lasts_s: int = Field(
        default=3600, ge=60, le=86_400, description="How long the window lasts, in seconds."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._rule()
        return self

    async def interpret(self, inventory: Inventory, topology: HasReboots) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.reboots.ensure(self._rule()))

    def _rule(self) -> RebootRule:
        return RebootRule(when=self.when, window=self.window, lasts_s=self.lasts_s)
