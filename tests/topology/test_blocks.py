"""Parts of files in a folder and in memory: the contracts, and what a disk adds."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core import Block, BlockLines, BlockPart, Line, Setting, Word, WordValue
from harmony_core.change import Change
from harmony_core.errors import DidNotStick, NotInForce, UnsafePath, WriteFailed
from harmony_core.reconciler import AnyReconciler, MemoryBackups, MemoryRecords
from harmony_core.resources.block import split_block_key
from harmony_core.testing import (
    BlockHostContract,
    BlocksUnderTest,
    CapabilityContract,
    CapabilityUnderTest,
    FakeBlocks,
)
from harmony_pi_topology.blocks.posix import PosixBlocks
from harmony_pi_topology.blocks.text import part_of, wanted_text
from harmony_pi_topology.posix.root import Root

from .folder import FolderBystander
from .odd_disk import odd_disk

PATH = "/etc/it.conf"


class TestFakeBlocks(BlockHostContract):
    @pytest.fixture
    def host(self) -> BlocksUnderTest:
        fake = FakeBlocks()
        return BlocksUnderTest(blocks=fake, rebooted=fake.rebooted, bystander=fake)


class Place:
    """A folder that stands for a device."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.file = self.root / PATH[1:]
        self._kept = MemoryRecords(), MemoryBackups()
        self._made = list[PosixBlocks]()
        self.blocks = self.again()

    def again(self) -> PosixBlocks:
        """As a new process has it, in a new boot."""
        records, backups = self._kept
        boot_id = str(uuid.uuid4())
        made = PosixBlocks(str(self.root), records=records, backups=backups, boot_id=boot_id)
        self._made.append(made)
        return made

    def write(self, content: bytes) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_bytes(content)

    async def apply(self, block: Block) -> Change | Exception:
        (result,) = await self.blocks.converge([block], apply=True)
        return result

    async def close(self) -> None:
        for each in self._made:
            await each.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    it = Place(tmp_path)
    yield it
    await it.close()


class TestPosixBlocks(BlockHostContract):
    @pytest.fixture
    def host(self, place: Place, tmp_path: Path) -> BlocksUnderTest:
        bystander = FolderBystander(place.root, secrets_directory=tmp_path / "secrets")
        return BlocksUnderTest(blocks=place.blocks, rebooted=place.again, bystander=bystander)


