"""BlockScore and BootConfigScore: what they take, whose the parts are, and what a device lets them do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.claims import collide
from harmony_core.outcome import Failure
from harmony_core.resources import (
    Block,
    BlockLines,
    BlockPart,
    File,
    Line,
    Resource,
    Setting,
    Word,
    WordValue,
    first_problem,
)
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_scores import BlockScore, BootConfigScore

CONFIG, CMDLINE = "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt"
STOCK = b"# for more options\ndtparam=audio=on\n\n[cm4]\notg_mode=1\n\n[all]\n"
BOOT = BootConfigScore(
    dtparam={"i2c_arm": "on", "audio": "off"},
    dtoverlay=("w1-gpio,gpiopin=4",),
    settings={"gpu_mem": "64"},
    words=("quiet",),
    values={"cgroup_enable": "memory"},
)


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        (
            {"name": "lab", "lines": "one\ntwo"},
            b"a\n# harmony: begin lab\none\ntwo\n# harmony: end lab\n",
        ),
        ({"section": "Time", "key": "NTP", "value": "x"}, b"a\n[Time]\nNTP=x\n"),
        ({"word": "quiet"}, b"a quiet\n"),
        ({"word": "root", "value": "/dev/sda2"}, b"a root=/dev/sda2\n"),
    ],
)
async def test_each_kind_of_part_is_made_once(fields: dict[str, Any], content: bytes) -> None:
    pi = FakePi()
    pi.files.write("/etc/x", b"a\n")
    score = BlockScore.model_validate({"path": "/etc/x", **fields})
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert pi.files.read("/etc/x") == content
    assert BlockScore.model_validate(score.model_dump(mode="json")) == score


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "exactly one of lines, key and word"),
        ({"word": "a", "key": "b", "value": "c"}, "exactly one of lines, key and word"),
        ({"key": "a"}, "value is missing"),
        ({"lines": "a"}, "name is missing"),
        ({"lines": "a", "name": "x", "value": "1"}, "value goes with"),
        ({"word": "a", "section": "s"}, "section goes with key"),
        ({"word": "a", "name": "s"}, "name goes with lines"),
        ({"word": "a b"}, "several words"),
        ({"word": "a=b", "value": "c"}, "before the ="),
        ({"key": "a", "value": "1\ninit=/bin/sh"}, "on one line"),
        ({"key": "# a", "value": "1"}, "before the ="),
        ({"key": "a", "section": "s]", "value": "1"}, "between [ and ]"),
        ({"lines": "a\x1b", "name": "x"}, "control character"),
        ({"lines": "# harmony: end x", "name": "x"}, "marker"),
        ({"lines": "a", "name": "x y"}, "letters, digits"),
        ({"lines": "a", "name": "x", "comment": "rem"}, "begins a comment"),
    ],
)
def test_what_is_no_part_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as error:
        BlockScore.model_validate({"path": "/etc/x", **fields})
    assert problem in first_problem(error.value)


def meet(one: Resource, other: Resource) -> bool:
    """Whether two Scores cannot have both."""
    claims = [{each.id} | each.exclusive for each in (one, other)]
    if isinstance(other, File):
        claims[1].add(f"path:{other.path}")
    return any(collide(a, b) for a in claims[0] for b in claims[1])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Setting(key="a", value="1"), Setting(key="b", value="1"), False),
        (Setting(key="a", value="1"), Setting(key="a", value="2"), True),
        (Setting(section="s", key="a", value="1"), Setting(key="a", value="1"), False),
        (
            Setting(section="s", key="a", value="1"),
            Setting(section="s", and_top=True, key="a", value="1"),
            True,
        ),
        (Setting(key="a=b", value="1"), Line(line="a=b=c"), True),
        (Setting(key="a=b", value="1"), Line(line="a=c=c"), False),
        (Line(line="a=b"), Line(line="a=c"), False),
        (Word(word="a=b"), Word(word="a=c"), False),
        (Word(word="a=b"), WordValue(name="a", value="c"), True),
        (Word(word="a"), WordValue(name="a", value="c"), False),
        (BlockLines(name="x", text="a"), BlockLines(name="y", text="a"), False),
        (BlockLines(name="x", text="a"), BlockLines(name="x", text="b"), True),
    ],
)
def test_several_may_have_parts_of_one_file_and_nobody_the_same(
    one: BlockPart, other: BlockPart, expected: bool
) -> None:
    mine, theirs = (Block(path="/etc/x", part=part) for part in (one, other))
    assert meet(mine, theirs) is meet(theirs, mine) is expected
    assert meet(mine, File(path="/etc/x", content=b""))
    assert not meet(mine, File(path="/etc/y", content=b""))


async def test_what_a_pi_boots_with_is_set_and_said_to_await_a_reboot() -> None:
    pi = FakePi()
    pi.files.write(CONFIG, STOCK, 0o755)
    pi.files.write(CMDLINE, b"console=tty1 rootwait\n", 0o755)
    first, second = await interpret_twice(BOOT, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert first.message == second.message
    assert first.message.startswith("RebootRequired: ")
    changed = STOCK.replace(b"audio=on\n", b"audio=off\n") + (
        b"dtparam=i2c_arm=on\ngpu_mem=64\ndtoverlay=w1-gpio,gpiopin=4\n"
    )
    assert pi.files.read(CONFIG) == changed
    assert pi.files.read(CMDLINE) == b"console=tty1 rootwait cgroup_enable=memory quiet\n"
    assert pi.files.read(f"{CONFIG}.harmony-previous") == STOCK
    pi.blocks.rebooted()
    third = (await interpret_once(BOOT, pi.offers)).outcome
    assert (third.status, third.message) == ("NOOP", "")


async def test_where_the_files_are_not_it_says_where_they_may_be() -> None:
    outcome = (await interpret_once(BOOT, FakePi().offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "UnsafePath"
    assert "config.txt is not there" in outcome.error.message


def test_a_boot_config_without_anything_is_refused() -> None:
    with pytest.raises(ValidationError, match="is empty"):
        BootConfigScore()


def refusal(block: Block, **rules: Any) -> str:
    return DevicePolicy("/var/lib/harmony", rules=PolicyTable(**rules)).refusal(block) or ""


@pytest.mark.parametrize(
    ("path", "part", "why"),
    [
        (CONFIG, Setting(key="gpu_mem", value="64"), ""),
        (CONFIG, Line(line="dtoverlay=w1-gpio"), ""),
        (CMDLINE, Word(word="quiet"), ""),
        (CMDLINE, WordValue(name="cgroup_enable", value="memory"), ""),
        (CMDLINE, WordValue(name="cfg80211.ieee80211_regdom", value="AT"), ""),
        (CMDLINE, WordValue(name="cfg80211.other", value="AT"), "run a program as root"),
        (CMDLINE, Word(word="init=/srv/x"), "run a program as root"),
        (CMDLINE, WordValue(name="init", value="/srv/x"), "run a program as root"),
        (CMDLINE, Word(word="systemd.run=/srv/x"), "run a program as root"),
        (CONFIG, Setting(key="kernel", value="x.img"), "run a program as root"),
        (CONFIG, Line(line="include other.txt"), "run a program as root"),
        (CONFIG, BlockLines(name="x", text="gpu_mem=64\nkernel=x.img"), "run a program as root"),
        ("/boot/firmware/other.txt", Setting(key="a", value="1"), "BootConfigScore"),
        ("/etc/crontab", Setting(key="PATH", value="/srv"), "run a program as root"),
        ("/etc/systemd/system/web.service", Setting(key="a", value="1"), "judged whole"),
        ("/etc/passwd", BlockLines(name="x", text="x"), "who may do what"),
        ("/var/lib/harmony/agent.db", Setting(key="a", value="1"), "the agent itself"),
        ("/etc/hosts", BlockLines(name="x", text="x"), ""),
    ],
)
def test_a_part_is_judged_as_its_file_is_and_what_is_booted_with_by_what_it_runs(
    path: str, part: BlockPart, why: str
) -> None:
    block = Block(path=path, part=part)
    refused = refusal(block, preset="open", jobs="none")
    assert why in refused
    assert bool(refused) is bool(why)


def test_an_appliance_has_to_list_the_file_and_what_may_be_had_may_be_taken_away() -> None:
    block = Block(path=CONFIG, part=Setting(key="gpu_mem", value="64"))
    assert "paths" in refusal(block, preset="appliance")
    assert not refusal(block, preset="appliance", paths=(CONFIG,))
    policy = DevicePolicy("/var/lib/harmony", rules=PolicyTable(preset="open"))
    assert policy.removal_refusal(block.id, Block) is None
