"""``harmony explain AGENT SCORE``: why a Score is on a device, or is not, and what it waits for."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.outcome_words import indent
from harmony_core.visible import word
from harmony_core.wire.actual_state import OWN_LAYER

from .common import home_of
from .exits import CONVERGED

if TYPE_CHECKING:
    from harmony_control.plan.explain import Explanation, Layer, Wave

__all__ = ["run"]

_RULE = "the device's own manifest is followed before any class; of classes, the one with the higher priority"
_VERDICTS = {
    "Followed": "followed",
    "Overridden": "has one, overridden by",
    "LeftOut": "has one, which the device's own manifest does without",
    "Conflict": "in conflict, by the same priority, with",
    "NoSuchScore": "has no such Score",
    "ToCome": "has one that is to come",
    "ToGo": "followed; the generation that is rolled out has it no more",
    "NotFollowed": "has no such Score, and the device follows no generation of it",
}


def run(options: argparse.Namespace) -> int:
    """Print what is known of one Score. Return 0 whatever its state: `harmony status` has exit codes for
    that."""
    check_agent_id(options.agent)

    async def ask() -> Explanation:
        async with Fleet.connect(home_of(options)) as fleet:
            return await fleet.explain(options.agent, options.score)

    found = asyncio.run(ask())
    if options.json:
        print(json.dumps(_to_fields(found)))
    else:
        for line in _lines(found):
            print(line)
    return CONVERGED


def _lines(found: Explanation) -> Iterator[str]:
    whose = f"{found.score} on {found.agent_id}"
    if found.problem:
        yield f"{whose}: what the device reports cannot be believed: {word(found.problem)}"
    elif found.status is None:
        yield f"{whose}: the device has reported no such Score"
    else:
        outcome = found.status.outcome
        reason = f" {word(outcome.reason)}" if outcome.reason else ""
        yield (
            f"{whose}: {outcome.status}{reason}, from {word(found.status.layer)}, generation "
            f"{found.status.observed_generation}"
        )
        if outcome.message:
            yield f"  {indent(word(outcome.message))}"
    if found.presence != "Heard":
        yield f"  the device is {found.presence.lower()}: what it says of itself is of before"
    yield f"  rule: {_RULE}"
    for layer in found.layers:
        yield from _layer_lines(layer)


def _layer_lines(layer: Layer) -> Iterator[str]:
    verdict = " ".join(filter(None, (_VERDICTS[layer.verdict], _by(layer))))
    if layer.name == OWN_LAYER:
        told = f"generation {layer.generation}" if layer.generation else "none is signed"
        yield f"its own manifest, {told}: {verdict}"
        return
    yield f"{layer.name}, generation {layer.generation or '-'} of {layer.wanted}: {verdict}"
    selects = "selects it" if layer.is_selected else "does not select it any more"
    yield word(
        f"  selector {layer.selector or '(every device)'} {selects}; priority {layer.priority}"
    )
    if layer.wave is not None:
        yield f"  {_wave_line(layer.wave)}"
        if layer.wave.reason:
            yield f"  gate: {word(layer.wave.reason)}"
    if layer.status is None:
        yield "  the device has not told of this class yet"
        return
    status = layer.status
    told = ": ".join(filter(None, (status.reason, status.message)))
    yield word(f"  {status.phase}{f', {told}' if told else ''} (since {status.since})")


def _by(layer: Layer) -> str:
    return layer.by if layer.verdict in {"Overridden", "Conflict"} else ""


def _wave_line(wave: Wave) -> str:
    canary = ", as a canary" if wave.is_canary else f", by its place at {wave.place_percent} %"
    slot = "a slot that is no number" if wave.slot is None else f"slot {wave.slot}"
    return (
        f"gate {wave.state}, wave {wave.open_step + 1} of {wave.steps} and slot {wave.open_slot} open; the "
        f"device is in wave {wave.step + 1}{canary}, {slot}"
    )


def _to_fields(found: Explanation) -> dict[str, object]:
    import attrs

    from harmony_core.wire.actual_state import score_to_json

    return {
        "agent": found.agent_id,
        "score": found.score,
        "presence": found.presence,
        "problem": found.problem,
        "labels": dict(found.labels),
        "status": score_to_json(found.status) if found.status is not None else None,
        "layers": [attrs.asdict(each) for each in found.layers],
    }
