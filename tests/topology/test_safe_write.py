"""Files written beneath a root: whole, durable, all of a batch or none, and honest when that fails."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from harmony_core.errors import CapabilityError, InvalidResource, UnsafePath, WriteFailed
from harmony_pi_topology.posix.beneath import Opener
from harmony_pi_topology.posix.root import Draft, Found, Root
from harmony_pi_topology.posix.safe_write import publish, stage
from tests.topology.place import (
    DEEDS,
    NEW,
    OLD,
    RESOLVERS,
    Place,
    opener_named,
    place_in,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which only root may")
BIG = bytes(range(256)) * 1024


@pytest.fixture(params=RESOLVERS)
def resolver(request: pytest.FixtureRequest) -> Opener:
    return opener_named(str(request.param))


@pytest.fixture
def place(tmp_path: Path, resolver: Opener) -> Iterator[Place]:
    with place_in(tmp_path, resolver) as place:
        yield place


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777, 0o10644, -1])
def test_special_bits_are_refused(place: Place, mode: int) -> None:
    place.put("/target")
    with pytest.raises(UnsafePath, match="set-user-id"):
        place.write("/target", mode=mode)
    with pytest.raises(UnsafePath, match="set-user-id"):
        place.root.change("/target", mode=mode)
    assert place.at("/target").read_bytes() == OLD


@pytest.mark.parametrize("number", [-2, 2**32 - 1, 2**32, 2**64])
def test_a_number_that_is_no_user_is_refused(place: Place, number: int) -> None:
    place.put("/target")
    for uid, gid in ((number, 0), (0, number)):
        draft = Draft(path="/target", content=NEW, mode=0o644, uid=uid, gid=gid)
        with pytest.raises(InvalidResource, match="no user or group"):
            place.root.write_many([draft])
        with pytest.raises(InvalidResource, match="no user or group"):
            place.root.change("/target", mode=0o644, uid=uid, gid=gid)
    assert place.at("/target").read_bytes() == OLD


@pytest.mark.parametrize("content", [b"", NEW, BIG], ids=["empty", "short", "allocated"])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o644, 0o777])
def test_a_file_has_exactly_the_content_and_mode(place: Place, content: bytes, mode: int) -> None:
    before = os.umask(0o077)
    try:
        found = place.write("/new", content, mode)
    finally:
        os.umask(before)
    assert found == place.root.look("/new")
    assert (found.kind, found.mode, found.size_bytes) == ("file", mode, len(content))
    place.at("/new").chmod(0o600)
    assert place.at("/new").read_bytes() == content
    assert place.names() == ["new"]


def test_a_file_is_replaced_and_never_written_into(place: Place) -> None:
    inode = place.put("/target").stat().st_ino
    with place.at("/target").open("rb") as reader:
        assert place.write("/target").inode != inode
        assert reader.read() == OLD
    assert place.root.read("/target", max_bytes=100) == NEW


@AS_ROOT
def test_a_file_is_given_away_and_its_bits_stay(place: Place) -> None:
    draft = Draft(path="/new", content=NEW, mode=0o755, uid=1000, gid=1001)
    (found,) = place.root.write_many([draft])
    assert (found.uid, found.gid, found.mode) == (1000, 1001, 0o755)
    changed = place.root.change("/new", mode=0o700, uid=0, gid=0)
    assert (changed.uid, changed.gid, changed.mode) == (0, 0, 0o700)
    assert changed.inode == found.inode


def test_many_are_written_in_order_and_across_directories(place: Place) -> None:
    paths = [f"/d{n % 3}/f{n}" for n in range(50)]
    for n in range(3):
        place.at(f"/d{n}").mkdir()
    drafts = [Draft(path=path, content=path.encode(), mode=0o600) for path in paths]
    assert place.root.write_many(drafts) == place.root.look_many(paths)
    assert all(place.at(path).read_bytes() == path.encode() for path in paths)


def test_a_file_at_the_very_top_can_be_written(place: Place) -> None:
    place.write("/swapfile.conf")
    assert place.root.make_parents("/swapfile.conf") == []
    assert place.root.remove("/swapfile.conf")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_when_one_of_many_cannot_be_written_nothing_is_changed(place: Place, position: int) -> None:
    inodes = [place.put(f"/etc/{n}").stat().st_ino for n in range(3)]
    place.at(f"/etc/{position}").unlink()
    place.at(f"/etc/{position}").mkdir()
    drafts = [Draft(path=f"/etc/{n}", content=NEW, mode=0o644) for n in range(3)]
    with pytest.raises(UnsafePath):
        place.root.write_many(drafts)
    assert place.names("/etc") == ["0", "1", "2"]
    for n in {0, 1, 2} - {position}:
        assert place.at(f"/etc/{n}").stat().st_ino == inodes[n]


@pytest.mark.parametrize("content", [BIG, BIG[:5000]], ids=["allocated", "written in part"])
def test_a_file_beyond_the_size_limit_is_refused_and_the_old_one_intact(
    place: Place, content: bytes
) -> None:
    place.put("/target")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) - 1, hard))
    try:
        with pytest.raises(WriteFailed, match="File too large; larger than"):
            place.write("/target", content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.at("/target").read_bytes() == OLD
    assert place.names() == ["target"]


def test_without_descriptors_to_spare_nothing_is_changed_and_it_is_said(place: Place) -> None:
    place.at("/etc").mkdir()
    drafts = [Draft(path=f"/etc/{n}", content=NEW, mode=0o644) for n in range(200)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        with pytest.raises(WriteFailed, match="too many open files; raise"):
            place.root.write_many(drafts)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.names("/etc") == []
    assert len(place.root.write_many(drafts)) == 200


def test_where_the_directory_is_missing_it_is_said(place: Place) -> None:
    with pytest.raises(WriteFailed, match=r"/etc/motd could not be written: .* its directory"):
        place.write("/etc/motd")
    assert place.root.look("/etc/motd") is None
    assert not place.root.remove("/etc/motd")
    with pytest.raises(FileNotFoundError):
        place.root.read("/etc/motd", max_bytes=1)


def test_descriptors_are_given_back(place: Place) -> None:
    place.put("/etc/motd")
    place.at("/link").symlink_to("nowhere")
    before = os.listdir("/proc/self/fd")
    for path in ("/etc/motd", "/etc", "/link", "/nowhere/x", "/etc/motd/x", "/etc/..", "/a/b/c"):
        for deed in DEEDS.values():
            try:
                deed(place.root, path)
            except (CapabilityError, FileNotFoundError):
                continue
    place.root.sweep(["/etc", "/", "/link", "/nowhere"])
    assert os.listdir("/proc/self/fd") == before


# Reading, removing, directories.


def test_what_is_read_is_bounded(place: Place) -> None:
    place.put("/target", b"12345")
    assert place.root.read("/target", max_bytes=5) == b"12345"
    with pytest.raises(UnsafePath, match="5 bytes, more than the 4"):
        place.root.read("/target", max_bytes=4)


def test_a_file_is_hashed_whole(place: Place) -> None:
    place.put("/target", BIG)
    assert place.root.sha256("/target") == hashlib.sha256(BIG).hexdigest()


def test_removing_is_idempotent(place: Place) -> None:
    place.put("/target")
    assert place.root.remove("/target")
    assert not place.root.remove("/target")
    assert place.names() == []


def test_parents_are_made_with_their_mode_and_told_topmost_first(place: Place) -> None:
    place.at("/etc").mkdir()
    before = os.umask(0o077)
    try:
        made = place.root.make_parents("/etc/a/b/c")
    finally:
        os.umask(before)
    assert made == ["/etc/a", "/etc/a/b"]
    assert stat.S_IMODE(place.at("/etc/a/b").stat().st_mode) == 0o755
    assert place.root.make_parents("/etc/a/b/c") == []


def test_only_empty_directories_are_removed_deepest_first(place: Place) -> None:
    made = place.root.make_parents("/a/b/c/d")
    place.put("/a/kept")
    assert place.root.remove_empty(made) == ["/a/b/c", "/a/b"]
    assert place.names("/a") == ["kept"]


def test_a_directory_that_somebody_else_removed_is_gone_too(place: Place) -> None:
    assert place.root.remove_empty(["/a", "/a/b"]) == ["/a/b", "/a"]


def test_sweeping_takes_what_a_killed_writer_left_and_nothing_else(place: Place) -> None:
    for name in (".harmony.0123.tmp", "motd", ".harmony.toml", "x.tmp"):
        place.put(f"/etc/{name}")
    place.put("/.harmony.4567.tmp")
    place.at("/etc/.harmony.d.tmp").mkdir()
    place.at("/link").symlink_to(place.outside)
    assert place.root.sweep(["/etc", "/", "/missing", "/link", "/etc/motd", "/etc/.."]) == 2
    assert place.names("/etc") == [".harmony.d.tmp", ".harmony.toml", "motd", "x.tmp"]


def test_nobody_sweeps_up_what_is_being_written_by_the_same_process(place: Place) -> None:
    place.put("/etc/motd")
    directory = os.open(place.at("/etc"), os.O_RDONLY)
    with stage(Draft(path="/etc/motd", content=NEW, mode=0o644), directory) as file:
        file.directory = -1
        with pytest.raises(WriteFailed):
            publish(file)
        place.put(f"/etc/{file.temporary}")
        assert place.root.sweep(["/etc"]) == 0
    os.close(directory)
    assert len(place.names("/etc")) == 2


def test_a_root_named_by_a_link_is_what_the_link_leads_to(place: Place) -> None:
    alias = place.here.parent / "alias"
    alias.symlink_to(place.here)
    with Root(str(alias)) as root:
        root.write_many([Draft(path="/x", content=NEW, mode=0o644)])
    assert place.at("/x").read_bytes() == NEW


def test_a_root_may_be_closed_twice(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.close()
    before = os.listdir("/proc/self/fd")
    root.close()
    assert os.listdir("/proc/self/fd") == before


# A disk that does not flush.


class Unflushing:
    """Opens directories such that they cannot be flushed, as long as the disk is ill."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.is_ill = True

    def __call__(self, directory: int, relative: str, flags: int) -> int:
        if self.is_ill and flags & os.O_DIRECTORY:
            flags |= os.O_PATH  # good for looking, making and renaming, but not for fsync
        return self._opener(directory, relative, flags)


