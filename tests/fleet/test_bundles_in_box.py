"""Images in a bundle: from a real registry into a Pi's podman, which reaches neither that nor the server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from tests.box import Bed, Box
from tests.bundles import pack, unpack
from tests.fleet.downloaded import layer_of_an_image
from tests.fleet.ground import AGENT, SERVE, ControlPlane, Host, Said, heard_again, in_shell

Pi: TypeAlias = Device[PiTopology]

BALLAST_BYTES = 200_000_000
"""More than the agent may have in memory."""
LOAD = "/opt/harmony/bin/harmony-agent"


@pytest.fixture
def away(device: Pi, pi: Box) -> Generator[Box]:
    """The Pi, with its cable pulled. Back at the end, for what a test leaves to be removed."""
    pi.cut_network()
    yield pi
    pi.restore_network()


def web(image: str, **fields: Any) -> Mapping[str, Any]:
    spec = {"name": "web", "image": image, "settle_s": 0.5, "stop_timeout_s": 0, **fields}
    return {"id": "web", "kind": "ContainerScore", "spec": spec}


async def bundled(
    plane: ControlPlane, bed: Bed, pi: Box, file: Path, *more: str, image: str = ""
) -> Path:
    """Push it to the device, which is not there, where an *image* is given; and write its bundle."""
    trust = {"HARMONY_REGISTRY_CA": str(bed.registry.ca)}
    if image:
        scores = json.dumps([web(image)])
        said = await plane.harmony("push-score", pi.name, "-", "--no-wait", stdin=scores, **trust)
        assert said.status == 0, said
    said = await plane.harmony("bundle", pi.name, str(file), *more, **trust)
    assert said.status == 0, said
    return file


async def load(pi: Box, bundle: Path, *more: str, ends: int = 0) -> Said:
    """Carry it there, and type what root types."""
    pi.write("/media/stick/bundle", bundle.read_bytes())
    done = await asyncio.to_thread(
        pi.run, [LOAD, "load", "/media/stick/bundle", *more], check=False, timeout_s=120
    )
    said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert said.status == ends, (said, pi.journal(AGENT)[-6000:])
    return said


def images(pi: Box) -> list[str]:
    """The names of all images that podman has, by tag and by digest."""
    listed: list[dict[str, list[str]]] = json.loads(pi.text("podman", "images", "--format", "json"))
    return sorted(name for each in listed for name in each.get("Names") or [])


async def test_a_container_comes_without_any_network_and_is_as_if_it_was_pulled(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, host: Host, tmp_path: Path
) -> None:
    one = bed.registry.push_busybox(
        "web", "one", command=in_shell(SERVE), ballast_bytes=BALLAST_BYTES
    )
    bundle = await bundled(plane, bed, away, tmp_path / "b", image=f"{bed.registry.host}/web:one")
    said = await load(away, bundle)
    assert "web                  SUCCESS" in said.out
    found = host.container("web")
    assert found is not None
    assert found["State"]["Status"] == "running"
    name = one.partition(":one")[0]
    digest = one.partition("@")[2]
    assert away.run(["podman", "image", "exists", f"{name}@{digest}"]).returncode == 0
    assert not any("127.0.0.1" in each for each in images(away))

    await load(away, bundle)
    memory = away.read(f"/proc/{host.agent_pid()}/status").decode()
    (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", memory, re.MULTILINE)
    assert int(peak_kib) * 1024 < BALLAST_BYTES
    found_modes = away.text("stat", "-c", "%a %U", "/run/harmony", "/run/harmony/load.sock")
    assert found_modes == "700 root\n600 root"

    away.restore_network()
    await heard_again(device)
    state = await device.state()
    assert state is not None
    assert (state.generation, state.scores["web"].outcome.status) == (1, "SUCCESS")
    same = host.container("web")
    assert same is not None
    assert same["Id"] == found["Id"]
    assert same["State"]["StartedAt"] == found["State"]["StartedAt"]

    # Its image goes with it, as one that was pulled.
    await device.remove("web")
    assert images(away) == []


async def test_what_a_score_downloads_comes_without_any_network_and_stays(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, tmp_path: Path
) -> None:
    """From a server that the device would not believe, and does not reach."""
    download = layer_of_an_image(bed)
    spec = {"path": "/srv/layer", "download": download.model_dump(mode="json")}
    scores = json.dumps([{"id": "layer", "kind": "FileScore", "spec": spec}])
    said = await plane.harmony("push-score", away.name, "-", "--no-wait", stdin=scores)
    assert said.status == 0, said
    bundle = await bundled(plane, bed, away, tmp_path / "b")
    bed.registry.stop()
    try:
        said = await load(away, bundle)
        assert "layer                SUCCESS" in said.out
        sums = away.text("sha256sum", "/srv/layer", f"/var/lib/harmony/assets/{download.sha256}")
        assert sums.split()[::2] == [download.sha256] * 2
        kept = away.root / "var/lib/harmony/assets" / download.sha256
        before = kept.stat()
        await load(away, bundle)
        assert kept.stat().st_mtime_ns == before.st_mtime_ns
        away.run(["rm", "/srv/layer"])
        await asyncio.to_thread(away.wait_for, (away.root / "srv/layer").exists)
    finally:
        bed.registry.start()
    away.restore_network()
    await heard_again(device)
    state = await device.state()
    assert state is not None
    assert state.scores["layer"].outcome.status == "SUCCESS"


async def test_an_image_of_several_platforms_comes_for_the_device_s_own(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, host: Host, tmp_path: Path
) -> None:
    image = bed.registry.push_busybox("multi", "plain", command=in_shell(SERVE))
    bed.registry.push_index("multi", "all", image, ("arm64", "s390x"))
    bundle = await bundled(plane, bed, away, tmp_path / "b", image=f"{bed.registry.host}/multi:all")
    await load(away, bundle)
    assert host.container("web") is not None
    _, ours = unpack(bundle)
    foreign = await bundled(plane, bed, away, tmp_path / "theirs", "--platform", "linux/arm64")
    _, theirs = unpack(foreign)
    blobs = [{each for each in files if each.startswith("blobs/")} for files in (ours, theirs)]
    assert len(blobs[0]) == len(blobs[1]) == 4  # index, manifest, configuration, layer
    assert blobs[0] & blobs[1] == {next(iter(blobs[0] & blobs[1]))}  # the index
    trust = {"HARMONY_REGISTRY_CA": str(bed.registry.ca)}
    said = await plane.harmony(
        "bundle", away.name, str(tmp_path / "no"), "--platform", "linux/riscv64", **trust
    )
    assert said.status == 2
    assert "is not made for linux/riscv64" in said.err


async def test_a_newer_image_takes_the_place_of_the_older_one_which_is_kept_to_go_back_to(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, host: Host, tmp_path: Path
) -> None:
    for tag in ("a", "b", "c"):
        image = bed.registry.push_busybox("kiosk", tag, command=in_shell(SERVE), page=f"{tag}\n")
        await load(away, await bundled(plane, bed, away, tmp_path / tag, image=image))
        found = host.container("web")
        assert found is not None
        assert found["State"]["Status"] == "running"
    assert len(images(away)) == 2
    away.restore_network()
    await heard_again(device)
    await device.remove("web")
    assert images(away) == []


async def test_an_image_that_is_another_one_is_refused_before_anything_is_loaded(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, host: Host, tmp_path: Path
) -> None:
    image = bed.registry.push_busybox("web", "true", command=in_shell(SERVE))
    bundle = await bundled(plane, bed, away, tmp_path / "b", image=image)
    _, files = unpack(bundle)
    largest = max(files, key=lambda each: len(files[each]))
    wrong = {**files, largest: b"\0" * len(files[largest])}
    bundle.write_bytes(pack(wrong, agent_id=away.name))
    said = await load(away, bundle, ends=2)
    assert "must have the hash that it is called by" in said.err
    assert host.containers() == []
    assert images(away) == []


async def test_without_its_registry_alone_a_bundle_brings_what_is_wanted_already(
    device: Pi, plane: ControlPlane, bed: Bed, pi: Box, host: Host, tmp_path: Path
) -> None:
    """The manifest came by the bus. What waits for the registry is not waited for any more."""
    image = bed.registry.push_busybox("late", "1", command=in_shell(SERVE))
    trust = {"HARMONY_REGISTRY_CA": str(bed.registry.ca)}
    bed.registry.stop()
    try:
        said = await plane.harmony(
            "push-score", pi.name, "-", "--timeout", "60", stdin=json.dumps([web(image)]), **trust
        )
        assert said.status == 1
        assert "RegistryUnreachable" in said.out
    finally:
        bed.registry.start()
    bundle = await bundled(plane, bed, pi, tmp_path / "b")
    bed.registry.stop()
    try:
        said = await load(pi, bundle)
    finally:
        bed.registry.start()
    assert "web                  SUCCESS" in said.out
    assert host.container("web") is not None


async def test_a_stick_that_is_pulled_out_while_it_is_needed_is_told_and_the_next_load_ends_it(
    device: Pi, plane: ControlPlane, bed: Bed, away: Box, host: Host, tmp_path: Path
) -> None:
    """The container waits for a unit that has to stay up for a while: by then the stick is gone."""
    image = bed.registry.push_busybox("large", "1", command=in_shell(SERVE))
    spec = {"name": "sleeper.service", "exec_start": ["/usr/bin/sleep", "infinity"], "settle_s": 8}
    sleeper = {"id": "sleeper", "kind": "SystemdServiceScore", "spec": spec}
    scores = json.dumps([sleeper, {**web(image), "after": ["sleeper"]}])
    said = await plane.harmony("push-score", away.name, "-", "--no-wait", stdin=scores)
    assert said.status == 0, said
    bundle = await bundled(plane, bed, away, tmp_path / "b")
    loading = asyncio.create_task(load(away, bundle, ends=2))
    stick, loaded = away.root / "media/stick/bundle", "a bundle is loaded: generation"
    before = away.journal(AGENT).count(loaded)
    await asyncio.to_thread(away.wait_for, lambda: away.journal(AGENT).count(loaded) > before)
    with stick.open("rb+") as file:
        file.truncate(4096)
    said = await loading
    assert "the bundle ends before it is whole" in said.err
    assert host.container("web") is None
    await load(away, bundle)
    assert host.container("web") is not None
