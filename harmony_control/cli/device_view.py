"""One device in full, for people: its classes, its conditions, its Scores, and what each of them made.

As pairs of text and style: see `painted`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harmony_control.fleet import Seen
from harmony_control.fleet_view.device_status import conditions
from harmony_core.outcome_words import describe_outcome, indent, shorten, status_word
from harmony_core.visible import word
from harmony_core.wire.actual_state import ActualState, ScoreStatus

from .painted import Words
from .text import age, age_of, state_word, style_of

__all__ = ["device_words", "generations", "presence"]


def device_words(seen: Seen) -> list[Words]:
    """Return everything that is known of the device, without the newline at the end."""
    words = [(seen.agent_id, "bold"), ("  ", ""), presence(seen, "heard ")]
    if seen.state is None:
        why = f"its report cannot be read: {seen.problem}" if seen.problem else "no report yet"
        wanted = f"; generation {seen.wanted} is wanted" if seen.wanted else ""
        return [*words, (f"\n  {indent(why)}{wanted}", "")]
    about = f"  generation {generations(seen)}  agent {word(seen.state.agent_version)}"
    if seen.state.policy:
        about += f"  policy {word(seen.state.policy)}"
    for line in ([(about, "")], *_layers(seen.state), *_lines(seen, seen.state)):
        words += [*line, ("\n", "")]
    return words[:-1]


def presence(seen: Seen, heard: str = "") -> Words:
    """Return ``12 s ago``, with *heard* before it; or for how long the device has been offline."""
    when = age(seen.at) if seen.at else "?"
    match seen.presence:
        case "Heard":
            return f"{heard}{when} ago", "green"
        case "Silent" | "Offline":
            return f"offline, last seen {when} ago", "red"
        case "Never":
            return ("never heard" if heard else "never"), "yellow"


def generations(seen: Seen) -> str:
    """Return the generation under which all its Scores were looked at, and the desired one where the device
    is behind."""
    if seen.state is None:
        return "-" if seen.wanted is None else f"- of {seen.wanted}"
    newest = max(seen.state.generation, seen.wanted or 0)
    observed = seen.state.observed_generation
    return str(newest) if observed == newest else f"{observed} of {newest}"


def _layers(state: ActualState) -> Iterator[list[Words]]:
    """Yield a line for each class that the device belongs to."""
    for name, layer in sorted(state.layers.items()):
        follows = str(layer.generation) if layer.generation else "none"
        if layer.wanted != layer.generation:
            follows += f" of {layer.wanted}"
        why = ": ".join(each for each in (layer.reason, layer.message) if each)
        line = (
            f"  {name.replace(':', ' ', 1)}  generation {follows}  "
            f"{layer.phase}, for {age_of(layer.since)}"
        )
        yield [
            (word(line), "" if layer.phase == "Applied" else "yellow"),
            (f": {indent(why)}" if why else "", ""),
        ]


def _lines(seen: Seen, state: ActualState) -> Iterator[list[Words]]:
    for each in conditions(seen):
        since = ""
        if each.type == "RebootRequired" and each.status == "True":
            since = f"for {age_of(each.last_transition_time)}: "
        line = f"  {each.type:<12} {each.status:<6} {each.reason}  {since}{each.message}".rstrip()
        yield [(indent(line), "")]
    for name, capability in sorted(state.capabilities.items()):
        if not (capability.offered and capability.available):
            offer = "unavailable" if capability.offered else "not offered"
            yield [(indent(f"  {name} is {offer}: {capability.reason}"), "dim")]
    for broken in state.kind_errors:
        yield [(indent(f"  broken: {broken.entry_point}: {broken.reason}"), "red")]
    if seen.presence != "Heard" and state.scores:
        yield [("  as it was when it was seen last:", "dim")]
    for name, page in state.scores.items():
        yield from _score(name, page)


def _score(name: str, page: ScoreStatus) -> Iterator[list[Words]]:
    about = (
        f"  {word(page.kind)}, for {age_of(page.since)}  {describe_outcome(page.outcome)}".rstrip()
    )
    yield [
        (f"{word(name)}  ", "bold"),
        (status_word(page.outcome), style_of(page.outcome)),
        (about, ""),
    ]
    if page.drift_count:
        often = "once" if page.drift_count == 1 else f"{page.drift_count} times"
        drift = page.last_drift
        last = f", last {age_of(drift.at)} ago: {drift.resource}" if drift else ""
        yield [(word(f"  drifted {often}{last}"), "yellow")]
    for resource, found in page.resources.items():
        yield [(f"  {word(resource)}  {_facts(found)}", "dim")]
        for key, text in _texts(found).items():
            yield [(f"      {word(key)}:\n        {indent(shorten(text), 8)}", "dim")]
    if unlisted := page.resources_total - len(page.resources):
        yield [(f"  and {unlisted} more as desired", "dim")]


def _facts(found: Mapping[str, object]) -> str:
    texts = _texts(found)
    facts = [
        word(f"{key} {shorten(str(value).rstrip())}")
        for key, value in found.items()
        if key != "state" and key not in texts and value not in (None, "", [])
    ]
    return ": ".join(
        each for each in (word(state_word(str(found.get("state")))), ", ".join(facts)) if each
    )


def _texts(found: Mapping[str, object]) -> dict[str, str]:
    """Return the texts of several lines, such as the output of a job, to be printed on lines of their own."""
    texts = {key: value.rstrip() for key, value in found.items() if isinstance(value, str)}
    return {key: text for key, text in texts.items() if "\n" in text}
