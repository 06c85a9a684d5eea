"""Assets from a file beside a Score file to a device: what is fetched, and who may read what."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import attrs
import pytest
from nats.js import JetStreamContext

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus as AgentBus
from harmony_agent.store.assets import AssetCache
from harmony_control.assets import local, stored
from harmony_control.assets.seal import assets_of
from harmony_control.assets.stored import list_assets, prune, remove
from harmony_control.assets.upload import list_stored, upload
from harmony_control.fleet import Fleet
from harmony_control.plan.plan import Difference
from harmony_control.push.entries import Entry, serialize
from harmony_control.score_files.read import read_score_files
from harmony_control.store import operator_key
from harmony_core.errors import BusUnreachable, ScoreFileError, StoreError
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Asset
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState, from_json
from harmony_core.wire.assets import CHUNK_BYTES, asset_id, chunk_key, open_chunk
from harmony_core.wire.envelope import open_envelope, pin_keys
from harmony_core.wire.manifest import SerializedScore, parse_manifest
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_scores import FileScore
from tests.agent.process import process
from tests.agent.rig import Rig
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving

PIECES = 4
SCORE = """
- id: model
  kind: FileScore
  spec: {path: /srv/model.bin, content_base64_from: ./model.bin, mode: "0640"}
"""


def content(seed: int) -> bytes:
    """Not quite so many pieces."""
    return random.Random(seed).randbytes(PIECES * CHUNK_BYTES - 7)


@attrs.define
class Source:
    """The bus, as pieces are fetched from it: counted, and cut when so many were."""

    bus: AgentBus
    fetched: list[str] = attrs.Factory(list[str])
    cut_after: int = 10**6

    async def fetch_chunk(self, key: str) -> bytes | None:
        if len(self.fetched) >= self.cut_after:
            raise BusUnreachable("cut")
        self.fetched.append(key)
        return await self.bus.fetch_chunk(key)


@attrs.frozen
class Place:
    bus: Bus
    root: Path

    @property
    def target(self) -> Path:
        return self.root / "device/srv/model.bin"

    @property
    def cache(self) -> Path:
        return self.root / "agent/state/assets"

    async def push(self, *more: str, yaml: str = SCORE) -> Said:
        file = self.root / "scores.yaml"
        file.write_text(yaml)
        return await harmony(self.bus.home, "push-score", "pi-1", str(file), *more)

    async def put(self, agent_id: str = "pi-1") -> None:
        """Push as `push` does, from this process, and wait for nothing."""
        file = self.root / "scores.yaml"
        file.write_text(SCORE)
        entries = read_score_files([str(file)], Registry([FileScore]))
        async with Fleet.connect(self.bus.home) as fleet:
            await fleet.device(agent_id).put(entries)

    async def pushed(self) -> list[Asset]:
        """The assets in the manifest that stands there."""
        found = await self.bus.bucket("desired-state").get("pi-1")
        assert found is not None
        keys = pin_keys([operator_key.load(self.bus.home).public])
        return assets_of(parse_manifest(open_envelope(found.value, keys).payload).scores)

    async def until_written(self, target: Path | None = None) -> None:
        async with asyncio.timeout(20):
            while not (target or self.target).exists():
                await asyncio.sleep(0.05)

    async def until_told(self, code: str) -> str:
        """What the device's one Score says, once it has failed so."""
        async with asyncio.timeout(20):
            while True:
                found = await self.bus.bucket("actual-state").get("pi-1")
                if found is not None and found.value:
                    outcome = from_json(found.value, ActualState).scores["model"].outcome
                    if isinstance(outcome, Failure) and outcome.error.code == code:
                        return outcome.error.message
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def device(self, *, cut_after: int = 10**6) -> AsyncGenerator[Source]:
        config = configuration.load(self.bus.home.agent_toml("pi-1"))
        agent_bus = AgentBus.of(config)
        source = Source(agent_bus, cut_after=cut_after)
        assets = AssetCache(self.cache, source, most_bytes=64 * 1024**2)
        (self.root / "device").mkdir(exist_ok=True)
        files = PosixFiles(
            str(self.root / "device"),
            records=MemoryRecords(),
            backups=MemoryBackups(),
            assets=assets,
        )
        async with running_agent(
            self.bus.home,
            "pi-1",
            self.root / "agent",
            registry=Registry([FileScore]),
            offers={"FileSystemHost": files},
            missing={},
            bus=agent_bus,
            assets=assets,
        ):
            yield source
        await assets.close()
        await files.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    (tmp_path / "model.bin").write_bytes(content(1))
    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        yield Place(bus, tmp_path)


