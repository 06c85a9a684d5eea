"""The rule by which a device is booted anew, reconciled: all of it but for the daemon.

    converge -> the rule is noted; whoever boots the device reads it from there
             -> a boot was in vain? -> `NotInForce`, until what awaited it awaits it no more

The agent boots the device (`harmony_agent.apply.reboots`): it alone knows whether anything is under way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotInForce
from harmony_core.reboots import RebootNote
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import RebootRule, RebootRuleAt, resource_id
from harmony_core.steps import Changed, Created, Removed, Step

__all__ = ["NOTE_ID", "RebootDaemon", "Reboots"]

NOTE_ID = "reboot-note:device"
RULE_ID = "reboot:device"
_LISTS = ("causes", "signed_by", "in_vain")


class RebootDaemon(Protocol):
    """What the rules need of the host. Every verb: a `CapabilityError` for what it will not do."""

    async def find_system_reasons(self) -> Collection[str]:
        """Return why the system itself says that it must be rebooted."""
        ...

    async def find_obstacles(self) -> Collection[str]:
        """Return who says that the host must not go down now, and why."""
        ...

    async def reboot(self) -> None:
        """Begin to shut down, and to reboot."""


class Reboots:
    """The verbs of a `Reconciler`, and of `Rebooting`, but for who is told of changes."""

    def __init__(self, daemon: RebootDaemon, records: Records) -> None:
        self._daemon = daemon
        self._records = records

    @property
    def resource_class(self) -> type[RebootRule]:
        return RebootRule

    async def converge(
        self, resources: Sequence[RebootRule], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [await self._converge_one(each, apply=apply) for each in resources]

    async def observe(self, key: str) -> RebootRuleAt | None:  # noqa: ARG002 - there is one
        return self.read_rule()

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [await self._remove_one(key, apply=apply) for key in keys]

    def read_rule(self) -> RebootRuleAt | None:
        record = self._records.get(RULE_ID)
        return None if record is None else RebootRuleAt(**record)

    def read_note(self) -> RebootNote:
        record = self._records.get(NOTE_ID) or {}
        read: dict[str, Any] = {
            name: tuple(each) if name in _LISTS else each for name, each in record.items()
        }
        helped = {each: tuple(times) for each, times in record.get("helped", {}).items()}
        read["helped"] = helped
        return RebootNote(**read)

    async def note(self, note: RebootNote) -> None:
        if note == RebootNote():
            await self._records.forget(NOTE_ID)
            return
        record: JsonRecord = attrs.asdict(note)
        lists = {name: list(record[name]) for name in _LISTS}
        helped = {each: list(times) for each, times in note.helped.items()}
        await self._records.put(NOTE_ID, {**record, **lists, "helped": helped})

    async def find_system_reasons(self) -> Collection[str]:
        return await self._daemon.find_system_reasons()

    async def find_obstacles(self) -> Collection[str]:
        return await self._daemon.find_obstacles()

    async def reboot(self) -> None:
        await self._daemon.reboot()

    async def _converge_one(self, rule: RebootRule, *, apply: bool) -> Change | Exception:
        found = self.read_rule()
        wanted = RebootRuleAt(when=rule.when, window=rule.window, lasts_s=rule.lasts_s)
        if apply and found != wanted:
            await self._records.put(rule.id, attrs.asdict(wanted))
        if (note := self.read_note()).in_vain:
            return NotInForce(note.in_words(), resource=rule.id)
        steps = _steps_due(found, wanted)
        after = self.read_rule() if apply else wanted
        return Change(resource=rule.id, steps=steps, before=found, after=after)

    async def _remove_one(self, key: str, *, apply: bool) -> Change | Exception:
        found, rid = self.read_rule(), resource_id(RebootRule.resource_type, key)
        if found is None:
            return Change(resource=rid)
        try:
            if apply:
                await self._records.forget(NOTE_ID)
                await self._records.forget(rid)
        except CapabilityError as error:
            error.resource = rid
            return error
        return Change(resource=rid, steps=(Removed(),), before=found)


def _steps_due(found: RebootRuleAt | None, wanted: RebootRuleAt) -> tuple[Step, ...]:
    if found is None:
        return (Created(),)
    if found == wanted:
        return ()
    return (Changed("rule", _in_words(found), _in_words(wanted)),)


def _in_words(rule: RebootRuleAt) -> str:
    if rule.when != "window":
        return rule.when
    return f"{rule.window} for {rule.lasts_s} s"
