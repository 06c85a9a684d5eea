"""What an agent says of its device: ActualState and Heartbeat, as docs/wire.md specifies them.

Frozen attrs classes; `to_json` and `from_json` are the only way in and out. Reading ignores unknown
fields, so that an older control plane reads a newer agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import attrs

from harmony_core.change import Progress
from harmony_core.errors import InvalidManifest
from harmony_core.outcome import ErrorInfo, Failure, Noop, Outcome, Running, RunningReason, Success

from .audit import AuditHead
from .fields import (
    Form,
    Reader,
    as_it_is,
    dict_of,
    fields_of,
    flag,
    list_of,
    one_of,
    optional,
    text,
    whole,
)
from .strict_json import is_shallow
from .vitals import Vitals, vitals_from_fields, vitals_to_fields

if TYPE_CHECKING:
    from harmony_core.resources import (
        State,
    )  # what only reads states is spared every model of a resource
from harmony_core.kind_error import KindError

__all__ = [
    "OWN_LAYER",
    "ActualState",
    "CapabilityState",
    "Condition",
    "ConditionType",
    "Drift",
    "Heartbeat",
    "LayerPhase",
    "LayerStatus",
    "ScoreStatus",
    "from_json",
    "optional_state_to_json",
    "score_from_json",
    "score_to_json",
    "state_to_json",
    "to_json",
]

API_VERSION = "harmony/v1"
_MAX_BYTES = 1024 * 1024
"""Of a report: more than the bucket takes."""
_DEPTH_MOST = 32
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_HASH = re.compile(r"[0-9a-f]{64}")

OWN_LAYER = "agent"
"""The layer that is the device's own manifest; that of a class is called ``class:`` and its name."""
LayerPhase = Literal["Waiting", "Admitted", "Applied", "RolledBack", "Refused"]
ConditionType = Literal["Ready", "Degraded", "Reconciling", "Stale", "RebootRequired"]
_FIRST_CONDITIONS = frozenset({"Ready", "Degraded", "Reconciling", "Stale"})
"""Those that every reader knows; a report with another one among them is refused by older readers."""


@attrs.frozen(kw_only=True)
class CapabilityState:
    """Offered: the device has it. Available: its daemon answers now."""

    offered: bool
    available: bool
    reason: str = ""


@attrs.frozen(kw_only=True)
class Drift:
    """The last time that something was not as it had been left."""

    at: str
    resource: str
    before: str
    after: str


@attrs.frozen(kw_only=True, slots=False)
class ScoreStatus:
    """One Score on one device."""

    kind: str
    version: int
    observed_generation: int
    """The manifest under which it was last interpreted."""
    since: str
    """When ``outcome`` last changed its status or reason."""
    outcome: Outcome
    attempts: int = 0
    drift_count: int = 0
    last_drift: Drift | None = None
    resources: Mapping[str, Mapping[str, Any]] = _EMPTY
    resources_total: int = 0
    resources_ready: int = 0
    looked_at: str | None = None
    """When the device was looked at last for it, by the time of this report; None before this process did."""
    layer: str = OWN_LAYER
    """Whose manifest it comes from, and whose generation ``observed_generation`` is of."""

    @property
    def deletes_data(self) -> bool:
        """Whether data would go for good with what it has made: then nothing of it counts as meant by whoever
        names it, and all of it waits until somebody approves."""
        return any(each.get("deletes_data") is True for each in self.resources.values())

    @property
    def text(self) -> str:
        """Compact JSON, without ``looked_at`` where that is not known."""
        looked = f'"looked_at":"{self.looked_at}",' if self.looked_at else ""
        return f'{{"observed_generation":{self.observed_generation},{looked}{self._rest}'

    def as_of(self, looked_at: str | None) -> ScoreStatus:
        """Return the same status, based on a look at that time."""
        _ = self._rest  # shared by both, and made once
        page = object.__new__(ScoreStatus)
        page.__dict__.update(self.__dict__, looked_at=looked_at)
        return page

    def under(self, generation: int) -> ScoreStatus:
        """Return the same status, confirmed under *generation*."""
        if generation == self.observed_generation:
            return self
        # Not by `attrs.evolve`, which would make every field anew: a hundred pages are a hundred of these.
        page = object.__new__(ScoreStatus)
        page.__dict__.update(self.__dict__, observed_generation=generation)
        return page

    @cached_property
    def _rest(self) -> str:
        """Made once: the same page is stored, and told with every report. Only the generation differs
        where a new manifest has changed nothing."""
        fields = score_to_json(self)
        del fields["observed_generation"], fields["looked_at"]
        if self.layer == OWN_LAYER:
            del fields["layer"]
        return _dumps(fields)[1:]


