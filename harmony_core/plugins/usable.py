"""Whether a class that a package provides can be used as a kind of Score; if not, why, and what to do.

Everything is asked of the class alone, before any Score of it is made. What a stranger wrote may be of any
type, whatever our annotations say: nothing here trusts them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard, cast, get_args, is_typeddict

from pydantic import BaseModel

from harmony_core.former_spec import FormerSpec
from harmony_core.score import AnyScore, Score
from harmony_core.wire.names import KIND_PATTERN

__all__ = ["is_score", "versions_of", "why_unusable"]

_KIND = re.compile(KIND_PATTERN.removesuffix("$") + r"\Z")
_INSTEAD = "derive it from harmony_core.Spec, or set model_config = ConfigDict(extra='forbid', frozen=True)"


def why_unusable(score: object) -> str | None:
    """Return why *score* is not a kind, in a sentence that names the class; None when it is one.

    Never raise: for a class that cannot even be asked, return what it raised.
    """
    if not is_score(score):
        return f"harmony_scores returned {score!r}, which is not a class derived from Score"
    try:
        return _why_unusable(score)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's class may raise anything
        return f"{score.__name__}: {type(error).__name__}: {error}"


def is_score(value: object) -> TypeGuard[type[AnyScore]]:
    """Return whether *value* is a class derived from Score, usable or not."""
    return inspect.isclass(value) and issubclass(value, Score)


def versions_of(score: type[AnyScore]) -> tuple[int, ...]:
    """Return the versions of its fields that *score* can read."""
    return tuple(sorted({*(former.version for former in score.formers), score.version}))


def _why_unusable(score: type[AnyScore]) -> str | None:
    name = score.__name__
    if inspect.isabstract(score):
        return f"{name} is abstract; it needs an interpret"
    kind: object = getattr(score, "kind", "")
    if not isinstance(kind, str) or not _KIND.match(kind):
        return f"{name}: its kind must be a name of letters and digits, not {kind!r}"
    problem = _wrong_version(score, "1 or a whole number above")
    return problem or _wrong_formers(score) or _loose_field(score)


def _wrong_version(model: type[BaseModel], expected: str) -> str | None:
    version: object = getattr(model, "version", None)
    if version is None:
        return f"{model.__name__} has no version; add a line such as version = 1"
    if type(version) is not int:
        return f"{model.__name__}: its version is {version!r}; write {expected}, without quotes"
    if version < 1:
        return f"{model.__name__}: its version is {version}; versions begin at 1"
    return None


def _wrong_formers(score: type[AnyScore]) -> str | None:
    formers: object = getattr(score, "formers", None)
    if not isinstance(formers, tuple | list):
        return (
            f"{score.__name__}: its formers are {formers!r}; write a tuple of classes derived from "
            "FormerSpec, or leave the line out"
        )
    below = f"another whole number below {score.version}"
    versions: list[int] = []
    for former in cast("Iterable[object]", formers):
        if not _is_former(former):
            return f"{score.__name__}: {former!r} in formers is not a class derived from FormerSpec"
        if inspect.isabstract(former):
            return f"{former.__name__} is abstract; it needs an upgrade"
        if problem := _wrong_version(former, below) or _loose_field(former):
            return f"{score.__name__}: {problem}"
        versions.append(former.version)
    if len(set(versions)) != len(versions) or any(each >= score.version for each in versions):
        return f"{score.__name__}: its formers have the versions {versions}; each must be {below}"
    return None


def _is_former(value: object) -> TypeGuard[type[FormerSpec[Any]]]:
    return inspect.isclass(value) and issubclass(value, FormerSpec)


def _loose_field(model: type[BaseModel]) -> str | None:
    """Return which part of *model*'s fields would accept a misspelt field, or could be changed later.

    A misspelt field in a part is otherwise ignored silently, and the part has its default.
    """
    for part, path in _parts(model, model.__name__, set()):
        if (what := _looseness(part)) is not None:
            return f"{path}: {part.__name__} {what}; {_INSTEAD}"
    return None


def _parts(model: type[Any], path: str, seen: set[type]) -> Iterator[tuple[type[Any], str]]:
    """Yield every class with fields of its own that *model* is made of, itself first, with its position."""
    if model in seen:
        return
    seen.add(model)
    yield model, path
    if not issubclass(model, BaseModel):
        return
    if not model.__pydantic_fields_complete__:
        model.model_rebuild()
    for name, field in model.model_fields.items():
        for part in _classes(field.annotation):
            if issubclass(part, BaseModel) or dataclasses.is_dataclass(part) or is_typeddict(part):
                yield from _parts(part, f"{path}.{name}", seen)


def _classes(annotation: object) -> Iterator[type[Any]]:
    """Yield every class in an annotation: ``tuple[Route, ...] | None`` has tuple, Route and NoneType."""
    alias: object = getattr(annotation, "__value__", None)
    if alias is not None:
        yield from _classes(alias)
    elif arguments := get_args(annotation):
        for each in arguments:
            yield from _classes(each)
    if inspect.isclass(annotation):
        yield annotation


def _looseness(part: type[Any]) -> str | None:
    if not issubclass(part, BaseModel):
        return "is no pydantic model, so a field that it does not know is ignored"
    if part.model_config.get("extra") != "forbid":
        return "ignores a field that it does not know"
    if not part.model_config.get("frozen"):
        return "can be changed after it was made"
    return None
