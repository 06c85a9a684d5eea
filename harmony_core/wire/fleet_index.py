"""The fleet index: which classes there are, who belongs to each, and who may open their gates.

One document, signed by an operator who may sign everything. It changes when classes, selectors or keys do,
and not with what a class is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harmony_core.errors import InvalidManifest, WrongFleet
from harmony_core.resources import first_problem

from . import strict_json
from .class_manifest import ClassName
from .manifest import API_VERSION, Count, Generation
from .model_fields import Part, PublicKey, ScoreId, UtcTime
from .selector import Selector, SelectorText, parse_selector

__all__ = ["FLEET_TYPE", "INDEX_MAX_BYTES", "ClassRule", "FleetIndex", "Freeze", "parse_index"]

FLEET_TYPE = "application/vnd.harmony.fleet.v1+json"
INDEX_MAX_BYTES = 128 * 1024
_PRIORITY_MOST = 1_000


class Selected(Part):
    """Who belongs to a class, from one generation of it on."""

    since: Count
    """The first generation of the class for which it is so."""
    selector: SelectorText


class ClassRule(Part):
    """One class."""

    priority: Annotated[int, Field(strict=True, ge=-_PRIORITY_MOST, le=_PRIORITY_MOST)] = 0
    """Where two classes have a Score of one id, the one with the higher priority is followed."""
    selectors: Annotated[tuple[Selected, ...], Field(min_length=1, max_length=8)]
    """The newest first: who belongs to a class changes as the generation is rolled out that brings it."""

    @model_validator(mode="after")
    def _newest_first(self) -> Self:
        since = [each.since for each in self.selectors]
        if since != sorted(set(since), reverse=True):
            raise ValueError(
                "selectors: the newest must stand first, and each is of another generation"
            )
        return self

    def find_selector(self, generation: int) -> Selector | None:
        """Return the selector of the class by *generation* of it; None where that is no longer known."""
        text = self.find_selector_text(generation)
        return None if text is None else parse_selector(text)

    def may_select(self, labels: Mapping[str, str]) -> bool:
        """Return whether a device with *labels* belongs to the class by any generation of it."""
        return any(
            (selector := self.find_selector(each.since)) is not None and selector.matches(labels)
            for each in self.selectors
        )

    def find_selector_text(self, generation: int) -> str | None:
        """Return as text what `find_selector` returns."""
        return next((each.selector for each in self.selectors if each.since <= generation), None)


class Freeze(Part):
    """Nothing new begins anywhere."""

    until: UtcTime | None = None
    """None: until it is taken away."""
    reason: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class FleetIndex(Part):
    """All classes of a fleet."""

    api_version: Literal["harmony/v1"] = API_VERSION
    fleet: ScoreId
    epoch: Count = 0
    generation: Generation
    issued_at: UtcTime
    classes: Annotated[dict[ClassName, ClassRule], Field(max_length=200)] = Field(
        default_factory=dict[str, ClassRule]
    )
    gate_keys: Annotated[tuple[PublicKey, ...], Field(max_length=16)] = ()
    """Who may sign gates, besides operators: such a key can choose only between two things that an operator
    has signed, and no sooner than that says."""
    freeze: Freeze | None = None

    @property
    def order(self) -> tuple[int, int]:
        """What comparisons use: epoch, then generation, as `Manifest.order`."""
        return (self.epoch, self.generation)

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        return strict_json.dumps(self.model_dump(mode="json"))


def parse_index(payload: bytes, *, fleet: str) -> FleetIndex:
    """Read a payload *that a pinned key has signed*; any `ManifestRejected` of it."""
    value = strict_json.loads(payload, max_bytes=INDEX_MAX_BYTES)
    try:
        found = FleetIndex.model_validate(value)
    except ValidationError as error:
        raise InvalidManifest(f"fleet index: {first_problem(error)}; apply it again") from error
    if found.fleet != fleet:
        raise WrongFleet(f"fleet: signed for {found.fleet!r}, this device belongs to {fleet!r}")
    return found
