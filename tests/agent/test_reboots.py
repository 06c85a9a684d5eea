"""Reboots by an agent's own loop: asked for once, when the rule and everybody on the device allow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest

from harmony_agent.apply import reboots
from harmony_agent.apply.kept import why_not_kept
from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_agent.wiring import refuse_reboot
from harmony_core import File, HasFiles, Inventory, Outcome, Score
from harmony_core.change import NotReady
from harmony_core.errors import OutOfScope
from harmony_core.plugins import Registry
from harmony_core.reboots import RebootNote
from harmony_core.reconciler import MemoryRecords, Offers
from harmony_core.testing import FakeBlocks, FakeFiles, FakeReboots
from harmony_core.wire.actual_state import ActualState, Condition, from_json, to_json
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.replies import End, Failed, Item
from harmony_core.wire.requests import Reboot
from harmony_core.wire.root import Root, Scope
from harmony_scores import BootConfigScore, FileScore, RebootScore

from .rig import code, entry
from .virtual import VirtualDevice

CONFIG = "/boot/firmware/config.txt"
BOOT = entry(BootConfigScore(settings={"gpu_mem": "64"}), "boot")
MORE = entry(BootConfigScore(settings={"gpu_mem": "128"}), "boot")
NOW = entry(RebootScore(when="now"), "reboots")
LOOKED_S = 65.0


class Busy(Score[HasFiles]):
    """Something that is never at its end."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        await topology.files.ensure(File(path="/etc/busy", content=b"busy"))
        raise NotReady("is being waited for", resource="file:/etc/busy", look_again_s=5.0)


class Holder(FakeFiles):
    """Files of an application that says "not now" while ``why`` is set."""

    why = ""

    async def find_hold(self, key: str) -> NotReady | None:
        return NotReady(self.why, resource=f"file:{key}", reason="Held") if self.why else None

    async def release(self, key: str) -> bool:
        return False


@attrs.define
class Pi:
    """A device whose parts of files are read at boot, and that can be asked for one."""

    device: VirtualDevice
    blocks: FakeBlocks
    reboots: FakeReboots
    files: Holder
    patch: pytest.MonkeyPatch
    boots: int = 1

    async def push(self, *entries: SerializedScore) -> ActualState:
        await self.device.pages(entries, after_s=LOOKED_S)
        return self.told

    async def boot(self, *, helps: bool = True) -> ActualState:
        """The device does what it was asked for."""
        self.boots += 1
        if helps:
            self.blocks.rebooted()
        self.patch.setattr("harmony_agent.wiring.boot_id", lambda: f"boot-{self.boots}")
        await self.device.reboot()
        await asyncio.sleep(LOOKED_S)
        return self.told

    async def ask(self, boot_id: str = "boot-1", *, if_needed: bool = False) -> dict[str, Any]:
        """Somebody asks for a boot by a request: what the device says to it."""
        frames = await self.device.ask(Reboot(boot_id=boot_id, if_needed=if_needed))
        items = [each.item for each in frames if isinstance(each, Item)]
        if isinstance(frames[-1], Failed):
            return {"code": frames[-1].error.code, "why": frames[-1].error.message, "items": items}
        assert isinstance(frames[-1], End)
        (item,) = items
        return {**item}

    @property
    def told(self) -> ActualState:
        assert self.device.bus.told is not None
        return self.device.bus.told

    @property
    def condition(self) -> Condition | None:
        return next((each for each in self.told.conditions if each.type == "RebootRequired"), None)

    @property
    def reason(self) -> str:
        return self.condition.reason if self.condition else ""


async def _at_once(func: Callable[..., object], *args: object) -> object:
    return func(*args)


def _kept(directory: Path) -> str:
    return ""


