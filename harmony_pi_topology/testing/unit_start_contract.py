"""What every systemd must do when units start, in time, late, or not at all: a part of its contract."""

from __future__ import annotations

import pytest

from harmony_core.errors import (
    InvalidResource,
    NotReadyInTime,
    UnitFailed,
)
from harmony_core.resources import (
    Activating,
    Active,
    HttpProbe,
    Inactive,
    SystemdUnit,
    TcpProbe,
)

from .units_under_test import (
    BOOM,
    DIE_SOON,
    MADE,
    MISSING,
    PORT,
    RUN_SLOWLY,
    SERVE,
    SERVE_LATE,
    SERVE_NOTHING,
    SLEEP,
    START_SLOWLY,
    TRUE,
    UnitContract,
    UnitsUnderTest,
    require_change,
)

__all__ = ["UnitStartContract"]


class UnitStartContract(UnitContract):
    """A part of `SystemdHostContract`."""

    async def test_a_unit_counts_only_once_it_has_stayed_up(self, host: UnitsUnderTest) -> None:
        unit = self.unit(settle_s=5)
        first = await host.look(unit)
        assert first.actions == MADE
        assert first.pending is not None
        assert first.pending.reason == "NotReady"
        assert first.pending.resource == f"unit:{self.NAME}"
        assert 0 < first.pending.look_again_s <= 5
        second = await host.look(unit)
        assert second.actions == ()
        assert second.pending is not None

    async def test_a_unit_that_fails_is_told_with_its_last_lines_each_time(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.expect_failure(self.unit(BOOM))
            assert isinstance(error, UnitFailed)
            assert error.resource == f"unit:{self.NAME}"
            assert "status 3" in error.message
            assert "boom" in error.message
            assert "bang" in error.message

    async def test_a_unit_that_ends_at_once_though_well_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.expect_failure(self.unit(TRUE))
            assert isinstance(error, UnitFailed)
            assert "ended" in error.message

    async def test_a_unit_that_dies_before_it_has_settled_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        for _ in range(2):
            error = await host.expect_failure(self.unit(DIE_SOON, settle_s=1))
            assert isinstance(error, UnitFailed)
            assert "status 3" in error.message
            assert "alive" in error.message

    async def test_a_failure_is_told_once_and_then_the_unit_is_started_again(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(DIE_SOON, settle_s=1)
        await host.expect_failure(unit)
        assert (await host.look(unit)).actions == ("started",)

    async def test_a_dry_run_says_what_is_due_for_a_unit_that_failed_and_does_not_fail(
        self, host: UnitsUnderTest
    ) -> None:
        assert isinstance(await host.expect_failure(self.unit(BOOM)), UnitFailed)
        for _ in range(2):
            assert (await host.plan_one(self.unit(BOOM))).actions == ("started",)
        planned = await host.plan_one(self.unit())
        assert planned.actions == ("wrote its file", "started")

    async def test_a_program_that_is_missing_is_named_as_the_reason(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.expect_failure(self.unit(MISSING))
        assert isinstance(error, UnitFailed)
        assert "its program could not be run" in error.message

    async def test_a_unit_that_restarts_over_and_over_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(DIE_SOON, "Restart=always", settle_s=1)
        for _ in range(2):
            error = await host.expect_failure(unit)
            assert isinstance(error, UnitFailed)
            assert "does not stay up" in error.message
            assert "alive" in error.message

    async def test_a_unit_that_failed_is_right_once_its_file_is(self, host: UnitsUnderTest) -> None:
        for broken in (self.unit(BOOM), self.unit(DIE_SOON, "Restart=always", settle_s=1)):
            await host.expect_failure(broken)
            change = await host.apply_one(self.unit())
            assert change.actions[-1] in {"started", "restarted: its file changed"}
            assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_slow_start_is_waited_for_and_not_begun_twice(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1)
        )
        first = await host.look(unit)
        assert first.actions == MADE
        assert first.pending is not None
        assert first.pending.reason == "Progressing"
        assert isinstance(first.after, Activating)
        invocation = await host.bystander.identity(self.NAME)
        (second,) = await host.reopen().converge([unit], apply=True)
        assert require_change(second).pending is not None
        assert (await host.apply_one(unit)).actions == ()
        assert await host.bystander.identity(self.NAME) == invocation

    async def test_a_start_that_takes_too_long_has_failed(self, host: UnitsUnderTest) -> None:
        unit = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1),
            start_timeout_s=0.9,
        )
        error = await host.expect_failure(unit)
        assert isinstance(error, UnitFailed)
        assert "has not started within 0.9 s" in error.message

    async def test_a_start_that_takes_too_long_gives_way_to_another_file(
        self, host: UnitsUnderTest
    ) -> None:
        slow = self.unit(
            content=self.content(START_SLOWLY, "NotifyAccess=all").replace("exec", "notify", 1)
        )
        await host.look(slow)
        change = await host.apply_one(self.unit())
        assert change.actions == ("wrote its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP

    @pytest.mark.parametrize("command", [TRUE, RUN_SLOWLY], ids=["quick", "slow"])
    async def test_a_oneshot_runs_once_until_something_changes(
        self, host: UnitsUnderTest, command: str
    ) -> None:
        content = self.content(command).replace("exec", "oneshot", 1)
        unit = self.unit(content=content, uses=(self.USED,))
        change = await host.apply_one(unit)
        assert change.actions == MADE
        assert isinstance(change.after, Inactive)
        for units in (host.units, host.reopen()):
            (again,) = await units.converge([unit], apply=True)
            assert require_change(again).actions == ()
            assert require_change(again).pending is None
        host.bystander.write(self.USED, b"changed\n")
        assert (await host.apply_one(unit)).actions == ("started",)
        assert (await host.apply_one(unit)).actions == ()

    async def test_a_oneshot_that_remains_is_active_and_restarted_when_something_changes(
        self, host: UnitsUnderTest
    ) -> None:
        content = self.content(TRUE, "RemainAfterExit=yes").replace("exec", "oneshot", 1)
        unit = self.unit(content=content, uses=(self.USED,))
        planned = await host.plan_one(unit)
        change = await host.apply_one(unit)
        assert change.actions == planned.actions == MADE
        assert isinstance(change.after, Active)
        assert isinstance(planned.after, Active)
        assert change.after.sub == planned.after.sub == "exited"
        host.bystander.write(self.USED, b"changed\n")
        assert (await host.apply_one(unit)).actions == (f"restarted: {self.USED} changed",)

    async def test_a_oneshot_that_remains_is_started_again_when_somebody_stops_it(
        self, host: UnitsUnderTest
    ) -> None:
        content = self.content(TRUE, "RemainAfterExit=yes").replace("exec", "oneshot", 1)
        unit = self.unit(content=content, settle_s=0)
        await host.apply_one(unit)
        await host.bystander.stop(self.NAME)
        change = await host.apply_one(unit)
        assert change.actions == ("started",)
        assert isinstance(change.after, Active)

    async def test_a_oneshot_that_fails_has_failed(self, host: UnitsUnderTest) -> None:
        for _ in range(2):
            error = await host.expect_failure(
                self.unit(content=self.content(BOOM).replace("exec", "oneshot", 1))
            )
            assert isinstance(error, UnitFailed)
            assert "status 3" in error.message
            assert "boom" in error.message

    @pytest.mark.parametrize("probe", [TcpProbe(port=PORT), HttpProbe(port=PORT, path="/hostname")])
    async def test_a_service_that_serves_is_converged(
        self, host: UnitsUnderTest, probe: TcpProbe | HttpProbe
    ) -> None:
        assert (await host.apply_one(self.unit(SERVE, ready=probe))).actions == MADE

    async def test_a_service_that_does_not_serve_yet_is_not_ready(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(SERVE_LATE, settle_s=0, ready=TcpProbe(port=PORT, every_s=0.25))
        first = await host.look(unit)
        assert first.actions == MADE
        assert first.pending is not None
        assert first.pending.reason == "NotReady"
        assert first.pending.look_again_s == 0.25
        assert (await host.apply_one(unit)).actions == ()

    async def test_a_service_that_does_not_serve_in_time_is_told_with_its_last_lines(
        self, host: UnitsUnderTest
    ) -> None:
        probe = TcpProbe(port=PORT, within_s=1, every_s=0.25)
        error = await host.expect_failure(self.unit(SERVE_NOTHING, ready=probe))
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
            require_change(each) for each in await host.units.converge([service, timer], apply=True)
        ]
        assert [each.actions for each in results] == [("created its file",), MADE]
        assert all(each.pending is None for each in results)
        assert isinstance(results[1].after, Active)
        assert results[1].after.sub == "waiting"
        assert (await host.apply_one(timer)).actions == ()

    async def test_a_timer_that_never_elapses_has_failed_until_its_time_is_right(
        self, host: UnitsUnderTest
    ) -> None:
        service = self.unit(state=None, enabled=None)
        past = self.timer("OnCalendar=2020-01-01")
        await host.units.converge([service], apply=True)
        for _ in range(2):
            error = await host.expect_failure(past)
            assert isinstance(error, UnitFailed)
            assert f"{self.TIMER} will never elapse" in error.message
        assert (await host.plan_one(past)).pending is not None
        change = await host.apply_one(self.timer("OnCalendar=yearly"))
        assert change.actions == ("wrote its file", "restarted: its file changed")

    async def test_when_a_timer_has_last_elapsed_is_forgotten_with_it(
        self, host: UnitsUnderTest
    ) -> None:
        stamp = f"/var/lib/systemd/timers/stamp-{self.TIMER}"
        timer = self.timer("OnCalendar=yearly", "Persistent=yes")
        await host.units.converge([self.unit(state=None, enabled=None), timer], apply=True)
        assert host.bystander.read(stamp) is not None
        await host.remove_one(self.TIMER)
        assert host.bystander.read(stamp) is None

    def timer(self, *settings: str) -> SystemdUnit:
        """Return a timer with these settings."""
        lines = ["[Timer]", *settings, "[Install]", "WantedBy=timers.target", ""]
        return self.unit(name=self.TIMER, content="\n".join(lines))

    async def test_a_unit_that_systemd_refuses_is_told_so(self, host: UnitsUnderTest) -> None:
        error = await host.expect_failure(self.unit(content="[Service]\nType=exec\n", enabled=None))
        assert isinstance(error, InvalidResource)
        assert "bad" in error.message
        assert (await host.apply_one(self.unit())).actions[-1] == "started"
