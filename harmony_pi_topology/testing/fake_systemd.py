"""Units in memory: what a Score sees of systemd, and what happens behind its back.

Passes the same `SystemdHostContract` as the real one. Time stands still unless `pass_time` is called; with
``patient=True`` (the default) starting and settling are waited for within `converge`, so that a Score
converges at its first interpretation. What a service does is decided by its ExecStart::

    systemd = FakeSystemd()
    systemd.programs["/usr/bin/kiosk"] = ServiceProgram(exit_code=3, log=("no display",))
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from datetime import timedelta

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import (
    InvalidResource,
    NotOurs,
    UnitFailed,
    UnsafePath,
)
from harmony_core.reconciler import (
    Backups,
    MemoryBackups,
    MemoryRecords,
    Records,
)
from harmony_core.resources import SystemdUnit, UnitState, resource_id
from harmony_core.unit_install import read_install_words
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.gather import name_resource
from harmony_pi_topology.common.log_tail import log_tail
from harmony_pi_topology.systemd.health_rules import (
    Broken,
    describe_end,
    describe_frozen,
    describe_job_end,
    evaluate_health,
    make_not_ready,
    make_not_ready_in_time,
    to_pending,
)
from harmony_pi_topology.systemd.identities import unit_identities
from harmony_pi_topology.systemd.plan import (
    Removal,
    plan_removal,
    predict_state_after_removal,
)
from harmony_pi_topology.systemd.records import FoundUnit, UnitRecord, digest
from harmony_pi_topology.systemd.unit_plan import UnitPlan, plan_unit

from .fake_files import FileContents
from .fake_init import BEGINNING, OURS, STAMPS, THEIRS, FakeInit, ServiceProgram
from .fake_reconciler import FakeReconciler

__all__ = ["FakeSystemd", "ServiceProgram"]


class FakeSystemd(FakeReconciler):
    """A `SystemdHost`'s reconciler over an init system in memory.

    ``faults[name]`` is an error with which everything about that unit is answered.
    """

    def __init__(
        self,
        *,
        patient: bool = True,
        records: Records | None = None,
        backups: Backups | None = None,
        init: FakeInit | None = None,
    ) -> None:
        super().__init__()
        self.faults: dict[str, Exception] = {}
        self.settings: dict[str, str] = {}
        """The kernel's, by path; those that a unit names are made when it is started."""
        self._patient = patient
        self._records = records or MemoryRecords()
        self._backups = backups or MemoryBackups()
        self._init = init or FakeInit()
        self._on_change: dict[str, str] = {}
        self._uses: dict[str, tuple[str, ...]] = {}
        self._init.listeners.append(self._hear)
        self._listen_to_files()

    @property
    def programs(self) -> dict[str, ServiceProgram]:
        """What services do, by their ExecStart. Others run on."""
        return self._init.programs

    @property
    def files(self) -> MutableMapping[str, bytes]:
        """Every file on the device that a unit is, or uses. May be replaced by those of another fake, or by
        a dictionary, of which no change is told."""
        return self._init.files

    @files.setter
    def files(self, files: MutableMapping[str, bytes]) -> None:
        self._init.files = files
        self._listen_to_files()

    @property
    def resource_class(self) -> type[SystemdUnit]:
        return SystemdUnit

    async def converge(
        self, resources: Sequence[SystemdUnit], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [
            await _answer_one(self._converge_one(each, apply=apply), each.name)
            for each in resources
        ]

    async def identities(self, resource: SystemdUnit) -> frozenset[str]:
        """Return all names of *resource*, as ``unit:NAME``, and ``path:…`` of its file, if we write that."""
        return unit_identities(resource, self._look_at(resource.name), OURS + resource.name)

    async def observe(self, key: str) -> UnitState | None:
        return self._look_at(key).state

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [await _answer_one(self._remove_one(each, apply=apply), each) for each in keys]

    def reopen(self) -> FakeSystemd:
        """Return an agent that starts again on the same device: with its records, and nothing else."""
        again = FakeSystemd(
            patient=self._patient,
            records=self._records,
            backups=self._backups,
            init=self._init,
        )
        again.settings = self.settings
        return again

    async def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, for the units."""
        self._init.pass_time(seconds)

    async def install(self, name: str, content: str) -> None:
        """Install a unit, as a package would."""
        self._init.files[THEIRS + name] = content.encode()
        self._init.reload()

    async def reload(self) -> None:
        """Have systemd read its files again, as a bystander would."""
        self._init.reload()

    async def start(self, name: str) -> None:
        """Start a unit, as a bystander would. So do the methods below."""
        self._init.start(name)

    async def stop(self, name: str) -> None:
        self._init.stop(name)

    async def restart(self, name: str) -> None:
        self._init.restart(name)

    async def kill(self, name: str) -> None:
        self._init.kill(name)

    async def freeze(self, name: str) -> None:
        self._init.freeze(name, frozen=True)

    async def thaw(self, name: str) -> None:
        self._init.freeze(name, frozen=False)

    async def enable(self, name: str) -> None:
        self._init.enable(name)

    async def disable(self, name: str) -> None:
        self._init.disable(name)

    async def mask(self, name: str) -> None:
        self._init.mask(name)

    async def is_enabled(self, name: str) -> bool:
        return self._init.look(name).enabled is True

    async def identity(self, name: str) -> str:
        """Return which start of the unit runs, or ran last; empty when it never did. It stays when nothing is
        done."""
        return self._init.look(name).invocation

    async def command(self, name: str) -> str:
        """Return what the unit runs now; empty when it does not run."""
        return self._init.command(name)

    async def reloads(self) -> str:
        """Return a text that differs after each reload."""
        return str(self._init.reloads)

    def write(self, path: str, content: bytes) -> None:
        """Write a file, as a bystander would."""
        self._init.files[path] = content
        self._init.touch(path)

    def delete(self, path: str) -> None:
        """Delete a file, as a bystander would."""
        del self._init.files[path]

    def read(self, path: str) -> bytes | None:
        """Return what a bystander reads there; None when there is no file."""
        return self._init.files.get(path)

    def _listen_to_files(self) -> None:
        if isinstance(self._init.files, FileContents):
            self._init.files.listen(self._hear_file)

    def _hear(self, name: str | None) -> None:
        if name is None:
            self._watch.tell_all()
        else:
            self._watch.tell(name)

    def _hear_file(self, path: str) -> None:
        for directory in (OURS, THEIRS):
            if path.startswith(directory):
                # The unit's file, or one in its directory of drop-ins.
                self._watch.tell(path.removeprefix(directory).partition("/")[0].removesuffix(".d"))
        self._watch.tell(*(name for name, uses in self._uses.items() if path in uses))

    async def _converge_one(self, unit: SystemdUnit, *, apply: bool) -> Change:
        self._uses[unit.name] = unit.uses
        written = self._records.get(unit.id)
        masked = unit.name in self._init.masked
        file = self._init.files.get(OURS + unit.name) if unit.content is not None else None
        found = self._look_at(unit.name)
        plan = plan_unit(
            unit,
            found,
            UnitRecord.read(written) if written is not None else None,
            file=file,
            as_ours=file is not None,
            uses={path: digest(self._init.files.get(path)) for path in unit.uses},
            untouched=self._init.list_untouched(unit.name, unit.uses),
            override_is_gone=found.is_outdated and found.fragment not in self._init.files,
            obstacle=UnsafePath(f"{unit.name} is masked") if masked else None,
            gives_way=masked,
            settings=self.settings,
        )
        if not apply:
            if plan.seen is not None:
                await self._records.put(unit.id, plan.seen.written)
            return self._plan_one(plan)
        if unit.state is not None and found.frozen:
            raise self._make_failure(unit, found, describe_frozen(unit.name))
        if plan.has_just_failed(self._on_change.get(unit.name)):
            raise self._make_failure(unit, plan.found, describe_end(plan.found))
        if plan.replaces_another_s and plan.before is not None:
            await self._backups.keep(unit.id, plan.before)
        if plan.steps.enable or plan.steps.disable:
            plan = attrs.evolve(plan, also=self._also(unit.name, unit.content or ""))
        if plan.acts:
            await self._records.put(unit.id, plan.noted.written)
            plan = self._act(plan)
        return await self._evaluate_health(plan)

    def _plan_one(self, plan: UnitPlan) -> Change:
        if plan.steps:
            return plan.preview(now=self._now())
        verdict = evaluate_health(plan.unit, plan.found, plan.record, now_s=self._init.now_s)
        pending = to_pending(plan.unit, verdict) or plan.unmet(plan.found)
        return plan.change(plan.found, pending)

    def _act(self, plan: UnitPlan) -> UnitPlan:
        name, steps = plan.unit.name, plan.steps
        if steps.disable:
            self._init.disable(name)
        self._give_back(plan.giving_back)
        if steps.make_way:
            self._init.unmask(name)
        if steps.write is not None:
            self._init.files[OURS + name] = (plan.unit.content or "").encode()
        if steps.enable:
            self._init.enable(name)
        if plan.reloads:
            self._init.reload()
        match steps.job:
            case "start":
                self.settings.update(plan.unit.settings)
                return attrs.evolve(plan, job_result=self._init.start(name))
            case "restart":
                self.settings.update(plan.unit.settings)
                return attrs.evolve(plan, job_result=self._init.restart(name))
            case "stop":
                self._init.stop(name)
            case None:
                pass
        return plan

    async def _evaluate_health(self, plan: UnitPlan) -> Change:
        unit = plan.unit
        if plan.steps.job in {"start", "restart"} and self._patient:
            starts_in_s = self._init.look(unit.name).has_job
            self._init.pass_time(unit.settle_s + (unit.start_timeout_s if starts_in_s else 0))
        found = self._look_at(unit.name)
        if unit.content is not None and found.load == "bad-setting":
            raise InvalidResource(f"systemd refuses {unit.name}: {found.problem}; correct its file")
        plan.check_effective(found)
        verdict = evaluate_health(unit, found, plan.record, now_s=self._init.now_s)
        if plan.job_result not in {None, "done"}:
            verdict = Broken(describe_job_end(plan.job_result or "", found))
        await self._records.put(unit.id, plan.after(found).written)
        if isinstance(verdict, Broken):
            raise self._make_failure(unit, found, verdict.how)
        return plan.change(found, verdict or self._probe(unit, found))

    def _probe(self, unit: SystemdUnit, found: FoundUnit) -> NotReady | None:
        probe = unit.ready
        age_s = self._init.now_s - found.up_since_s
        if probe is None or not found.is_up:
            return None
        if age_s >= self._init.program(unit.name).ready_after_s:
            return None
        if age_s < probe.within_s:
            return make_not_ready(unit, probe, "it does not answer yet")
        raise make_not_ready_in_time(unit, probe, "it does not answer", self._tail(unit.name))

    def _make_failure(self, unit: SystemdUnit, found: FoundUnit, how: str) -> UnitFailed:
        self._on_change[unit.name] = found.invocation
        return UnitFailed(f"{unit.name} {how}{self._tail(unit.name)}", resource=unit.id)

    async def _remove_one(self, name: str, *, apply: bool) -> Change:
        found = self._look_at(name)
        before = found.state
        written = self._records.get(_id(name))
        if written is None:
            if found.exists:
                raise NotOurs(f"{name} is there, and Harmony did not touch it; remove it by hand")
            return Change(resource=_id(name))
        record = UnitRecord.read(written)
        backup = await self._backups.get(_id(name)) if record.prior is not None else None
        due = plan_removal(found, record, file=self._init.files.get(OURS + name), backup=backup)
        ours = record.wrote and not record.existed
        goes = ours and due.job is None and not found.members
        after = None if goes else predict_state_after_removal(found, due)
        if apply and found.frozen and (ours or due.stop or due.job):
            raise UnitFailed(f"{name} {describe_frozen(name)}")
        if apply:
            others = record.also_wanted(self._also(name))
            self._undo(name, due, backup)
            self._give_back(others)
            await self._backups.forget(_id(name))
            if not ours and found.exists:
                await self._records.put(_id(name), attrs.evolve(record, left=True).written)
            else:
                await self._records.forget(_id(name))
        return Change(resource=_id(name), steps=due.in_order, before=before, after=after)

    def _also(self, name: str, text: str = "") -> dict[str, bool]:
        others = {*self._init.also(name), *read_install_words(text, "Also")}
        return {other: self._init.look(other).enabled is True for other in others}

    def _give_back(self, wanted: Mapping[str, bool]) -> None:
        for other, is_wanted in wanted.items():
            if is_wanted is not (self._init.look(other).enabled is True):
                (self._init.enable if is_wanted else self._init.disable)(other)

    def _undo(self, name: str, due: Removal, backup: bytes | None) -> None:
        if due.takes_back:
            self._init.start(name)
        if due.stop:
            self._init.stop(name)
        if due.disable:
            self._init.disable(name)
        if due.remove_file:
            del self._init.files[OURS + name]
            self._init.files.pop(STAMPS + name, None)
            if due.job is None:
                self._init.forget(name)
        if due.put_back and backup is not None:
            self._init.files[OURS + name] = backup
        if due.reloads:
            self._init.reload()
        if due.enable or due.relink:
            self._init.enable(name)
        if due.job is not None:
            (self._init.start if due.job == "start" else self._init.restart)(name)

    def _look_at(self, name: str) -> FoundUnit:
        if name in self.faults:
            raise self.faults[name]
        return self._init.look(name)

    def _tail(self, name: str) -> str:
        return log_tail("\n".join(self._init.log[name]).encode())

    def _now(self) -> str:
        return rfc3339(BEGINNING + timedelta(seconds=self._init.now_s))


async def _answer_one(verb: Awaitable[Change], name: str) -> Change | Exception:
    try:
        return await verb
    except Exception as error:  # noqa: BLE001 - one unit's error is that unit's answer
        return name_resource(error, _id(name))


def _id(name: str) -> str:
    return resource_id(SystemdUnit.resource_type, name)