@asynccontextmanager
async def a_pi(
    root: Path,
    patch: pytest.MonkeyPatch,
    policy: PolicyTable = PolicyTable(preset="open"),  # noqa: B008 - it is frozen
) -> AsyncGenerator[Pi]:
    files = Holder()
    files.write(CONFIG, b"arm_64bit=1\n")
    blocks, reboot = FakeBlocks(files), FakeReboots(MemoryRecords())
    offers: Offers = {"FileSystemHost": files, "BlockHost": blocks, "RebootHost": reboot}
    kinds = Registry((BootConfigScore, RebootScore, FileScore, Busy))
    patch.setattr("harmony_agent.wiring.boot_id", lambda: "boot-1")
    patch.setattr("harmony_agent.wiring.why_not_kept", _kept)
    # The clock jumps, and would wait for a thread in vain.
    patch.setattr("asyncio.to_thread", _at_once)
    device = VirtualDevice(root, generate_key(), kinds, offers, policy=policy)
    await device.start()
    try:
        yield Pi(device, blocks, reboot, files, patch)
    finally:
        await device.kill()
        device.close()


@pytest.mark.looptime
async def test_what_awaits_a_boot_is_told_and_without_a_rule_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push()
        assert not pi.reason
        state = await pi.push(BOOT)
        assert pi.condition is not None
        assert (pi.condition.status, pi.condition.reason) == ("True", "NoRule")
        assert f"boot (block:{CONFIG}#setting:^all/gpu_mem)" in pi.condition.message
        assert "push a RebootScore" in pi.condition.message
        assert from_json(to_json(state), ActualState) == state
        since = pi.condition.last_transition_time
        await pi.push(BOOT, entry(RebootScore(when="never"), "reboots"))
        assert pi.condition.reason == "Never"
        assert pi.condition.last_transition_time == since
        assert pi.reboots.asked == 0
        await pi.boot()
        assert not pi.reason, "somebody booted it by hand"


@pytest.mark.looptime
async def test_it_is_asked_for_once_and_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW)
        assert pi.reboots.asked == 0, "nothing awaits it"
        await pi.push(NOW, BOOT)
        assert pi.reboots.asked == 1
        assert pi.reason == "Rebooting"
        event = pi.device.events()[-1]
        assert (event["score"], event["resource"]) == ("reboots", "reboot:device")
        assert event["actions"] == [
            f"rebooting the device because a boot is awaited by boot (block:{CONFIG}#setting:^all/gpu_mem)"
        ]
        assert event["signed_by"]
        state = await pi.boot()
        assert not pi.reason
        assert state.scores["reboots"].outcome.status == "NOOP"
        assert pi.reboots.read_note().in_vain == ()
        await pi.push(NOW, MORE)
        assert pi.reboots.asked == 2, "another cause"


@pytest.mark.looptime
async def test_a_boot_that_did_not_help_is_a_failure_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW, BOOT)
        state = await pi.boot(helps=False)
        assert code(state.scores["reboots"]) == "NotInForce"
        assert "was booted for it" in state.scores["reboots"].outcome.message
        assert pi.reason == "InVain"
        state = await pi.boot(helps=False)
        assert code(state.scores["reboots"]) == "NotInForce"
        assert pi.reboots.asked == 1
        # What is awaited no more is forgotten.
        state = await pi.boot()
        assert state.scores["reboots"].outcome.status == "SUCCESS"
        assert not pi.reason


@pytest.mark.looptime
async def test_a_device_that_does_not_go_down_is_told_of_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW, BOOT)
        assert pi.device.agent.queue.busy is False
        await asyncio.sleep(reboots.HAPPENS_WITHIN_S + LOOKED_S)
        assert code(pi.told.scores["reboots"]) == "NotInForce"
        assert "has not gone down" in pi.told.scores["reboots"].outcome.message
        # It goes on as ever.
        other = entry(
            BootConfigScore(settings={"gpu_mem": "64", "camera_auto_detect": "0"}), "boot"
        )
        await pi.push(NOW, other)
        assert pi.files.read(CONFIG) == b"arm_64bit=1\ngpu_mem=64\ncamera_auto_detect=0\n"
        assert pi.reboots.asked == 2, "for what was added"


