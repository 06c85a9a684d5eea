"""Scores made of files, units and directories: on fakes, and on a Pi with real systemd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Noop, Success
from harmony_core.change import Change
from harmony_core.interpretation import interpret
from harmony_core.outcome import Failure
from harmony_core.reconciler import MemoryBackups, MemoryRecords, Offers
from harmony_core.resources import Active
from harmony_core.score import AnyScore
from harmony_core.testing import (
    FakePi,
    NoClaims,
    interpret_once,
    interpret_twice,
    inventory,
    make_stage,
)
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_scores import DirectoryScore, SysctlScore, TimerScore, UserScore
from tests.box import Box
from tests.topology.box_units import UnitsOfABox, emptied

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
    first, second = await interpret_twice(score, FakePi().offers)
    assert isinstance(first, Success), first
    assert second == Noop()


@pytest.fixture
async def offers(pi: Box) -> AsyncGenerator[Offers]:
    emptied(pi)
    pi.run(["rm", "-rf", "/srv/harmony-contract", "/run/harmony-contract.ticks"])
    units = UnitsOfABox(pi)
    files = PosixFiles(
        str(pi.root), records=MemoryRecords(), backups=MemoryBackups(), owner_checked=True
    )
    directories = PosixDirectories(str(pi.root), records=MemoryRecords())
    yield {
        "FileSystemHost": files,
        "DirectoryHost": directories,
        "SystemdHost": units.opened(),
    }
    await units.close()
    await directories.close()
    await files.close()


async def converged(score: AnyScore, offers: Offers) -> bool:
    """Look until it has; whether anything was changed on the way."""
    changed = False
    while True:
        outcome = (await interpret_once(score, offers)).outcome
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
        assert (await interpret_once(TICK, offers)).outcome == Noop()  # also while it runs
    assert set(ticks.read_text().splitlines()) == {"100%"}
    removed = await offers["SystemdHost"].remove(
        ["harmony-contract.timer", "harmony-contract.service"], apply=True
    )
    assert all(isinstance(each, Change) for each in removed)
    assert pi.run(["systemctl", "cat", "harmony-contract.timer"], check=False).returncode != 0


async def test_a_timer_runs_its_program_however_often_systemd_reads_all_units(
    pi: Box, offers: Offers
) -> None:
    """As it does whenever somebody installs a package, or pushes a Score with a unit."""
    often = TICK.model_copy(update={"every_s": 2})
    await converged(often, offers)
    ticks = pi.root / "run/harmony-contract.ticks"
    async with asyncio.timeout(30):
        while not ticks.exists() or len(ticks.read_text().splitlines()) < 2:
            pi.run(["systemctl", "daemon-reload"])
            await asyncio.sleep(0.2)
    await gone(often, offers)


async def test_a_calendar_that_systemd_cannot_read_is_a_failure(offers: Offers) -> None:
    wrong = TICK.model_copy(update={"every_s": None, "on_calendar": "every full moon"})
    outcome = (await interpret_once(wrong, offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.message.startswith(
        "on_calendar: the systemd of this device does not take 'every full moon'"
    )
    await offers["SystemdHost"].remove(
        ["harmony-contract.timer", "harmony-contract.service"], apply=True
    )


@pytest.mark.parametrize("past", ["2020-01-01 10:00", "2021-02-30"])
async def test_a_calendar_of_which_no_time_is_to_come_is_told_by_its_field(past: str) -> None:
    late = TICK.model_copy(update={"every_s": None, "on_calendar": past})
    outcome = (await interpret_once(late, FakePi().offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "UnitFailed"
    assert outcome.error.message.startswith(f"on_calendar: none of the times of {past!r} is still")


async def test_kernel_settings_are_in_force_and_a_change_of_them_is(
    pi: Box, offers: Offers
) -> None:
    await converged(FORWARD, offers)
    assert pi.text("cat", "/proc/sys/net/ipv4/conf/lo/log_martians") == "1"
    off = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.lo.log_martians": "0"}
    assert await converged(FORWARD.model_copy(update={"settings": off}), offers)
    assert pi.text("cat", "/proc/sys/net/ipv4/conf/lo/log_martians") == "0"
    await gone(FORWARD, offers)


async def gone(
    score: AnyScore, offers: Offers, *, meanwhile: Callable[[], object] | None = None
) -> None:
    """Take away what it is made of, what was made last first, as the ledger has it.

    *meanwhile* is done after the last look at it.
    """
    claims = NoClaims()
    await interpret(score, inventory(), make_stage(offers, claims=claims))
    if meanwhile is not None:
        meanwhile()
    hosts = {"file": offers["FileSystemHost"], "unit": offers["SystemdHost"]}
    for rid in reversed(list(dict.fromkeys(claims.claimed))):
        which, _, key = rid.partition(":")
        while True:
            (change,) = await hosts[which].remove([key], apply=True)
            assert isinstance(change, Change), change
            if change.pending is None:
                break
            await asyncio.sleep(0.1)


def kernel(pi: Box, *keys: str) -> list[str]:
    return [pi.text("cat", f"/proc/sys/net/ipv4/{key}") for key in keys]


async def test_what_the_kernel_had_before_comes_back_when_its_settings_go(
    pi: Box, offers: Offers
) -> None:
    keys = ("ip_default_ttl", "conf/lo/log_martians", "tcp_rmem")
    before = kernel(pi, *keys)
    score = SysctlScore(
        name="contract",
        settings={
            "net.ipv4.ip_default_ttl": "77",
            "net/ipv4/conf/lo/log_martians": "1",
            "net.ipv4.tcp_rmem": "4096 100000 200000",
        },
    )
    await converged(score, offers)
    assert kernel(pi, *keys) == ["77", "1", "4096\t100000\t200000"]
    less = score.model_copy(update={"settings": {"net.ipv4.ip_default_ttl": "78"}})
    await converged(less, offers)
    assert kernel(pi, *keys) == ["78", *before[1:]]
    pi.run(["systemctl", "restart", "harmony-sysctl-contract"])
    assert kernel(pi, *keys) == ["78", *before[1:]]
    await gone(less, offers)
    assert kernel(pi, *keys) == before
    assert not (pi.root / "var/lib/harmony-sysctl").exists()


async def test_a_setting_that_somebody_else_has_made_meanwhile_stays(
    pi: Box, offers: Offers
) -> None:
    (before,) = kernel(pi, "ip_default_ttl")
    score = SysctlScore(name="contract", settings={"net.ipv4.ip_default_ttl": "77"})
    await converged(score, offers)
    somebody = ["sh", "-c", "echo 79 > /proc/sys/net/ipv4/ip_default_ttl"]
    await gone(score, offers, meanwhile=lambda: pi.run(somebody))
    assert kernel(pi, "ip_default_ttl") == ["79"]
    pi.run(["sh", "-c", f"echo {before} > /proc/sys/net/ipv4/ip_default_ttl"])


async def test_what_the_kernel_does_not_take_back_awaits_a_boot(pi: Box, offers: Offers) -> None:
    """Whatever clients use has to be above what others than root may listen on."""
    ports = ("ip_unprivileged_port_start", "ip_local_port_range")
    before, (ttl,) = kernel(pi, *ports), kernel(pi, "ip_default_ttl")
    settings = {f"net.ipv4.{ports[0]}": "80", "net.ipv4.ip_default_ttl": "77"}
    score = SysctlScore(name="contract", settings=settings)
    await converged(score, offers)
    somebody = ["sh", "-c", f"echo 500 60999 > /proc/sys/net/ipv4/{ports[1]}"]
    await gone(score, offers, meanwhile=lambda: pi.run(somebody))
    assert kernel(pi, ports[0], "ip_default_ttl") == ["80", ttl]
    awaited = (pi.root / "run/reboot-required.pkgs").read_text()
    assert awaited == f"kernel setting net/ipv4/{ports[0]}\n"
    assert not (pi.root / "var/lib/harmony-sysctl").exists()
    pi.run(["rm", "/run/reboot-required", "/run/reboot-required.pkgs"])
    for key, value in reversed(list(zip(ports, before, strict=True))):
        pi.run(["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}"])


@pytest.mark.parametrize("first_to_go", [0, 1])
async def test_what_two_scores_set_stays_as_long_as_one_does(
    pi: Box, offers: Offers, first_to_go: int
) -> None:
    before = kernel(pi, "ip_default_ttl")
    scores = [
        SysctlScore(name=f"contract-{name}", settings={"net.ipv4.ip_default_ttl": "77"})
        for name in "ab"
    ]
    for score in scores:
        await converged(score, offers)
    await gone(scores[first_to_go], offers)
    assert kernel(pi, "ip_default_ttl") == ["77"]
    await gone(scores[1 - first_to_go], offers)
    assert kernel(pi, "ip_default_ttl") == before


async def test_a_setting_that_the_kernel_has_not_is_a_failure_with_its_reason(
    offers: Offers,
) -> None:
    wrong = SysctlScore(name="wrong", settings={"net.ipv4.no_such_setting": "1"})
    await interpret_once(wrong, offers)
    outcome = (await interpret_once(wrong, offers)).outcome
    while not isinstance(outcome, Failure):
        await asyncio.sleep(0.1)
        outcome = (await interpret_once(wrong, offers)).outcome
    assert outcome.error.code == "UnitFailed"
    assert "this kernel has no setting net/ipv4/no_such_setting" in outcome.error.message
    await gone(wrong, offers)


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        ("net.ipv4.ip_local_reserved_ports", "8081,8080", "8080-8081"),
        ("net/ipv4/ip_default_ttl", "0x4d", "77"),
        ("net.ipv4.ip_default_ttl", "070", "56"),
    ],
)
async def test_a_setting_that_the_kernel_makes_something_else_of_is_a_failure_by_its_name(
    pi: Box, offers: Offers, key: str, value: str, made: str
) -> None:
    path = "/proc/sys/" + key.replace(".", "/")
    before = pi.text("cat", path)
    score = SysctlScore(name="wrong", settings={key: value, "net.ipv4.conf.lo.log_martians": "1"})
    outcome = await failed(score, offers)
    assert outcome.error.code == "UnitFailed"
    assert outcome.error.message == (
        f"settings: the kernel made {made} of {value} for {key.replace('.', '/')}; "
        "write what it can be, as the kernel shows it"
    )
    assert kernel(pi, "conf/lo/log_martians") == ["1"]  # the others are in force
    right = score.model_copy(update={"settings": {key: made}})
    await converged(right, offers)
    await gone(right, offers)
    assert pi.text("cat", path) == before


async def test_all_settings_that_are_wrong_are_told_at_once(offers: Offers) -> None:
    settings = {"net.ipv4.no_such": "1", "net.ipv4.ip_default_ttl": "300"}
    wrong = SysctlScore(name="wrong", settings=settings)
    message = (await failed(wrong, offers)).error.message
    assert message == (
        "settings: the kernel does not take 300 for net/ipv4/ip_default_ttl; "
        "settings: this kernel has no setting net/ipv4/no_such"
    )
    await gone(wrong, offers)


async def failed(score: AnyScore, offers: Offers) -> Failure:
    """Look until it has failed."""
    while True:
        outcome = (await interpret_once(score, offers)).outcome
        if isinstance(outcome, Failure):
            return outcome
        await asyncio.sleep(0.1)


def passwd(pi: Box, name: str) -> list[str]:
    return pi.text("getent", "passwd", name).split(":")


def groups(pi: Box, name: str) -> set[str]:
    return set(pi.text("id", "-Gn", name).split())


@pytest.fixture
async def users(pi: Box, offers: Offers) -> AsyncGenerator[Offers]:
    yield offers
    await gone(BUDDY, offers)
    pi.run(["sh", "-c", "userdel buddy; groupdel pals; rm -rf /var/lib/harmony-users"], check=False)


async def test_a_user_is_there_with_its_groups(pi: Box, users: Offers) -> None:
    await converged(BUDDY, users)
    assert passwd(pi, "buddy")[2:] == ["1234", "1234", "A friend, 100%", "/", "/usr/sbin/nologin"]
    assert groups(pi, "buddy") == {"buddy", "video", "pals"}


async def test_a_user_becomes_what_its_score_says_later(pi: Box, users: Offers) -> None:
    await converged(BUDDY, users)
    pi.run(["usermod", "-a", "-G", "audio", "buddy"])
    fields = {"shell": "/bin/sh", "home": "/srv/a b", "description": "It's", "groups": ("pals",)}
    later = BUDDY.model_copy(update=fields)
    assert await converged(later, users)
    assert passwd(pi, "buddy")[4:] == ["It's", "/srv/a b", "/bin/sh"]
    assert groups(pi, "buddy") == {"buddy", "pals", "audio"}
    assert not (pi.root / "srv/a b").exists()


async def test_a_user_that_is_there_already_becomes_it_too_but_for_its_number(
    pi: Box, users: Offers
) -> None:
    pi.run(["useradd", "-u", "1300", "-s", "/bin/sh", "-G", "audio", "buddy"])
    await converged(BUDDY.model_copy(update={"uid": None}), users)
    assert passwd(pi, "buddy")[4] == "A friend, 100%"
    assert passwd(pi, "buddy")[6] == "/bin/sh"
    assert groups(pi, "buddy") == {"buddy", "video", "pals", "audio"}
    outcome = (await interpret_once(BUDDY, users)).outcome
    while not isinstance(outcome, Failure):
        await asyncio.sleep(0.1)
        outcome = (await interpret_once(BUDDY, users)).outcome
    assert "the number of buddy is 1300, not 1234" in outcome.error.message
    assert passwd(pi, "buddy")[2] == "1300"


@pytest.mark.parametrize(
    "fields",
    [{}, {"groups": ("video",)}, {"uid": 1234}, {"home": "/srv/100%h/it's $HOME"}],
)
async def test_a_user_of_few_fields_is_there_at_once(
    pi: Box, users: Offers, fields: dict[str, Any]
) -> None:
    await converged(UserScore(name="buddy", **fields), users)
    entry = passwd(pi, "buddy")
    assert fields.get("uid", int(entry[2])) == int(entry[2])
    assert entry[5] == fields.get("home", "/")
    assert groups(pi, "buddy") == {"buddy", *fields.get("groups", ())}


@pytest.mark.parametrize(
    ("taken", "holder"),
    [
        ("useradd -r -u 1234 -g nogroup other", "the user other"),
        ("groupadd -g 1234 other", "the group other"),
    ],
)
async def test_whose_number_another_has_is_not_made(
    pi: Box, users: Offers, taken: str, holder: str
) -> None:
    pi.run(["sh", "-c", taken])
    outcome = await failed(BUDDY, users)
    left = pi.text("getent", "group", "other") if "groupadd" in taken else ""
    assert outcome.error.message == (
        f"uid: 1234 belongs to {holder}; give buddy another, or leave uid out"
    )
    pi.run(["systemd-sysusers"])  # as at boot
    for database in ("passwd", "group"):
        assert pi.run(["getent", database, "buddy"], check=False).returncode != 0
    assert pi.run(["getent", "group", "pals"], check=False).returncode != 0
    pi.run(["sh", "-c", "groupdel other" if left else "userdel other"])
    while isinstance((await interpret_once(BUDDY, users)).outcome, Failure):
        await asyncio.sleep(0.1)
    await converged(BUDDY, users)
    assert passwd(pi, "buddy")[2] == "1234"


async def test_who_was_made_with_another_number_all_the_same_is_taken_away_again(
    pi: Box, users: Offers
) -> None:
    thief = '#!/bin/sh\ngroupadd -f -g 1234 other\nexec /usr/bin/systemd-sysusers "$@"\n'
    program = pi.root / "usr/local/bin/systemd-sysusers"
    program.write_text(thief)
    program.chmod(0o755)
    try:
        message = (await failed(BUDDY, users)).error.message
    finally:
        program.unlink()
        pi.run(["groupdel", "other"])
    assert message.startswith("uid: 1234 has gone to the group other meanwhile")
    for database in ("passwd", "group"):
        assert pi.run(["getent", database, "buddy"], check=False).returncode != 0


async def test_the_number_of_one_who_is_there_is_told_also_where_nothing_else_is_otherwise(
    pi: Box, users: Offers
) -> None:
    pi.run(["useradd", "-r", "-u", "951", "buddy"])
    message = (await failed(UserScore(name="buddy", uid=777), users)).error.message
    assert message.startswith(
        "uid: the number of buddy is 951, not 777, and files may belong to it"
    )


@pytest.mark.parametrize(
    "by_hand",
    ["userdel buddy", "usermod -s /bin/sh buddy", "gpasswd -d buddy video", "usermod -c x buddy"],
)
async def test_a_user_that_somebody_changes_is_seen_to_be_changed_and_mended(
    pi: Box, users: Offers, by_hand: str
) -> None:
    score = BUDDY.model_copy(update={"shell": "/usr/sbin/nologin"})
    await converged(score, users)
    before = passwd(pi, "buddy"), groups(pi, "buddy")
    pi.run(["sh", "-c", by_hand])
    pi.wait_for(["sh", "-c", "! systemctl is-active harmony-user-buddy"])
    assert (
        pi.run(["getent", "passwd", "buddy"], check=False).stdout.decode().strip().split(":")
        != before[0]
        or groups(pi, "buddy") != before[1]
    )
    assert await converged(score, users)
    assert (passwd(pi, "buddy"), groups(pi, "buddy")) == before


@pytest.mark.parametrize(
    ("fields", "accuracy_us"),
    [
        ({"every_s": 1}, 100_000),
        ({"every_s": 10}, 1_000_000),
        ({"every_s": 86_400, "spread_s": 600}, 1_000_000),
        ({"every_s": None, "on_calendar": "daily"}, 1_000_000),
    ],
)
async def test_a_timer_is_no_later_than_a_fraction_of_its_interval(
    pi: Box, offers: Offers, fields: dict[str, object], accuracy_us: int
) -> None:
    timer = TimerScore.model_validate({**TICK.model_dump(), **fields})
    await converged(timer, offers)
    told = pi.text("systemctl", "show", "-p", "AccuracyUSec", "harmony-contract.timer")
    assert told == {100_000: "AccuracyUSec=100ms", 1_000_000: "AccuracyUSec=1s"}[accuracy_us]
    await gone(timer, offers)


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
    "settings",
    [
        {},
        {"net.ipv4.ip_forward": "1\nkernel.panic = 1"},
        {"ip_forward": "1"},
        {"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "1"},
    ],
)
def test_a_setting_is_a_name_and_a_line(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SysctlScore(name="x", settings=settings)


@pytest.mark.parametrize(
    "field",
    [
        {"name": "a b"},
        {"description": 'x" /root'},
        {"groups": ("a b",)},
        {"home": '/srv/a" /bin/sh'},
        {"home": "/srv/a:/bin/sh"},
        {"home": "/srv/a\\x2fb"},
        {"shell": "/bin/sh:x"},
    ],
)
def test_a_user_s_fields_cannot_leave_their_places(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UserScore.model_validate({"name": "ok", **field})
