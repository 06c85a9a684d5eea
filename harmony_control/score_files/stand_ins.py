"""References in fields that are checked: a port, a name, a size. What they come to, only the device knows.

    spec -> is refused as it stands -> what the field accepts stands in for each reference -> a Score
    Score -> written down -> the texts with references in their places again

So everything but those texts is judged when it is pushed, and they are on the device. A field that accepts
none of the stand-ins is refused: nobody could say that it would ever accept what a reference stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
from pydantic import ValidationError

from harmony_core.errors import InvalidScore
from harmony_core.plugins import Registry
from harmony_core.references import Path, has_references, replace_references
from harmony_core.score import AnyScore
from harmony_core.wire.manifest import SerializedScore

__all__ = ["StoodIn", "decode_with_references"]

_STAND_INS = (
    "1",
    "80",
    "8080",
    "100000",
    "1073741824",
    "a",
    "/a",
    "a.service",
    "a.timer",
    "192.0.2.1",
    "192.0.2.0/24",
    "2001:db8::1",
    "0644",
    "true",
    "docker.io/library/a:1",
    "SIGTERM",
    "UTC",
    "08:00",
)
"""One of these is what nearly every field of text or numbers accepts, alone or beside other text."""


@attrs.frozen(kw_only=True)
class StoodIn:
    """A Score that could be decoded."""

    score: AnyScore
    texts: Mapping[Path, str]
    """The texts for which something stands in there, by where they stand."""
    stand_ins: frozenset[str]
    """What stands in for them."""


def decode_with_references(entry: SerializedScore, registry: Registry) -> StoodIn:
    """Return the Score of *entry*. Raises what `Registry.decode` does, of what is wrong beside references."""
    try:
        return StoodIn(score=registry.decode(entry), texts={}, stand_ins=frozenset())
    except InvalidScore as error:
        if not has_references(entry.spec):
            raise
        refused = error
    return _decode_standing_in(entry, registry, refused)


def _decode_standing_in(entry: SerializedScore, registry: Registry, first: InvalidScore) -> StoodIn:
    texts: dict[Path, str] = {}
    chosen: dict[Path, str] = {}
    choices: dict[Path, Iterator[str]] = {}
    error = first
    while isinstance(refused := error.__cause__, ValidationError):
        problems = refused.errors(include_url=False, include_context=False, include_input=False)
        due = {
            path: text
            for each in problems
            for path, text in _texts_at(entry.spec, tuple(each["loc"]))
        }
        if not due:
            break  # what is wrong is no reference's doing
        for path, text in due.items():
            stand_in = next(choices.setdefault(path, iter(_STAND_INS)), None)
            if stand_in is None:
                # What concerns several fields is no matter of what stands in one of them.
                is_of_fields = any(each["loc"] for each in problems)
                raise first if is_of_fields else error
            texts[path] = text
            chosen[path] = _stand_in(text, stand_in)
        spec: Any = entry.spec
        for path, text in chosen.items():
            spec = _with_value(spec, path, text)
        try:
            score = registry.decode(entry.model_copy(update={"spec": spec}))
        except InvalidScore as another:
            error = another
        else:
            if score.version != entry.version:
                raise first  # the texts cannot be found again in what it was upgraded to
            return StoodIn(score=score, texts=texts, stand_ins=frozenset(chosen.values()))
    raise error


def _stand_in(text: str, value: str) -> str:
    replaced: str = replace_references(text, lambda _: value)
    return replaced


def _texts_at(spec: object, loc: Path) -> Iterator[tuple[Path, str]]:
    """Yield the texts with references of which an error at *loc* speaks: there, or all beneath. pydantic puts
    the name of a union's member, and other words, into *loc*, which stand nowhere in the spec."""
    path: list[int | str] = []
    value: object = spec
    for part in loc:
        below = _children(value)
        if part in below:
            value = below[part]
            path.append(part)
    yield from _all_texts(value, tuple(path))


def _all_texts(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        if has_references(value):
            yield path, value
        return
    for part, each in _children(value).items():
        yield from _all_texts(each, (*path, part))


def _children(value: object) -> Mapping[int | str, object]:
    match value:
        case dict():
            return cast("dict[int | str, object]", value)
        case list():
            return dict(enumerate(cast("list[object]", value)))
        case _:
            return {}


def _with_value(spec: Any, path: Path, value: str) -> Any:
    """Return *spec* with *value* at *path*; nothing of *spec* itself is changed."""
    if not path:
        return value
    copied = spec.copy()
    copied[path[0]] = _with_value(copied[path[0]], path[1:], value)
    return copied
