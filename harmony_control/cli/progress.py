"""Showing how Scores come along: live on a terminal, a line for each change elsewhere, or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

from harmony_control.device import Pushed
from harmony_core.outcome import Failure, Noop, Outcome
from harmony_core.outcome_words import describe_outcome, status_word
from harmony_core.visible import word
from harmony_core.wire.actual_state import ActualState, ScoreStatus, score_to_json

from .common import console, is_live, out
from .text import style_of

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

__all__ = ["Progress", "show_progress"]


class Progress(Protocol):
    """Told every state; shows what of it is new."""

    def show(self, state: ActualState) -> None: ...


@contextmanager
def show_progress(options: argparse.Namespace, pushed: Pushed) -> Generator[Progress]:
    """Show, as states come in, the progress of what was *pushed*, and of what that waits for."""
    if not is_live(options):
        # By a label every Score is looked at, and most stay as they are.
        yield _Lines(options, pushed, quiet=options.name == "label")
        return
    from rich.live import Live

    begun = _table(pushed, {})
    with Live(begun, console=console(options), refresh_per_second=8, transient=False) as live:
        yield _Table(pushed, live)


class _Lines:
    """A line for every Score whose Outcome has changed."""

    def __init__(self, options: argparse.Namespace, pushed: Pushed, *, quiet: bool) -> None:
        self._options = options
        self._pushed = pushed
        self._quiet = quiet
        self._last: dict[str, Outcome] = {}

    def show(self, state: ActualState) -> None:
        for name, page in _current(self._pushed, state, self._last).items():
            is_first = name not in self._last
            if self._quiet and is_first and isinstance(page.outcome, Noop):
                continue
            told = _but_for_times(page.outcome)
            if is_first or self._last[name] != told:
                self._last[name] = told
                self._line(name, page)

    def _line(self, name: str, page: ScoreStatus) -> None:
        out(
            self._options,
            {"event": "outcome", "id": name, **score_to_json(page)},
            f"{word(name):<20} {status_word(page.outcome):<9} {describe_outcome(page.outcome)}".rstrip(),
        )


def _but_for_times(outcome: Outcome) -> Outcome:
    """Return *outcome* without the time of the next try: a crash loop is then one line, not one for each
    try."""
    if not isinstance(outcome, Failure) or outcome.error.retry_at is None:
        return outcome
    return attrs.evolve(outcome, error=attrs.evolve(outcome.error, retry_at=""))


class _Table:
    """The same, as a table that changes in place."""

    def __init__(self, pushed: Pushed, live: Live) -> None:
        self._pushed = pushed
        self._live = live
        self._shown: set[str] = set()

    def show(self, state: ActualState) -> None:
        current = _current(self._pushed, state, self._shown)
        self._shown |= current.keys()
        self._live.update(_table(self._pushed, current))


def _current(
    pushed: Pushed, state: ActualState, shown: Collection[str]
) -> Mapping[str, ScoreStatus]:
    """Return what is reported of the Scores concerned since the push.

    Of those that depend on a pushed Score, or were there before, return only those that were not simply left
    as they were, or that were *shown*.
    """
    named = pushed.awaited | pushed.removed | (pushed.concerned & set(shown))
    return {
        name: page
        for name, page in state.scores.items()
        if pushed.generation <= page.observed_generation <= state.generation
        and (name in named or (name in pushed.concerned and not isinstance(page.outcome, Noop)))
    }


def _table(pushed: Pushed, pages: Mapping[str, ScoreStatus]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    waiting = [name for name in sorted(pushed.awaited) if name not in pages]
    for name, page in pages.items():
        status = Text(status_word(page.outcome), style=style_of(page.outcome))
        table.add_row(Text(word(name), style="bold"), status, Text(describe_outcome(page.outcome)))
    for name in waiting:
        table.add_row(
            Text(name, style="bold"), Text("…", style="dim"), Text("waiting for the device")
        )
    return table
