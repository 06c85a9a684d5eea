"""Units on real systemd, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from harmony_core.change import Change
from harmony_core.errors import InvalidResource, NotReadyInTime, UnitFailed
from harmony_core.resources import Activating, Failed, HttpProbe, SystemdUnit
from harmony_core.testing import Hearer
from harmony_pi_topology.testing.systemd_contract import SystemdHostContract
from harmony_pi_topology.testing.units_under_test import (
    PORT,
    SERVE,
    SLEEP,
    SLEEP_TOO,
    TRUE,
    UnitsUnderTest,
)
from tests.box import Box
from tests.soak import runs, seed
from tests.topology.box_units import BoxUnits, UnitsOfABox, emptied
from tests.topology.converge_a_unit import FileRecords, Spec
from tests.topology.killing import killed

NAME = SystemdHostContract.NAME
USED = SystemdHostContract.USED
SEEN = "/run/harmony-contract.seen"
STUBBORN = "/bin/sh -c 'trap : TERM; while :; do sleep 0.1; done'"
CHATTY = "/bin/sh -c 'for n in $$(seq 5000); do echo line $$n; done; exit 1'"


def service(command: str, kind: str = "exec") -> str:
    return f"[Service]\nType={kind}\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture
async def units(pi: Box) -> AsyncGenerator[UnitsOfABox]:
    emptied(pi)
    units = UnitsOfABox(pi)
    yield units
    await units.close()


@pytest.fixture
def host(units: UnitsOfABox) -> UnitsUnderTest:
    return units.under_test()


class TestSystemdInABox(SystemdHostContract):
    @pytest.fixture
    def host(self, units: UnitsOfABox) -> UnitsUnderTest:
        return units.under_test()


async def test_it_survives_a_system_bus_that_is_started_anew(pi: Box, host: UnitsUnderTest) -> None:
    unit = SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0)
    await host.apply_one(unit)
    before = await host.marks(NAME)
    await asyncio.to_thread(pi.run, ["systemctl", "restart", "dbus.service"])
    while not (await host.units.availability()).available:
        await asyncio.sleep(0.05)
    assert (await host.apply_one(unit)).actions == ()
    assert await host.marks(NAME) == before
    changed = unit.model_copy(update={"content": service(SLEEP_TOO)})
    assert "restarted: its file changed" in (await host.apply_one(changed)).actions


QUADLET = "/etc/containers/systemd/harmony-contract.volume"
INIT_SCRIPT = "/etc/init.d/harmony-contract"
MOUNTS = "/etc/fstab"
SOURCES = {
    QUADLET: "[Volume]\n",
    INIT_SCRIPT: "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: harmony-contract\n"
    "# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3\n# Default-Stop:\n### END INIT INFO\nexit 0\n",
    MOUNTS: "harmony /srv/contract tmpfs noauto 0 0\n",
}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (QUADLET, "harmony-contract-volume.service"),
        (INIT_SCRIPT, "harmony-contract.service"),
        (MOUNTS, "srv-contract.mount"),
    ],
)
async def test_a_unit_that_systemd_makes_from_a_new_file_is_there_at_once(
    pi: Box, host: UnitsUnderTest, source: str, name: str
) -> None:
    """Without anybody's daemon-reload, which nobody asks for a unit that does not exist."""
    before = pi.read(source) if source == MOUNTS else None
    pi.write(source, SOURCES[source])
    pi.run(["chmod", "755", source])
    unit = SystemdUnit(name=name, enabled=None, uses=(source,), settle_s=0)
    try:
        (planned,) = await host.units.converge([unit], apply=False)
        assert isinstance(planned, Change), planned
        assert planned.actions == ("started",)
        assert (await host.apply_one(unit)).actions == ("started",)
        assert (await host.apply_one(unit)).actions == ()
    finally:
        pi.run(["systemctl", "stop", name], check=False)
        pi.run(["podman", "volume", "rm", "systemd-harmony-contract"], check=False)
        pi.write(source, before) if before is not None else pi.run(["rm", source])
        pi.run(["systemctl", "daemon-reload"])


