"""``harmony freeze`` and ``harmony thaw``: no device begins with a new generation of any class."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime

from harmony_control.fleet import Fleet
from harmony_control.times_typed import until_of
from harmony_core.errors import UsageError
from harmony_core.wire.times import rfc3339

from .common import home_of, out, signers_of
from .exits import CONVERGED

__all__ = ["run", "until_words"]


def run(options: argparse.Namespace) -> int:
    """Write the freeze, or its end. Return 0 also where it was so already."""
    return asyncio.run(_thaw(options) if options.name == "thaw" else _freeze(options))


def until_words(until: datetime | None) -> str:
    """Return in words how long a freeze lasts."""
    return f"until {until:%F %T} UTC" if until else "until `harmony thaw`"


async def _freeze(options: argparse.Namespace) -> int:
    until = until_of(options.until)
    if until is not None and until <= datetime.now(UTC):
        raise UsageError(f"--until {options.until!r} is over already; give a time that is to come")
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        await fleet.freeze(until=until, reason=options.reason or "")
    out(
        options,
        {
            "event": "frozen",
            "until": rfc3339(until) if until else None,
            "reason": options.reason or "",
        },
        f"frozen {until_words(until)}: once a device has heard of it, it begins with no new generation of a "
        "class; what is pushed to one device still comes to it. One that is away hears of it later",
    )
    return CONVERGED


async def _thaw(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        changed = await fleet.thaw()
    told = "thawed: devices begin again as their gates say" if changed else "there was no freeze"
    out(options, {"event": "thawed", "changed": changed}, told)
    return CONVERGED
