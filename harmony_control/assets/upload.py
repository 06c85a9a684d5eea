"""Pieces of assets into the bucket, before a manifest that names them is written: those that are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress

from nats.aio.client import Client

from harmony_control.bus.connection import Bucket
from harmony_control.cancelling import cancel_all
from harmony_core.errors import RevisionConflict, StoreError, UsageError
from harmony_core.resources import Asset
from harmony_core.wire.assets import asset_id, chunk_count, chunk_key, key_prefix, seal_chunk
from harmony_core.wire.names import ASSETS

from .local import find_file, read_chunks

__all__ = ["list_stored", "upload"]

_AT_ONCE = 8
"""How many assets are on their way side by side, each with one piece: a server far away answers slowly."""


async def upload(client: Client, assets: Iterable[Asset], in_force: Collection[Asset]) -> int:
    """Put every missing piece of *assets* into the bucket. Return how many were put there.

    Of those that are *in_force*, put only what this process has read a file for: whoever pushes something
    else need not have it. Raise `UsageError` where pieces are missing and this process has read no file with
    that content; `ScoreFileError` where the file has changed since; `StoreError` where the bucket is full.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def upload_one(asset: Asset) -> int:
        async with places:
            return await _upload_missing(client, asset)

    wanted = [each for each in assets if find_file(each) is not None or each not in in_force]
    tasks = [asyncio.create_task(upload_one(each)) for each in wanted]
    try:
        return sum(await asyncio.gather(*tasks))
    finally:
        await cancel_all(tasks)


async def _upload_missing(client: Client, asset: Asset) -> int:
    wanted = set(range(chunk_count(asset)))
    missing = wanted - await list_stored(client, asset_id(asset))
    if not missing:
        return 0
    if find_file(asset) is None:
        raise UsageError(
            f"{asset.summary}: {len(missing)} of its {len(wanted)} pieces are not on the server any "
            "more; push it again from its file"
        )
    bucket = Bucket(client, ASSETS)
    pieces = enumerate(read_chunks(asset))
    while (next_one := await asyncio.to_thread(next, pieces, None)) is not None:
        number, piece = next_one
        if number not in missing:
            continue
        sealed = await asyncio.to_thread(seal_chunk, asset, number, piece)
        try:
            # What is there already is the very same: nobody else has the key.
            with suppress(RevisionConflict):
                await bucket.create(chunk_key(asset, number), sealed)
        except StoreError as error:
            if "maximum bytes" not in error.message:
                raise
            raise StoreError(
                f"{asset.summary}: the bucket for assets is full; have the server forget those that nobody "
                "needs: harmony assets prune"
            ) from error
    if left := missing - await list_stored(client, asset_id(asset)):
        raise StoreError(
            f"{asset.summary}: {len(left)} pieces are not on the server, though it has taken them; push again"
        )
    return len(missing)


async def list_stored(client: Client, wanted: str) -> set[int]:
    """Return which pieces are in the bucket of the asset whose id is *wanted*."""
    keys = await Bucket(client, ASSETS).list_keys(f"{key_prefix(wanted)}.*")
    return {int(number) for each in keys if (number := each.rpartition(".")[2]).isdecimal()}
