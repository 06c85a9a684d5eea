"""What stands in fleet.py: the same as in fleet.yaml, in types that a type checker reads.

::

    from harmony_control import Class, DeviceConfig

    devices = {"pi-1": DeviceConfig(labels={"role": "kiosk"})}
    classes = {
        "kiosk": Class(
            selector="role=kiosk",
            scores={"motd": FileScore(path="/etc/motd", content="hello")},
            rollout={"steps": [{"upto": "1%", "soak": "10m"}, "100%"]},
        )
    }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Literal, NotRequired, Required, TypedDict, TypeVar

import attrs
from pydantic import ValidationError

from harmony_control.push.entries import Pushable
from harmony_core.errors import UsageError
from harmony_core.resources import first_problem
from harmony_core.wire.class_manifest import Day

from .model import RolloutSpec

__all__ = ["Class", "DeviceConfig", "RolloutDict", "StepDict", "WindowDict"]

TopologyT_contra = TypeVar("TopologyT_contra", contravariant=True)


class StepDict(TypedDict, total=False):
    """One wave; see `StepSpec`."""

    upto: Required[str | int]
    soak: str | int


class WindowDict(TypedDict):
    """When devices may begin; see `WindowSpec`."""

    days: NotRequired[Sequence[Day]]
    begin: str
    until: str


class RolloutDict(TypedDict, total=False):
    """How a class is rolled out; see `RolloutSpec`."""

    canary: str
    steps: Sequence[StepDict | str | int]
    success: str | float
    max_unhealthy: str | float
    online_min: str | float
    deadline: str | int
    windows: Sequence[WindowDict]
    on_stop: Literal["rollback", "stay"]


def _rollout(value: RolloutSpec | RolloutDict) -> RolloutSpec:
    try:
        return RolloutSpec.model_validate(value)
    except ValidationError as error:
        raise UsageError(f"rollout: {first_problem(error, RolloutSpec)}") from error


def _nothing() -> Mapping[str, str]:
    return {}


@attrs.frozen(kw_only=True)
class Class(Generic[TopologyT_contra]):
    """What all devices are to be that *selector* selects. Typed by what runs on them, as `Device` is."""

    selector: str
    scores: Mapping[str, Pushable[TopologyT_contra]]
    """By id."""
    priority: int = 0
    rollout: RolloutSpec = attrs.field(factory=RolloutSpec, converter=_rollout)


@attrs.frozen(kw_only=True)
class DeviceConfig(Generic[TopologyT_contra]):
    """What one device is to be of its own."""

    labels: Mapping[str, str] = attrs.field(factory=_nothing)
    scores: Mapping[str, Pushable[TopologyT_contra]] | None = None
    """By id; None: whatever it has of its own stays."""
    without: Sequence[str] = ()
    """Scores of its classes that it does without."""
