"""What services mount of the machine that pushes: what is pushed along, what is not, and what is refused."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harmony_control.compose import local
from harmony_control.compose.mapping import MappedProject, map_project
from harmony_control.compose.sources import (
    INLINE_FILE_MOST_BYTES,
    INLINE_MOST_BYTES,
    PUSHED_MOST_BYTES,
)
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_core.resources import ContainerDevice, Mount
from harmony_scores import ComposeScore
from harmony_scores.compose import ComposeService
from tests.control.compose_files import read, write

PUSHED = "/etc/harmony-apps/shop"
KEY = "-----BEGIN {}PRIVATE KEY-----\nMC4CAQ\n"


def mapped(
    folder: Path,
    *volumes: str,
    files: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> MappedProject:
    """Map a service with *volumes*, of compose.yaml in *folder*/shop, beside *files*."""
    lines = "".join(f"      - {each}\n" for each in volumes)
    text = f"name: shop\nservices:\n  web:\n    image: web\n    volumes:\n{lines}"
    project = read(folder / "shop", text, files=files, environment=environment)
    return map_project(project, Registry([ComposeScore]))


def score_of(found: MappedProject) -> ComposeScore:
    (entry,) = found.entries.values()
    assert isinstance(entry.score, ComposeScore)
    return entry.score


def service_of(found: MappedProject) -> ComposeService:
    return score_of(found).services["web"]


def refusal(folder: Path, *volumes: str, **more: Any) -> str:
    """Return the only thing that is wrong."""
    with pytest.raises(ComposeFileError) as raised:
        mapped(folder, *volumes, **more)
    (told,) = raised.value.message.split("\n")
    return told


# --- whose path it is


@pytest.mark.parametrize(
    "source", ["../x", "~/x", "~", "../shop-2/x", "{type: bind, source: ../x, target: /t}"]
)
def test_a_relative_path_outside_the_project_is_no_path_of_the_device(
    tmp_path: Path, source: str
) -> None:
    told = refusal(tmp_path, source if source.startswith("{") else f"{source}:/t")
    assert "compose.yaml:6: services.web.volumes[0]" in told
    assert "lies outside the project; write a path of the device, or move it beside" in told


def test_a_relative_path_of_a_file_elsewhere_is_outside_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"common/base.yaml": "services: {web: {image: web, volumes: ['./conf:/conf']}}"},
    )
    for text in (
        "services: {web: {extends: {file: ../common/base.yaml, service: web}}}",
        "include: [../common/base.yaml]",
    ):
        project = read(tmp_path / "shop", text)
        with pytest.raises(ComposeFileError, match="common/conf lies outside the project"):
            map_project(project, Registry([ComposeScore]))


def test_a_relative_path_of_an_included_file_below_is_of_the_project(tmp_path: Path) -> None:
    files = {
        "db/compose.yaml": "services: {db: {image: db, volumes: ['./my.cnf:/my.cnf:ro']}}",
        "db/my.cnf": "a",
    }
    text = "name: shop\ninclude: [db/compose.yaml]\nservices: {web: {image: web}}"
    project = read(tmp_path / "shop", text, files=files)
    (file,) = score_of(map_project(project, Registry([ComposeScore]))).files
    assert file.path == f"{PUSHED}/files/db/my.cnf"


def test_an_absolute_path_is_the_device_s_also_below_the_project(tmp_path: Path) -> None:
    here = tmp_path / "shop" / "data"
    found = mapped(tmp_path, f"{here}:/data", files={"data/big": "x"})
    assert service_of(found).mounts == (Mount(source=str(here), target="/data", read_only=False),)
    assert score_of(found).files == ()
    assert any(f"{here} is a path of the device, and nothing of" in each for each in found.notes)


def _bind(source: str, *, create: str) -> str:
    return f"{{type: bind, source: {source}, target: /d, bind: {{create_host_path: {create}}}}}"


def test_that_a_path_of_the_device_is_not_made_is_noted_where_it_was_to_be(tmp_path: Path) -> None:
    found = mapped(tmp_path, _bind("/srv/d", create="true"))
    (note,) = [each for each in found.notes if "/srv/d" in each]
    assert (
        "compose.yaml:6: services.web.volumes[0].bind.create_host_path: /srv/d is not made" in note
    )
    for each in (_bind("/srv/d", create="false"), "/srv/d:/d"):
        again = mapped(tmp_path, each)
        assert score_of(again) == score_of(found)
        assert not any("/srv/d" in each for each in again.notes)


def test_a_path_that_is_not_to_be_made_is_no_fresh_volume(tmp_path: Path) -> None:
    told = refusal(tmp_path, _bind("./d", create="false"))
    assert "services.web.volumes[0]: there is no d here, and create_host_path: false" in told
    for each, files in (
        (_bind("./d", create="true"), {}),
        (_bind("./d", create="false"), {"d/.gitkeep": ""}),
    ):
        found = mapped(tmp_path, each, files=files)
        assert [volume.name for volume in score_of(found).volumes] == ["shop_d"]


@pytest.mark.parametrize("name", ["PWD", "HOME"])
def test_a_path_by_a_variable_of_this_machine_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    there = tmp_path / "elsewhere"
    (tmp_path / "other").mkdir()
    there.mkdir()
    monkeypatch.chdir(there if name == "PWD" else tmp_path / "other")
    monkeypatch.setenv("HOME", str(there if name == "HOME" else tmp_path / "other"))
    found = mapped(tmp_path, f"${{{name}}}/x:/x", "/srv/x:/y", environment={name: str(there)})
    notes = [each for each in found.notes if "is a path of the device" in each]
    assert len(notes) == 1
    assert f"volumes[0]: {there}/x" in notes[0]


# --- what cannot be read is not what is not there


def test_a_directory_that_cannot_be_read_is_no_fresh_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    for folder in ("closed", "open/closed"):
        (tmp_path / "shop" / folder).mkdir(parents=True)
        told = refusal(tmp_path, f"./{folder.partition('/')[0]}:/data")
        assert f"{folder} cannot be read: Permission denied" in told


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x" * 300, "cannot be read: File name too long"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("app.conf/data", "cannot be read: Not a directory"),
        ("gone", "gone is a link that leads nowhere"),
        ("gone/data", "gone is a link that leads nowhere"),
        ("fifo", "fifo is no file that can be pushed"),
        ("sockets", "sockets/a is no file that can be pushed"),
        ("linked", "linked/there is a link to a directory, and is not followed"),
    ],
)
def test_what_is_neither_there_nor_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, told: str
) -> None:
    shop = tmp_path / "shop"
    write(shop, {"app.conf": "a", "linked/a": "a"})
    (shop / "loop").symlink_to("loop")
    (shop / "gone").symlink_to("nowhere")
    (shop / "linked" / "there").symlink_to(tmp_path)
    os.mkfifo(shop / "fifo")
    (shop / "sockets").mkdir()
    monkeypatch.chdir(shop / "sockets")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("a")
    assert told.removeprefix("sockets/") in refusal(tmp_path, f"./{source}:/t")


def test_a_config_is_never_read_from_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    os.mkfifo(tmp_path / "shop" / "fifo")  # reading it would wait for ever
    text = "services: {web: {image: web, configs: [a]}}\nconfigs: {a: {file: ./fifo}}"
    with pytest.raises(ComposeFileError, match=r"configs\[0\]: .*fifo is no file that can be"):
        map_project(read(tmp_path / "shop", text), Registry([ComposeScore]))


def test_a_directory_as_git_keeps_it_is_empty(tmp_path: Path) -> None:
    files = {"data/.gitkeep": "", "data/a/.gitignore": "*", "data/.DS_Store": "x"}
    found = mapped(tmp_path, "./data:/data", files=files)
    assert [each.volume for each in service_of(found).volumes] == ["shop_data"]
    assert score_of(found).files == ()
    hidden = mapped(tmp_path / "2", "./data:/data:ro", files={"data/.htaccess": "a"})
    assert [each.path for each in score_of(hidden).files] == [f"{PUSHED}/files/data/.htaccess"]


def test_an_empty_directory_in_a_pushed_one_is_noted(tmp_path: Path) -> None:
    (tmp_path / "shop" / "conf" / "cache").mkdir(parents=True)
    found = mapped(tmp_path, "./conf:/conf:ro", files={"conf/a": "a"})
    assert any("conf/cache is empty, and is not there" in each for each in found.notes)


# --- how much, and of what kind


def test_what_is_large_is_told_once_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "shop" / "data"
    data.mkdir(parents=True)
    for number in range(30):
        with (data / f"{number}").open("wb") as stream:
            stream.truncate(PUSHED_MOST_BYTES // 8)

    def never(path: Path) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(Path, "read_bytes", never)
    told = refusal(tmp_path, "./data:/data")
    assert "data is more than 64 MiB, or 500 files, which is what is pushed along" in told


def test_many_files_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_FILES_MOST", 3)
    told = refusal(tmp_path, "./d:/d", files={f"d/{number}": "" for number in range(4)})
    assert "write its path there" in told


def test_what_a_manifest_has_no_room_for_is_an_asset(tmp_path: Path) -> None:
    half = "x" * (INLINE_MOST_BYTES // 2)
    large = "y" * (INLINE_FILE_MOST_BYTES + 1)
    files = {"a/1": half, "a/large": large, "b/1": half, "b/2": "z", "c/1": ""}
    found = {
        each.path: each
        for each in score_of(
            mapped(tmp_path, "./a:/a:ro", "./b:/b:ro", "./c:/c:ro", files=files)
        ).files
    }
    assets = {path: each.asset for path, each in found.items() if each.asset is not None}
    assert {path: asset.name for path, asset in assets.items()} == {
        "/etc/harmony-apps/shop/files/a/large": "large",
        "/etc/harmony-apps/shop/files/b/2": "2",
    }
    sha256 = hashlib.sha256(large.encode()).hexdigest()
    assert assets["/etc/harmony-apps/shop/files/a/large"].sha256 == sha256
    assert len(found) == len(files)


@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_is_not_put_into_a_manifest(tmp_path: Path, kind: str) -> None:
    told = refusal(tmp_path, "./tls:/tls:ro", files={"tls/tls.pem": KEY.format(kind)})
    assert "tls/tls.pem has a private key" in told
    assert "`harmony secret`" in told


def test_a_private_key_in_a_config_is_none_either(tmp_path: Path) -> None:
    text = (
        "services: {web: {image: web, configs: [a]}}\n"
        f"configs: {{a: {{content: {KEY.format('')!r}}}}}"
    ).replace("'", '"')
    with pytest.raises(ComposeFileError, match="configs/a has a private key"):
        map_project(read(tmp_path / "shop", text), Registry([ComposeScore]))


def test_what_may_be_a_secret_is_noted_and_its_mode_kept(tmp_path: Path) -> None:
    write(tmp_path / "shop", {"own/a": "a", "own/b": "b", "c.key": "c", "d.conf": "d"})
    (tmp_path / "shop/own/a").chmod(0o600)
    (tmp_path / "shop/own/b").chmod(0o700)
    found = mapped(tmp_path, "./own:/own:ro", "./c.key:/c:ro", "./d.conf:/d:ro")
    assert [each.mode for each in score_of(found).files] == [0o600, 0o700, 0o644, 0o644]
    notes = [each for each in found.notes if "may be a secret" in each]
    assert len(notes) == 2
    assert "own/a (and 1 more) may be a secret" in notes[0]
    assert "c.key may be a secret" in notes[1]


# --- two of one name, and who may read


def test_a_file_and_a_config_of_one_name_are_two(tmp_path: Path) -> None:
    text = """
        name: shop
        services:
          web:
            image: web
            volumes: ["./configs/a:/1:ro"]
            configs: [{source: a, target: /2}, {source: a, target: /3, mode: 0400}]
        configs: {a: {content: config}}
    """
    project = read(tmp_path / "shop", text, files={"configs/a": "file"})
    score = score_of(map_project(project, Registry([ComposeScore])))
    mounts = {each.target: each.source for each in score.services["web"].mounts}
    assert len({*mounts.values()}) == 3
    kept = {each.path: each for each in score.files}
    contents = [kept[mounts[f"/{number}"]].content for number in (1, 2, 3)]
    assert contents == ["file", "config", "config"]
    assert [kept[mounts[f"/{number}"]].mode for number in (2, 3)] == [0o444, 0o400]


def test_an_external_volume_is_not_taken_for_a_path(tmp_path: Path) -> None:
    text = """
        name: shop
        services: {web: {image: web, volumes: ["theirs:/a", "./data:/b"]}}
        volumes: {theirs: {external: true, name: shop_data}}
    """
    project = read(tmp_path / "shop", text)
    with pytest.raises(ComposeFileError, match=r"\./data and the volume shop_data would be one"):
        map_project(project, Registry([ComposeScore]))


# --- below /dev


def test_what_is_below_dev_is_as_it_was_said(tmp_path: Path) -> None:
    found = mapped(tmp_path, "/dev/sda:/dev/sda:ro", "/dev/ttyUSB0:/dev/tty", "/dev/shm/a:/a")
    assert service_of(found).devices == (
        ContainerDevice(source="/dev/sda", target="/dev/sda", access="r"),
        ContainerDevice(source="/dev/ttyUSB0", target="/dev/tty", access="rw"),
    )
    assert [each.source for each in service_of(found).mounts] == ["/dev/shm/a"]


def test_a_socket_below_dev_is_no_device(tmp_path: Path) -> None:
    told = refusal(tmp_path, "/dev/log:/dev/log")
    assert (
        "/dev/log is a socket or a pipe, and no device; mount /run/systemd/journal/dev-log" in told
    )
    text = "services: {web: {image: web, devices: [/dev/log]}}"
    with pytest.raises(ComposeFileError, match=r"devices\[0\]: /dev/log is a socket"):
        map_project(read(tmp_path / "2", text), Registry([ComposeScore]))
