"""Score files: what people write. Python, YAML or JSON; ``-`` is standard input (YAML or JSON).

A mapping with ``services``, or another section of one, is a compose file: those of one directory are one
project, and one entry (`harmony_control.compose`).

A Python file defines ``scores = {"web": WebAppScore(…)}``, with an `Entry` as value where something waits or
has a policy. YAML and JSON are lists of entries: ``{id, kind, version?, spec, after?, policy?}``. Whatever
the form, every Score is validated here. All that is wrong with a file is told at once, each with the file,
the entry, the field, the line and the remedy.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import attrs
from pydantic import ValidationError

from harmony_control.compose.read import (
    ComposeSettings,
    entries_of_compose_files,
)
from harmony_control.push.entries import AnyEntry, Entry
from harmony_core.close_names import did_you_mean
from harmony_core.errors import (
    ComposeFileError,
    HarmonyError,
    InvalidScore,
    ScoreFileError,
    WireError,
)
from harmony_core.plugins import Registry
from harmony_core.references import find_faults, find_near_misses
from harmony_core.resources import all_problems
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import is_id

from .beside import put_in_files
from .stand_ins import decode_with_references

__all__ = ["read_score_files"]

_TOLD_MOST = 20
_FIELDS = {"id", "kind", "version", "spec", "after", "policy"}


def read_score_files(
    files: Sequence[str], registry: Registry, compose: ComposeSettings | None = None
) -> dict[str, AnyEntry]:
    """Return all entries of all *files*, by id. `ScoreFileError`, `ComposeFileError`, or an `EntryRefused` of
    the kind itself."""
    settings = compose or ComposeSettings()
    found: dict[str, AnyEntry] = {}
    origin: dict[str, str] = {}
    of_compose: list[str] = []
    for file in files:
        entries = _read(file, registry)
        if entries is None:
            of_compose.append(file)
            continue
        for score_id, entry in entries.items():
            if score_id in found:
                raise ScoreFileError(
                    f"{file}: the id {score_id!r} is also in {origin[score_id]}; rename one"
                )
            found[score_id], origin[score_id] = entry, file
    if of_compose:
        projects = entries_of_compose_files(of_compose, registry, settings)
        if twice := found.keys() & projects.keys():
            score_id = twice.pop()
            raise ScoreFileError(
                f"{origin[score_id]}: the id {score_id!r} is that of a compose project, too; rename one"
            )
        found |= projects
    for score_id, entry in found.items():
        with suppress(ValueError):  # what cannot be written as JSON is refused when it is pushed
            texts = [entry.score.model_dump(mode="json"), *entry.texts.values()]
            for near_miss in find_near_misses(texts):
                settings.tell(f"{score_id}: {near_miss}")
    return found


def _read(file: str, registry: Registry) -> dict[str, AnyEntry] | None:
    """Return the entries of *file*; None for a compose file."""
    if file.endswith(".py"):
        from .program import entries_of_program

        return entries_of_program(Path(file))
    from harmony_control.compose.recognise import looks_like_compose_file

    from .document import MAX_BYTES, json_document, yaml_document

    name = "standard input" if file == "-" else file
    data = _bytes(file, name, MAX_BYTES)
    is_json = file.lower().endswith(".json") or (file == "-" and data.lstrip()[:1] in {b"[", b"{"})
    if looks_like_compose_file(data):
        if file == "-":
            raise ComposeFileError(
                "standard input is a compose file, whose paths are relative to where it lies; name the file"
            )
        return None
    parse = json_document if is_json else yaml_document
    directory = Path() if file == "-" else Path(file).parent
    return _entries(name, data, parse(name, data), registry, directory)


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
                f"{name} cannot be read: there is no such file; if it is a device, name all devices in one "
                "word, as in pi-1,pi-2, and none beside --where"
            ) from error
        raise ScoreFileError(f"{name} cannot be read: there is no such file") from error
    except OSError as error:
        raise ScoreFileError(f"{name} cannot be read: {error.strerror}; is it there?") from error
    if len(data) > max_bytes:
        raise ScoreFileError(f"{name} is larger than {max_bytes} bytes; split it")
    return data.removeprefix(codecs.BOM_UTF8)


def _entries(
    file: str, data: bytes, document: object, registry: Registry, directory: Path
) -> dict[str, AnyEntry]:
    if not isinstance(document, list) or not document:
        raise ScoreFileError(f"{file}: must be a list of entries, each with id, kind and spec")
    entries: dict[str, AnyEntry] = {}
    faults: list[_Fault] = []
    for place, value in enumerate(cast("list[object]", document)):
        where = f"entry {place + 1}"
        try:
            score_id, entry = _entry(where, value, registry, directory)
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


def _entry(where: str, value: object, registry: Registry, directory: Path) -> tuple[str, AnyEntry]:
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
        fields = _with_files(where, fields, registry, directory)
        # Nobody writes a version who did not write the kind either.
        parsed = SerializedScore.model_validate({"spec": {}, "version": 1, **fields})
        if faults := list(find_faults(parsed.spec)):
            raise _Faulty(
                *(
                    _Fault(InvalidScore, f"{where}: {parsed.kind}: {told}", ("spec", *path))
                    for path, told in faults
                )
            )
        found = decode_with_references(parsed, registry)
    except ValidationError as error:
        raise _Faulty(
            *(
                _Fault(ScoreFileError, f"{where}: {told}", path)
                for path, told in all_problems(error)
            )
        ) from error
    except WireError as error:
        raise _Faulty(*_of_spec(where, fields, error, registry)) from error
    entry = Entry(
        found.score, parsed.after, parsed.policy, texts=found.texts, stand_ins=found.stand_ins
    )
    return parsed.id, entry


def _with_files(
    where: str, fields: dict[str, Any], registry: Registry, directory: Path
) -> dict[str, Any]:
    """Return *fields* with the content of the files that its spec names."""
    spec: object = fields.get("spec")
    kind = registry.find(fields["kind"]) if isinstance(fields.get("kind"), str) else None
    if not isinstance(spec, dict) or kind is None or fields["version"] != kind.version:
        return fields
    whole, faults = put_in_files(cast("dict[str, Any]", spec), kind, directory)
    if faults:
        raise _Faulty(
            *(
                _Fault(ScoreFileError, f"{where}: {name}: {told}", ("spec", name))
                for name, told in faults.items()
            )
        )
    return {**fields, "spec": whole}


def _of_spec(
    where: str, fields: dict[str, Any], error: WireError, registry: Registry
) -> list[_Fault]:
    """Return everything that is wrong with a spec, field by field where its kind can say so."""
    cause = error.__cause__
    if not isinstance(error, InvalidScore) or not isinstance(cause, ValidationError):
        return [_Fault(type(error), f"{where}: {error.message}", ("kind",))]
    kind = registry.find(fields["kind"])
    model = kind if fields.get("version", kind.version) == kind.version else None
    return [
        _Fault(type(error), f"{where}: {fields['kind']}: {told}", ("spec", *path))
        for path, told in all_problems(cause, model)
    ]