async def test_a_unit_that_nothing_makes_is_refused_and_read_for_once(
    pi: Box, host: UnitsUnderTest
) -> None:
    """A file that was changed is no reason to have all unit files read again at every try."""
    pi.write("/etc/harmony-contract.conf", "just a file\n")
    await asyncio.sleep(0.1)  # what is changed in the same tick may not have been read
    unit = SystemdUnit(name=NAME, enabled=None, uses=("/etc/harmony-contract.conf",), settle_s=0)
    loaded: list[str] = []
    for _ in range(3):
        (refused,) = await host.units.converge([unit], apply=True)
        assert isinstance(refused, UnitFailed)
        assert "such as a Quadlet" in refused.message
        loaded.append(pi.text("systemctl", "show", "-P", "UnitsLoadTimestampMonotonic"))
    assert len(set(loaded)) == 1, loaded
    pi.run(["rm", "/etc/harmony-contract.conf"])


async def test_it_hears_of_units_over_a_system_bus_that_is_started_anew(
    pi: Box, host: UnitsUnderTest
) -> None:
    await host.apply_one(SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0))
    told = Hearer()
    await host.units.watch([NAME], told)
    for n in range(2):
        await asyncio.to_thread(pi.run, ["systemctl", "restart", "dbus.service"])
        while None not in told.heard:
            await host.units.availability()
            await asyncio.sleep(0.05)
        told.heard.clear()
        await (host.bystander.start if n % 2 else host.bystander.stop)(NAME)
        await told.hears(NAME)


async def test_it_hears_of_units_over_a_systemd_that_is_executed_anew(
    pi: Box, host: UnitsUnderTest
) -> None:
    await host.apply_one(SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0))
    told = Hearer()
    await host.units.watch([NAME], told)
    await asyncio.to_thread(pi.run, ["systemctl", "daemon-reexec"])
    await told.hears(NAME)
    for deed in (host.bystander.stop, host.bystander.start):
        await told.is_at_rest()
        told.heard.clear()
        await deed(NAME)
        await told.hears(NAME)


GO = "/run/harmony-contract.go"
FORGE = """
set -e
id pi >/dev/null 2>&1 || useradd pi
until systemctl list-jobs --no-legend | grep -q {name}; do sleep 0.05; done
job=$(systemctl list-jobs --no-legend | awk '/{name}/ {{ print $1; exit }}')
manager=/org/freedesktop/systemd1
for to in $(busctl list --unique --no-legend | awk '{{ print $1 }}'); do
    runuser -u pi -- busctl --destination=$to emit $manager org.freedesktop.systemd1.Manager JobRemoved \
        uoss $job $manager/job/$job {name} failed
done
systemctl list-jobs --no-legend | grep -q {name}
"""
"""Tells everybody, as an ordinary user, that the job of a unit has failed; fails where it is over by then."""


async def test_a_user_who_says_that_a_job_has_failed_is_not_believed(
    pi: Box, host: UnitsUnderTest
) -> None:
    waits = f"/bin/sh -c 'until [ -e {GO} ]; do sleep 0.1; done'"
    content = service(waits, "oneshot").replace("Exec", "RemainAfterExit=yes\nExec")
    unit = SystemdUnit(name=NAME, content=content, settle_s=0)
    applying = asyncio.create_task(host.units.converge([unit], apply=True))
    await asyncio.to_thread(pi.run, ["sh", "-c", FORGE.format(name=NAME)])
    pi.write(GO, "")
    (change,) = await applying
    assert isinstance(change, Change), change
    assert (await host.apply_one(unit)).actions == ()


@pytest.mark.parametrize("where", ["multi-user.target.wants", "another.target.wants"])
async def test_a_link_that_is_taken_away_by_hand_is_told(
    pi: Box, host: UnitsUnderTest, where: str
) -> None:
    content = service(SLEEP).replace("multi-user.target", where.removesuffix(".wants"))
    await host.apply_one(SystemdUnit(name=NAME, content=content, settle_s=0))
    told = Hearer()
    await host.units.watch([NAME], told)
    pi.run(["rm", f"/etc/systemd/system/{where}/{NAME}"])
    await told.hears(NAME)


async def test_an_instance_is_told_of_its_template_s_file(pi: Box, host: UnitsUnderTest) -> None:
    told = Hearer()
    instance = NAME.replace(".service", "@one.service")
    template = NAME.replace(".service", "@.service")
    await host.units.watch([instance], told)
    host.bystander.write(f"/etc/systemd/system/{template}", service(SLEEP).encode())
    await told.hears(instance)


