"""Entries: Scores with an id and what goes with them, on their way into a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
from pydantic import ValidationError

from harmony_core.errors import InvalidScore, UsageError
from harmony_core.references import Path, find_faults, find_in_bytes, has_references
from harmony_core.resources import first_problem
from harmony_core.score import AnyScore, Score
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_core.wire.names import is_id

__all__ = ["AnyEntry", "Entry", "Pushable", "as_entry", "default_id", "no_score", "serialize"]

TopologyT = TypeVar("TopologyT")
TopologyT_contra = TypeVar("TopologyT_contra", contravariant=True)


def no_score(value: object) -> str | None:
    """Return why *value*, which a program passed in place of a Score, is not one; None when it is one."""
    what = type(value).__name__
    if isinstance(value, Score):
        return None
    if isinstance(value, type) and issubclass(value, Score):
        return f"the class {value.__name__} itself; call it: {value.__name__}(…)"
    return f"of type {what}, not a Score"


def _ids(after: Iterable[str]) -> tuple[str, ...]:
    wrong = UsageError(f'after={after!r}: write a list of ids, such as after=["web"]')
    try:
        ids = tuple(after)
    except TypeError as error:  # not everybody has a type checker
        raise wrong from error
    if isinstance(after, str) or {type(each) for each in ids} - {str}:
        raise wrong
    return ids


def _policy(value: ScorePolicy | Mapping[str, object]) -> ScorePolicy:
    try:
        return ScorePolicy.model_validate(value)
    except ValidationError as error:
        raise UsageError(f"policy: {first_problem(error, ScorePolicy)}") from error


@attrs.frozen
class Entry(Generic[TopologyT_contra]):
    """A Score, with what it waits for and how it is to be treated.

    In a Python Score file: ``scores = {"web": Entry(WebAppScore(…), after=["config"])}``.
    """

    score: Score[TopologyT_contra]
    after: tuple[str, ...] = attrs.field(default=(), converter=_ids)
    policy: ScorePolicy = attrs.field(factory=ScorePolicy, converter=_policy)
    texts: Mapping[Path, str] = attrs.field(factory=dict[Path, str], kw_only=True)
    """Texts with references, by where they stand, where *score* has something else that its fields accept. Of
    a YAML or JSON Score file."""
    stand_ins: frozenset[str] = attrs.field(default=frozenset(), kw_only=True)
    """What *score* has there."""

    def __attrs_post_init__(self) -> None:
        if why := no_score(self.score):
            raise UsageError(f"the score of this Entry is {why}")


AnyEntry: TypeAlias = Entry[Any]
Pushable: TypeAlias = Entry[TopologyT] | Score[TopologyT]
"""What can be pushed: a Score alone, or with what goes with it."""


def as_entry(value: Entry[TopologyT] | Score[TopologyT]) -> Entry[TopologyT]:
    """Return *value* as an `Entry`. A Score alone waits for nothing and has the default policy."""
    return value if isinstance(value, Entry) else Entry(value)


def default_id(score: AnyScore) -> str:
    """Return the id of a Score that was given none: ``WebAppScore`` becomes ``web-app``."""
    words = re.findall(
        r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", score.kind.removesuffix("Score")
    )
    return "-".join(words).lower()


def serialize(score_id: str, entry: Entry[TopologyT]) -> SerializedScore:
    """Return *entry* in the form of a manifest. Raise `UsageError` for an invalid id, `InvalidScore` for an
    invalid reference."""
    for name in (score_id, *entry.after):
        if not is_id(name):
            raise UsageError(
                f"{name!r} cannot be a Score's id: use 1 to 63 lower-case letters, digits and inner "
                "hyphens, such as web-app"
            )
    score = entry.score
    try:
        # By the names that the device will read them by.
        spec = score.model_dump(mode="json", by_alias=True)
    except ValueError as error:
        raise UsageError(
            f"a field of this {score.kind} cannot be written as JSON: {error}"
        ) from error
    for path, text in entry.texts.items():
        _put_back(spec, path, text)
    for _, fault in find_faults(spec):
        raise InvalidScore(f"{score.kind}: {fault}")
    for path, found in find_in_bytes(score):
        where = ".".join(map(str, path))
        raise InvalidScore(
            f"{score.kind}: {where}: {found} stands in bytes, which are written as they are, so "
            f"without its value; put it into a field of text, such as content (for the text itself, ${found})"
        )
    return SerializedScore(
        id=score_id,
        kind=score.kind,
        version=score.version,
        spec=spec,
        after=entry.after,
        policy=entry.policy,
        references=has_references(spec),
    )


def _put_back(spec: dict[str, Any], path: Path, text: str) -> None:
    inner: Any = spec
    try:
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = text
    except (LookupError, TypeError) as error:
        where = ".".join(map(str, path))
        raise InvalidScore(
            f"{where}: a reference cannot stand here, since this kind makes something else of that field; "
            "write what it stands for"
        ) from error
