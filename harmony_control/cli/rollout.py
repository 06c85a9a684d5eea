"""``harmony rollout``: how a class's newest generation comes to its devices; to pause, abort and promote."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from harmony_control.fleet import Fleet
from harmony_core.visible import word
from harmony_core.wire.times import rfc3339

from .common import home_of, out, signers_of, warn
from .exits import CONVERGED, FAILED, NO_ANSWER

if TYPE_CHECKING:
    from harmony_control.rollout.controller import Rollout
    from harmony_control.rollout.judge import MemberState, Progress
    from harmony_control.rollout.publish import Published
    from harmony_control.rollout.state import Look
    from harmony_core.wire.gate import Gate

__all__ = ["follow", "run", "tell_published"]

_TOLD_MOST = 10


def run(options: argparse.Namespace) -> int:
    """Show or run a rollout. Return 0 when it is done and all devices are in order, 1 when it was aborted or
    a device is unhealthy, else 4."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        if options.verb == "key":
            key = await fleet.allow_gate_key()
            out(
                options,
                {"event": "key", "key": key.to_text()},
                f"once devices have heard of it, they take gates that gate.key has signed: {key.id[:16]}…",
            )
            return CONVERGED
        if options.verb == "list":
            return await _list(options, fleet)
        rollout = fleet.rollout(options.cls)
        match options.verb:
            case "status":
                found = await rollout.read()
                _show(options, found)
                return (
                    await follow(options, rollout, only_look=True)
                    if options.follow
                    else exit_code(found.progress)
                )
            case "history":
                await _tell_history(options, rollout)
                return CONVERGED
            case "run":
                return await follow(options, rollout)
            case _:
                gate = await rollout.order(options.verb, options.reason or "")
                out(options, _gate_fields(gate), _in_a_line(gate))
                return CONVERGED


async def _tell_history(options: argparse.Namespace, rollout: Rollout) -> None:
    if not options.follow:
        for gate in await rollout.history():
            out(options, _gate_fields(gate), _in_a_line(gate))
        return
    async with aclosing(rollout.follow_history()) as gates:
        async for gate in gates:
            out(options, _gate_fields(gate), _in_a_line(gate))


async def _list(options: argparse.Namespace, fleet: Fleet) -> int:
    for name, rule in sorted((await fleet.classes()).items()):
        selector = rule.selectors[0].selector
        gates = await fleet.rollout(name).history()
        state = gates[-1].state if gates else "nothing rolled out"
        fields = {"class": name, "selector": selector, "priority": rule.priority, "state": state}
        out(options, fields, f"{name:<20} {state:<12} {selector}")
    return CONVERGED


def tell_published(options: argparse.Namespace, done: Published) -> None:
    """Print that a new generation of a class was written, and how many devices may begin with it."""
    fields = {
        "event": "published",
        "class": done.name,
        "generation": done.generation,
        "members": len(done.members),
        "first_wave": list(done.first_wave),
    }
    first = f"{len(done.first_wave)} of {len(done.members)} devices are in its first wave"
    out(options, fields, f"class {done.name}: generation {done.generation}; {first}")
    for each in done.waiting.values():
        warn(options, each)


async def follow(options: argparse.Namespace, rollout: Rollout, *, only_look: bool = False) -> int:
    """Open wave after wave, and print that, until the rollout is done or aborted. With *only_look*, somebody
    else opens the waves."""
    told = ""
    async with aclosing(rollout.run(only_look=only_look)) as looks:
        async for found in looks:
            if found.why != told:
                told = found.why
                _show_step(options, found)
    return exit_code((await rollout.read()).progress)


def exit_code(progress: Progress) -> int:
    """Return the exit code for *progress*."""
    if progress.gate.state == "aborted" or progress.counts["Unhealthy"]:
        return FAILED
    counts = progress.counts
    if progress.gate.state == "done" and not counts["Progressing"] and not counts["Waiting"]:
        return CONVERGED
    return NO_ANSWER


def _show_step(options: argparse.Namespace, found: Look) -> None:
    gate = found.next or found.progress.gate
    fields = {**_gate_fields(gate), "why": found.why, "counts": dict(found.progress.counts)}
    out(options, fields, f"{gate.name:<20} {gate.state:<8} {word(found.why)}")


def _show(options: argparse.Namespace, found: Look) -> None:
    if options.json:
        print(json.dumps(_to_fields(found)))
        return
    for line in _lines(found):
        print(line)


def _lines(found: Look) -> Iterator[str]:
    progress = found.progress
    gate, rollout = progress.gate, progress.manifest.rollout
    yield f"class {gate.name}, generation {gate.generation}: {gate.state}"
    yield f"  {word(found.why)}"
    for at, step in enumerate(rollout.steps):
        members = [each for each in progress.judged if each.member.step == at]
        opened = "open" if at <= gate.step or gate.state == "done" else "to come"
        ready = sum(each.state == "Ready" for each in members)
        soak = f", soaks {step.soak_s} s" if step.soak_s else ""
        yield f"  wave {at + 1:<3} {step.upto:>6}  {opened:<8} {ready} of {len(members)} ready{soak}"
    told: tuple[MemberState, ...] = ("Unhealthy", "Waiting", "Progressing", "Away", "RolledBack")
    for state in told:
        those = [each for each in progress.judged if each.state == state]
        for each in those[:_TOLD_MOST]:
            yield f"  {state:<12} {each.member.id:<20} {word(each.reason)}".rstrip()
        if len(those) > _TOLD_MOST:
            yield f"  {state:<12} and {len(those) - _TOLD_MOST} more"


def _to_fields(found: Look) -> Mapping[str, object]:
    progress = found.progress
    return {
        **_gate_fields(progress.gate),
        "why": found.why,
        "counts": dict(progress.counts),
        "steps": [
            {"upto": each.upto, "soak_s": each.soak_s} for each in progress.manifest.rollout.steps
        ],
        "devices": {
            each.member.id: {
                "state": each.state,
                "reason": each.reason,
                "wave": each.member.step + 1,
            }
            for each in progress.judged
        },
    }


def _gate_fields(gate: Gate) -> dict[str, object]:
    return {
        "class": gate.name,
        "generation": gate.generation,
        "state": gate.state,
        "wave": gate.step + 1,
        "slot": gate.slot,
        "reason": gate.reason,
        "at": rfc3339(gate.issued_at),
    }


def _in_a_line(gate: Gate) -> str:
    return (
        f"{rfc3339(gate.issued_at)}  generation {gate.generation:<4} {gate.state:<8} wave {gate.step + 1}  "
        f"{word(gate.reason)}"
    )