class _Outsider:
    """Somebody with an editor."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def identity(self, key: str) -> object | None:
        path, _, names = split_block_key(key)
        try:
            content = (self._place.root / path[1:]).read_bytes()
        except FileNotFoundError:
            return None
        return part_of(key).find(content) if names else None

    def disturb(self, key: str) -> None:
        file = self._place.root / split_block_key(key)[0][1:]
        file.write_bytes(file.read_bytes().replace(b"=", b"= other", 1))

    def make_foreign(self) -> str:
        self._place.write(b"theirs=1\n")
        return setting("1", key="theirs").key


def setting(value: str, key: str = "a") -> Block:
    return Block(path=PATH, part=Setting(key=key, value=value))


class TestBlocksAsACapability(CapabilityContract[Block]):
    @pytest.fixture
    def host(self, place: Place) -> CapabilityUnderTest[Block]:
        (place.root / "there").mkdir()

        def again() -> AnyReconciler:
            return place.again()

        return CapabilityUnderTest(
            reconciler=place.blocks,
            restarted=again,
            wish=setting("1"),
            changed=setting("2"),
            beside=Block(path="/etc/beside.conf", part=BlockLines(name="x", text="x")),
            refused=Block(path="/there", part=Setting(key="a", value="1")),
            outsider=_Outsider(place),
        )


async def test_mode_owner_and_attributes_of_the_file_stay_and_its_time_does_not(
    place: Place,
) -> None:
    place.write(b"a=1\n")
    os.chown(place.file, 1000, 1001)
    place.file.chmod(0o640)
    os.setxattr(place.file, "user.note", b"theirs")
    os.utime(place.file, ns=(1, 1))
    assert isinstance(await place.apply(setting("2")), Change)
    facts = place.file.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (1000, 1001, 0o640)
    assert os.getxattr(place.file, "user.note") == b"theirs"
    assert facts.st_mtime_ns > 1
    assert [each.name for each in place.file.parent.iterdir()] == ["it.conf"]


async def test_what_could_not_be_replaced_without_a_loss_is_refused(place: Place) -> None:
    place.write(b"a=1\n")
    (place.root / "other").hardlink_to(place.file)
    error = await place.apply(setting("2"))
    assert isinstance(error, UnsafePath)
    assert "hard links" in error.message
    assert place.file.read_bytes() == b"a=1\n"


@pytest.mark.parametrize("content", [b"a=1\0", b"x" * (1024 * 1024 + 1)])
async def test_what_is_no_text_or_too_large_is_refused(place: Place, content: bytes) -> None:
    place.write(content)
    assert isinstance(await place.apply(setting("2")), UnsafePath)
    assert place.file.read_bytes() == content


async def test_who_writes_between_our_look_and_our_write_is_not_overwritten(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(b"a=1\n")
    look = Root.extras

    def meanwhile(self: Root, path: str) -> object:
        place.file.write_bytes(b"a=1\nb=theirs\n")
        return look(self, path)

    monkeypatch.setattr(Root, "extras", meanwhile)
    assert isinstance(await place.apply(setting("2")), WriteFailed)
    assert place.file.read_bytes() == b"a=1\nb=theirs\n"
    monkeypatch.undo()
    assert isinstance(await place.apply(setting("2")), Change)
    assert place.file.read_bytes() == b"a=2\nb=theirs\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_where_no_modes_are_kept_and_no_file_is_without_a_name_as_on_fat(
    place: Place,
) -> None:
    (place.root / "boot").mkdir()
    config = place.root / "boot/config.txt"
    wish = Block(path="/boot/config.txt", part=Setting(key="a", value="2"), keep_previous=True)
    with odd_disk(place.root / "boot", "fixed_mode=0755", "fixed_owner=0", "chmod=refuse"):
        config.write_bytes(b"a=1\r\nb=1\r\n")
        change = await place.apply(wish)
        assert isinstance(change, Change), change
        assert change.after == await place.blocks.observe(wish.key)
        assert config.read_bytes() == b"a=2\r\nb=1\r\n"
        assert Path(f"{config}.harmony-previous").read_bytes() == b"a=1\r\nb=1\r\n"
        (removed,) = await place.blocks.remove([wish.key], apply=True)
        assert isinstance(removed, Change), removed
        assert config.read_bytes() == b"a=1\r\nb=1\r\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_file_system_that_keeps_other_bytes_is_told(place: Place) -> None:
    (place.root / "boot").mkdir()
    wish = Block(path="/boot/config.txt", part=Setting(key="a", value="2"))
    with odd_disk(place.root / "boot", "content=upper"):
        (place.root / "boot/config.txt").write_bytes(b"A=1\n")
        assert isinstance(await place.apply(wish), DidNotStick)


TEXT = st.lists(
    st.sampled_from(
        [b"a=1", b"a = 2", b"b=1", b"[s]", b"[t]", b"# c", b"", b"l", b"\xff", b"w x=1", b"  "]
    ),
    max_size=8,
)
PARTS: list[BlockPart] = [
    BlockLines(name="n", text="one\ntwo"),
    BlockLines(name="n", text="", comment=";"),
    Setting(key="a", value="9"),
    Setting(section="s", key="a", value="9"),
    Setting(section="s", and_top=True, key="a", value="9"),
    Line(line="l"),
    Line(section="t", line="l"),
    Word(word="quiet"),
    WordValue(name="x", value="2"),
]


@given(TEXT, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.sampled_from(PARTS))
def test_of_any_text_only_the_part_changes(
    lines: list[bytes], end: bytes, is_ended: bool, part: BlockPart
) -> None:
    content = end.join(lines) + (end if is_ended else b"")
    block = Block(path=PATH, part=part)
    selected = part_of(block.key)
    try:
        found = selected.find(content)
        text = wanted_text(block, found)
        changed = selected.put(content, text)
    except UnsafePath:
        return
    assert selected.find(changed) == text
    assert wanted_text(block, text) == text
    rest = selected.take(changed)
    assert selected.find(rest) is None or part in (Line(line="l"), Word(word="quiet"))
    if found is not None:
        assert selected.put(changed, found) == content
    else:
        header = f"[{getattr(part, 'section', None)}]".encode()
        had = content.splitlines()
        assert [each for each in rest.splitlines() if each != header or header in had] == had


LINE = b"console=serial0,115200 root=PARTUUID=1-02 rootwait\n"
BOOTED = frozenset({"console=ttyS0,115200", "root=PARTUUID=1-02", "rootwait"})


@pytest.mark.parametrize(
    ("booted", "then", "is_refused"),
    [
        (BOOTED, BOOTED, True),
        (BOOTED, BOOTED | {"quiet"}, False),
        (frozenset({"root=/dev/vda"}), frozenset({"root=/dev/vda"}), False),
    ],
    ids=["booted without", "booted with it", "booted by another file"],
)
async def test_a_word_that_a_boot_has_not_brought_onto_the_kernels_line_is_told(
    booted: frozenset[str], then: frozenset[str], is_refused: bool
) -> None:
    blocks = FakeBlocks()
    blocks.write(PATH, LINE)
    blocks.kernel_words = booted
    block = Block(path=PATH, part=Word(word="quiet"), read_at_boot=True)
    more = Block(path=PATH, part=WordValue(name="fsck", value="skip"), read_at_boot=True)
    for each in (block, more):
        (done,) = await blocks.converge([each], apply=True)
        assert isinstance(done, Change), done
    blocks.rebooted()
    blocks.kernel_words = then | {"fsck=skip"}
    (found,) = await blocks.converge([block], apply=True)
    assert isinstance(found, NotInForce) is is_refused
    if isinstance(found, NotInForce):
        assert "has quiet, and the device was booted without" in found.message
    (found,) = await blocks.converge([more], apply=True)
    assert isinstance(found, Change)
