"""What is to be put right, and has content that is not here: it is waited for, whatever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import attrs
import pytest

from harmony_agent.store.assets import AssetCache
from harmony_core.outcome import Running, Success
from harmony_core.reconciler import MemoryBackups, MemoryRecords, Offers
from harmony_core.resources import Asset
from harmony_core.score import AnyScore
from harmony_core.testing import interpret_once
from harmony_core.wire.assets import CHUNK_BYTES
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.links.posix import PosixLinks
from harmony_scores import FileScore, TreeScore
from tests.https_server import environment_of, serving_web

from .test_asset_cache import Pieces

WAITS = "waiting for the control plane to go on fetching model-1"


@attrs.frozen
class Place:
    root: Path
    pieces: Pieces
    cache: AssetCache
    offers: Offers

    async def repair(self, score: AnyScore) -> Running:
        """Bring *score* about, lose what it made and what is kept of that, and see it put right."""
        path = self.root / "srv/app/model"
        await self.until_there(score)
        content = path.read_bytes()
        path.write_bytes(b"drift")
        for each in self.root.with_name("assets").iterdir():
            each.unlink()
        self.pieces.cut = True
        verdict = await interpret_once(score, self.offers)
        assert isinstance(verdict.outcome, Running), verdict
        assert verdict.outcome.reason == "Progressing"
        assert verdict.look_again_s is not None
        assert path.read_bytes() == b"drift"
        self.pieces.cut = False
        await self.until_there(score)
        assert path.read_bytes() == content
        return verdict.outcome

    async def until_there(self, score: AnyScore) -> None:
        async with asyncio.timeout(30):
            while isinstance(found := (await interpret_once(score, self.offers)).outcome, Running):
                await asyncio.sleep(0.05)
        assert isinstance(found, Success), found


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    (tmp_path / "root").mkdir()
    root, records, pieces = str(tmp_path / "root"), MemoryRecords(), Pieces()
    cache = AssetCache(tmp_path / "assets", pieces, most_bytes=8 * CHUNK_BYTES)
    files = PosixFiles(root, records=records, backups=MemoryBackups(), assets=cache)
    directories = PosixDirectories(root, records=records)
    links = PosixLinks(root, records=records)
    offers: Offers = {"FileSystemHost": files, "DirectoryHost": directories, "LinkHost": links}
    yield Place(tmp_path / "root", pieces, cache, offers)
    for each in (files, directories, links, cache):
        await each.close()


def file_of(asset: Asset) -> AnyScore:
    return FileScore(path="/srv/app/model", asset=asset)


def tree_of(asset: Asset) -> AnyScore:
    files = {"model": {"asset": asset}, "readme": {"content": "hello\n"}}
    return TreeScore.model_validate({"path": "/srv/app", "files": files})


@pytest.mark.parametrize("score_of", [file_of, tree_of])
async def test_without_a_connection_an_asset_is_waited_for(
    place: Place, score_of: Callable[[Asset], AnyScore]
) -> None:
    asset = place.pieces.push(1, CHUNK_BYTES)
    told = await place.repair(score_of(asset))
    assert told.message.startswith(WAITS)
    assert told.progress is not None
    assert (told.progress.done, told.progress.total) == (0, CHUNK_BYTES)


async def test_the_rest_of_a_tree_is_put_right_meanwhile(place: Place) -> None:
    score, readme = tree_of(place.pieces.push(1, CHUNK_BYTES)), place.root / "srv/app/readme"
    place.pieces.cut = True
    assert isinstance((await interpret_once(score, place.offers)).outcome, Running)
    assert readme.read_text() == "hello\n"


async def test_a_download_under_way_is_waited_for(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web").mkdir()
    async with serving_web(tmp_path / "web") as web:
        for name, value in environment_of(web).items():
            monkeypatch.setenv(name, value)
        download = web.put(b"x" * 100_000, pause_s=0.4)
        told = await place.repair(FileScore(path="/srv/app/model", download=download))
    assert told.message.startswith("fetching ")
