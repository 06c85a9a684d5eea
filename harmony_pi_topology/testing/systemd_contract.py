"""What every systemd that Scores act on must do: `SystemdHost`, as tests.

::

    class TestMySystemd(SystemdHostContract):
        @pytest.fixture
        def host(self) -> UnitsUnderTest:
            return UnitsUnderTest(units=MySystemd(…), bystander=…, reopened=…)

What the services run, a fake knows by `SERVICE_PROGRAMS` of `units_under_test`. The *bystander* is
somebody else on the same device, with systemd's own tools: what Harmony did is checked with the bystander's
eyes, and what it must cope with is done with the bystander's hands.
"""

from __future__ import annotations

import asyncio

import pytest

from harmony_core.errors import (
    InvalidResource,
    NotOurs,
    PolicyRefused,
    UnitFailed,
)
from harmony_core.resources import (
    Active,
    Inactive,
)

from .unit_credentials_contract import UnitCredentialsContract
from .unit_enabling_contract import UnitEnablingContract
from .unit_frozen_contract import UnitFrozenContract
from .unit_origin_contract import UnitOriginContract
from .unit_start_contract import UnitStartContract
from .unit_types_contract import UnitTypesContract
from .units_under_test import BOOM, MADE, SLEEP, SLEEP_TOO, UnitsUnderTest, require_change
from .units_watch_contract import UnitWatchContract

__all__ = ["SystemdHostContract"]


