"""``harmony push-score`` and ``harmony remove-score``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Collection, Mapping

from harmony_control.device import TIMEOUT_S, Device, Pushed, removals_held
from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_control.times_typed import lasting
from harmony_core.errors import UsageError
from harmony_core.outcome import Noop, Outcome, Success
from harmony_core.wire.actual_state import ActualState

from .common import home_of, out, signers_of, warn
from .confirm import confirm
from .exits import CONVERGED, FAILED
from .progress import show_progress
from .score_files import read_files
from .targets import names_several
from .text import count_of

__all__ = ["find_held", "find_unconverged", "follow", "run"]


def run(options: argparse.Namespace) -> int:
    """Push or remove Scores, and show the result."""
    if options.name == "remove-score":
        return asyncio.run(_remove(options))
    if options.cls is not None:
        from .push_class import push_class

        return push_class(options)
    if options.timeout is None:
        options.timeout = TIMEOUT_S
    if options.selector is not None or options.canary is not None or options.step:
        raise UsageError("--selector, --canary and --step are for a class: --class CLASS")
    if options.where is not None or names_several(options.agent):
        from .push_several import push_several

        return push_several(options)
    if bool(options.files) == options.all:
        raise UsageError("name the Score files to push, or pass --all for what was pushed last")
    if options.all and options.expires_in:
        raise UsageError(
            "--expires-in cannot be used with --all, which pushes what was signed already; name the files"
        )
    if options.all and options.whole:
        raise UsageError(
            "--prune cannot be used with --all, which pushes what was signed already; name the files"
        )
    if options.dry_run:
        return _dry_run(options)
    return asyncio.run(_push_again(options)) if options.all else _push(options)


def _dry_run(options: argparse.Namespace) -> int:
    from . import diff

    if options.all:
        raise UsageError(
            "--all pushes what was signed already; name files to see what would change"
        )
    return diff.run(options)


def _push(options: argparse.Namespace) -> int:
    expires_in = lasting(options.expires_in)
    check_agent_id(options.agent)  # before the files: the two are easily swapped
    entries = read_files(options, options.files)

    async def push() -> int:
        async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
            device, resolve = fleet.device(options.agent), not options.no_resolve
            removed = await _choose_removed(options, device, entries) if options.whole else []
            if removed is None:
                out(options, {"event": "not pushed"}, "nothing was changed")
                return CONVERGED
            pushed = await device.put(
                entries, remove=removed, force=options.force, resolve=resolve, expires_in=expires_in
            )
            return await follow(options, device, pushed)

    return asyncio.run(push())


async def _choose_removed(
    options: argparse.Namespace, device: Device[object], entries: Collection[str]
) -> list[str] | None:
    """Return the Scores to remove, which are in none of the files; None when the person at the terminal wants
    to keep them."""
    removed = sorted((await device.read_desired()).keys() - set(entries))
    for score_id in removed:
        out(options, {"event": "to be removed", "id": score_id}, f"{score_id:<20} to be removed")
    if not removed or options.yes:
        return removed
    told = f"remove {count_of(len(removed), 'Score')} from {device.id}, with all that they made?"
    return removed if await confirm(told) else None


async def _push_again(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        device = fleet.device(options.agent)
        return await follow(options, device, await device.put_again(force=options.force))


async def _remove(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        device = fleet.device(options.agent)
        pushed = await device.put({}, remove=options.ids, force=options.force)
        return await follow(options, device, pushed)


async def follow(options: argparse.Namespace, device: Device[object], pushed: Pushed) -> int:
    """Print what was pushed and, unless told not to, wait for the result."""
    for warning in pushed.warnings:
        warn(options, warning)
    out(
        options,
        {"event": "pushed", "agent": device.id, "generation": pushed.generation},
        f"pushed to {device.id}: generation {pushed.generation}, {count_of(len(pushed.entries), 'Score')}",
    )
    if not options.wait:
        return CONVERGED
    try:
        with show_progress(options, pushed) as progress:
            state = await device.wait(pushed, timeout_s=options.timeout, on_state=progress.show)
    except asyncio.CancelledError:
        warn(options, f"stopped waiting; {device.id} goes on applying what was pushed")
        raise
    held = find_held(pushed, state)
    for score_id in sorted(pushed.removed - held.keys()):
        out(options, {"event": "removed", "id": score_id}, f"{score_id:<20} gone")
    if held:
        warn(
            options,
            f"{device.id} waits for a confirmation before it removes "
            f"{count_of(sum(held.values()), 'resource')} at once; to see and confirm them: "
            f"harmony approve {device.id}",
        )
    return CONVERGED if not held and not find_unconverged(pushed, state) else FAILED


def find_held(pushed: Pushed, state: ActualState) -> Mapping[str, int]:
    """Return how many resources of each Score the device will remove once that is confirmed."""
    concerned = pushed.concerned | pushed.removed
    return {name: n for name, n in removals_held(state).items() if name in concerned}


def find_unconverged(pushed: Pushed, state: ActualState) -> Mapping[str, Outcome]:
    """Return the Outcomes of the Scores that should have converged after *pushed*, and have not."""
    outcomes = {name: state.scores[name].outcome for name in sorted(pushed.concerned)}
    return {name: each for name, each in outcomes.items() if not isinstance(each, Success | Noop)}
