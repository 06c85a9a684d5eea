"""All devices, for people: a table, one row a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import attrs
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harmony_control.fleet_view.row import DeviceRow
from harmony_core.amounts import amount
from harmony_core.outcome_words import shorten
from harmony_core.visible import cut, word

from .text import age

__all__ = ["Cell", "FleetTable", "agents_table"]

_STYLES: Mapping[str, str] = {
    "Online": "green",
    "UpToDate": "green",
    "Healthy": "green",
    "Error": "bold red",
    "Refused": "red",
    "Silent": "red",
    "Offline": "red",
    "Unverified": "bold red",
}
_REASON_MOST = 100
_FOLDS = frozenset({"AGENT", "REASON", "LABELS"})
_GAP = "  "
_LAST_LEAST = 20
"""A last column narrower than that is not worth reading."""


def agents_table(rows: Iterable[DeviceRow], *, wide: bool = False) -> FleetTable:
    """Return the table of `harmony agents`, with one row for each device."""
    columns = {**_COLUMNS, **(_WIDE if wide else {}), "REASON": _reason}
    return FleetTable(
        titles=list(columns), rows=[[cell(row) for cell in columns.values()] for row in rows]
    )


class Cell(NamedTuple):
    """A text, and how it looks. Rich's own `Text` takes longer to make than a row to be read."""

    text: str
    style: str = ""


@attrs.frozen(kw_only=True)
class FleetTable:
    """A table of which only the last column is folded where the terminal is too narrow.

    Rich's own renders each cell several times over, which takes long for thousands of rows: so it is used
    only where more than the last column has to be folded.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [
            max(len(title), *(cell_len(row[number].text) for row in self.rows), 0)
            for number, title in enumerate(self.titles)
        ]
        left = options.max_width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
        if left < min(widths[-1], _LAST_LEAST):
            yield self._to_rich_table()
            return
        is_plain = console.color_system is None
        indent = "\n" + " " * (options.max_width - left)
        for row in ([Cell(title, "bold") for title in self.titles], *self.rows):
            *first, last = row
            folded = indent.join(chop_cells(last.text, left)) if last.text else ""
            parts = [
                *(
                    Cell(_fill(each.text, width), each.style)
                    for each, width in zip(first, widths, strict=False)
                ),
                Cell(f"{folded}\n", last.style),
            ]
            if is_plain:
                yield Segment("".join(each.text for each in parts))
            else:
                yield from (Segment(text, console.get_style(style)) for text, style in parts)

    def _to_rich_table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in self.titles:
            # Where it is too narrow, a name goes on in the next line: it is never cut.
            folds = title in _FOLDS
            table.add_column(title, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
        for row in self.rows:
            table.add_row(*(Text(*each) for each in row))
        return table


def _fill(text: str, width: int) -> str:
    """Return *text*, padded to a column of *width* and the gap after it."""
    return text + " " * (width - cell_len(text)) + _GAP


def _state(text: str) -> Cell:
    return Cell(text, _STYLES.get(text, "yellow"))


def _update(row: DeviceRow) -> Cell:
    nothing = row.wanted_generation is None and not row.observed_generation
    return Cell("-") if nothing and row.update == "UpToDate" else _state(row.update)


def _scores(row: DeviceRow) -> Cell:
    if row.scores_failed:
        return Cell(f"{row.scores_failed} of {row.scores} failed", "red")
    return Cell(str(row.scores) if row.observed_generation is not None else "-")


def _generation(row: DeviceRow) -> Cell:
    """Return the generation under which all its Scores were looked at, and the desired one where it
    differs."""
    wanted, observed = row.wanted_generation, row.observed_generation
    if observed is None:
        return Cell("-" if wanted is None else f"- of {wanted}")
    return Cell(str(observed) if wanted in {observed, None} else f"{observed} of {wanted}")


def _reason(row: DeviceRow) -> Cell:
    return Cell(cut(word(shorten(row.reason)), _REASON_MOST))


def _temperature(row: DeviceRow) -> Cell:
    found = row.vitals.temperature_c if row.vitals else None
    return Cell("-" if found is None else f"{found:.0f} °C")


def _power(row: DeviceRow) -> Cell:
    vitals = row.vitals
    if vitals is None or vitals.throttled is None:
        return Cell("-")
    if vitals.under_voltage or vitals.is_throttled:
        return Cell("under-voltage" if vitals.under_voltage else "throttled", "red")
    if vitals.under_voltage_since_boot or vitals.throttled_since_boot:
        return Cell("was low" if vitals.under_voltage_since_boot else "was hot", "yellow")
    return Cell("good")


def _bytes(read: Callable[[DeviceRow], int | None]) -> Callable[[DeviceRow], Cell]:
    def show(row: DeviceRow) -> Cell:
        found = read(row)
        return Cell("-" if found is None else amount(found, "bytes"))

    return show


def _uptime(row: DeviceRow) -> Cell:
    found = row.vitals.uptime_s if row.vitals else None
    return Cell("-" if found is None else str(timedelta(seconds=found)))


def _labels(row: DeviceRow) -> Cell:
    return Cell(word(", ".join(f"{name}={value}" for name, value in sorted(row.labels.items()))))


_COLUMNS: Mapping[str, Callable[[DeviceRow], Cell]] = {
    "AGENT": lambda row: Cell(row.id),
    "DEVICE": lambda row: _state(row.device),
    "UPDATE": _update,
    "WORKLOADS": lambda row: _state(row.workloads),
    "LAST SEEN": lambda row: Cell(f"{age(row.last_seen)} ago" if row.last_seen else "never"),
    "SCORES": _scores,
    "GENERATION": _generation,
    "VERSION": lambda row: Cell(word(row.agent_version) or "-"),
}
_WIDE: Mapping[str, Callable[[DeviceRow], Cell]] = {
    "HEAT": _temperature,
    "POWER": _power,
    "DISK FREE": _bytes(lambda row: row.vitals.disk_free_bytes if row.vitals else None),
    "MEMORY FREE": _bytes(lambda row: row.vitals.memory_available_bytes if row.vitals else None),
    "UP": _uptime,
    "LABELS": _labels,
}