def inhibit(pi: Pi, *, is_so: bool) -> None:
    pi.reboots.obstacles = ["apt: upgrades packages"] if is_so else []


def hold(pi: Pi, *, is_so: bool) -> None:
    pi.files.why = "till: in the middle of a sale" if is_so else ""


def refuse(pi: Pi, *, is_so: bool) -> None:
    pi.reboots.refuses = is_so


class Hinder(Protocol):
    """Have somebody say "not now", or no more."""

    def __call__(self, pi: Pi, *, is_so: bool) -> None: ...


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("hinder", "reason"), [(inhibit, "Inhibited"), (hold, "Held"), (refuse, "Waiting")]
)
async def test_whoever_says_not_now_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hinder: Hinder, reason: str
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        till = entry(FileScore(path="/etc/till", content="x"), "till")
        await pi.push(till)
        hinder(pi, is_so=True)
        await pi.push(NOW, BOOT, till)
        assert pi.reboots.asked == 0
        assert pi.reason == reason
        hinder(pi, is_so=False)
        await asyncio.sleep(2 * LOOKED_S)
        assert pi.reboots.asked == 1


@pytest.mark.looptime
async def test_a_reboot_that_is_refused_is_asked_for_later_and_later_and_is_none_in_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        pi.reboots.refuses = True
        await pi.push(NOW, BOOT)
        await asyncio.sleep(24 * 3600)
        assert 20 <= pi.reboots.refused <= 35
        assert pi.condition is not None
        assert "it was refused: systemd-logind is stopping" in pi.condition.message
        assert not [each for each in pi.device.events() if "rebooting" in str(each["actions"])]
        pi.reboots.refuses = False
        await asyncio.sleep(3600 + LOOKED_S)
        assert pi.reboots.asked == 1
        assert "rebooting" in str(pi.device.events()[-1]["actions"])


@pytest.mark.looptime
async def test_what_is_undone_again_and_again_does_not_have_it_booted_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW)
        for times in (1, 2, 2, 2):
            pi.reboots.system_reasons.append("dbus")  # as a package that is never content
            await asyncio.sleep(LOOKED_S)
            assert pi.reboots.asked == times
            pi.reboots.system_reasons.clear()
            await pi.boot()
        pi.reboots.system_reasons.append("dbus")
        await asyncio.sleep(LOOKED_S)
        assert pi.reason == "InVain"
        assert code(pi.told.scores["reboots"]) == "NotInForce"
        assert "undoes it" in pi.told.scores["reboots"].outcome.message
        pi.reboots.system_reasons.append("linux-image")
        await asyncio.sleep(LOOKED_S)
        assert pi.reboots.asked == 3, "another cause"


def test_what_helped_is_counted_for_a_day_and_kept_over_a_boot() -> None:
    note = RebootNote(helped={"a b c": ("2026-11-30T03:00:00Z",)})
    assert FakeReboots(MemoryRecords()).read_note().helped == {}
    records = MemoryRecords()
    asyncio.run(FakeReboots(records).note(note))
    assert FakeReboots(records).read_note() == note


@pytest.mark.looptime
async def test_where_nothing_is_kept_over_a_boot_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        why = "/var/lib/harmony is in memory"

        def lost(directory: Path) -> str:
            return why

        pi.patch.setattr("harmony_agent.wiring.why_not_kept", lost)
        await pi.push(NOW, BOOT)
        assert pi.reboots.asked == 0
        assert pi.reason == "NotKept"
        assert pi.condition is not None
        assert f"{why}: after a boot" in pi.condition.message


OVERLAID = (
    "1 0 0:1 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/media/root-rw/overlay,workdir=/w\n"
)
DISK = "1 0 8:1 / / rw - ext4 /dev/root rw\n"
RW = "2 1 0:2 / /media/root-rw rw - {} it rw\n"


