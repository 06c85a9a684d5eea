"""When a device may be booted anew, for what only a boot brings into force. There is one rule, or none."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeAlias

import attrs
from pydantic import Field, model_validator

from harmony_core.calendars import window_problem

from ._base import Privilege, Resource, State

__all__ = ["RebootRule", "RebootRuleAt", "RebootWhen"]

RebootWhen: TypeAlias = Literal["never", "now", "window"]
_KEY = "device"


class RebootRule(Resource):
    """The device is booted anew for what awaits it: at once, in a window of time, or never."""

    resource_type: ClassVar[str] = "reboot"

    when: RebootWhen
    """Whether it is booted as soon as nothing is under way (now), only in the window, or never."""
    window: str = Field(default="", max_length=256)
    """When the window begins, as systemd.time(7) has it, in the device's time zone: Sun 03:00."""
    lasts_s: int = Field(default=3600, ge=60, le=86_400)
    """How long the window lasts, in seconds."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.when == "window") != bool(self.window):
            raise ValueError(
                'a window is given where when is "window", and only there, as in "Sun 03:00"'
            )
        if self.window and (problem := window_problem(self.window)) is not None:
            raise ValueError(f"window: {problem}")
        return self

    @property
    def key(self) -> str:
        return _KEY

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it is none's file
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - none is stopped but with all others
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - there is one
        return True


@attrs.frozen(kw_only=True)
class RebootRuleAt(State):
    """The rule by which the device is booted anew."""

    when: RebootWhen
    window: str = ""
    lasts_s: int = 3600

    @property
    def is_ready(self) -> bool:
        return True
