"""An image in an archive, on the operator's side: what is read of it, what is refused, and what is pushed."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import tarfile
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_control.assets import read_image
from harmony_control.assets.image import PLATFORMS_READ
from harmony_control.assets.stored import list_assets
from harmony_control.assets.upload import list_stored
from harmony_control.bundle.collect import collect
from harmony_control.fleet import Fleet
from harmony_control.push.entries import serialize
from harmony_control.push.platforms import refuse_other_platforms
from harmony_control.score_files.read import read_score_files
from harmony_control.score_files.schema import score_file_schema
from harmony_core import plugins
from harmony_core.errors import HarmonyError, MissingCapability, ScoreFileError
from harmony_core.images import parse_image
from harmony_core.resources import ASSET_MAX_BYTES, Asset, Container, ImageBlob
from harmony_core.wire.assets import asset_id, chunk_count, find_assets, map_assets
from harmony_core.wire.envelope import PAYLOAD_TYPE, split_envelope
from harmony_scores import ContainerScore, FileScore
from tests.archives import INDEX, LAYER, MANIFEST, Archive, called, digest_of, layer_of, write_tar
from tests.nats import Bus, serving

from .scripted_device import ScriptedDevice

REGISTRY = plugins.load()
LAYERS = (layer_of({"bin/one": b"1"}), layer_of({"bin/two": b"2"}))
NAMED = called("localhost/app:1")


def write(path: Path, members: Mapping[str, bytes]) -> Path:
    return write_tar(path / "app.tar", members)


def an_image(**more: Any) -> tuple[Archive, dict[str, Any]]:
    archive = Archive()
    return archive, archive.add_image(*LAYERS, **{**NAMED, **more})


def refused(path: Path) -> str:
    with pytest.raises(ScoreFileError) as caught:
        read_image(path)
    assert str(path) in caught.value.message
    return caught.value.message


def test_an_image_is_named_by_the_digest_of_its_manifest_and_consists_of_all_that_it_names(
    tmp_path: Path,
) -> None:
    archive, entry = an_image()
    found = read_image(write(tmp_path, archive.members(entry)))
    assert found.image == f"localhost/app:1@{entry['digest']}"
    assert found.platforms == PLATFORMS_READ[entry["digest"]]
    assert found.blobs[0].digest == entry["digest"]
    assert {each.digest: each.size_bytes for each in found.blobs} == {
        digest: len(content) for digest, content in archive.blobs.items()
    }
    assert [each.name for each in found.blobs] == [
        "app:1: the image's manifest",
        "app:1: the configuration",
        "app:1: layer 1 of 2",
        "app:1: layer 2 of 2",
    ]


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({}, "localhost/my-app@"),
        ({"org.opencontainers.image.ref.name": "2"}, "localhost/my-app:2@"),
        ({"org.opencontainers.image.ref.name": "localhost/app:1"}, "localhost/app:1@"),
        ({"org.opencontainers.image.ref.name": "ghcr.io/acme/app:1"}, "localhost/app:1@"),
        ({"org.opencontainers.image.ref.name": "${labels.site}"}, "localhost/my-app@"),
        (
            {
                "io.containerd.image.name": "docker.io/library/web:3",
                "org.opencontainers.image.ref.name": "3",
            },
            "localhost/web:3@",
        ),
        ({"io.containerd.image.name": 7}, "localhost/my-app@"),
    ],
)
def test_it_is_called_as_its_archive_calls_it_and_its_registry_is_not_kept(
    tmp_path: Path, annotations: dict[str, Any], name: str
) -> None:
    archive, entry = an_image(annotations=annotations)
    path = write_tar(tmp_path / "My-App.tar", archive.members(entry))
    image = read_image(path).image
    assert image == f"{name}{entry['digest']}"
    assert parse_image(image).registry == "localhost"


def test_what_names_the_same_image_twice_is_one(tmp_path: Path) -> None:
    """So Docker saves an image with two tags."""
    archive, entry = an_image()
    path = write(tmp_path, archive.members(entry, {**entry, **called("localhost/app:2")}))
    assert read_image(path).image.startswith("localhost/app:1@")


def test_an_index_brings_every_platform_that_is_there(tmp_path: Path) -> None:
    archive = Archive()
    ours = archive.add_image(LAYERS[0], architecture="arm64")
    theirs = archive.add_image(LAYERS[1], architecture="amd64")
    absent = {**ours, "digest": f"sha256:{'0' * 64}", "platform": {"os": "linux"}}
    attested = archive.add_json({}, MANIFEST, platform={"os": "unknown", "architecture": "unknown"})
    entry = archive.add_index(ours, absent, theirs, attested, **NAMED)
    found = read_image(write(tmp_path, archive.members(entry)))
    assert found.platforms == {"linux/arm64", "linux/amd64"}
    assert {each.digest for each in found.blobs} == archive.blobs.keys() - {attested["digest"]}


def _without(archive: Archive, entry: dict[str, Any], media_type: str) -> dict[str, bytes]:
    manifest = json.loads(archive.blobs[entry["digest"]])
    named = manifest["layers"][1] if media_type == LAYER else manifest["config"]
    members = archive.members(entry)
    del members[f"blobs/sha256/{named['digest'][7:]}"]
    return members


def _damaged(
    archive: Archive, entry: dict[str, Any], by: Callable[[bytes], bytes]
) -> dict[str, bytes]:
    manifest = json.loads(archive.blobs[entry["digest"]])
    name = f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
    members = archive.members(entry)
    return {**members, name: by(members[name])}


def _of(content: object, media_type: str = MANIFEST) -> dict[str, bytes]:
    """An archive whose one image has this as its manifest."""
    archive = Archive()
    return archive.members(archive.add_json(content, media_type))


def _in_two_indexes() -> dict[str, bytes]:
    archive = Archive()
    inner = archive.add_index(archive.add_image(*LAYERS))
    return archive.members(archive.add_index(inner))


def _several() -> dict[str, bytes]:
    archive = Archive()
    first = archive.add_image(LAYERS[0], **called("localhost/a:1"))
    return archive.members(first, archive.add_image(LAYERS[1], **called("localhost/b:1")))


def _without_layers() -> dict[str, bytes]:
    archive = Archive()
    config = archive.add_json({}, "")
    return archive.members(archive.add_json({"config": config, "layers": "none"}, MANIFEST))


def _changed(**fields: Any) -> dict[str, bytes]:
    """An archive of an image whose manifest has these fields, too."""
    archive, entry = an_image()
    manifest = json.loads(archive.blobs[entry["digest"]])
    return archive.members(archive.add_json({**manifest, **fields}, MANIFEST))


def _layers() -> list[dict[str, Any]]:
    archive, entry = an_image()
    found: list[dict[str, Any]] = json.loads(archive.blobs[entry["digest"]])["layers"]
    return found


def _elsewhere(key: str = "urls") -> dict[str, bytes]:
    first, *others = _layers()
    return _changed(layers=[{**first, key: ["http://10.0.0.1/layer"]}, *others])


def _with_index_elsewhere() -> dict[str, bytes]:
    archive, entry = an_image()
    return archive.members(archive.add_index({**entry, "urls": ["http://10.0.0.1/manifest"]}))


def _long_names() -> dict[str, bytes]:
    archive = Archive()
    return archive.members(*(archive.add_image(each, **called("x" * 1_000_000)) for each in LAYERS))


REFUSED: Mapping[str, tuple[Callable[[], Mapping[str, bytes]], str]] = {
    "Docker's older format": (
        lambda: {"manifest.json": b"[]", "repositories": b"{}"},
        "docker save of Docker 25 or newer; or make another of it: skopeo copy docker-archive:",
    ),
    "no archive of an image": (
        lambda: {"README.md": b"hello"},
        "is no archive of an image, since it has no index.json; podman save --format oci-archive",
    ),
    "no layout": (
        lambda: {"index.json": b'{"manifests": []}'},
        "is no archive of an image, since it has no index.json",
    ),
    "another layout": (
        lambda: {**Archive().members(), "oci-layout": b'{"imageLayoutVersion": "2.0.0"}'},
        "has the layout '2.0.0', and 1.0.0 is known",
    ),
    "no image": (lambda: Archive().members(), "has no image in it"),
    "manifests that are none": (
        lambda: {**Archive().members(), "index.json": b'{"manifests": [1, "a", []]}'},
        "has no image in it",
    ),
    "several images": (
        _several,
        "has several images: 'localhost/a:1', 'localhost/b:1'; save one alone",
    ),
    "a missing layer": (
        lambda: _without(*an_image(), LAYER),
        "is not whole: layer 2 of 2, sha256:",
    ),
    "a missing configuration": (
        lambda: _without(*an_image(), ""),
        "is not whole: the configuration, sha256:",
    ),
    "another content": (
        lambda: _damaged(*an_image(), lambda layer: bytes(len(layer))),
        "is damaged: layer 1 of 2 is not sha256:",
    ),
    "another size": (
        lambda: _damaged(*an_image(), lambda layer: layer + b"0"),
        "is damaged: layer 1 of 2 has",
    ),
    "a digest of another kind": (
        lambda: _of({"config": {"digest": f"sha512:{'0' * 128}", "size": 1}, "layers": []}),
        "names the configuration by no SHA-256",
    ),
    "a digest that is a path": (
        lambda: _of({"config": {"digest": "sha256:../../../etc/passwd", "size": 1}}),
        "names the configuration by no SHA-256",
    ),
    "no configuration": (lambda: _of({"layers": []}), "names the configuration by no SHA-256"),
    "no layers": (_without_layers, "has an image without layers"),
    "an index of nothing": (
        lambda: _of({"manifests": []}, INDEX),
        "the image of none of its platforms",
    ),
    "an index within an index": (_in_two_indexes, "has an index within an index"),
    "an index of very many": (
        lambda: _of({"manifests": [{"digest": digest_of(b"x")}] * 33}, INDEX),
        "is for more than 32 platforms",
    ),
    "a layer that is elsewhere": (
        _elsewhere,
        "with urls: parts of its image are to be fetched from elsewhere",
    ),
    "a layer that is elsewhere, for those who look at no capitals": (
        lambda: _elsewhere("URL\u017f"),
        "with urls: parts of its image are to be fetched from elsewhere",
    ),
    "a manifest that is elsewhere": (
        _with_index_elsewhere,
        "with urls: parts of its image are to be fetched from elsewhere",
    ),
    "a layer that is nothing": (
        lambda: _changed(layers=[*_layers(), None]),
        "names layer 3 of 3 by no SHA-256",
    ),
    "a layer that is a number": (
        lambda: _changed(layers=[1]),
        "names layer 1 of 1 by no SHA-256",
    ),
    "names that fill no screen": (
        _long_names,
        f"has several images: {'x' * 100!r}, {'x' * 100!r};",
    ),
    "no JSON": (
        lambda: {**Archive().members(), "index.json": b"{"},
        "has a index.json that is no JSON",
    ),
    "JSON that is deep": (
        lambda: {**Archive().members(), "index.json": b"[" * 100_000},
        "has a index.json that is no JSON",
    ),
    "JSON that is no object": (
        lambda: {**Archive().members(), "index.json": b"[]"},
        "has a index.json that is none of an image",
    ),
    "a gigantic index": (
        lambda: {**Archive().members(), "index.json": b" " * (4 * 1024 * 1024 + 1)},
        "has a index.json of 4194305 bytes",
    ),
    "very many files": (
        lambda: {**{f"{each}": b"" for each in range(10_001)}, **Archive().members()},
        "has more than 10000 files",
    ),
}


@pytest.mark.parametrize(("members", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_whole_image_is_refused_by_name(
    tmp_path: Path, members: Callable[[], Mapping[str, bytes]], told: str
) -> None:
    assert told in refused(write(tmp_path, members()))


def test_what_is_no_archive_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    path.write_bytes(b"hello" * 1000)
    assert "is no archive of an image" in refused(path)
    path.write_bytes(b"")
    assert "is no archive of an image" in refused(path)
    for begin, program in ((b"\x1f\x8b\x08\x00", "gunzip"), (b"\x28\xb5\x2f\xfd", "unzstd")):
        path.write_bytes(begin + b"rest")
        told = f"is compressed; name the archive itself, unpacked: {program} {path}"
        assert told in refused(path)
    path.unlink()
    assert "cannot be read: No such file or directory; is it there?" in refused(path)
    path.mkdir()
    assert "is a directory; name an archive: podman save --format oci-archive" in refused(path)
    (path / "oci-layout").touch()
    assert f"is a directory; pack it, and name that: tar -cf app.tar.tar -C {path} ." in refused(
        path
    )


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_a_member_that_is_no_plain_file_is_as_if_it_was_not_there(
    tmp_path: Path, kind: bytes
) -> None:
    """A link in the place of a layer leads to no file of this machine."""
    archive, entry = an_image()
    members = archive.members(entry)
    name = next(
        each for each in members if each.startswith("blobs/") and each[13:] not in entry["digest"]
    )
    content = members.pop(name)
    (tmp_path / "secret").write_bytes(content)
    path = write(tmp_path, members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname, link.size = kind, str(tmp_path / "secret"), 0
        tar.addfile(link)
    assert "is not whole" in refused(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    archive, entry = an_image()
    path = write(tmp_path, archive.members(entry))
    with tarfile.open(path, "a") as tar:
        again = tarfile.TarInfo("./index.json")
        again.size = 2
        tar.addfile(again, io.BytesIO(b"{}"))
    assert "has two files 'index.json'" in refused(path)


@pytest.mark.parametrize("kind", [["x"], {}, {"a": 1}, 7])
def test_a_kind_that_is_no_text_says_nothing(tmp_path: Path, kind: object) -> None:
    assert len(read_image(write(tmp_path, _changed(mediaType=kind))).blobs) == 4
    archive, entry = an_image()
    found = read_image(write(tmp_path, archive.members({**entry, "mediaType": kind})))
    assert found.image == f"localhost/app:1@{entry['digest']}"


def test_what_is_only_called_urls_is_none(tmp_path: Path) -> None:
    members = _changed(annotations={"urls": "http://here"}, subject={"urls": []})
    assert len(read_image(write(tmp_path, members)).blobs) == 4


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_an_archive_is_refused_or_makes_no_difference(
    data: st.DataObject,
) -> None:
    """No byte of it can be another without being told, and nothing but our own error comes of any."""
    archive, entry = an_image()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in archive.members(entry).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    raw = bytearray(whole.getvalue())
    at = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(at + 1, min(at + 600, len(raw))))
    raw[at:end] = data.draw(st.binary(min_size=end - at, max_size=end - at))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "app.tar"
        path.write_bytes(raw)
        try:
            found = read_image(path)
        except ScoreFileError:
            return
    assert {each.digest for each in found.blobs} <= archive.blobs.keys()


def test_a_score_file_names_the_archive(tmp_path: Path) -> None:
    archive, entry = an_image()
    write(tmp_path, archive.members(entry))
    score = read(tmp_path, {"name": "app", "image_from": "./app.tar"})
    found = read_image(tmp_path / "app.tar")
    assert score == ContainerScore(name="app", image=found.image, image_blobs=found.blobs)
    with pytest.raises(ScoreFileError, match="image_from: image is given, too; remove one of them"):
        read(tmp_path, {"name": "app", "image_from": "./app.tar", "image": found.image})
    with pytest.raises(ScoreFileError, match=r"image_from: .*none\.tar cannot be read"):
        read(tmp_path, {"name": "app", "image_from": "./none.tar"})
    with pytest.raises(ScoreFileError, match="image_from: write the path of a file"):
        read(tmp_path, {"name": "app", "image_from": 7})


def read(folder: Path, spec: dict[str, Any]) -> Any:
    file = folder / "scores.json"
    file.write_text(json.dumps([{"id": "app", "kind": "ContainerScore", "spec": spec}]))
    return read_score_files([str(file)], REGISTRY)["app"].score


def test_an_editor_knows_the_field() -> None:
    schema = score_file_schema([ContainerScore])
    spec = schema["$defs"]["ContainerScore"]
    assert "archive" in spec["properties"]["image_from"]["description"]
    assert "image" not in spec["required"]


BLOB = ImageBlob(sha256="1" * 64, size_bytes=7, name="app: the image's manifest")
IMAGE = f"localhost/app:1@sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"image": f"ghcr.io/acme/app@sha256:{'1' * 64}"},
            "image_blobs: an image of ghcr.io comes from",
        ),
        ({"image": "localhost/app:1"}, "image_blobs: they are another image's"),
        ({"image": f"localhost/app@sha256:{'2' * 64}"}, "image_blobs: they are another image's"),
        (
            {"login": {"username": "me", "password": "${secret.p}"}},
            "login: what comes from an archive",
        ),
    ],
)
def test_its_image_is_the_one_that_its_parts_are_of(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ContainerScore.model_validate(
            {"name": "app", "image": IMAGE, "image_blobs": [BLOB], **fields}
        )


def test_a_score_without_one_says_nothing_of_it_so_that_older_agents_know_it() -> None:
    score = ContainerScore(name="app", image="ghcr.io/acme/app:1")
    assert "image_blobs" not in score.model_dump(mode="json")
    made = Container(name="app", image=IMAGE, image_blobs=(BLOB,))
    assert made.spec_hash != Container(name="app", image=IMAGE).spec_hash


def test_a_layer_may_be_larger_than_a_file_and_is_an_asset_all_the_same() -> None:
    layer = ImageBlob(
        sha256="3" * 64, size_bytes=ASSET_MAX_BYTES + 1, name="app: layer 1 of 1", key="4" * 64
    )
    spec = {"image_blobs": [layer.model_dump(mode="json"), BLOB.model_dump(mode="json")]}
    found = [*find_assets(spec)]
    assert [each.sha256 for each in found] == ["3" * 64, "1" * 64]
    assert map_assets(spec, lambda asset: asset) == spec
    with pytest.raises(ValueError, match="size_bytes"):
        FileScore.model_validate({"path": "/srv/x", "asset": layer.model_dump(mode="json")})


def test_an_image_for_another_processor_is_refused_before_it_is_pushed(tmp_path: Path) -> None:
    archive, entry = an_image(architecture="amd64")
    write(tmp_path, archive.members(entry))
    score = read(tmp_path, {"name": "app", "image_from": "./app.tar"})
    entries = {
        "app": serialize("app", read_score_files([str(tmp_path / "scores.json")], REGISTRY)["app"])
    }
    assert score.image.startswith("localhost/app:1@")
    with pytest.raises(MissingCapability) as caught:
        refuse_other_platforms("pi-1", "aarch64", entries)
    assert "app: its image is made for linux/amd64, and pi-1 is linux/arm64" in caught.value.message
    assert "podman build --platform linux/arm64" in caught.value.message
    refuse_other_platforms("pi-1", "x86_64", entries)
    refuse_other_platforms("pi-1", "another", entries)


@attrs.frozen
class Place:
    bus: Bus
    root: Path

    def write(self, *layers: bytes) -> tuple[ImageBlob, ...]:
        archive = Archive()
        write(self.root, archive.members(archive.add_image(*layers, **NAMED)))
        file = self.root / "app.json"
        spec = {"name": "app", "image_from": "./app.tar"}
        file.write_text(json.dumps([{"id": "app", "kind": "ContainerScore", "spec": spec}]))
        return read_image(self.root / "app.tar").blobs

    async def put(
        self, agent_id: str = "pi-1", *, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        entries = read_score_files([str(self.root / "app.json")], REGISTRY)
        meanwhile()
        async with Fleet.connect(self.bus.home) as fleet:
            await fleet.device(agent_id).put(entries)

    async def pushed(self, agent_id: str = "pi-1") -> list[Asset]:
        found = await self.bus.bucket("desired-state").get(agent_id)
        assert found is not None
        payload, _ = split_envelope(found.value, payload_type=PAYLOAD_TYPE)
        return [*find_assets(json.loads(payload))]

    async def stored(self) -> int:
        return sum(len(each.pieces) for each in await list_assets(self.bus.home, self.bus.admin))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        yield Place(bus, tmp_path)


def a_large_layer(seed: int) -> bytes:
    return layer_of({"ballast": random.Random(seed).randbytes(700_000)})


async def test_what_is_on_the_server_already_is_not_put_there_again(place: Place) -> None:
    blobs = place.write(a_large_layer(1))
    await place.put()
    pieces = sum(map(chunk_count, blobs))
    assert await place.stored() == pieces
    assert [each.sha256 for each in await place.pushed()] == [each.sha256 for each in blobs]
    await place.put("pi-2")
    assert await place.stored() == pieces

    more = place.write(a_large_layer(1), LAYERS[0])
    await place.put()
    assert await place.stored() == pieces + 3  # the manifest, the configuration, the new layer
    layer = {each.sha256: each.key for each in await place.pushed()}[blobs[2].sha256]
    assert layer == {each.sha256: each.key for each in await place.pushed("pi-2")}[blobs[2].sha256]
    assert len(more) == 4
    found = await list_assets(place.bus.home, place.bus.admin)
    assert all(each.needed_by for each in found)


@pytest.mark.parametrize("upto", [None, [("no wave", 0)]])
async def test_what_a_class_is_refused_is_not_put_on_the_server(
    place: Place, upto: list[tuple[str, int]] | None
) -> None:
    """Its device has another processor, or its waves are none."""
    pi = ScriptedDevice(await place.bus.device("pi-1"))
    await pi.report(pi.state(0))
    await pi.tell_inventory(architecture="riscv64" if upto is None else platform.machine())
    place.write(a_large_layer(1))
    entries = read_score_files([str(place.root / "app.json")], REGISTRY)
    async with Fleet.connect(place.bus.home) as fleet:
        with pytest.raises(HarmonyError, match=r"pi-1 is linux/riscv64|no wave"):
            await fleet.push_class("all", entries, selector="!role", upto=upto)
        assert await place.stored() == 0
        await pi.tell_inventory(architecture=platform.machine())
        await fleet.push_class("all", entries, selector="!role")
    assert await place.stored() > 0


async def test_an_archive_that_changes_while_it_is_pushed_is_told_and_nothing_is_signed(
    place: Place,
) -> None:
    blobs = place.write(a_large_layer(1))
    with pytest.raises(ScoreFileError, match="was changed while it was being pushed; push again"):
        await place.put(meanwhile=lambda: place.write(a_large_layer(2)))
    assert await place.bus.bucket("desired-state").get("pi-1") is None
    place.write(a_large_layer(1))
    await place.put()
    for each in await place.pushed():
        assert await list_stored(place.bus.admin, asset_id(each)) == {*range(chunk_count(each))}
    assert len(blobs) == 3


async def test_a_bundle_asks_no_registry_for_it(place: Place) -> None:
    blobs = place.write(a_large_layer(1))
    await place.put()
    contents = await collect(place.bus.home, place.bus.admin, "pi-1")
    assert contents.images == {}
    assert contents.warnings == ()
    assert {each.sha256 for each in contents.assets} == {each.sha256 for each in blobs}


async def test_what_is_in_force_keeps_its_keys(place: Place) -> None:
    place.write(a_large_layer(1))
    await place.put()
    before = await place.pushed()
    place.bus.home.asset_key.unlink()  # as another operator's
    await place.put()
    assert await place.pushed() == before


def test_its_hash_is_that_of_the_file_in_the_archive(tmp_path: Path) -> None:
    archive, entry = an_image()
    path = write(tmp_path, archive.members(entry))
    with tarfile.open(path) as tar:
        for each in read_image(path).blobs:
            file = tar.extractfile(f"blobs/sha256/{each.sha256}")
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == each.sha256
