"""Showing how Scores come along: live on a terminal, a line for each change elsewhere, or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harmony_core.actual_state import ActualState, ScoreState, score_to_json

from .common import coloured, is_live, out, style_of, told

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

__all__ = ["shown"]


@contextmanager
def shown(options: argparse.Namespace, ids: Collection[str]) -> Generator[_Shown]:
    """Shows the Scores *ids* as states come in. Begin with `_Shown.pushed`."""
    if not is_live(options):
        yield _Shown(options, ids)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not coloured(options), highlight=False)
    live = Live(console=console, refresh_per_second=8)
    try:
        yield _Live(options, ids, live)
    finally:
        live.stop()


class _Shown:
    """A line for every Score whose Outcome has changed."""

    def __init__(self, options: argparse.Namespace, ids: Collection[str]) -> None:
        self._options = options
        self._ids = ids
        self._generation = 0
        self._last: dict[str, object] = {}

    def pushed(self, generation: int) -> None:
        """From now on, what is older than *generation* is not shown."""
        self._generation = generation

    def show(self, state: ActualState) -> None:
        """Show what is new in *state*."""
        for name, page in self._current(state).items():
            if self._last.get(name) != page.outcome:
                self._last[name] = page.outcome
                self._line(name, page)

    def _current(self, state: ActualState) -> Mapping[str, ScoreState]:
        return {
            name: page
            for name, page in state.scores.items()
            if name in self._ids and page.observed_generation >= self._generation
        }

    def _line(self, name: str, page: ScoreState) -> None:
        document = {"event": "outcome", "id": name, **score_to_json(page)}
        out(
            self._options,
            document,
            f"{name:<20} {page.outcome.status:<8} {told(page.outcome)}".rstrip(),
        )


class _Live(_Shown):
    """The same, as a table that changes in place."""

    def __init__(self, options: argparse.Namespace, ids: Collection[str], live: Live) -> None:
        super().__init__(options, ids)
        self._live = live

    def show(self, state: ActualState) -> None:
        if pages := self._current(state):
            self._live.start()
            self._live.update(_table(pages))


def _table(pages: Mapping[str, ScoreState]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, page in pages.items():
        status = Text(page.outcome.status, style=style_of(page.outcome))
        table.add_row(Text(name, style="bold"), status, Text(told(page.outcome)))
    return table
