"""``harmony push-score --class``: a new generation of a class, the short way."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.fleet import Fleet
from harmony_control.times_typed import lasting
from harmony_core.errors import NoAnswer, UsageError

from .common import home_of, signers_of
from .exits import CONVERGED
from .rollout import follow, tell_published
from .score_files import read_files

__all__ = ["push_class"]


def push_class(options: argparse.Namespace) -> int:
    """Push, open the first wave and, unless told not to, go on wave by wave, as `harmony rollout run`
    does."""
    files = [options.agent, *options.files]  # with --class, there is no AGENT
    if options.where is not None:
        raise UsageError("--where chooses devices in place of a class: give one of the two")
    if options.all or options.whole or options.dry_run or options.force or options.expires_in:
        raise UsageError(
            "--all, --prune, --dry-run, --force and --expires-in are for devices; for a class, see "
            "harmony plan and apply"
        )
    upto = [_step_of(each) for each in options.step] or None
    entries = read_files(options, files)

    async def push() -> int:
        async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
            done = await fleet.push_class(
                options.cls,
                entries,
                selector=options.selector,
                canary=options.canary,
                upto=upto,
                resolve=not options.no_resolve,
            )
            tell_published(options, done)
            if not options.wait:
                return CONVERGED
            try:
                async with asyncio.timeout(options.timeout):
                    return await follow(options, fleet.rollout(done.name))
            except TimeoutError:
                raise NoAnswer(
                    f"{done.name} is not rolled out within {options.timeout:g} s, and no further wave is "
                    f"opened from here: look with `harmony rollout status {done.name}`, and go on with "
                    f"`harmony rollout run {done.name}`"
                ) from None

    return asyncio.run(push())


def _step_of(text: str) -> tuple[str, int]:
    upto, _, soak = text.partition(":")
    soaks = lasting(soak or None, "--step")
    return upto, int(soaks.total_seconds()) if soaks else 0
