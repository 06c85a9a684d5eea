"""The cache of assets: what is fetched, in which order, what is kept, and for what there is no room."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_agent.store.assets import AssetCache
from harmony_core.change import NotReady, Progress
from harmony_core.errors import (
    AssetDamaged,
    AssetMissing,
    AssetsFull,
    BusUnreachable,
    InvalidResource,
)
from harmony_core.resources import Asset
from harmony_core.wire.assets import CHUNK_BYTES, chunk_count, chunk_key, seal_chunk

RESOURCE = "file:/srv/model"


@attrs.define
class Pieces:
    """A bucket in memory."""

    stored: dict[str, bytes] = attrs.Factory(dict[str, bytes])
    fetched: list[str] = attrs.Factory(list[str])
    under_way: int = 0
    most_under_way: int = 0
    cut: bool = False

    def push(self, seed: int, size_bytes: int) -> Asset:
        content = random.Random(seed).randbytes(size_bytes)
        asset = Asset(
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=size_bytes,
            name=f"model-{seed}",
            key=f"{seed:064x}",
        )
        for number in range(chunk_count(asset)):
            piece = content[number * CHUNK_BYTES :][:CHUNK_BYTES]
            self.stored[chunk_key(asset, number)] = seal_chunk(asset, number, piece)
        return asset

    async def fetch_chunk(self, key: str) -> bytes | None:
        if self.cut:
            raise BusUnreachable("there is no connection to the control plane")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.fetched.append(key)
        return self.stored.get(key)


@attrs.frozen
class Place:
    pieces: Pieces
    directory: Path
    cache: AssetCache

    def names(self) -> list[str]:
        return sorted(each.name for each in self.directory.iterdir())

    def content(self, asset: Asset) -> str:
        path = self.cache.find(asset)
        assert path is not None
        return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    pieces = Pieces()
    cache = AssetCache(tmp_path / "assets", pieces, most_bytes=8 * CHUNK_BYTES)
    yield Place(pieces, tmp_path / "assets", cache)
    await cache.close()


async def fetched(cache: AssetCache, asset: Asset) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await cache.fetch(asset, resource=RESOURCE)
            except NotReady:
                continue
            else:
                return


async def test_one_piece_is_fetched_at_a_time_whoever_asks(place: Place) -> None:
    assets = [place.pieces.push(seed, 3 * CHUNK_BYTES - seed) for seed in range(1, 3)]
    await asyncio.gather(*(fetched(place.cache, each) for each in [*assets, *assets]))
    assert [place.content(each) for each in assets] == [each.sha256 for each in assets]
    assert len(place.pieces.fetched) == 6
    assert place.pieces.most_under_way == 1
    assert place.names() == sorted(each.sha256 for each in assets)


async def test_a_new_agent_fetches_what_is_missing_alone(place: Place, tmp_path: Path) -> None:
    asset = place.pieces.push(1, 5 * CHUNK_BYTES - 9)
    last = place.pieces.stored.pop(chunk_key(asset, 3))
    with pytest.raises(AssetMissing, match=r"piece 3 of model-1.* is not on the server"):
        await fetched(place.cache, asset)
    await place.cache.close()
    with (place.directory / f"{asset.sha256}.part").open("ab") as file:
        file.write(b"torn")
    place.pieces.stored[chunk_key(asset, 3)] = last
    place.pieces.fetched.clear()
    anew = AssetCache(place.directory, place.pieces, most_bytes=8 * CHUNK_BYTES)
    await fetched(anew, asset)
    assert place.pieces.fetched == [chunk_key(asset, 3), chunk_key(asset, 4)]
    assert place.content(asset) == asset.sha256
    await anew.close()


async def test_without_a_connection_it_waits_and_says_so(place: Place) -> None:
    asset = place.pieces.push(1, CHUNK_BYTES)
    place.pieces.cut = True
    with pytest.raises(
        NotReady, match="waiting for the control plane to go on fetching model-1"
    ) as raised:
        await place.cache.fetch(asset, resource=RESOURCE)
    signal = raised.value
    assert (signal.resource, signal.reason) == (RESOURCE, "Progressing")
    assert signal.progress == Progress(done=0, total=CHUNK_BYTES, unit="bytes")
    place.pieces.cut = False
    await fetched(place.cache, asset)


async def test_a_piece_of_something_else_is_damaged_and_nothing_gets_its_name(
    place: Place,
) -> None:
    asset, other = place.pieces.push(1, 2 * CHUNK_BYTES), place.pieces.push(2, 2 * CHUNK_BYTES)
    place.pieces.stored[chunk_key(asset, 1)] = place.pieces.stored[chunk_key(other, 1)]
    with pytest.raises(AssetDamaged, match="piece 1 of model-1") as raised:
        await fetched(place.cache, asset)
    assert raised.value.resource == RESOURCE
    assert place.cache.find(asset) is None


async def test_pieces_that_come_to_something_else_are_fetched_anew(place: Place) -> None:
    asset = place.pieces.push(1, 3 * CHUNK_BYTES)
    place.directory.mkdir()
    (place.directory / f"{asset.sha256}.part").write_bytes(b"?" * CHUNK_BYTES)
    with pytest.raises(AssetDamaged, match="together they are something else"):
        await fetched(place.cache, asset)
    assert place.names() == []
    await fetched(place.cache, asset)
    assert place.content(asset) == asset.sha256


async def test_what_nobody_needs_makes_room_and_what_is_needed_does_not(place: Place) -> None:
    first, second = (place.pieces.push(seed, 5 * CHUNK_BYTES) for seed in (1, 2))
    place.cache.find_needed = lambda: {first.sha256, second.sha256}
    await fetched(place.cache, first)
    with pytest.raises(AssetsFull, match=r"raise assets_max_mib in agent\.toml"):
        await fetched(place.cache, second)
    assert place.content(first) == first.sha256
    place.cache.find_needed = lambda: {second.sha256}
    await fetched(place.cache, second)
    assert place.names() == [second.sha256]


async def test_a_full_disk_is_told_before_anything_is_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = place.pieces.push(1, CHUNK_BYTES)
    real = os.statvfs(place.directory.parent)
    full = os.statvfs_result((*real[:4], 10, *real[5:]))

    def look(_: Path) -> os.statvfs_result:
        return full

    monkeypatch.setattr(os, "statvfs", look)
    with pytest.raises(AssetsFull, match="make room there"):
        await fetched(place.cache, asset)
    assert place.pieces.fetched == []


async def test_what_is_not_known_to_be_unneeded_stays(place: Place) -> None:
    asset = place.pieces.push(1, CHUNK_BYTES)
    await fetched(place.cache, asset)
    await place.cache.collect()
    assert place.names() == [asset.sha256]
    place.cache.find_needed = lambda: ()
    await place.cache.collect()
    assert place.names() == []
    await fetched(place.cache, asset)
    await place.cache.collect()
    assert place.names() == []


async def test_what_was_never_pushed_is_refused(place: Place) -> None:
    asset = place.pieces.push(1, CHUNK_BYTES).model_copy(update={"key": None})
    with pytest.raises(InvalidResource, match="push its Score"):
        await place.cache.fetch(asset, resource=RESOURCE)


async def test_what_an_image_lets_go_of_stays_as_long_as_it_is_a_file_too(place: Place) -> None:
    both, blob = (place.pieces.push(seed, CHUNK_BYTES) for seed in (1, 2))
    place.cache.find_needed = lambda: {both.sha256, blob.sha256}
    place.cache.find_needed_files = lambda: {both.sha256}
    for each in (both, blob):
        await fetched(place.cache, each)
    await place.cache.let_go([both, blob])
    assert place.names() == [both.sha256]
    await place.cache.collect()
    assert place.content(both) == both.sha256
    # Its image is in force still, and has it elsewhere.
    place.cache.find_needed_files = tuple
    await place.cache.collect()
    assert place.names() == []


async def test_what_an_image_has_let_go_of_comes_again_for_it(place: Place) -> None:
    blob = place.pieces.push(1, CHUNK_BYTES)
    place.cache.find_needed = lambda: {blob.sha256}
    await fetched(place.cache, blob)
    await place.cache.let_go([blob])
    await fetched(place.cache, blob)
    await place.cache.collect()
    assert place.content(blob) == blob.sha256


async def test_a_file_that_is_just_being_fetched_is_not_taken_from_beneath_its_writer(
    place: Place,
) -> None:
    asset = place.pieces.push(1, 4 * CHUNK_BYTES)
    place.cache.find_needed = place.cache.find_needed_files = lambda: {asset.sha256}
    asking = asyncio.create_task(fetched(place.cache, asset))
    async with asyncio.timeout(20):
        while not place.pieces.fetched:
            await asyncio.sleep(0)
        await place.cache.let_go([asset])
        await place.cache.drop(asset)
        assert not asking.done()
        await asking
    assert len(place.pieces.fetched) == 4
    await place.cache.collect()
    assert place.content(asset) == asset.sha256


async def test_what_is_just_being_fetched_for_an_image_alone_is_fetched_no_further(
    place: Place,
) -> None:
    blob, other = (place.pieces.push(seed, 4 * CHUNK_BYTES) for seed in (1, 2))
    place.cache.find_needed = lambda: {blob.sha256, other.sha256}
    asking = asyncio.create_task(place.cache.fetch(blob, resource=RESOURCE))
    async with asyncio.timeout(20):
        while not place.pieces.fetched:
            await asyncio.sleep(0)
        await place.cache.let_go([blob])
        with pytest.raises(NotReady):
            await asking
    assert len(place.pieces.fetched) < 4
    assert place.names() == []
    await fetched(place.cache, other)
    assert place.names() == [other.sha256]


async def test_what_an_image_lacks_has_room_beside_what_is_needed_or_is_refused_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, *blobs = (place.pieces.push(seed, 3 * CHUNK_BYTES) for seed in range(4))
    await place.cache.refuse_without_room(blobs[:2], resource=RESOURCE)
    await fetched(place.cache, other)
    await fetched(place.cache, blobs[0])
    place.cache.find_needed = lambda: {each.sha256 for each in (other, *blobs)}
    await place.cache.refuse_without_room(blobs[:1], resource=RESOURCE)
    size, beside = 6 * CHUNK_BYTES, 3 * CHUNK_BYTES
    with pytest.raises(
        AssetsFull, match=f"lacks {size} bytes.* beside the {beside} b.* to 3 or"
    ) as e:
        await place.cache.refuse_without_room(blobs[:2], resource=RESOURCE)
    assert e.value.resource == RESOURCE
    assert "within 2 MiB; raise assets_max_mib in agent.toml" in e.value.message
    # What nobody needs makes room.
    place.cache.find_needed = lambda: {each.sha256 for each in blobs}
    await place.cache.refuse_without_room(blobs[:2], resource=RESOURCE)
    real = os.statvfs(place.directory)
    full = os.statvfs_result((*real[:4], 10, *real[5:]))

    def look(_: Path) -> os.statvfs_result:
        return full

    monkeypatch.setattr(os, "statvfs", look)
    with pytest.raises(AssetsFull, match="make room there"):
        await place.cache.refuse_without_room(blobs[:2], resource=RESOURCE)
