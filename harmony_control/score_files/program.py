"""Python Score files: a program that defines ``scores``, run here as its author would run it.

It may import what lies beside it. What it prints goes to standard error, so that standard output stays
what the command says. Whatever it raises is told at its own line, not inside a library.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from harmony_control.push.entries import AnyEntry, Entry, as_entry, no_score, serialize
from harmony_core.errors import HarmonyError, ScoreFileError
from harmony_core.resources import all_problems
from harmony_core.score import Score

__all__ = ["entries_of_program", "read_entry", "run_program"]


def entries_of_program(path: Path) -> dict[str, AnyEntry]:
    """Return what its ``scores`` are, by id, each as it can be pushed. `ScoreFileError`."""
    scores = run_program(path, "a Score file only defines scores").get("scores")
    if not isinstance(scores, dict) or not scores:
        raise ScoreFileError(
            f'{path} must define scores = {{"some-id": SomeScore(…)}}, a dictionary of Scores by id'
        )
    found = cast("dict[object, object]", scores)
    return dict(
        read_entry(f"{path}: scores[{score_id!r}]", score_id, value)
        for score_id, value in found.items()
    )


def run_program(path: Path, purpose: str) -> dict[str, object]:
    """Return what the program *path* defines. `ScoreFileError` for whatever it raises; *purpose* says what it
    is for, where it ends before its end."""
    if not path.is_file():
        raise ScoreFileError(f"{path} does not exist, or is not a file")
    try:
        with _beside(path), redirect_stdout(sys.stderr):
            return runpy.run_path(str(path))
    except SystemExit as error:
        raise ScoreFileError(
            f"{path}: {_line(path, error)}it ends the program; {purpose}"
        ) from error
    except Exception as error:
        raise ScoreFileError(f"{path}: {_line(path, error)}{_problem(error)}") from error


@contextmanager
def _beside(path: Path) -> Generator[None]:
    """Let the program import what lies beside it, as Python itself does for a script."""
    directory = str(path.resolve().parent)
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def read_entry(where: str, score_id: object, value: object) -> tuple[str, AnyEntry]:
    """Return *value*, which somebody's program has under *score_id*, as it can be pushed. `ScoreFileError`
    says *where* it is none."""
    if not isinstance(score_id, str):
        raise ScoreFileError(f'{where}: an id is a text, such as "web"')
    if not isinstance(value, Entry | Score):
        raise ScoreFileError(
            f"{where} is {no_score(value)}; values are Scores or Entry(score, after=…)"
        )
    entry: AnyEntry = as_entry(value)  # pyright: ignore[reportUnknownArgumentType] - of whatever topology
    try:
        serialize(score_id, entry)
    except HarmonyError as error:
        raise ScoreFileError(f"{where}: {error.message}") from error
    return score_id, entry


def _line(path: Path, error: BaseException) -> str:
    """Return the last line of the user's own that led to *error*: ``line 3: ``."""
    if isinstance(error, SyntaxError) and error.filename in {str(path), None}:
        return f"line {error.lineno}: " if error.lineno else ""
    own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {own[-1]}: " if own else ""


def _problem(error: Exception) -> str:
    match error:
        case ValidationError():
            return "; ".join(f"{error.title}: {told}" for _, told in all_problems(error))
        case SyntaxError():
            return f"{type(error).__name__}: {error.msg}"
        case HarmonyError():
            return error.message
        case _:
            return f"{type(error).__name__}: {error}"