class SystemdHostContract(
    UnitStartContract,
    UnitOriginContract,
    UnitCredentialsContract,
    UnitEnablingContract,
    UnitFrozenContract,
    UnitTypesContract,
    UnitWatchContract,
):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    async def test_what_is_not_there_is_observed_as_none(self, host: UnitsUnderTest) -> None:
        assert await host.units.observe(self.NAME) is None

    async def test_a_missing_unit_is_written_enabled_and_started(
        self, host: UnitsUnderTest
    ) -> None:
        change = await host.apply_one(self.unit())
        assert change.actions == MADE
        assert isinstance(change.after, Active)
        assert (change.after.sub, change.after.result) == ("running", "success")
        assert host.file(self.NAME) == self.content().encode()
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_what_is_observed_is_what_was_wished(self, host: UnitsUnderTest) -> None:
        change = await host.apply_one(self.unit())
        state = await host.units.observe(self.NAME)
        assert isinstance(state, Active)
        assert state.enabled is True
        assert state == change.after

    async def test_a_unit_that_is_right_is_left_alone(self, host: UnitsUnderTest) -> None:
        await host.apply_one(self.unit())
        marks = await host.marks(self.NAME)
        for units in (host.units, host.reopen(), host.units):
            (change,) = await units.converge([self.unit()], apply=True)
            assert require_change(change).actions == ()
            assert require_change(change).pending is None
        assert await host.marks(self.NAME) == marks

    async def test_a_dry_run_changes_nothing_and_says_what_applying_then_does(
        self, host: UnitsUnderTest
    ) -> None:
        for unit in (self.unit(), self.unit(SLEEP_TOO), self.unit(SLEEP_TOO, state="stopped")):
            marks = await host.marks(self.NAME)
            planned = await host.plan_one(unit)
            assert await host.marks(self.NAME) == marks
            applied = await host.apply_one(unit)
            assert applied.actions == planned.actions != ()
            assert planned.pending is None
            assert type(planned.after) is type(applied.after)
        assert (await host.plan_one(unit)).actions == ()

    async def test_a_change_of_the_unit_file_is_told_as_a_diff(self, host: UnitsUnderTest) -> None:
        first = await host.apply_one(self.unit())
        assert first.diff is None
        planned = await host.plan_one(self.unit(SLEEP_TOO))
        assert planned.diff is not None
        assert f"-ExecStart={SLEEP}\n" in planned.diff
        assert f"+ExecStart={SLEEP_TOO}\n" in planned.diff
        assert (await host.look(self.unit(SLEEP_TOO))).diff == planned.diff

    async def test_another_unit_file_is_written_and_the_unit_restarted(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        before = await host.bystander.identity(self.NAME)
        change = await host.apply_one(self.unit(SLEEP_TOO))
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
            change = await host.apply_one(unit)
            assert change.actions == (
                (f"restarted: {self.USED} changed",) if content is not None else MADE
            )
            marks = await host.marks(self.NAME)
            assert (await host.apply_one(unit)).actions == ()
            assert await host.marks(self.NAME) == marks

    async def test_a_used_drop_in_that_changes_is_read_before_the_unit_is_restarted(
        self, host: UnitsUnderTest
    ) -> None:
        path = f"/etc/systemd/system/{self.NAME}.d/used.conf"
        unit = self.unit(uses=(path,))
        await host.apply_one(unit)
        before = await host.bystander.reloads()
        host.bystander.write(path, b"[Service]\nNice=5\n")
        change = await host.apply_one(unit)
        assert change.actions == (f"restarted: {path} changed",)
        assert await host.bystander.reloads() != before
        assert isinstance(change.after, Active)
        assert change.after.drop_ins == (path,)

    async def test_a_used_file_that_changes_after_a_restart_by_hand_restarts_the_unit(
        self, host: UnitsUnderTest
    ) -> None:
        """Also when both happened since the last look: it was started from what was there before."""
        host.bystander.write(self.USED, b"one\n")
        unit = self.unit(uses=(self.USED,))
        await host.apply_one(unit)
        await host.bystander.restart(self.NAME)
        host.bystander.write(self.USED, b"two\n")
        assert (await host.apply_one(unit)).actions == (f"restarted: {self.USED} changed",)
        assert (await host.apply_one(unit)).actions == ()

    async def test_killed_between_writing_and_restarting_it_restarts_after_all(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        before = await host.bystander.identity(self.NAME)
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        (change,) = await host.reopen().converge([self.unit(SLEEP_TOO)], apply=True)
        assert require_change(change).actions == ("restarted: its file changed",)
        assert await host.bystander.identity(self.NAME) != before
        # So that systemd had read the file before, too.
        assert await host.bystander.command(self.NAME) == SLEEP_TOO

    async def test_killed_between_restarting_and_noting_it_does_not_restart_twice(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.apply_one(self.unit(SLEEP_TOO))).actions == ()
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_restarted_by_hand_is_not_restarted_again(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        await host.bystander.restart(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ()
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_restarted_from_an_edited_file_is_restarted_from_ours(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.bystander.restart(self.NAME)
        change = await host.apply_one(self.unit())
        assert change.actions == ("wrote its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_an_edited_file_that_nobody_started_from_is_only_written_back(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        before = await host.bystander.identity(self.NAME)
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        assert (await host.apply_one(self.unit())).actions == ("wrote its file",)
        assert await host.bystander.identity(self.NAME) == before
        await host.bystander.restart(self.NAME)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_stopped_by_hand_is_started(self, host: UnitsUnderTest) -> None:
        await host.apply_one(self.unit())
        await host.bystander.stop(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ("started",)
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_that_dies_after_it_had_settled_is_started(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        await host.bystander.kill(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ("started",)

    async def test_a_unit_that_systemd_restarts_after_it_had_settled_is_left_to_it(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.unit(SLEEP, "Restart=always")
        await host.apply_one(unit)
        before = await host.bystander.identity(self.NAME)
        await host.bystander.kill(self.NAME)
        assert (await host.apply_one(unit)).actions == ()
        assert await host.bystander.identity(self.NAME) != before

    async def test_a_unit_disabled_by_hand_is_enabled_and_goes_on(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        before = await host.bystander.identity(self.NAME)
        await host.bystander.disable(self.NAME)
        assert (await host.apply_one(self.unit())).actions == ("enabled",)
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.identity(self.NAME) == before

    async def test_a_unit_that_is_to_be_wanted_by_another_is_enabled_anew(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        moved = self.unit(content=self.content().replace("multi-user", "graphical"))
        change = await host.apply_one(moved)
        assert change.actions == ("wrote its file", "enabled", "restarted: its file changed")
        assert await host.bystander.is_enabled(self.NAME)
        assert (await host.apply_one(moved)).actions == ()

    async def test_a_unit_that_is_to_be_stopped_is_stopped_and_disabled(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        stopped = self.unit(state="stopped", enabled=False)
        change = await host.apply_one(stopped)
        assert change.actions == ("disabled", "stopped")
        assert isinstance(change.after, Inactive)
        assert change.after.enabled is False
        assert (await host.apply_one(stopped)).actions == ()
        assert await host.bystander.command(self.NAME) == ""

    async def test_a_stopped_unit_may_be_enabled(self, host: UnitsUnderTest) -> None:
        change = await host.apply_one(self.unit(state="stopped"))
        assert change.actions == ("created its file", "enabled")
        assert await host.bystander.identity(self.NAME) == ""

    @pytest.mark.parametrize("enabled", [True, False], ids=["enabled", "disabled"])
    async def test_enablement_that_is_nobody_s_business_stays(
        self, host: UnitsUnderTest, *, enabled: bool
    ) -> None:
        unit = self.unit(enabled=None)
        assert (await host.apply_one(unit)).actions == ("created its file", "started")
        if enabled:
            await host.bystander.enable(self.NAME)
        assert (await host.apply_one(unit)).actions == ()
        assert await host.bystander.is_enabled(self.NAME) is enabled

    async def test_many_units_cost_one_reload(self, host: UnitsUnderTest) -> None:
        others = [self.unit(name=f"harmony-contract-{n}.service") for n in range(5)]
        before = await host.bystander.reloads()
        changes = await host.units.converge(others, apply=True)
        assert [require_change(each).resource for each in changes] == [unit.id for unit in others]
        after = await host.bystander.reloads()
        assert after != before
        for unit in others:
            await host.apply_one(unit)
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

    async def test_a_mask_does_not_keep_the_place_of_our_file(self, host: UnitsUnderTest) -> None:
        unit = self.unit()
        await host.apply_one(unit)
        identity = await host.bystander.identity(self.NAME)
        await host.bystander.mask(self.NAME)
        (planned,) = await host.units.converge([unit], apply=False)
        change = await host.apply_one(unit)
        assert change.actions == require_change(planned).actions
        assert "removed what had taken the place of its file" in change.actions
        assert host.file(self.NAME) == (unit.content or "").encode()
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.identity(self.NAME) == identity
        assert (await host.apply_one(unit)).actions == ()

    async def test_a_mask_on_what_a_package_brings_stays(self, host: UnitsUnderTest) -> None:
        """Whoever masks it says the same of it as the Score, and has the last word on the device."""
        unit = self.unit(content=None)
        await host.bystander.install(self.NAME, self.content())
        await host.apply_one(unit)
        await host.bystander.mask(self.NAME)
        (error,) = await host.units.converge([unit], apply=True)
        assert isinstance(error, PolicyRefused)

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
        assert (await host.apply_one(self.unit(content=None, enabled=None))).actions == ("started",)

    async def test_a_package_s_unit_that_becomes_ours_is_left_to_the_package_in_the_end(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.apply_one(self.unit(content=None))
        change = await host.apply_one(self.unit(SLEEP_TOO))
        assert change.actions == ("created its file", "restarted: its file changed")
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert (await host.remove_one(self.NAME)).actions == (
            "stopped",
            "disabled",
            "removed its file",
        )
        assert isinstance(await host.units.observe(self.NAME), Inactive)

    async def test_a_unit_that_nobody_brought_is_told_with_a_remedy(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.expect_failure(self.unit(content=None))
        assert isinstance(error, UnitFailed)
        assert "does not exist" in error.message
        assert "give the unit's content" in error.message
        gone = self.unit(content=None, enabled=None, state="stopped")
        assert (await host.apply_one(gone)).actions == ()

    async def test_a_package_s_unit_is_enabled_and_started_and_both_undone(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        unit = self.unit(content=None)
        assert (await host.apply_one(unit)).actions == ("enabled", "started")
        assert host.file(self.NAME) is None
        assert (await host.apply_one(unit)).actions == ()
        change = await host.remove_one(self.NAME)
        assert change.actions == ("stopped", "disabled", "left: it was there before")
        assert isinstance(change.after, Inactive)
        assert not await host.bystander.is_enabled(self.NAME)
        assert (await host.remove_one(self.NAME)).actions == ()

    async def test_a_package_s_unit_that_was_right_is_left_as_it_was(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        before = await host.bystander.identity(self.NAME)
        assert (await host.apply_one(self.unit(content=None))).actions == ()
        assert (await host.remove_one(self.NAME)).actions == ("left: it was there before",)
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.identity(self.NAME) == before
        assert await host.bystander.command(self.NAME) == SLEEP

    async def test_a_unit_file_that_was_there_before_comes_back_and_runs_again(
        self, host: UnitsUnderTest
    ) -> None:
        theirs = self.content(SLEEP_TOO).encode()
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", theirs)
        await host.bystander.reload()
        await host.bystander.start(self.NAME)
        change = await host.apply_one(self.unit())
        assert change.actions == ("wrote its file", "enabled", "restarted: its file changed")
        await host.apply_one(self.unit(SLEEP, "Nice=1"))
        assert (await host.remove_one(self.NAME)).actions == (
            "disabled",
            "put back its file",
            "restarted: its file changed",
        )
        assert host.file(self.NAME) == theirs
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert not await host.bystander.is_enabled(self.NAME)
        assert (await host.remove_one(self.NAME)).actions == ()

    async def test_a_unit_that_ran_before_runs_again_after_ours_in_its_place_has_failed(
        self, host: UnitsUnderTest
    ) -> None:
        theirs = self.content(SLEEP_TOO).encode()
        host.bystander.write(f"/etc/systemd/system/{self.NAME}", theirs)
        await host.bystander.reload()
        await host.bystander.start(self.NAME)
        await host.expect_failure(self.unit(BOOM))
        assert (await host.remove_one(self.NAME)).actions == (
            "disabled",
            "put back its file",
            "started",
        )
        assert host.file(self.NAME) == theirs
        assert await host.bystander.command(self.NAME) == SLEEP_TOO

    async def test_a_unit_file_that_somebody_wrote_since_is_left(
        self, host: UnitsUnderTest
    ) -> None:
        path = f"/etc/systemd/system/{self.NAME}"
        host.bystander.write(path, self.content(SLEEP_TOO).encode())
        await host.bystander.reload()
        await host.apply_one(self.unit())
        edited = self.content(SLEEP, "Nice=2").encode()
        host.bystander.write(path, edited)
        assert (await host.remove_one(self.NAME)).actions == (
            "stopped",
            "disabled",
            "left: somebody changed it since",
        )
        assert host.file(self.NAME) == edited

    async def test_a_package_s_unit_that_was_stopped_and_disabled_is_both_again(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content())
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        unit = self.unit(content=None, enabled=False, state="stopped")
        assert (await host.apply_one(unit)).actions == ("disabled", "stopped")
        assert (await host.remove_one(self.NAME)).actions == (
            "enabled",
            "started",
            "left: it was there before",
        )
        assert await host.bystander.is_enabled(self.NAME)
        assert await host.bystander.command(self.NAME) == SLEEP
        assert (await host.remove_one(self.NAME)).actions == ()

    async def test_a_package_s_unit_that_ran_runs_from_the_package_s_file_again(
        self, host: UnitsUnderTest
    ) -> None:
        await host.bystander.install(self.NAME, self.content(SLEEP_TOO))
        await host.bystander.enable(self.NAME)
        await host.bystander.start(self.NAME)
        await host.apply_one(self.unit())
        assert await host.bystander.command(self.NAME) == SLEEP
        assert (await host.remove_one(self.NAME)).actions == (
            "removed its file",
            "restarted: its file changed",
        )
        assert await host.bystander.command(self.NAME) == SLEEP_TOO
        assert await host.bystander.is_enabled(self.NAME)
        assert host.file(self.NAME) is None

    async def test_what_was_made_is_removed_once(self, host: UnitsUnderTest) -> None:
        await host.apply_one(self.unit())
        change = await host.remove_one(self.NAME)
        assert change.actions == ("stopped", "disabled", "removed its file")
        assert isinstance(change.before, Active)
        assert change.after is None
        assert host.file(self.NAME) is None
        assert await host.units.observe(self.NAME) is None
        assert (await host.remove_one(self.NAME)).actions == ()

    async def test_what_failed_is_removed_too(self, host: UnitsUnderTest) -> None:
        await host.expect_failure(self.unit(BOOM))
        assert (await host.remove_one(self.NAME)).actions == ("disabled", "removed its file")
        assert await host.units.observe(self.NAME) is None

    async def test_removing_in_a_dry_run_only_says_so(self, host: UnitsUnderTest) -> None:
        await host.apply_one(self.unit())
        marks = await host.marks(self.NAME)
        (change,) = await host.units.remove([self.NAME], apply=False)
        assert require_change(change).after is None
        assert await host.marks(self.NAME) == marks
        assert (await host.remove_one(self.NAME)).actions == require_change(change).actions

    async def test_removing_goes_on_after_the_file_was_deleted_by_hand(
        self, host: UnitsUnderTest
    ) -> None:
        await host.apply_one(self.unit())
        await host.bystander.stop(self.NAME)
        await host.bystander.disable(self.NAME)
        (change,) = await host.reopen().remove([self.NAME], apply=True)
        assert require_change(change).actions == ("removed its file",)
        assert await host.units.observe(self.NAME) is None

    async def test_a_stranger_s_unit_is_not_removed(self, host: UnitsUnderTest) -> None:
        await host.bystander.install(self.NAME, self.content())
        (error,) = await host.units.remove([self.NAME], apply=True)
        assert isinstance(error, NotOurs)
        assert error.resource == f"unit:{self.NAME}"

    async def test_what_never_was_is_removed_without_a_word(self, host: UnitsUnderTest) -> None:
        change = await host.remove_one(self.NAME)
        assert (change.actions, change.before, change.after) == ((), None, None)

    async def test_what_was_removed_can_be_made_again(self, host: UnitsUnderTest) -> None:
        for _ in range(2):
            assert (await host.apply_one(self.unit())).actions == MADE
            await host.remove_one(self.NAME)

    async def test_one_unit_s_error_does_not_stop_the_others(self, host: UnitsUnderTest) -> None:
        bad = self.unit(content=self.content(install=False))
        good = self.unit(name=self.OTHER)
        error, change = await host.units.converge([bad, good], apply=True)
        assert isinstance(error, InvalidResource)
        assert require_change(change).actions == MADE
        await host.bystander.install(self.NAME, self.content())
        error, change = await host.units.remove([self.NAME, self.OTHER], apply=True)
        assert isinstance(error, NotOurs)
        assert require_change(change).actions == ("stopped", "disabled", "removed its file")

    async def test_two_equal_wishes_for_one_unit_are_one_change(self, host: UnitsUnderTest) -> None:
        first, second = await host.units.converge([self.unit(), self.unit()], apply=True)
        assert require_change(first).actions == MADE
        assert require_change(second).actions == ()

    async def test_two_calls_at_a_time_start_a_unit_once(self, host: UnitsUnderTest) -> None:
        calls = await asyncio.gather(*(host.look(self.unit()) for _ in range(3)))
        assert sorted(len(change.actions) for change in calls) == [0, 0, 3]

    async def test_a_mere_alias_is_refused_with_the_name_of_the_unit(
        self, host: UnitsUnderTest
    ) -> None:
        named = self.unit(
            content=self.content().replace("[Install]", f"[Install]\nAlias={self.OTHER}", 1)
        )
        await host.apply_one(named)
        for alias in (
            self.unit(name=self.OTHER, content=None, enabled=None, state="stopped"),
            self.unit(name=self.OTHER, content=None),
            self.unit(SLEEP_TOO, name=self.OTHER),
        ):
            for apply in (False, True):
                (error,) = await host.units.converge([alias], apply=apply)
                assert isinstance(error, InvalidResource)
                assert f"name {self.NAME} in the Score" in error.message
        assert await host.bystander.command(self.NAME) == SLEEP
        assert (await host.remove_one(self.NAME)).actions[-1] == "removed its file"
        assert (await host.apply_one(self.unit(name=self.OTHER))).actions == MADE

    async def test_a_unit_is_known_by_all_its_names_and_by_its_file(
        self, host: UnitsUnderTest
    ) -> None:
        alias = "harmony-contract-alias.service"
        named = self.unit(
            content=self.content().replace("[Install]", f"[Install]\nAlias={alias}", 1)
        )
        path = f"path:/etc/systemd/system/{self.NAME}"
        names = {f"unit:{self.NAME}", f"unit:{alias}"}
        assert await host.units.identities(named) == {*names, path}
        await host.apply_one(named)
        assert await host.units.identities(named) == {*names, path}
        assert await host.units.identities(self.unit(content=None)) == names
        assert await host.units.identities(self.unit(name=alias, content=None)) == names

    async def test_an_empty_call_is_answered_with_nothing(self, host: UnitsUnderTest) -> None:
        assert list(await host.units.converge([], apply=True)) == []
        assert list(await host.units.remove([], apply=True)) == []

    async def test_it_says_that_it_is_available(self, host: UnitsUnderTest) -> None:
        assert (await host.units.availability()).available
