"""Scores made of files, units and directories: on fakes, and on a Pi with real systemd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from pydantic import ValidationError

from harmony_core import Noop, Success
from harmony_core.change import Change
from harmony_core.outcome import Failure
from harmony_core.reconciler import MemoryOriginals, MemoryRecords, Offers
from harmony_core.resources import Active
from harmony_core.score import AnyScore
from harmony_core.testing import FakePi, ServiceProgram, interpreted, interpreted_twice
from harmony_pi_topology._files import PosixFiles
from harmony_scores import DirectoryScore, SysctlScore, TimerScore, UserScore
from tests.box import Box
from tests.topology.box_units import UnitsOfABox, emptied

ONESHOT = ServiceProgram(exit_code=0)
TICK = TimerScore(
    name="harmony-contract",
    exec_start=("/bin/sh", "-c", "echo 100% >> /run/harmony-contract.ticks"),
    every_s=1,
)
FORWARD = SysctlScore(
    name="forward", settings={"net.ipv4.ip_forward": "1", "net.ipv4.conf.lo.log_martians": "1"}
)
BUDDY = UserScore(name="buddy", uid=1234, description="A friend, 100%", groups=("video", "pals"))
DATA = DirectoryScore(path="/srv/harmony-contract/data", mode=0o750)
ALL = pytest.mark.parametrize("score", [TICK, FORWARD, BUDDY, DATA], ids=lambda each: each.kind)


@ALL
async def test_interpreted_twice_it_is_success_then_noop(score: AnyScore) -> None:
    pi = FakePi()
    pi.systemd.programs.update(
        {
            f"{program} {path}": ONESHOT
            for program, path in (
                ("/usr/lib/systemd/systemd-sysctl", '"/etc/sysctl.d/60-harmony-forward.conf"'),
                ("/usr/bin/systemd-sysusers", '"/etc/sysusers.d/harmony-buddy.conf"'),
            )
        }
    )
    first, second = await interpreted_twice(score, pi.offers)
    assert isinstance(first, Success), first
    assert second == Noop()


@pytest.fixture
async def offers(pi: Box) -> AsyncGenerator[Offers]:
    emptied(pi)
    pi.run(["rm", "-rf", "/srv/harmony-contract", "/run/harmony-contract.ticks"])
    units = UnitsOfABox(pi)
    files = PosixFiles(
        str(pi.root), records=MemoryRecords(), originals=MemoryOriginals(), owner_checked=True
    )
    yield {"FileSystemHost": files, "SystemdHost": units.opened()}
    await units.close()
    await files.close()


async def converged(score: AnyScore, offers: Offers) -> bool:
    """Look until it has; whether anything was changed on the way."""
    changed = False
    while True:
        outcome = (await interpreted(score, offers)).outcome
        assert not isinstance(outcome, Failure), outcome
        changed |= isinstance(outcome, Success)
        if isinstance(outcome, Noop):
            return changed
        await asyncio.sleep(0.1)


async def test_a_timer_runs_its_program_again_and_again(pi: Box, offers: Offers) -> None:
    await converged(TICK, offers)
    state = await offers["SystemdHost"].observe("harmony-contract.timer")
    assert isinstance(state, Active)
    assert state.sub in {"waiting", "running"}
    ticks = pi.root / "run/harmony-contract.ticks"
    while not ticks.exists() or len(ticks.read_text().splitlines()) < 2:
        await asyncio.sleep(0.1)
        assert (await interpreted(TICK, offers)).outcome == Noop()  # also while it runs
    assert set(ticks.read_text().splitlines()) == {"100%"}
    removed = await offers["SystemdHost"].remove(
        ["harmony-contract.timer", "harmony-contract.service"], apply=True
    )
    assert all(isinstance(each, Change) for each in removed)
    assert pi.run(["systemctl", "cat", "harmony-contract.timer"], check=False).returncode != 0


async def test_a_calendar_that_systemd_cannot_read_is_a_failure(offers: Offers) -> None:
    wrong = TICK.model_copy(update={"every_s": None, "on_calendar": "every full moon"})
    outcome = (await interpreted(wrong, offers)).outcome
    assert isinstance(outcome, Failure)
    await offers["SystemdHost"].remove(
        ["harmony-contract.timer", "harmony-contract.service"], apply=True
    )


async def test_kernel_settings_are_in_force_and_a_change_of_them_is(
    pi: Box, offers: Offers
) -> None:
    await converged(FORWARD, offers)
    assert pi.text("cat", "/proc/sys/net/ipv4/conf/lo/log_martians") == "1"
    off = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.lo.log_martians": "0"}
    assert await converged(FORWARD.model_copy(update={"settings": off}), offers)
    assert pi.text("cat", "/proc/sys/net/ipv4/conf/lo/log_martians") == "0"


async def test_a_setting_that_the_kernel_has_not_is_a_failure_with_its_reason(
    offers: Offers,
) -> None:
    wrong = SysctlScore(name="wrong", settings={"net.ipv4.no_such_setting": "1"})
    await interpreted(wrong, offers)
    outcome = (await interpreted(wrong, offers)).outcome
    while not isinstance(outcome, Failure):
        await asyncio.sleep(0.1)
        outcome = (await interpreted(wrong, offers)).outcome
    assert outcome.error.code == "UnitFailed"
    assert "no_such_setting" in outcome.error.message


async def test_a_user_is_there_with_its_groups(pi: Box, offers: Offers) -> None:
    await converged(BUDDY, offers)
    assert pi.text("id", "-u", "buddy") == "1234"
    assert {"video", "pals"} <= set(pi.text("id", "-Gn", "buddy").split())
    assert "A friend, 100%" in pi.text("getent", "passwd", "buddy")


@pytest.mark.parametrize(
    "fields",
    [
        {"on_calendar": "daily"},
        {"every_s": None},
        {"persistent": True},
        {"every_s": None, "on_calendar": "daily\nExecStart=/bin/sh"},
    ],
)
def test_a_timer_has_one_time_that_is_a_line(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TimerScore.model_validate({**TICK.model_dump(), **fields})


@pytest.mark.parametrize(
    "settings", [{}, {"net.ipv4.ip_forward": "1\nkernel.panic = 1"}, {"ip_forward": "1"}]
)
def test_a_setting_is_a_name_and_a_line(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SysctlScore(name="x", settings=settings)


@pytest.mark.parametrize(
    "field", [{"name": "a b"}, {"description": 'x" /root'}, {"groups": ("a b",)}]
)
def test_a_user_s_fields_cannot_leave_their_places(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UserScore.model_validate({"name": "ok", **field})
