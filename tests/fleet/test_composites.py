"""Scores that are made of others' resources, on a real Pi with its agent and ledger, from push to removal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry, Pushable
from harmony_core.outcome import Failure, Noop, Success
from harmony_pi_topology import PiTopology
from harmony_scores import (
    AptSourceScore,
    FileScore,
    PackageScore,
    ShellJobScore,
    SysctlScore,
    SystemdServiceScore,
    TimerScore,
    UserScore,
)
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, Host, allowed, code_of, pushed, statuses, until
from tests.scores.apt_repository import BUILD, GONE, Signer, installed

Pi: TypeAlias = Device[PiTopology]

TTL = "/proc/sys/net/ipv4/ip_default_ttl"
SETTING = SysctlScore(name="ttl", settings={"net.ipv4.ip_default_ttl": "77"})
TOOLS = PackageScore(name="tools", packages=("harmony-two",))
BUDDY = UserScore(name="buddy", shell="/bin/sh", groups=("video",))
ALL: Mapping[str, Pushable[PiTopology]] = {
    "tick": TimerScore(name="harmony-tick", exec_start=("/usr/bin/true",), every_s=3600),
    "ttl": SETTING,
    "buddy": BUDDY,
    "tools": TOOLS,
}


@pytest.fixture
async def ready(pi: Box, device: Pi) -> Pi:
    """With a repository, and allowed to run anything."""
    await asyncio.to_thread(pi.run, ["sh", "-c", GONE], check=False)
    await asyncio.to_thread(pi.run, ["sh", "-c", BUILD])
    await allowed(pi, device, "any")
    return device


async def events(plane: ControlPlane, pi: Box, score: str) -> list[Mapping[str, Any]]:
    said = await plane.harmony("events", pi.name, "--json")
    assert said.status == 0, said.err
    return [each for each in said.documents if each["score"] == score]


async def test_all_of_them_are_there_stay_as_they_are_and_go(
    ready: Pi, pi: Box, host: Host
) -> None:
    ttl = pi.text("cat", TTL)
    state, _ = await pushed(ready, ALL)
    assert statuses(state) == dict.fromkeys(ALL, "SUCCESS")
    assert host.unit("harmony-tick.timer", "ActiveState") == {"ActiveState": "active"}
    assert pi.text("cat", TTL) == "77"
    assert pi.text("getent", "passwd", "buddy").endswith(":/bin/sh")
    assert "video" in pi.text("id", "-Gn", "buddy").split()
    assert set(await installed(pi)) == {"harmony-two", "harmony-dep"}

    state, _ = await pushed(ready, ALL)
    assert statuses(state) == dict.fromkeys(ALL, "NOOP")

    await ready.remove(*ALL)
    assert pi.text("cat", TTL) == ttl
    assert set(await installed(pi)) == {"harmony-dep"}
    assert not host.units("harmony-tick")
    assert not host.units("harmony-user")
    assert not host.units("harmony-sysctl")
    listed = ("systemctl", "list-units", "--all", "--plain", "--no-legend")
    assert not pi.text(*listed, "harmony-job*", "harmony-tick*", "harmony-user*", "harmony-sysctl*")
    for left in ("sysctl.d/60-harmony-ttl.conf", "sysusers.d/harmony-buddy.conf"):
        assert not (pi.root / "etc" / left).exists()
    assert (
        pi.text("id", "-un", "buddy") == "buddy"
    )  # what it owns is not to be given to anybody else


async def test_a_user_that_somebody_deletes_is_drift(
    plane: ControlPlane, ready: Pi, pi: Box
) -> None:
    assert isinstance(await ready.push(BUDDY, id="buddy"), Success)
    await asyncio.to_thread(pi.run, ["userdel", "buddy"])
    await until(ready, lambda state: state.scores["buddy"].drift_count == 1)
    await asyncio.to_thread(pi.wait_for, ["id", "buddy"])
    last = (await events(plane, pi, "buddy"))[-1]
    assert (last["why"], last["resource"]) == ("drift", "unit:harmony-user-buddy.service")


async def test_a_setting_that_somebody_changes_is_put_right_when_somebody_asks(
    plane: ControlPlane, ready: Pi, pi: Box
) -> None:
    assert isinstance(await ready.push(SETTING, id="ttl"), Success)
    await asyncio.to_thread(pi.run, ["sh", "-c", f"echo 66 > {TTL}"])
    said = await plane.harmony("reconcile", pi.name, "ttl")
    assert said.status == 0, said.err
    assert pi.text("cat", TTL) == "77"
    last = (await events(plane, pi, "ttl"))[-1]
    assert (last["why"], last["resource"]) == ("drift", "unit:harmony-sysctl-ttl.service")
    assert last["actions"] == ["restarted: net/ipv4/ip_default_ttl is 66, not 77"]
    await asyncio.to_thread(pi.run, ["sh", "-c", f"echo 65 > {TTL}"])
    assert not isinstance(await ready.push(SETTING, id="ttl"), Failure)
    assert pi.text("cat", TTL) == "77"


async def test_what_was_set_is_given_back_though_its_service_has_failed_or_was_stopped(
    ready: Pi, pi: Box
) -> None:
    ttl = pi.text("cat", TTL)
    settings = {"net.ipv4.ip_default_ttl": "77", "net.ipv4.harmony_has_none": "1"}
    await ready.put({"ttl": SysctlScore(name="ttl", settings=settings)})
    await until(
        ready, lambda state: "ttl" in state.scores and code_of(state, "ttl") == "UnitFailed"
    )
    assert pi.text("cat", TTL) == "77"
    await ready.remove("ttl")
    assert pi.text("cat", TTL) == ttl
    assert not (pi.root / "var/lib/harmony-sysctl").exists()

    # Somebody has stopped it, and the agent was not there to see it.
    assert isinstance(await ready.push(SETTING, id="ttl"), Success)
    await asyncio.to_thread(pi.run, ["systemctl", "stop", AGENT, "harmony-sysctl-ttl.service"])
    assert pi.text("cat", TTL) == "77"
    await asyncio.to_thread(pi.run, ["systemctl", "start", AGENT])
    await ready.remove("ttl")
    assert pi.text("cat", TTL) == ttl


async def test_a_package_that_somebody_removes_is_drift(
    plane: ControlPlane, ready: Pi, pi: Box
) -> None:
    assert isinstance(await ready.push(TOOLS, id="tools"), Success)
    await asyncio.to_thread(pi.run, ["apt-get", "-qy", "remove", "harmony-two"])
    await until(ready, lambda state: state.scores["tools"].drift_count == 1)
    await until(ready, lambda state: isinstance(state.scores["tools"].outcome, Success))
    assert "harmony-two" in await installed(pi)
    last = (await events(plane, pi, "tools"))[-1]
    assert (last["why"], last["resource"]) == ("drift", "job:packages-tools")
    # Whoever does not wait for that asks: 0 means that it is there, 4 that it is on its way.
    await asyncio.to_thread(pi.run, ["apt-get", "-qy", "remove", "harmony-two"])
    said = await plane.harmony("reconcile", pi.name, "tools")
    assert said.status in {0, 4}, said.err
    await until(ready, lambda state: isinstance(state.scores["tools"].outcome, Success))
    assert "harmony-two" in await installed(pi)
    await asyncio.to_thread(pi.run, ["apt-get", "-qy", "remove", "harmony-two"])
    assert not isinstance(await ready.push(TOOLS, id="tools"), Failure)
    assert "harmony-two" in await installed(pi)


async def test_packages_come_after_the_source_that_has_them(
    plane: ControlPlane, ready: Pi, pi: Box, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "signer")
    await asyncio.to_thread(signer.sign, pi, "/srv/harmony-signed")
    await asyncio.to_thread(pi.run, ["rm", "/etc/apt/sources.list"])
    source = AptSourceScore(
        name="signed",
        uris=("file:/srv/harmony-signed",),
        suites=("stable",),
        components=("main",),
        key=signer.key,
    )
    both: Mapping[str, Pushable[PiTopology]] = {
        "tools": Entry(TOOLS, after=["source"]),
        "source": source,
    }
    state, _ = await pushed(ready, both)
    assert statuses(state) == dict.fromkeys(both, "SUCCESS")
    assert set(await installed(pi)) == {"harmony-two", "harmony-dep"}
    await asyncio.to_thread(pi.run, ["rm", "/etc/apt/keyrings/signed.asc"])
    await until(ready, lambda state: state.scores["source"].drift_count == 1)
    await until(ready, lambda state: isinstance(state.scores["source"].outcome, Success))
    assert pi.read("/etc/apt/keyrings/signed.asc").decode().strip() == signer.key
    absent = PackageScore(name="no-tools", absent=("harmony-two",))
    outcome = await ready.push(absent, id="no-tools")
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "OwnershipConflict"
    await ready.remove(*both)
    await until(ready, lambda state: isinstance(state.scores["no-tools"].outcome, Noop))
    assert not (pi.root / "etc/apt/sources.list.d/signed.sources").exists()


async def test_that_nothing_of_a_script_is_undone_is_told(
    plane: ControlPlane, ready: Pi, pi: Box
) -> None:
    script = ShellJobScore(name="leaves", script="echo here > /srv/left", privileged=True)
    assert isinstance(await ready.push(script, id="leaves"), Success)
    await ready.remove("leaves")
    assert pi.read("/srv/left") == b"here\n"
    last = (await events(plane, pi, "leaves"))[-1]
    assert last["actions"] == ["forgotten: what it did stays"]


async def test_what_a_device_allows_no_more_is_not_run_for_a_removal_either(
    plane: ControlPlane, ready: Pi, pi: Box
) -> None:
    assert isinstance(await ready.push(TOOLS, id="tools"), Success)
    await allowed(pi, ready, "none")
    await ready.remove("tools")
    assert set(await installed(pi)) == {"harmony-two", "harmony-dep"}
    (said,) = (await events(plane, pi, "tools"))[-1]["actions"]
    assert said.startswith(
        "forgotten: what it did stays, since this device runs no privileged jobs"
    )


async def test_one_thing_that_two_want_under_two_names_has_one_owner(ready: Pi, pi: Box) -> None:
    two, path = "harmony-two.service", "/etc/systemd/system/harmony-two.service"
    content = "[Service]\nExecStart=/usr/bin/sleep 3001\n"
    wanted: Mapping[str, Pushable[PiTopology]] = {
        "ttl": ALL["ttl"],
        "other-ttl": SysctlScore(name="other", settings={"net/ipv4/ip_default_ttl": "78"}),
        "unit": SystemdServiceScore(name=two, unit_file=content, enabled=None, settle_s=0),
        "file": FileScore(path=path, content="[Service]\nExecStart=/usr/bin/false\n"),
    }
    state, _ = await pushed(ready, wanted)
    fails = {"other-ttl", "file"}
    assert statuses(state) == {each: "FAILURE" if each in fails else "SUCCESS" for each in wanted}
    for refused, named in (
        ("other-ttl", "unit:harmony-sysctl-ttl.service"),
        ("file", f"unit:{two}"),
    ):
        outcome = state.scores[refused].outcome
        assert isinstance(outcome, Failure)
        assert outcome.error.code == "OwnershipConflict"
        assert named in outcome.error.message
    assert pi.text("cat", TTL) == "77"
    assert pi.read(path) == content.encode()
    await ready.remove("file", "other-ttl")
    assert pi.read(path) == content.encode()
    await ready.remove("unit", "ttl")
    assert not (pi.root / path[1:]).exists()


async def test_a_unit_that_two_want_under_its_name_and_its_alias_has_one_owner(
    ready: Pi, pi: Box
) -> None:
    player, alias = "harmony-player.service", "harmony-radio.service"
    content = "[Service]\nExecStart=/usr/bin/sleep 3002\n[Install]\nWantedBy=multi-user.target\n"
    wanted: Mapping[str, Pushable[PiTopology]] = {
        "player": SystemdServiceScore(
            name=player, unit_file=f"{content}Alias={alias}\n", settle_s=0
        ),
    }
    state, _ = await pushed(ready, wanted)
    assert statuses(state)["player"] == "SUCCESS"
    invocation = pi.text("systemctl", "show", "-P", "InvocationID", player)
    radio = SystemdServiceScore(name=alias, enabled=None, state="stopped", settle_s=0)
    state, _ = await pushed(ready, {"radio": radio})
    outcome = state.scores["radio"].outcome
    assert isinstance(outcome, Failure)
    # systemd knows the alias by now, so it is refused before anybody asks whose it is.
    assert outcome.error.code == "InvalidResource"
    assert f"name {player} in the Score" in outcome.error.message
    assert pi.text("systemctl", "show", "-P", "InvocationID", player) == invocation
    await ready.remove("radio", "player")
    assert pi.text("systemctl", "show", "-P", "ActiveState", player) == "inactive"
