"""Entries: Scores with an id and what goes with them, on their way into a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from harmony_core.errors import UsageError
from harmony_core.manifest import ScorePolicy, SerializedScore
from harmony_core.names import is_id
from harmony_core.score import AnyScore

__all__ = ["Entry", "default_id", "serialized"]


@attrs.frozen
class Entry:
    """A Score, with what it waits for and how it is to be treated.

    In a Python Score file: ``scores = {"web": Entry(WebAppScore(…), after=["config"])}``.
    """

    score: AnyScore
    after: Iterable[str] = ()
    policy: ScorePolicy = attrs.field(factory=ScorePolicy)


def default_id(score: AnyScore) -> str:
    """The id of a Score that was given none: ``WebAppScore`` is ``web-app``."""
    words = re.findall(
        r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", score.kind.removesuffix("Score")
    )
    return "-".join(words).lower()


def serialized(score_id: str, entry: Entry) -> SerializedScore:
    """*entry* as it stands in a manifest; `UsageError` for an id that cannot be one."""
    for name in (score_id, *entry.after):
        if not is_id(name):
            raise UsageError(
                f"{name!r} cannot be a Score's id: use 1 to 63 lower-case letters, digits and inner "
                "hyphens, such as web-app"
            )
    score = entry.score
    return SerializedScore(
        id=score_id,
        kind=score.kind,
        version=score.version,
        spec=score.model_dump(mode="json"),
        after=tuple(entry.after),
        policy=entry.policy,
    )
