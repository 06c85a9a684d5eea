"""What every typed resource and every observed state has in common.

A *resource* is the desired state of one thing on a device: immutable, valid by construction, serialisable
(the ledger keeps it, so that it can be taken away when nobody remembers the Score), and identified by
``<type>:<key>``, such as ``file:/etc/motd``. A *state* is what was found of such a thing.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self, TypeAlias

import attrs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import ErrorDetails

from harmony_core.close_names import did_you_mean
from harmony_core.steps import Step
from harmony_core.wire.names import ID_PATTERN

__all__ = [
    "NOT_SHOWN",
    "Claim",
    "ConfirmWithin",
    "Privilege",
    "Resource",
    "ResourceId",
    "State",
    "all_problems",
    "first_problem",
    "in_words",
    "resource_id",
]


def resource_id(resource_type: str, key: str) -> str:
    """Return the id of a resource in the whole system: ``file:/etc/motd``."""
    return f"{resource_type}:{key}"


class ResourceId(NamedTuple):
    """The id of one thing, in its two parts; its `str` is what the wire and the ledger have."""

    resource_type: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of ``file:/etc/motd``. A key may itself contain colons, a type may not."""
        resource_type, _, key = text.partition(":")
        return cls(resource_type, key)

    def __str__(self) -> str:
        return resource_id(self.resource_type, self.key)


ConfirmWithin = Annotated[int, Field(ge=5, le=600)]
"""How long a change that may cut the device off may take to prove that it is still reached, in seconds."""

Claim = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*:[^\x00\n]+$", max_length=4096 + 2048)
]
"""As `harmony_core.claims` has it, such as ``package:nginx``."""
Privilege: TypeAlias = Literal["run", "run-as-root"]
"""What a thing may do that its Score has chosen: run a program that can change nothing, or one as root."""


class Resource(BaseModel):
    """The desired state of one thing on a device. Equal ones have equal hashes, whatever the process."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        defer_build=True,
    )

    secret_fields: ClassVar[frozenset[str]] = frozenset()
    """The fields in whose texts the reconciler puts the values of secrets (`harmony_core.secret_values`)."""

    resource_type: ClassVar[str]
    """The word before the colon in ids; also the capability's namespace in the ledger."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What names this thing among its kind: a path, a unit name, a container name."""

    @cached_property
    def id(self) -> str:
        return resource_id(self.resource_type, self.key)

    @property
    def needs_preparing(self) -> bool:
        """Whether there may be something to have ready for it, where its reconciler is `Preparing`."""
        return True

    def find_secret_words(self) -> frozenset[str]:
        """Return the words in its `secret_fields` that stand for secrets."""
        return frozenset()

    def __copy__(self) -> Self:
        """Copy only the fields: `model_copy` may change them, and what was computed from them is computed
        again."""
        copied = super().__copy__()
        held = vars(copied)
        for computed in held.keys() - type(self).model_fields.keys():
            del held[computed]
        return copied

    def preview_steps(
        self,
        steps: tuple[Step, ...],
        before: State | None,  # noqa: ARG002
        rewritten: Collection[str],  # noqa: ARG002
    ) -> tuple[Step, ...]:
        """Return the steps that will be taken in place of *steps*, which were planned from *before*, once the
        files *rewritten* have other content."""
        return steps

    @cached_property
    def spec_hash(self) -> str:
        """Hex SHA-256 of everything wished for; what "has its specification changed?" compares.

        What is as it is by default does not count: a field that a newer Harmony adds changes no hash, and
        so recreates nothing. A default must therefore never be changed.
        """
        text = self.model_dump_json(exclude={"claims"}, exclude_defaults=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...] | None:  # noqa: ARG003 - the types' to answer
        """Return which paths the thing of this *key* consists of: all that is written for it, and removed.

        The device's policy asks, before anything happens. () says that it has no files. None, as here, says
        nothing, and every device refuses a resource about which nothing is known.
        """
        return None

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...] | None:  # noqa: ARG003 - the types' to answer
        """Return which of systemd's units are started, stopped, reloaded or changed for the thing of this
        *key*.

        The policy judges them like those of Scores. () says none. None, as here, says nothing, and a device
        that allows only what it lists (the preset appliance) refuses a resource about which nothing is known.
        """
        return None

    @property
    def privileges(self) -> frozenset[Privilege] | None:
        """What this may do once it is there, for the device's policy to allow; empty for nothing.

        None, as here, says nothing, and what nothing is known of is refused on every device.
        """
        return None

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - the types' to answer
        """Return whether the thing of this *key* is still there after the device was rebooted.

        If so, a missing one was removed by somebody, and that is reported as drift.
        """
        return False

    @property
    def exclusive(self) -> frozenset[str]:
        """What it claims beside its id, as `harmony_core.claims` has it, such as ``port:8080/tcp``."""
        return frozenset()

    def overridden_by(self, state: State) -> tuple[str, ...]:  # noqa: ARG002 - others may have to look
        """Return the ids of what, in *state*, exists beside this thing and overrides it.

        Such a thing does not belong to this resource, which must not change it. It is reported, unless it is
        itself desired.
        """
        return ()


@attrs.frozen(kw_only=True)
class State:
    """What was found of one thing. On the wire it carries its class's name as ``state``.

    None of its fields is named ``state`` or ``ready``: these two words are the wire's.
    """

    @property
    def state(self) -> str:
        return type(self).__name__

    @property
    def is_ready(self) -> bool:
        """Whether the thing is as its Score needs it to count as converged. False unless a type says so."""
        return False

    @property
    def is_under_way(self) -> bool:
        """Whether it is what we have begun ourselves, so that its end is no change by anybody else."""
        return False