@pytest.mark.parametrize(
    ("mounts", "words", "is_lost"),
    [
        (DISK, "", False),
        ("", "", False),
        (OVERLAID + RW.format("tmpfs"), "", True),
        (OVERLAID + RW.format("ext4"), "", False),
        (OVERLAID, "", False),
        (OVERLAID, "quiet boot=overlay", True),
        (OVERLAID, "overlayroot=tmpfs:recurse=0", True),
        (DISK, "boot=overlay", False),
        (DISK + "3 1 0:3 / /var rw - tmpfs tmpfs rw\n", "", True),
        (OVERLAID + "3 1 8:2 / /var/lib rw - ext4 /dev/sda1 rw\n", "boot=overlay", False),
    ],
)
def test_where_memory_is_laid_over_the_disk(
    tmp_path: Path, mounts: str, words: str, is_lost: bool
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(mounts)
    (tmp_path / "cmdline").write_text(f"{words}\n")
    assert bool(why_not_kept(Path("/var/lib/harmony"), tmp_path)) is is_lost


@pytest.mark.looptime
async def test_nothing_that_is_under_way_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW, BOOT, entry(Busy(), "busy"))
        assert pi.reboots.asked == 0
        assert pi.condition is not None
        assert "until no Score is under way" in pi.condition.message
        await pi.push(NOW, BOOT)
        assert pi.reboots.asked == 1


@pytest.mark.looptime
async def test_what_the_system_says_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        pi.reboots.system_reasons.append("linux-image-rpi-v8")
        await pi.push(entry(RebootScore(when="never"), "reboots"))
        assert pi.condition is not None
        assert "the system (linux-image-rpi-v8)" in pi.condition.message
        await pi.push(NOW)
        assert pi.reboots.asked == 1
        pi.reboots.system_reasons.clear()
        await pi.boot()
        assert not pi.reason


@pytest.mark.looptime
async def test_it_is_booted_in_its_window_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        begun: list[object] = []

        def last_begin(*_: object) -> object:
            return begun[0] if begun else None

        pi.patch.setattr(reboots, "last_begin", last_begin)
        await pi.push(
            entry(RebootScore(when="window", window="Sun 03:00", lasts_s=7200), "r"), BOOT
        )
        assert pi.reboots.asked == 0
        assert pi.condition is not None
        assert pi.condition.reason == "InWindow"
        assert "Sun 03:00, for 7200 s" in pi.condition.message
        begun.append(object())
        await asyncio.sleep(LOOKED_S)
        assert pi.reboots.asked == 1


@pytest.mark.looptime
async def test_the_rule_goes_with_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(entry(RebootScore(when="never"), "reboots"), BOOT)
        await pi.push(BOOT)
        assert pi.reboots.read_rule() is None
        assert pi.reason == "NoRule"


@pytest.mark.looptime
async def test_it_is_booted_by_a_request_once_whatever_the_rule_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(entry(RebootScore(when="never"), "reboots"))
        assert (await pi.ask())["begun"] is True
        assert pi.reboots.asked == 1
        event = pi.device.events()[-1]
        assert (event["why"], event["resource"]) == ("request", "reboot:device")
        assert event["actions"] == [
            "rebooting the device because somebody has asked for it by a request"
        ]
        assert event["signed_by"]
        await asyncio.sleep(LOOKED_S)
        assert pi.condition is not None
        assert pi.condition.reason == "Rebooting"
        assert pi.condition.message.startswith("a request; a boot was asked for at")
        assert (await pi.ask())["begun"] is True
        assert pi.reboots.asked == 1, "it is on its way"
        await pi.boot()
        assert not pi.reason
        assert pi.reboots.read_note() == RebootNote()
        late = await pi.ask()
        assert late["code"] == "BootedSince"
        assert late["why"].startswith("it was to end the boot boot-1, and is in boot-2")
        assert pi.reboots.asked == 1
        assert (await pi.ask("boot-2"))["begun"] is True
        assert pi.reboots.asked == 2


