"""Unit files of which systemd would ignore a part, or whose limits the kernel cannot keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from harmony_core.errors import InvalidResource, UnitFailed
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.verification import UnitVerifier
from harmony_pi_topology.testing.units_under_test import SLEEP, UnitsUnderTest
from tests.box import Box
from tests.topology.box_units import UnitsOfABox, emptied

SERVICE = f"[Service]\nExecStart={SLEEP}\n"
OURS = "/etc/systemd/system/"

IGNORED = {
    "a limit that is none": (
        "harmony-contract.service",
        f"{SERVICE}MemoryMax=64 Mega\n",
        "line 3: Invalid memory limit '64 Mega'",
    ),
    "a setting of another section": (
        "harmony-contract.service",
        f"[Unit]\nExecStart=/bin/true\n{SERVICE}",
        "line 2: Unknown key",
    ),
    "a word that a setting does not have": (
        "harmony-contract.service",
        f"{SERVICE}Restart=sometimes\n",
        "line 3: ",
    ),
    "a section that is mistyped": (
        "harmony-contract.service",
        f"{SERVICE}[Instal]\nWantedBy=multi-user.target\n",
        "line 3: Unknown section 'Instal'",
    ),
    "a line that is no setting": (
        "harmony-contract.service",
        f"{SERVICE}NoNewPrivileges\n",
        "line 3: Missing '='",
    ),
    "one of two times": (
        "harmony-contract.timer",
        "[Timer]\nUnit=harmony-contract.target\nOnCalendar=daily\nOnCalendar=dayly\n",
        "line 4: ",
    ),
    "a mode": (
        "harmony-contract.socket",
        "[Socket]\nListenStream=/run/harmony-contract.socket\nSocketMode=9999\n",
        "line 3: ",
    ),
    "a limit of a slice": (
        "harmony-contract.slice",
        "[Slice]\nTasksMax=many\n",
        "line 2: Invalid maximum tasks value 'many'",
    ),
    "a setting of a template": (
        "harmony-contract@.service",
        f"{SERVICE}CPUQuota=half\n",
        "line 3: ",
    ),
}


@pytest.fixture
async def host(pi: Box) -> AsyncGenerator[UnitsUnderTest]:
    emptied(pi)
    units = UnitsOfABox(pi)
    yield units.under_test()
    await units.close()


def unit(name: str, content: str) -> SystemdUnit:
    state = None if "@." in name else "running"
    return SystemdUnit(name=name, content=content, enabled=None, state=state, settle_s=0)


@pytest.mark.parametrize("case", IGNORED)
async def test_what_systemd_would_ignore_is_refused_before_anything_is_touched(
    host: UnitsUnderTest, case: str
) -> None:
    name, content, told = IGNORED[case]
    reloads = await host.bystander.reloads()
    for apply in (False, True):
        (refused,) = await host.units.converge([unit(name, content)], apply=apply)
        assert isinstance(refused, InvalidResource), refused
        assert refused.message.startswith(f"systemd on this device ignores a part of {name}: ")
        assert told in refused.message
    assert host.bystander.read(OURS + name) is None
    assert await host.bystander.reloads() == reloads


async def test_a_file_that_stood_there_already_is_judged_too(host: UnitsUnderTest) -> None:
    name, content, _ = IGNORED["a limit that is none"]
    host.bystander.write(OURS + name, content.encode())
    await host.bystander.reload()
    await host.bystander.start(name)
    (refused,) = await host.units.converge([unit(name, content)], apply=True)
    assert isinstance(refused, InvalidResource)


async def test_what_is_refused_leaves_what_runs_as_it_is(host: UnitsUnderTest) -> None:
    name, content, _ = IGNORED["a limit that is none"]
    good = unit(name, SERVICE)
    await host.apply_one(good)
    before = await host.bystander.identity(name)
    (refused,) = await host.units.converge([unit(name, content)], apply=True)
    assert isinstance(refused, InvalidResource)
    assert host.bystander.read(OURS + name) == SERVICE.encode()
    assert (await host.apply_one(good)).actions == ()
    assert await host.bystander.identity(name) == before


async def test_each_part_is_named_up_to_a_few(host: UnitsUnderTest) -> None:
    content = SERVICE + "".join(f"Nonsense{n}=1\n" for n in range(7))
    (refused,) = await host.units.converge([unit("harmony-contract.service", content)], apply=False)
    assert isinstance(refused, InvalidResource)
    assert all(f"'Nonsense{n}'" in refused.message for n in range(5))
    assert "Nonsense5" not in refused.message
    assert "; 2 more; " in refused.message


async def test_what_systemd_reads_otherwise_and_what_is_not_there_yet_is_no_fault(
    host: UnitsUnderTest,
) -> None:
    """An older word that it still knows, what begins with X-, what an empty value takes back, and a program
    that another Score brings."""
    content = (
        "# X=1\n[Unit]\nAfter=harmony-contract-later.service\n[X-Notes]\nBy=hand\n"
        f"{SERVICE}StandardOutput=syslog\nX-Mine=1\nMemoryMax=64M\nMemoryMax=\nExecStartPre=-/run/later\n"
        # What systemd calls an unknown escape sequence, and takes as it is.
        "ExecStartPre=-/bin/sh -c \"echo a.b | sed -e 's/a\\.b/c/'\"\n"
    )
    name = "harmony-contract.service"
    assert (await host.apply_one(unit(name, content))).actions[-1] == "started"
    assert (await host.apply_one(unit(name, content))).actions == ()


def controllers(root: Path, text: str) -> Root:
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text(text)
    return Root(str(root))


LIMITED = unit("kiosk.service", f"{SERVICE}  MemoryHigh = 64M\n")


@pytest.mark.parametrize("setting", ["MemoryLimit=64M", "StartupMemoryMax=1G", "MemoryLow=1M"])
async def test_each_way_to_say_it_is_refused_where_the_kernel_has_none(
    tmp_path: Path, setting: str
) -> None:
    verifier = UnitVerifier(controllers(tmp_path, "cpu\n"), ["false"])
    with pytest.raises(UnitFailed, match=setting.partition("=")[0]):
        await verifier.verify(unit("kiosk.service", f"{SERVICE}{setting}\n"))


async def test_a_limit_of_memory_is_refused_where_the_kernel_has_none(tmp_path: Path) -> None:
    """As Raspberry Pi OS boots unless it is told otherwise."""
    verifier = UnitVerifier(controllers(tmp_path, "cpuset cpu io pids\n"))
    with pytest.raises(UnitFailed, match=r"kiosk\.service has MemoryHigh=.*cgroup_enable=memory"):
        await verifier.verify(LIMITED)
    unlimited = unit(
        "kiosk.service", f"{SERVICE}MemoryMax=infinity\nMemoryAccounting=yes\nMemoryLow=0\n"
    )
    await verifier.verify(unlimited)


@pytest.mark.parametrize("text", ["cpuset cpu io memory pids\n", None])
async def test_it_is_not_where_the_kernel_has_one_or_nobody_says(
    tmp_path: Path, text: str | None
) -> None:
    root = Root(str(tmp_path)) if text is None else controllers(tmp_path, text)
    await UnitVerifier(root).verify(LIMITED)


@pytest.mark.parametrize(
    "command", [["/nonexistent/systemd-analyze"], ["sh", "-c", "exec sleep 60"], ["false"]]
)
async def test_where_systemd_analyze_cannot_be_asked_nothing_is_refused(
    tmp_path: Path, command: list[str]
) -> None:
    verifier = UnitVerifier(Root(str(tmp_path)), command, within_s=0.2)
    await verifier.verify(unit("kiosk.service", f"{SERVICE}Foo=1\n"))
