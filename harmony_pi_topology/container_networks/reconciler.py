"""Networks between containers, reconciled: all of it but for podman, so that every reconciler judges alike.

    look -> not there                 -> made, with our label -> looked at again
         -> ours, and as desired      -> left
         -> ours, and otherwise       -> would podman take the new subnets? -> its containers end
                                         -> they are taken off it -> removed -> made
         -> anybody else's            -> NotOurs, and left

podman cannot change a network, and removes none that a container is on. So those of ours that are end first,
in the time that they are given, and a hold of one puts it off; those of others keep it as it is (`InUse`).
Taken off it, each is found by its own Score to lack a network, and is made anew on the new one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Protocol

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.container_turns import ContainerTurns
from harmony_core.errors import DidNotStick, InUse, NotOurs
from harmony_core.reconciler import MemoryRecords, Records
from harmony_core.resources import ContainerNetwork, ContainerNetworkPresent, resource_id
from harmony_core.resources.container_network import overlap
from harmony_core.steps import Created, Did, Recreated, Removed, Step
from harmony_pi_topology.common.gather import gather_results, name_resource
from harmony_pi_topology.containers.podman_reply import FoundNetwork
from harmony_pi_topology.containers.spec import RESOURCE_LABEL

__all__ = ["ContainerNetworks", "NetworkStore", "NetworkUser"]

_DRIVER = "bridge"


@attrs.frozen
class NetworkUser:
    """A container that is on a network, running or not."""

    name: str
    is_ours: bool
    may_hold: bool = False
    """Whether it was given a place to say "not now": most were not, and podman is not asked about those."""


class NetworkStore(Protocol):
    """What the rules need of podman."""

    async def look(self, name: str) -> FoundNetwork | None: ...

    async def make(self, network: ContainerNetwork, labels: Mapping[str, str]) -> None:
        """Make *network*. Raise `ContainerFailed` for what podman refuses, such as a subnet that is taken."""

    async def try_subnets(self, network: ContainerNetwork, subnets: Sequence[str]) -> None:
        """Raise `ContainerFailed` where podman would refuse *subnets*; leave nothing behind."""

    async def users(self, name: str) -> Sequence[NetworkUser]: ...

    async def find_hold(self, container: str) -> NotReady | None:
        """Return why *container*, which is ours, must not be stopped now."""
        ...

    def release(self, container: str) -> None:
        """End the hold of *container*."""

    async def take_off(self, container: str, network: str) -> NotReady | None:
        """Stop *container*, and take it off *network*. Return what it waits for while that takes its time."""
        ...

    async def remove(self, name: str) -> None:
        """Remove it; one that is gone is fine. Raise `InUse` where a container is on it."""


class ContainerNetworks:
    """The verbs of a `Reconciler` of networks between containers, and those of `Holding`."""

    def __init__(
        self,
        store: NetworkStore,
        records: Records | None = None,
        turns: ContainerTurns | None = None,
    ) -> None:
        self._store = store
        self._records = records if records is not None else MemoryRecords()
        self._turns = turns or ContainerTurns()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def resource_class(self) -> type[ContainerNetwork]:
        return ContainerNetwork

    async def converge(
        self, resources: Sequence[ContainerNetwork], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await gather_results(resources, partial(self._converge, apply=apply))
        return [
            name_resource(result, each.id) for each, result in zip(resources, results, strict=True)
        ]

    async def observe(self, key: str) -> ContainerNetworkPresent | None:
        return _state(await self._store.look(key))

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. Answer `InUse` as long as a container is on a network."""
        results = await gather_results(keys, partial(self._remove, apply=apply))
        return [name_resource(result, _id(key)) for key, result in zip(keys, results, strict=True)]

    async def find_hold(self, key: str) -> NotReady | None:
        """Return the hold of a container on the network, which delays its removal; None where there is
        none."""
        for user in await self._store.users(key):
            if user.may_hold and (hold := await self._store.find_hold(user.name)) is not None:
                return NotReady(
                    hold.message,
                    resource=_id(key),
                    reason="Held",
                    look_again_s=hold.look_again_s,
                )
        return None

    async def release(self, key: str) -> bool:
        if await self.find_hold(key) is None:
            return False
        for user in await self._store.users(key):
            if user.may_hold and await self._store.find_hold(user.name) is not None:
                self._store.release(user.name)
        return True

    async def _converge(self, network: ContainerNetwork, *, apply: bool) -> Change:
        async with self._locks[network.name]:
            awaits_ends = False
            try:
                change = await self._converge_alone(network, apply=apply)
                awaits_ends = _awaits_ends(change)
            finally:
                if apply and not awaits_ends:
                    self._turns.let_go(network.id)
            return change

    async def _converge_alone(self, network: ContainerNetwork, *, apply: bool) -> Change:
        found = await self._store.look(network.name)
        if found is not None:
            _refuse_strangers(found)
        before = _state(found)
        differing = find_differing(network, found) if found is not None else frozenset[str]()
        if found is not None and not differing:
            if apply:
                await self._records.put(network.id, {})
            return Change(resource=network.id, before=before, after=before)
        users = await self._store.users(network.name) if found is not None else ()
        _refuse_users(network.name, [each.name for each in users if not each.is_ours])
        steps = _plan_steps(differing, [each.name for each in users])
        held = await self.find_hold(network.name) if users else None
        if held is not None or not apply:
            after = _expected(network, found) if not apply else before
            told = steps if not apply else ()
            return Change(resource=network.id, steps=told, before=before, after=after, pending=held)
        await self._records.put(network.id, {})
        if found is None:
            await self._store.make(network, _labels(network))
        elif (pending := await self._make_anew(network, found, users)) is not None:
            return Change(resource=network.id, before=before, after=before, pending=pending)
        after = _state(await self._require_made(network))
        return Change(resource=network.id, steps=steps, before=before, after=after)

    async def _make_anew(
        self, network: ContainerNetwork, found: FoundNetwork, users: Sequence[NetworkUser]
    ) -> NotReady | None:
        """Stop what is on the network, and make the network again. Return what a container waits for.

        Nothing starts one of these containers meanwhile.
        """
        # What is refused only once the old one is gone would leave its containers without any.
        if fresh := _list_fresh(network.subnets, found.subnets):
            await self._store.try_subnets(network, fresh)
        names = [each.name for each in users]
        # Those that were taken off by an earlier look are on no network now, and wait as well.
        async with self._turns.take({*names, *self._turns.list_at_rest(network.id)}):
            for name in names:
                if (pending := await self._store.take_off(name, network.name)) is not None:
                    self._turns.keep_at_rest(network.id, names)
                    return pending
            await self._store.remove(network.name)
            await self._store.make(network, _labels(network))
        return None

    async def _require_made(self, network: ContainerNetwork) -> FoundNetwork:
        """Return the network as it was made. Raise `DidNotStick` where it is not as desired."""
        now = await self._store.look(network.name)
        differing = sorted(find_differing(network, now)) if now is not None else ["state"]
        if now is None or differing:
            raise DidNotStick(
                f"network {network.name}",
                field=differing[0],
                wanted=str(getattr(network, differing[0], "there")),
                found="nothing" if now is None else str(_fact(now, differing[0])),
                remedy="ask for what is found, or look at what else makes networks here: podman events",
            )
        return now

    async def _remove(self, name: str, *, apply: bool) -> Change:
        async with self._locks[name]:
            rid = _id(name)
            if apply:
                self._turns.let_go(rid)
            found = await self._store.look(name)
            if found is None:
                if apply:
                    await self._records.forget(rid)
                return Change(resource=rid)
            _refuse_strangers(found)
            if apply:
                _refuse_users(name, [each.name for each in await self._store.users(name)])
                await self._store.remove(name)
                if await self._store.look(name) is not None:
                    raise DidNotStick(
                        f"network {name}",
                        field="state",
                        wanted="removed",
                        found="still there",
                        remedy=f"remove it by hand (podman network rm {name})",
                    )
                await self._records.forget(rid)
            return Change(resource=rid, steps=(Removed(),), before=_state(found))


