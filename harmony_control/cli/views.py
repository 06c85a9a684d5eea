"""How devices are shown to people: all of them as a table, one of them in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from harmony_control.fleet import Seen
from harmony_core.actual_state import ActualState, Condition

from .text import age, age_of, shortened, style_of, told, visible

__all__ = ["agents_table", "device_text"]


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


def device_text(seen: Seen) -> Text:
    """One device: its conditions, its Scores, and what each of them made."""
    state = seen.state
    if state is None:
        text = Text.assemble((seen.agent_id, "bold"), "  ", _presence(seen, "heard "))
        why = f"its report cannot be read: {seen.problem}" if seen.problem else "no report yet"
        return text.append(f"\n  {visible(why)}")
    text = Text.assemble(
        (seen.agent_id, "bold"),
        "  ",
        _presence(seen, "heard "),
        f"  generation {_generations(state)}  agent {visible(state.agent_version)}\n",
    )
    for each in state.conditions:
        line = f"  {each.type:<12} {each.status:<6} {each.reason}  {each.message}".rstrip()
        text.append(f"{visible(line)}\n")
    for name, capability in sorted(state.capabilities.items()):
        if not (capability.offered and capability.available):
            word = "unavailable" if capability.offered else "not offered"
            text.append(visible(f"  {name} is {word}: {capability.reason}") + "\n", style="dim")
    for broken in state.kind_errors:
        text.append(visible(f"  broken: {broken.entry_point}: {broken.reason}") + "\n", style="red")
    _append_scores(text, state)
    text.right_crop(1)
    return text


def _append_scores(text: Text, state: ActualState) -> None:
    for name, page in state.scores.items():
        text.append(f"{visible(name)}  ", style="bold")
        text.append(page.outcome.status, style=style_of(page.outcome))
        told_ = f"  {visible(page.kind)}, for {age_of(page.since)}  {told(page.outcome)}"
        text.append(told_.rstrip() + "\n")
        if page.drift_count:
            text.append(f"  drifted {page.drift_count} times\n", style="yellow")
        for resource, found in page.resources.items():
            text.append(f"  {visible(resource)}  {_facts(found)}\n", style="dim")
        if unlisted := page.resources_total - len(page.resources):
            text.append(f"  and {unlisted} more as desired\n", style="dim")


def _facts(found: Mapping[str, object]) -> str:
    facts = [
        visible(f"{key} {shortened(str(value))}")
        for key, value in found.items()
        if key != "state" and value is not None and value != ""
    ]
    return ": ".join(each for each in (visible(str(found.get("state"))), ", ".join(facts)) if each)


def _row(seen: Seen) -> tuple[Text, ...]:
    state = seen.state
    if state is None:
        ready = Text("report unreadable", style="red") if seen.problem else Text("-")
        return Text(seen.agent_id), _presence(seen), ready, Text("-"), Text("-"), Text("-")
    return (
        Text(seen.agent_id),
        _presence(seen),
        _ready(state),
        Text(str(len(state.scores))),
        Text(_generations(state)),
        Text(visible(state.agent_version)),
    )


def _presence(seen: Seen, heard: str = "") -> Text:
    """``12 s ago``, with *heard* before it; or how long it has been silent or away."""
    when = age(seen.at) if seen.at else "?"
    match seen.presence:
        case "Heard":
            return Text(f"{heard}{when} ago", style="green")
        case "Silent":
            return Text(f"Silent, {when}", style="red")
        case "Offline":
            return Text(f"Offline, {when}", style="red")
        case "Never":
            return Text(f"{heard}never", style="yellow")


def _generations(state: ActualState) -> str:
    if state.observed_generation == state.generation:
        return str(state.generation)
    return f"{state.observed_generation} of {state.generation}"


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
