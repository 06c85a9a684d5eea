"""``harmony label AGENT [key=value …] [key- …]``: the labels of a device, and setting them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_core.errors import UsageError

from .common import home_of, out, signers_of, warn
from .exits import CONVERGED
from .push import follow

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Set and remove labels, and wait until every Score has been interpreted with them; or only show the
    labels."""
    changes = _changes(options.labels)
    return asyncio.run(_label(options, changes))


async def _label(options: argparse.Namespace, changes: dict[str, str | None]) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        device = fleet.device(options.agent)
        if not changes:
            return await _show(options, device)
        pushed = await device.label(changes, force=options.force)
        for name in sorted(name for name, value in changes.items() if value == ""):
            warn(options, f"{name} is empty now; to remove it, write {name}-")
        return await follow(options, device, pushed)


async def _show(options: argparse.Namespace, device: Device[object]) -> int:
    labels = await device.labels()
    lines = [f"{name}={value}" for name, value in sorted(labels.items())]
    document = {"agent": device.id, "labels": dict(labels)}
    out(options, document, "\n".join(lines) or f"{device.id} has no labels")
    return CONVERGED


def _changes(words: Iterable[str]) -> dict[str, str | None]:
    """Return the new value of each label; None removes it."""
    changes: dict[str, str | None] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign and not word.endswith("-"):
            raise UsageError(
                f"{word!r}: write {word}=VALUE to set that label, {word}- to remove it"
            )
        name = name if sign else name.removesuffix("-")
        if name in changes:
            raise UsageError(f"the label {name!r} is named twice; name it once")
        changes[name] = value if sign else None
    return changes
