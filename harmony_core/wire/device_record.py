"""Who a device is, said by an operator: with which key it signs what it says.

    record -> signed by the operator in whose home the device was enrolled -> bucket ``devices``, by its id

For operators elsewhere, who did not enrol it. Whoever holds the message server cannot give a device another
key; *serial* lets readers see that an older record was put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harmony_core.errors import InvalidManifest, WrongTarget

from . import strict_json
from .envelope import Signer, open_envelope, seal
from .model_fields import AgentId, ScoreId
from .sealed import ReportKey

__all__ = ["RECORD_TYPE", "SERIAL_MAX", "DeviceRecord", "open_record", "seal_record"]

RECORD_TYPE = "application/vnd.harmony.device.v1+json"
SERIAL_MAX = 2**53 - 1
_MOST_BYTES = 4 * 1024


class DeviceRecord(BaseModel):
    """One device, as it was enrolled."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    v: Literal[1] = 1
    fleet: ScoreId
    agent_id: AgentId
    report_key: ReportKey | None
    """The public half of the key with which it signs what it says; None once it is revoked."""
    serial: Annotated[int, Field(ge=1, le=SERIAL_MAX)]
    """Greater than in any record of that device before."""


def seal_record(record: DeviceRecord, key: Signer) -> bytes:
    """Return the envelope of *record*, signed by *key*."""
    return seal(record.model_dump_json().encode(), key, payload_type=RECORD_TYPE)


def open_record(
    data: bytes, *, trusted: Mapping[str, bytes], fleet: str, agent_id: str
) -> DeviceRecord:
    """Return the record in *data*, if one of the *trusted* keys has signed it, of that device.

    `ManifestRejected`s as of `open_envelope`; `InvalidManifest`; `WrongTarget`.
    """
    payload = open_envelope(data, trusted, payload_type=RECORD_TYPE).payload
    fields = strict_json.loads(payload, max_bytes=_MOST_BYTES, max_depth=2)
    try:
        found = DeviceRecord.model_validate(fields)
    except ValidationError as error:
        raise InvalidManifest(f"not a device's record: {error}") from error
    if (found.fleet, found.agent_id) != (fleet, agent_id):
        raise WrongTarget(f"the record is of {found.agent_id!r} in the fleet {found.fleet!r}")
    return found
