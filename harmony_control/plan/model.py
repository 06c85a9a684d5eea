"""What stands in fleet.yaml: devices with their labels, and classes with their Scores and waves."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from harmony_control.times_typed import lasting
from harmony_core.errors import UsageError
from harmony_core.wire.admission import explain_slot
from harmony_core.wire.class_manifest import ClassName, Day, Percent, TimeOfDay
from harmony_core.wire.manifest import LabelName, LabelValue
from harmony_core.wire.model_fields import AgentId, ScoreId
from harmony_core.wire.selector import SelectorText, parse_selector

__all__ = ["ClassSpec", "DeviceSpec", "FleetSpec", "RolloutSpec"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = lasting(value, "")
    except UsageError:
        raise ValueError(f"{value!r} is not how long: write 30s, 10m or 12h") from None
    assert found is not None
    return int(found.total_seconds())


def _percent(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1])
        except ValueError:
            raise ValueError(f"{value!r} is no percentage: write 95%") from None
    return value


def _as_step(value: object) -> object:
    return {"upto": value} if isinstance(value, str | int) else value


def _chooses(text: str) -> str:
    if parse_selector(text).is_of_all:
        raise ValueError(
            "it names no labels, so every device would be a canary: write ring=canary, or leave it out"
        )
    return text


def _with_slot(labels: dict[str, str]) -> dict[str, str]:
    if why := explain_slot(labels):
        raise ValueError(f"slot: {why}")
    return labels


Seconds: TypeAlias = Annotated[int, BeforeValidator(_seconds), Field(ge=0, le=90 * 86_400)]
Percentage: TypeAlias = Annotated[Percent, BeforeValidator(_percent)]


class StepSpec(_Spec):
    """One wave."""

    upto: Annotated[str, BeforeValidator(str)]
    """How many devices are in it or before it: ``1%`` of the class, or a number."""
    soak: Seconds = 0
    """How long it must have been in order before the next."""


class WindowSpec(_Spec):
    """When devices may begin, by their own clock on the wall."""

    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    begin: TimeOfDay
    until: TimeOfDay


class RolloutSpec(_Spec):
    """How a class is rolled out."""

    canary: Annotated[SelectorText, AfterValidator(_chooses)] | None = None
    """Who is in the first wave, whatever its place."""
    steps: tuple[Annotated[StepSpec, BeforeValidator(_as_step)], ...] = ()
    """None: all devices at once."""
    success: Percentage = 95.0
    max_unhealthy: Percentage = 2.0
    online_min: Percentage = 50.0
    deadline: Annotated[Seconds, Field(ge=1, le=30 * 86_400)] = 600
    windows: tuple[WindowSpec, ...] = ()
    on_stop: Literal["rollback", "stay"] = "rollback"


class ClassSpec(_Spec):
    """What all devices are to be that the selector selects."""

    selector: SelectorText
    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = 0
    scores: tuple[str, ...] = ()
    """Score files, as `harmony push-score` takes them, relative to fleet.yaml."""
    rollout: RolloutSpec = RolloutSpec()


class DeviceSpec(_Spec):
    """One device."""

    labels: Annotated[dict[LabelName, LabelValue], AfterValidator(_with_slot)] = {}
    scores: tuple[str, ...] | None = None
    """Its own Scores; None: whatever it has of its own stays."""
    without: tuple[ScoreId, ...] = ()
    """Scores of its classes that it does without."""


class FleetSpec(_Spec):
    """A fleet."""

    fleet: ScoreId | None = None
    """Its name, so that no folder is applied to another fleet."""
    devices: dict[AgentId, DeviceSpec] = {}
    classes: dict[ClassName, ClassSpec] = {}
