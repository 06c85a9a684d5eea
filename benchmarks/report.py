"""How lines are shown: a table for people, JSON for whoever compares runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from .figures import Figure, Line

__all__ = ["HEADING", "row", "to_json"]

_FORM = "{:36} {:>22} {:>22} {:>7} {:>7}  {}"
HEADING = _FORM.format("id", "measured", "floor", "ratio", "goal", "verdict")


def row(line: Line) -> str:
    """One line of the table."""
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    shown = _FORM.format(
        line.id,
        _shown(line.measured),
        _shown(line.floor),
        ratio,
        "" if line.goal is None else str(line.goal),
        line.verdict,
    )
    return f"{shown}  {line.note}".rstrip()


def _shown(figure: Figure | None) -> str:
    return "" if figure is None else str(figure)


def to_json(lines: Iterable[Line], options: Sequence[str]) -> str:
    """Every line with its figures, and what was run where."""
    return json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "options": list(options),
            "lines": [_fields(line) for line in lines],
        },
        indent=1,
    )


def _fields(line: Line) -> dict[str, object]:
    return {
        "id": line.id,
        "measured": _figure(line.measured),
        "floor": _figure(line.floor),
        "ratio": line.ratio,
        "goal": None if line.goal is None else str(line.goal),
        "verdict": line.verdict,
        "note": line.note,
    }


def _figure(figure: Figure | None) -> dict[str, object] | None:
    if figure is None:
        return None
    return {
        "value": figure.value,
        "spread": figure.spread,
        "unit": figure.unit,
        "samples": figure.samples,
    }
