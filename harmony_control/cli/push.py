"""``harmony push-score`` and ``harmony remove-score``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from harmony_control.entries import Entry
from harmony_control.fleet import Device, Fleet
from harmony_control.pushing import Pushed
from harmony_control.score_files import read_score_files
from harmony_core import plugins
from harmony_core.actual_state import ActualState
from harmony_core.errors import UsageError
from harmony_core.outcome import Failure

from .common import home_of, out
from .exits import CONVERGED, FAILED
from .progress import shown

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Push or remove, and show what became of it."""
    return asyncio.run(_remove(options) if options.name == "remove-score" else _push(options))


async def _push(options: argparse.Namespace) -> int:
    if bool(options.files) == options.all:
        raise UsageError("name the Score files to push, or --all for what was signed last")
    entries = read_score_files(options.files, plugins.load())
    async with Fleet.connect(home_of(options)) as fleet:
        device = fleet.device(options.agent)
        if options.all:
            _say_pushed(options, await device.push_again())
            return CONVERGED
        return await _changed(
            options, device, entries, force=options.force, resolve=not options.no_resolve
        )


async def _remove(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        return await _changed(options, fleet.device(options.agent), {}, remove=options.ids)


async def _changed(
    options: argparse.Namespace,
    device: Device[object],
    entries: dict[str, Entry],
    *,
    remove: list[str] | None = None,
    force: bool = False,
    resolve: bool = True,
) -> int:
    gone = remove or []
    if not options.wait:
        _say_pushed(options, await device.put(entries, remove=gone, force=force, resolve=resolve))
        return CONVERGED
    with shown(options, {*entries, *gone}) as progress:

        def pushed(result: Pushed) -> None:
            progress.pushed(result.generation)
            _say_pushed(options, result)

        state = await device.put_and_wait(
            entries,
            remove=gone,
            timeout_s=options.timeout,
            force=force,
            resolve=resolve,
            on_pushed=pushed,
            on_state=progress.show,
        )
    for score_id in gone:
        out(options, {"event": "removed", "id": score_id}, f"{score_id:<20} gone")
    return FAILED if _failed(state, entries) else CONVERGED


def _failed(state: ActualState, entries: dict[str, Entry]) -> bool:
    return any(isinstance(state.scores[name].outcome, Failure) for name in entries)


def _say_pushed(options: argparse.Namespace, pushed: Pushed) -> None:
    for warning in pushed.warnings:
        print(f"harmony: warning: {warning}", file=sys.stderr)
    count = len(pushed.entries)
    out(
        options,
        {"event": "pushed", "agent": options.agent, "generation": pushed.generation},
        f"pushed to {options.agent}: generation {pushed.generation}, {count} Score{'s' * (count != 1)}",
    )
