"""Score files: what people write. Python, YAML or JSON; ``-`` is standard input (YAML or JSON).

A Python file defines ``scores = {"web": WebAppScore(…)}``, with an `Entry` as value where something waits or
has a policy. YAML and JSON are lists of entries: ``{id, kind, version?, spec, after?, policy?}``. Whatever
the form, every Score is validated here, and an error names the file, the entry, the field and the remedy.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from harmony_core import strict_json
from harmony_core.errors import HarmonyError, ManifestRejected, ScoreFileError, WireError
from harmony_core.manifest import SerializedScore
from harmony_core.plugins import Registry
from harmony_core.resources import first_problem
from harmony_core.score import AnyScore, Score

from .entries import Entry, serialized

__all__ = ["read_score_files"]

MAX_BYTES = 1024 * 1024
_FIELDS = {"id", "kind", "version", "spec", "after", "policy"}


def read_score_files(files: Sequence[str], registry: Registry) -> dict[str, Entry]:
    """All entries of all *files*, by id. `ScoreFileError`, or an `EntryRefused` of the kind itself."""
    found: dict[str, Entry] = {}
    origin: dict[str, str] = {}
    for file in files:
        for score_id, entry in _read(file, registry).items():
            if score_id in found:
                raise ScoreFileError(
                    f"{file}: the id {score_id!r} is also in {origin[score_id]}; rename one"
                )
            found[score_id], origin[score_id] = entry, file
    return found


def _read(file: str, registry: Registry) -> dict[str, Entry]:
    if file.endswith(".py"):
        return _from_python(Path(file))
    text = _text(file)
    document = _parsed_json(file, text) if _is_json(file, text) else _parsed_yaml(file, text)
    if not isinstance(document, list) or not document:
        raise ScoreFileError(f"{file}: must be a list of entries, each with id, kind and spec")
    entries: dict[str, Entry] = {}
    for number, value in enumerate(cast("list[object]", document), start=1):
        score_id, entry = _entry(f"{file}: entry {number}", value, registry)
        if score_id in entries:
            raise ScoreFileError(f"{file}: the id {score_id!r} stands on two entries; rename one")
        entries[score_id] = entry
    return entries


def _from_python(path: Path) -> dict[str, Entry]:
    if not path.exists():
        raise ScoreFileError(f"{path} does not exist")
    try:
        scores = runpy.run_path(str(path)).get("scores")
    except Exception as error:
        raise ScoreFileError(f"{path}: {_own_line(path, error)}") from error
    if not isinstance(scores, dict) or not scores:
        raise ScoreFileError(
            f'{path} must define scores = {{"some-id": SomeScore(…)}}, a dictionary of Scores by id'
        )
    entries: dict[str, Entry] = {}
    for score_id, value in cast("dict[object, object]", scores).items():
        entry = _as_entry(value)
        if not isinstance(score_id, str) or entry is None:
            raise ScoreFileError(
                f"{path}: scores[{score_id!r}] is a {type(value).__name__}; "
                "ids are text, values are Scores or Entry(score, after=…)"
            )
        serialized(score_id, entry)
        entries[score_id] = entry
    return entries


def _as_entry(value: object) -> Entry | None:
    match value:
        case Entry():
            return value
        case Score():
            return Entry(value)  # pyright: ignore[reportUnknownArgumentType] - of whatever topology
        case _:
            return None


def _own_line(path: Path, error: Exception) -> str:
    """What went wrong, at the user's own line rather than inside a library."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, ValidationError):
        return f"{where}{error.title}: {first_problem(error)}"
    return f"{where}{type(error).__name__}: {error}"


def _text(file: str) -> bytes:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ScoreFileError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ScoreFileError(f"{file} is larger than {MAX_BYTES} bytes; split it")
    return data


def _is_json(file: str, data: bytes) -> bool:
    return file.endswith(".json") or (file == "-" and data.lstrip()[:1] in {b"[", b"{"})


def _parsed_json(file: str, data: bytes) -> object:
    try:
        return strict_json.loads(data, max_bytes=MAX_BYTES)
    except ManifestRejected as error:
        raise ScoreFileError(f"{file}: {error.message}") from error


def _parsed_yaml(file: str, data: bytes) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # JSON is stricter than YAML: whatever YAML reads (NaN, dates) must survive as JSON.
        document: Any = YAML(typ="safe", pure=True).load(data.decode("utf-8"))  # pyright: ignore[reportUnknownMemberType] - untyped there
        return strict_json.loads(strict_json.dumps(document), max_bytes=MAX_BYTES)
    except UnicodeDecodeError as error:
        raise ScoreFileError(
            f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except (YAMLError, ManifestRejected, TypeError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise ScoreFileError(f"{file}: {problem}") from error


def _entry(where: str, value: object, registry: Registry) -> tuple[str, Entry]:
    if not isinstance(value, dict):
        raise ScoreFileError(f"{where} is not an object with id, kind and spec")
    fields = cast("dict[str, Any]", value)
    if unknown := sorted(set(fields) - _FIELDS):
        raise ScoreFileError(
            f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}"
        )
    try:
        if "version" not in fields and isinstance(fields.get("kind"), str):
            fields = {**fields, "version": registry.find(fields["kind"]).version}
        parsed = SerializedScore.model_validate({"spec": {}, **fields})
        score: AnyScore = registry.decode(parsed)
    except ValidationError as error:
        raise ScoreFileError(f"{where}: {first_problem(error)}") from error
    except WireError as error:
        raise _at(f"{where} ({fields.get('id')})", error) from error
    return parsed.id, Entry(score, parsed.after, parsed.policy)


def _at(where: str, error: HarmonyError) -> HarmonyError:
    return type(error)(f"{where}: {error.message}")
