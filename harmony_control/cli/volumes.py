"""``harmony volumes AGENT``: the volumes of a device, whoever made them."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.amounts import amount
from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.visible import word
from harmony_core.wire.replies import ListedVolume, to_item

from .common import home_of, out
from .exits import CONVERGED

__all__ = ["run"]

_HEAD = ("VOLUME", "SIZE", "USED BY", "SCORE")


def run(options: argparse.Namespace) -> int:
    """Print a row for each: what it takes, the containers that have it, and the Scores that want it."""
    return asyncio.run(_volumes(options))


async def _volumes(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        found = await fleet.device(agent_id).volumes()
    rows = [_row(each) for each in found]
    lines = [_HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    if not options.json:
        print(_line(_HEAD, widths) if rows else f"{agent_id} has no volumes")
    for each, row in zip(found, rows, strict=True):
        out(options, dict(to_item(each)), _line(row, widths))
    return CONVERGED


def _row(volume: ListedVolume) -> tuple[str, ...]:
    size = "?" if volume.size_bytes is None else amount(volume.size_bytes, "bytes")
    used_by = ", ".join(map(word, volume.used_by)) or "-"
    return (word(volume.name), size, used_by, ", ".join(map(word, volume.scores)) or "-")


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
