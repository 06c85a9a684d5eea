"""How a device that nobody knows yet gets into the bus: an invitation, a request, and its answer.

    operator: invitation  --(by hand, ssh, or a first-boot file)-->  device
    device:   makes its own key  --request, on harmony.enrol.<the invitation's public key>-->  server
    server:   accepted | pending | refused

The invitation says all that the device must believe: where the bus is, who vouches for it, whose Scores
count. So it is worth as much as the way on which it came; the answer says only whether the device is let in.
Its secret opens nothing but that one subject. The device's own key never leaves the device.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_core.errors import ConfigError, InvalidReply, ManifestRejected

from . import strict_json
from .model_fields import AgentId, ScoreId
from .names import JWT_PATTERN, MAILBOX_PATTERN, is_public_nkey
from .sealed import ReportKey

__all__ = [
    "ANSWER_MAX_BYTES",
    "REQUEST_MAX_BYTES",
    "EnrolAnswer",
    "EnrolRequest",
    "Invitation",
]

REQUEST_MAX_BYTES = 4 * 1024
ANSWER_MAX_BYTES = 4 * 1024
_INVITATION_MAX_BYTES = 64 * 1024
_PREFIX = "harmony-invitation:"


def _public_nkey(text: str) -> str:
    if not is_public_nkey(text):
        raise ValueError("is no user's public nkey")
    return text


Jwt: TypeAlias = Annotated[str, StringConstraints(pattern=JWT_PATTERN)]
_Nkey: TypeAlias = Annotated[str, AfterValidator(_public_nkey)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    v: Literal[1] = 1


class Invitation(_Document):
    """What a device is told that is to be let in. Secret until it is used up: see `seed`."""

    fleet: ScoreId
    servers: Annotated[tuple[str, ...], Field(min_length=1)]
    ca: str
    tls_server_name: str
    operator_keys: tuple[str, ...] = ()
    """Whose Scores count, in a fleet without a root document."""
    root: str | None = None
    """The fleet's root document, which says it; one of both is given."""
    seed: Annotated[str, Field(pattern=r"^SU[A-Z2-7]{56}$", repr=False)]
    """The nkey seed with which to ask, and to do nothing else."""
    jwt: Jwt | None = None
    """What lets that key in, to a server that does not know keys themselves."""
    agent_id: AgentId | None = None
    """The id that the device is to have; None lets it choose."""

    @model_validator(mode="after")
    def _says_whom_to_trust(self) -> Self:
        if (self.root is None) == (not self.operator_keys):
            raise ValueError("give operator_keys, or else root")
        return self

    def to_text(self) -> str:
        """Return one line without white space."""
        data = self.model_dump_json(exclude_none=True).encode()
        return _PREFIX + base64.urlsafe_b64encode(data).decode()

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        """Read that line, white space around it ignored; `ConfigError` on anything else."""
        prefix, colon, encoded = text.strip().partition(":")
        try:
            known = prefix + colon == _PREFIX
            data = base64.b64decode(encoded if known else "", altchars=b"-_", validate=True)
            fields = strict_json.loads(data, max_bytes=_INVITATION_MAX_BYTES, max_depth=3)
            return cls.model_validate(fields)
        except (ValueError, binascii.Error, ManifestRejected) as error:
            raise ConfigError(
                f"this is no invitation, which is one line that begins with {_PREFIX} and is made by "
                "`harmony invite`; copy all of it"
            ) from error


class EnrolRequest(_Document):
    """A device asks to be let in, under a name, with keys that it has made."""

    agent_id: AgentId
    nkey: _Nkey
    report_key: ReportKey
    """The public half of the key with which it signs what it says."""
    mailbox: Annotated[str, StringConstraints(pattern=MAILBOX_PATTERN)]

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, data: bytes) -> EnrolRequest:
        """Read what a stranger has sent; `ManifestRejected` or ValueError for what is none."""
        return cls.model_validate(strict_json.loads(data, max_bytes=REQUEST_MAX_BYTES, max_depth=2))


class EnrolAnswer(_Document):
    """What becomes of a request. Asked again, the same request gets the newest answer."""

    status: Literal["accepted", "pending", "refused"]
    message: str = ""
    """Why it was refused, and what to do; to be shown to a person."""
    jwt: Jwt | None = None
    """What lets the device's key in, to a server that does not know keys themselves. No secret."""

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> EnrolAnswer:
        """Read what the server has sent; `InvalidReply` for what is none."""
        try:
            fields = strict_json.loads(data, max_bytes=ANSWER_MAX_BYTES, max_depth=2)
            return cls.model_validate(fields)
        except (ManifestRejected, ValidationError) as error:
            raise InvalidReply(
                "the server's answer cannot be read; are both of one version?"
            ) from error
