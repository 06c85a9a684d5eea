"""Files whose content is an asset or a download: copied from what is kept here, and looked at by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Collection
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change, NotReady, Progress
from harmony_core.errors import AssetDamaged, AssetMissing, DownloadFailed, UnsafePath
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Asset, Download, File, PresentAt
from harmony_core.testing import FakeFiles
from harmony_pi_topology.files.reconciler import PosixFiles

CONTENT = b"weights" * 50_000
PATH = "/srv/model.bin"


def asset_of(content: bytes) -> Asset:
    sha256 = hashlib.sha256(content).hexdigest()
    return Asset(sha256=sha256, size_bytes=len(content), name="model.bin", key="ab" * 32)


MODEL = File(path=PATH, content=asset_of(CONTENT), mode=0o640)


@attrs.define
class Kept:
    """A cache that has what is put there, once it was asked so often."""

    directory: Path
    waits: int = 0
    asked: int = 0

    def put(self, content: bytes, asset: Asset | Download | None = None) -> None:
        (self.directory / (asset or asset_of(content)).sha256).write_bytes(content)

    async def fetch(self, content: Asset | Download, *, resource: str) -> None:
        self.asked += 1
        if self.asked <= self.waits:
            progress = Progress(done=self.asked, total=content.size_bytes, unit="bytes")
            raise NotReady("fetching", resource=resource, reason="Progressing", progress=progress)
        if self.find(content) is None and isinstance(content, Download):
            (self.directory / content.sha256).write_bytes(CONTENT)
        if self.find(content) is None:
            raise AssetMissing("it is not on the server; push it again", resource=resource)

    def find(self, content: Asset | Download) -> Path | None:
        path = self.directory / content.sha256
        return path if path.exists() else None

    async def drop(self, content: Asset | Download) -> None:
        (self.directory / content.sha256).unlink()

    async def refuse_without_room(self, contents: Collection[Asset], *, resource: str) -> None:
        raise AssertionError("of images alone")

    async def let_go(self, contents: Collection[Asset]) -> None:
        raise AssertionError("of images alone")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "kept").mkdir()
    return Kept(tmp_path / "kept")


@pytest.fixture
async def files(tmp_path: Path, kept: Kept) -> AsyncGenerator[PosixFiles]:
    (tmp_path / "root").mkdir()
    files = PosixFiles(
        str(tmp_path / "root"), records=MemoryRecords(), backups=MemoryBackups(), assets=kept
    )
    yield files
    await files.close()


async def one(files: PosixFiles | FakeFiles, file: File, *, apply: bool = True) -> Change:
    (result,) = await files.converge([file], apply=apply)
    if isinstance(result, Exception):
        raise result
    return result


async def test_it_is_written_and_seen_and_then_left_alone(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    kept.put(CONTENT)
    change = await one(files, MODEL)
    there = tmp_path / "root/srv/model.bin"
    assert there.read_bytes() == CONTENT
    assert isinstance(change.after, PresentAt)
    assert change.after.sha256 == asset_of(CONTENT).sha256
    assert (change.after.size_bytes, change.after.mode) == (len(CONTENT), "0640")
    asked = kept.asked
    assert (await one(files, MODEL)).steps == ()
    await files.prepare([MODEL])
    assert kept.asked == asked


async def test_a_plan_needs_no_content_and_shows_none(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "root/srv").mkdir()
    (tmp_path / "root/srv/model.bin").write_bytes(b"old\n")
    change = await one(files, MODEL, apply=False)
    assert change.actions[0].startswith(f"wrote 4 → {len(CONTENT)} bytes, sha256 ")
    assert change.diff is None
    assert kept.asked == 0


async def test_until_it_is_here_nothing_is_changed_and_others_are_written(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    kept.put(CONTENT)
    kept.waits = 2
    with pytest.raises(NotReady):
        await files.prepare([MODEL])
    other = File(path="/srv/other", content=b"x")
    waiting, written = await files.converge([MODEL, other], apply=True)
    assert isinstance(waiting, NotReady)
    assert waiting.resource == MODEL.id
    assert isinstance(written, Change)
    assert [each.name for each in (tmp_path / "root/srv").iterdir()] == ["other"]
    assert (await one(files, MODEL)).changed


@pytest.mark.parametrize("damage", [CONTENT[:-1] + b"?", CONTENT[:-1]], ids=["other", "shorter"])
async def test_what_was_kept_and_is_something_else_now_is_not_written_and_not_kept(
    files: PosixFiles, kept: Kept, tmp_path: Path, damage: bytes
) -> None:
    kept.put(damage, asset_of(CONTENT))
    (tmp_path / "root/srv").mkdir()
    (tmp_path / "root/srv/model.bin").write_bytes(b"old\n")
    with pytest.raises(AssetDamaged, match="has changed on this device's disk"):
        await one(files, MODEL)
    assert [each.name for each in (tmp_path / "root/srv").iterdir()] == ["model.bin"]
    assert (tmp_path / "root/srv/model.bin").read_bytes() == b"old\n"
    assert kept.find(asset_of(CONTENT)) is None
    kept.put(CONTENT)
    assert (await one(files, MODEL)).changed


async def test_only_its_mode_is_changed_where_the_content_is_there(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    kept.put(CONTENT)
    await one(files, MODEL)
    inode = (tmp_path / "root/srv/model.bin").stat().st_ino
    change = await one(files, MODEL.model_copy(update={"mode": 0o600}))
    assert change.actions == ("mode 0640 → 0600",)
    assert (tmp_path / "root/srv/model.bin").stat().st_ino == inode


async def test_it_is_not_fetched_for_a_place_where_it_may_not_be(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "root/srv").symlink_to("/tmp")
    with pytest.raises(UnsafePath):
        await one(files, MODEL)
    assert kept.asked == 0


async def test_made_up_files_do_as_real_ones() -> None:
    made_up = FakeFiles()
    assert (await one(made_up, MODEL, apply=False)).changed
    with pytest.raises(AssetMissing):
        await one(made_up, MODEL)
    assert made_up.read(PATH) is None
    made_up.assets[asset_of(CONTENT).sha256] = CONTENT
    assert (await one(made_up, MODEL)).changed
    assert made_up.read(PATH) == CONTENT
    assert (await one(made_up, MODEL)).steps == ()


def download_of(content: bytes, *, size_bytes: int | None = None) -> File:
    sha256 = hashlib.sha256(content).hexdigest()
    url = "https://example.org/model.bin?key=1"
    return File(path=PATH, content=Download(url=url, sha256=sha256, size_bytes=size_bytes))


FROM_THERE = "downloaded from https://example.org/model.bin?…"


@pytest.mark.parametrize("size_bytes", [None, len(CONTENT)], ids=["unsaid", "said"])
async def test_a_download_is_told_by_its_address_once_and_its_size_once_it_is_here(
    files: PosixFiles, kept: Kept, tmp_path: Path, size_bytes: int | None
) -> None:
    file = download_of(CONTENT, size_bytes=size_bytes)
    planned = await one(files, file, apply=False)
    assert planned.actions == (FROM_THERE, "created")
    assert isinstance(planned.after, PresentAt)
    assert planned.after.size_bytes == size_bytes
    assert kept.asked == 0
    await files.prepare([file])
    # In earnest, it is here by now, and was fetched for this.
    change = await one(files, file)
    assert change.actions == (FROM_THERE, "created")
    assert isinstance(change.after, PresentAt)
    assert change.after.size_bytes == len(CONTENT)
    assert (await one(files, file)).steps == ()
    asked = kept.asked
    (tmp_path / "root/srv/model.bin").write_bytes(b"mine")
    (repaired,) = (await one(files, file)).actions
    assert repaired.startswith(f"wrote 4 → {len(CONTENT)} bytes, sha256 ")
    assert (tmp_path / "root/srv/model.bin").read_bytes() == CONTENT
    assert kept.asked == asked + 1  # which finds it here


async def test_what_is_there_and_is_the_right_content_is_not_downloaded(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "root/srv").mkdir()
    (tmp_path / "root/srv/model.bin").write_bytes(CONTENT)
    (tmp_path / "root/srv/model.bin").chmod(0o644)
    file = download_of(CONTENT)
    await files.prepare([file])
    assert (await one(files, file)).steps == ()
    assert kept.asked == 0


async def test_a_download_that_was_changed_where_it_is_kept_is_not_written(
    files: PosixFiles, kept: Kept, tmp_path: Path
) -> None:
    file = download_of(CONTENT)
    assert isinstance(file.content, Download)
    kept.put(CONTENT[:-1] + b"?", file.content)
    with pytest.raises(AssetDamaged):
        await one(files, file)
    assert kept.find(file.content) is None
    assert not (tmp_path / "root/srv/model.bin").exists()
    assert (await one(files, file)).actions == (FROM_THERE, "created")


async def test_made_up_files_download_nothing_and_have_what_is_put_there() -> None:
    made_up, file = FakeFiles(), download_of(CONTENT)
    assert (await one(made_up, file, apply=False)).actions == (FROM_THERE, "created")
    with pytest.raises(DownloadFailed, match="put the content into assets"):
        await one(made_up, file)
    assert made_up.read(PATH) is None
    made_up.assets[asset_of(CONTENT).sha256] = CONTENT
    assert (await one(made_up, file)).changed
    assert (await one(made_up, file)).steps == ()
