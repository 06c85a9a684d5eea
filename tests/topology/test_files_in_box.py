"""The contract of files on a Pi's own root file system, owners included."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest

from harmony_core.change import Change
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import File, PresentAt
from harmony_core.testing import FilesUnderTest, FileSystemHostContract
from harmony_pi_topology.files.reconciler import PosixFiles
from tests.box import Box

from .folder import FolderBystander


@pytest.fixture
async def files(pi: Box) -> AsyncGenerator[PosixFiles]:
    root = str(pi.root)
    files = PosixFiles(
        root,
        records=MemoryRecords(),
        backups=MemoryBackups(),
        secrets_directory=f"{root}/etc/harmony-contract-secrets",
        owner_checked=True,
    )
    yield files
    await files.close()


class TestPosixFilesOnAPi(FileSystemHostContract):
    @pytest.fixture
    def host(self, pi: Box, files: PosixFiles) -> Iterator[FilesUnderTest]:
        secrets = pi.root / "etc/harmony-contract-secrets"
        yield FilesUnderTest(
            files=files, bystander=FolderBystander(pi.root, secrets_directory=secrets)
        )
        pi.run(["rm", "-rf", self.BASE, "/etc/harmony-contract-secrets"])


async def test_a_file_is_given_to_the_pi_s_own_user(pi: Box, files: PosixFiles) -> None:
    pi.run(["useradd", "--uid", "4711", "--create-home", "gardener"])
    wish = File(path="/home/gardener/plan", content=b"water\n", owner="gardener", group="gardener")
    for changed in (True, False):
        (change,) = await files.converge([wish], apply=True)
        assert isinstance(change, Change)
        assert change.changed == changed
    facts = (pi.root / "home/gardener/plan").stat()
    assert (facts.st_uid, facts.st_gid) == (4711, 4711)
    state = await files.observe("/home/gardener/plan")
    assert isinstance(state, PresentAt)
    assert (state.owner, state.group) == ("gardener", "gardener")
    assert pi.text("stat", "-c", "%U:%G %a", "/home/gardener/plan") == "gardener:gardener 644"


async def test_a_path_through_debian_s_links_is_refused_with_the_real_one(
    files: PosixFiles,
) -> None:
    (error,) = await files.converge([File(path="/bin/tool", content=b"")], apply=True)
    assert isinstance(error, Exception)
    assert "/usr/bin" in str(error)


WRITES_ONCE = """
import asyncio
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import File
from harmony_pi_topology.files.reconciler import PosixFiles

async def write():
    files = PosixFiles(records=MemoryRecords(), backups=MemoryBackups())
    (result,) = await files.converge([File(path="/srv/fw/x", content=b"x")], apply=True)
    await files.close()
    print(getattr(result, "message", "written"))

asyncio.run(write())
"""
"""In a mount namespace of its own, as a service with ProtectKernelTunables= and the like has."""


def test_a_disk_made_writable_behind_the_agent_s_back_is_told_from_a_failing_one(pi: Box) -> None:
    pi.run(["mkdir", "-p", "/srv/fw"])
    pi.run(["mount", "-t", "tmpfs", "none", "/srv/fw"])
    pi.run(["mount", "-o", "remount,ro", "/srv/fw"])
    write = ["/opt/harmony/bin/python", "-c", WRITES_ONCE]
    in_between = "nsenter --mount=/proc/1/ns/mnt mount -o remount,rw /srv/fw"
    try:
        told = pi.text(*write)
        assert "read-only; look at the kernel's log" in told
        own = ["unshare", "--mount", "--propagation", "slave", "sh", "-c"]
        told = pi.text(*own, f'{in_between} && exec "$@"', "sh", *write)
        assert "/srv/fw was read-only when the agent was started" in told
        assert "systemctl restart harmony-agent" in told
        assert pi.text(*write) == "written"  # as after a restart
    finally:
        pi.run(["umount", "/srv/fw"])


def test_a_disk_without_an_inode_left_is_not_called_full(pi: Box) -> None:
    pi.run(["mkdir", "-p", "/srv/fw"])
    pi.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=2,size=1m", "none", "/srv/fw"])
    write = ["/opt/harmony/bin/python", "-c", WRITES_ONCE]
    try:
        pi.run(["touch", "/srv/fw/taken"])
        assert "no inode is left" in pi.text(*write)
        pi.run(["mount", "-o", "remount,nr_inodes=9", "/srv/fw"])
        assert pi.text(*write) == "written"
        pi.run(["rm", "/srv/fw/x"])
        pi.run(["dd", "if=/dev/zero", "of=/srv/fw/taken", "bs=1M", "count=2"], check=False)
        assert "the disk is full" in pi.text(*write)
    finally:
        pi.run(["umount", "/srv/fw"])


IDENTIFIES = """
import asyncio, sys
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Directory, File
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles

async def identify(one, other):
    files = PosixFiles(records=MemoryRecords(), backups=MemoryBackups())
    directories = PosixDirectories(records=MemoryRecords())
    found = []
    for path in (one, other):
        if path.endswith("/"):
            found.append(await directories.identities(Directory(path=path.rstrip("/"))))
        else:
            found.append(await files.identities(File(path=path, content=b"")))
    await files.close()
    await directories.close()
    print("one" if found[0] & found[1] else "two")

asyncio.run(identify(*sys.argv[1:]))
"""


def test_a_thing_is_one_under_all_names_that_mounts_and_links_give_it(pi: Box) -> None:
    def identify(one: str, other: str) -> str:
        return pi.text("/opt/harmony/bin/python", "-c", IDENTIFIES, one, other)

    pi.run(["mkdir", "-p", "/srv/data/usb", "/srv/again"])
    pi.run(["sh", "-c", "cd /srv/data; touch f g bound; ln f linked; touch /srv/bound"])
    mounted = ["/srv/data/usb", "/srv/again", "/srv/bound"]
    pi.run(["mount", "-t", "tmpfs", "none", "/srv/data/usb"])
    pi.run(["mount", "--bind", "/srv/data", "/srv/again"])
    pi.run(["mount", "--bind", "/srv/data/bound", "/srv/bound"])
    try:
        assert identify("/srv/data/", "/srv/again/") == "one"
        assert identify("/srv/data/f", "/srv/again/f") == "one"
        assert identify("/srv/data/not/yet", "/srv/again/not/yet") == "one"
        assert identify("/srv/data/f", "/srv/data/linked") == "one"
        assert identify("/srv/data/linked", "/srv/again/f") == "one"
        assert identify("/srv/data/bound", "/srv/bound") == "one"
        assert identify("/srv/data/f", "/srv/again/g") == "two"
        assert identify("/srv/data/", "/srv/data/f") == "two"
        assert identify("/srv/data/not", "/srv/data/not/yet") == "two"
        # What is mounted beneath one of the two names is not beneath the other.
        assert identify("/srv/data/usb/f", "/srv/again/usb/f") == "two"
    finally:
        for point in reversed(mounted):
            pi.run(["umount", point])