async def test_a_large_file_comes_whole_and_stands_in_no_manifest(place: Place) -> None:
    async with place.device() as source:
        said = await place.push()
        assert said.status == 0, said
        assert place.target.read_bytes() == content(1)
        assert place.target.stat().st_mode & 0o777 == 0o640
        assert len(source.fetched) == PIECES
        (asset,) = await place.pushed()
        assert asset.sha256 == hashlib.sha256(content(1)).hexdigest()
        assert [each.name for each in place.cache.iterdir()] == [asset.sha256]
        assert (place.cache / asset.sha256).stat().st_mode & 0o777 == 0o600
        assert "unchanged" in (await place.push()).out

        # Somebody else's hand on it is put right from what is kept here.
        place.target.write_bytes(b"mine")
        said = await harmony(place.bus.home, "reconcile", "pi-1")
        assert said.status == 0, said
        assert place.target.read_bytes() == content(1)
        assert len(source.fetched) == PIECES


async def test_what_is_cut_goes_on_where_it_was_and_costs_only_what_is_missing(
    place: Place,
) -> None:
    async with place.device(cut_after=2) as source:
        said = await place.push("--timeout", "2")
        assert said.status == 4, said
        assert "waiting for the control plane to go on fetching model.bin" in said.out + said.err
        assert len(source.fetched) == 2
        assert not place.target.exists()
    async with place.device() as source:
        await place.until_written()
        assert len(source.fetched) == PIECES - 2
    assert place.target.read_bytes() == content(1)


async def test_pieces_that_are_missing_or_other_change_nothing_and_are_put_right_by_a_push(
    place: Place,
) -> None:
    async with place.device():
        assert (await place.push()).status == 0
    (place.root / "model.bin").write_bytes(content(2))
    await place.put()
    (asset,) = await place.pushed()
    bucket = place.bus.bucket("assets")
    await bucket.put(chunk_key(asset, 1), b"something else")
    async with place.device():
        told = await place.until_told("AssetDamaged")
        assert f"piece 1 of model.bin, {asset.size_bytes} bytes" in told
        assert f"harmony assets remove {asset_id(asset)}" in told
        assert place.target.read_bytes() == content(1)

        said = await harmony(place.bus.home, "assets", "remove", asset_id(asset))
        assert said.status == 0, said
        told = await place.until_told("AssetMissing")
        assert "push its Score again from where the file is" in told
        assert place.target.read_bytes() == content(1)

        assert (await place.push()).status == 0
        assert place.target.read_bytes() == content(2)


async def test_a_device_reads_pieces_that_it_can_name_and_writes_none(place: Place) -> None:
    await place.put()
    (asset,) = await place.pushed()
    device = await place.bus.device("pi-2")
    key = chunk_key(asset, 0)
    found = await device.bucket("assets").get(key)
    assert found is not None
    assert content(1)[:64] not in found.value
    assert asset.sha256[:32] not in key
    for refused in (f"$KV.assets.{key}", "$JS.API.STREAM.INFO.KV_assets"):
        await device.client.publish(refused, b"")
    await device.client.flush()
    await device.client.flush()
    assert len(device.refusals) == 2, device.refusals


