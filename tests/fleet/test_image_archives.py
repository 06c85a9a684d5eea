"""Images from archives: saved by podman on one machine, pushed, and run by another's. No registry."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from nats.aio.msg import Msg

from harmony_control.assets import read_image
from harmony_control.bus.connection import Bucket, admin
from harmony_control.device import Device
from harmony_core.outcome import Failure, Running
from harmony_core.resources import ImageBlob
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.assets import chunk_count
from harmony_core.wire.names import ASSETS
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore
from tests.archives import MANIFEST, Archive, busybox_layer, called, layer_of, write_tar
from tests.box import Bed, Box
from tests.fleet.ground import (
    AGENT,
    SERVE,
    ControlPlane,
    Host,
    Said,
    heard_again,
    in_shell,
    until,
)
from tests.fleet.test_bundles_in_box import images, load

Pi: TypeAlias = Device[PiTopology]

ASKED = "$JS.API.DIRECT.GET.KV_assets.$KV.assets."
BALLAST_BYTES = 24_000_000
"""So much that it can be cut on its way."""
CACHE = "/var/lib/harmony/assets"
CONTAINERFILE = """\
FROM {image}
COPY page /www/index.html
"""


@pytest.fixture(scope="module")
def laptop(boot: Callable[[], Box]) -> Box:
    """Where images are built: a box without an agent."""
    return boot()


@attrs.define
class Asked:
    """The pieces for which devices have asked the server, in order."""

    keys: list[str] = attrs.Factory(list[str])
    news: asyncio.Event = attrs.Factory(asyncio.Event)

    async def note(self, message: Msg) -> None:
        self.keys.append(message.subject.removeprefix(ASKED))
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.keys) < count:
                self.news.clear()
                await self.news.wait()

    @property
    def is_each_once(self) -> bool:
        return len(set(self.keys)) == len(self.keys)


@pytest.fixture
async def asked(plane: ControlPlane) -> AsyncGenerator[Asked]:
    found = Asked()
    async with admin(plane.home) as client:
        await client.subscribe(f"{ASKED}>", cb=found.note)  # pyright: ignore[reportUnknownMemberType] - half typed there
        await client.flush()
        yield found


@attrs.frozen
class Ground:
    """A device, and a directory with an archive and a Score file of it."""

    plane: ControlPlane
    device: Pi
    pi: Box
    host: Host
    directory: Path

    def write(self, members: dict[str, bytes], **fields: Any) -> tuple[ImageBlob, ...]:
        """Have them be the archive; what the image consists of."""
        write_tar(self.directory / "app.tar", members)
        self.write_score(**fields)
        return read_image(self.directory / "app.tar").blobs

    def write_score(self, **fields: Any) -> None:
        quick = {"settle_s": 0.5, "stop_timeout_s": 0}
        spec = {"name": "app", "image_from": "./app.tar", **quick, **fields}
        file = self.directory / "app.json"
        file.write_text(json.dumps([{"id": "app", "kind": "ContainerScore", "spec": spec}]))

    async def push(self, *more: str, ends: int = 0) -> Said:
        said = await self.plane.harmony(
            "push-score", self.pi.name, str(self.directory / "app.json"), *more
        )
        assert said.status == ends, (said, self.pi.journal(AGENT)[-6000:])
        return said

    async def stored(self) -> int:
        """How many pieces the server has."""
        said = await self.plane.harmony("assets", "list", "--json")
        return sum(each["pieces"] for each in said.documents)

    def runs(self) -> bool:
        found = self.host.container("app")
        return found is not None and found["State"]["Status"] == "running"

    def page(self) -> str:
        return self.pi.text("podman", "exec", "app", "cat", "/www/index.html")

    def kept(self) -> list[str]:
        """What the agent keeps of assets."""
        return sorted(each.name for each in (self.pi.root / CACHE.lstrip("/")).iterdir())

    @asynccontextmanager
    async def without_network(self) -> AsyncGenerator[None]:
        self.pi.cut_network()
        try:
            yield
        finally:
            self.pi.restore_network()
        await heard_again(self.device)


@pytest.fixture
def ground(device: Pi, plane: ControlPlane, pi: Box, host: Host, tmp_path: Path) -> Ground:
    return Ground(plane, device, pi, host, tmp_path)


@pytest.fixture
def busybox(pi: Box) -> bytes:
    return busybox_layer(pi.root / "usr/bin/busybox")


def image_of(*layers: bytes, name: str = "localhost/app:1") -> dict[str, bytes]:
    archive = Archive()
    return archive.members(archive.add_image(*layers, command=in_shell(SERVE), **called(name)))


def large() -> bytes:
    """A layer that takes a while to come."""
    return layer_of({"ballast": os.urandom(BALLAST_BYTES)})


def stored(pi: Box, what: str) -> list[dict[str, Any]]:
    """The images or the layers, as podman has written them down: also while it is busy."""
    listed = pi.root / f"var/lib/containers/storage/overlay-{what}/{what}.json"
    try:
        return list(json.loads(listed.read_text()))
    except (OSError, ValueError):
        return []


def stored_names(pi: Box) -> list[str]:
    return [name for each in stored(pi, "images") for name in each.get("names") or ()]


@attrs.define
class Elsewhere:
    """A web server that a device reaches, and should not be asked by."""

    port: int = 0
    asked: int = 0

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None]:
        server = await asyncio.start_server(self._answer, "0.0.0.0", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.close()


def message_of(state: ActualState) -> str:
    match state.scores["app"].outcome if "app" in state.scores else None:
        case Failure() as failure:
            return f"{failure.error.code}: {failure.error.message}"
        case Running() as running:
            return running.message
        case _:
            return ""


def succeeded(state: ActualState) -> bool:
    return "app" in state.scores and state.scores["app"].outcome.status == "SUCCESS"


def build(laptop: Box, base: str, page: str, archive: Path) -> None:
    """As the documentation says it."""
    laptop.write("/root/app/Containerfile", CONTAINERFILE.format(image=base))
    laptop.write("/root/app/page", page)
    laptop.run(["podman", "build", "-q", "-t", "localhost/app:1", "/root/app"])
    laptop.run(["rm", "-f", "/root/app.tar"])
    save = ["podman", "save", "-q", "--format", "oci-archive", "-o", "/root/app.tar"]
    laptop.run([*save, "localhost/app:1"])
    archive.write_bytes(laptop.read("/root/app.tar"))


async def test_what_podman_builds_runs_and_a_new_version_brings_its_new_layer_alone(
    ground: Ground, bed: Bed, laptop: Box, asked: Asked, tmp_path: Path
) -> None:
    base = bed.registry.push_busybox("base", "1", command=in_shell(SERVE), ballast_bytes=2_000_000)
    build(laptop, base, "one\n", tmp_path / "app.tar")
    ground.write_score()
    first = read_image(tmp_path / "app.tar")
    said = await ground.push()
    assert "SUCCESS" in said.out
    assert ground.page() == "one"
    name, _, digest = first.image.partition(":1@")
    assert images(ground.pi) == [f"{name}:harmony-{digest[7:39]}"]
    assert ground.pi.run(["podman", "image", "exists", f"{name}@{digest}"]).returncode == 0
    # Nothing of it takes its room twice.
    assert ground.kept() == []
    assert len(asked.keys) == sum(map(chunk_count, first.blobs)) == await ground.stored()
    assert asked.is_each_once
    assert "unchanged" in (await ground.push()).out

    asked.keys.clear()
    before = await ground.stored()
    build(laptop, base, "two\n", tmp_path / "app.tar")
    second = read_image(tmp_path / "app.tar")
    new = [each for each in second.blobs if each not in first.blobs]
    assert [each.name for each in new] == [
        "app:1: the image's manifest",
        "app:1: the configuration",
        "app:1: layer 2 of 2",
    ]
    told = await ground.plane.harmony("diff", ground.pi.name, str(ground.directory / "app.json"))
    assert "~ container:app  pulled, recreated: image changed, started" in told.out, told
    await ground.push()
    assert ground.page() == "two"
    assert ground.kept() == []
    assert len(asked.keys) == len(new) == await ground.stored() - before
    assert len(images(ground.pi)) == 2  # the older one is kept to go back to

    await ground.device.remove("app")
    assert images(ground.pi) == []
    assert ground.kept() == []


async def test_what_is_cut_waits_and_says_so_and_goes_on_where_it_was(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    blobs = ground.write(image_of(busybox, large()))
    await ground.push("--no-wait")
    await asked.until(20)
    async with ground.without_network():
        await asyncio.sleep(0)
        assert not ground.runs()
        assert [each.endswith(".part") for each in ground.kept()].count(True) == 1
    await until(ground.device, succeeded)
    assert ground.runs()
    assert ground.kept() == []
    # One may have been asked for as the cable was pulled.
    assert len(asked.keys) <= sum(map(chunk_count, blobs)) + 1


async def test_an_agent_that_is_killed_meanwhile_goes_on_where_it_was(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    blobs = ground.write(image_of(busybox, large()))
    await ground.push("--no-wait")
    await asked.until(20)
    ground.pi.run(["systemctl", "kill", "-s", "KILL", AGENT])
    await until(ground.device, succeeded)
    assert ground.runs()
    assert ground.kept() == []
    assert len(asked.keys) <= sum(map(chunk_count, blobs)) + 1


async def test_what_was_kept_as_the_agent_ended_goes_at_the_next_look(
    ground: Ground, busybox: bytes
) -> None:
    blobs = ground.write(image_of(busybox))
    await ground.push()
    ground.pi.run(["systemctl", "stop", AGENT])
    for each in blobs:
        ground.pi.write(f"{CACHE}/{each.sha256}", b"x" * each.size_bytes)
    ground.pi.run(["systemctl", "start", AGENT])
    await heard_again(ground.device)
    async with asyncio.timeout(30):
        while ground.kept():
            await asyncio.sleep(0.1)
    assert ground.runs()


async def test_an_image_that_somebody_removed_comes_anew_once_the_server_is_reached(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    blobs = ground.write(image_of(busybox))
    await ground.push()
    ground.pi.run(["podman", "rmi", "-f", "-a"])
    await until(ground.device, lambda _: ground.runs())
    assert len(asked.keys) == 2 * sum(map(chunk_count, blobs))

    async with ground.without_network():
        ground.pi.run(["podman", "rmi", "-f", "-a"])
        waits = "0 of 1 Scores converged"
        await asyncio.to_thread(
            ground.pi.wait_for,
            lambda: waits in ground.pi.text("systemctl", "status", "--no-pager", AGENT),
        )
        assert not ground.runs()
    await until(ground.device, lambda _: ground.runs())
    assert ground.kept() == []


async def test_a_piece_that_is_another_one_is_refused_until_it_is_pushed_again(
    ground: Ground, busybox: bytes
) -> None:
    ground.write(image_of(busybox))
    await ground.push()
    before = ground.host.container("app")
    ground.write(image_of(busybox, layer_of({"www/index.html": b"new\n"}), name="new:1"))
    async with ground.without_network():
        await ground.push("--no-wait")
        listed = (await ground.plane.harmony("assets", "list", "--json")).documents
        damaged = next(each["asset"] for each in listed if "new:1: layer 2 of 2" in each["names"])
        async with admin(ground.plane.home) as client:
            await Bucket(client, ASSETS).put(f"{damaged[0]}.{damaged}.0", b"another")
    state = await until(ground.device, lambda state: "AssetDamaged" in message_of(state))
    assert f"harmony assets remove {damaged}" in message_of(state)
    assert ground.host.container("app") == before

    said = await ground.plane.harmony("assets", "remove", damaged)
    assert said.status == 0, said
    await ground.push()
    assert ground.page() == "new"
    assert ground.kept() == []


async def test_a_bundle_brings_it_to_where_no_network_is(
    ground: Ground, busybox: bytes, tmp_path: Path
) -> None:
    ground.write(image_of(busybox))
    ground.pi.cut_network()
    try:
        await ground.push("--no-wait")
        said = await ground.plane.harmony("bundle", ground.pi.name, str(tmp_path / "bundle"))
        assert said.status == 0, said
        said = await load(ground.pi, tmp_path / "bundle")
        assert "SUCCESS" in said.out
        assert ground.runs()
        assert ground.kept() == []
    finally:
        ground.pi.restore_network()
    await until(ground.device, succeeded)


async def test_two_names_of_one_image_are_kept_as_long_as_each_is_needed(
    ground: Ground, busybox: bytes
) -> None:
    """An archive of the image alone, and one of an index of it: podman has it once, under both digests."""
    archive = Archive()
    alone = archive.add_image(busybox, command=in_shell(SERVE))
    ground.write(archive.members({**alone, **called("localhost/app:1")}))
    await ground.push()
    ground.write(archive.members(archive.add_index(alone, **called("localhost/app:2"))))
    await ground.push()
    assert len({*images(ground.pi)}) == 2
    await ground.device.remove("app")
    assert images(ground.pi) == []


async def test_of_an_archive_of_several_platforms_the_device_s_own_comes(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    assert images(ground.pi) == []
    archive = Archive()
    ours = archive.add_image(busybox, command=in_shell(SERVE))
    theirs = archive.add_image(layer_of({"theirs": b"x"}), architecture="s390x")
    both = archive.members(archive.add_index(theirs, ours, **called("localhost/app:2")))
    blobs = ground.write(both)
    assert len(blobs) == 7
    await ground.push()
    assert ground.runs()
    assets = {each.split(".")[1] for each in asked.keys}
    assert len(assets) == 4  # the index, the manifest, the configuration, the layer
    assert ground.kept() == []


def test_an_archive_of_a_manifest_list_is_read_as_podman_writes_it(
    bed: Bed, laptop: Box, tmp_path: Path
) -> None:
    """As the documentation says it, of several platforms."""
    image = bed.registry.push_busybox("list", "1")
    laptop.run(["podman", "pull", "-q", "--tls-verify=false", image.replace(":1@", "@")])
    laptop.run(["podman", "manifest", "create", "localhost/list:1", image.replace(":1@", "@")])
    push = ["podman", "manifest", "push", "-q", "--all"]
    laptop.run([*push, "localhost/list:1", "oci-archive:/root/list.tar:localhost/list:1"])
    (tmp_path / "list.tar").write_bytes(laptop.read("/root/list.tar"))
    found = read_image(tmp_path / "list.tar")
    assert found.image.startswith("localhost/list:1@sha256:")
    assert len(found.blobs) == 4  # the index, the manifest, the configuration, the layer
    assert len(found.platforms) == 1


async def test_what_docker_writes_runs(ground: Ground, busybox: bytes) -> None:
    """With two tags, layers that are not compressed, and what older ones read, too."""
    archive = Archive()
    entry = archive.add_image(busybox, command=in_shell(SERVE), compressed=False)
    tags = [
        {
            "io.containerd.image.name": f"docker.io/library/app:{each}",
            "org.opencontainers.image.ref.name": each,
        }
        for each in ("1", "2")
    ]
    members = archive.members(*({**entry, "annotations": each} for each in tags))
    ground.write({**members, "manifest.json": b"[]", "repositories": b"{}"})
    await ground.push()
    assert ground.page() == "hello"
    assert images(ground.pi)[0].startswith("localhost/app:harmony-")


PODMAN_WRITES: dict[str, tuple[str, str]] = {
    "an archive": ("podman save -q --format oci-archive -o F localhost/app:1", ""),
    "by its id": ("podman save -q --format oci-archive -o F $ID", ""),
    "two tags": (
        "podman tag $ID localhost/app:2 && podman save -q --format oci-archive -o F app:2",
        "",
    ),
    "zstd": ("podman push -q --compression-format zstd $ID oci-archive:F:app:1", ""),
    "zstd:chunked": (
        "podman push -q --compression-format zstd:chunked $ID oci-archive:F:app:1",
        "",
    ),
    "Docker's manifest": ("podman push -q --format v2s2 $ID oci-archive:F", ""),
    "a directory, packed": (
        "podman save -q --format oci-dir -o F.dir localhost/app:1 && tar -cf F -C F.dir .",
        "",
    ),
    "no format": ("podman save -q -o F localhost/app:1", "skopeo copy docker-archive:"),
    "Docker's": (
        "podman save -q --format docker-archive -o F localhost/app:1",
        "podman save --format oci-archive -o FILE IMAGE",
    ),
    "packed": (
        "podman save -q --format oci-archive -o F localhost/app:1 && gzip F && mv F.gz F",
        "is compressed; name the archive itself, unpacked: gunzip ",
    ),
}
"""How podman writes an image into a file, F, and why it is refused; empty where it runs on a device."""


@pytest.mark.parametrize(
    ("command", "told"),
    PODMAN_WRITES.values(),
    ids=[each.replace(":", " ") for each in PODMAN_WRITES],
)
async def test_whatever_podman_writes_runs_or_is_refused_with_the_way_to_what_does(
    ground: Ground, bed: Bed, laptop: Box, command: str, told: str
) -> None:
    base = bed.registry.push_busybox("written", "1", command=in_shell(SERVE))
    laptop.run(["rm", "-rf", "/root/F", "/root/F.dir"])
    build(laptop, base, "written\n", ground.directory / "app.tar")
    found = "cd /root && ID=$(podman image inspect --format '{{.Id}}' localhost/app:1)"
    laptop.run(["sh", "-ec", f"{found} && {command}"])
    (ground.directory / "app.tar").write_bytes(laptop.read("/root/F"))
    ground.write_score()
    said = await ground.push(ends=2 if told else 0)
    assert told in said.err
    if not told:
        assert ground.page() == "written"
        assert ground.kept() == []


async def test_an_image_for_another_processor_is_told_by_whoever_notices_first(
    ground: Ground, busybox: bytes
) -> None:
    archive = Archive()
    theirs = archive.add_image(busybox, architecture="s390x")
    ground.write(archive.members(archive.add_index(theirs, **called("localhost/app:3"))))
    said = await ground.push(ends=3)
    assert f"app: its image is made for linux/s390x, and {ground.pi.name} is linux/" in said.err
    file = str(ground.directory / "app.json")
    name = ground.pi.name
    assert (await ground.plane.harmony("label", name, "role=other", "--no-wait")).status == 0
    to_class = ("push-score", "--class", "others", "--selector", "role=other")
    said = await ground.plane.harmony(*to_class, file)
    assert said.status == 3, said
    assert f"app: its image is made for linux/s390x, and {name} is linux/" in said.err
    assert "--force" not in said.err
    assert (await ground.plane.harmony("label", name, "role-", "--no-wait")).status == 0
    said = await ground.push("--force", ends=1)
    assert "ImageNotFound" in said.out
    assert "comes from an archive, in which podman finds nothing for this device" in said.out
    assert not ground.runs()


async def test_no_part_is_fetched_from_elsewhere(
    ground: Ground, bed: Bed, busybox: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of an image that a push has not looked at."""
    archive = Archive()
    entry = archive.add_image(busybox, command=in_shell(SERVE), **called("localhost/app:1"))
    manifest = json.loads(archive.blobs[entry["digest"]])
    elsewhere, host = Elsewhere(), bed.registry.host.partition(":")[0]
    async with elsewhere.serve():
        manifest["layers"][0]["urls"] = [f"http://{host}:{elsewhere.port}/layer"]
        forged = archive.add_json(manifest, MANIFEST, **called("localhost/app:1"))
        write_tar(ground.directory / "app.tar", archive.members(forged))
        ground.write_score()
        assert "with urls: parts of its image" in (await ground.push(ends=2)).err

        def see_nothing(_: bytes) -> bool:
            return False

        monkeypatch.setattr("harmony_control.assets.image.names_elsewhere", see_nothing)
        image = read_image(ground.directory / "app.tar")
        score = ContainerScore(name="app", image=image.image, image_blobs=image.blobs)
        outcome = await ground.device.push(score, id="app")
        assert elsewhere.asked == 0
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "InvalidResource"
    assert "has urls: parts of it are to be fetched from elsewhere" in outcome.error.message
    await ground.device.remove("app")
    assert images(ground.pi) == []