def _awaits_ends(change: Change) -> bool:
    """Return whether a container on the network is still stopping."""
    return change.pending is not None and change.pending.reason != "Held"


def find_differing(network: ContainerNetwork, found: FoundNetwork) -> frozenset[str]:
    """Return the fields in which *found* differs from *network*. Of what is left to podman, only the family
    counts."""
    named = {":" in each for each in network.subnets}
    chosen = {each for each in found.subnets if (":" in each) not in named}
    wanted_families = {False, True} if network.has_ipv6 else {False}
    facts = {
        "subnets": {*network.subnets, *chosen} == set(found.subnets),
        "ipv6": {":" in each for each in found.subnets} == wanted_families,
        "internal": network.internal == found.internal,
        "labels": _labels(network) == dict(found.labels),
        "driver": found.driver == _DRIVER,
        "dns": found.has_dns and not found.name_servers,
    }
    return frozenset(field for field, is_alike in facts.items() if not is_alike)


def _list_fresh(subnets: Sequence[str], had: Sequence[str]) -> list[str]:
    """Return those of *subnets* that podman can be asked for while the network that *had* others exists."""
    old = [ip_network(each) for each in had]
    return [each for each in subnets if not any(overlap(ip_network(each), other) for other in old)]


def _fact(found: FoundNetwork, field: str) -> object:
    match field:
        case "dns":
            return found.name_servers or found.has_dns
        case "ipv6":
            return any(":" in each for each in found.subnets)
        case _:
            return getattr(found, field)


def _plan_steps(differing: frozenset[str], users: Sequence[str]) -> tuple[Step, ...]:
    if not differing:
        return (Created(),)
    again = Did(f"ended, to be made anew on it: {', '.join(f'container {each}' for each in users)}")
    return (Recreated(fields=differing), *((again,) if users else ()))


def _expected(network: ContainerNetwork, found: FoundNetwork | None) -> ContainerNetworkPresent:
    subnets = network.subnets or (found.subnets if found is not None else ())
    return ContainerNetworkPresent(subnets=tuple(subnets), internal=network.internal)


def _refuse_strangers(found: FoundNetwork) -> None:
    if found.labels.get(RESOURCE_LABEL) != _id(found.name):
        raise NotOurs(
            f"a network {found.name} is there that Harmony did not make; containers may be on it as it is, "
            "without a ContainerNetworkScore; or choose another name, or remove it (podman network rm "
            f"{found.name})"
        )


def _refuse_users(name: str, users: Collection[str]) -> None:
    """Raise `InUse` for the containers that are on it, and keep it as it is."""
    if users:
        raise InUse(
            f"network {name} stays as it is while a container is on it: {', '.join(sorted(users))}; remove "
            "that, or the Score that makes it"
        )


def _labels(network: ContainerNetwork) -> dict[str, str]:
    return {**network.labels, RESOURCE_LABEL: network.id}


def _state(found: FoundNetwork | None) -> ContainerNetworkPresent | None:
    if found is None:
        return None
    return ContainerNetworkPresent(subnets=found.subnets, internal=found.internal)


def _id(name: str) -> str:
    return resource_id(ContainerNetwork.resource_type, name)