@attrs.frozen(kw_only=True)
class Condition:
    """One aspect of the device, as Kubernetes words it."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: str


@attrs.frozen(kw_only=True)
class LayerStatus:
    """What one class is on this device."""

    generation: int
    """Which is followed here; 0 for none."""
    observed_generation: int
    """The newest generation under which each of its Scores was interpreted; 0 while one never was."""
    wanted: int
    """Which the class's gate is about."""
    gate: tuple[int, int] | None
    """Term and number of the gate that counts here; None before there was one."""
    phase: LayerPhase
    """Waiting: it may not begin with what is wanted. Admitted: it has begun. Applied: all Scores of it are in
    order. RolledBack: what was wanted was aborted. Refused: what was signed cannot be followed."""
    reason: str
    """In one word: why it waits, or what was refused."""
    message: str
    since: str
    """When phase, reason or the generation that is followed last changed."""


@attrs.frozen(kw_only=True)
class ActualState:
    """Everything that one agent says of its device."""

    agent_id: str
    agent_version: str
    boot_id: str
    generation: int
    observed_generation: int
    counter: int = 0
    """Greater in each report and heartbeat than in any before, whatever the device went through."""
    manifest_sha256: str = ""
    """Of the payload of the manifest with that generation; empty before the first."""
    epoch: int = 0
    """Of that manifest."""
    root_version: int = 0
    """Which root document counts on the device; 0 for none."""
    root_sha256: str = ""
    """Of that document; empty for none, and where an older agent does not tell."""
    api_version: str = API_VERSION
    policy: str = ""
    """The preset of the device's own policy; empty where an older agent does not tell."""
    heartbeat_s: int | None = None
    """How long its next heartbeat may take while nothing goes on; None where an older agent does not tell."""
    audit: AuditHead | None = None
    """How far its chain of events went, of what was durable as this was written; None where an older agent
    does not tell, and where the device cannot read it."""
    truncated: bool = False
    removals_held: int = 0
    """How many resources wait for leave to be removed, of whatever Score."""
    capabilities: Mapping[str, CapabilityState] = _EMPTY
    kinds: Mapping[str, tuple[int, ...]] = _EMPTY
    kind_errors: tuple[KindError, ...] = ()
    scores: Mapping[str, ScoreStatus] = _EMPTY
    layers: Mapping[str, LayerStatus] = _EMPTY
    """Of each class that the device belongs to, by the layer's name."""
    conditions: tuple[Condition, ...] = ()
    """On the wire in two lists: the four of old, and ``more_conditions``, of which a reader leaves out those
    that it does not know."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """Sent after an empty item has passed through the work queue: the loop advances."""

    agent_id: str
    boot_id: str
    agent_version: str
    generation: int
    observed_generation: int
    queue_seq: int
    counter: int = 0
    """As in `ActualState`."""
    vitals: Vitals | None = None
    """How the device itself is; None where an older agent does not tell, and with most heartbeats of one that
    sends few."""
    api_version: str = API_VERSION


_PROGRESS = Form(Progress, done=whole, total=optional(whole), unit=text)
_ERROR = Form(ErrorInfo, code=text, message=text, resource=optional(text), retry_at=optional(text))
_OUTCOMES: Mapping[str, Reader[Outcome]] = {
    Success.status: Form(Success, reason=text, message=text),
    Noop.status: Form(Noop, reason=text, message=text),
    Running.status: Form(
        Running,
        reason=one_of(*get_args(RunningReason)),
        message=text,
        progress=optional(_PROGRESS),
    ),
    Failure.status: Form(Failure, error=_ERROR, reason=text, message=text),
}


def _outcome(value: Any) -> Outcome:
    status = one_of(*_OUTCOMES)(as_it_is(value).get("status"))
    return _OUTCOMES[status](value)


def _hash(value: Any) -> str:
    if not _HASH.fullmatch(text(value)):
        raise ValueError("must be 64 lower-case hexadecimal digits")
    return text(value)


def _gate(value: Any) -> tuple[int, int]:
    term, seq = list_of(whole)(value)
    return term, seq


_PAGE = Form(
    ScoreStatus,
    kind=text,
    version=whole,
    observed_generation=whole,
    since=text,
    outcome=_outcome,
    attempts=whole,
    drift_count=whole,
    last_drift=optional(Form(Drift, at=text, resource=text, before=text, after=text)),
    resources=dict_of(as_it_is),
    resources_total=whole,
    resources_ready=whole,
    looked_at=optional(text),
    layer=text,
)
_LAYER = Form(
    LayerStatus,
    generation=whole,
    observed_generation=whole,
    wanted=whole,
    gate=optional(_gate),
    phase=one_of(*get_args(LayerPhase)),
    reason=text,
    message=text,
    since=text,
)
_CONDITION = Form(
    Condition,
    type=one_of(*get_args(ConditionType)),
    status=one_of("True", "False", "Unknown"),
    reason=text,
    message=text,
    last_transition_time=text,
)
_STATE: Reader[ActualState] = Form(
    ActualState,
    agent_id=text,
    agent_version=text,
    boot_id=text,
    generation=whole,
    observed_generation=whole,
    counter=whole,
    manifest_sha256=text,
    epoch=whole,
    root_version=whole,
    root_sha256=text,
    api_version=text,
    policy=text,
    heartbeat_s=optional(whole),
    audit=optional(Form(AuditHead, seq=whole, head=_hash)),
    truncated=flag,
    removals_held=whole,
    capabilities=dict_of(Form(CapabilityState, offered=flag, available=flag, reason=text)),
    kinds=dict_of(list_of(whole)),
    kind_errors=list_of(Form(KindError, entry_point=text, reason=text)),
    scores=dict_of(_PAGE),
    layers=dict_of(_LAYER),
    conditions=list_of(_CONDITION),
)
_HEARTBEAT = Form(
    Heartbeat,
    agent_id=text,
    boot_id=text,
    agent_version=text,
    generation=whole,
    observed_generation=whole,
    queue_seq=whole,
    counter=whole,
    vitals=vitals_from_fields,
    api_version=text,
)


def _state(value: Any) -> ActualState:
    state = _STATE(value)
    more = [
        _CONDITION(each)
        for each in list_of(as_it_is)(as_it_is(value).get("more_conditions", []))
        if as_it_is(each).get("type") in get_args(ConditionType)
    ]
    return attrs.evolve(state, conditions=(*state.conditions, *more)) if more else state


_FORMS: Mapping[type[ActualState | Heartbeat], Reader[Any]] = {
    ActualState: _state,
    Heartbeat: _HEARTBEAT,
}

T = TypeVar("T", ActualState, Heartbeat)


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _dumps(value: object) -> str:
    """Return compact JSON. A lone surrogate, as in the name of some file, becomes a question mark."""
    return _ENCODER.encode(value).encode(errors="replace").decode()


def to_json(value: ActualState | Heartbeat) -> bytes:
    """Return compact UTF-8 JSON, without lone surrogates."""
    if isinstance(value, Heartbeat):
        beat = fields_of(value)
        vitals = beat.pop("vitals")
        return _dumps(beat | ({"vitals": vitals_to_fields(vitals)} if vitals else {})).encode()
    fields = fields_of(value) | {
        "audit": fields_of(value.audit) if value.audit else None,
        "capabilities": {name: fields_of(each) for name, each in value.capabilities.items()},
        "kinds": dict(value.kinds),
        "kind_errors": list(map(fields_of, value.kind_errors)),
        "layers": {name: fields_of(each) for name, each in value.layers.items()},
        "conditions": [
            fields_of(each) for each in value.conditions if each.type in _FIRST_CONDITIONS
        ],
    }
    del fields["scores"]
    more = [fields_of(each) for each in value.conditions if each.type not in _FIRST_CONDITIONS]
    if more:
        fields["more_conditions"] = more
    if not value.layers:
        del fields["layers"]
    pages = ",".join(f"{_dumps(name)}:{page.text}" for name, page in value.scores.items())
    return f'{_dumps(fields)[:-1]},"scores":{{{pages}}}}}'.encode()


def state_to_json(state: State) -> Mapping[str, Any]:
    """Return a resource's state as it is written in ``resources``: its fields, ``state``, and ``ready`` where
    it is not ready.

    This is equal to what is read back, so that a restarted agent reports nothing twice.
    """
    fields = fields_of(state).items()
    told = {"state": state.state} | {name: _as_read_back(value) for name, value in fields}
    return told if state.is_ready else told | {"ready": False}


def optional_state_to_json(state: State | None) -> Mapping[str, Any] | None:
    """Return *state* as JSON, as `state_to_json` does; None for None."""
    return None if state is None else state_to_json(state)


def _as_read_back(value: Any) -> Any:
    return list(cast("Iterable[Any]", value)) if isinstance(value, tuple) else value


def score_to_json(state: ScoreStatus) -> dict[str, Any]:
    """Return one Score's entry of ``scores``."""
    drift = state.last_drift
    return fields_of(state) | {
        "outcome": _outcome_to_json(state.outcome),
        "last_drift": fields_of(drift) if drift else None,
        "resources": dict(state.resources),
    }


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the five fields of an Outcome, the same for each kind of it."""
    progress = outcome.progress if isinstance(outcome, Running) else None
    error = outcome.error if isinstance(outcome, Failure) else None
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "message": outcome.message,
        "progress": fields_of(progress) if progress else None,
        "error": fields_of(error) if error else None,
    }


def score_from_json(fields: Mapping[str, Any]) -> ScoreStatus:
    """Return the status that `score_to_json` made these fields from."""
    return _PAGE(fields)


def from_json(data: bytes, cls: type[T]) -> T:
    """Read what an agent wrote; `InvalidManifest` names what is wrong with it."""
    if len(data) > _MAX_BYTES or not is_shallow(data, _DEPTH_MOST):
        raise InvalidManifest(
            f"not a {cls.__name__}: more than {_MAX_BYTES} bytes, more than {_DEPTH_MOST} levels deep, or "
            "cut short"
        )
    try:
        found: T = _FORMS[cls](json.loads(data))
    except Exception as error:
        raise InvalidManifest(f"not a {cls.__name__}: {error}") from error
    return found