async def test_what_podman_does_not_take_is_told_as_that(ground: Ground) -> None:
    ground.write(image_of(b"no layer at all"))
    said = await ground.push(ends=1)
    assert "RegistryUnreachable" in said.out
    assert "podman could not take localhost/app@" in said.out
    assert "is its registry up" not in said.out


async def test_a_name_that_somebody_gave_the_image_stays_when_its_score_goes(
    ground: Ground, busybox: bytes
) -> None:
    ground.write(image_of(busybox))
    await ground.push()
    name, _, digest = read_image(ground.directory / "app.tar").image.partition(":1@")
    ground.pi.run(["podman", "tag", f"{name}@{digest}", f"{name}:mine"])
    await ground.device.remove("app")
    assert {*images(ground.pi)} == {f"{name}:mine"}
    ground.pi.run(["podman", "rmi", f"{name}:mine"])
    assert images(ground.pi) == []


async def test_what_podman_has_of_a_pull_whose_agent_ended_goes(
    ground: Ground, busybox: bytes
) -> None:
    """It unpacks what it has, and keeps it, while the agent can do nothing; and then that is killed."""
    files = {f"d{each % 100}/f{each}": os.urandom(8) for each in range(30_000)}
    ground.write(image_of(busybox, layer_of(files)))
    await ground.push("--no-wait")
    async with asyncio.timeout(30):
        while len(stored(ground.pi, "layers")) < 2:
            await asyncio.sleep(0.005)
    ground.pi.run(["systemctl", "kill", "-s", "STOP", AGENT])
    async with asyncio.timeout(30):
        while not (left := stored_names(ground.pi)):
            await asyncio.sleep(0.1)
    assert [each.endswith(":nearby") for each in left] == [True]
    ground.pi.run(["systemctl", "kill", "-s", "KILL", AGENT])
    await until(ground.device, succeeded)
    async with asyncio.timeout(30):
        while left[0] in stored_names(ground.pi):
            await asyncio.sleep(0.1)
    assert ground.runs()
    await ground.device.remove("app")
    assert images(ground.pi) == []


