"""One device in full, for people: its conditions, its Scores, and what each of them made.

As pairs of text and style: see `painted`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harmony_control.bus.reports import Seen
from harmony_core.wire.actual_state import ActualState, ScoreState

from .painted import Words
from .text import age, age_of, shortened, style_of, told, visible

__all__ = ["device_words", "generations", "presence"]


def device_words(seen: Seen) -> list[Words]:
    """Everything that is known of it, without the last line's end."""
    words = [(seen.agent_id, "bold"), ("  ", ""), presence(seen, "heard ")]
    if seen.state is None:
        why = f"its report cannot be read: {seen.problem}" if seen.problem else "no report yet"
        return [*words, (f"\n  {visible(why)}", "")]
    for line in (_about(seen.state), *_lines(seen.state)):
        words += [*line, ("\n", "")]
    return words[:-1]


def presence(seen: Seen, heard: str = "") -> Words:
    """``12 s ago``, with *heard* before it; or how long it has been silent or away."""
    when = age(seen.at) if seen.at else "?"
    match seen.presence:
        case "Heard":
            return f"{heard}{when} ago", "green"
        case "Silent":
            return f"Silent, {when}", "red"
        case "Offline":
            return f"Offline, {when}", "red"
        case "Never":
            return ("never heard" if heard else "never"), "yellow"


def generations(state: ActualState) -> str:
    """The generation in force, and how far its Scores are behind it."""
    if state.observed_generation == state.generation:
        return str(state.generation)
    return f"{state.observed_generation} of {state.generation}"


def _about(state: ActualState) -> list[Words]:
    return [(f"  generation {generations(state)}  agent {visible(state.agent_version)}", "")]


def _lines(state: ActualState) -> Iterator[list[Words]]:
    for each in state.conditions:
        line = f"  {each.type:<12} {each.status:<6} {each.reason}  {each.message}".rstrip()
        yield [(visible(line), "")]
    for name, capability in sorted(state.capabilities.items()):
        if not (capability.offered and capability.available):
            word = "unavailable" if capability.offered else "not offered"
            yield [(visible(f"  {name} is {word}: {capability.reason}"), "dim")]
    for broken in state.kind_errors:
        yield [(visible(f"  broken: {broken.entry_point}: {broken.reason}"), "red")]
    for name, page in state.scores.items():
        yield from _score(name, page)


def _score(name: str, page: ScoreState) -> Iterator[list[Words]]:
    about = f"  {visible(page.kind)}, for {age_of(page.since)}  {told(page.outcome)}".rstrip()
    yield [
        (f"{visible(name)}  ", "bold"),
        (page.outcome.status, style_of(page.outcome)),
        (about, ""),
    ]
    if page.drift_count:
        often = "once" if page.drift_count == 1 else f"{page.drift_count} times"
        drift = page.last_drift
        last = f", last {age_of(drift.at)} ago: {drift.resource}" if drift else ""
        yield [(visible(f"  drifted {often}{last}"), "yellow")]
    for resource, found in page.resources.items():
        yield [(f"  {visible(resource)}  {_facts(found)}", "dim")]
    if unlisted := page.resources_total - len(page.resources):
        yield [(f"  and {unlisted} more as desired", "dim")]


def _facts(found: Mapping[str, object]) -> str:
    facts = [
        visible(f"{key} {shortened(str(value))}")
        for key, value in found.items()
        if key != "state" and value not in (None, "", [])
    ]
    return ": ".join(each for each in (visible(str(found.get("state"))), ", ".join(facts)) if each)
