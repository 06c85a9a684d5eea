"""Reads fleet.py: a program that defines ``devices`` and ``classes``, run here as its author would run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from harmony_control.push.entries import AnyEntry
from harmony_control.score_files.program import read_entry, run_program
from harmony_core.close_names import did_you_mean
from harmony_core.errors import ScoreFileError
from harmony_core.resources import all_problems

from .model import FleetSpec
from .typed import Class, DeviceConfig

__all__ = ["read_program"]

T = TypeVar("T")
_NAMES = ("devices", "classes")


def read_program(
    path: Path,
) -> tuple[FleetSpec, dict[str, dict[str, AnyEntry]], dict[str, dict[str, AnyEntry]]]:
    """Return what *path* says, the Scores of its classes, and those of its devices, by id.

    `ScoreFileError` tells what is wrong with it, and where.
    """
    found = run_program(path, "fleet.py only defines devices and classes")
    if not found.keys() & set(_NAMES):
        own = [name for name in found if not name.startswith("_")]
        hint = next((each for name in _NAMES if (each := did_you_mean(name, own))), "")
        raise ScoreFileError(
            f"{path} must define devices or classes, dictionaries by name, such as classes = "
            '{"kiosk": Class(selector="role=kiosk", scores={…})}'
            + (f"; there is a name like it{hint.replace('did you mean', 'is it')}" if hint else "")
        )
    devices: dict[str, DeviceConfig[object]] = _all(path, "devices", found, DeviceConfig)
    classes: dict[str, Class[object]] = _all(path, "classes", found, Class)
    document = {
        "fleet": found.get("fleet"),
        "devices": {
            name: {
                "labels": each.labels,
                "scores": None if each.scores is None else (),
                "without": each.without,
            }
            for name, each in devices.items()
        },
        "classes": {
            name: {
                "selector": each.selector,
                "priority": each.priority,
                "rollout": each.rollout,
            }
            for name, each in classes.items()
        },
    }
    try:
        spec = FleetSpec.model_validate(document)
    except ValidationError as error:
        raise ScoreFileError(
            "\n".join(f"{path}: {told}" for _, told in all_problems(error, FleetSpec))
        ) from error
    return (
        spec,
        {name: _scores(path, f"classes[{name!r}]", each.scores) for name, each in classes.items()},
        {
            name: _scores(path, f"devices[{name!r}]", each.scores)
            for name, each in devices.items()
            if each.scores is not None
        },
    )


def _all(path: Path, what: str, found: Mapping[str, object], cls: type[T]) -> dict[str, T]:
    value = found.get(what, {})
    if not isinstance(value, Mapping):
        raise ScoreFileError(
            f"{path}: {what} must be a dictionary by name, each a {cls.__name__}(…)"
        )
    for name, each in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str):
            raise ScoreFileError(f'{path}: {what}[{name!r}]: a name is a text, such as "pi-1"')
        if not isinstance(each, cls):
            raise ScoreFileError(
                f"{path}: {what}[{name!r}] is of type {type(each).__name__}; write "
                f"{cls.__name__}(…), of harmony_control"
            )
    return dict(cast("Mapping[str, T]", value))


def _scores(path: Path, where: str, scores: object) -> dict[str, AnyEntry]:
    if not isinstance(scores, Mapping):
        raise ScoreFileError(
            f'{path}: {where}: scores must be a dictionary of Scores by id: {{"motd": FileScore(…)}}'
        )
    found = cast("Mapping[object, object]", scores)
    return dict(
        read_entry(f"{path}: {where}.scores[{score_id!r}]", score_id, value)
        for score_id, value in found.items()
    )
