"""ShellJobScore and PackageScore: on fakes, and on a Pi whose apt has a small repository of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from pydantic import ValidationError

from harmony_core import Noop, Running, Success
from harmony_core.errors import JobAttemptFailed
from harmony_core.outcome import Failure, Outcome
from harmony_core.reconciler import MemoryRecords, Offers
from harmony_core.score import AnyScore
from harmony_core.testing import AllowAll, FakePi, JobProgram, interpret_once
from harmony_pi_topology.jobs.systemd import SystemdJobs
from harmony_scores import PackageScore, ShellJobScore
from tests.box import Box
from tests.scores.apt_repository import BUILD, GONE, NEWER_TOO, OLDER_ALONE, installed

HELLO = ShellJobScore(name="hello", script="echo hello\n")


@pytest.fixture
async def offers(pi: Box) -> AsyncGenerator[Offers]:
    pi.run(["sh", "-c", GONE], check=False)
    pi.run(["sh", "-c", BUILD])
    jobs = SystemdJobs(
        records=MemoryRecords(), policy=AllowAll(), address=pi.dbus_address, root=pi.root
    )
    yield {"JobRunner": jobs}
    pi.run(["sh", "-c", GONE], check=False)
    for name in ("hello", "packages-tools", "packages-others"):
        await removed({"JobRunner": jobs}, name)
    await jobs.close()


async def settled(score: AnyScore, offers: Offers) -> Outcome:
    """Look until it has settled."""
    while True:
        outcome = (await interpret_once(score, offers)).outcome
        if not isinstance(outcome, Running):
            return outcome
        await asyncio.sleep(0.1)


async def removed(offers: Offers, name: str) -> None:
    while True:
        (result,) = await offers["JobRunner"].remove([name], apply=True)
        if isinstance(result, Exception):
            raise result
        if result.pending is None:
            return
        await asyncio.sleep(0.1)


def tools(*packages: str, name: str = "tools") -> PackageScore:
    return PackageScore(name=name, packages=packages)


async def test_a_script_is_run_once() -> None:
    pi = FakePi()
    assert isinstance(await settled(HELLO, pi.offers), Success)
    assert await settled(HELLO, pi.offers) == Noop()
    assert pi.jobs.begun == [("/bin/sh", "-eu", "-c", "echo hello\n")]


async def test_a_script_that_fails_says_so() -> None:
    pi = FakePi()
    pi.jobs.programs["/bin/sh", "-eu", "-c", "echo hello\n"] = JobProgram(
        exit_code=2, stderr="no such thing"
    )
    outcome = await settled(HELLO, pi.offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "JobFailed"
    assert "no such thing" in outcome.error.message


async def test_a_script_ends_at_the_first_command_that_fails_on_a_pi(offers: Offers) -> None:
    outcome = await settled(HELLO.model_copy(update={"script": "false\necho hello\n"}), offers)
    assert isinstance(outcome, Failure)
    assert "said nothing" in outcome.error.message
    assert isinstance(await settled(HELLO, offers), Success)


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
        ("nginx:amd64",),
        ("^nginx",),
    ],
)
def test_what_is_no_package_is_refused(packages: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        tools(*packages)


async def test_packages_are_installed_and_those_that_were_not_there_are_removed(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    both = tools("harmony-here", "harmony-two")
    assert isinstance(await settled(both, offers), Success)
    assert await settled(both, offers) == Noop()
    there = {"harmony-here": "1", "harmony-two": "1", "harmony-dep": "1"}
    assert await installed(pi) == there
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-here": "1", "harmony-dep": "1"}
    assert pi.read("/etc/harmony-two.conf") == b"1\n"
    assert not (pi.root / "var/lib/harmony-packages").exists()


async def test_a_version_is_kept_to_and_what_is_asked_for_no_longer_goes(
    offers: Offers, pi: Box
) -> None:
    await settled(tools("harmony-one=1", "harmony-two"), offers)
    assert (await installed(pi))["harmony-one"] == "1"
    assert isinstance(await settled(tools("harmony-one"), offers), Success)
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}
    assert await settled(tools("harmony-one"), offers) == Noop()
    assert await settled(tools("harmony-one=2"), offers) == Noop()
    assert isinstance(await settled(tools("harmony-one=1"), offers), Success)
    assert (await installed(pi))["harmony-one"] == "1"
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


async def test_what_is_there_already_is_not_installed(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-one"])
    assert await settled(tools("harmony-one"), offers) == Noop()
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-one": "2"}


async def test_a_package_that_is_nowhere_is_a_failure_with_its_reason(offers: Offers) -> None:
    outcome = await settled(tools("harmony-none"), offers)
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
    outcome = await settled(tools(name), offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.message == (
        f"job packages-tools: packages: Unable to locate package {name} in the sources of this device"
    )
    assert await installed(pi) == {}


async def test_what_others_provide_is_refused_with_their_names(offers: Offers, pi: Box) -> None:
    outcome = await settled(tools("harmony-virtual", "harmony-one"), offers)
    assert isinstance(outcome, Failure)
    assert outcome.error.message == (
        "job packages-tools: packages: harmony-virtual is no package itself; "
        "name one that provides it: harmony-actual harmony-other"
    )
    assert await installed(pi) == {}
    # Also where one of them is there already.
    pi.run(["apt-get", "-qy", "install", "harmony-actual"])
    assert isinstance(await settled(tools("harmony-virtual"), offers), Failure)
    assert isinstance(await settled(tools("harmony-other"), offers), Success)
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-actual": "1"}


async def test_a_source_that_is_new_is_read_before_its_packages_are_asked_for(
    offers: Offers, pi: Box
) -> None:
    pi.run(["sh", "-c", OLDER_ALONE])
    assert isinstance(await settled(tools("harmony-one"), offers), Success)
    assert await installed(pi) == {"harmony-one": "1"}
    pi.run(["sh", "-c", NEWER_TOO])
    assert isinstance(await settled(tools("harmony-one", "harmony-dep"), offers), Success)
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}


async def test_a_source_that_cannot_be_read_is_told(offers: Offers, pi: Box) -> None:
    pi.run(
        ["sh", "-c", "echo 'deb [trusted=yes] file:/srv/none ./' > /etc/apt/sources.list.d/x.list"]
    )
    outcome = await settled(tools("harmony-one"), offers)
    assert isinstance(outcome, Failure)
    assert "packages: " in outcome.error.message
    assert "/srv/none" in outcome.error.message
    assert await installed(pi) == {}
    pi.run(["rm", "/etc/apt/sources.list.d/x.list"])
    assert isinstance(await settled(tools("harmony-one"), offers), Success)


async def test_a_package_that_cannot_be_set_up_is_told_by_its_name(offers: Offers, pi: Box) -> None:
    outcome = await settled(tools("harmony-broken"), offers)
    assert isinstance(outcome, Failure)
    assert "dpkg: error processing package harmony-broken" in outcome.error.message
    assert "said nothing" not in outcome.error.message


async def test_what_others_depend_on_by_now_is_not_removed_under_them(
    offers: Offers, pi: Box
) -> None:
    await settled(tools("harmony-one", "harmony-two"), offers)
    pi.run(["apt-get", "-qy", "install", "harmony-leaner"])
    with pytest.raises(JobAttemptFailed, match=r"would go with it: harmony-leaner$"):
        await removed(offers, "packages-tools")
    outcome = await settled(tools("harmony-two"), offers)
    assert isinstance(outcome, Failure)
    assert "not removed: harmony-one" in outcome.error.message
    there = {"harmony-one": "2", "harmony-two": "1", "harmony-dep": "1", "harmony-leaner": "1"}
    assert await installed(pi) == there
    pi.run(["apt-get", "-qy", "remove", "harmony-leaner"])
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


DRY = "/etc/apt/apt.conf.d/99dry"
"""Somebody's setting by which apt ends well without having asked dpkg for anything."""


