"""``harmony reboot AGENT …``: boot devices anew, and wait until they are back and their Scores in order."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from harmony_control.fleet import Fleet
from harmony_control.reboot import Rebooted
from harmony_core.errors import HarmonyError, UsageError
from harmony_core.outcome import Failure, Outcome
from harmony_core.outcome_words import describe_outcome, indent
from harmony_core.visible import visible, word
from harmony_core.wire.replies import RebootAsked

from .common import home_of, out, warn
from .confirm import confirm
from .exits import CONVERGED, FAILED, NO_ANSWER, exit_code_of, find_gravest
from .targets import find_devices, is_chosen
from .text import count_of

__all__ = ["run"]

_AT_ONCE = 16
"""How many devices are booted side by side."""


def run(options: argparse.Namespace) -> int:
    """Reboot devices. Return 0 when each is back and in order, or needed no reboot; 1 when a Score has failed
    since; 3 when a device refuses; 4 when one does not answer, is not back, or says "not now" until the time
    is over."""
    if bool(options.agents) == (options.where is not None):
        raise UsageError("name the devices, or say of which something is true: --where")
    if options.serial and not options.wait:
        raise UsageError(
            "--serial waits for each device before it begins with the next one; leave out --no-wait"
        )
    return asyncio.run(_reboot(options))


async def _reboot(options: argparse.Namespace) -> int:
    named = ",".join(options.agents)
    async with Fleet.connect(home_of(options)) as fleet:
        ids = await find_devices(fleet, named, options.where)
        was_chosen = options.where is not None or is_chosen(named)
        if was_chosen:
            told = f"{count_of(len(ids), 'device')}: {', '.join(ids)}"
            out(options, {"event": "chosen", "agents": ids}, told)
            asked = options.yes or await confirm(f"reboot {count_of(len(ids), 'device')}?")
            if not asked:
                out(options, {"event": "not rebooted"}, "nothing was changed")
                return CONVERGED
        try:
            if len(ids) == 1:
                return await _reboot_one(options, fleet, ids[0])
            codes = await (_one_by_one if options.serial else _side_by_side)(options, fleet, ids)
        except asyncio.CancelledError:
            warn(options, "stopped waiting; devices that were asked boot all the same")
            raise
    return find_gravest(codes.values())


async def _side_by_side(
    options: argparse.Namespace, fleet: Fleet, ids: list[str]
) -> Mapping[str, int]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(agent_id: str) -> int:
        async with places:
            return await _reboot_of_several(options, fleet, agent_id)

    codes = dict(zip(ids, await asyncio.gather(*map(one, ids)), strict=True))
    _tell_end(options, codes)
    return codes


async def _one_by_one(
    options: argparse.Namespace, fleet: Fleet, ids: list[str]
) -> Mapping[str, int]:
    """Reboot the next device once the one before is in order; stop where it is not. Return the exit codes by
    device."""
    codes: dict[str, int] = {}
    for agent_id in ids:
        codes[agent_id] = await _reboot_of_several(options, fleet, agent_id)
        if codes[agent_id] != CONVERGED:
            break
    _tell_end(options, codes)
    if left := ids[len(codes) :]:
        told = f"not rebooted, since {[*codes][-1]} is not in order: {', '.join(left)}"
        out(options, {"event": "not rebooted", "agents": left}, told)
    return codes


async def _reboot_of_several(options: argparse.Namespace, fleet: Fleet, agent_id: str) -> int:
    """Reboot a device as `_reboot_one` does. Print an error as that device's, and go on with the others."""
    try:
        return await _reboot_one(options, fleet, agent_id)
    except HarmonyError as error:
        document = {
            "event": "error",
            "agent": agent_id,
            "code": error.code,
            "message": error.message,
        }
        out(options, document, f"{agent_id:<20} {error.code}: {indent(error.message)}")
        return exit_code_of(error)


async def _reboot_one(options: argparse.Namespace, fleet: Fleet, agent_id: str) -> int:
    """Reboot one device, print the result, and return its exit code."""

    def postponed(why: str) -> None:
        document = {"event": "postponed", "agent": agent_id, "message": why}
        out(options, document, f"{agent_id:<20} not yet: {indent(why)}")

    def begun(asked: RebootAsked) -> None:
        named = ", ".join(map(visible, asked.awaited_by))
        document = {"event": "rebooting", "agent": agent_id, "awaited_by": [*asked.awaited_by]}
        out(
            options, document, f"{agent_id:<20} rebooting{f', awaited by {named}' if named else ''}"
        )

    done = await fleet.device(agent_id).reboot(
        if_needed=options.if_needed,
        wait=options.wait,
        timeout_s=options.timeout,
        on_postponed=postponed,
        on_begun=begun,
    )
    return _tell(options, agent_id, done)


def _tell(options: argparse.Namespace, agent_id: str, done: Rebooted) -> int:
    if not done.asked.begun:
        told = f"{agent_id:<20} not needed: nothing awaits a boot"
        out(options, {"event": "not needed", "agent": agent_id}, told)
        return CONVERGED
    if done.state is None:
        return CONVERGED
    wrong = done.unconverged
    for score, outcome in wrong.items():
        document = {"event": "outcome", "agent": agent_id, "id": score, "outcome": outcome.status}
        told = f"{agent_id:<20} {word(score)}: {outcome.status} {describe_outcome(outcome)}"
        out(options, {**document, "message": describe_outcome(outcome)}, told.rstrip())
    if wrong:
        return _judge(wrong)
    document = {"event": "converged", "agent": agent_id, "boot_id": done.state.boot_id}
    out(options, document, f"{agent_id:<20} converged, in another boot")
    return CONVERGED


def _judge(wrong: Mapping[str, Outcome]) -> int:
    has_failed = any(isinstance(each, Failure) for each in wrong.values())
    return FAILED if has_failed else NO_ANSWER


def _tell_end(options: argparse.Namespace, codes: Mapping[str, int]) -> None:
    """Print how many of several devices are in order."""
    if len(codes) < 2 or not options.wait:
        return
    converged = [*codes.values()].count(CONVERGED)
    document = {"event": "done", "devices": len(codes), "converged": converged}
    out(options, document, f"{converged} of {count_of(len(codes), 'device')} converged")
