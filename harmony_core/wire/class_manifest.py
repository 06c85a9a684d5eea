"""The class manifest: what every device of a class is to be, and how it is rolled out.

Signed by an operator, written once, and never changed: another content is another generation. It names the
generation that it supersedes, which is the only one that devices can be sent back to.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from harmony_core.errors import InvalidManifest, WrongFleet, WrongTarget
from harmony_core.references import find_secrets
from harmony_core.resources import first_problem

from . import strict_json
from .envelope import PAYLOAD_MAX_BYTES
from .manifest import Count, Generation, Manifest, SerializedScore
from .model_fields import Part
from .names import ID_PATTERN
from .selector import SelectorText

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CLASS_TYPE",
    "PLACES",
    "ClassManifest",
    "ClassName",
    "Rollout",
    "Step",
    "Window",
    "class_target",
    "parse_class_manifest",
]

CLASS_TYPE = "application/vnd.harmony.class.v1+json"
PLACES = 2**32
"""How many places there are in a rollout: see `harmony_core.wire.admission.find_place`."""

ClassName: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Percent: TypeAlias = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay: TypeAlias = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_ALL_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _refuse_repeats(days: tuple[Day, ...]) -> tuple[Day, ...]:
    if len(set(days)) != len(days):
        raise ValueError("names a day more than once")
    return days


class Window(Part):
    """When a device may begin with a new generation: each of *days*, in the device's own time zone.

    Where *until* is not later than *begin*, it is of the next day.
    """

    days: Annotated[tuple[Day, ...], Field(min_length=1), AfterValidator(_refuse_repeats)] = (
        _ALL_DAYS
    )
    begin: TimeOfDay
    until: TimeOfDay


class Step(Part):
    """One wave of a rollout."""

    upto: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    """What its author wrote, for people: ``1%``, or a number of devices."""
    places: Annotated[int, Field(strict=True, ge=0, le=PLACES)]
    """Whose place is smaller is in this wave, or in one before. Chosen as this was signed, by the places of
    the devices that were known: exactly so many of them are in it."""
    soak_s: Annotated[int, Field(strict=True, ge=0, le=90 * 86_400)] = 0
    """How long all of it must have been healthy before the next; no device begins the next any sooner."""


class Rollout(Part):
    """How a generation comes to the devices of its class, and what stops it."""

    canary: SelectorText | None = None
    """Whom it selects is in the first wave, wherever its place."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=32)] = (
        Step(upto="100%", places=PLACES),
    )
    success_percent: Percent = 95.0
    """How many of a wave must be healthy before the next; of those that count."""
    unhealthy_percent: Percent = 2.0
    """More unhealthy devices than that of the class's devices, and more than one, abort it."""
    online_percent: Percent = 50.0
    """How many of a wave must have been online: of devices that are away, nobody learns anything."""
    deadline_s: Annotated[int, Field(strict=True, ge=1, le=30 * 86_400)] = 600
    """Who is not healthy so long after its wave was opened to it is unhealthy."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16)] = ()
    """When a device may begin; none: always."""
    on_stop: Literal["rollback", "stay"] = "rollback"
    """What an abort by itself does: bring back the devices that were reached, or leave them and pause."""

    @model_validator(mode="after")
    def _ends_with_all(self) -> Self:
        places = [each.places for each in self.steps]
        if places != sorted(places):
            raise ValueError("steps: each must reach as many places as the one before, or more")
        if places[-1] != PLACES:
            raise ValueError(f"steps: the last must reach all places, {PLACES}")
        return self

    def opens_at(self, step: int, issued_at: datetime) -> datetime:
        """Return the time before which no device begins with *step*."""
        return issued_at + timedelta(seconds=sum(each.soak_s for each in self.steps[:step]))


class ClassManifest(Manifest):
    """All that a class's devices are to be by one generation of it."""

    target: Annotated[str, StringConstraints(pattern=f"^class:{ID_PATTERN[1:]}")]
    supersedes: Count = 0
    """The generation before, and what an abort goes back to; 0 for none."""
    rollout: Rollout = Rollout()

    @property
    def name(self) -> str:
        """Return the class."""
        return self.target.removeprefix("class:")

    @model_validator(mode="after")
    def _has_only_what_a_class_has(self) -> Self:
        if self.labels:
            raise ValueError("labels: a class sets none; labels are a device's own")
        if self.without:
            raise ValueError("without: is a device's own")
        if (why := explain_class_secret(self.scores)) is not None:
            raise ValueError(why)
        if self.supersedes >= self.generation:
            raise ValueError("supersedes: must be an earlier generation")
        return self

    def _left_out(self) -> Sequence[str]:
        return ("labels", "without")


def explain_class_secret(entries: Iterable[SerializedScore]) -> str | None:
    """Return which of *entries* has a secret, which no class can have, and what to do; None for none."""
    for entry in entries:
        if entry.secrets or (entry.references and find_secrets(entry.spec)):
            return (
                f"{entry.id}: a class is for many devices, and a secret is sealed to one; push this Score to "
                "each device: harmony push-score DEVICE FILE"
            )
    return None


def class_target(name: str) -> str:
    """Return the ``target`` of a class's manifests."""
    return f"class:{name}"


def parse_class_manifest(
    payload: bytes, *, fleet: str, name: str, generation: Generation | None = None
) -> ClassManifest:
    """Read a payload *that a pinned key has signed*, of that class; any `ManifestRejected` of it."""
    value = strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES)
    try:
        found = ClassManifest.model_validate(value)
    except ValidationError as error:
        raise InvalidManifest(f"class manifest: {first_problem(error)}; push it again") from error
    if found.fleet != fleet:
        raise WrongFleet(f"fleet: signed for {found.fleet!r}, this device belongs to {fleet!r}")
    if found.name != name or generation not in {None, found.generation}:
        raise WrongTarget(
            f"target: this is generation {found.generation} of {found.target!r}, not {generation} of "
            f"{class_target(name)!r}; push the class again"
        )
    return found
