"""ShellJobScore and PackageScore: on fakes, and on a Pi whose apt has a small repository of its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncGenerator, Sequence

import pytest
from pydantic import ValidationError

from harmony_core import Noop, Success
from harmony_core.errors import JobAttemptFailed
from harmony_core.outcome import Failure
from harmony_core.reconciler import Offers
from harmony_core.testing import FakePi, JobProgram
from harmony_scores import PackageScore, ShellJobScore
from harmony_scores.package import (
    _NEEDED,  # pyright: ignore[reportPrivateUsage] - what the shell makes of a name
    _TAKE_AWAY,  # pyright: ignore[reportPrivateUsage] - likewise
)
from tests.box import Box
from tests.scores.apt_repository import FIRMWARE, NEWER_TOO, OLDER_ALONE, installed
from tests.scores.jobs_in_box import ask_again, offer_jobs, offer_without_records, remove, settle

HELLO = ShellJobScore(name="hello", script="echo hello\n")


@pytest.fixture
async def offers(pi: Box) -> AsyncGenerator[Offers]:
    async with offer_jobs(pi, "hello", "packages-tools", "packages-others") as offers:
        yield offers


def tools(
    *packages: str, name: str = "tools", absent: Sequence[str] = (), hold: bool = False
) -> PackageScore:
    return PackageScore(name=name, packages=packages, absent=tuple(absent), hold=hold)


async def test_a_script_is_run_once() -> None:
    pi = FakePi()
    assert isinstance(await settle(HELLO, pi.offers), Success)
    assert await settle(HELLO, pi.offers) == Noop()
    assert pi.jobs.begun == [("/bin/sh", "-eu", "-c", "echo hello\n")]


async def test_a_script_that_fails_says_so() -> None:
    pi = FakePi()
    pi.jobs.programs["/bin/sh", "-eu", "-c", "echo hello\n"] = JobProgram(
        exit_code=2, stderr="no such thing"
    )
    outcome = await settle(HELLO, pi.offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "JobFailed"
    assert "no such thing" in outcome.error.message


async def test_what_is_in_order_from_the_beginning_is_asked_what_to_take_back() -> None:
    pi = FakePi()
    assert await settle(tools("nginx"), pi.offers) == Noop()
    await remove(pi.offers, "packages-tools")
    assert [command[-1] for command in pi.jobs.begun] == ["nginx", "tools"]


async def test_a_script_ends_at_the_first_command_that_fails_on_a_pi(offers: Offers) -> None:
    outcome = await settle(HELLO.model_copy(update={"script": "false\necho hello\n"}), offers)
    assert isinstance(outcome, Failure)
    assert "said nothing" in outcome.error.message
    assert isinstance(await settle(HELLO, offers), Success)


@pytest.mark.parametrize(
    "packages",
    [
        (),
        ("Nginx",),
        ("nginx; reboot",),
        ("-o",),
        ("nginx", "nginx=1.2"),
        ("nginx=",),
        ("nginx-",),
        ("nginx+",),
        ("nginx-=1",),
        ("nginx:",),
        ("nginx:amd64-",),
        ("nginx=1:amd64:amd64 x",),
        ("nginx-:amd64",),
        ("nginx:AMD64",),
        ("^nginx",),
    ],
)
def test_what_is_no_package_is_refused(packages: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        tools(*packages)


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        *((each, False) for each in ("network-manager", "openssh-server", "podman", "crun:armhf")),
        *((each, False) for each in ("firmware-realtek", "udhcpc", "systemd-resolved")),
        *((each, True) for each in ("nginx", "sudoku", "nginx:armhf", "libapt-pkg6.0")),
    ],
)
def test_what_a_device_needs_is_not_taken_away_with_its_score(name: str, *, goes: bool) -> None:
    told = "others_noted() { false; }; is_gone() { false; }; remove() { echo $*; }; take_away $1"
    command = ["sh", "-euc", f"{_NEEDED}{_TAKE_AWAY}{told}", "harmony", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (f"{name}\n" if goes else "\n")


async def test_packages_are_installed_and_those_that_were_not_there_are_remove(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    both = tools("harmony-here", "harmony-two")
    assert isinstance(await settle(both, offers), Success)
    assert await settle(both, offers) == Noop()
    there = {"harmony-here": "1", "harmony-two": "1", "harmony-dep": "1"}
    assert await installed(pi) == there
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-here": "1", "harmony-dep": "1"}
    assert pi.read("/etc/harmony-two.conf") == b"1\n"
    assert not (pi.root / "var/lib/harmony-packages").exists()


async def test_a_version_is_kept_to_and_what_is_asked_for_no_longer_goes(
    offers: Offers, pi: Box
) -> None:
    await settle(tools("harmony-one=1", "harmony-two"), offers)
    assert (await installed(pi))["harmony-one"] == "1"
    assert isinstance(await settle(tools("harmony-one"), offers), Success)
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}
    assert await settle(tools("harmony-one"), offers) == Noop()
    assert await settle(tools("harmony-one=2"), offers) == Noop()
    assert isinstance(await settle(tools("harmony-one=1"), offers), Success)
    assert (await installed(pi))["harmony-one"] == "1"
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


async def test_what_the_device_needs_stays_though_it_was_not_there_before(
    offers: Offers, pi: Box
) -> None:
    def is_there() -> bool:
        status = pi.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", FIRMWARE], check=False)
        return status.stdout == b"installed"

    try:
        for then in (tools("harmony-one"), None):
            await settle(tools(FIRMWARE, "harmony-one"), offers)
            assert is_there()
            if then is None:
                await remove(offers, "packages-tools")
            else:
                assert isinstance(await settle(then, offers), Success)
                assert await settle(then, offers) == Noop()
            assert is_there()
        assert await installed(pi) == {}
    finally:
        pi.run(["apt-get", "-qy", "purge", FIRMWARE])


async def test_what_it_has_brought_goes_though_the_agent_has_lost_its_state(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    both = tools("harmony-here", "harmony-one")
    assert isinstance(await settle(both, offers), Success)
    async with offer_without_records(pi) as offers_again:
        assert await settle(both, offers_again) == Noop()
        await remove(offers_again, "packages-tools")
    assert await installed(pi) == {"harmony-here": "1"}


async def test_what_is_there_already_is_not_installed(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-one"])
    assert await settle(tools("harmony-one"), offers) == Noop()
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-one": "2"}


async def test_a_package_that_is_nowhere_is_a_failure_with_its_reason(offers: Offers) -> None:
    outcome = await settle(tools("harmony-none"), offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "JobAttemptFailed"
    assert "Unable to locate package harmony-none" in outcome.error.message


@pytest.mark.parametrize("name", ["harmony.one", "harmony.*", "armony-one"])
async def test_only_the_package_of_the_very_name_is_meant(
    offers: Offers, pi: Box, name: str
) -> None:
    if "*" in name:
        with pytest.raises(ValidationError):
            tools(name)
        return
    outcome = await settle(tools(name), offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.message == (
        f"job packages-tools: packages: Unable to locate package {name} in the sources of this device"
    )
    assert await installed(pi) == {}


async def test_what_others_provide_is_refused_with_their_names(offers: Offers, pi: Box) -> None:
    outcome = await settle(tools("harmony-virtual", "harmony-one"), offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.message == (
        "job packages-tools: packages: harmony-virtual is no package itself; "
        "name one that provides it: harmony-actual harmony-other"
    )
    assert await installed(pi) == {}
    # Also where one of them is there already.
    pi.run(["apt-get", "-qy", "install", "harmony-actual"])
    assert isinstance(await settle(tools("harmony-virtual"), offers), Failure)
    assert isinstance(await settle(tools("harmony-other"), offers), Success)
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-actual": "1"}


async def test_a_source_that_is_new_is_read_before_its_packages_are_asked_for(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", OLDER_ALONE])
    assert isinstance(await settle(tools("harmony-one"), offers), Success)
    assert await installed(pi) == {"harmony-one": "1"}
    pi.run(["sh", "-c", NEWER_TOO])
    assert isinstance(await settle(tools("harmony-one", "harmony-dep"), offers), Success)
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}


async def test_a_source_that_cannot_be_read_is_told(offers: Offers, pi: Box) -> None:
    pi.run(
        ["sh", "-c", "echo 'deb [trusted=yes] file:/srv/none ./' > /etc/apt/sources.list.d/x.list"]
    )
    outcome = await settle(tools("harmony-one"), offers)
    assert isinstance(outcome, Failure)
    assert "packages: " in outcome.error.message
    assert "/srv/none" in outcome.error.message
    assert await installed(pi) == {}
    pi.run(["rm", "/etc/apt/sources.list.d/x.list"])
    assert isinstance(await settle(tools("harmony-one"), offers), Success)


async def test_a_package_that_cannot_be_set_up_is_told_by_its_name(offers: Offers, pi: Box) -> None:
    outcome = await settle(tools("harmony-broken"), offers)
    assert isinstance(outcome, Failure)
    assert "dpkg: error processing package harmony-broken" in outcome.error.message
    assert "said nothing" not in outcome.error.message


async def test_what_others_depend_on_by_now_is_not_removed_under_them(
    offers: Offers, pi: Box
) -> None:
    await settle(tools("harmony-one", "harmony-two"), offers)
    pi.run(["apt-get", "-qy", "install", "harmony-leaner"])
    with pytest.raises(JobAttemptFailed, match=r"would go with it: harmony-leaner$"):
        await remove(offers, "packages-tools")
    outcome = await settle(tools("harmony-two"), offers)
    assert isinstance(outcome, Failure)
    assert "not removed: harmony-one" in outcome.error.message
    there = {"harmony-one": "2", "harmony-two": "1", "harmony-dep": "1", "harmony-leaner": "1"}
    assert await installed(pi) == there
    pi.run(["apt-get", "-qy", "remove", "harmony-leaner"])
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


DRY = "/etc/apt/apt.conf.d/99dry"
"""Somebody's setting by which apt ends well without having asked dpkg for anything."""