async def test_a_failure_is_told_with_no_more_than_its_last_lines(host: UnitsUnderTest) -> None:
    unit = SystemdUnit(name=NAME, content=service(CHATTY), settle_s=2)
    error = await host.expect_failure(unit)
    assert isinstance(error, UnitFailed)
    lines = error.message.split("\n")[1:]
    assert "line 5000" in lines
    assert len(lines) <= 20
    assert len(error.message.encode()) < 2500


async def test_a_unit_file_belongs_to_root_and_all_may_read_it(
    pi: Box, host: UnitsUnderTest
) -> None:
    await host.apply_one(SystemdUnit(name=NAME, content=service(SLEEP), state="stopped"))
    path = f"/etc/systemd/system/{NAME}"
    assert pi.text("stat", "-c", "%a %U %G", path) == "644 root root"
    pi.run(["chmod", "600", path])
    await host.apply_one(SystemdUnit(name=NAME, content=service(SLEEP), state="stopped"))
    assert pi.text("stat", "-c", "%a %U %G", path) == "644 root root"


async def test_a_unit_that_is_slow_to_stop_is_waited_for(host: UnitsUnderTest) -> None:
    content = service(STUBBORN).replace("[Install]", "TimeoutStopSec=2\n[Install]")
    unit = SystemdUnit(name=NAME, content=content, settle_s=0)
    await host.apply_one(unit)
    stopped = unit.model_copy(update={"state": "stopped"})
    first = await host.look(stopped)
    assert first.actions == ("stopped",)
    assert isinstance(first.after, Activating)
    assert first.pending is not None
    assert first.pending.reason == "Progressing"
    last = await host.apply_one(stopped)
    assert last.actions == ()
    # It had to be killed.
    assert isinstance(last.after, Failed)


async def test_a_unit_that_is_slow_to_stop_is_removed_once_it_has(host: UnitsUnderTest) -> None:
    content = service(STUBBORN).replace("[Install]", "TimeoutStopSec=2\n[Install]")
    await host.apply_one(SystemdUnit(name=NAME, content=content, settle_s=0))
    (first,) = await host.units.remove([NAME], apply=True)
    assert isinstance(first, Change)
    assert first.actions == ("stopped",)
    assert first.pending is not None
    assert host.file(NAME) is not None
    last = await host.remove_one(NAME)
    assert last.actions == ("disabled", "removed its file")
    assert await host.units.observe(NAME) is None


async def test_a_unit_that_takes_back_what_was_done_stays_until_it_has(
    pi: Box, host: UnitsUnderTest
) -> None:
    undo = "ExecStop=/bin/sh -c 'echo no leave >&2; mv /run/harmony-contract.may /run/harmony-contract.did'"
    content = service(TRUE, "oneshot").replace(
        "[Install]", f"RemainAfterExit=yes\n{undo}\n[Install]"
    )
    await host.apply_one(SystemdUnit(name=NAME, content=content, settle_s=0, takes_back=True))
    for _ in range(2):
        (error,) = await host.units.remove([NAME], apply=True)
        assert isinstance(error, UnitFailed)
        assert "has not taken back what was done" in error.message
        assert "no leave" in error.message
        assert host.file(NAME) is not None
    pi.run(["touch", "/run/harmony-contract.may"])
    done = await host.remove_one(NAME)
    assert done.actions == ("stopped", "disabled", "removed its file")
    assert (pi.root / "run/harmony-contract.did").exists()
    assert await host.units.observe(NAME) is None


async def test_a_unit_that_refuses_to_be_stopped_is_told_until_its_file_lets_it(
    host: UnitsUnderTest,
) -> None:
    unit = SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0)
    stubborn = unit.model_copy(
        update={"content": f"[Unit]\nRefuseManualStop=yes\n{service(SLEEP)}"}
    )
    await host.apply_one(stubborn)
    (error,) = await host.units.converge(
        [stubborn.model_copy(update={"state": "stopped"})], apply=True
    )
    (other,) = await host.units.remove([NAME], apply=True)
    for each in (error, other):
        assert isinstance(each, InvalidResource)
        assert "RefuseManualStop=yes" in each.message
    assert await host.bystander.command(NAME) == SLEEP
    await host.apply_one(unit)
    assert (await host.remove_one(NAME)).actions == ("stopped", "disabled", "removed its file")


