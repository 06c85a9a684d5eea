"""The mounts of a container, in a folder that stands for the device's root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harmony_core.errors import CapabilityError, ContainerFailed, UnsafePath
from harmony_core.resources import Container, Mount
from harmony_pi_topology.containers.mounts import look_at_mounts

HERE = """\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /run rw,nosuid shared:9 - tmpfs tmpfs rw
41 22 8:17 / /mnt/my\\040disk rw shared:11 - ext4 /dev/sdb1 rw
"""
CONTAINER_ROOT = "90 80 0:50 / / rw - overlay overlay rw\n"


def mounting(*mounts: Mount) -> Container:
    return Container(name="web", image="registry.test/web:1", mounts=mounts)


def of(*sources: str) -> Container:
    return mounting(*(Mount(source=each, target=f"/{n}") for n, each in enumerate(sources)))


def refused(source: str, root: Path) -> CapabilityError:
    problem = look_at_mounts(of("/srv/data", source), root, None).problem
    assert problem is not None
    assert problem.resource == "container:web"
    return problem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "srv" / "data").mkdir(parents=True)
    (tmp_path / "srv" / "web.conf").write_bytes(b"one")
    (tmp_path / "srv" / "link").symlink_to("/etc")
    (tmp_path / "srv" / "dangling").symlink_to("/nowhere")
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "proc" / "7").mkdir()
    (tmp_path / "proc" / "1" / "mountinfo").write_text(HERE)
    return tmp_path


def test_mounts_of_files_and_directories_that_are_there_are_fine(root: Path) -> None:
    assert look_at_mounts(of("/srv/data", "/srv/web.conf"), root, None).problem is None


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("/srv/absent", ContainerFailed),
        ("/srv/web.conf/below", ContainerFailed),
        ("/srv/link", UnsafePath),
        ("/srv/link/data", UnsafePath),
        ("/srv/dangling", UnsafePath),
    ],
)
def test_any_other_mount_is_refused_by_name(
    root: Path, source: str, error: type[CapabilityError]
) -> None:
    problem = refused(source, root)
    assert isinstance(problem, error)
    assert source in problem.message


def test_of_a_link_it_is_said_where_it_leads(root: Path) -> None:
    assert "name the place that it leads to (/etc)" in refused("/srv/link", root).message


def test_what_is_unsafe_outweighs_what_is_missing(root: Path) -> None:
    assert isinstance(
        look_at_mounts(of("/srv/absent", "/srv/link", "/gone"), root, None).problem, UnsafePath
    )


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("above", ["srv", "srv/site"])
def test_a_source_below_what_others_may_write_is_refused(root: Path, mode: int, above: str) -> None:
    (root / "srv" / "site" / "www").mkdir(parents=True)
    (root / above).chmod(mode)
    problem = refused("/srv/site/www", root)
    assert isinstance(problem, UnsafePath)
    assert f"chmod go-w /{above}" in problem.message


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
@pytest.mark.parametrize("above", ["srv", "srv/site"])
def test_a_source_below_another_user_s_directory_is_refused(root: Path, above: str) -> None:
    (root / "srv" / "site" / "www").mkdir(parents=True)
    os.chown(root / above, 4711, 0)
    problem = refused("/srv/site/www", root)
    assert isinstance(problem, UnsafePath)
    assert f"/{above} belongs to the user 4711" in problem.message


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_the_source_itself_may_be_anybody_s(root: Path) -> None:
    os.chown(root / "srv" / "data", 4711, 4711)
    (root / "srv" / "data").chmod(0o777)
    assert look_at_mounts(of("/srv/data"), root, None).problem is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_in_a_sticky_directory_only_what_is_root_s_is_safe(root: Path) -> None:
    (root / "srv").chmod(0o1777)
    assert look_at_mounts(of("/srv/data"), root, None).problem is None
    os.chown(root / "srv" / "data", 4711, 4711)
    assert isinstance(look_at_mounts(of("/srv/data"), root, None).problem, UnsafePath)


def test_a_mounted_file_is_known_by_its_content(root: Path) -> None:
    before = look_at_mounts(of("/srv/web.conf", "/srv/data"), root, None)
    assert set(before.contents) == {"/srv/web.conf"}
    (root / "srv" / "data" / "new").write_bytes(b"")
    assert look_at_mounts(of("/srv/web.conf"), root, None).contents == before.contents
    (root / "srv" / "web.conf").write_bytes(b"two")
    assert look_at_mounts(of("/srv/web.conf"), root, None).contents != before.contents


def test_a_large_mounted_file_is_known_by_its_size_and_time(root: Path) -> None:
    with (root / "srv" / "web.conf").open("wb") as file:
        file.truncate(400 * 1024**3)
    before = look_at_mounts(of("/srv/web.conf"), root, None).contents
    assert look_at_mounts(of("/srv/web.conf"), root, None).contents == before
    os.truncate(root / "srv" / "web.conf", 401 * 1024**3)
    assert look_at_mounts(of("/srv/web.conf"), root, None).contents != before


@pytest.mark.parametrize("fields", [{"live": True}, {"read_only": False}], ids=str)
def test_what_it_may_write_itself_and_what_is_live_is_not_read(
    root: Path, fields: dict[str, bool]
) -> None:
    mount = Mount.model_validate({"source": "/srv/web.conf", "target": "/x", **fields})
    look = look_at_mounts(mounting(mount), root, None)
    assert (look.contents, look.watched) == ({}, ())


def test_a_pipe_in_a_source_s_place_is_no_file_and_keeps_nobody_waiting(root: Path) -> None:
    os.mkfifo(root / "srv" / "pipe")
    assert look_at_mounts(of("/srv/pipe"), root, None).contents == {}


@pytest.mark.parametrize(
    ("source", "line", "is_so"),
    [
        ("/srv/data", "8:2 /srv/data /0 ro", True),
        ("/srv/data", "8:2 /srv/data /0 rw", False),
        ("/srv/data", "8:2 /etc /0 ro", False),
        ("/srv/data", "8:2 /srv/data.real /0 ro", False),
        ("/srv/web.conf", "8:2 /srv/web.conf//deleted /0 ro", False),
        ("/srv/data", "8:17 /srv/data /0 ro", False),
        ("/run/x.sock", "0:40 /x.sock /0 ro", True),
        ("/run/x.sock", "0:40 /x.sock//deleted /0 ro", False),
        ("/mnt/my disk", "8:17 / /0 ro", True),
        ("/mnt/my disk/films", "8:17 /films /0 ro", True),
        ("/mnt/my disk", "8:2 /mnt/my\\040disk /0 ro", False),
        ("/srv/data", "8:2 /srv/data /elsewhere ro", True),
        ("/srv/data", "0:51 / /dev ro", False),
    ],
)
def test_what_is_mounted_is_compared_with_what_would_be(
    root: Path, source: str, line: str, is_so: bool
) -> None:
    device, part, point, options = line.split(" ")
    mounted = f"91 90 {device} {part} {point} {options},relatime - ext4 /dev/x rw\n"
    (root / "proc" / "7" / "mountinfo").write_text(CONTAINER_ROOT + mounted)
    look = look_at_mounts(of(source), root, 7)
    assert look.replaced == (frozenset() if is_so else {source})


def test_what_has_another_mount_on_top_is_not_seen(root: Path) -> None:
    lines = [
        f"9{n} 90 {what} /0 ro - ext4 /dev/x rw\n"
        for n, what in enumerate(("8:2 /srv/data", "8:2 /etc"))
    ]
    (root / "proc" / "7" / "mountinfo").write_text(CONTAINER_ROOT + "".join(lines))
    assert look_at_mounts(of("/srv/data"), root, 7).replaced == {"/srv/data"}


@pytest.mark.parametrize("table", [None, "95 90 8:2 /x /tmp rw - ext4 /dev/x rw\n"])
def test_of_what_has_ended_or_changed_its_root_nothing_is_said(
    root: Path, table: str | None
) -> None:
    if table is not None:
        (root / "proc" / "7" / "mountinfo").write_text(table)
    assert look_at_mounts(of("/srv/data"), root, 7).replaced == frozenset()
