"""Score files: what people write. Python, YAML or JSON; ``-`` is standard input (YAML or JSON).

A Python file defines ``scores = {"web": WebAppScore(…)}``, with an `Entry` as value where something waits or
has a policy. YAML and JSON are lists of entries: ``{id, kind, version?, spec, after?, policy?}``. Whatever
the form, every Score is validated here, and an error names the file, the entry, the field and the remedy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from harmony_core.errors import ScoreFileError, WireError
from harmony_core.plugins import Registry
from harmony_core.resources import first_problem
from harmony_core.wire.manifest import SerializedScore

from .entries import AnyEntry, Entry

__all__ = ["read_score_files"]

_FIELDS = {"id", "kind", "version", "spec", "after", "policy"}


def read_score_files(files: Sequence[str], registry: Registry) -> dict[str, AnyEntry]:
    """All entries of all *files*, by id. `ScoreFileError`, or an `EntryRefused` of the kind itself."""
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
        from .score_program import entries_of_program

        return entries_of_program(Path(file))
    from .score_document import MAX_BYTES, json_document, yaml_document

    name = "standard input" if file == "-" else file
    data = _bytes(file, name, MAX_BYTES)
    parse = json_document if _is_json(file, data) else yaml_document
    return _entries(name, parse(name, data), registry)


def _bytes(file: str, name: str, max_bytes: int) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(max_bytes + 1)
    except IsADirectoryError as error:
        raise ScoreFileError(f"{name} is a directory; name the Score files in it") from error
    except OSError as error:
        raise ScoreFileError(f"{name} cannot be read: {error.strerror}; is it there?") from error
    if len(data) > max_bytes:
        raise ScoreFileError(f"{name} is larger than {max_bytes} bytes; split it")
    return data


def _is_json(file: str, data: bytes) -> bool:
    return file.lower().endswith(".json") or (file == "-" and data.lstrip()[:1] in {b"[", b"{"})


def _entries(file: str, document: object, registry: Registry) -> dict[str, AnyEntry]:
    if not isinstance(document, list) or not document:
        raise ScoreFileError(f"{file}: must be a list of entries, each with id, kind and spec")
    entries: dict[str, AnyEntry] = {}
    for number, value in enumerate(cast("list[object]", document), start=1):
        score_id, entry = _entry(f"{file}: entry {number}", value, registry)
        if score_id in entries:
            raise ScoreFileError(f"{file}: the id {score_id!r} stands on two entries; rename one")
        entries[score_id] = entry
    return entries


def _entry(where: str, value: object, registry: Registry) -> tuple[str, AnyEntry]:
    if not isinstance(value, dict):
        raise ScoreFileError(f"{where} is not an object with id, kind and spec")
    fields = cast("dict[str, Any]", value)
    if unknown := sorted(set(fields) - _FIELDS):
        raise ScoreFileError(
            f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}"
        )
    if isinstance(score_id := fields.get("id"), str):
        where = f"{where} ({score_id})"
    try:
        if "version" not in fields and isinstance(fields.get("kind"), str):
            fields = {**fields, "version": registry.find(fields["kind"]).version}
        parsed = SerializedScore.model_validate({"spec": {}, **fields})
        score = registry.decode(parsed)
    except ValidationError as error:
        raise ScoreFileError(f"{where}: {first_problem(error)}") from error
    except WireError as error:
        raise type(error)(f"{where}: {error.message}") from error
    return parsed.id, Entry(score, parsed.after, parsed.policy)