@pytest.mark.parametrize("times", ["OnActiveSec=50ms", "OnActiveSec=50ms\nOnUnitActiveSec=1y"])
async def test_a_timer_that_has_elapsed_and_is_over_is_in_order(
    host: UnitsUnderTest, times: str
) -> None:
    name = NAME.replace(".service", ".timer")
    ran = SystemdUnit(name=NAME, content=service(TRUE, "oneshot"), state=None, enabled=None)
    timer = SystemdUnit(name=name, content=f"[Timer]\n{times}\nAccuracySec=1ms\n", enabled=None)
    await host.units.converge([ran, timer], apply=True)
    while not await host.bystander.identity(NAME):
        await asyncio.sleep(0.05)
    assert (await host.apply_one(timer)).actions == ()


async def test_removing_a_name_that_has_become_an_alias_touches_no_other_unit(
    host: UnitsUnderTest,
) -> None:
    other = SystemdHostContract.OTHER
    await host.apply_one(SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0))
    await host.bystander.stop(NAME)
    host.bystander.delete(f"/etc/systemd/system/{NAME}")
    await host.bystander.install(other, service(SLEEP_TOO))
    assert isinstance(host.bystander, BoxUnits)
    await host.bystander.run("ln", "-s", other, f"/usr/lib/systemd/system/{NAME}")
    await host.bystander.reload()
    await host.bystander.start(other)
    assert (await host.remove_one(NAME)).actions == (f"left: it is another name of {other}",)
    assert await host.bystander.command(other) == SLEEP_TOO


async def test_what_was_disabled_with_a_unit_is_enabled_after_a_kill_in_between(
    units: UnitsOfABox, host: UnitsUnderTest
) -> None:
    socket = NAME.replace(".service", "-other.target")
    await host.bystander.install(socket, "[Install]\nWantedBy=multi-user.target\n")
    await host.bystander.enable(socket)
    unit = SystemdUnit(name=NAME, content=f"{service(SLEEP)}Also={socket}\n", settle_s=0)
    await host.apply_one(unit)
    noted = units.records.get(unit.id)
    assert noted is not None
    await units.records.put(unit.id, {**noted, "giving_back": {socket: True}})
    await host.bystander.disable(NAME)
    assert not await host.bystander.is_enabled(socket)
    await host.remove_one(NAME)
    assert await host.bystander.is_enabled(socket)


async def test_what_an_agent_left_that_was_killed_at_writing_a_unit_file_goes(pi: Box) -> None:
    emptied(pi)
    left = "/etc/systemd/system/.harmony.0123.4567.tmp"
    unit = SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0)
    units = UnitsOfABox(pi)
    await units.under_test().apply_one(unit)
    for work in ("is in order", "is removed"):
        pi.write(left, "half")
        again = units.under_test()
        if work == "is in order":
            await again.apply_one(unit)
        else:
            await again.remove_one(NAME)
        assert again.bystander.read(left) is None, work
    await units.backups.keep(unit.id, b"noted by nobody")
    await units.under_test().units.remove([NAME], apply=True)
    assert await units.backups.get(unit.id) is None
    await units.close()


async def test_a_used_file_that_changes_right_after_a_reboot_restarts_the_unit(
    boot: Callable[[], Box],
) -> None:
    """As when an agent finds a newer manifest when it is back: files first, then what uses them."""
    box = boot()
    used = "/etc/harmony-contract.conf"
    unit = SystemdUnit(name=NAME, content=service(SLEEP), uses=(used,), settle_s=0)
    units = UnitsOfABox(box)
    host = units.under_test()
    host.bystander.write(used, b"one\n")
    await host.apply_one(unit)
    await units.close()
    await asyncio.to_thread(box.reboot)
    again = UnitsOfABox(box, records=units.records)
    host = again.under_test()
    host.bystander.write(used, b"two\n")
    assert (await host.apply_one(unit)).actions == (f"restarted: {used} changed",)
    assert (await host.apply_one(unit)).actions == ()
    await again.close()


