"""What an image from an archive consists of, as the registry for one pull asks for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import attrs
import pytest

from harmony_core.change import NotReady, Progress
from harmony_core.errors import AssetDamaged, AssetMissing, AssetsFull, WriteFailed
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import Asset, Container, Download, ImageBlob
from harmony_pi_topology.containers.image_blobs import ImageBlobs
from harmony_pi_topology.containers.image_pull import ImagePulls
from harmony_pi_topology.containers.podman import Podman

RESOURCE = "container:app"
CONTENTS = (b"the manifest", b"the configuration", b"a layer" * 1000)
BLOBS = tuple(
    ImageBlob(
        sha256=hashlib.sha256(each).hexdigest(),
        size_bytes=len(each),
        name=f"app: {n}",
        key="1" * 64,
    )
    for n, each in enumerate(CONTENTS)
)
MANIFEST, CONFIG, LAYER = (each.digest for each in BLOBS)


@attrs.define
class Kept:
    """`Assets` in a directory, of which what is fetched comes when a test says so."""

    directory: Path
    fetched: list[str] = attrs.Factory(list[str])
    here: set[str] = attrs.Factory(set[str])
    let_go_of: int = 0
    is_full: bool = False
    room_bytes: int = 1_000_000
    trouble: Callable[[Asset], Exception | None] = lambda _: None

    async def fetch(self, content: Asset | Download, *, resource: str) -> None:
        assert isinstance(content, ImageBlob)
        self.fetched.append(content.name)
        await asyncio.sleep(0)
        if (trouble := self.trouble(content)) is not None:
            raise trouble
        number = BLOBS.index(content)
        (self.directory / content.sha256).write_bytes(CONTENTS[number])
        self.here.add(content.sha256)

    def find(self, content: Asset | Download) -> Path | None:
        return self.directory / content.sha256 if content.sha256 in self.here else None

    async def drop(self, content: Asset | Download) -> None:
        self.here.discard(content.sha256)

    async def refuse_without_room(self, contents: Collection[Asset], *, resource: str) -> None:
        if sum(each.size_bytes for each in contents) > self.room_bytes:
            raise AssetsFull("raise assets_max_mib", resource=resource)

    async def let_go(self, contents: Collection[Asset]) -> None:
        self.let_go_of += len(contents)
        if self.is_full:
            raise WriteFailed("the disk takes nothing")
        self.here -= {each.sha256 for each in contents}


def waiting(blob: Asset, done: int = 0, message: str = "fetching") -> NotReady:
    return NotReady(
        f"{message} {blob.name}",
        resource=RESOURCE,
        reason="Progressing",
        progress=Progress(done=done, total=blob.size_bytes, unit="bytes"),
    )


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


async def read(blobs: ImageBlobs, digest: str) -> bytes:
    """As a thread of the registry does."""
    return await asyncio.to_thread(lambda: b"".join(blobs.read(digest)))


async def test_a_blob_is_fetched_once_it_is_asked_for_and_others_are_not(kept: Kept) -> None:
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    await blobs.begin(MANIFEST)
    assert kept.fetched == ["app: 0"]
    assert blobs.find_size(LAYER) == len(CONTENTS[2])
    assert blobs.find_size(f"sha256:{'0' * 64}") is None
    assert await read(blobs, LAYER) == CONTENTS[2]
    assert await read(blobs, MANIFEST) == CONTENTS[0]
    assert kept.fetched == ["app: 0", "app: 2"]
    assert blobs.lacked == {MANIFEST, LAYER}


@pytest.mark.looptime
async def test_how_far_it_is_counts_all_that_podman_lacks(kept: Kept) -> None:
    kept.trouble = lambda blob: waiting(blob, done=700) if blob == BLOBS[2] else None
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    await blobs.begin(MANIFEST)
    assert blobs.so_far() is None
    asking = asyncio.create_task(blobs.begin(LAYER))
    await asyncio.sleep(0.5)
    told = blobs.so_far()
    assert told is not None
    assert told.message == "fetching app: 2"
    size = len(CONTENTS[0])
    assert told.progress == Progress(done=size + 700, total=size + len(CONTENTS[2]), unit="bytes")
    kept.trouble = lambda _: None
    await asking
    assert blobs.so_far() is None


@pytest.mark.looptime
async def test_what_has_no_room_together_is_told_before_it_is_fetched_and_ends_what_is(
    kept: Kept,
) -> None:
    kept.room_bytes = sum(map(len, CONTENTS[1:]))
    kept.trouble = waiting
    let_go: list[str] = []

    async def on_full() -> None:
        let_go.append("all")

    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE, on_full=on_full)
    coming = [asyncio.create_task(blobs.begin(each)) for each in (CONFIG, LAYER)]
    await asyncio.sleep(5)
    assert not any(each.done() for each in coming)
    with pytest.raises(AssetsFull):
        await blobs.begin(MANIFEST)
    assert "app: 0" not in kept.fetched
    assert let_go == ["all"]
    ended = await asyncio.gather(*coming, return_exceptions=True)
    assert all(isinstance(each, AssetsFull) for each in ended)
    kept.fetched.clear()
    again = ImageBlobs(kept, BLOBS, resource=RESOURCE, lacked_before=blobs.lacked)
    with pytest.raises(AssetsFull):
        await again.begin(MANIFEST)
    assert kept.fetched == []


@pytest.mark.looptime
async def test_where_nothing_comes_podman_is_left_alone_and_what_it_lacks_is_fetched_before_it_is_asked(
    kept: Kept,
) -> None:
    waits = "waiting for the control plane to go on fetching"
    kept.trouble = lambda blob: waiting(blob, message=waits)
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    begun_s = asyncio.get_running_loop().time()
    with pytest.raises(NotReady, match=f"{waits} app: 2"):
        await blobs.begin(LAYER)
    assert 120 <= asyncio.get_running_loop().time() - begun_s <= 125
    assert blobs.lacked == {LAYER}
    kept.trouble = lambda _: None
    kept.fetched.clear()
    again = ImageBlobs(kept, BLOBS, resource=RESOURCE, lacked_before=blobs.lacked)
    await again.begin(MANIFEST)
    assert kept.fetched == ["app: 0", "app: 2"]


@pytest.mark.looptime
async def test_as_long_as_pieces_come_podman_waits(kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()

    def trouble(blob: Asset) -> Exception | None:
        passed_s = loop.time() - begun_s
        return waiting(blob, done=int(passed_s // 60)) if passed_s < 3600 else None

    kept.trouble = trouble
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    await blobs.begin(LAYER)
    assert loop.time() - begun_s >= 3600
    assert loop.time() - blobs.last_piece_s < 1


async def test_why_podman_was_given_nothing_is_kept(kept: Kept) -> None:
    kept.trouble = lambda blob: AssetMissing(f"{blob.name} is not on the server")
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    with pytest.raises(OSError, match="app: 2 is not on the server"):
        await read(blobs, LAYER)
    assert isinstance(blobs.failure, AssetMissing)
    with pytest.raises(OSError, match="app: 1 is not on the server"):
        await read(blobs, CONFIG)
    assert "app: 2" in str(blobs.failure)  # the first


async def test_what_was_kept_and_is_something_else_now_is_not_kept_any_longer(kept: Kept) -> None:
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    await blobs.begin(LAYER)
    (kept.directory / BLOBS[2].sha256).write_bytes(b"another")
    await read(blobs, LAYER)
    assert isinstance(blobs.failure, AssetDamaged)
    assert "is something else by now; it is fetched again" in blobs.failure.message
    assert kept.here == set()


async def test_of_an_image_that_is_here_nothing_is_kept_which_is_seen_to_once(kept: Kept) -> None:
    kept.here = {each.sha256 for each in BLOBS}
    kept.is_full = True
    wanted = Container(name="app", image=f"localhost/app@{MANIFEST}", image_blobs=BLOBS)
    podman = Podman("unix:///nowhere")
    pulls = ImagePulls(podman, MemoryRecords(), assets=kept)
    await pulls.keep_nothing(wanted.image, of=wanted)
    kept.is_full = False
    for _ in range(3):
        pulls.leave("app")
        await pulls.keep_nothing(wanted.image, of=wanted)
    assert kept.here == set()
    assert kept.let_go_of == 2 * len(BLOBS)
    podman.close()


async def test_nobody_is_left_waiting_when_a_pull_ends(kept: Kept) -> None:
    kept.trouble = waiting
    blobs = ImageBlobs(kept, BLOBS, resource=RESOURCE)
    reading = asyncio.create_task(read(blobs, LAYER))
    async with asyncio.timeout(20):
        while blobs.so_far() is None:
            await asyncio.sleep(0.01)
    blobs.end()
    async with asyncio.timeout(20):
        with pytest.raises(OSError, match="the pull has ended"):
            await reading
        with pytest.raises(OSError, match="the pull has ended"):
            await read(blobs, LAYER)
    assert kept.here == set()
