"""The model of a disk: calls are to it what they are to the kernel, and what POSIX leaves open is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.powercuts.ground import Ground

ALL_KINDS = """
import os, sqlite3
os.makedirs("ROOT/a/b"); os.mkdir("ROOT/gone"); os.rmdir("ROOT/gone")
with open("ROOT/a/old", "r+b") as file:
    file.seek(3); file.write(b"new"); file.truncate(7)
with open("ROOT/a/old", "ab") as file:
    file.write(b"at the end")
descriptor = os.open("ROOT/a/sized", os.O_RDWR | os.O_CREAT, 0o640)
os.posix_fallocate(descriptor, 0, 1000); os.pwrite(descriptor, b"here", 500); os.ftruncate(descriptor, 900)
os.fchmod(descriptor, 0o600); os.write(descriptor, b"first"); os.close(descriptor)
above = os.open("ROOT/a", os.O_RDONLY | os.O_DIRECTORY)
nameless = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=above)
os.write(nameless, b"whole")
os.link(f"/proc/self/fd/{nameless}", "named", dst_dir_fd=above, follow_symlinks=True)
os.write(nameless, b" and more"); os.fsync(nameless); os.fsync(above)
os.rename("named", "b/moved", src_dir_fd=above, dst_dir_fd=above)
os.link("ROOT/a/b/moved", "ROOT/a/twice"); os.symlink("b/moved", "ROOT/a/link"); os.chmod("ROOT/a/b", 0o711)
with open("ROOT/a/emptied", "w") as file: file.write("x" * 100)
with open("ROOT/a/emptied", "w") as file: file.write("y")
os.replace("ROOT/a/emptied", "ROOT/a/twice")
with sqlite3.connect("ROOT/a/memory") as database:
    database.execute("PRAGMA journal_mode = WAL"); database.execute("CREATE TABLE t (x)")
    database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(500)])
database.close(); os.sync()
"""
"""All that our programs do to a disk, and more."""

SAFE = """
with open("ROOT/fresh", "wb", buffering=0) as file:
    file.write(b"new" * 1000); os.fsync(file.fileno())
os.rename("ROOT/fresh", "ROOT/file")
above = os.open("ROOT", os.O_RDONLY); os.fsync(above)
with open("SAID", "ab", buffering=0) as said: said.write(b"done")
"""
OLD, NEW = b"old", b"new" * 1000


def everything(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


def test_what_was_asked_for_is_what_stands_there_when_nothing_is_lost(ground: Ground) -> None:
    (ground.root / "a").mkdir()
    (ground.root / "a/old").write_bytes(b"0123456789")
    disk = ground.run(ALL_KINDS)
    disk.lay_out(None, ground.copies / "all")
    assert everything(ground.copies / "all") == everything(ground.root)
    # It has asked for all to be flushed: then there is one thing only that a cut may leave.
    (last,) = [each for each in disk.cuts() if each.at == len(disk.steps)]
    disk.lay_out(last, ground.copies / "last")
    assert everything(ground.copies / "last") == everything(ground.root)


def test_a_safe_write_leaves_the_old_or_the_new_and_once_it_is_said_the_new(ground: Ground) -> None:
    (ground.root / "file").write_bytes(OLD)
    disk = ground.run(SAFE)
    found = ground.found(disk, "file")
    assert found.keys() == {OLD, NEW}
    assert not any(disk.said_before(cut) for cut in found[OLD])
    assert any(disk.said_before(cut) == ["done"] for cut in found[NEW])


def test_what_is_written_by_a_descriptor_that_flushes_is_durable(ground: Ground) -> None:
    (ground.root / "file").write_bytes(OLD)
    program = """
os.write(os.open("ROOT/file", os.O_WRONLY | os.O_DSYNC), b"new")
with open("SAID", "ab", buffering=0) as said: said.write(b"done")
"""
    disk = ground.run(program)
    found = ground.found(disk, "file")
    assert not any(disk.said_before(cut) for cut in found[OLD])


def without(text: str) -> Callable[[], str]:
    assert text in SAFE
    return lambda: SAFE.replace(text, "pass")


@pytest.mark.parametrize(
    ("program", "may_be"),
    [
        pytest.param(without("os.fsync(file.fileno())"), b"", id="bytes not flushed"),
        pytest.param(without("os.fsync(file.fileno())"), NEW[:1024], id="bytes flushed in part"),
        pytest.param(without("os.fsync(above)"), OLD, id="name not flushed"),
    ],
)
def test_without_one_of_its_flushes_it_does_not(
    ground: Ground, program: Callable[[], str], may_be: bytes
) -> None:
    (ground.root / "file").write_bytes(OLD)
    disk = ground.run(program())
    assert any(disk.said_before(cut) == ["done"] for cut in ground.found(disk, "file")[may_be])


def test_a_directory_does_not_keep_its_own_name(ground: Ground) -> None:
    program = """
os.mkdir("ROOT/above")
with open("ROOT/above/file", "wb", buffering=0) as file:
    file.write(b"new"); os.fsync(file.fileno())
above = os.open("ROOT/above", os.O_RDONLY); os.fsync(above)
with open("SAID", "ab", buffering=0) as said: said.write(b"done")
"""
    disk = ground.run(program)
    lost = ground.found(disk, "above/file")[None]
    assert any(disk.said_before(cut) == ["done"] for cut in lost)
