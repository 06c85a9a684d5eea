"""``harmony push-score pi-1,pi-2 …``, ``'kiosk-*'``, ``--where``: one push, one summary, one exit code."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from harmony_control.device import Foreseen, PreparedPush, Pushable, Pushed
from harmony_control.fleet import Fleet
from harmony_control.times_typed import lasting
from harmony_core.errors import HarmonyError, UsageError
from harmony_core.outcome_words import describe_outcome, indent
from harmony_core.visible import word
from harmony_pi_topology import PiTopology

from .common import home_of, out, signers_of, warn
from .confirm import confirm
from .exits import CONVERGED, FAILED, exit_code_of, find_gravest, say
from .push import find_held, find_unconverged
from .score_files import read_files
from .targets import find_devices, is_chosen
from .text import count_of

__all__ = ["diff_several", "push_several"]

_SHOWN = 8
"""How many ids are listed in a line."""


def push_several(options: argparse.Namespace) -> int:
    """Push to all of the devices or, where one would refuse, to none. Then wait for all of them at the same
    time."""
    if options.all or options.whole:
        raise UsageError("--all and --prune are for one device; run it for each")
    if options.dry_run:
        return diff_several(options)
    expires_in = lasting(options.expires_in)
    entries = _read_files(options)

    async def push() -> int:
        async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
            ids = await _choose(options, fleet)
            was_chosen = options.where is not None or is_chosen(options.agent)
            if was_chosen and not options.yes:
                told = f"push {count_of(len(entries), 'Score')} to {count_of(len(ids), 'device')}?"
                if not await confirm(told):
                    out(options, {"event": "not pushed"}, "nothing was changed")
                    return CONVERGED
            ready = await fleet.prepare(
                ids, entries, force=options.force, resolve=not options.no_resolve
            )
            if ready.refused:
                return _tell_refused(options, ready)
            try:
                done = await ready.put(expires_in=expires_in)
            except asyncio.CancelledError:
                warn(
                    options,
                    "interrupted while it was written: some of the devices may have it, and apply it; "
                    "see which: harmony status",
                )
                raise
            return await _follow_all(options, ready, done)

    return asyncio.run(push())


def diff_several(options: argparse.Namespace) -> int:
    """Print what would change on each of the devices, one after another. Return the most severe exit code."""
    from .diff import judge, show

    entries = _read_files(options)

    async def ask() -> Mapping[str, list[Foreseen] | HarmonyError]:
        async with Fleet.connect(home_of(options)) as fleet:
            ids = await _choose(options, fleet)
            return await fleet.diff(
                ids,
                entries,
                whole=options.whole,
                force=options.force,
                resolve=not options.no_resolve,
            )

    codes: list[int] = []
    for agent_id, found in asyncio.run(ask()).items():
        if not options.json:
            print(f"{agent_id}:", flush=True)
        if isinstance(found, HarmonyError):
            say(found, as_json=options.json, agent_id=agent_id)
            codes.append(exit_code_of(found))
        else:
            show(options, found, agent_id)
            codes.append(judge(options, found, entries))
    return find_gravest(codes)


def _read_files(options: argparse.Namespace) -> Mapping[str, Pushable[PiTopology]]:
    # With --where, there is no AGENT.
    files = options.files if options.where is None else [options.agent, *options.files]
    if not files:
        raise UsageError("name the Score files")
    return read_files(options, files)


async def _choose(options: argparse.Namespace, fleet: Fleet) -> list[str]:
    ids = await find_devices(fleet, options.agent, options.where)
    listed = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    told = f"{count_of(len(ids), 'device')}: {listed}"
    out(options, {"event": "chosen", "agents": ids}, told)
    return ids


def _tell_refused(options: argparse.Namespace, ready: PreparedPush) -> int:
    refused = ready.refused
    for agent_id, error in refused.items():
        _tell_problem(options, agent_id, error)
    told = (
        f"nothing was pushed: {count_of(len(refused), 'device')} of {len(ready.devices)} cannot take it; "
        "leave those out, or mend what is told of them"
    )
    out(options, {"event": "not pushed", "refused": sorted(refused)}, told)
    return find_gravest(map(exit_code_of, refused.values()))


async def _follow_all(
    options: argparse.Namespace, ready: PreparedPush, done: Mapping[str, Pushed | HarmonyError]
) -> int:
    pushed = {name: each for name, each in done.items() if isinstance(each, Pushed)}
    failed = {name: each for name, each in done.items() if isinstance(each, HarmonyError)}
    for agent_id, each in pushed.items():
        for warning in each.warnings:
            warn(options, warning)
        document = {"event": "pushed", "agent": agent_id, "generation": each.generation}
        out(options, document, f"{agent_id:<20} pushed: generation {each.generation}")
    for agent_id, error in failed.items():
        _tell_problem(options, agent_id, error)
    codes = [*map(exit_code_of, failed.values())]
    if not options.wait:
        return find_gravest(codes)
    try:
        following = (_follow(options, ready, name, each) for name, each in pushed.items())
        codes += await asyncio.gather(*following)
    except asyncio.CancelledError:
        warn(options, "stopped waiting; the devices go on applying what was pushed")
        raise
    converged = codes.count(CONVERGED)
    document = {"event": "done", "devices": len(codes), "converged": converged}
    out(options, document, f"{converged} of {count_of(len(codes), 'device')} converged")
    return find_gravest(codes)


async def _follow(
    options: argparse.Namespace, ready: PreparedPush, agent_id: str, pushed: Pushed
) -> int:
    """Print the result on one device, once it is settled."""
    try:
        state = await ready.devices[agent_id].wait(pushed, timeout_s=options.timeout)
    except HarmonyError as error:
        _tell_problem(options, agent_id, error)
        return exit_code_of(error)
    held = sum(find_held(pushed, state).values())
    wrong = find_unconverged(pushed, state)
    for score, outcome in wrong.items():
        document = {"event": "outcome", "agent": agent_id, "id": score, "outcome": outcome.status}
        told = f"{agent_id:<20} {word(score)}: {outcome.status} {describe_outcome(outcome)}"
        out(options, {**document, "message": describe_outcome(outcome)}, told.rstrip())
    if held:
        warn(
            options,
            f"{agent_id} waits for a confirmation before it removes {count_of(held, 'resource')}; to see "
            f"and confirm them: harmony approve {agent_id}",
        )
    if wrong or held:
        return FAILED
    out(options, {"event": "converged", "agent": agent_id}, f"{agent_id:<20} converged")
    return CONVERGED


def _tell_problem(options: argparse.Namespace, agent_id: str, error: HarmonyError) -> None:
    document = {"event": "error", "agent": agent_id, "code": error.code, "message": error.message}
    out(options, document, f"{agent_id:<20} {error.code}: {indent(error.message)}")