def in_words(remedy: str) -> WrapValidator:
    """Return a validator for an Annotated type that answers a wrong value with *remedy*, not with a
    pattern."""

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(remedy) from None

    return WrapValidator(validate)


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return the first thing that is wrong, as ``field: what, and what was given instead``.

    Of missing fields, name all, since they are added at once; but name an unknown one first, since a field is
    often missing because its name was mistyped. A problem of several fields names them itself. With the
    *model* that refused it, name the known fields after an unknown one.
    """
    problems = _problems_of(error)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "missing":
        return _missing(problems)
    return f"{_problem(first, model)}{more}"


def all_problems(
    error: ValidationError, model: type[BaseModel] | None = None
) -> list[tuple[tuple[int | str, ...], str]]:
    """Return everything that is wrong: the path of names and places, and the words that `first_problem`
    uses."""
    return [
        (
            each["loc"],
            f"{_where(each)}: is missing; add it"
            if each["type"] == "missing"
            else _problem(each, model, hints=True),
        )
        for each in _problems_of(error)
    ]


def _problems_of(error: ValidationError) -> list[ErrorDetails]:
    """Return what pydantic found, without its own names for the alternatives of a value.

    Where a value is neither alternative, report only what is wrong in the one that was meant.
    """
    found = error.errors(include_url=False, include_context=False)
    deepest: dict[tuple[int | str, ...], int] = {}
    for each in found:
        if (at := _find_branch(each["loc"])) is not None:
            field = each["loc"][:at]
            deepest[field] = max(deepest.get(field, 0), len(each["loc"]))
    told: list[ErrorDetails] = []
    for each in found:
        loc = each["loc"]
        at = _find_branch(loc)
        if at is not None and at + 1 == len(loc) < deepest[loc[:at]]:
            continue
        plain = tuple(part for part in loc if not _is_branch(part))
        told.append({**each, "loc": plain})
    return told


_BRANCH = re.compile(
    r"(?:function-(?:after|before|plain|wrap)|literal|nullable|constrained-\w+)\[.+\]"
)
"""What pydantic puts into a path for what a value may be: ``function-after[_is_one(), HealthCheck]``."""


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and _BRANCH.fullmatch(part) is not None


def _find_branch(loc: tuple[int | str, ...]) -> int | None:
    return next((at for at, part in enumerate(loc) if _is_branch(part)), None)


def _problem(problem: ErrorDetails, model: type[BaseModel] | None, *, hints: bool = False) -> str:
    message = _in_words(problem["type"], problem["msg"], problem["input"])
    if model is not None and problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        known = model.model_fields
        message = f"unknown field; allowed: {', '.join(known)}"
        if hints and (hint := did_you_mean(str(problem["loc"][0]), known)):
            message = f"unknown field{hint}"
    where = _where(problem)
    if not where and problem["type"] == "value_error":
        return message
    value = problem["input"]
    # What has parts may have passwords among them, as an environment has.
    given = repr(value) if isinstance(value, _SHOWN) else ""
    if _PRIVATE in given:
        given = ""
    if len(given) > 60:
        given = given[:57] + "…"
    said = not given or (isinstance(value, str) and given in message)
    tail = "" if said or problem["type"] in _SAYS_ALL else f", not {given}"
    return f"{where or 'value'}: {message}{tail}"


_SHOWN = str | bytes | int | float | None
_PRIVATE = "PRIVATE KEY"
"""What a text has, however it begins, that is shown to nobody."""
_NAMED_MOST = 10
NOT_SHOWN: Final = "not_shown"
"""The type of a problem with what is shown to nobody, such as a password."""
_SAYS_ALL = frozenset({"extra_forbidden", "union_tag_not_found", "union_tag_invalid", NOT_SHOWN})
"""The problems of which what was given is told, or does not help."""
_NO_TAG = re.compile(r"discriminator '(\w+)'")
_OTHER_TAG = re.compile(r"Input tag (.+) found using '(\w+)' .* expected tags: (.+)", re.DOTALL)


def _missing(problems: Sequence[ErrorDetails]) -> str:
    missing = [_where(each) for each in problems if each["type"] == "missing"]
    missing = missing[:_NAMED_MOST]  # of a list there may be thousands
    others = len(problems) - len(missing)
    more = f" (and {others} more)" if others else ""
    if len(missing) == 1:
        return f"{missing[0]}: is missing; add it{more}"
    return f"{', '.join(missing)}: are missing; add them{more}"


def _where(problem: ErrorDetails) -> str:
    return ".".join(str(part) for part in problem["loc"])


_FIELDS = "write its fields by name, as in {name: value}"
_PLAIN_WORDS = {
    "extra_forbidden": "unknown field; remove it, or correct its name",
    "tuple_type": "write a list",
    "model_type": _FIELDS,
    "dict_type": _FIELDS,
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
"""Where pydantic has Python's words."""


def _in_words(problem: str, message: str, given: object) -> str:
    """Return what pydantic says of a *problem*, with the remedy where pydantic leaves that out."""
    match problem:
        case "string_type" if isinstance(given, int | float):
            return f'must be text; put it in quotes: "{str(given).lower()}"'
        case "tuple_type" if isinstance(given, str | int | float):
            return f"write a list: [{given}]"
        case "union_tag_not_found" if found := _NO_TAG.search(message):
            return f"add {found[1]}, which says of which kind it is"
        case "union_tag_invalid" if found := _OTHER_TAG.fullmatch(message):
            return f"{found[2]} is one of {found[3]}, not {found[1]}"
        case "string_pattern_mismatch" if ID_PATTERN in message:
            return "use 1 to 63 lower-case letters, digits and inner hyphens, as in pi-1"
        case _:
            return _PLAIN_WORDS.get(problem) or message.removeprefix("Value error, ")
