"""A volume's data, saved and loaded by a real agent under its own confinement, over real podman."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path

from harmony_control.device import Device
from harmony_control.push.entries import Entry
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, VolumeScore
from tests.box import Bed
from tests.fleet.ground import AGENT, ControlPlane, Host, in_shell, pushed, statuses, until

_VOLUMES = "/var/lib/containers/storage/volumes"
_DATA = f"{_VOLUMES}/app-data"


def application(image: str, volume: str = "app-data") -> dict[str, Entry[PiTopology]]:
    """A container that does not start where there is something bad in its volume."""
    db = ContainerScore.model_validate(
        {
            "name": "db",
            "image": image,
            "command": in_shell(
                "test ! -e /data/bad || exit 3; trap 'exit 0' TERM; while :; do sleep 1; done"
            ),
            "volumes": [{"volume": volume, "target": "/data"}],
            "stop_timeout_s": 5,
            "settle_s": 0.2,
        }
    )
    return {"db": Entry(db, after=["data"]), "data": Entry(VolumeScore(name=volume))}


def in_container(host: Host, *command: str) -> str:
    return host.box.run(["podman", "exec", "db", "busybox", *command]).stdout.decode()


async def test_a_volume_is_saved_and_loaded_and_who_asked_is_noted(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    image = bed.registry.push_busybox("app", "volume-data", page="page\n")
    await pushed(device, application(image))

    def within(*words: str) -> str:
        return in_container(host, *words)

    within(
        "sh",
        "-c",
        "echo kept > /data/it; busybox chown 4711:4712 /data/it; busybox ln /data/it /data/same",
    )
    within("dd", "if=/dev/urandom", "of=/data/large", "bs=1M", "count=3")
    host.box.run(["chmod", "2750", f"{_DATA}/_data"])
    begun_as = within("sha256sum", "/data/it", "/data/large")
    file = tmp_path / "app.tar"

    # This podman has no control groups, by which alone it could pause: that is told, with what to do.
    refused = await plane.harmony("volume", "save", device.id, "app-data", str(file))
    assert (refused.status, "--stop" in refused.err) == (1, True), refused
    assert list(tmp_path.glob("app*")) == []
    assert within("cat", "/data/it") == "kept\n"

    saved = await plane.harmony("volume", "save", device.id, "app-data", str(file), "--stop")
    assert saved.status == 0, saved.err
    assert "db waited meanwhile" in saved.out
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        it = tar.getmember("./it")
        assert (it.uid, it.gid) == (4711, 4712)
        assert {each.name for each in tar} == {".", "./it", "./same", "./large"}
    assert host.box.run(["ls", "/var/lib/harmony/volumes"]).stdout == b""
    assert within("sha256sum", "/data/it", "/data/large") == begun_as

    within("sh", "-c", "echo other > /data/it; busybox rm /data/large; echo more > /data/more")
    loaded = await plane.harmony(
        "volume", "load", device.id, "app-data", str(file), "--yes", "--keep-previous"
    )
    assert loaded.status == 0, loaded.err
    assert "stopped meanwhile: db" in loaded.out
    assert within("sha256sum", "/data/it", "/data/large") == begun_as
    assert within("ls", "-A", "/data").split() == ["it", "large", "same"]
    assert within("stat", "-c", "%a %u:%g %h", "/data", "/data/it").split("\n")[:2] == [
        "2750 0:0 2",
        "644 4711:4712 2",
    ]
    assert host.box.run(["cat", f"{_DATA}/harmony-previous/more"]).stdout == b"more\n"

    # What its container does not start with is taken back, and its Score is as it was.
    bad = tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as tar:
        tar.addfile(tarfile.TarInfo("bad"))
    taken_back = await plane.harmony("volume", "load", device.id, "app-data", str(bad), "--yes")
    assert (taken_back.status, "has its data from before" in taken_back.err) == (1, True), (
        taken_back
    )
    assert within("sha256sum", "/data/it", "/data/large") == begun_as
    # What was seen while it did not start is told until the device has looked once more.
    await until(device, lambda state: {*statuses(state).values()} <= {"SUCCESS", "NOOP"})
    assert (await plane.harmony("status", device.id)).status == 0
    assert host.box.run(["ls", "-A", _DATA]).stdout.split() == [b"_data", b"harmony-previous"]

    # Who has asked for it is in the audit.
    said = (await plane.harmony("events", device.id, "--json")).documents
    asked = [each for each in said if each["why"] == "request"]
    assert [each["actions"][0].split(" (")[0] for each in asked] == [
        "saved the data of volume app-data",
        "replaced the data of volume app-data",
        "replaced the data of volume app-data, and put back what was there",
    ]
    assert all(each["resource"] == "volume:app-data" and each["signed_by"] for each in asked)


async def test_killed_while_a_volume_is_loaded_it_has_the_old_data_or_the_new_and_all_goes_on(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    image = bed.registry.push_busybox("app", "volume-data", page="page\n")
    await pushed(device, application(image, "db-data"))
    in_container(host, "sh", "-c", "echo old > /data/it")
    large = tmp_path / "large.tar"
    with tarfile.open(large, "w") as tar:
        entry = tarfile.TarInfo("large")
        entry.size = 32 << 20
        with Path("/dev/zero").open("rb") as zeros:  # noqa: ASYNC230 - it is at hand
            tar.addfile(entry, zeros)
    new = host.box.root / f"{_VOLUMES[1:]}/db-data/harmony-new"
    loading = asyncio.create_task(
        plane.harmony("volume", "load", device.id, "db-data", str(large), "--yes")
    )
    while not new.exists():
        assert not loading.done(), loading.result()
        await asyncio.sleep(0.01)
    host.box.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT])
    assert (await loading).status
    async with asyncio.timeout(60):
        while new.exists():
            await asyncio.sleep(0.1)
    await until(device, lambda state: state.scores["db"].outcome.status in {"SUCCESS", "NOOP"})
    found = in_container(host, "sh", "-c", "cd /data; busybox stat -c '%n %s' *").splitlines()
    assert found in (["it 4"], [f"large {entry.size}"])
