"""The contract of `FirewallHost`: what every reconciler of firewalls passes, fake and real.

::

    class TestMyFirewall(FirewallHostContract):
        @pytest.fixture
        def host(self) -> FirewallUnderTest: ...
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import NetworkRolledBack
from harmony_core.reconciler import Reconciler, Records
from harmony_core.resources import Filtering, Firewall, FirewallRule
from harmony_core.steps import Created, Wrote
from harmony_pi_topology.firewall.reconciler import RECORD_ID
from harmony_pi_topology.firewall.rules import UNIT

__all__ = ["FirewallBystander", "FirewallHostContract", "FirewallUnderTest"]


KEY = "device"


class FirewallBystander(Protocol):
    """Somebody else on the same device, who is root there."""

    async def look(self) -> str | None:
        """Return what the kernel lists of our table; None where there is none."""
        ...

    async def flush(self) -> None:
        """Throw away all rules that there are."""

    async def add(self) -> None:
        """Add a rule to our table."""

    async def make_table(self) -> None:
        """Make a table that is called as ours."""

    async def cut_off(self, port: int) -> None:
        """See to it that whatever lets in *port* cuts the device off from its control plane."""

    async def silence(self, silent: bool) -> None:
        """Have the control plane answer nobody."""

    async def is_kept(self) -> bool:
        """Return whether something is loaded at the next boot."""
        ...


@attrs.frozen(kw_only=True)
class FirewallUnderTest:
    """A reconciler of firewalls, and somebody else on the same device."""

    firewall: Reconciler[Firewall, Filtering]
    bystander: FirewallBystander
    reopen: Callable[[], Reconciler[Firewall, Filtering]]
    """As an agent that starts again on the same device: with its records, and nothing else."""
    records: Sequence[Records]
    """What it notes, of firewalls and of units."""

    async def look(self, wish: Firewall) -> Change:
        """Converge once."""
        return _change((await self.firewall.converge([wish], apply=True))[0])

    async def apply_one(self, wish: Firewall) -> Change:
        """Converge until nothing is pending: the last Change, with the steps of all."""
        change = await self.look(wish)
        steps = change.steps
        while change.pending is not None:
            await asyncio.sleep(change.pending.look_again_s)
            change = await self.look(wish)
            steps += change.steps
        return attrs.evolve(change, steps=steps)

    async def plan_one(self, wish: Firewall) -> Change:
        return _change((await self.firewall.converge([wish], apply=False))[0])

    async def expect_failure(self, wish: Firewall) -> Exception:
        """Converge until it fails: why."""
        while not isinstance(
            result := (await self.firewall.converge([wish], apply=True))[0], Exception
        ):
            assert result.pending is not None, result
            await asyncio.sleep(result.pending.look_again_s)
        return result

    async def remove_one(self) -> Change:
        return _change((await self.firewall.remove([KEY], apply=True))[0])

    async def lose_records(self) -> None:
        """Lose what was noted, as with the agent's database."""
        for records in self.records:
            for rid in (RECORD_ID, f"unit:{UNIT}"):
                await records.forget(rid)

    def reopened(self) -> FirewallUnderTest:
        return attrs.evolve(self, firewall=self.reopen())


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


def make_firewall(*ports: int, name: str = "base", confirm_within_s: int = 5) -> Firewall:
    """Return one that lets in what is for these ports."""
    allow = tuple(FirewallRule(port=each) for each in ports)
    return Firewall(name=name, allow=allow, confirm_within_s=confirm_within_s)


class FirewallHostContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> FirewallUnderTest:
        """Return a device that filters nothing, and whose control plane is reached."""

    async def test_it_is_loaded_confirmed_kept_told_as_seen_and_taken_away(
        self, host: FirewallUnderTest
    ) -> None:
        wish = make_firewall(22)
        assert await host.firewall.observe(KEY) is None
        planned = await host.plan_one(wish)
        assert planned.changed
        assert planned.before is None
        assert planned.diff is not None
        assert "dport 22" in planned.diff
        assert await host.bystander.look() is None
        done = await host.apply_one(wish)
        assert done.steps[0] == Created("its rules")
        assert "confirmed" in str(done.actions)
        assert "dport 22" in (await host.bystander.look() or "")
        assert await host.bystander.is_kept()
        assert done.after == planned.after == await host.firewall.observe(KEY)
        assert done.after is not None
        assert done.after.is_ready
        for reconciler in (host.firewall, host.reopen()):
            (again,) = await reconciler.converge([wish], apply=True)
            assert _change(again).steps == ()
            assert _change(again).after == done.after
        (planned_removal,) = await host.firewall.remove([KEY], apply=False)
        assert _change(planned_removal).changed
        assert await host.bystander.look() is not None
        assert (await host.remove_one()).changed
        assert await host.bystander.look() is None
        assert not await host.bystander.is_kept()
        assert not (await host.remove_one()).changed

    async def test_a_change_that_cuts_the_device_off_is_taken_back_and_refused(
        self, host: FirewallUnderTest
    ) -> None:
        good, bad = make_firewall(22, 80), make_firewall(22, 80, 443)
        await host.apply_one(good)
        seen = await host.bystander.look()
        await host.bystander.cut_off(443)
        assert (await host.look(bad)).steps[0] == Wrote("its rules")
        assert "dport 443" in (await host.bystander.look() or "")
        error = await host.expect_failure(bad)
        assert isinstance(error, NetworkRolledBack)
        assert "cut this device off" in error.message
        assert await host.bystander.look() == seen
        for apply in (True, False):
            (told,) = await host.reopen().converge([bad], apply=apply)
            assert isinstance(told, NetworkRolledBack)
            assert told.message == error.message
        assert await host.bystander.look() == seen
        assert not (await host.look(good)).changed

    async def test_what_nobody_wants_any_more_is_not_tried_to_its_end(
        self, host: FirewallUnderTest
    ) -> None:
        long = make_firewall(22, confirm_within_s=600)
        await host.bystander.cut_off(22)
        assert (await host.look(long)).pending is not None
        assert "dport 22" in (await host.bystander.look() or "")
        await host.remove_one()
        assert await host.bystander.look() is None
        assert (await host.look(long)).pending is not None
        await host.apply_one(make_firewall(80))
        assert "dport 22" not in (await host.bystander.look() or "")

    async def test_an_agent_that_is_killed_in_a_trial_goes_on_with_it(
        self, host: FirewallUnderTest
    ) -> None:
        wish = make_firewall(22, confirm_within_s=60)
        assert (await host.look(wish)).pending is not None
        again = attrs.evolve(host, firewall=host.reopen())
        assert "confirmed" in str((await again.apply_one(wish)).actions)
        assert await host.bystander.is_kept()

    async def test_what_was_confirmed_once_is_put_right_also_without_the_control_plane(
        self, host: FirewallUnderTest
    ) -> None:
        wish = make_firewall(22)
        made = await host.apply_one(wish)
        await host.bystander.silence(True)
        await host.bystander.flush()
        assert await host.firewall.observe(KEY) is None
        assert (await host.plan_one(wish)).changed
        repaired = await host.look(wish)
        assert repaired.steps[0] == Created("its rules")
        assert repaired.after == made.after == await host.firewall.observe(KEY)
        await host.bystander.add()
        assert await host.firewall.observe(KEY) != made.after
        assert (await host.look(wish)).steps[0] == Wrote("its rules")
        assert await host.firewall.observe(KEY) == made.after
        assert not (await host.look(wish)).changed

    async def test_by_another_name_it_is_a_change_and_the_device_is_open_at_no_moment(
        self, host: FirewallUnderTest
    ) -> None:
        one, other = make_firewall(22), make_firewall(22, 80, name="edge")
        await host.apply_one(one)
        assert one.id == other.id
        await host.bystander.cut_off(80)
        assert isinstance(await host.expect_failure(other), NetworkRolledBack)
        assert "dport 22" in (await host.bystander.look() or "")
        renamed = make_firewall(22, name="edge")
        await host.bystander.silence(True)
        await host.apply_one(renamed)
        assert not (await host.look(renamed)).changed
        await host.remove_one()
        assert await host.bystander.look() is None

    async def test_what_nobody_has_confirmed_is_not_kept_as_what_was_there(
        self, host: FirewallUnderTest
    ) -> None:
        """As where the agent was killed right after it had loaded it."""
        wish = make_firewall(22)
        assert (await host.look(wish)).pending is not None
        await host.lose_records()
        again = host.reopened()
        assert (await again.look(wish)).pending is not None
        await host.bystander.silence(True)
        assert isinstance(await again.expect_failure(wish), NetworkRolledBack)
        assert await host.bystander.look() is None
        assert not await host.bystander.is_kept()

    async def test_what_is_known_no_more_is_ours_by_its_name_and_proves_itself_anew(
        self, host: FirewallUnderTest
    ) -> None:
        await host.apply_one(make_firewall(22))
        seen = await host.bystander.look()
        await host.lose_records()
        again = host.reopened()
        for apply in (False, True):
            (unknown,) = await again.firewall.remove([KEY], apply=apply)
            assert not _change(unknown).changed
        assert await host.bystander.look() == seen
        await host.bystander.cut_off(443)
        assert isinstance(await again.expect_failure(make_firewall(22, 443)), NetworkRolledBack)
        assert await host.bystander.look() == seen
        wish = make_firewall(22, 80)
        await again.apply_one(wish)
        assert not (await again.look(wish)).changed
        await again.remove_one()
        assert await host.bystander.look() is None
        assert not await host.bystander.is_kept()

    async def test_a_table_that_is_called_as_ours_is_in_force_again_where_the_change_is_taken_back(
        self, host: FirewallUnderTest
    ) -> None:
        await host.bystander.make_table()
        theirs = await host.bystander.look()
        await host.bystander.cut_off(22)
        assert isinstance(await host.expect_failure(make_firewall(22)), NetworkRolledBack)
        assert await host.bystander.look() == theirs
        await host.apply_one(make_firewall(80))
        assert "dport 80" in (await host.bystander.look() or "")
