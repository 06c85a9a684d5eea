"""Settings of the host, reconciled: all of it but for the daemons, so that every reconciler judges alike.

    look -> as wished: nothing
         -> else: recorded with what it was -> set -> looked at again: `DidNotStick` where it is not so

    removal: as we set it -> what it was before;   changed since, or never changed -> left

What is recorded of ``host:NAME``: ``prior``, what it was before us; ``set``, the last two values that we gave
it; ``left``, that we have let go of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, InvalidResource, NotOurs
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import HostSetting, HostSettingAt, resource_id
from harmony_core.steps import Changed, Left, PutBack, Step
from harmony_pi_topology.common.check import did_it_stick
from harmony_pi_topology.files.plan import CHANGED_SINCE, LEFT

__all__ = ["HostDaemons", "HostSettings"]

_REMEDY = "somebody else sets it, such as DHCP or cloud-init; look at who does"


class HostDaemons(Protocol):
    """What the rules need of the host. Every verb: a `CapabilityError` for what it will not do."""

    async def look(self, name: str, *, anew: bool) -> HostSettingAt:
        """Return the current setting; with *anew*, use nothing that is remembered."""
        ...

    async def set(self, name: str, value: str, *, was_there: bool = False) -> None:
        """Set this value, now and for every boot. Raise `InvalidResource` where there is no such value.

        One that *was_there* before us is accepted as it is, as far as the host allows that.
        """


@attrs.frozen
class HostSettings:
    """The verbs of a `Reconciler` of settings of the host."""

    daemons: HostDaemons
    records: Records

    async def converge(
        self, resources: Sequence[HostSetting], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [await self._converge_one(each, apply=apply) for each in resources]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [await self._remove_one(each, apply=apply) for each in keys]

    async def _converge_one(self, setting: HostSetting, *, apply: bool) -> Change | Exception:
        try:
            found = await self.daemons.look(setting.name, anew=False)
            desired = HostSettingAt(value=setting.value, in_force=setting.value)
            change = Change(
                resource=setting.id,
                steps=_steps_due(setting.name, found, desired),
                before=found,
                after=desired,
            )
            if apply:
                await self._note(setting, found)
            if apply and change.changed:
                await self.daemons.set(setting.name, setting.value)
                change = attrs.evolve(
                    change, after=await self._look_afterwards(setting.name, desired)
                )
        except CapabilityError as error:
            error.resource = setting.id
            return error
        return change

    async def _look_afterwards(self, name: str, desired: HostSettingAt) -> HostSettingAt:
        found = await self.daemons.look(name, anew=True)
        return did_it_stick(f"the {name}", desired, found, remedy=_REMEDY)

    async def _note(self, setting: HostSetting, found: HostSettingAt) -> None:
        """Record, before it is touched, what it was."""
        known = self.records.get(setting.id)
        prior, were = found.value, list[str]()
        if known is not None and "left" not in known:
            prior, were = known["prior"], known["set"]
        others = [each for each in were if each != setting.value]
        record = {"prior": prior, "set": [*others[-1:], setting.value]}
        await self.records.put(setting.id, record)

    async def _remove_one(self, name: str, *, apply: bool) -> Change | Exception:
        rid = resource_id(HostSetting.resource_type, name)
        try:
            found, record = await self.daemons.look(name, anew=False), self.records.get(rid)
            if record is None:
                raise NotOurs(f"the {name} was not set by Harmony; set it by hand")
            return await self._give_back(name, rid, found, record, apply=apply)
        except CapabilityError as error:
            error.resource = rid
            return error

    async def _give_back(
        self, name: str, rid: str, found: HostSettingAt, record: JsonRecord, *, apply: bool
    ) -> Change:
        prior = record["prior"]
        if "left" in record:
            return Change(resource=rid, before=found, after=found)
        is_ours = found.value in record["set"] and found.value != prior
        step: Step = PutBack(f"{name} {prior}") if is_ours else CHANGED_SINCE
        if found.value == prior:
            step = LEFT
        after = HostSettingAt(value=prior, in_force=prior) if is_ours else found
        if apply:
            if is_ours and (refusal := await self._refusal_of(name, prior)):
                # As it is for good: asking again would end as this did.
                step, after = (
                    Left(f"{name} {prior or 'none'} is not taken any more: {refusal}"),
                    found,
                )
            elif is_ours:
                after = await self.daemons.look(name, anew=True)
                # Without a name of its own a host has any name: what is in force then is the system's.
                wanted = attrs.evolve(after, value=prior)
                did_it_stick(f"the {name}", wanted, after, remedy=_REMEDY)
            await self.records.put(rid, {**record, "left": True})
        return Change(resource=rid, steps=(step,), before=found, after=after)

    async def _refusal_of(self, name: str, prior: str) -> str:
        """Restore *prior*. Return why the host knows no such value."""
        try:
            await self.daemons.set(name, prior, was_there=True)
        except InvalidResource as error:
            return error.message
        return ""


def _steps_due(name: str, found: HostSettingAt, desired: HostSettingAt) -> tuple[Step, ...]:
    steps = (
        Changed(name, found.value or "none", desired.value),
        Changed(f"{name} in force", found.in_force or "none", desired.in_force),
    )
    return tuple(each for each in steps if each.before != each.after)[:1]