@pytest.mark.looptime
@pytest.mark.parametrize("is_asked", [False, True])
async def test_of_one_that_is_gone_before_it_could_be_noted_the_audit_has_it_after_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_asked: bool
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:

        async def go_down() -> None:
            await asyncio.Future()

        pi.patch.setattr(pi.reboots, "reboot", go_down)
        if is_asked:
            await pi.push()
            asking = asyncio.create_task(pi.device.ask(Reboot(boot_id="boot-1")))
            await asyncio.sleep(LOOKED_S)
            asking.cancel()
        else:
            await pi.push(NOW, BOOT)
        assert not [each for each in pi.device.events() if "rebooting" in str(each["actions"])]
        await pi.boot()
        await asyncio.sleep(LOOKED_S)
        (event,) = [each for each in pi.device.events() if "rebooting" in str(each["actions"])]
        assert event["why"] == ("request" if is_asked else "desired")
        assert event["signed_by"]
        because = "somebody has asked for it" if is_asked else "a boot is awaited by boot ("
        assert because in event["actions"][0]
        assert pi.reboots.read_note().boot_id == ""


@pytest.mark.looptime
async def test_by_a_request_it_is_booted_without_any_score_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push()
        assert (await pi.ask())["begun"] is True
        event = pi.device.events()[-1]
        assert (event["score"], event["why"]) == ("", "request")
        assert (event["before"], event["after"]) == (None, None)


@pytest.mark.looptime
async def test_only_where_it_is_needed_is_only_where_something_awaits_it_and_not_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push()
        assert await pi.ask(if_needed=True) == {"begun": False, "at": "", "awaited_by": []}
        await pi.push(BOOT)
        told = await pi.ask(if_needed=True)
        assert told["begun"] is True
        assert told["awaited_by"] == [f"boot (block:{CONFIG}#setting:^all/gpu_mem)"]
        assert pi.reboots.asked == 1
        await pi.boot()
        assert (await pi.ask("boot-2", if_needed=True))["begun"] is False
        # What a boot has not helped, another would not either.
        await pi.push(NOW, MORE)
        assert pi.reboots.asked == 2
        await pi.boot(helps=False)
        assert pi.reason == "InVain"
        assert (await pi.ask("boot-3", if_needed=True))["begun"] is False
        assert pi.reboots.asked == 2


