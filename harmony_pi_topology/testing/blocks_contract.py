"""The contract of `BlockHost`: what every reconciler of parts of files passes, fake and real.

::

    class TestMyBlocks(BlockHostContract):
        @pytest.fixture
        def host(self) -> BlocksUnderTest: ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import NotOurs, UnsafePath
from harmony_core.reconciler import Reconciler
from harmony_core.resources import (
    Block,
    BlockAt,
    BlockLines,
    BlockPart,
    Line,
    Setting,
    Word,
    WordValue,
)

from .hearing import Hearer

__all__ = ["BlockBystander", "BlockHostContract", "BlocksUnderTest"]

HOSTS = b"127.0.0.1\tlocalhost\n\n# theirs\n::1\tlocalhost"
TIMES = b"# theirs\n[Time]\n#NTP=\nFallbackNTP = a b\n\n[Other]\nNTP=other\n"
CONFIG = b"# top\r\ndtparam=audio=on\r\n\r\n[pi4]\r\narm_boost=1\r\n\r\n[all]\r\n"
CMDLINE = b"console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootwait\n"
MARKED = b"# harmony: begin lab\n10.0.0.1 gw\n10.0.0.2 nas\n# harmony: end lab\n"


class BlockBystander(Protocol):
    """Somebody else on the same disk."""

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file, and make its directories."""

    def read(self, path: str) -> bytes | None: ...

    def mode(self, path: str) -> int: ...

    def exists(self, path: str) -> bool: ...

    def symlink(self, path: str, target: str) -> None: ...


@attrs.frozen(kw_only=True)
class BlocksUnderTest:
    """A reconciler of parts of files, and somebody else on the same disk."""

    blocks: Reconciler[Block, BlockAt]
    rebooted: Callable[[], Reconciler[Block, BlockAt]]
    """Makes a reconciler over the same disk and records, once the device was booted anew."""
    bystander: BlockBystander

    async def apply_one(self, block: Block) -> Change:
        return _change((await self.blocks.converge([block], apply=True))[0])

    async def expect_refusal(self, block: Block) -> Exception:
        (error,) = await self.blocks.converge([block], apply=True)
        assert isinstance(error, Exception)
        return error

    async def remove_one(self, key: str) -> Change:
        return _change((await self.blocks.remove([key], apply=True))[0])


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


LAB = BlockLines(name="lab", text="10.0.0.1 gw\n10.0.0.2 nas\n")
NTP = Setting(section="Time", key="NTP", value="pool.test")
AUDIO = Setting(section="all", and_top=True, key="dtparam=audio", value="off")
OVERLAY = Line(section="all", and_top=True, line="dtoverlay=w1-gpio")

CASES: list[tuple[bytes, BlockPart, bytes]] = [
    (HOSTS, LAB, HOSTS + b"\n" + MARKED),
    (TIMES, NTP, TIMES.replace(b"FallbackNTP = a b\n", b"FallbackNTP = a b\nNTP=pool.test\n")),
    (
        TIMES,
        Setting(section="Time", key="FallbackNTP", value="c"),
        TIMES.replace(b"= a b", b"= c"),
    ),
    (TIMES, Setting(section="New", key="a", value="1"), TIMES + b"[New]\na=1\n"),
    (TIMES, Setting(key="a", value="1"), TIMES.replace(b"# theirs\n", b"# theirs\na=1\n")),
    (CONFIG, AUDIO, CONFIG.replace(b"audio=on", b"audio=off")),
    (CONFIG, OVERLAY, CONFIG + b"dtoverlay=w1-gpio\r\n"),
    (
        CONFIG,
        Setting(section="pi4", key="gpu_mem", value="64"),
        CONFIG.replace(b"arm_boost=1\r\n", b"arm_boost=1\r\ngpu_mem=64\r\n"),
    ),
    (CMDLINE, Word(word="quiet"), CMDLINE.replace(b"rootwait", b"rootwait quiet")),
    (CMDLINE, Word(word="console=tty2"), CMDLINE.replace(b"wait", b"wait console=tty2")),
    (
        CMDLINE,
        WordValue(name="root", value="/dev/sda2"),
        CMDLINE.replace(b"PARTUUID=1-02", b"/dev/sda2"),
    ),
    (b"a b", WordValue(name="c", value="d"), b"a b c=d"),
    (b"\xff\xfe=1\n", Setting(key="a", value="1"), b"\xff\xfe=1\na=1\n"),
]


class BlockHostContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BELOW: ClassVar[str] = "/srv/harmony-contract"

    @pytest.fixture
    @abstractmethod
    def host(self) -> BlocksUnderTest:
        """Return a disk on which there is nothing at `BELOW`."""

    @property
    def path(self) -> str:
        return f"{self.BELOW}/it.conf"

    def block(self, part: BlockPart, *, create: bool = True) -> Block:
        return Block(path=self.path, part=part, create=create)

    @pytest.mark.parametrize(("before", "part", "after"), CASES)
    async def test_a_part_is_made_so_and_given_back_and_every_other_byte_stays(
        self, host: BlocksUnderTest, before: bytes, part: BlockPart, after: bytes
    ) -> None:
        host.bystander.write(self.path, before, 0o640)
        block = self.block(part)
        (planned,) = await host.blocks.converge([block], apply=False)
        assert host.bystander.read(self.path) == before
        change = await host.apply_one(block)
        assert planned == change
        assert change.changed
        assert host.bystander.read(self.path) == after
        assert host.bystander.mode(self.path) == 0o640
        assert change.after == await host.blocks.observe(block.key)
        assert (await host.apply_one(block)).actions == ()
        (planned,) = await host.blocks.remove([block.key], apply=False)
        assert host.bystander.read(self.path) == after
        removed = await host.remove_one(block.key)
        assert removed == planned
        assert host.bystander.read(self.path) == before
        assert (await host.remove_one(block.key)).actions == ()

    async def test_a_file_that_is_not_there_is_made_and_goes_with_its_last_part(
        self, host: BlocksUnderTest
    ) -> None:
        blocks = [self.block(LAB), self.block(NTP)]
        for block in blocks:
            assert (await host.apply_one(block)).actions == ("created",)
        assert host.bystander.read(self.path) == MARKED + b"[Time]\nNTP=pool.test\n"
        assert host.bystander.mode(self.path) == 0o644
        await host.remove_one(blocks[0].key)
        assert host.bystander.read(self.path) == b"[Time]\nNTP=pool.test\n"
        await host.remove_one(blocks[1].key)
        assert not host.bystander.exists(self.BELOW)

    @pytest.mark.parametrize("part", [Word(word="quiet"), WordValue(name="root", value="x"), NTP])
    async def test_what_is_not_to_be_made_is_refused_where_it_is_not(
        self, host: BlocksUnderTest, part: BlockPart
    ) -> None:
        error = await host.expect_refusal(self.block(part, create=False))
        assert isinstance(error, UnsafePath)
        assert "is not there" in error.message
        assert not host.bystander.exists(self.path)

    async def test_several_parts_are_written_together_and_one_that_cannot_be_stands_alone(
        self, host: BlocksUnderTest
    ) -> None:
        host.bystander.write(self.path, b"a=1\nb=1\nb=2\n")
        parts = [Setting(key=key, value="9") for key in "abc"]
        first, error, last = await host.blocks.converge(
            [self.block(part) for part in parts], apply=True
        )
        assert _change(first).actions == ("text a=1 → a=9",)
        assert isinstance(error, UnsafePath)
        assert "lines 2, 3" in error.message
        assert error.resource == self.block(parts[1]).id
        assert _change(last).actions == ("created",)
        assert host.bystander.read(self.path) == b"a=9\nb=1\nb=2\nc=9\n"

    async def test_what_others_change_elsewhere_in_the_file_is_no_change_of_ours(
        self, host: BlocksUnderTest
    ) -> None:
        host.bystander.write(self.path, HOSTS)
        made = await host.apply_one(self.block(LAB))
        content = (host.bystander.read(self.path) or b"").replace(b"theirs", b"others")
        host.bystander.write(self.path, b"0.0.0.0 first\n" + content + b"0.0.0.1 last\n")
        again = await host.apply_one(self.block(LAB))
        assert again.actions == ()
        assert again.before == made.after
        await host.remove_one(self.block(LAB).key)
        there = host.bystander.read(self.path)
        assert (
            there == b"0.0.0.0 first\n" + HOSTS.replace(b"theirs", b"others") + b"\n0.0.0.1 last\n"
        )

    async def test_what_others_change_of_ours_is_put_right(self, host: BlocksUnderTest) -> None:
        host.bystander.write(self.path, TIMES)
        await host.apply_one(self.block(NTP))
        mine = host.bystander.read(self.path) or b""
        host.bystander.write(self.path, mine.replace(b"NTP=pool.test", b"NTP=evil.test"))
        change = await host.apply_one(self.block(NTP))
        assert change.actions == ("text NTP=evil.test → NTP=pool.test",)
        assert host.bystander.read(self.path) == mine
        host.bystander.write(self.path, TIMES)
        assert (await host.apply_one(self.block(NTP))).actions == ("created",)

    async def test_what_was_there_and_right_is_left(self, host: BlocksUnderTest) -> None:
        host.bystander.write(self.path, b"a = 1\n")
        block = self.block(Setting(key="a", value="1"))
        assert (await host.apply_one(block)).actions == ()
        assert (await host.remove_one(block.key)).actions == ("left: it was there before",)
        assert host.bystander.read(self.path) == b"a = 1\n"
        assert (await host.remove_one(block.key)).actions == ()

    async def test_what_somebody_changed_since_is_left(self, host: BlocksUnderTest) -> None:
        host.bystander.write(self.path, b"a=1\n")
        block = self.block(Setting(key="a", value="2"))
        await host.apply_one(block)
        host.bystander.write(self.path, b"a=3\n")
        assert (await host.remove_one(block.key)).actions == ("left: somebody changed it since",)
        assert host.bystander.read(self.path) == b"a=3\n"

    async def test_what_was_before_comes_back_after_several_changes(
        self, host: BlocksUnderTest
    ) -> None:
        host.bystander.write(self.path, b"  a = 1\n")
        for value in "234":
            await host.apply_one(self.block(Setting(key="a", value=value)))
        assert host.bystander.read(self.path) == b"  a = 4\n"
        change = await host.remove_one(self.block(Setting(key="a", value="4")).key)
        assert change.actions == ("put back what was there before",)
        assert host.bystander.read(self.path) == b"  a = 1\n"

    async def test_what_not_everybody_may_read_is_not_shown(self, host: BlocksUnderTest) -> None:
        host.bystander.write(self.path, b"password=old-one\n", 0o600)
        change = await host.apply_one(self.block(Setting(key="password", value="new-one")))
        assert change.actions == ("wrote 16 → 16 bytes",)
        assert change.diff is None
        assert "-one" not in repr((change.before, change.after))

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (b"# harmony: begin lab\nx\n", LAB),
            (MARKED + MARKED, LAB),
            (b"# harmony: end lab\n# harmony: begin lab\n", LAB),
            (b"[Time]\nNTP=a\n[Time]\nNTP=b\n", NTP),
            (b"[Time]\nNTP=a \\\n b\n", NTP),
            (b"one\ntwo\n", Word(word="quiet")),
            (b"", Word(word="quiet")),
            (b"a=1 a=2\n", WordValue(name="a", value="3")),
        ],
    )
    async def test_what_cannot_be_told_for_certain_is_refused_and_left(
        self, host: BlocksUnderTest, content: bytes, part: BlockPart
    ) -> None:
        host.bystander.write(self.path, content)
        error = await host.expect_refusal(self.block(part))
        assert isinstance(error, UnsafePath)
        assert self.path in error.message
        assert host.bystander.read(self.path) == content

    async def test_a_link_or_a_directory_is_refused(self, host: BlocksUnderTest) -> None:
        host.bystander.write(f"{self.BELOW}/real", b"a=1\n")
        host.bystander.symlink(self.path, "real")
        part = Setting(key="a", value="2")
        assert isinstance(await host.expect_refusal(self.block(part)), UnsafePath)
        above = Block(path=self.BELOW, part=part)
        assert isinstance(await host.expect_refusal(above), UnsafePath)
        assert host.bystander.read(f"{self.BELOW}/real") == b"a=1\n"

    async def test_a_stranger_s_is_not_removed(self, host: BlocksUnderTest) -> None:
        host.bystander.write(self.path, b"a=1\n")
        key = self.block(Setting(key="a", value="1")).key
        (error,) = await host.blocks.remove([key], apply=True)
        assert isinstance(error, NotOurs)
        assert host.bystander.read(self.path) == b"a=1\n"

    async def test_what_is_read_at_boot_awaits_one_until_it_is_what_was_booted_with(
        self, host: BlocksUnderTest
    ) -> None:
        host.bystander.write(self.path, b"a=1\n")

        def block(value: str) -> Block:
            part = Setting(key="a", value=value)
            return Block(path=self.path, part=part, read_at_boot=True, keep_previous=True)

        async def awaits(host: BlocksUnderTest, value: str) -> bool:
            change = await host.apply_one(block(value))
            assert change.after == await host.blocks.observe(block(value).key)
            assert isinstance(change.after, BlockAt)
            return change.after.awaits_reboot

        assert not await awaits(host, "1")
        assert await awaits(host, "2")
        assert await awaits(host, "2")
        assert host.bystander.read(f"{self.path}.harmony-previous") == b"a=1\n"
        assert not await awaits(host, "1")
        assert await awaits(host, "2")
        host = attrs.evolve(host, blocks=host.rebooted())
        assert not await awaits(host, "2")
        removed = await host.remove_one(block("2").key)
        assert removed.actions == ("put back what was there before", "in force until the next boot")

    async def test_a_change_of_the_file_is_told_to_whoever_watches(
        self, host: BlocksUnderTest
    ) -> None:
        told, block = Hearer(), self.block(LAB)
        host.bystander.write(self.path, HOSTS)
        await host.apply_one(block)
        await host.blocks.watch([block.key], told)
        host.bystander.write(self.path, HOSTS)
        await told.hears(block.key)
