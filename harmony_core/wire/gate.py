"""The gate of a class: how far its newest generation is let.

Small, since it goes to every device. Whoever signs it chooses between two generations that an operator has
signed, by their hashes, and how many devices have the newer one.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harmony_core.errors import InvalidManifest, WrongFleet, WrongTarget
from harmony_core.resources import first_problem

from . import strict_json
from .class_manifest import PLACES, ClassName
from .manifest import API_VERSION, Count, Generation
from .model_fields import Part, ScoreId, UtcTime
from .selector import SelectorText

__all__ = ["GATE_MAX_BYTES", "GATE_TYPE", "Gate", "GateState", "parse_gate"]

GATE_TYPE = "application/vnd.harmony.gate.v1+json"
GATE_MAX_BYTES = 8 * 1024

GateState: TypeAlias = Literal["running", "paused", "aborted", "done"]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Gate(Part):
    """What a class's devices may do now."""

    api_version: Literal["harmony/v1"] = API_VERSION
    fleet: ScoreId
    name: ClassName
    epoch: Count = 0
    generation: Generation
    sha256: Sha256
    """Of the payload of the class manifest that is rolled out."""
    stable_generation: Count = 0
    """What it supersedes; 0 for none."""
    stable_sha256: Sha256 | None = None
    state: GateState
    """running: who is let in begins. paused: nobody begins, nobody goes back. aborted: who has begun goes
    back. done: everybody has it, whoever comes later too."""
    step: Annotated[int, Field(strict=True, ge=0, le=31)] = 0
    """The wave that is open, of the class manifest's; those before are."""
    slot: Count = 0
    """Of that wave, only devices whose label ``slot`` is so much or less."""
    places: Annotated[int, Field(strict=True, ge=0, le=PLACES)]
    """As that step says, for devices that have not fetched the class manifest."""
    canary: SelectorText | None = None
    """As the class manifest says."""
    term: Count
    """Of the controller that has written it: who takes over takes a greater one."""
    seq: Count
    """Greater in each gate of one term."""
    issued_at: UtcTime
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""

    @property
    def order(self) -> tuple[int, int, int, int]:
        """What makes one gate newer than another."""
        return (self.epoch, self.generation, self.term, self.seq)

    @property
    def settled(self) -> tuple[int, str | None]:
        """Return the generation that devices are to have in the end, and its hash: of an aborted rollout, the
        one before; 0 for none."""
        if self.state == "aborted":
            return self.stable_generation, self.stable_sha256
        return self.generation, self.sha256

    @model_validator(mode="after")
    def _names_both(self) -> Self:
        if (self.stable_generation == 0) != (self.stable_sha256 is None):
            raise ValueError("stable_sha256: must be there if stable_generation is, and only then")
        if self.stable_generation >= self.generation:
            raise ValueError("stable_generation: must be earlier than generation")
        return self

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        return strict_json.dumps(self.model_dump(mode="json"))


def parse_gate(payload: bytes, *, fleet: str, name: str) -> Gate:
    """Read a payload *that a key for gates has signed*, of that class; any `ManifestRejected` of it."""
    value = strict_json.loads(payload, max_bytes=GATE_MAX_BYTES)
    try:
        found = Gate.model_validate(value)
    except ValidationError as error:
        raise InvalidManifest(f"gate: {first_problem(error)}") from error
    if found.fleet != fleet:
        raise WrongFleet(f"fleet: signed for {found.fleet!r}, this device belongs to {fleet!r}")
    if found.name != name:
        raise WrongTarget(f"name: this is the gate of {found.name!r}, not of {name!r}")
    return found