async def test_what_apt_ends_well_without_removing_is_told_and_stays_noted(
    offers: Offers, pi: Box
) -> None:
    await settle(tools("harmony-one", "harmony-two"), offers)
    there = await installed(pi)
    pi.write(DRY, 'Debug::pkgDPkgPM "true";\n')
    try:
        with pytest.raises(JobAttemptFailed) as told:
            await remove(offers, "packages-tools")
        outcome = await settle(tools("harmony-two"), offers)
    finally:
        pi.run(["rm", DRY])
    still = (
        "harmony-one is still there, although apt has ended well; dpkg has 2, install ok installed"
    )
    assert still in told.value.message
    assert isinstance(outcome, Failure)
    assert still in outcome.error.message
    assert await installed(pi) == there
    assert isinstance(await settle(tools("harmony-two"), offers), Success)
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


async def test_what_is_half_removed_is_not_gone(offers: Offers, pi: Box) -> None:
    await settle(tools("harmony-stuck"), offers)
    pi.run(["touch", "/run/harmony-stuck"])
    try:
        for _ in range(2):
            with pytest.raises(JobAttemptFailed, match=r"harmony-stuck"):
                await remove(offers, "packages-tools")
    finally:
        pi.run(["rm", "/run/harmony-stuck"])
    assert await installed(pi) == {}
    await remove(offers, "packages-tools")
    done = pi.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", "harmony-stuck"])
    assert done.stdout == b"config-files"