@pytest.mark.looptime
async def test_a_boot_by_a_request_is_none_that_did_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever boots it by hand, again and again, says nothing about what awaits a boot."""
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(entry(RebootScore(when="never"), "reboots"), BOOT)
        for _ in range(3):
            assert (await pi.ask(f"boot-{pi.boots}"))["begun"] is True
            state = await pi.boot(helps=False)
            assert state.scores["reboots"].outcome.status in {"SUCCESS", "NOOP"}
            assert pi.reason == "Never"
        await pi.push(NOW, BOOT)
        assert pi.reboots.asked == 4


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("hinder", "why"),
    [
        (inhibit, "apt: upgrades packages"),
        (hold, "till: till: in the middle of a sale"),
        (refuse, "it was refused: systemd-logind is stopping"),
    ],
)
async def test_whoever_says_not_now_postpones_a_boot_by_a_request_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hinder: Hinder, why: str
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(entry(FileScore(path="/etc/till", content="x"), "till"))
        hinder(pi, is_so=True)
        told = await pi.ask()
        assert told["code"] == "RebootPostponed"
        assert why in told["why"]
        assert pi.reboots.asked == 0
        assert not [each for each in pi.device.events() if each["why"] == "request"]
        # Nothing is held up meanwhile.
        await pi.push(entry(FileScore(path="/etc/other", content="x"), "other"))
        hinder(pi, is_so=False)
        assert (await pi.ask())["begun"] is True
        assert pi.reboots.asked == 1


@pytest.mark.looptime
async def test_whoever_begins_to_install_at_the_last_moment_is_not_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push()
        asked = asyncio.create_task(pi.ask())
        await asyncio.sleep(1)
        assert not asked.done()
        inhibit(pi, is_so=True)
        told = await asked
        assert (told["code"], pi.reboots.asked) == ("RebootPostponed", 0)
        assert pi.reboots.read_note() == RebootNote()
        await asyncio.sleep(LOOKED_S)
        assert not pi.reason


@pytest.mark.looptime
async def test_a_boot_by_a_request_waits_for_what_is_under_way_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(entry(Busy(), "busy"))
        told = await pi.ask()
        assert told["code"] == "RebootPostponed"
        assert told["why"] == "until no Score is under way: busy"
        assert pi.reboots.asked == 0


@pytest.mark.looptime
async def test_two_who_ask_at_once_have_it_booted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW)
        told = await asyncio.gather(pi.ask(), pi.ask(), pi.ask(if_needed=True))
        assert [each["begun"] for each in told] == [True, True, True]
        assert pi.reboots.asked == 1


@pytest.mark.looptime
async def test_one_that_was_asked_by_a_request_and_does_not_go_down_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push(NOW)
        assert (await pi.ask())["begun"] is True
        await asyncio.sleep(reboots.HAPPENS_WITHIN_S + LOOKED_S)
        assert not pi.reason
        assert pi.told.scores["reboots"].outcome.status in {"SUCCESS", "NOOP"}
        await pi.push(entry(FileScore(path="/etc/other", content="x"), "other"))
        assert pi.files.read("/etc/other") == b"x"
        assert (await pi.ask())["begun"] is True
        assert pi.reboots.asked == 2


@pytest.mark.looptime
async def test_who_cannot_be_told_has_it_not_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_pi(tmp_path, monkeypatch) as pi:
        await pi.push()
        pi.device.bus.pull_cable()
        asked = asyncio.create_task(pi.ask())
        await asyncio.sleep(LOOKED_S)
        assert pi.reboots.asked == 0
        asked.cancel()


def test_only_who_may_push_a_reboot_score_may_ask_for_a_boot() -> None:
    ada, bob, eve = (generate_key() for _ in range(3))
    policy, now = DevicePolicy(), datetime.now(UTC)
    root = Root(
        fleet="home",
        version=1,
        issued_at=now,
        root_keys=(generate_key().public.to_text(),),
        root_threshold=1,
        scopes=(
            Scope(name="ada", keys=(ada.public.to_text(),), kinds=("RebootScore",)),
            Scope(name="bob", keys=(bob.public.to_text(),), kinds=("FileScore",)),
            Scope(name="support", keys=(eve.public.to_text(),), signs=("request",)),
        ),
    )
    refuse_reboot(policy, root, "agent:pi-1", [ada.public.id], now)
    refuse_reboot(policy, None, "agent:pi-1", [bob.public.id], now)
    for other in (bob, eve):
        with pytest.raises(OutOfScope, match="RebootScore"):
            refuse_reboot(policy, root, "agent:pi-1", [other.public.id], now)


@pytest.mark.looptime
@pytest.mark.parametrize(("kinds", "asked"), [(("FileScore",), 0), (("RebootScore",), 1)])
async def test_an_appliance_is_booted_by_a_request_where_a_reboot_score_may_boot_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], asked: int
) -> None:
    async with a_pi(tmp_path, monkeypatch, PolicyTable(preset="appliance", kinds=kinds)) as pi:
        await pi.push()
        told = await pi.ask()
        assert pi.reboots.asked == asked
        if not asked:
            assert told["code"] == "PolicyRefused"
            assert told["why"].startswith("nobody boots this device by a request: a RebootScore")
            assert not told["items"]
