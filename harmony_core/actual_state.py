"""What an agent says of its device: ActualState and Heartbeat, as docs/wire.md specifies them.

Frozen attrs classes; `to_json` and `from_json` are the only way in and out. Reading ignores unknown
fields, so that an older control plane reads a newer agent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from .errors import InvalidManifest
from .outcome import Failure, Noop, Outcome, Running, Success

if TYPE_CHECKING:
    from .resources import State  # what only reads states is spared every model of a resource
from .kind_error import KindError

__all__ = [
    "ActualState",
    "CapabilityState",
    "Condition",
    "ConditionType",
    "Drift",
    "Heartbeat",
    "ScoreState",
    "from_json",
    "score_from_json",
    "score_to_json",
    "state_to_json",
    "to_json",
]

API_VERSION = "harmony/v1"
_EMPTY: Mapping[str, Any] = MappingProxyType({})

ConditionType = Literal["Ready", "Degraded", "Reconciling", "Stale"]


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
class ScoreState:
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

    @property
    def text(self) -> str:
        """Compact JSON."""
        return f'{{"observed_generation":{self.observed_generation},{self._rest}'

    def under(self, generation: int) -> ScoreState:
        """The same page, found to be so again under *generation*."""
        if generation == self.observed_generation:
            return self
        # Not by `attrs.evolve`, which would make every field anew: a hundred pages are a hundred of these.
        page = object.__new__(ScoreState)
        page.__dict__.update(self.__dict__, observed_generation=generation)
        return page

    @cached_property
    def _rest(self) -> str:
        """Made once: the same page is stored, and told with every report. Only the generation differs
        where a new manifest has changed nothing."""
        fields = _CONVERTER.unstructure(self)
        del fields["observed_generation"]
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
class ActualState:
    """Everything that one agent says of its device."""

    agent_id: str
    agent_version: str
    boot_id: str
    generation: int
    observed_generation: int
    api_version: str = API_VERSION
    truncated: bool = False
    capabilities: Mapping[str, CapabilityState] = _EMPTY
    kinds: Mapping[str, tuple[int, ...]] = _EMPTY
    kind_errors: tuple[KindError, ...] = ()
    scores: Mapping[str, ScoreState] = _EMPTY
    conditions: tuple[Condition, ...] = ()


@attrs.frozen(kw_only=True)
class Heartbeat:
    """Sent after an empty item has passed through the work queue: the loop advances."""

    agent_id: str
    boot_id: str
    agent_version: str
    generation: int
    observed_generation: int
    queue_seq: int
    api_version: str = API_VERSION


_OUTCOMES: dict[str, type[Outcome]] = {
    each.status: each for each in (Success, Noop, Running, Failure)
}
_OUTCOME_TYPES = frozenset(_OUTCOMES.values())


def _converter() -> Converter:
    converter = Converter()

    # By factories: what a process never reads or writes is never compiled.
    def outcome_out(cls: type[Outcome]) -> Callable[[Any], dict[str, Any]]:
        return _outcome_out(converter, cls)

    def page_out(cls: type[ScoreState]) -> Callable[[ScoreState], dict[str, Any]]:
        # What was seen of resources is in its form for the wire already.
        return make_dict_unstructure_fn(cls, converter, resources=override(unstruct_hook=dict))

    converter.register_unstructure_hook_factory(_OUTCOME_TYPES.__contains__, outcome_out)
    converter.register_unstructure_hook_factory(_is_page, page_out)
    converter.register_structure_hook(Outcome, _outcome_in(converter))
    return converter


def _is_page(cls: Any) -> bool:
    return cls is ScoreState


def _outcome_out(converter: Converter, cls: type[Outcome]) -> Callable[[Any], dict[str, Any]]:
    fields = make_dict_unstructure_fn(cls, converter)

    def out(outcome: Any) -> dict[str, Any]:
        return {"status": cls.status, "progress": None, "error": None, **fields(outcome)}

    return out


def _outcome_in(converter: Converter) -> Callable[[Any, Any], Any]:
    hooks: dict[str, Callable[[Any, Any], Any]] = {}

    def structure(value: Any, _: Any) -> Any:
        status = value["status"]
        if status not in hooks:
            hooks[status] = make_dict_structure_fn(_OUTCOMES[status], converter)
        return hooks[status](value, _OUTCOMES[status])

    return structure


def _state_out(state: State) -> dict[str, Any]:
    cls: type[attrs.AttrsInstance] = type(state)
    names = _FIELD_NAMES.get(cls)
    if names is None:
        names = _FIELD_NAMES[cls] = tuple(field.name for field in attrs.fields(cls))
    return {"state": state.state, **{name: getattr(state, name) for name in names}}


_FIELD_NAMES: dict[type[attrs.AttrsInstance], tuple[str, ...]] = {}


_CONVERTER = _converter()

T = TypeVar("T", ActualState, Heartbeat)


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _dumps(value: object) -> str:
    """Compact JSON. A lone surrogate, as in the name of some file, becomes a question mark."""
    return _ENCODER.encode(value).encode(errors="replace").decode()


def to_json(value: ActualState | Heartbeat) -> bytes:
    """Compact UTF-8 JSON, without lone surrogates."""
    if isinstance(value, Heartbeat):
        return _dumps(_CONVERTER.unstructure(value)).encode()
    fields = _CONVERTER.unstructure(attrs.evolve(value, scores=_EMPTY))
    del fields["scores"]
    pages = ",".join(f"{_dumps(name)}:{page.text}" for name, page in value.scores.items())
    return f'{_dumps(fields)[:-1]},"scores":{{{pages}}}}}'.encode()


def state_to_json(state: State) -> Mapping[str, Any]:
    """A resource's state as it stands in ``resources``: its fields, and ``state``."""
    return _state_out(state)


def score_to_json(state: ScoreState) -> Mapping[str, Any]:
    """One Score's entry of ``scores``."""
    fields: dict[str, Any] = _CONVERTER.unstructure(state)
    return fields


def score_from_json(fields: Mapping[str, Any]) -> ScoreState:
    """The reverse of `score_to_json`."""
    return _CONVERTER.structure(fields, ScoreState)


def from_json(data: bytes, cls: type[T]) -> T:
    """Read what an agent wrote; `InvalidManifest` names what is wrong with it."""
    try:
        return _CONVERTER.structure(json.loads(data), cls)
    except Exception as error:
        raise InvalidManifest(f"not a {cls.__name__}: {error}") from error
