"""Units in memory pass the contract of units."""

from __future__ import annotations

import pytest

from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, UnitFailed
from harmony_core.reconciler import Availability
from harmony_core.resources import Active, Inactive, SystemdUnit
from harmony_pi_topology.testing.fake_systemd import FakeSystemd, ServiceProgram
from harmony_pi_topology.testing.systemd_contract import SystemdHostContract
from harmony_pi_topology.testing.units_under_test import SERVICE_PROGRAMS, UnitsUnderTest


class TestFakeSystemd(SystemdHostContract):
    @pytest.fixture
    def host(self) -> UnitsUnderTest:
        systemd = FakeSystemd(patient=False)
        systemd.programs.update(SERVICE_PROGRAMS)
        return UnitsUnderTest(units=systemd, bystander=systemd, reopen=systemd.reopen)


WEB = SystemdUnit(
    name="web.service", content="[Service]\nExecStart=/usr/bin/web\n", enabled=None, settle_s=5
)


async def test_unless_told_otherwise_a_unit_has_settled_at_the_first_look() -> None:
    (change,) = await FakeSystemd().converge([WEB], apply=True)
    assert isinstance(change, Change)
    assert isinstance(change.after, Active)
    assert change.pending is None


async def test_unless_told_otherwise_a_slow_start_is_waited_for() -> None:
    systemd = FakeSystemd()
    systemd.programs["/usr/bin/web"] = ServiceProgram(starts_in_s=30)
    (change,) = await systemd.converge([WEB], apply=True)
    assert isinstance(change, Change)
    assert change.pending is None


async def test_what_a_program_does_is_said_beforehand() -> None:
    systemd = FakeSystemd()
    systemd.programs["/usr/bin/web"] = ServiceProgram(exit_code=3, log=("no display",))
    (error,) = await systemd.converge([WEB], apply=True)
    assert isinstance(error, UnitFailed)
    assert "no display" in error.message


async def test_a_fault_is_the_answer_to_everything_about_its_unit() -> None:
    systemd = FakeSystemd()
    systemd.faults["web.service"] = CapabilityUnavailable("systemd does not answer")
    other = WEB.model_copy(update={"name": "other.service"})
    error, fine = await systemd.converge([WEB, other], apply=True)
    assert isinstance(error, CapabilityUnavailable)
    assert error.resource == "unit:web.service"
    assert isinstance(fine, Change)
    (error,) = await systemd.remove(["web.service"], apply=True)
    assert isinstance(error, CapabilityUnavailable)


async def test_it_says_that_it_is_unavailable_when_told_to() -> None:
    systemd = FakeSystemd()
    systemd.availability_now = Availability(available=False, reason="down")
    assert (await systemd.availability()).reason == "down"


async def test_files_may_be_those_of_another_fake() -> None:
    files = {"/usr/lib/systemd/system/ssh.service": b"[Service]\nExecStart=/usr/sbin/sshd\n"}
    systemd = FakeSystemd()
    systemd.files = files
    assert isinstance(await systemd.observe("ssh.service"), Inactive)
    await systemd.converge([WEB], apply=True)
    assert "/etc/systemd/system/web.service" in files
