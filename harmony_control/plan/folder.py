"""Reads a fleet's folder: fleet.yaml with the Score files that it names, or fleet.py.

All faults are told, with lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs
from pydantic import ValidationError

from harmony_control.compose.read import ComposeSettings
from harmony_control.push.entries import AnyEntry
from harmony_control.score_files.document import MAX_BYTES, yaml_document
from harmony_control.score_files.lines import Lines
from harmony_control.score_files.read import read_score_files
from harmony_core.errors import ScoreFileError
from harmony_core.plugins import Registry
from harmony_core.resources import all_problems

from .model import ClassSpec, DeviceSpec, FleetSpec

__all__ = ["FLEET_FILE", "PROGRAM_FILE", "Folder", "read_folder"]

FLEET_FILE = "fleet.yaml"
PROGRAM_FILE = "fleet.py"


@attrs.frozen(kw_only=True)
class Folder:
    """All that a folder says."""

    spec: FleetSpec
    class_scores: Mapping[str, Mapping[str, AnyEntry]]
    """By class, by id."""
    device_scores: Mapping[str, Mapping[str, AnyEntry]]
    """By device, by id; of those only that the folder says the Scores of."""


def read_folder(path: Path, registry: Registry, compose: ComposeSettings | None = None) -> Folder:
    """Read fleet.yaml or fleet.py in *path*, or the file *path*.

    `ScoreFileError` tells all that is wrong with it; of fleet.py, what Python says first.
    """
    file = _find_file(path)
    if file.suffix == ".py":
        from .program import read_program

        spec, class_scores, device_scores = read_program(file)
        return Folder(spec=spec, class_scores=class_scores, device_scores=device_scores)
    spec = _read_spec(file)
    base = file.parent

    def read(whose: ClassSpec | DeviceSpec) -> Mapping[str, AnyEntry]:
        files = [str(base / each) for each in whose.scores or ()]
        return read_score_files(files, registry, compose)

    return Folder(
        spec=spec,
        class_scores={name: read(each) for name, each in spec.classes.items()},
        device_scores={
            name: read(each) for name, each in spec.devices.items() if each.scores is not None
        },
    )


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    file, program = path / FLEET_FILE, path / PROGRAM_FILE
    if not program.exists():
        return file
    if file.exists():
        raise ScoreFileError(
            f"{path} has {FLEET_FILE} and {PROGRAM_FILE}, and one fleet is described by one; remove the other"
        )
    return program


def _read_spec(file: Path) -> FleetSpec:
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ScoreFileError(
            f"{file}: there is no such file; harmony init makes a folder to begin with"
        ) from error
    except OSError as error:
        raise ScoreFileError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ScoreFileError(
            f"{file} is larger than {MAX_BYTES} bytes; put Scores into files of their own"
        )
    document = yaml_document(str(file), data)
    if not isinstance(document, dict):
        raise ScoreFileError(f"{file}: must be an object with devices and classes")
    try:
        return FleetSpec.model_validate(cast("dict[str, object]", document))
    except ValidationError as error:
        lines = Lines(data)
        raise ScoreFileError(
            "\n".join(
                f"{file}: {told}{_line(lines, path)}"
                for path, told in all_problems(error, FleetSpec)
            )
        ) from error


def _line(lines: Lines, path: Sequence[int | str]) -> str:
    line = lines.of(path)
    return f" (line {line})" if line else ""
