"""SystemdUnitScore: on fakes, and sockets, paths, slices, targets and templates on a Pi with real systemd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_control.score_files.beside import put_in_files
from harmony_core import Noop, Success
from harmony_core.change import Change
from harmony_core.interpretation import interpret
from harmony_core.outcome import Failure
from harmony_core.reconciler import Offers
from harmony_core.resources import Active, Inactive, SystemdUnit, first_problem
from harmony_core.secret_values import secret_word
from harmony_core.stage import Stage
from harmony_core.testing import (
    AllowAll,
    FakePi,
    ListAudit,
    NoClaims,
    interpret_once,
    interpret_twice,
    inventory,
    make_stage,
)
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from harmony_scores import SystemdServiceScore, SystemdUnitScore
from tests.box import Box
from tests.topology.box_units import UnitsOfABox, emptied

STEM = "harmony-contract"
SOCKET, SERVICE, PATH = (f"{STEM}.{each}" for each in ("socket", "service", "path"))
SLICE, TARGET, TEMPLATE = f"{STEM}.slice", f"{STEM}.target", f"{STEM}@.service"
ETC = "/etc/systemd/system"
FLAG, SEEN = "/run/harmony-contract.flag", "/run/harmony-contract.seen"
PORT, OTHER_PORT = 18_090, 18_091
SLEEPS = "[Service]\nExecStart=/bin/sleep infinity\n"


def listens(port: int = PORT, more: str = "") -> SystemdUnitScore:
    content = f"[Socket]\nListenStream=127.0.0.1:{port}\n{more}[Install]\nWantedBy=sockets.target\n"
    return SystemdUnitScore(name=SOCKET, content=content)


def only_there(name: str, content: str) -> SystemdUnitScore:
    """Its file, and nothing more: others start it."""
    return SystemdUnitScore(name=name, content=content, enabled=None, state=None)


def limits(tasks: int) -> SystemdUnitScore:
    return SystemdUnitScore(name=SLICE, content=f"[Slice]\nTasksMax={tasks}\n", enabled=None)


RUNS = SystemdUnitScore(name=SERVICE, content=SLEEPS, enabled=None, settle_s=0)
IN_SLICE = SystemdUnitScore(
    name=SERVICE, content=f"{SLEEPS}Slice={SLICE}\n", enabled=None, settle_s=0
)
WATCHES = SystemdUnitScore(
    name=PATH, content=f"[Path]\nPathExists={FLAG}\n[Install]\nWantedBy=paths.target\n"
)
STARTS_ALL = SystemdUnitScore(
    name=TARGET, content=f"[Unit]\nWants={SERVICE}\n[Install]\nWantedBy=multi-user.target\n"
)
KINDS = [listens(), limits(64), WATCHES, STARTS_ALL]


@pytest.mark.parametrize("score", KINDS, ids=lambda each: each.name)
async def test_interpreted_twice_it_is_success_then_noop(score: SystemdUnitScore) -> None:
    pi = FakePi()
    await interpret_once(only_there(SERVICE, SLEEPS), pi.offers)
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success), first
    assert second == Noop()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "srv-data.mount"}, "name: is the unit of a mount; use a MountScore"),
        ({"name": "srv-data.automount"}, "name: is the unit of a mount; use a MountScore"),
        ({"name": "app"}, "write a unit's name with its type"),
        ({"name": "app.scope"}, "write a unit's name with its type"),
        ({"name": "-.slice"}, "write a unit's name with its type"),
        ({"name": "app@.service"}, "or set state to null, and enabled too"),
        ({"content": "[Socket]"}, "must end with a newline"),
        ({"content": "[Socket]\r\n"}, "control character"),
        ({"start_timeout_s": 0}, "start_timeout_s"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        SystemdUnitScore.model_validate({"name": SOCKET, **fields})
    assert told in first_problem(error.value)


def test_its_content_may_be_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "app.socket").write_text("[Socket]\nListenStream=80\n")
    spec = {"name": "app.socket", "content_from": "./app.socket"}
    whole, faults = put_in_files(spec, SystemdUnitScore, tmp_path)
    assert not faults
    assert whole["content"] == "[Socket]\nListenStream=80\n"
    spec = {"name": "app.service", "unit_file_from": "./app.socket"}
    whole, faults = put_in_files(spec, SystemdServiceScore, tmp_path)
    assert whole["unit_file"] == "[Socket]\nListenStream=80\n"


async def test_a_service_s_slice_is_in_the_file_that_is_written_and_nowhere_else() -> None:
    pi = FakePi()
    score = SystemdServiceScore(name=SERVICE, exec_start=("/bin/a",), slice="media.slice")
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second) == ("SUCCESS", Noop())
    assert b"\nSlice=media.slice\n" in (pi.systemd.read(f"{ETC}/{SERVICE}") or b"")
    for fields in ({"unit_file": SLEEPS, "slice": "media.slice"}, {"slice": "media.slice"}):
        with pytest.raises(ValidationError, match="slice: is written into a unit file together"):
            SystemdServiceScore.model_validate({"name": SERVICE, **fields})
    with pytest.raises(ValidationError, match=r"must end in \.slice"):
        SystemdServiceScore(name=SERVICE, exec_start=("/bin/a",), slice="media.service")
    assert "slice" not in SystemdServiceScore(name=SERVICE).model_dump()


async def test_a_secret_in_its_file_is_refused() -> None:
    pi = FakePi()
    word = secret_word("app", "token", "00" * 8)
    stage = Stage(
        offers=pi.offers,
        policy=AllowAll(),
        claims=NoClaims(),
        audit=ListAudit(),
        apply=True,
        secret_words=[word],
    )
    score = listens(more=f"ExecStartPre=/bin/x {word}\n")
    outcome = (await interpret(score, inventory(), stage)).outcome
    assert isinstance(outcome, Failure)
    assert "a secret cannot stand here: of a unit" in outcome.error.message
    assert pi.systemd.read(f"{ETC}/{SOCKET}") is None


@pytest.mark.parametrize(
    "name",
    [
        *("system.slice", "user.slice", "machine.slice", "system-systemd-x.slice"),
        *("system-wpa_supplicant.slice", "system-sshd.slice", "harmony-agent.slice"),
    ],
)
def test_a_slice_of_what_the_device_needs_is_not_a_score_s(name: str) -> None:
    policy = DevicePolicy()
    limited = SystemdUnit(name=name, content="[Slice]\nMemoryMax=1M\n", enabled=None)
    assert policy.refusal(limited) is not None
    assert policy.refusal(SystemdUnit(name=name, enabled=None, state="stopped")) is not None
    assert policy.removal_refusal(f"unit:{name}", SystemdUnit) is not None


@pytest.mark.parametrize("name", ["media.slice", "system-getty.slice"])
def test_any_other_slice_is(name: str) -> None:
    unit = SystemdUnit(name=name, content="[Slice]\nMemoryMax=1M\n", enabled=None)
    assert DevicePolicy().refusal(unit) is None


@pytest.mark.parametrize("service", ["dbus.service", "ssh.service", "harmony-agent.service"])
def test_a_socket_of_what_the_device_needs_is_refused(service: str) -> None:
    """Its service is started anew with it."""
    content = f"[Socket]\nListenStream=1\nService={service}\n"
    told = DevicePolicy().refusal(SystemdUnit(name="app.socket", content=content))
    assert told is not None
    assert f"app.socket has Service={service}" in told


def test_in_an_appliance_its_service_has_to_be_listed_too() -> None:
    rules = PolicyTable.read_text('preset = "appliance"\nunits = ["app.*"]\n')
    content = "[Socket]\nListenStream=1\nService={}\n"
    unit = SystemdUnit(name="app.socket", content=content.format("app.service"))
    assert DevicePolicy(rules=rules).refusal(unit) is None
    unit = SystemdUnit(name="app.socket", content=content.format("other.service"))
    assert "other.service" in (DevicePolicy(rules=rules).refusal(unit) or "")


@pytest.fixture
def box_units(pi: Box) -> UnitsOfABox:
    emptied(pi)
    pi.run(["rm", "-f", FLAG, SEEN])
    return UnitsOfABox(pi)


@pytest.fixture
async def systemd(box_units: UnitsOfABox) -> AsyncGenerator[SdbusSystemd]:
    yield box_units.opened()
    await box_units.close()


@pytest.fixture
def offers(systemd: SdbusSystemd) -> Offers:
    return {**FakePi().offers, "SystemdHost": systemd}


async def converge(score: SystemdUnitScore | SystemdServiceScore, offers: Offers) -> list[str]:
    """Interpret until it is NOOP: what was done on the way."""
    done: list[str] = []
    async with asyncio.timeout(60):
        while True:
            stage = make_stage(offers)
            outcome = (await interpret(score, inventory(), stage)).outcome
            assert not isinstance(outcome, Failure), outcome
            if isinstance(outcome, Noop):
                return done
            done += [step for change in stage.changes for step in change.actions]
            await asyncio.sleep(0.1)


async def fail(score: SystemdUnitScore | SystemdServiceScore, offers: Offers) -> str:
    outcome = (await interpret_once(score, offers)).outcome
    assert isinstance(outcome, Failure), outcome
    return outcome.error.message


async def remove(systemd: SdbusSystemd, *names: str) -> list[Change]:
    while True:
        results = await systemd.remove(names, apply=True)
        changes = [each for each in results if isinstance(each, Change)]
        assert len(changes) == len(names), results
        if all(change.pending is None for change in changes):
            return changes
        await asyncio.sleep(0.1)


def show(pi: Box, name: str, setting: str = "ActiveState") -> str:
    return pi.text("systemctl", "show", "-P", setting, name)


def hear(pi: Box, port: int) -> str:
    return pi.text("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port} && timeout 10 cat <&3")


async def until(pi: Box, name: str, state: str) -> None:
    async with asyncio.timeout(20):
        while show(pi, name) != state:
            await asyncio.sleep(0.05)


async def test_a_socket_starts_its_service_when_somebody_connects(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    template = f"{SLEEPS.replace('/bin/sleep infinity', '/bin/echo hello')}StandardInput=socket\n"
    await converge(only_there(TEMPLATE, template), offers)
    socket = listens(more="Accept=yes\n")
    assert await converge(socket, offers) == ["created its file", "enabled", "started"]
    assert hear(pi, PORT) == "hello"
    assert await converge(socket, offers) == []
    await remove(systemd, SOCKET, TEMPLATE)
    assert pi.run(["test", "-e", f"{ETC}/{SOCKET}"], check=False).returncode
    assert pi.run(["test", "-e", f"{ETC}/{TEMPLATE}"], check=False).returncode
    assert show(pi, SOCKET, "LoadState") == "not-found"
    assert pi.run(["test", "-L", f"{ETC}/sockets.target.wants/{SOCKET}"], check=False).returncode
    with pytest.raises(AssertionError):
        hear(pi, PORT)


async def test_a_socket_that_changes_is_left_alone_while_its_service_runs(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    await converge(only_there(SERVICE, SLEEPS), offers)
    await converge(listens(), offers)
    pi.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"])
    await until(pi, SERVICE, "active")
    before = show(pi, SERVICE, "InvocationID")
    for _ in range(2):
        told = await fail(listens(OTHER_PORT), offers)
        assert f"is not started anew while {SERVICE} runs" in told
        assert f"systemctl stop {SOCKET} {SERVICE}" in told
    assert (show(pi, SOCKET), show(pi, SERVICE, "InvocationID")) == ("active", before)
    assert pi.read(f"{ETC}/{SOCKET}").decode() == listens().content
    assert await converge(listens(), offers) == []
    pi.run(["systemctl", "stop", SOCKET, SERVICE])
    assert await converge(listens(OTHER_PORT), offers) == ["wrote its file", "started"]
    assert str(OTHER_PORT) in show(pi, SOCKET, "Listen")
    assert await converge(listens(OTHER_PORT), offers) == []


async def test_a_socket_of_before_is_put_back_and_not_ended_while_its_service_runs(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    content = listens().content
    assert content is not None
    pi.write(f"{ETC}/{SOCKET}", content)
    pi.write(f"{ETC}/{SERVICE}", SLEEPS)
    pi.run(["systemctl", "daemon-reload"])
    pi.run(["systemctl", "enable", "--now", SOCKET])
    await converge(listens(OTHER_PORT), offers)
    pi.run(["systemctl", "start", SERVICE])
    before = show(pi, SERVICE, "InvocationID")
    (change,) = await remove(systemd, SOCKET)
    assert f"is not started anew while {SERVICE} runs" in str(change.actions)
    assert pi.read(f"{ETC}/{SOCKET}").decode() == content
    assert (show(pi, SOCKET), show(pi, SERVICE, "InvocationID")) == ("active", before)


async def test_a_socket_with_a_connection_each_is_started_beside_them(
    pi: Box, offers: Offers
) -> None:
    template = f"{SLEEPS}StandardInput=socket\n"
    await converge(only_there(TEMPLATE, template), offers)
    socket = listens(more="Accept=yes\n")
    await converge(socket, offers)
    pi.run(["systemd-run", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; sleep 60"])
    async with asyncio.timeout(20):
        while (served := show(pi, SOCKET, "NConnections")) != "1":
            await asyncio.sleep(0.05)
    pi.run(["systemctl", "stop", SOCKET])
    assert await converge(socket, offers) == ["started"]
    assert show(pi, SOCKET, "NConnections") == served
    assert await converge(socket, offers) == []


async def test_a_socket_whose_service_goes_or_was_never_there_names_it(
    pi: Box, offers: Offers
) -> None:
    accepts = listens(more="Accept=yes\n")
    assert f"starts {TEMPLATE}, which is not there" in await fail(accepts, offers)
    await converge(only_there(TEMPLATE, SLEEPS), offers)
    await converge(accepts, offers)
    pi.run(["rm", f"{ETC}/{TEMPLATE}"])
    pi.run(["systemctl", "daemon-reload"])
    assert f"starts {TEMPLATE}, which is not there" in await fail(accepts, offers)


@pytest.mark.parametrize("name", [SERVICE, SLICE])
async def test_what_somebody_breaks_in_a_unit_is_put_right_or_goes(
    pi: Box, offers: Offers, systemd: SdbusSystemd, name: str
) -> None:
    score = limits(64) if name == SLICE else RUNS
    await converge(score, offers)
    for harm in (f"echo '[Unit' >> {ETC}/{name}", f"ln -sfn {name} {ETC}/{name}"):
        pi.run(["sh", "-c", harm])
        pi.run(["systemctl", "daemon-reload"])
        assert await converge(score, offers)
        assert await converge(score, offers) == []
    pi.run(["sh", "-c", f"echo '[Unit' >> {ETC}/{name}"])
    pi.run(["systemctl", "daemon-reload"])
    await remove(systemd, name)
    assert show(pi, name, "LoadState") == ("loaded" if name == SLICE else "not-found")
    assert pi.run(["test", "-e", f"{ETC}/{name}"], check=False).returncode


@pytest.mark.parametrize(
    "harm",
    [
        ["systemctl", "stop", SOCKET],
        ["systemctl", "disable", SOCKET],
        ["sh", "-c", f"echo '# mine' >> {ETC}/{SOCKET}"],
        ["rm", f"{ETC}/{SOCKET}"],
        ["sh", "-c", f"ln -sfn /dev/null {ETC}/{SOCKET}; systemctl daemon-reload"],
    ],
    ids=["stopped", "disabled", "edited", "deleted", "masked"],
)
async def test_what_somebody_does_to_a_socket_is_seen_and_mended(
    pi: Box, offers: Offers, harm: list[str]
) -> None:
    await converge(only_there(SERVICE, SLEEPS), offers)
    await converge(listens(), offers)
    pi.run(harm)
    seen = await interpret_once(listens(), offers, apply=False)
    assert not isinstance(seen.outcome, Noop)
    assert await converge(listens(), offers)
    assert show(pi, SOCKET) == "active"
    assert show(pi, SOCKET, "UnitFileState") == "enabled"
    assert pi.read(f"{ETC}/{SOCKET}").decode() == listens().content


async def test_a_path_starts_its_service_once_something_is_there(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    seen = f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/cp {FLAG} {SEEN}\n"
    await converge(only_there(SERVICE, seen), offers)
    await converge(WATCHES, offers)
    assert pi.run(["test", "-e", SEEN], check=False).returncode
    pi.write(FLAG, "it came\n")
    await until(pi, SERVICE, "active")
    assert pi.read(SEEN) == b"it came\n"
    assert await converge(WATCHES, offers) == []  # also while its service is up
    stopped = WATCHES.model_copy(update={"state": "stopped", "enabled": False})
    assert await converge(stopped, offers) == ["disabled", "stopped"]
    assert isinstance(await systemd.observe(PATH), Inactive)
    await remove(systemd, PATH, SERVICE)


@pytest.mark.parametrize("score", [listens(), WATCHES], ids=["socket", "path"])
async def test_what_is_to_start_a_unit_that_is_not_there_names_it(
    offers: Offers, score: SystemdUnitScore
) -> None:
    told = await fail(score, offers)
    assert f"{score.name} was not started, since {SERVICE}, which it starts, is not loaded" in told
    assert SERVICE in await fail(score, offers)
    await converge(only_there(SERVICE, SLEEPS), offers)
    await converge(score, offers)


async def test_a_service_runs_in_a_slice_whose_limits_are_in_force(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    await converge(limits(64), offers)
    await converge(IN_SLICE, offers)
    pid = show(pi, SERVICE, "MainPID")
    assert pi.text("cat", f"/proc/{pid}/cgroup").endswith(f"/{SLICE}/{SERVICE}")
    assert limit_of(pi) == "64"
    # What runs in it goes on, under the new limit.
    assert await converge(limits(128), offers) == ["wrote its file"]
    assert limit_of(pi) == "128"
    assert show(pi, SERVICE, "MainPID") == pid
    assert await converge(limits(128), offers) == []
    # Also where somebody edits its file.
    pi.run(["sed", "-i", "s/=128/=1000/", f"{ETC}/{SLICE}"])
    pi.run(["systemctl", "daemon-reload"])
    assert limit_of(pi) == "1000"
    assert await converge(limits(128), offers) == ["wrote its file"]
    assert limit_of(pi) == "128"
    # It goes from under what still runs, which is left alone.
    (foreseen,) = await systemd.remove([SLICE], apply=False)
    assert isinstance(foreseen, Change)
    assert isinstance(foreseen.after, Active)
    (change,) = await remove(systemd, SLICE)
    assert change.actions == ("removed its file", f"left: up as long as {SERVICE} runs in it")
    assert show(pi, SERVICE, "MainPID") == pid
    assert limit_of(pi) == "infinity"
    await remove(systemd, SERVICE)


def limit_of(pi: Box) -> str:
    """As the kernel has it, where that limits tasks in this box; else as systemd has it."""
    told = show(pi, SLICE, "TasksMax")
    if "pids" in pi.text("cat", "/sys/fs/cgroup/cgroup.controllers").split():
        group = show(pi, SLICE, "ControlGroup")
        assert pi.text("cat", f"/sys/fs/cgroup{group}/pids.max").replace("max", "infinity") == told
    return told


async def test_a_service_by_fields_runs_in_its_slice_and_a_drop_in_that_says_otherwise_is_told(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    command = ("/bin/sleep", "infinity")
    plain = SystemdServiceScore(name=SERVICE, exec_start=command, enabled=None, settle_s=0)
    await converge(plain, offers)
    sliced = plain.model_copy(update={"slice": SLICE})
    assert await converge(sliced, offers) == ["wrote its file", "restarted: its file changed"]
    pid = show(pi, SERVICE, "MainPID")
    assert pi.text("cat", f"/proc/{pid}/cgroup").endswith(f"/{SLICE}/{SERVICE}")
    pi.write(f"{ETC}/{SERVICE}.d/other.conf", "[Service]\nSlice=system.slice\n")
    pi.run(["systemctl", "daemon-reload"])
    assert await converge(sliced, offers) == []  # it still runs where it is to
    pi.run(["systemctl", "restart", SERVICE])
    assert not isinstance((await interpret_once(sliced, offers, apply=False)).outcome, Noop)
    told = await fail(sliced, offers)
    assert f"is to run in {SLICE}, and systemd has it in system.slice; take Slice= out of" in told
    assert f"{ETC}/{SERVICE}.d/other.conf" in told
    pi.run(["rm", f"{ETC}/{SERVICE}.d/other.conf"])
    pi.run(["systemctl", "daemon-reload"])
    await converge(sliced, offers)
    pid = show(pi, SERVICE, "MainPID")
    assert pi.text("cat", f"/proc/{pid}/cgroup").endswith(f"/{SLICE}/{SERVICE}")
    await remove(systemd, SERVICE)


async def test_a_slice_that_nothing_runs_in_goes_with_its_file(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    assert await systemd.observe(SLICE) is None  # though systemd can load a slice of any name
    await converge(limits(64), offers)
    assert isinstance(await systemd.observe(SLICE), Active)
    (change,) = await remove(systemd, SLICE)
    assert change.actions == ("stopped", "removed its file")
    assert await systemd.observe(SLICE) is None
    assert show(pi, SLICE) == "inactive"
    (again,) = await remove(systemd, SLICE)
    assert again.actions == ()


async def test_a_slice_of_before_is_put_back_under_what_runs_in_it(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    pi.write(f"{ETC}/{SLICE}", "[Slice]\nTasksMax=1000\n")
    pi.run(["systemctl", "daemon-reload"])
    await converge(IN_SLICE, offers)
    pid = show(pi, SERVICE, "MainPID")
    await converge(limits(64), offers)
    assert limit_of(pi) == "64"
    await remove(systemd, SLICE)
    assert pi.read(f"{ETC}/{SLICE}") == b"[Slice]\nTasksMax=1000\n"
    assert limit_of(pi) == "1000"
    assert show(pi, SERVICE, "MainPID") == pid
    await remove(systemd, SERVICE)


async def test_a_target_starts_what_it_wants(
    pi: Box, offers: Offers, systemd: SdbusSystemd
) -> None:
    await converge(only_there(SERVICE, SLEEPS), offers)
    await converge(STARTS_ALL, offers)
    assert show(pi, SERVICE) == "active"
    assert show(pi, TARGET, "UnitFileState") == "enabled"
    await remove(systemd, TARGET, SERVICE)


async def test_an_instance_runs_from_its_template(pi: Box, offers: Offers) -> None:
    instance = SystemdUnitScore(
        name=f"{STEM}@one.service", enabled=None, settle_s=0, uses=(f"{ETC}/{TEMPLATE}",)
    )
    text = "[Service]\nExecStart=/bin/sh -c 'sleep infinity' {} %i\n"
    await converge(only_there(TEMPLATE, text.format("a")), offers)
    await converge(instance, offers)
    assert await converge(only_there(TEMPLATE, text.format("b")), offers) == ["wrote its file"]
    assert await converge(instance, offers) == [f"restarted: {ETC}/{TEMPLATE} changed"]
    pid = show(pi, instance.name, "MainPID")
    assert pi.read(f"/proc/{pid}/cmdline").endswith(b"\0b\0one\0")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (SOCKET, "[Socket]\nAccept=yes\n"),
        (PATH, "[Path]\nMakeDirectory=yes\n"),
        (SERVICE, "[Service]\nType=exec\n"),
        (f"{STEM}.timer", "[Timer]\nOnCalendar=some day\n"),
    ],
)
async def test_a_file_that_systemd_does_not_take_is_told_by_its_unit(
    offers: Offers, systemd: SdbusSystemd, name: str, content: str
) -> None:
    """Each time, and not as something that does not exist."""
    score = SystemdUnitScore(name=name, content=content, enabled=None)
    for _ in range(2):
        assert name in (told := await fail(score, offers))
        assert "correct" in told
    outcome = (await interpret_once(score, offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "InvalidResource"
    await remove(systemd, name)


async def test_a_template_that_is_to_be_enabled_is_told_so(offers: Offers) -> None:
    content = f"{SLEEPS}[Install]\nWantedBy=multi-user.target\n"
    score = SystemdUnitScore(name=TEMPLATE, content=content, state=None)
    assert "template unit" in await fail(score, offers)