@pytest.fixture
def disk(resolver: Opener) -> Unflushing:
    return Unflushing(resolver)


@pytest.fixture
def ill(tmp_path: Path, disk: Unflushing) -> Iterator[Place]:
    with place_in(tmp_path, disk) as place:
        yield place


def test_what_may_not_last_is_not_told_until_it_does(ill: Place, disk: Unflushing) -> None:
    ill.put("/etc/motd")
    with pytest.raises(WriteFailed, match="/etc could not be flushed"):
        ill.write("/etc/motd")
    assert ill.at("/etc/motd").read_bytes() == NEW
    with pytest.raises(WriteFailed, match="/etc could not be flushed"):
        ill.root.look("/etc/motd")
    (answer,) = ill.root.look_many(["/etc/motd"])
    assert isinstance(answer, WriteFailed)
    assert ill.root.look("/elsewhere") is None
    disk.is_ill = False
    assert isinstance(ill.root.look("/etc/motd"), Found)
    disk.is_ill = True
    assert isinstance(ill.root.look("/etc/motd"), Found)


def test_a_removal_that_may_not_last_is_not_told_until_it_does(
    ill: Place, disk: Unflushing
) -> None:
    ill.put("/etc/motd")
    for _ in range(2):
        with pytest.raises(WriteFailed, match="/etc could not be flushed"):
            ill.root.remove("/etc/motd")
    disk.is_ill = False
    assert not ill.root.remove("/etc/motd")