async def test_what_apt_ends_well_without_removing_is_told_and_stays_noted(
    offers: Offers, pi: Box
) -> None:
    await settled(tools("harmony-one", "harmony-two"), offers)
    there = await installed(pi)
    pi.write(DRY, 'Debug::pkgDPkgPM "true";\n')
    try:
        with pytest.raises(JobAttemptFailed) as told:
            await removed(offers, "packages-tools")
        outcome = await settled(tools("harmony-two"), offers)
    finally:
        pi.run(["rm", DRY])
    still = (
        "harmony-one is still there, although apt has ended well; dpkg has 2, install ok installed"
    )
    assert still in told.value.message
    assert isinstance(outcome, Failure)
    assert still in outcome.error.message
    assert await installed(pi) == there
    assert isinstance(await settled(tools("harmony-two"), offers), Success)
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-dep": "1"}


async def test_what_is_half_removed_is_not_gone(offers: Offers, pi: Box) -> None:
    await settled(tools("harmony-stuck"), offers)
    pi.run(["touch", "/run/harmony-stuck"])
    try:
        for _ in range(2):
            with pytest.raises(JobAttemptFailed, match=r"harmony-stuck"):
                await removed(offers, "packages-tools")
    finally:
        pi.run(["rm", "/run/harmony-stuck"])
    assert await installed(pi) == {}
    await removed(offers, "packages-tools")
    done = pi.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", "harmony-stuck"])
    assert done.stdout == b"config-files"


async def test_nothing_is_installed_in_place_of_what_is_there(offers: Offers, pi: Box) -> None:
    pi.run(["sh", "-c", "apt-get -q update && apt-get -qy install harmony-here"])
    outcome = await settled(tools("harmony-rival"), offers)
    assert isinstance(outcome, Failure)
    assert "remove is disabled" in outcome.error.message
    assert "harmony-here" in outcome.error.message
    assert await installed(pi) == {"harmony-here": "1"}


async def test_what_two_scores_name_goes_with_the_later_one(offers: Offers, pi: Box) -> None:
    first, second = tools("harmony-one", "harmony-two"), tools("harmony-two", name="others")
    await settled(first, offers)
    assert isinstance(await settled(second, offers), Success)
    assert await settled(second, offers) == Noop()
    await removed(offers, "packages-tools")
    assert await installed(pi) == {"harmony-two": "1", "harmony-dep": "1"}
    await settled(first, offers)
    assert isinstance(await settled(tools("harmony-one"), offers), Success)
    assert (await installed(pi))["harmony-two"] == "1"
    await removed(offers, "packages-others")
    assert await installed(pi) == {"harmony-one": "2", "harmony-dep": "1"}


async def test_two_scores_at_once_take_turns(offers: Offers, pi: Box) -> None:
    first, second = tools("harmony-two"), tools("harmony-two", name="others")
    await asyncio.gather(settled(first, offers), settled(second, offers))
    await asyncio.gather(removed(offers, "packages-tools"), settled(second, offers))
    assert "harmony-two" in await installed(pi)
    await removed(offers, "packages-others")
    assert await installed(pi) == {"harmony-dep": "1"}
