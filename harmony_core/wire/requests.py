"""Requests: one-shot questions to a device, each signed for it alone and good for a minute at most.

    envelope -> size -> signature -> parse -> fleet -> target -> time -> not answered before -> Asked

The order is the trust boundary, as with a manifest. What fails before the time is looked at was not meant
for this device, and is dropped without a word. What is wrong in ``args`` is answered, since an older agent
may be asked what it does not know.

Time on a device without a clock's battery is not believed against a signature: it is the latest of its
clock, of what the manifest in force was issued at, and of the expiry of any nonce that had to be
forgotten. So a request can be answered twice neither while its nonce is remembered nor afterwards.
"""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_core.errors import (
    InvalidRequest,
    RequestExpired,
    RequestReplayed,
    UnknownVerb,
    WrongFleet,
    WrongTarget,
)
from harmony_core.resources import first_problem

from . import strict_json
from .envelope import PAYLOAD_MAX_BYTES, Signer, open_envelope, seal
from .manifest import API_VERSION, Fleet, SerializedScore, Target, target_of
from .model_fields import ScoreId, UtcTime
from .sealed import ReportKey
from .times import in_utc, rfc3339

__all__ = [
    "LIFETIME_MOST_S",
    "LINES_MOST",
    "PIECE_MAX_BYTES",
    "READ_MAX_BYTES",
    "REQUEST_TYPE",
    "Ask",
    "Asked",
    "Audit",
    "Diff",
    "Events",
    "Logs",
    "Nonces",
    "Reboot",
    "Reconcile",
    "Release",
    "Request",
    "VolumeEnd",
    "VolumeLoad",
    "VolumeRead",
    "VolumeSave",
    "VolumeWrite",
    "Volumes",
    "accept_request",
    "ask_of",
    "new_request",
    "open_request",
    "seal_request",
]

REQUEST_TYPE = "application/vnd.harmony.request.v1+json"
LIFETIME_MOST_S = 60
LINES_MOST = 10_000
PIECE_MAX_BYTES = 128 * 1024
"""Of what is sent to a device at once."""
READ_MAX_BYTES = 1024 * 1024
"""Of what a device sends in one answer."""
_DEPTH_MOST = 33
"""One more than a manifest's: the same entries are one deeper in a request."""
_NONCES_MOST = 1_024