async def test_what_no_manifest_names_goes_by_prune_once_it_is_a_day_old(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.put()
    (kept,) = await place.pushed()
    found = await list_assets(place.bus.home, place.bus.admin)
    assert [(each.id, each.needed_by, each.names) for each in found] == [
        (asset_id(kept), ("pi-1",), ("model.bin",))
    ]
    stray = Asset(sha256="ab" * 32, size_bytes=1, name="stray", key="cd" * 32)
    await place.bus.bucket("assets").put(chunk_key(stray, 0), b"x")
    said = await harmony(place.bus.home, "assets", "prune", "--yes")
    assert "0 assets of 2 removed" in said.out
    assert "1 younger than a day" in said.out
    monkeypatch.setattr(stored, "_YOUNG_S", 0.0)
    found = await list_assets(place.bus.home, place.bus.admin)
    assert [each.id for each in await prune(place.bus.admin, found)] == [asset_id(stray)]
    said = await harmony(place.bus.home, "assets", "list", "--json")
    assert [each["asset"] for each in said.documents] == [asset_id(kept)]


async def test_prune_removes_nothing_where_a_manifest_cannot_be_read(place: Place) -> None:
    await place.put()
    await place.bus.bucket("desired-state").put("pi-2", b"{}")
    said = await harmony(place.bus.home, "assets", "prune", "--yes")
    assert said.status == 4, said
    assert "a manifest of pi-2 cannot be read" in said.err


async def test_another_operator_who_pushes_the_same_file_wishes_the_same(place: Place) -> None:
    await place.put()
    before = await place.pushed()
    place.bus.home.asset_key.unlink()
    await place.put()
    assert await place.pushed() == before


async def test_one_copy_does_for_all_devices(place: Place) -> None:
    await place.put()
    await place.put("pi-2")
    (found,) = await list_assets(place.bus.home, place.bus.admin)
    assert found.needed_by == ("pi-1", "pi-2")
    assert found.pieces == frozenset(range(PIECES))


async def test_a_full_bucket_is_told_and_nothing_is_pushed(place: Place) -> None:
    config = (await JetStreamContext(place.bus.admin).stream_info("KV_assets")).config
    smaller = json.dumps(replace(config, max_bytes=CHUNK_BYTES).as_dict()).encode()
    await place.bus.admin.request("$JS.API.STREAM.UPDATE.KV_assets", smaller)
    with pytest.raises(StoreError, match=r"the bucket for assets is full.*harmony assets prune"):
        await place.put()
    assert await place.bus.bucket("desired-state").get("pi-1") is None


async def test_an_agent_that_starts_anew_needs_no_server_for_what_it_has_kept(
    place: Place,
) -> None:
    rig = Rig(place.bus, place.root / "process", operator_key.load(place.bus.home), FakeFiles())
    rig.root.mkdir()
    await place.put()
    async with process(rig) as agent:
        target = agent.root / "srv/model.bin"
        await place.until_written(target)
    assert target.read_bytes() == content(1)
    target.unlink()
    (asset,) = await place.pushed()
    assert await remove(place.bus.admin, asset_id(asset)) == PIECES
    async with process(rig):
        await place.until_written(target)
    assert target.read_bytes() == content(1)


async def test_a_class_has_assets_too(place: Place) -> None:
    async with place.device():
        said = await harmony(place.bus.home, "label", "pi-1", "role=vision", "--no-wait")
        assert said.status == 0, said
        file = place.root / "scores.yaml"
        file.write_text(SCORE)
        to_class = ("push-score", "--class", "vision", "--selector", "role=vision")
        said = await harmony(place.bus.home, *to_class, str(file))
        assert said.status == 0, said
        assert place.target.read_bytes() == content(1)
    (found,) = await list_assets(place.bus.home, place.bus.admin)
    assert found.needed_by == ("class vision",)


def test_what_another_operator_has_pushed_differs_by_its_content_alone() -> None:
    def entry(**asset: object) -> dict[str, SerializedScore]:
        fields = {"sha256": "ab" * 32, "size_bytes": 1, "name": "model.bin", **asset}
        score = FileScore(path="/srv/model.bin", asset=Asset.model_validate(fields))
        return {"model": serialize("model", Entry(score))}

    theirs = entry(key="cd" * 32)
    assert not Difference.between(theirs, entry())
    assert not Difference.between(theirs, entry(key="ef" * 32))
    assert Difference.between(theirs, entry(sha256="ac" * 32)).changed == ["model"]


async def test_what_nothing_in_force_needs_is_collected_on_the_device(place: Place) -> None:
    async with place.device():
        assert (await place.push()).status == 0
        assert len([*place.cache.iterdir()]) == 1
        said = await harmony(place.bus.home, "remove-score", "pi-1", "model")
        assert said.status == 0, said
        async with asyncio.timeout(10):
            while [*place.cache.iterdir()]:
                await asyncio.sleep(0.05)


async def test_a_file_that_was_changed_meanwhile_is_not_pushed(
    place: Place, tmp_path: Path
) -> None:
    file, whole = tmp_path / "model.bin", content(1)
    file.write_bytes(whole)
    keyed = local.read_asset(file).model_copy(update={"key": "00" * 32})
    torn = (content(2), whole[: CHUNK_BYTES + 5], whole[:CHUNK_BYTES], b"", whole + b"more")
    for changed in torn:
        file.write_bytes(changed)
        with pytest.raises(ScoreFileError, match="was changed while it was being pushed"):
            await upload(place.bus.admin, [keyed], [])
        for number in await list_stored(place.bus.admin, asset_id(keyed)):
            found = await place.bus.bucket("assets").get(chunk_key(keyed, number))
            assert found is not None
            start = number * CHUNK_BYTES
            assert open_chunk(keyed, number, found.value) == whole[start : start + CHUNK_BYTES]
    file.write_bytes(whole)
    await upload(place.bus.admin, [keyed], [])
    assert await list_stored(place.bus.admin, asset_id(keyed)) == {*range(PIECES)}
