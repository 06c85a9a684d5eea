"""What every systemd that Scores act on must do: `SystemdHost`, as tests.

::

    class TestMySystemd(SystemdHostContract):
        @pytest.fixture
        def host(self) -> UnitsUnderTest:
            return UnitsUnderTest(units=MySystemd(…), bystander=…, reopened=…)

What the services run are the commands below, which a fake knows by `SERVICE_PROGRAMS`. The *bystander* is
somebody else on the same device, with systemd's own tools: what Harmony did is checked with the bystander's
eyes, and what it must cope with is done with the bystander's hands.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import (
    InvalidResource,
    NotOurs,
    NotReadyInTime,
    PolicyRefused,
    UnitFailed,
)
from harmony_core.reconciler import Reconciler
from harmony_core.resources import (
    Activating,
    Active,
    HttpProbe,
    Inactive,
    SystemdUnit,
    TcpProbe,
    UnitState,
)

from .fake_systemd import ServiceProgram

__all__ = ["SERVICE_PROGRAMS", "SystemdHostContract", "UnitBystander", "UnitsUnderTest"]

PORT = 18081
"""A port of the device that nothing listens on."""

SLEEP = "/bin/sleep infinity"
SLEEP_TOO = "/bin/sleep 86400"
TRUE = "/bin/true"
BOOM = "/bin/sh -c 'echo boom; echo bang >&2; exit 3'"
DIE_SOON = "/bin/sh -c 'echo alive; sleep 0.2; exit 3'"
MISSING = "/nonexistent/program"
START_SLOWLY = "/bin/sh -c 'sleep 2; systemd-notify --ready; exec sleep infinity'"
RUN_SLOWLY = "/bin/sleep 2"
SERVE = f"/bin/busybox httpd -f -p {PORT} -h /etc"
SERVE_LATE = f"/bin/sh -c 'sleep 2; exec /bin/busybox httpd -f -p {PORT} -h /etc'"
SERVE_NOTHING = "/bin/sh -c 'echo the database is away; exec sleep infinity'"

SERVICE_PROGRAMS: Mapping[str, ServiceProgram] = MappingProxyType(
    {
        SLEEP: ServiceProgram(),
        SLEEP_TOO: ServiceProgram(),
        TRUE: ServiceProgram(exit_code=0),
        BOOM: ServiceProgram(exit_code=3, log=("boom", "bang")),
        DIE_SOON: ServiceProgram(exit_code=3, ends_after_s=0.2, log=("alive",)),
        MISSING: ServiceProgram(exit_code=203),
        START_SLOWLY: ServiceProgram(starts_in_s=2.0),
        RUN_SLOWLY: ServiceProgram(exit_code=0, ends_after_s=2.0),
        SERVE: ServiceProgram(),
        SERVE_LATE: ServiceProgram(ready_after_s=2.0),
        SERVE_NOTHING: ServiceProgram(ready_after_s=math.inf, log=("the database is away",)),
    }
)
"""The commands above, as `FakeSystemd.programs`."""

_LOOKS = 100
_MADE = ("created its file", "enabled", "started")


class UnitBystander(Protocol):
    """Somebody else who works on the same device."""

    async def pass_time(self, seconds: float) -> None:
        """Wait for *seconds* of the units' time."""

    async def install(self, name: str, content: str) -> None:
        """A package brings a unit, below /usr/lib."""

    async def reload(self) -> None:
        """Have systemd read its files anew."""

    async def start(self, name: str) -> None: ...

    async def stop(self, name: str) -> None: ...

    async def restart(self, name: str) -> None: ...

    async def kill(self, name: str) -> None:
        """Kill its processes, and wait until systemd has noticed."""

    async def enable(self, name: str) -> None: ...

    async def disable(self, name: str) -> None: ...

    async def mask(self, name: str) -> None: ...

    async def is_enabled(self, name: str) -> bool: ...

    async def identity(self, name: str) -> str:
        """Which start of it runs, or ran last; empty when it never did."""
        ...

    async def command(self, name: str) -> str:
        """The command that it runs now, as its unit file says; empty when it does not run."""
        ...

    async def reloads(self) -> str:
        """Differs after each time that systemd has read its files."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a file in place."""

    def read(self, path: str) -> bytes | None:
        """Its content; None when there is none."""
        ...


