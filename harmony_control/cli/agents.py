"""``harmony agents``: the fleet, one row a device; chosen by ``--where``, sorted, or kept up to date."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from rich.console import RenderableType

from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.fleet_view.document import row_to_document
from harmony_control.fleet_view.fields import Field
from harmony_control.fleet_view.where import Predicate, find_field, parse_where

from .common import console, home_of, is_live
from .exits import CONVERGED

__all__ = ["run"]

_NOBODY = "no device is enrolled yet; begin with: harmony enroll root@HOST"
_NONE_CHOSEN = "there is no such device"


@attrs.frozen(kw_only=True)
class _Choice:
    """Which rows are shown, and in which order."""

    holds: Predicate
    field: Field
    is_descending: bool

    def choose(self, rows: Iterable[DeviceRow]) -> list[DeviceRow]:
        def key(row: DeviceRow) -> Any:
            return self.field.read(row)

        chosen = sorted((row for row in rows if self.holds(row)), key=lambda row: row.id)
        known = [row for row in chosen if key(row) is not None]
        # What is not known comes last, whichever way it is sorted.
        return sorted(known, key=key, reverse=self.is_descending) + [
            row for row in chosen if key(row) is None
        ]


def run(options: argparse.Namespace) -> int:
    """List the devices. Return 0 whatever their state: `harmony status` has exit codes for that."""
    if options.json:
        options.output = "json"
    choice = _Choice(
        holds=parse_where(options.where) if options.where else lambda _: True,
        field=find_field(options.sort.removeprefix("-"), "--sort"),
        is_descending=options.sort.startswith("-"),
    )
    asyncio.run(_watch(options, choice) if options.watch else _once(options, choice))
    return CONVERGED


async def _once(options: argparse.Namespace, choice: _Choice) -> None:
    async with Fleet.connect(home_of(options)) as fleet:
        rows = await fleet.rows()
    _print(options, choice.choose(rows), nothing=_NONE_CHOSEN if rows else _NOBODY)


async def _watch(options: argparse.Namespace, choice: _Choice) -> None:
    """Show changes until interrupted: on a terminal, redraw the table; otherwise, print each row that
    changes."""
    async with Fleet.connect(home_of(options)) as fleet, fleet.watch_rows() as changes:
        known: dict[str, DeviceRow] = {}
        if is_live(options) and options.output in {None, "wide"}:
            from rich.live import Live

            terminal = console(options)
            with Live(console=terminal, screen=False, auto_refresh=False) as live:
                async for rows in changes:
                    _take_in(known, rows)
                    # No more than can be seen: of thousands, each change would be a new table of all.
                    shown = choice.choose(known.values())[: terminal.height]
                    live.update(_table(options, shown), refresh=True)
        async for rows in changes:
            # What is no such device any more, or none at all, is told once, as it is now.
            left = {row.id for row in rows if row.id in known and choice.holds(known[row.id])}
            _take_in(known, rows)
            told = choice.choose(rows)
            told += [row for row in rows if row.id in left and not choice.holds(row)]
            if told:
                _print(options, told)


def _take_in(known: dict[str, DeviceRow], rows: Sequence[DeviceRow]) -> None:
    known |= {row.id: row for row in rows}
    for row in rows:
        if row.is_gone:
            del known[row.id]


def _print(options: argparse.Namespace, rows: Sequence[DeviceRow], *, nothing: str = "") -> None:
    match options.output:
        case "json":
            for row in rows:
                print(json.dumps(row_to_document(row)), flush=True)
        case "yaml":
            for row in rows:
                print(f"---\n{_yaml(row)}", end="", flush=True)
        case "name":
            for row in rows:
                print(row.id, flush=True)
        case _ if rows or not nothing:
            console(options).print(_table(options, rows))
        case _:
            print(nothing)


def _table(options: argparse.Namespace, rows: Sequence[DeviceRow]) -> RenderableType:
    from .agents_view import agents_table

    return agents_table(rows, wide=options.output == "wide")


def _yaml(row: DeviceRow) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    written = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = False  # nothing of a device steers a terminal
    yaml.dump(row_to_document(row), written)  # pyright: ignore[reportUnknownMemberType] - half typed there
    return written.getvalue()
