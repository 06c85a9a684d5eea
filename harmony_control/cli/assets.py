"""``harmony assets``: what the server has of files that are too large for manifests."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.assets.stored import StoredAsset
from harmony_control.fleet import Fleet
from harmony_core.amounts import amount
from harmony_core.visible import word

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED
from .text import count_of

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """List all assets, delete those that nobody needs from the server, or delete one."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        if options.verb == "remove":
            count = await fleet.assets.remove(options.asset)
            out(
                options,
                {"event": "removed", "asset": options.asset, "pieces": count},
                f"{options.asset} is removed, with {count_of(count, 'piece')}; whoever needs it and has not "
                "fetched it waits until it is pushed again from its file",
            )
            return CONVERGED
        found = await fleet.assets.list()
        if options.verb == "list":
            _list(options, found)
            return CONVERGED
        unneeded = [each for each in found if not each.needed_by]
        question = f"{count_of(len(unneeded), 'asset')} that no manifest names: remove?"
        if unneeded and not options.yes and not await confirm(question):
            return CONVERGED
        pruned = await fleet.assets.prune(unneeded)
    for each in pruned:
        out(options, {"event": "removed", **_to_document(each)}, f"{each.id} is removed")
    left = len(unneeded) - len(pruned)
    if not options.json:
        kept = f"; {left} younger than a day may be of a push that goes on" if left else ""
        print(
            f"{count_of(len(pruned), 'asset')} of {len(found)} removed, "
            f"{amount(sum(each.most_bytes for each in pruned), 'bytes')} at most{kept}"
        )
    return CONVERGED


def _list(options: argparse.Namespace, found: list[StoredAsset]) -> None:
    if not found and not options.json:
        print("there is no asset; a file of more than 64 KiB beside a Score file becomes one")
    for each in found:
        names = ", ".join(map(word, each.names)) or "?"
        needed_by = ", ".join(map(word, each.needed_by)) or "nobody"
        out(
            options,
            _to_document(each),
            f"{each.id}  {amount(each.most_bytes, 'bytes')}  {names}  needed by: {needed_by}",
        )


def _to_document(asset: StoredAsset) -> dict[str, object]:
    return {
        "asset": asset.id,
        "pieces": len(asset.pieces),
        "most_bytes": asset.most_bytes,
        "names": list(asset.names),
        "needed_by": list(asset.needed_by),
    }