async def test_nothing_is_installed_in_place_of_what_is_there(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    outcome = await settle(tools("harmony-rival"), offers)
    assert isinstance(outcome, Failure)
    assert "remove is disabled" in outcome.error.message
    assert "harmony-here" in outcome.error.message
    assert await installed(pi) == {"harmony-here": "1"}


async def test_what_two_scores_name_goes_with_the_later_one(offers: Offers, pi: Box) -> None:
    first, second = tools("harmony-one", "harmony-two"), tools("harmony-two", name="others")
    await settle(first, offers)
    assert isinstance(await settle(second, offers), Success)
    assert await settle(second, offers) == Noop()
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-two": "1", "harmony-dep": "1"}
    await settle(first, offers)
    assert isinstance(await settle(tools("harmony-one"), offers), Success)
    assert (await installed(pi))["harmony-two"] == "1"
    await remove(offers, "packages-others")
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}


async def test_two_scores_at_once_take_turns(offers: Offers, pi: Box) -> None:
    first, second = tools("harmony-two"), tools("harmony-two", name="others")
    await asyncio.gather(settle(first, offers), settle(second, offers))
    await asyncio.gather(remove(offers, "packages-tools"), settle(second, offers))
    assert "harmony-two" in await installed(pi)
    await remove(offers, "packages-others")
    assert await installed(pi) == {"harmony-dep": "1"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "name what is to be there"),
        ({"absent": ["nano"], "hold": True}, "none is named"),
        ({"packages": ["nano=1"], "absent": ["nano"]}, "in packages and in absent"),
        ({"absent": ["nano=1"]}, "leave out what follows the ="),
        ({"absent": ["nano", "nano"]}, "named twice"),
        ({"absent": ["nano-"]}, "without the - at its end"),
        ({"absent": ["task-*"]}, "no package's name"),
    ],
)
def test_what_is_to_be_absent_or_held_is_said_well(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        PackageScore.model_validate({"name": "x", **fields})


def test_an_older_agent_reads_what_it_knows() -> None:
    spec = tools("nano").model_dump(mode="json")
    assert spec == {"name": "tools", "packages": ["nano"], "time_limit_s": 1800.0}
    assert tools("nano", absent=["vim"], hold=True).model_dump().keys() - spec == {"absent", "hold"}


async def test_what_is_to_be_absent_goes_and_does_not_come_back(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-one harmony-two"])
    score = tools("harmony-here", absent=["harmony-one", "harmony-none"])
    assert isinstance(await settle(score, offers), Success)
    assert await settle(score, offers) == Noop()
    there = {"harmony-two": "1", "harmony-dep": "1", "harmony-here": "1"}
    assert await installed(pi) == there
    pi.run(["apt-get", "-qy", "install", "harmony-one"])
    ask_again(offers)
    assert isinstance(await settle(score, offers), Success)
    assert await installed(pi) == there
    await remove(offers, "packages-tools")
    assert await installed(pi) == {"harmony-two": "1", "harmony-dep": "1"}


@pytest.mark.parametrize(
    ("there", "absent", "why"),
    [
        ("harmony-leaner", "harmony-one", "would go with it: harmony-leaner"),
        ("harmony-either harmony-actual", "harmony-actual", "in its place: harmony-other"),
        ("harmony-one", "bash", "bash is essential to this device"),
    ],
)
async def test_nothing_else_goes_or_comes_with_what_is_to_be_absent(
    offers: Offers, pi: Box, there: str, absent: str, why: str
) -> None:
    pi.run(["sh", "-c", f"apt-get -q update && apt-get -qy install {there}"])
    before = await installed(pi)
    outcome = await settle(tools(absent=[absent]), offers)
    assert isinstance(outcome, Failure)
    assert f"not removed: {absent}" in outcome.error.message
    assert why in outcome.error.message
    assert await installed(pi) == before
    assert isinstance(await settle(tools(absent=sorted({absent, *before})), offers), Failure) is (
        absent == "bash"
    )


async def test_what_takes_the_place_of_what_is_to_be_absent_comes_as_that_goes(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    score = tools("harmony-rival", absent=["harmony-here"])
    assert isinstance(await settle(score, offers), Success)
    assert await installed(pi) == {"harmony-rival": "1"}
    assert await settle(score, offers) == Noop()


async def held(pi: Box) -> list[str]:
    done = await asyncio.to_thread(pi.run, ["apt-mark", "showhold"])
    return done.stdout.decode().split()


async def test_what_is_held_stays_as_it_is_until_the_score_goes(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-one=1 harmony-here"])
    pi.run(["apt-mark", "hold", "harmony-here"])
    score = tools("harmony-here", "harmony-one", "harmony-two", hold=True)
    assert isinstance(await settle(score, offers), Success)
    assert await settle(score, offers) == Noop()
    pi.run(["apt-get", "-qy", "upgrade"])
    assert (await installed(pi))["harmony-one"] == "1"
    pi.run(["apt-mark", "unhold", "harmony-one"])
    ask_again(offers)
    assert isinstance(await settle(score, offers), Success)
    # What we hold, we change; and hold again, even if it cannot be changed.
    outcome = await settle(tools("harmony-one=3", "harmony-two", hold=True), offers)
    assert isinstance(outcome, Failure)
    assert await held(pi) == ["harmony-here", "harmony-one", "harmony-two"]
    newer = tools("harmony-one=2", "harmony-two", hold=True)
    assert isinstance(await settle(newer, offers), Success)
    assert (await installed(pi))["harmony-one"] == "2"
    await remove(offers, "packages-tools")
    assert await held(pi) == ["harmony-here"]
    assert await installed(pi) == {"harmony-here": "1", "harmony-one": "2", "harmony-dep": "1"}
    assert not (pi.root / "var/lib/harmony-package-holds").exists()


async def test_what_two_scores_hold_is_held_until_the_later_one_goes(
    offers: Offers, pi: Box
) -> None:
    first, second = tools("harmony-one", hold=True), tools("harmony-one", name="others", hold=True)
    await settle(first, offers)
    assert isinstance(await settle(second, offers), Success)
    assert isinstance(await settle(tools("harmony-one"), offers), Success)
    assert await held(pi) == ["harmony-one"]
    await remove(offers, "packages-others")
    assert await held(pi) == []


async def test_what_somebody_else_holds_is_neither_changed_nor_removed(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-one=1"])
    pi.run(["apt-mark", "hold", "harmony-one"])
    assert await settle(tools("harmony-one"), offers) == Noop()
    for score, why in (
        (tools("harmony-one=2"), "harmony-one=2: 1 is held, and not by Harmony"),
        (tools(absent=["harmony-one"]), "not removed: harmony-one is held"),
    ):
        outcome = await settle(score, offers)
        assert isinstance(outcome, Failure)
        assert why in outcome.error.message
        assert "apt-mark unhold harmony-one" in outcome.error.message
    assert await installed(pi) == {"harmony-one": "1"}
    assert await held(pi) == ["harmony-one"]


async def test_an_architecture_is_the_devices_own_or_one_that_dpkg_takes(
    offers: Offers, pi: Box
) -> None:
    native = pi.text("dpkg", "--print-architecture")
    foreign = "armhf" if native != "armhf" else "arm64"
    outcome = await settle(tools(f"harmony-foreign:{foreign}"), offers)
    assert isinstance(outcome, Failure)
    assert (
        f"harmony-foreign:{foreign}: this device takes packages of {native}"
        in outcome.error.message
    )
    assert isinstance(await settle(tools(f"harmony-one:{native}"), offers), Success)
    assert await settle(tools("harmony-one"), offers) == Noop()
    pi.run(["dpkg", "--add-architecture", foreign])
    try:
        both = tools("harmony-foreign", f"harmony-foreign:{foreign}")
        assert isinstance(await settle(tools(f"harmony-foreign:{foreign}"), offers), Success)
        assert isinstance(await settle(both, offers), Success)
        alone = tools(f"harmony-foreign:{foreign}", absent=["harmony-foreign"])
        assert isinstance(await settle(alone, offers), Success)
        assert await settle(alone, offers) == Noop()
        form = "${Architecture} ${db:Status-Status}\n"
        listed = pi.text("dpkg-query", "-W", "-f", form, "harmony-foreign").splitlines()
        assert f"{foreign} installed" in listed
        assert f"{native} installed" not in listed
        await remove(offers, "packages-tools")
        assert await installed(pi) == {}
    finally:
        pi.run(["dpkg", "--remove-architecture", foreign])


async def test_whoever_is_at_work_with_apt_is_waited_for(offers: Offers, pi: Box) -> None:
    lock = (
        "import fcntl, time; f = open('{}', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "open('/run/locked', 'w'); time.sleep(3)"
    )
    for path, score in (
        ("/var/lib/apt/lists/lock", tools("harmony-two")),
        ("/var/lib/dpkg/lock-frontend", tools("harmony-two", hold=True)),
    ):
        command = pi.inside(["python3", "-c", lock.format(path)])
        holding = await asyncio.create_subprocess_exec(*command)
        pi.wait_for(["rm", "/run/locked"])
        assert isinstance(await settle(score, offers), Success)
        assert await holding.wait() == 0
    assert await held(pi) == ["harmony-two"]
