"""UpgradeScore: what it takes, and what the apt of a Pi with a repository of newer packages makes of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core import Noop, Success
from harmony_core.outcome import Failure, Outcome
from harmony_core.reconciler import Offers
from harmony_core.resources import Job
from harmony_core.testing import FakePi, JobProgram
from harmony_scores import UpgradeScore
from harmony_scores.upgrade import _NOTE_WINDOW  # pyright: ignore[reportPrivateUsage] - run by itself
from tests.box import Box
from tests.scores.apt_repository import FIRMWARE, NEWER, NEWER_SECURITY, installed
from tests.scores.jobs_in_box import ask_again, offer_jobs, offer_without_records, remove, settle

ALL = UpgradeScore(window="Sun 03:00")
NOTES = "/var/lib/harmony-upgrades"
OLDER = {"harmony-here": "1", "harmony-two": "1", "harmony-dep": "1"}
NEW = {"harmony-here": "2", "harmony-two": "2", "harmony-dep": "2", "harmony-extra": "1"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"window": "Sun 03:00 UTC"}, "leave out the zone"),
        ({"window": "0 3 * * 0"}, "crontab"),
        ({"window": "soon"}, "soon"),
        ({"lasts_s": 60}, "greater than or equal to 600"),
        ({"lasts_s": 86_400}, "less than or equal to 43200"),
        ({"origins": "backports"}, "'all' or 'security'"),
        ({"exclude": ["Podman"]}, "names no packages"),
        ({"exclude": ["podman crun"]}, "names no packages"),
        ({"exclude": ["*"]}, "every package"),
        ({"exclude": ["[a-z]*"]}, "names no packages"),
        ({"name": "x"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: Mapping[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        UpgradeScore.model_validate({"window": "Sun 03:00", **fields})


async def test_it_waits_for_its_window_and_is_for_root_to_allow() -> None:
    pi = FakePi()
    assert isinstance(await settle(ALL, pi.offers), Success)
    assert isinstance(await settle(ALL, pi.offers), Noop)
    timer = pi.files.read("/etc/systemd/system/harmony-upgrades.timer") or b""
    assert b"OnCalendar=Sun 03:00\n" in timer
    job = Job(name="upgrades", command=pi.jobs.begun[0], privileged=True)
    refusal = DevicePolicy(rules=PolicyTable(preset="open", jobs="confined")).refusal(job)
    assert refusal is not None
    assert 'jobs = "any"' in refusal


async def test_what_its_question_says_is_told() -> None:
    pi = FakePi()
    await settle(ALL, pi.offers)
    pi.jobs.programs[pi.jobs.begun[0]] = JobProgram(stdout="x\n2 upgraded: a, b\n")
    await pi.jobs.reboot()
    assert await settle(ALL, pi.offers) == Noop(message="2 upgraded: a, b")


@pytest.fixture
async def offers(pi: Box) -> AsyncGenerator[Offers]:
    """One whose packages are older than those of a repository that it has not read yet."""
    async with offer_jobs(pi, "upgrades") as offers:
        make_older(pi)
        yield {**offers, **_fake_systemd()}
        pi.run(["sh", "-c", MADE_YOUNGER], check=False)


MADE_YOUNGER = f"apt-mark unhold harmony-here; dpkg --purge {FIRMWARE}"


def make_older(pi: Box) -> None:
    pi.run(["sh", "-c", f"rm -f /run/reboot-required* /run/harmony-fails; {NEWER}"])


def _fake_systemd() -> Offers:
    """What notes the window is run by itself here."""
    return {"SystemdHost": FakePi().offers["SystemdHost"]}


def open_window(pi: Box, offers: Offers, *, lasts_s: float = 3600) -> str:
    """One began a minute ago; return when, in the device's words."""
    begin = int(time.time()) - 60
    pi.write(f"{NOTES}/window", f"{begin} {begin + 60 + int(lasts_s)}\n")
    ask_again(offers)
    return pi.text("date", "-d", f"@{begin}", "+%Y-%m-%d %H:%M")


def said(outcome: Outcome) -> str:
    assert isinstance(outcome, Success | Noop), outcome
    return outcome.message


