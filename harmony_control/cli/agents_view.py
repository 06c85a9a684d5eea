"""All devices, for people: a table, one row a device."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from harmony_control.bus.reports import Seen
from harmony_core.wire.actual_state import ActualState, Condition

from .device_view import generations, presence
from .text import visible

__all__ = ["agents_table"]


def agents_table(seen: Iterable[Seen]) -> Table:
    """One row a device."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("AGENT", "HEARD", "READY", "SCORES", "GENERATION", "VERSION"):
        # Where it is too narrow, a name goes on in the next line: it is never cut.
        folds = title in {"AGENT", "READY"}
        table.add_column(title, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
    for each in seen:
        table.add_row(*_row(each))
    return table


def _row(seen: Seen) -> tuple[Text, ...]:
    state, heard = seen.state, Text(*presence(seen))
    if state is None:
        ready = Text("report unreadable", style="red") if seen.problem else Text("-")
        return Text(seen.agent_id), heard, ready, Text("-"), Text("-"), Text("-")
    return (
        Text(seen.agent_id),
        heard,
        # What was true when it was last heard is not known to be so.
        _ready(state) if seen.presence == "Heard" else Text("?"),
        Text(str(len(state.scores))),
        Text(generations(state)),
        Text(visible(state.agent_version)),
    )


def _ready(state: ActualState) -> Text:
    ready, degraded = _condition(state, "Ready"), _condition(state, "Degraded")
    if degraded is not None and degraded.reason == "ManifestRejected":
        return Text("no: ManifestRejected", style="red")
    if ready is None:
        return Text("?")
    if ready.status == "True":
        return Text("yes", style="green")
    names = f" ({ready.message})" if ready.message else ""
    return Text(visible(f"no: {ready.reason}{names}"), style="yellow")


def _condition(state: ActualState, kind: str) -> Condition | None:
    return next((each for each in state.conditions if each.type == kind), None)
