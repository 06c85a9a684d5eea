"""Entries as a Score file: YAML, or a Python program that a type checker can read. Defaults are left out."""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import cast

import attrs
from pydantic import BaseModel
from ruamel.yaml import YAML

from harmony_control.assets.local import find_file
from harmony_control.push.entries import AnyEntry
from harmony_core.resources import Asset
from harmony_core.wire.manifest import ScorePolicy

__all__ = ["plain", "write_python", "write_yaml"]

_WIDTH = 100
_OF_CONTROL = "harmony_control"
_OF_ASSETS = "harmony_control.assets"


def write_yaml(entries: Mapping[str, AnyEntry]) -> str:
    """Return a YAML Score file of *entries*."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    vars(yaml)["sort_base_mapping_type_on_output"] = False  # by default it sorts
    yaml.width = _WIDTH
    stream = io.StringIO()
    yaml.dump(plain(entries), stream)
    return stream.getvalue()


def plain(entries: Mapping[str, AnyEntry]) -> list[dict[str, object]]:
    """Return *entries* as a Score file has them."""
    return [_plain(score_id, entry) for score_id, entry in entries.items()]


def _plain(score_id: str, entry: AnyEntry) -> dict[str, object]:
    score = entry.score
    written: dict[str, object] = {"id": score_id, "kind": score.kind}
    if entry.after:
        written["after"] = list(entry.after)
    if entry.policy != ScorePolicy():
        written["policy"] = entry.policy.model_dump(mode="json", exclude_defaults=True)
    spec = score.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    files = {name: file for name, each in score if (file := _file_of(each)) is not None}
    written["spec"] = {
        f"{name}_from" if name in files else name: files.get(name, each)
        for name, each in spec.items()
    }
    return written


def _file_of(value: object) -> str | None:
    """Return the file that *value* is the asset of: whoever reads what is written has to find it."""
    file = find_file(value) if isinstance(value, Asset) else None
    return None if file is None else str(file)


def write_python(entries: Mapping[str, AnyEntry]) -> str:
    """Return a Python Score file of *entries*, which defines ``scores``."""
    scores = {score_id: _of_entry(entry) for score_id, entry in entries.items()}
    imports: dict[str, set[str]] = {}
    for call in _calls(scores):
        imports.setdefault(call.module, set()).add(call.name)
    heads = [_import(module, sorted(names)) for module, names in sorted(imports.items())]
    parts = "".join(
        f"    {label}{_render(each, 4, len(label))},\n" for label, each in _dict(scores)
    )
    return f"{''.join(heads)}\nscores = {{\n{parts}}}\n"


@attrs.frozen
class _Call:
    """A class that is called, such as ``Mount(source="/srv")``."""

    module: str
    name: str
    arguments: tuple[tuple[str, object], ...]
    """Each with its label, such as ``source=``."""


def _of_entry(entry: AnyEntry) -> _Call:
    score = _of_model(entry.score)
    arguments: list[tuple[str, object]] = [("", score)]
    if entry.after:
        arguments.append(("after=", list(entry.after)))
    if entry.policy != ScorePolicy():
        policy = _of_model(entry.policy)
        arguments.append(("policy=", attrs.evolve(policy, module=_OF_CONTROL)))
    return score if len(arguments) == 1 else _Call(_OF_CONTROL, "Entry", tuple(arguments))


def _of_model(model: BaseModel) -> _Call:
    """Return what makes *model* anew; what is as by default is left out."""
    said = model.model_dump(exclude_defaults=True)
    fields = ((name, getattr(model, name)) for name in type(model).model_fields if name in said)
    kind = type(model)
    arguments = tuple(
        (f"{name}=", _Octal(each) if name == "mode" and isinstance(each, int) else _value(each))
        for name, each in fields
    )
    return _Call(_where_public(kind), kind.__name__, arguments)


def _where_public(kind: type) -> str:
    """Return the shortest module from which *kind* can be imported."""
    module = kind.__module__
    parents = module.split(".")
    for end in range(1, len(parents)):
        above = ".".join(parents[:end])
        if getattr(import_module(above), kind.__name__, None) is kind:
            return above
    return module


class _Octal(int):
    """Permissions, which people read in octal."""

    def __repr__(self) -> str:
        return f"0o{self:o}"


def _value(value: object) -> object:
    if (file := _file_of(value)) is not None:
        return _Call(_OF_ASSETS, "read_asset", (("", file),))
    if isinstance(value, BaseModel):
        return _of_model(value)
    if isinstance(value, Mapping):
        found = cast("Mapping[str, object]", value)
        return {name: _value(each) for name, each in found.items()}
    if isinstance(value, tuple):
        return tuple(_value(each) for each in cast("tuple[object, ...]", value))
    return value


def _calls(value: object) -> Iterator[_Call]:
    if isinstance(value, _Call):
        yield value
    for _, each in _parts(value)[2]:
        yield from _calls(each)


def _parts(value: object) -> tuple[str, str, list[tuple[str, object]]]:
    """Return how *value* begins and ends, and what is between, each with its label."""
    match value:
        case _Call():
            return f"{value.name}(", ")", list(value.arguments)
        case dict():
            return "{", "}", _dict(cast("dict[str, object]", value))
        case tuple():
            return "(", ")", [("", each) for each in cast("tuple[object, ...]", value)]
        case list():
            return "[", "]", [("", each) for each in cast("list[object]", value)]
        case str():
            return _text(value), "", []
        case _:
            return repr(value), "", []


def _text(text: str) -> str:
    """Return a literal, in whatever quotes need fewer escapes."""
    written = json.dumps(text, ensure_ascii=False)
    if '"' in text and "'" not in text:
        return "'" + written[1:-1].replace('\\"', '"') + "'"
    return written


def _dict(values: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(f"{_text(name)}: ", each) for name, each in values.items()]


def _in_one_line(value: object) -> str:
    begin, end, parts = _parts(value)
    between = ", ".join(f"{label}{_in_one_line(each)}" for label, each in parts)
    comma = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    return f"{begin}{between}{comma}{end}"


def _render(value: object, indent: int, taken: int) -> str:
    """Return *value* in one line where that fits behind *taken* characters, else a line for each part."""
    one = _in_one_line(value)
    begin, end, parts = _parts(value)
    if not parts or indent + taken + len(one) < _WIDTH:
        return one
    inner = indent + 4
    lines = (f"{' ' * inner}{label}{_render(each, inner, len(label))},\n" for label, each in parts)
    return f"{begin}\n{''.join(lines)}{' ' * indent}{end}"


def _import(module: str, names: Iterable[str]) -> str:
    one = f"from {module} import {', '.join(names)}\n"
    if len(one) <= _WIDTH:
        return one
    return f"from {module} import (\n{''.join(f'    {name},{chr(10)}' for name in names)})\n"
