"""A firewall in memory: what a Score sees of one, and what happens behind its back.

Passes the same `FirewallHostContract` as the real one, by the very same reconciler: only the kernel is
another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from harmony_core.change import Change
from harmony_core.reconciler import Availability, MemoryRecords, OnChange, Records
from harmony_core.resources import Firewall
from harmony_pi_topology.firewall.reconciler import Firewalls, Listed
from harmony_pi_topology.firewall.rules import DELETE, UNIT

from .fake_systemd import FakeSystemd

__all__ = ["FakeFirewall"]


class FakeFirewall(Firewalls):
    """A `FirewallHost`'s reconciler. ``table`` is what the kernel has.

    The control plane is reached unless ``is_silent``, and while nothing in the table is in ``cuts_off``.
    Unless *patient*, changes prove themselves, or are taken back, at the next look.
    """

    def __init__(self, records: Records | None = None, *, patient: bool = True) -> None:
        self.unit_records = MemoryRecords()
        self.fake_units = FakeSystemd(records=self.unit_records)
        self.filter = _FakeFilter()
        self.cuts_off: set[str] = set()
        self._patient = patient
        self.records = records or MemoryRecords()
        super().__init__(self.filter, self.fake_units, self.records, self.unit_records, self)

    @property
    def table(self) -> str | None:
        return self.filter.table

    @table.setter
    def table(self, table: str | None) -> None:
        self.filter.table = table

    @property
    def is_silent(self) -> bool:
        return self.filter.is_silent

    @is_silent.setter
    def is_silent(self, is_silent: bool) -> None:
        self.filter.is_silent = is_silent

    def reopen(self) -> FakeFirewall:
        """Return an agent that starts again on the same device: with its records, and nothing else."""
        again = type(self)(self.records, patient=self._patient)
        again.fake_units, again.filter, again.cuts_off = self.fake_units, self.filter, self.cuts_off
        again.unit_records = self.unit_records
        Firewalls.__init__(
            again, self.filter, self.fake_units, self.records, self.unit_records, again
        )
        return again

    async def converge(
        self, resources: Sequence[Firewall], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [await self._converge_whole(each, apply=apply) for each in resources]

    async def _converge_whole(self, firewall: Firewall, *, apply: bool) -> Change | Exception:
        (first,) = await super().converge([firewall], apply=apply)
        if not self._patient or isinstance(first, Exception) or first.pending is None:
            return first
        if not await self.reachable():
            self.run_out()
        (last,) = await super().converge([firewall], apply=apply)
        if isinstance(last, Exception):
            return last
        return attrs.evolve(last, steps=(*first.steps, *last.steps), before=first.before)

    async def reachable(self) -> bool:
        return not self.is_silent and not any(each in (self.table or "") for each in self.cuts_off)

    async def availability(self) -> Availability:
        return await self.fake_units.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch the firewall's unit; tell changes at once."""

        def hear(unit: str | None) -> None:
            for key in keys if unit is not None else (None,):
                on_change(key)

        await self.fake_units.watch([UNIT] if keys else [], hear)

    async def close(self) -> None:
        await self.fake_units.close()

    def run_out(self) -> None:
        """End the time of a trial."""
        self.filter.run_out()

    def reboot(self) -> None:
        """Reboot: the kernel forgets all rules and loads what is on disk. No unit is started."""
        self.filter.forget()


class _FakeFilter:
    """A `PacketFilter`."""

    def __init__(self) -> None:
        self.table: str | None = None
        self.ignores = False
        """What is loaded is not there afterwards."""
        self.listening: frozenset[int] = frozenset()
        self._trials: dict[str, str | None] = {}
        self.is_silent = False
        """The control plane answers nobody."""
        self._names = 0
        self._boots = 0

    async def look(self, rules: str | None) -> Listed:
        wanted = None if rules is None else _list(rules)
        return Listed(found=self.table, wanted=wanted, listening=self.listening)

    async def load(self, rules: str) -> None:
        self.run_out()
        self._load(rules)

    async def begin(self, rules: str, within_s: int) -> str:
        assert within_s > 0
        self.run_out()
        self._names += 1
        trial = f"{self._boots}-{self._names}"
        self._trials[trial] = self.table
        self._load(rules)
        return trial

    async def waits(self, trial: str) -> bool:
        return trial in self._trials

    async def is_of_this_boot(self, trial: str) -> bool:
        return trial.startswith(f"{self._boots}-")

    async def commit(self, trial: str) -> bool:
        return self._trials.pop(trial, trial) != trial

    async def roll_back(self, trial: str) -> None:
        if trial in self._trials:
            self.run_out()

    def run_out(self) -> None:
        for before in self._trials.values():
            self.table = before
        self._trials.clear()

    def forget(self) -> None:
        self._boots += 1
        self.table = None
        self._trials.clear()

    def _load(self, rules: str) -> None:
        if not self.ignores:
            self.table = _list(rules)


def _list(rules: str) -> str | None:
    return rules.removeprefix(DELETE) or None
