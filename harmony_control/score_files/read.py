"""Score files: what people write. Python, YAML or JSON; ``-`` is standard input (YAML or JSON).

A Python file defines ``scores = {"web": WebAppScore(…)}``, with an `Entry` as value where something waits or
has a policy. YAML and JSON are lists of entries: ``{id, kind, version?, spec, after?, policy?}``. Whatever
the form, every Score is validated here. All that is wrong with a file is told at once, each with the file,
the entry, the field, the line and the remedy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
from pydantic import ValidationError

from harmony_control.push.entries import AnyEntry, Entry
from harmony_core.close_names import did_you_mean
from harmony_core.errors import HarmonyError, InvalidScore, ScoreFileError, WireError
from harmony_core.plugins import Registry
from harmony_core.resources import all_problems
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import is_id

__all__ = ["read_score_files"]

_TOLD_MOST = 20
_FIELDS = {"id", "kind", "version", "spec", "after", "policy"}


def read_score_files(files: Sequence[str], registry: Registry) -> dict[str, AnyEntry]:
    """Return all entries of all *files*, by id. `ScoreFileError`, or an `EntryRefused` of the kind itself."""
    found: dict[str, AnyEntry] = {}
    origin: dict[str, str] = {}
    for file in files:
        for score_id, entry in _read(file, registry).items():
            if score_id in found:
                raise ScoreFileError(
                    f"{file}: the id {score_id!r} is also in {origin[score_id]}; rename one"
                )
            found[score_id], origin[score_id] = entry, file
    return found


def _read(file: str, registry: Registry) -> dict[str, AnyEntry]:
    if file.endswith(".py"):
        from .program import entries_of_program

        return entries_of_program(Path(file))
    from .document import MAX_BYTES, json_document, yaml_document

    name = "standard input" if file == "-" else file
    data = _bytes(file, name, MAX_BYTES)
    is_json = file.lower().endswith(".json") or (file == "-" and data.lstrip()[:1] in {b"[", b"{"})
    parse = json_document if is_json else yaml_document
    return _entries(name, data, parse(name, data), registry)


def _bytes(file: str, name: str, max_bytes: int) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(max_bytes + 1)
    except IsADirectoryError as error:
        raise ScoreFileError(f"{name} is a directory; name the Score files in it") from error
    except FileNotFoundError as error:
        if is_id(file):
            raise ScoreFileError(
                f"{name} cannot be read: there is no such file; if it is a device, push to one device "
                "at a time"
            ) from error
        raise ScoreFileError(f"{name} cannot be read: there is no such file") from error
    except OSError as error:
        raise ScoreFileError(f"{name} cannot be read: {error.strerror}; is it there?") from error
    if len(data) > max_bytes:
        raise ScoreFileError(f"{name} is larger than {max_bytes} bytes; split it")
    return data


def _entries(file: str, data: bytes, document: object, registry: Registry) -> dict[str, AnyEntry]:
    if not isinstance(document, list) or not document:
        raise ScoreFileError(f"{file}: must be a list of entries, each with id, kind and spec")
    entries: dict[str, AnyEntry] = {}
    faults: list[_Fault] = []
    for place, value in enumerate(cast("list[object]", document)):
        where = f"entry {place + 1}"
        try:
            score_id, entry = _entry(where, value, registry)
        except _Faulty as faulty:
            faults += (attrs.evolve(each, path=(place, *each.path)) for each in faulty.faults)
            continue
        if score_id in entries:
            told = f"the id {score_id!r} is used by two entries; rename one of them"
            faults.append(_Fault(ScoreFileError, told, (place, "id")))
        entries[score_id] = entry
    if faults:
        raise _all_of(file, data, faults)
    return entries


@attrs.frozen
class _Fault:
    """One thing that is wrong with a file."""

    error: type[HarmonyError]
    told: str
    path: tuple[int | str, ...] = ()
    """Where it stands: the entry's place, and the names below."""


class _Faulty(Exception):
    """What is wrong with one entry. Never leaves this module."""

    def __init__(self, *faults: _Fault) -> None:
        super().__init__()
        self.faults = faults


def _all_of(file: str, data: bytes, faults: Sequence[_Fault]) -> HarmonyError:
    """Return one error that tells all *faults*, each with its line. Of one kind only, it is of that kind."""
    from .lines import Lines

    lines = Lines(data)
    told: list[str] = []
    for each in faults[:_TOLD_MOST]:
        line = lines.of(each.path)
        told.append(f"{file}: {each.told}" + (f" (line {line})" if line else ""))
    if len(faults) > _TOLD_MOST:
        told.append(f"and {len(faults) - _TOLD_MOST} more")
    kinds = {each.error for each in faults}
    error = kinds.pop() if len(kinds) == 1 else ScoreFileError
    return error("\n".join(told))


def _entry(where: str, value: object, registry: Registry) -> tuple[str, AnyEntry]:
    if not isinstance(value, dict):
        raise _Faulty(_Fault(ScoreFileError, f"{where} is not an object with id, kind and spec"))
    fields = cast("dict[str, Any]", value)
    if unknown := sorted(set(fields) - _FIELDS):
        allowed = f"; allowed: {', '.join(sorted(_FIELDS))}"
        raise _Faulty(
            *(
                _Fault(
                    ScoreFileError,
                    f"{where}: unknown field {name!r}{did_you_mean(name, _FIELDS) or allowed}",
                    (name,),
                )
                for name in unknown
            )
        )
    if isinstance(score_id := fields.get("id"), str):
        where = f"{where} ({score_id})"
    try:
        if "version" not in fields and isinstance(fields.get("kind"), str):
            fields = {**fields, "version": registry.find(fields["kind"]).version}
        # Nobody writes a version who did not write the kind either.
        parsed = SerializedScore.model_validate({"spec": {}, "version": 1, **fields})
        score = registry.decode(parsed)
    except ValidationError as error:
        raise _Faulty(
            *(
                _Fault(ScoreFileError, f"{where}: {told}", path)
                for path, told in all_problems(error)
            )
        ) from error
    except WireError as error:
        raise _Faulty(*_of_spec(where, fields, error, registry)) from error
    return parsed.id, Entry(score, parsed.after, parsed.policy)


def _of_spec(
    where: str, fields: dict[str, Any], error: WireError, registry: Registry
) -> list[_Fault]:
    """Everything that is wrong with a spec, as far as its kind says so field by field."""
    cause = error.__cause__
    if not isinstance(error, InvalidScore) or not isinstance(cause, ValidationError):
        return [_Fault(type(error), f"{where}: {error.message}", ("kind",))]
    kind = registry.find(fields["kind"])
    model = kind if fields.get("version", kind.version) == kind.version else None
    return [
        _Fault(type(error), f"{where}: {fields['kind']}: {told}", ("spec", *path))
        for path, told in all_problems(cause, model)
    ]