def reasons(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    assert outcome.error.code == "JobAttemptFailed"
    return outcome.error.message


async def test_in_its_window_all_is_upgraded_once_and_told_with_what_was_kept(
    offers: Offers, pi: Box
) -> None:
    pi.write("/etc/harmony-here.conf", "mine\n")
    before = said(await settle(ALL, offers))
    assert before == "nothing was upgraded yet; the window is Sun 03:00"
    assert await installed(pi) == OLDER
    began = open_window(pi, offers)
    outcome = await settle(ALL, offers)
    assert isinstance(outcome, Success)
    assert await installed(pi) == NEW
    head, *more = outcome.message.split("; ")
    assert head == (
        f"{began}: 4 upgraded: {FIRMWARE} 1 → 2, harmony-dep 1 → 2, harmony-here 1 → 2, harmony-two 1 → 2"
    )
    assert more == [
        "new: harmony-extra 1",
        "kept as somebody has changed it, with what is new beside it (.dpkg-dist): /etc/harmony-here.conf",
    ]
    assert pi.read("/etc/harmony-here.conf") == b"mine\n"
    assert pi.read("/etc/harmony-here.conf.dpkg-dist") == b"2\n"
    # Only a boot brings new firmware into force; Debian's packages do not say so.
    assert pi.text("cat", "/run/reboot-required.pkgs") == FIRMWARE
    assert await settle(ALL, offers) == Noop(message=outcome.message)
    ask_again(offers)
    assert await settle(ALL, offers) == Noop(message=outcome.message)
    async with offer_without_records(pi) as again:
        assert said(await settle(ALL, {**again, **_fake_systemd()})) == outcome.message


async def test_what_is_held_or_excluded_stays_and_is_told_since_when(
    offers: Offers, pi: Box
) -> None:
    pi.run(["apt-mark", "hold", "harmony-here"])
    began = open_window(pi, offers)
    score = UpgradeScore(window="Sun 03:00", exclude=("harmony-tw*", "firmware-*"))
    outcome = await settle(score, offers)
    assert said(outcome).partition(": ")[0] == began
    assert said(outcome).partition(": ")[2] == (
        f"1 upgraded: harmony-dep 1 → 2; new: harmony-extra 1; "
        f"kept back: harmony-here (held) since {pi.text('date', '+%Y-%m-%d')}; "
        f"left as they are: {FIRMWARE}, harmony-two"
    )
    assert await installed(pi) == {**OLDER, "harmony-dep": "2", "harmony-extra": "1"}
    pi.write(f"{NOTES}/kept", "harmony-here 1700000000\n")
    pi.write(f"{NOTES}/done", "0\n")
    open_window(pi, offers)
    assert "harmony-here (held) since 2023-11-1" in said(await settle(score, offers))


async def test_of_security_alone_is_what_comes_from_there(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", NEWER_SECURITY])
    open_window(pi, offers)
    outcome = await settle(UpgradeScore(window="Sun 03:00", origins="security"), offers)
    assert "1 upgraded: harmony-here 1 → 2; left as they are: " in said(outcome)
    assert await installed(pi) == {**OLDER, "harmony-here": "2"}


async def test_one_that_cannot_be_configured_is_told_and_tried_again(
    offers: Offers, pi: Box
) -> None:
    pi.write("/run/harmony-fails", "")
    began = open_window(pi, offers)
    why = reasons(await settle(ALL, offers))
    assert f"in the window of {began}: dpkg: error processing package harmony-two" in why
    # What dpkg has not configured is not there as upgraded; the others are.
    assert "3 upgraded" in why
    pi.run(["rm", "/run/harmony-fails"])
    ask_again(offers)
    outcome = await settle(ALL, offers)
    assert "4 upgraded" in said(outcome)
    assert await installed(pi) == NEW


@pytest.mark.parametrize("is_over", [False, True])
async def test_what_a_power_cut_has_cut_short_is_ended_also_when_the_window_is_over(
    pi: Box, *, is_over: bool
) -> None:
    async with offer_jobs(pi) as offers:
        make_older(pi)
        pi.write("/run/harmony-waits", "")
        open_window(pi, offers)
        running = asyncio.create_task(settle(ALL, {**offers, **_fake_systemd()}))
        half = ["sh", "-c", "dpkg-query -W -f '${Status}' harmony-two | grep -q half-configured"]
        await asyncio.to_thread(pi.wait_for, half)
        running.cancel()
        await asyncio.to_thread(pi.power_cut)
        await asyncio.to_thread(pi.power_on)
        await _judge_after_the_cut(pi, is_over=is_over)


async def _judge_after_the_cut(pi: Box, *, is_over: bool) -> None:
    assert "half-configured" in pi.text("dpkg-query", "-W", "-f", "${Status}", "harmony-two")
    if is_over:
        begin = pi.text("cat", f"{NOTES}/window").split()[0]
        pi.write(f"{NOTES}/window", f"{begin} {begin}\n")
    async with offer_without_records(pi) as again:
        outcome = await settle(ALL, {**again, **_fake_systemd()})
        assert "4 upgraded" in said(outcome), "what there was before is not forgotten"
        assert await installed(pi) == NEW
        assert pi.text("dpkg", "--audit") == ""
        await remove(again, "upgrades")
    assert not (pi.root / NOTES.lstrip("/")).exists()
    pi.run(["sh", "-c", MADE_YOUNGER], check=False)


async def test_without_a_network_it_waits_for_the_end_of_the_window_and_then_says_so(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*"])
    pi.write("/etc/apt/sources.list", "deb [trusted=yes] http://127.0.0.1:9 ./\n")
    began = open_window(pi, offers, lasts_s=20)
    begun = time.monotonic()
    why = reasons(await settle(ALL, offers))
    assert time.monotonic() - begun > 20
    assert f"in the window of {began}: Failed to fetch http://127.0.0.1:9/" in why
    # Until the next one; apt is not asked again.
    pi.run(["rm", "/etc/apt/sources.list"])
    ask_again(offers)
    begun = time.monotonic()
    assert reasons(await settle(ALL, offers)) == why
    assert time.monotonic() - begun < 15


async def test_where_one_source_is_not_read_the_others_count_and_it_is_told(
    offers: Offers, pi: Box
) -> None:
    pi.write("/etc/apt/sources.list.d/away.list", "deb [trusted=yes] http://127.0.0.1:9 ./\n")
    open_window(pi, offers)
    why = reasons(await settle(ALL, offers))
    assert "Failed to fetch http://127.0.0.1:9/" in why
    assert "4 upgraded" in why
    assert await installed(pi) == NEW
    pi.run(["rm", "/etc/apt/sources.list.d/away.list"])
    ask_again(offers)
    assert "4 upgraded" in said(await settle(ALL, offers))


LOCKED = (
    "import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "print('locked', flush=True); time.sleep(1000)"
)


async def test_whoever_else_installs_is_waited_for_and_named(offers: Offers, pi: Box) -> None:
    pi.run(["systemd-run", "--unit=installing", "python3", "-c", LOCKED])
    pi.wait_for(["sh", "-c", "journalctl -u installing | grep -q locked"])
    try:
        open_window(pi, offers, lasts_s=10)
        why = reasons(await settle(ALL, offers))
    finally:
        pi.run(["systemctl", "stop", "installing"])
    assert re.search(r"apt or dpkg is at work: python3 \(process \d+\)", why)
    assert await installed(pi) == OLDER


async def test_where_the_disk_has_no_room_nothing_is_begun(offers: Offers, pi: Box) -> None:
    listed = pi.read("/srv/harmony-newer/Packages").decode()
    large = listed.replace("Architecture:", "Installed-Size: 99000000000\nArchitecture:", 1)
    pi.write("/srv/harmony-newer/Packages", large)
    open_window(pi, offers)
    why = reasons(await settle(ALL, offers))
    assert re.search(
        r"not upgraded: it takes \d{8,} MB, and the disk has \d+ MB; free \d{8,} MB", why
    )
    assert await installed(pi) == OLDER


async def test_what_was_restarted_on_the_way_is_told(offers: Offers, pi: Box) -> None:
    served = "[Service]\nExecStart=/bin/sleep 1000\n"
    pi.write("/run/systemd/system/harmony-served.service", served)
    pi.run(["sh", "-c", "systemctl daemon-reload; systemctl start harmony-served"])
    try:
        open_window(pi, offers)
        outcome = await settle(ALL, offers)
    finally:
        pi.run(["systemctl", "stop", "harmony-served"])
        pi.run(["rm", "/run/systemd/system/harmony-served.service"])
    assert "; restarted: harmony-served.service" in said(outcome)


def note_window(pi: Box, window: str, lasts_s: int) -> str:
    pi.run(["sh", "-c", f"rm -rf {NOTES}"])
    pi.run(["sh", "-euc", f"export LC_ALL=C\n{_NOTE_WINDOW}", "sh", window, str(lasts_s)])
    done = pi.run(["cat", f"{NOTES}/window"], check=False)
    return done.stdout.decode()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna", "Asia/Kathmandu"])
def test_the_window_that_it_is_in_is_noted_in_the_devices_time_zone(pi: Box, zone: str) -> None:
    pi.run(["ln", "-sf", f"/usr/share/zoneinfo/{zone}", "/etc/localtime"])
    try:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        begin = now - timedelta(minutes=10)
        at = pi.text("date", "-d", f"@{begin.timestamp():.0f}", "+%a %H:%M")
        stamp = int(begin.timestamp())
        assert note_window(pi, at, 1200) == f"{stamp} {stamp + 1200}\n"
        assert note_window(pi, at, 300) == "", "it is over"
        late = pi.text("date", "-d", f"@{stamp + 3600}", "+%a %H:%M")
        assert note_window(pi, late, 1200) == "", "it has not begun"
    finally:
        pi.run(["rm", "-f", "/etc/localtime"])
