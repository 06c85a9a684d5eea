"""All devices, for people: a table, one row a device."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from harmony_control.bus.device_status import conditions
from harmony_control.bus.reports import Seen
from harmony_core.visible import word

from .device_view import generations, presence

__all__ = ["agents_table"]


def agents_table(seen: Iterable[Seen]) -> Table:
    """Return the table of `harmony agents`, one row a device."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("AGENT", "LAST SEEN", "READY", "SCORES", "GENERATION", "VERSION"):
        # Where it is too narrow, a name goes on in the next line: it is never cut.
        folds = title in {"AGENT", "READY"}
        table.add_column(title, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
    for each in seen:
        table.add_row(*_row(each))
    return table


def _row(seen: Seen) -> tuple[Text, ...]:
    state, heard = seen.state, Text(*presence(seen))
    generation = Text(generations(seen))
    if state is None:
        ready = Text("report unreadable", style="red") if seen.problem else Text("-")
        return Text(seen.agent_id), heard, ready, Text("-"), generation, Text("-")
    return (
        Text(seen.agent_id),
        heard,
        _ready(seen),
        Text(str(len(state.scores))),
        generation,
        Text(word(state.agent_version)),
    )


def _ready(seen: Seen) -> Text:
    found = {each.type: each for each in conditions(seen)}
    ready, degraded = found.get("Ready"), found.get("Degraded")
    if ready is None or ready.status == "Unknown":
        return Text("Unknown", style="yellow")
    if degraded is not None and degraded.reason == "ManifestRejected":
        return Text("no: ManifestRejected", style="red")
    if ready.status == "True":
        if degraded is not None and degraded.status == "True":
            return Text(word(f"yes, but {degraded.reason}"), style="yellow")
        return Text("yes", style="green")
    if ready.reason == "Behind":
        return Text("no: Behind", style="yellow")
    names = f" ({ready.message})" if ready.message else ""
    return Text(word(f"no: {ready.reason}{names}"), style="yellow")