def test_a_directory_that_may_not_last_is_made_sure_of_before_it_is_used(
    ill: Place, disk: Unflushing
) -> None:
    with pytest.raises(WriteFailed, match="/etc could not be made"):
        ill.root.make_parents("/etc/systemd/x")
    assert ill.at("/etc").is_dir()
    for _ in range(2):
        with pytest.raises(WriteFailed, match="/ could not be flushed"):
            ill.root.make_parents("/etc/systemd/x")
    disk.is_ill = False
    assert ill.root.make_parents("/etc/systemd/x") == ["/etc/systemd"]


def test_each_directory_is_flushed_though_another_failed(ill: Place, disk: Unflushing) -> None:
    paths = ["/a/x", "/b/x"]
    for path in paths:
        ill.at(path).parent.mkdir()
    with pytest.raises(WriteFailed, match="/a could not be flushed"):
        ill.root.write_many([Draft(path=path, content=NEW, mode=0o644) for path in paths])
    for path in paths:
        with pytest.raises(WriteFailed, match=f"{path[:2]} could not be flushed"):
            ill.root.look(path)
    disk.is_ill = False
    assert all(isinstance(each, Found) for each in ill.root.look_many(paths))


def test_a_directory_that_could_not_be_flushed_and_is_gone_stands_in_nobody_s_way(
    ill: Place, disk: Unflushing
) -> None:
    ill.put("/etc/motd")
    with pytest.raises(WriteFailed):
        ill.root.remove("/etc/motd")
    ill.at("/etc").rmdir()
    assert ill.root.look("/etc/motd") is None
