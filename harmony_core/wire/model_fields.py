"""Names and times as fields of pydantic models.

Apart from `names` and `times`, so that what shows a name or reads a time does not load pydantic for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
)

from harmony_core.errors import ConfigError

from .envelope import VerifyKey
from .names import ID_PATTERN, KIND_PATTERN
from .times import in_utc, parse_rfc3339, rfc3339

__all__ = ["AgentId", "Kind", "Part", "PublicKey", "ScoreId", "UtcTime"]

AgentId: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ScoreId: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Kind: TypeAlias = Annotated[str, StringConstraints(pattern=KIND_PATTERN)]


def _utc_time(value: object) -> datetime:
    match value:
        case datetime():
            return in_utc(value)
        case str():
            return parse_rfc3339(value)
        case _:
            raise ValueError("must be a text, as in 2026-01-31T12:00:00.000Z")


UtcTime: TypeAlias = Annotated[
    datetime, BeforeValidator(_utc_time), PlainSerializer(rfc3339, when_used="json")
]
"""An aware time in Python, cut to milliseconds; on the wire the text of `times.rfc3339`."""


def _check_public_key(text: str) -> str:
    try:
        return VerifyKey.from_text(text).to_text()
    except ConfigError as error:
        raise ValueError(error.message) from error


PublicKey: TypeAlias = Annotated[str, AfterValidator(_check_public_key)]
"""The one line of `VerifyKey.to_text`."""


class Part(BaseModel):
    """What is signed, or part of that: it never changes, and has no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
