"""``harmony bundle AGENT FILE``: what a device would fetch, as one file, for where it reaches no server.

The file is for its owner alone: whoever reads it reads what the device is to be.
"""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.amounts import amount
from harmony_core.errors import UsageError

from .common import home_of, out, warn
from .exits import CONVERGED
from .text import count_of
from .volumes import Bar, open_for_writing

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Write the bundle, and print what is in it."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    if options.file == "-":
        raise UsageError(
            "a bundle cannot be piped on, since its index is written last; name a file"
        )
    with open_for_writing(options.file) as file:
        async with Fleet.connect(home_of(options)) as fleet:
            with Bar(options) as bar:
                made = await fleet.device(agent_id).bundle(
                    file,
                    platform=options.platform,
                    with_images=not options.no_images,
                    with_downloads=not options.no_downloads,
                    tell=bar.tell,
                    warn=lambda text: warn(options, text),
                )
    parts = [
        count_of(made.assets, "asset"),
        count_of(made.downloads, "download"),
        count_of(made.images, "image"),
    ]
    said = f"generation {made.generation}, {', '.join(parts)} for {made.platform}"
    out(
        options,
        {
            "event": "bundled",
            "agent": agent_id,
            "file": options.file,
            "generation": made.generation,
            "size_bytes": made.size_bytes,
            "assets": made.assets,
            "downloads": made.downloads,
            "images": made.images,
            "platform": made.platform,
        },
        f"bundled for {agent_id}: {said}; {amount(made.size_bytes, 'bytes')} in {options.file}",
    )
    return CONVERGED