async def test_what_is_kept_and_is_something_else_by_now_is_told_and_fetched_anew(
    ground: Ground, busybox: bytes
) -> None:
    *_, layer = ground.write(image_of(busybox))
    await ground.push()
    # An agent that has let go of it itself would not keep it.
    ground.pi.run(["systemctl", "stop", AGENT])
    ground.pi.run(["podman", "rmi", "-f", "-a"])
    ground.pi.write(f"{CACHE}/{layer.sha256}", b"x" * layer.size_bytes)
    ground.pi.run(["systemctl", "start", AGENT])
    await until(ground.device, lambda _: ground.runs())
    assert "AssetDamaged: app:1: layer 1 of 1" in ground.pi.journal(AGENT)
    assert ground.kept() == []


async def bound(ground: Ground, line: str) -> None:
    """Have *line* say in agent.toml how much is kept of assets."""
    toml = "/etc/harmony/agent.toml"
    ground.pi.run(["sed", "-i", "-e", "/^assets_max_mib/d", "-e", f"1i {line}", toml])
    ground.pi.run(["systemctl", "restart", AGENT])
    await heard_again(ground.device)


async def test_an_image_that_has_no_room_is_told_before_it_comes_and_keeps_nothing_else_out(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    await bound(ground, "assets_max_mib = 64")
    try:
        blobs = ground.write(image_of(busybox, large(), large(), large()))
        size = sum(each.size_bytes for each in blobs)
        said = await ground.push(ends=1)
        assert "AssetsFull" in said.out
        assert "within 64 MiB; raise assets_max_mib in agent.toml to 7" in said.out
        # The layers are asked for at once, by podman; what one of them brings until then is little.
        assert len(asked.keys) < sum(map(chunk_count, blobs)) / 5, (len(asked.keys), size)
        assert not ground.runs()
        async with asyncio.timeout(30):
            while ground.kept():
                await asyncio.sleep(0.1)
        content = os.urandom(50_000_000)
        (ground.directory / "layer").write_bytes(content)
        spec = {"path": "/etc/layer", "asset_from": "./layer"}
        document = {"id": "file", "kind": "FileScore", "spec": spec}
        file = ground.directory / "app.json"
        file.write_text(json.dumps([document, *json.loads(file.read_text())]))
        await ground.push("--no-wait")
        written = ground.pi.root / "etc/layer"
        async with asyncio.timeout(60):
            while not written.exists() or written.read_bytes() != content:
                await asyncio.sleep(0.2)
        await ground.device.remove("file")
    finally:
        await bound(ground, "# as ever")
    await until(ground.device, succeeded)
    assert ground.kept() == []


def write_both(ground: Ground, **fields: Any) -> None:
    """Have the archive's container, and a file that is its layer."""
    ground.write_score(**fields)
    file = ground.directory / "app.json"
    spec = {"path": "/etc/layer", "asset_from": "./layer"}
    documents = [{"id": "file", "kind": "FileScore", "spec": spec}, *json.loads(file.read_text())]
    file.write_text(json.dumps(documents))


async def test_a_layer_that_is_a_file_too_is_kept_for_that_as_long_as_it_is(
    ground: Ground, busybox: bytes, asked: Asked
) -> None:
    ballast = large()
    *_, layer = ground.write(image_of(busybox, ballast))
    await ground.push()
    assert ground.kept() == []
    content = gzip.compress(ballast, 1, mtime=0)
    assert hashlib.sha256(content).hexdigest() == layer.sha256
    (ground.directory / "layer").write_bytes(content)
    write_both(ground, environment={"VERSION": "2"})
    asked.keys.clear()
    await ground.push("--no-wait")
    await asked.until(20)
    # The one that starts then finds the image here, and looks whether anything of it is kept.
    ground.pi.run(["systemctl", "kill", "-s", "KILL", AGENT])
    await until(ground.device, lambda state: succeeded(state) and "file" in state.scores)
    await ground.push()
    assert ground.pi.read("/etc/layer") == content
    assert ground.kept() == [layer.sha256]
    assert len(asked.keys) <= chunk_count(layer) + 1

    async with ground.without_network():
        ground.pi.write("/etc/layer", b"drift")
        await asyncio.to_thread(ground.pi.wait_for, lambda: ground.pi.read("/etc/layer") == content)
    ground.write_score(environment={"VERSION": "2"})
    await ground.device.remove("file")
    async with asyncio.timeout(120):
        while ground.kept():
            await asyncio.sleep(0.5)
    assert ground.runs()


async def test_a_file_that_is_not_kept_waits_for_the_server_and_says_so(ground: Ground) -> None:
    content = os.urandom(1_000_000)
    (ground.directory / "layer").write_bytes(content)
    spec = {"path": "/etc/layer", "asset_from": "./layer"}
    document = {"id": "file", "kind": "FileScore", "spec": spec}
    (ground.directory / "app.json").write_text(json.dumps([document]))
    await ground.push()
    async with ground.without_network():
        ground.pi.run(["sh", "-c", f"rm {CACHE}/*"])
        ground.pi.write("/etc/layer", b"drift")
        waits = "0 of 1 Scores converged"
        await asyncio.to_thread(
            ground.pi.wait_for,
            lambda: waits in ground.pi.text("systemctl", "status", "--no-pager", AGENT),
        )
        await asyncio.sleep(5)
        assert ground.pi.read("/etc/layer") == b"drift"
    await until(ground.device, lambda _: ground.pi.read("/etc/layer") == content)
    assert "InternalError" not in ground.pi.journal(AGENT)
    await ground.device.remove("file")


async def test_a_class_brings_it(ground: Ground, busybox: bytes) -> None:
    ground.write(image_of(busybox))
    name, file = ground.pi.name, str(ground.directory / "app.json")
    said = await ground.plane.harmony("label", name, "role=app", "--no-wait")
    assert said.status == 0, said
    said = await ground.plane.harmony(
        *("push-score", "--class", "apps", "--selector", "role=app", file)
    )
    assert said.status == 0, (said, ground.pi.journal(AGENT)[-6000:])
    assert ground.runs()
    assert ground.kept() == []
    said = await ground.plane.harmony("label", name, "role-")
    assert said.status == 0, said
    await until(ground.device, lambda state: "app" not in state.scores)
    assert images(ground.pi) == []
