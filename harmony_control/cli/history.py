"""``harmony history AGENT`` and ``harmony rollback AGENT``: earlier revisions, and rolling back to one."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.device import Differences, Generation, History
from harmony_control.fleet import Fleet
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.times import rfc3339

from .common import home_of, out, signers_of, warn
from .confirm import confirm
from .exits import CONVERGED
from .push import follow
from .text import age

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Show all generations, or return to an earlier one and wait for the result."""
    return asyncio.run(_rollback(options) if options.name == "rollback" else _history(options))


async def _history(options: argparse.Namespace) -> int:
    home = home_of(options)
    async with Fleet.connect(home) as fleet:
        device = fleet.device(options.agent)
        history, state = await device.history(), await device.state()
    if history.strangers:
        entries = "entry" if history.strangers == 1 else "entries"
        warn(
            options,
            f"{history.strangers} {entries} skipped: unknown signer; "
            f"to see what another operator has pushed, put their operator.pub into {home.operators}",
        )
    elif not history.generations:
        out(options, {"event": "no history"}, f"nothing was pushed to {options.agent} from here")
    for each in reversed(history.generations):
        _line(options, history.name_of(each), each, state)
    return CONVERGED


def _line(
    options: argparse.Namespace, name: str, each: Generation, state: ActualState | None
) -> None:
    manifest, said = each.manifest, _device_says(each, state)
    changes = each.changes or Differences()
    document = {
        "epoch": manifest.epoch,
        "generation": each.number,
        "issued_at": rfc3339(manifest.issued_at),
        "signed_by": list(each.signed_by),
        "scores": [entry.id for entry in manifest.scores],
        **changes.to_fields(),
        "labels": dict(manifest.labels),
        "without": list(manifest.without),
        "device": said,
    }
    signer = ", ".join(key[:12] for key in each.signed_by)
    words = "oldest revision kept" if each.changes is None else changes.in_words() or _UNCHANGED
    count = len(manifest.scores)
    out(
        options,
        document,
        f"{name:>6}  {age(manifest.issued_at):>7} ago  {signer}  "
        f"{count:>3} Score{'s' if count != 1 else ' '}  {words}{f'  ({_SAID[said]})' if said else ''}",
    )


_SAID = {"converged": "applied on the device", "in force": "current"}
"""What people read for what ``--json`` has."""
_UNCHANGED = "pushed again, no change"


def _device_says(each: Generation, state: ActualState | None) -> str:
    """Return what the device has reported about this very generation; empty where it reports another one."""
    if state is None or (state.epoch, state.generation) != each.manifest.order:
        return ""
    ready = any(one.type == "Ready" and one.status == "True" for one in state.conditions)
    return "converged" if ready and state.observed_generation == each.number else "in force"


async def _rollback(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        device = fleet.device(options.agent)
        history = await device.history()
        target = history.target(options.to)
        changes = target.since(history.generations[-1].manifest)
        _foretell(options, history, target, changes)
        if not options.yes and not await confirm("roll back to it?"):
            out(options, {"event": "not rolled back"}, "nothing was changed")
            return CONVERGED
        pushed = await device.rollback(target.manifest.order, force=options.force, shown=history)
        return await follow(options, device, pushed)


def _foretell(
    options: argparse.Namespace, history: History, target: Generation, changes: Differences
) -> None:
    document = {
        "event": "rollback",
        "from": history.generations[-1].number,
        "to": target.number,
        **changes.to_fields(),
    }
    when = f"{history.name_of(target)} ({age(target.manifest.issued_at)} ago)"
    out(options, document, f"rolling back to revision {when}; reverts: {changes.in_words()}")