@attrs.frozen(kw_only=True)
class UnitsUnderTest:
    """A reconciler of units, and somebody else on the same device."""

    units: Reconciler[SystemdUnit, UnitState]
    bystander: UnitBystander
    reopened: Callable[[], Reconciler[SystemdUnit, UnitState]]
    """Makes another reconciler with the same records, as an agent does that starts again."""

    async def look(self, unit: SystemdUnit) -> Change:
        """One converge; raises the error that it answers."""
        (result,) = await self.units.converge([unit], apply=True)
        return _change(result)

    async def planned(self, unit: SystemdUnit) -> Change:
        (result,) = await self.units.converge([unit], apply=False)
        return _change(result)

    async def applied(self, unit: SystemdUnit) -> Change:
        """Look until it has converged: the last Change, with all that was done on the way."""
        actions: tuple[str, ...] = ()
        for _ in range(_LOOKS):
            change = await self.look(unit)
            actions += change.actions
            if change.pending is None:
                return attrs.evolve(change, actions=actions)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{unit.name} did not converge in {_LOOKS} looks")

    async def failed(self, unit: SystemdUnit) -> Exception:
        """Look until it fails: its error."""
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await self.applied(unit)
        return raised.value

    async def removed(self, name: str) -> Change:
        """Take it away, also if that takes a while."""
        actions: tuple[str, ...] = ()
        for _ in range(_LOOKS):
            (result,) = await self.units.remove([name], apply=True)
            change = _change(result)
            actions += change.actions
            if change.pending is None:
                return attrs.evolve(change, actions=actions)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{name} was not removed in {_LOOKS} looks")

    def file(self, name: str) -> bytes | None:
        """The unit file that Harmony wrote."""
        return self.bystander.read(f"/etc/systemd/system/{name}")

    async def marks(self, name: str) -> tuple[str, str, bytes | None]:
        """What stays when nothing is done."""
        return (
            await self.bystander.identity(name),
            await self.bystander.reloads(),
            self.file(name),
        )


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class SystemdHostContract(ABC):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    NAME: ClassVar[str] = "harmony-contract.service"
    OTHER: ClassVar[str] = "harmony-contract-other.service"
    TIMER: ClassVar[str] = "harmony-contract.timer"
    USED: ClassVar[str] = "/run/harmony-contract.conf"

    @pytest.fixture
    @abstractmethod
    def host(self) -> UnitsUnderTest:
        """A device without these units, and without a file `USED`."""

    def content(self, command: str = SLEEP, *settings: str, install: bool = True) -> str:
        """A unit file."""
        lines = ["[Service]", "Type=exec", f"ExecStart={command}", *settings]
        return "\n".join([*lines, *(["[Install]", "WantedBy=multi-user.target"] * install), ""])

    def unit(self, command: str = SLEEP, *settings: str, **fields: Any) -> SystemdUnit:
        """One whose service has settled soon."""
        given = {"name": self.NAME, "content": self.content(command, *settings), "settle_s": 0.5}
        return SystemdUnit.model_validate({**given, **fields})

    async def test_what_is_not_there_is_observed_as_none(self, host: UnitsUnderTest) -> None:
        assert await host.units.observe(self.NAME) is None

    async def test_a_missing_unit_is_written_enabled_and_started(
        self, host: UnitsUnderTest
    ) -> None:
        change = await host.applied(self.unit())
        assert change.actions == _MADE
        assert isinstance(change.after, Active)
        assert (change.after.sub, change.after.result) == ("running", "success")
        assert host.file(self.NAME) == self.content().encode()
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_what_is_observed_is_what_was_wished(self, host: UnitsUnderTest) -> None:
        change = await host.applied(self.unit())
        state = await host.units.observe(self.NAME)
        assert isinstance(state, Active)
        assert state.enabled is True
        assert state == change.after

    async def test_a_unit_that_is_right_is_left_alone(self, host: UnitsUnderTest) -> None:
        await host.applied(self.unit())
        marks = await host.marks(self.NAME)
        for units in (host.units, host.reopened(), host.units):
            (change,) = await units.converge([self.unit()], apply=True)
            assert _change(change).actions == ()
            assert _change(change).pending is None
        assert await host.marks(self.NAME) == marks

    async def test_a_unit_counts_only_once_it_has_stayed_up(self, host: UnitsUnderTest) -> None:
        unit = self.unit(settle_s=5)
        first = await host.look(unit)
        assert first.actions == _MADE
        assert first.pending is not None
        assert first.pending.reason == "NotReady"
        assert first.pending.resource == f"unit:{self.NAME}"
        assert 0 < first.pending.look_again_s <= 5
        second = await host.look(unit)
        assert second.actions == ()
        assert second.pending is not None

    async def test_a_dry_run_changes_nothing_and_says_what_applying_then_does(
        self, host: UnitsUnderTest
    ) -> None:
        for unit in (self.unit(), self.unit(SLEEP_TOO), self.unit(SLEEP_TOO, state="stopped")):
            marks = await host.marks(self.NAME)
            planned = await host.planned(unit)
            assert await host.marks(self.NAME) == marks
            applied = await host.applied(unit)
            assert applied.actions == planned.actions != ()
            assert planned.pending is None
            assert type(planned.after) is type(applied.after)
        assert (await host.planned(unit)).actions == ()

    async def test_a_change_of_the_unit_file_is_told_as_a_diff(self, host: UnitsUnderTest) -> None:
        first = await host.applied(self.unit())
        assert first.diff is None
        planned = await host.planned(self.unit(SLEEP_TOO))
        assert planned.diff is not None
        assert f"-ExecStart={SLEEP}\n" in planned.diff
        assert f"+ExecStart={SLEEP_TOO}\n" in planned.diff
        assert (await host.look(self.unit(SLEEP_TOO))).diff == planned.diff

    async def test_another_unit_file_is_written_and_the_unit_restarted(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        before = await host.bystander.identity(self.NAME)
        change = await host.applied(self.unit(SLEEP_TOO))
        assert change.actions == ("wrote its file", "restarted: its file changed")
        assert await host.bystander.identity(self.NAME) != before
        assert await host.bystander.command(self.NAME) == SLEEP_TOO

    async def test_a_used_file_that_changes_restarts_the_unit_once(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(uses=(self.USED,))
        for content in (None, b"one\n", b"two\n"):
            if content is not None:
                host.bystander.write(self.USED, content)
            change = await host.applied(unit)
            assert change.actions == (
                (f"restarted: {self.USED} changed",) if content is not None else _MADE
            )
            marks = await host.marks(self.NAME)
            assert (await host.applied(unit)).actions == ()
            assert await host.marks(self.NAME) == marks

    async def test_a_used_file_that_changes_after_a_restart_by_hand_restarts_the_unit(
        self, host: UnitsUnderTest
    ) -> None:
        """Also when both happened since the last look: it was started from what was there before."""
        host.bystander.write(self.USED, b"one\n")
        unit = self.unit(uses=(self.USED,))
        await host.applied(unit)
        await host.bystander.restart(self.NAME)
        host.bystander.write(self.USED, b"two\n")
        assert (await host.applied(unit)).actions == (f"restarted: {self.USED} changed",)
        assert (await host.applied(unit)).actions == ()

    async def test_killed_between_writing_and_restarting_it_restarts_after_all(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        before = await host.bystander.identity(self.NAME)
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        (change,) = await host.reopened().converge([self.unit(SLEEP_TOO)], apply=True)
        assert _change(change).actions == ("restarted: its file changed",)
        assert await host.bystander.identity(self.NAME) != before
        # So that systemd had read the file before, too.
        assert await host.bystander.command(self.NAME) == SLEEP_TOO

    async def test_killed_between_restarting_and_noting_it_does_not_restart_twice(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.applied(self.unit(SLEEP_TOO))).actions == ()
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_restarted_by_hand_is_not_restarted_again(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        await host.bystander.restart(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.applied(self.unit())).actions == ()
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_restarted_from_an_edited_file_is_restarted_from_ours(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        change = await host.applied(self.unit())
        assert change.actions == ("wrote its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_an_edited_file_that_nobody_started_from_is_only_written_back(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        before = await host.bystander.identity(self.NAME)
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        assert (await host.applied(self.unit())).actions == ("wrote its file",)
        assert await host.bystander.identity(self.NAME) == before
        await host.bystander.restart(self.NAME)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_stopped_by_hand_is_started(self, host: UnitsUnderTest) -> None:
        await host.applied(self.unit())
        await host.bystander.stop(self.NAME)
        assert (await host.applied(self.unit())).actions == ("started",)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_that_dies_after_it_had_settled_is_started(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        await host.bystander.kill(self.NAME)
        assert (await host.applied(self.unit())).actions == ("started",)

    async def test_a_unit_that_systemd_restarts_after_it_had_settled_is_left_to_it(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(SLEEP, "Restart=always")
        await host.applied(unit)
        before = await host.bystander.identity(self.NAME)
        await host.bystander.kill(self.NAME)
        assert (await host.applied(unit)).actions == ()
        assert await host.bystander.identity(self.NAME) != before

    async def test_a_unit_disabled_by_hand_is_enabled_and_goes_on(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        before = await host.bystander.identity(self.NAME)
        await host.bystander.disable(self.NAME)
        assert (await host.applied(self.unit())).actions == ("enabled",)
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_that_is_to_be_wanted_by_another_is_enabled_anew(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        moved = self.unit(content=self.content().replace("multi-user", "graphical"))
        change = await host.applied(moved)
        assert change.actions == ("wrote its file", "enabled", "restarted: its file changed")
        assert await host.bystander.is_enabled(self.NAME)
        assert (await host.applied(moved)).actions == ()

    async def test_a_unit_that_is_to_be_stopped_is_stopped_and_disabled(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        stopped = self.unit(state="stopped", enabled=False)
        change = await host.applied(stopped)
        assert change.actions == ("disabled", "stopped")
        assert isinstance(change.after, Inactive)
        assert change.after.enabled is False
        assert (await host.applied(stopped)).actions == ()
        assert await host.bystander.command(self.NAME) == ""

    async def test_a_stopped_unit_may_be_enabled(self, host: UnitsUnderTest) -> None:
        change = await host.applied(self.unit(state="stopped"))
        assert change.actions == ("created its file", "enabled")
        assert await host.bystander.identity(self.NAME) == ""

    @pytest.mark.parametrize("enabled", [True, False], ids=["enabled", "disabled"])
    async def test_enablement_that_is_nobody_s_business_stays(
        self, host: UnitsUnderTest, *, enabled: bool
    ) -> None:
        unit = self.unit(enabled=None)
        assert (await host.applied(unit)).actions == ("created its file", "started")
        if enabled:
            await host.bystander.enable(self.NAME)
        assert (await host.applied(unit)).actions == ()
        assert await host.bystander.is_enabled(self.NAME) is enabled

    async def test_a_unit_that_fails_is_told_with_its_last_lines_each_time(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.failed(self.unit(BOOM))
            assert isinstance(error, UnitFailed)
            assert error.resource == f"unit:{self.NAME}"
            assert "status 3" in error.message
            assert "boom" in error.message
            assert "bang" in error.message

    async def test_a_unit_that_ends_at_once_though_well_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.failed(self.unit(TRUE))
            assert isinstance(error, UnitFailed)
            assert "ended" in error.message

    async def test_a_unit_that_dies_before_it_has_settled_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.failed(self.unit(DIE_SOON, settle_s=1))
            assert isinstance(error, UnitFailed)
            assert "status 3" in error.message
            assert "alive" in error.message

    async def test_a_failure_is_told_once_and_then_the_unit_is_started_again(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(DIE_SOON, settle_s=1)
        await host.failed(unit)
        assert (await host.look(unit)).actions == ("started",)

    async def test_a_dry_run_says_what_is_due_for_a_unit_that_failed_and_does_not_fail(
        self, host: UnitsUnderTest
    ) -> None:
        assert isinstance(await host.failed(self.unit(BOOM)), UnitFailed)
        for _ in range(2):
            assert (await host.planned(self.unit(BOOM))).actions == ("started",)
        planned = await host.planned(self.unit())
        assert planned.actions == ("wrote its file", "started")

    async def test_a_program_that_is_missing_is_named_as_the_reason(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.failed(self.unit(MISSING))
        assert isinstance(error, UnitFailed)
        assert "its program could not be run" in error.message

    async def test_a_unit_that_restarts_over_and_over_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        settings = ("Restart=always", "StartLimitIntervalSec=0")
        unit = self.unit(DIE_SOON, *settings, settle_s=1)
        for _ in range(2):
            error = await host.failed(unit)
            assert isinstance(error, UnitFailed)
            assert "does not stay up" in error.message
            assert "alive" in error.message

    async def test_a_unit_that_failed_is_right_once_its_file_is(self, host: UnitsUnderTest) -> None:
        for broken in (self.unit(BOOM), self.unit(DIE_SOON, "Restart=always", settle_s=1)):
            await host.failed(broken)
            change = await host.applied(self.unit())
            assert change.actions[-1] in {"started", "restarted: its file changed"}
            assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_slow_start_is_waited_for_and_not_begun_twice(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1)
        )
        first = await host.look(unit)
        assert first.actions == _MADE
        assert first.pending is not None
        assert first.pending.reason == "Progressing"
        assert isinstance(first.after, Activating)
        invocation = await host.bystander.identity(self.NAME)
        (second,) = await host.reopened().converge([unit], apply=True)
        assert _change(second).pending is not None
        assert (await host.applied(unit)).actions == ()
        assert await host.bystander.identity(self.NAME) == invocation

    async def test_a_start_that_takes_too_long_has_failed(self, host: UnitsUnderTest) -> None:
        unit = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1),
            start_timeout_s=0.9,
        )
        error = await host.failed(unit)
        assert isinstance(error, UnitFailed)
        assert "has not started within 0.9 s" in error.message

    async def test_a_start_that_takes_too_long_gives_way_to_another_file(
        self, host: UnitsUnderTest
    ) -> None:
        slow = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1)
        )
        await host.look(slow)
        change = await host.applied(self.unit())
        assert change.actions == ("wrote its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP

    @pytest.mark.parametrize("command", [TRUE, RUN_SLOWLY], ids=["quick", "slow"])
    async def test_a_oneshot_runs_once_until_something_changes(
        self, host: UnitsUnderTest, command: str
    ) -> None:
        content = self.content(command).replace("exec", "oneshot", 1)
        unit = self.unit(content=content, uses=(self.USED,))
        change = await host.applied(unit)
        assert change.actions == _MADE
        assert isinstance(change.after, Inactive)
        for units in (host.units, host.reopened()):
            (again,) = await units.converge([unit], apply=True)
            assert _change(again).actions == ()
            assert _change(again).pending is None
        host.bystander.write(self.USED, b"changed\n")
        assert (await host.applied(unit)).actions == ("started",)
        assert (await host.applied(unit)).actions == ()

    async def test_a_oneshot_that_remains_is_active_and_restarted_when_something_changes(
        self, host: UnitsUnderTest
    ) -> None:
        content = self.content(TRUE, "RemainAfterExit=yes").replace("exec", "oneshot", 1)
        unit = self.unit(content=content, uses=(self.USED,))
        planned = await host.planned(unit)
        change = await host.applied(unit)
        assert change.actions == planned.actions == _MADE
        assert isinstance(change.after, Active)
        assert isinstance(planned.after, Active)
        assert change.after.sub == planned.after.sub == "exited"
        host.bystander.write(self.USED, b"changed\n")
        assert (await host.applied(unit)).actions == (f"restarted: {self.USED} changed",)

    async def test_a_oneshot_that_fails_has_failed(self, host: UnitsUnderTest) -> None:
        for _ in range(2):
            error = await host.failed(
                self.unit(content=self.content(BOOM).replace("exec", "oneshot", 1))
            )
            assert isinstance(error, UnitFailed)
            assert "status 3" in error.message
            assert "boom" in error.message

    @pytest.mark.parametrize("probe", [TcpProbe(port=PORT), HttpProbe(port=PORT, path="/hostname")])
    async def test_a_service_that_serves_is_converged(
        self, host: UnitsUnderTest, probe: TcpProbe | HttpProbe
    ) -> None:
        assert (await host.applied(self.unit(SERVE, ready=probe))).actions == _MADE

    async def test_a_service_that_does_not_serve_yet_is_not_ready(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(SERVE_LATE, settle_s=0, ready=TcpProbe(port=PORT, every_s=0.25))
        first = await host.look(unit)
        assert first.actions == _MADE
        assert first.pending is not None
        assert first.pending.reason == "NotReady"
        assert first.pending.look_again_s == 0.25
        assert (await host.applied(unit)).actions == ()

    async def test_a_service_that_does_not_serve_in_time_is_told_with_its_last_lines(
        self, host: UnitsUnderTest
    ) -> None:
        probe = TcpProbe(port=PORT, within_s=1, every_s=0.25)
        error = await host.failed(self.unit(SERVE_NOTHING, ready=probe))
        assert isinstance(error, NotReadyInTime)
        assert error.resource == f"unit:{self.NAME}"
        assert "the database is away" in error.message

    async def test_a_timer_is_converged_once_it_waits(self, host: UnitsUnderTest) -> None:
        service = self.unit(state="stopped", enabled=None)
        timer = self.unit(
            name=self.TIMER,
            content="[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n",
        )
        results = [
            _change(each) for each in await host.units.converge([service, timer], apply=True)
        ]
        assert [each.actions for each in results] == [("created its file",), _MADE]
        assert all(each.pending is None for each in results)
        assert isinstance(results[1].after, Active)
        assert results[1].after.sub == "waiting"
        assert (await host.applied(timer)).actions == ()

    async def test_many_units_cost_one_reload(self, host: UnitsUnderTest) -> None:
        others = [self.unit(name=f"harmony-contract-{n}.service") for n in range(5)]
        before = await host.bystander.reloads()
        changes = await host.units.converge(others, apply=True)
        assert [_change(each).resource for each in changes] == [unit.id for unit in others]
        after = await host.bystander.reloads()
        assert after != before
        for unit in others:
            await host.applied(unit)
        assert await host.bystander.reloads() == after

    async def test_a_masked_unit_is_refused_and_nothing_is_touched(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.mask(self.NAME)
        for unit in (self.unit(), self.unit(content=None)):
            for apply in (False, True):
                (error,) = await host.units.converge([unit], apply=apply)
                assert isinstance(error, PolicyRefused)
                assert f"systemctl unmask {self.NAME}" in error.message
                assert error.resource == f"unit:{self.NAME}"

    async def test_a_unit_that_cannot_be_enabled_is_refused_and_nothing_is_touched(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(content=self.content(install=False))
        for apply in (False, True):
            (error,) = await host.units.converge([unit], apply=apply)
            assert isinstance(error, InvalidResource)
            assert "no [Install] section" in error.message
        assert host.file(self.NAME) is None

    async def test_a_package_s_unit_that_cannot_be_enabled_is_refused(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content(install=False))
        (error,) = await host.units.converge([self.unit(content=None)], apply=True)
        assert isinstance(error, InvalidResource)
        assert "is static" in error.message
        assert (await host.applied(self.unit(content=None, enabled=None))).actions == ("started",)

    async def test_a_package_s_unit_that_becomes_ours_is_left_to_the_package_in_the_end(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.applied(self.unit(content=None))
        change = await host.applied(self.unit(SLEEP_TOO))
        assert change.actions == ("created its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert (await host.removed(self.NAME)).actions == (
            "stopped",
            "disabled",
            "removed its file",
        )
        assert isinstance(await host.units.observe(self.NAME), Inactive)

    async def test_a_unit_that_systemd_refuses_is_told_so(self, host: UnitsUnderTest) -> None:
        error = await host.failed(self.unit(content="[Service]\nType=exec\n", enabled=None))
        assert isinstance(error, InvalidResource)
        assert "bad" in error.message
        assert (await host.applied(self.unit())).actions[-1] == "started"

    async def test_a_unit_that_nobody_brought_is_told_with_a_remedy(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.failed(self.unit(content=None))
        assert isinstance(error, UnitFailed)
        assert "does not exist" in error.message
        assert "give the unit's content" in error.message
        gone = self.unit(content=None, enabled=None, state="stopped")
        assert (await host.applied(gone)).actions == ()

    async def test_a_package_s_unit_is_enabled_and_started_and_both_undone(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        unit = self.unit(content=None)
        assert (await host.applied(unit)).actions == ("enabled", "started")
        assert host.file(self.NAME) is None
        assert (await host.applied(unit)).actions == ()
        change = await host.removed(self.NAME)
        assert change.actions == ("stopped", "disabled", "left: it was there before")
        assert isinstance(change.after, Inactive)
        assert not await host.bystander.is_enabled(self.NAME)
        assert (await host.removed(self.NAME)).actions == ()

    async def test_a_package_s_unit_that_was_right_is_left_as_it_was(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.applied(self.unit(content=None))).actions == ()
        assert (await host.removed(self.NAME)).actions == ("left: it was there before",)
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.identity(self.NAME) == before
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_file_that_was_there_before_is_taken_over_and_left_in_the_end(
        self, host: UnitsUnderTest
    ) -> None:
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.start(self.NAME)
        change = await host.applied(self.unit())
        assert change.actions == ("wrote its file", "enabled", "restarted: its file changed")
        assert (await host.removed(self.NAME)).actions == (
            "disabled",
            "left: it was there before",
        )
        assert host.file(self.NAME) == self.content().encode()

    async def test_what_was_made_is_removed_once(self, host: UnitsUnderTest) -> None:
        await host.applied(self.unit())
        change = await host.removed(self.NAME)
        assert change.actions == ("stopped", "disabled", "removed its file")
        assert isinstance(change.before, Active)
        assert change.after is None
        assert host.file(self.NAME) is None
        assert await host.units.observe(self.NAME) is None
        assert (await host.removed(self.NAME)).actions == ()

    async def test_what_failed_is_removed_too(self, host: UnitsUnderTest) -> None:
        await host.failed(self.unit(BOOM))
        assert (await host.removed(self.NAME)).actions == ("disabled", "removed its file")
        assert await host.units.observe(self.NAME) is None

    async def test_removing_in_a_dry_run_only_says_so(self, host: UnitsUnderTest) -> None:
        await host.applied(self.unit())
        marks = await host.marks(self.NAME)
        (change,) = await host.units.remove([self.NAME], apply=False)
        assert _change(change).after is None
        assert await host.marks(self.NAME) == marks
        assert (await host.removed(self.NAME)).actions == _change(change).actions

    async def test_removing_goes_on_after_the_file_was_deleted_by_hand(
        self, host: UnitsUnderTest
    ) -> None:
        await host.applied(self.unit())
        await host.bystander.stop(self.NAME)
        await host.bystander.disable(self.NAME)
        (change,) = await host.reopened().remove([self.NAME], apply=True)
        assert _change(change).actions == ("removed its file",)
        assert await host.units.observe(self.NAME) is None

    async def test_a_stranger_s_unit_is_not_removed(self, host: UnitsUnderTest) -> None:
        await host.bystander.install(self.NAME, self.content())
        (error,) = await host.units.remove([self.NAME], apply=True)
        assert isinstance(error, NotOurs)
        assert error.resource == f"unit:{self.NAME}"

    async def test_what_never_was_is_removed_without_a_word(self, host: UnitsUnderTest) -> None:
        change = await host.removed(self.NAME)
        assert (change.actions, change.before, change.after) == ((), None, None)

    async def test_what_was_removed_can_be_made_again(self, host: UnitsUnderTest) -> None:
        for _ in range(2):
            assert (await host.applied(self.unit())).actions == _MADE
            await host.removed(self.NAME)

    async def test_one_unit_s_error_does_not_stop_the_others(self, host: UnitsUnderTest) -> None:
        bad = self.unit(content=self.content(install=False))
        good = self.unit(name=self.OTHER)
        error, change = await host.units.converge([bad, good], apply=True)
        assert isinstance(error, InvalidResource)
        assert _change(change).actions == _MADE
        await host.bystander.install(self.NAME, self.content())
        error, change = await host.units.remove([self.NAME, self.OTHER], apply=True)
        assert isinstance(error, NotOurs)
        assert _change(change).actions == ("stopped", "disabled", "removed its file")

    async def test_two_equal_wishes_for_one_unit_are_one_change(self, host: UnitsUnderTest) -> None:
        first, second = await host.units.converge([self.unit(), self.unit()], apply=True)
        assert _change(first).actions == _MADE
        assert _change(second).actions == ()

    async def test_two_calls_at_a_time_start_a_unit_once(self, host: UnitsUnderTest) -> None:
        calls = await asyncio.gather(*(host.look(self.unit()) for _ in range(3)))
        assert sorted(len(change.actions) for change in calls) == [0, 0, 3]

    async def test_an_empty_call_is_answered_with_nothing(self, host: UnitsUnderTest) -> None:
        assert list(await host.units.converge([], apply=True)) == []
        assert list(await host.units.remove([], apply=True)) == []

    async def test_it_says_that_it_is_available(self, host: UnitsUnderTest) -> None:
        assert (await host.units.availability()).available