Nonce: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits: a token of the subject on which the answer comes, so nobody can guess where."""
Verb: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]
Lines: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=LINES_MOST)]
Seq: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Cursor: TypeAlias = Annotated[str, StringConstraints(max_length=512, pattern=r"^[\x21-\x7e]+$")]
ResourceId: TypeAlias = Annotated[str, StringConstraints(max_length=512)]
VolumeName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=255)
]
TransferId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits, chosen by who asks."""
BootId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=64)]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Box: TypeAlias = Annotated[str, StringConstraints(max_length=2 * PIECE_MAX_BYTES)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Reconcile(_Wire):
    """Look at a Score, or at all of them, now; answered with what each came to."""

    verb: ClassVar[str] = "reconcile"

    score: ScoreId | None = None
    enforce: StrictBool = False
    """Put right once also what has drifted and is only to be told of."""


class Logs(_Wire):
    """The newest lines that a Score's units and containers have logged, oldest first."""

    verb: ClassVar[str] = "logs"

    score: ScoreId
    since: UtcTime | None = None
    after: Annotated[dict[ResourceId, Cursor], Field(max_length=256)] = {}
    """Where to go on, by resource: the ``cursor`` of the last line had. Wins over ``since``."""
    follow: StrictBool = False
    lines: Lines = 100


class Events(_Wire):
    """The newest changes that were made to the device, oldest first."""

    verb: ClassVar[str] = "events"

    score: ScoreId | None = None
    since: UtcTime | None = None
    after: Seq | None = None
    """Where to go on: the ``seq`` of the last event had."""
    follow: StrictBool = False
    lines: Lines = 100


class Audit(_Wire):
    """The changes that were made to the device as they stand in its database, each with the hash before it;
    some megabytes of them at once."""

    verb: ClassVar[str] = "audit"

    after: Seq | None = None
    """Where to go on: the ``seq`` of the last one had. Nothing comes any more after the newest."""


def _of_different_ids(entries: tuple[SerializedScore, ...]) -> tuple[SerializedScore, ...]:
    ids = [entry.id for entry in entries]
    if repeated := sorted({each for each in ids if ids.count(each) > 1}):
        raise ValueError(
            f"the id {repeated[0]!r} is used by more than one entry; rename one of them"
        )
    return entries


class Diff(_Wire):
    """What would change if these Scores were added or replaced; nothing is done."""

    verb: ClassVar[str] = "diff"

    entries: Annotated[tuple[SerializedScore, ...], AfterValidator(_of_different_ids)]
    whole: StrictBool = False
    """If these were all that is wanted, and every other Score were to go."""


class Release(_Wire):
    """Do now what an application has asked to put off."""

    verb: ClassVar[str] = "release"

    score: ScoreId


class Reboot(_Wire):
    """Boot the device anew, out of the boot that it is in; asked of it in another, it is refused."""

    verb: ClassVar[str] = "reboot"

    boot_id: BootId
    """In which boot it is now, as it has reported: so that no request ends two."""
    if_needed: StrictBool = False
    """Only where something awaits a boot, and none was in vain."""


class Volumes(_Wire):
    """All volumes of the device, whoever made them."""

    verb: ClassVar[str] = "volumes"


class VolumeSave(_Wire):
    """Put all that is in a volume into an archive, to be read in pieces. Asked again, tell how far it is."""

    verb: ClassVar[str] = "volume-save"

    volume: VolumeName
    transfer: TransferId
    seal_to: ReportKey
    """To whose public key each piece is sealed: made for this transfer alone."""
    stop: StrictBool = False
    """Stop who has the volume meanwhile, where else they are paused."""


class VolumeRead(_Wire):
    """The next pieces of such an archive."""

    verb: ClassVar[str] = "volume-read"

    transfer: TransferId
    offset: Seq


class VolumeWrite(_Wire):
    """One piece of an archive that is to be loaded; the first begins it."""

    verb: ClassVar[str] = "volume-write"

    volume: VolumeName
    transfer: TransferId
    offset: Seq
    box: Box
    """The piece, sealed to the device's own key, in base64."""


class VolumeLoad(_Wire):
    """Have in a volume what was sent, in place of what is in it. Asked again, tell how far that is."""

    verb: ClassVar[str] = "volume-load"

    volume: VolumeName
    transfer: TransferId
    size_bytes: Seq
    sha256: Sha256
    keep_previous: StrictBool = False


class VolumeEnd(_Wire):
    """Forget a transfer, and delete what the device has of it."""

    verb: ClassVar[str] = "volume-end"

    transfer: TransferId


Ask: TypeAlias = (
    Reconcile
    | Logs
    | Events
    | Audit
    | Diff
    | Release
    | Reboot
    | Volumes
    | VolumeSave
    | VolumeRead
    | VolumeWrite
    | VolumeLoad
    | VolumeEnd
)
"""All that a device can be asked."""

_ASKS: Mapping[str, type[Ask]] = {
    each.verb: each
    for each in (
        *(Reconcile, Logs, Events, Audit, Diff, Release, Reboot, Volumes),
        *(VolumeSave, VolumeRead, VolumeWrite, VolumeLoad, VolumeEnd),
    )
}


class Request(_Wire):
    """One question to one device, as an operator has signed it."""

    api_version: Literal["harmony/v1"] = API_VERSION
    fleet: Fleet
    target: Target
    nonce: Nonce
    issued_at: UtcTime
    expires_at: UtcTime
    """At most a minute later; not accepted from then on."""
    verb: Verb
    args: dict[str, Any] = {}

    @property
    def agent_id(self) -> str:
        return self.target.removeprefix("agent:")

    def payload(self) -> bytes:
        """Return the bytes to sign. `TooLarge`, `TooDeep` or `NotJson` if no device would read them."""
        data = strict_json.dumps(self.model_dump(mode="json"))
        strict_json.loads(data, max_bytes=PAYLOAD_MAX_BYTES, max_depth=_DEPTH_MOST)
        return data

    @model_validator(mode="after")
    def _lives_for_a_minute_at_most(self) -> Self:
        lifetime = self.expires_at - self.issued_at
        if not timedelta() < lifetime <= timedelta(seconds=LIFETIME_MOST_S):
            raise ValueError(
                f"expires_at must be later than issued_at, by at most {LIFETIME_MOST_S} seconds"
            )
        return self


@attrs.frozen(kw_only=True)
class Asked:
    """A request that a pinned key has signed for this very device."""

    request: Request
    keyids: tuple[str, ...]
    """The pinned keys that signed it."""


class Nonces:
    """What was answered, until it expires: at most *most* of them.

    When there would be more, the first to expire is forgotten, and time is from then on at least that
    expiry: so what is forgotten has expired, whatever the device's clock says.
    """

    def __init__(self, *, most: int = _NONCES_MOST) -> None:
        self.floor = datetime.min.replace(tzinfo=UTC)
        """No earlier than this is it now."""
        self._most = most
        self._known: set[str] = set()
        self._by_expiry: list[tuple[datetime, str]] = []

    @property
    def count(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def take(self, nonce: str, expires_at: datetime, now: datetime) -> bool:
        """Remember *nonce*; False if it is remembered already."""
        while self._by_expiry and self._by_expiry[0][0] <= now:
            self._forget_first()
        if nonce in self._known:
            return False
        self._known.add(nonce)
        heapq.heappush(self._by_expiry, (expires_at, nonce))
        if len(self._known) > self._most:
            self.floor = max(self.floor, self._forget_first())
        return True

    def _forget_first(self) -> datetime:
        expires_at, nonce = heapq.heappop(self._by_expiry)
        self._known.remove(nonce)
        return expires_at


def new_request(
    ask: Ask, *, fleet: str, agent_id: str, now: datetime, lifetime_s: float = LIFETIME_MOST_S
) -> Request:
    """Return a request with a nonce of its own, good for *lifetime_s*: by default as long as any may be."""
    issued_at = in_utc(now)
    return Request(
        fleet=fleet,
        target=target_of(agent_id),
        nonce=secrets.token_hex(16),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(seconds=lifetime_s),
        verb=ask.verb,
        args=ask.model_dump(mode="json"),
    )


def seal_request(request: Request, key: Signer) -> bytes:
    """Return the envelope of *request*. Raise as `Request.payload` does."""
    return seal(request.payload(), key, payload_type=REQUEST_TYPE)


def open_request(
    envelope: bytes, *, trusted: Mapping[str, bytes], fleet: str, agent_id: str
) -> Asked:
    """Return the request in *envelope* if it is meant for this device, whenever that was: half of
    `accept_request`.

    Raises the `ManifestRejected` of the envelope or the JSON, `InvalidRequest`, `WrongFleet` or
    `WrongTarget`. None of them may be answered: nobody is known who asked.
    """
    opened = open_envelope(envelope, trusted, payload_type=REQUEST_TYPE)
    request = _parse(opened.payload)
    if request.fleet != fleet:
        raise WrongFleet(
            f"fleet: asked of {request.fleet!r}, this device belongs to {fleet!r}; "
            "ask from the fleet's own control plane"
        )
    if request.target != target_of(agent_id):
        raise WrongTarget(
            f"target: asked of {request.target!r}, this is {target_of(agent_id)!r}; "
            "ask the device that is meant"
        )
    return Asked(request=request, keyids=opened.keyids)


def accept_request(
    asked: Asked,
    *,
    nonces: Nonces,
    now: datetime,
    vouched_for: Sequence[datetime] = (),
    started_at: datetime | None = None,
) -> Ask:
    """Return what is asked, if it may be answered; from then on its nonce is remembered in *nonces*.

    *now* is the device's clock; *vouched_for* are times that have certainly passed, because a pinned key
    says so; what was issued before *started_at* may have been answered by an agent that has ended since.
    Raises `RequestExpired`, `RequestReplayed`, then what `ask_of` raises.
    """
    request = asked.request
    now = max(now, nonces.floor, *vouched_for)
    if request.expires_at <= now:
        raise RequestExpired(
            f"expires_at: {rfc3339(request.expires_at)} has passed, it is {rfc3339(now)} here; "
            "ask again; if that does not help, set the clock that is wrong"
        )
    if started_at is not None and request.issued_at < in_utc(started_at):
        raise RequestExpired(
            f"issued_at: {rfc3339(request.issued_at)} is before this agent has started, at "
            f"{rfc3339(started_at)} by its clock; ask again"
        )
    if not nonces.take(request.nonce, request.expires_at, now):
        raise RequestReplayed(f"nonce: {request.nonce} was answered before; ask with another")
    return ask_of(request)


def ask_of(request: Request) -> Ask:
    """Return the arguments of *request*, typed; `UnknownVerb` or `InvalidRequest`."""
    ask = _ASKS.get(request.verb)
    if ask is None:
        raise UnknownVerb(
            f"verb: {request.verb!r} is not known here, {', '.join(sorted(_ASKS))} are; "
            "update the agent"
        )
    try:
        return ask.model_validate(request.args)
    except ValidationError as error:
        raise InvalidRequest(
            f"args of {request.verb}: {first_problem(error)}; correct it, or update the older side"
        ) from error


def _parse(payload: bytes) -> Request:
    value = strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES, max_depth=_DEPTH_MOST)
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(
            f"{first_problem(error)}; correct it, or update the older side"
        ) from error