async def test_after_a_reboot_what_runs_is_as_it_was_wished_and_left_alone(
    boot: Callable[[], Box],
) -> None:
    box = boot()
    oneshot = SystemdHostContract.OTHER
    wishes = [
        SystemdUnit(name=NAME, content=service(SLEEP), settle_s=0),
        SystemdUnit(name=oneshot, content=service(TRUE, "oneshot"), settle_s=0),
    ]
    units = UnitsOfABox(box)
    host = units.under_test()
    for wish in wishes:
        await host.apply_one(wish)
    before = await host.bystander.identity(NAME)
    await units.close()
    await asyncio.to_thread(box.reboot)
    again = UnitsOfABox(box, records=units.records)
    host = again.under_test()
    after = await host.bystander.identity(NAME)
    assert after != before
    for wish in wishes:
        assert (await host.apply_one(wish)).actions == ()
    assert await host.bystander.identity(NAME) == after
    await again.close()


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_killed_at_any_moment_the_end_is_the_same_and_nothing_restarts_twice(
    pi: Box, tmp_path: Path
) -> None:
    """Every time there is another unit file and another file that it uses, as if both were pushed.

    Half of the times somebody has restarted it before, which the agent cannot know.
    """
    emptied(pi)
    path = tmp_path / "records.json"
    bystander = BoxUnits(pi)
    dice = random.Random(seed())
    for run in range(runs(50, part=10)):
        if run and dice.random() < 0.5:
            await bystander.restart(NAME)
        used, command = f"{run}\n".encode(), f"/bin/sleep {run + 86_400}"
        unit = SystemdUnit(
            name=NAME,
            content=service(f"/bin/sh -c 'cp {USED} {SEEN}; exec {command}'"),
            uses=(USED,),
            settle_s=0.3,
        )
        bystander.write(USED, used)
        await kill_while_converging(pi, path, unit, after_s=dice.uniform(0, 1.2))
        await no_job_is_left(bystander)
        was = await bystander.identity(NAME)
        restarted = await bystander.command(NAME) == command
        units = UnitsOfABox(pi, records=FileRecords(path))
        host = units.under_test()
        await host.apply_one(unit)
        assert await bystander.command(NAME) == command
        assert bystander.read(SEEN) == used
        assert await bystander.is_enabled(NAME)
        if restarted:
            assert await bystander.identity(NAME) == was
        marks = await host.marks(NAME)
        assert (await host.apply_one(unit)).actions == ()
        assert await host.marks(NAME) == marks
        await units.close()
    (change,) = await UnitsOfABox(pi, records=FileRecords(path)).opened().remove([NAME], apply=True)
    assert isinstance(change, Change)
    assert change.actions == ("stopped", "disabled", "removed its file")


async def test_a_unit_that_answers_no_more_is_told_and_so_is_that_it_does_again(
    pi: Box, host: UnitsUnderTest
) -> None:
    told = Hearer()
    unit = SystemdUnit(
        name=NAME,
        content=service(SERVE),
        settle_s=0.5,
        ready=HttpProbe(port=PORT, path="/hostname", within_s=3, every_s=0.2, timeout_s=0.5),
    )
    await host.apply_one(unit)
    assert (await host.plan_one(unit)).pending is None
    await host.units.watch([NAME], told)
    await asyncio.to_thread(pi.run, ["systemctl", "kill", "--signal=STOP", NAME])
    await told.hears(NAME)
    error = await host.expect_failure(unit)
    assert isinstance(error, NotReadyInTime)
    assert f"{NAME} runs, but answers no more: GET" in error.message
    assert (await host.plan_one(unit)).pending is not None
    told.heard.clear()
    await asyncio.to_thread(pi.run, ["systemctl", "kill", "--signal=CONT", NAME])
    await told.hears(NAME)
    assert (await host.apply_one(unit)).actions == ()


async def kill_while_converging(
    pi: Box, records: Path, unit: SystemdUnit, *, after_s: float
) -> None:
    spec = Spec(
        address=pi.dbus_address,
        root=str(pi.root),
        records=str(records),
        unit=unit.model_dump_json(),
    )
    await killed("tests.topology.converge_a_unit", spec, after_s=after_s)


async def no_job_is_left(bystander: BoxUnits) -> None:
    while (await bystander.run("systemctl", "list-jobs", "--no-legend")).stdout.strip():
        await asyncio.sleep(0.05)
