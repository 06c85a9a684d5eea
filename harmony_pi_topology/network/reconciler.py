"""Network profiles, brought to what they should be, each risky change on trial: shared by all reconcilers.

    observe                             the profile, what its interface has taken on, our record
    plan (`.profile_plan`, `.plan`)     what is due -> a dry run ends here
    apply  harmless, or confirmed before -> record, write to disk, bring up
           risky                         -> on trial, all of one call together (`.trial`)
           cannot be tried yet           -> waits, unwritten
    look again                          a setting that is not as written: `DidNotStick`
    check (`.health`)                   is it up, with all its addresses?

Nothing waits here: a profile on its way up, or on trial, is NotReady, and is looked at again. The network is
one thing, so one converge or removal happens at a time.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError, NetworkFailed
from harmony_core.reconciler import Backups, Reachability, Records
from harmony_core.resources import (
    Connected,
    Enterprise,
    NetworkProfile,
    NetworkState,
    SecretRef,
    resource_id,
)
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.common.confirmation import make_rolled_back
from harmony_pi_topology.common.gather import name_resource

from .daemon import NetworkDaemon, SecretFiles
from .desired import DesiredProfile, SecretContent, own_key_of, profile_uuid, resolve_desired
from .health import NetworkUse
from .link_settings import find_secrets, makes_its_key
from .plan import foreign
from .profile_plan import NetworkPlan, plan_profile
from .records import FoundNetwork, NetworkRecord
from .removal import NetworkRemover
from .settings import EAP_PRIVATE_KEY_PASSWORD, PRIVATE_KEY, Settings
from .trial import Trials
from .wireguard import make_private_key

__all__ = ["FindFile", "FindLoginProblem", "GivesAddresses", "NetworkReconciler"]

FindFile: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether there is anything at that path of the device."""
FindLoginProblem: TypeAlias = Callable[[Enterprise, str | None], Awaitable[str | None]]
"""Why nobody can log in with the files of a login, whose key this password unlocks."""
GivesAddresses: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether what gives others their addresses runs on that interface."""

_DNSMASQ: Final = tuple(
    f"{directory}/dnsmasq"
    for directory in ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin")
)
"""Where NetworkManager looks for it."""
_SHARES_WITHIN_S = 10.0
_SHARES_LOOK_AGAIN_S = 1.0

_Result: TypeAlias = Change | Exception
_Work: TypeAlias = Callable[[Sequence[NetworkPlan]], Awaitable[Sequence[_Result]]]


class NetworkReconciler:
    """`converge`, `observe` and `remove` of a `Reconciler`, over a *daemon*."""

    def __init__(
        self,
        daemon: NetworkDaemon,
        *,
        records: Records,
        backups: Backups,
        reachability: Reachability,
        secrets: SecretFiles,
        secret_values: SecretValues,
        find_file: FindFile,
        find_login_problem: FindLoginProblem,
        gives_addresses: GivesAddresses,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._daemon = daemon
        self._records = records
        self._backups = backups
        self._secrets = secrets
        self._secret_values = secret_values
        self._find_file = find_file
        self._find_login_problem = find_login_problem
        self._gives_addresses = gives_addresses
        self._gives_none_since_s: dict[str, float] = {}
        """Since when nobody was seen to be given addresses, by the profile's id."""
        self._monotonic_s = monotonic_s
        self._use = NetworkUse(daemon, monotonic_s=monotonic_s)
        self._trials = Trials(
            daemon=daemon,
            use=self._use,
            records=records,
            backups=backups,
            reachability=reachability,
            monotonic_s=monotonic_s,
        )
        self._remover = NetworkRemover(
            daemon=daemon,
            trials=self._trials,
            records=records,
            backups=backups,
            reachability=reachability,
            secrets=secrets,
        )
        self._one_at_a_time = asyncio.Lock()
        self._tidied: set[str] = set()

    async def converge(
        self, resources: Sequence[NetworkProfile], *, apply: bool
    ) -> Sequence[_Result]:
        async with self._one_at_a_time:
            plans = [await self._plan_one(each, apply=apply) for each in resources]
            results: dict[int, _Result] = {
                n: each for n, each in enumerate(plans) if isinstance(each, Exception)
            }
            rest = {n: each for n, each in enumerate(plans) if isinstance(each, NetworkPlan)}
            if not apply:
                results.update({n: each.preview() for n, each in rest.items()})
            for numbers, work in self._group(rest).items() if apply else ():
                answers = await _answers(work, [rest[n] for n in numbers])
                results.update(zip(numbers, answers, strict=True))
            for n, plan in rest.items() if apply else ():
                results[n] = await self._require_sharing(plan, results[n])
        return [name_resource(results[n], each.id) for n, each in enumerate(resources)]

    async def _require_sharing(self, plan: NetworkPlan, result: _Result) -> _Result:
        """Return *result*, or an error for a profile that is in use and gives nobody an address although it
        should: NetworkManager calls it connected all the same."""
        if not plan.profile.shares or isinstance(result, Exception) or result.pending is not None:
            return result
        state = result.after
        if not isinstance(state, Connected) or await self._gives_addresses(state.interface):
            self._gives_none_since_s.pop(plan.id, None)
            return result
        now_s = self._monotonic_s()
        since_s = self._gives_none_since_s.setdefault(plan.id, now_s)
        name = plan.profile.name
        if result.steps or now_s - since_s < _SHARES_WITHIN_S:
            pending = NotReady(
                f"{name} gives nobody on {state.interface} an address yet",
                resource=plan.id,
                reason="Progressing",
                look_again_s=_SHARES_LOOK_AGAIN_S,
            )
            return attrs.evolve(result, pending=pending)
        return NetworkFailed(
            f"{name} is in use, and gives nobody on {state.interface} an address: NetworkManager's dnsmasq "
            "does not run there. Where another program has port 53 or 67 (ss -lunp), stop it or have it "
            f"listen on other addresses; then run: nmcli connection up '{name}'",
            resource=plan.id,
        )

    async def observe(self, key: str) -> NetworkState | None:
        written = self._records.get(resource_id(NetworkProfile.resource_type, key))
        uuid = NetworkRecord.read(written).uuid if written is not None else profile_uuid(key)
        found = await self._daemon.look(key, uuid, None)
        if found.profile is None and found.namesakes:
            found = await self._daemon.look(key, found.namesakes[0], None)
        return found.profile.state if found.profile is not None else None

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[_Result]:
        """Remove the profiles that were made under *keys*. Restore what was there before."""
        async with self._one_at_a_time:
            return [await self._remove_one(key, apply=apply) for key in keys]

    async def _remove_one(self, key: str, *, apply: bool) -> _Result:
        try:
            change = await self._remover.remove(key, apply=apply)
            if apply and change.pending is None:
                self._use.is_gone(key)
            return change
        except Exception as error:  # noqa: BLE001 - one profile's error is that profile's answer
            return name_resource(error, resource_id(NetworkProfile.resource_type, key))

    async def _plan_one(self, profile: NetworkProfile, *, apply: bool) -> NetworkPlan | Exception:
        try:
            await self._refuse_what_lacks_files(profile)
            desired = await self._resolve_desired(profile)
            await self._refuse_what_logs_nobody_in(desired)
            record = await self._record(desired, apply=apply)
            found = await self._daemon.look(profile.name, record.uuid, profile.interface)
            desired = await self._with_own_key(desired, found, apply=apply)
            before = await self._read_backup(profile, record)
            plan = self._use.patient(plan_profile(desired, found, record, before))
            if apply and not plan.is_on_trial:
                self._tell_what_failed(plan)
                self._refuse_a_fight(plan)
        except Exception as error:  # noqa: BLE001 - one profile's error is that profile's answer
            return error
        return plan

    async def _refuse_what_lacks_files(self, profile: NetworkProfile) -> None:
        """Raise `NetworkFailed` where a program or file that *profile* needs is missing: NetworkManager would
        accept the profile, and it would not work."""
        if profile.shares and not any([await self._find_file(path) for path in _DNSMASQ]):
            raise NetworkFailed(
                f"{profile.name} gives others their addresses, for which NetworkManager needs dnsmasq, and "
                "this device has none; run: apt-get install dnsmasq-base",
                resource=profile.id,
            )
        for path in profile.read_files:
            if not await self._find_file(path):
                raise NetworkFailed(
                    f"{profile.name} needs {path}, which is not on this device; put it there first, by a "
                    "FileScore that this one comes after",
                    resource=profile.id,
                )

    async def _refuse_what_logs_nobody_in(self, desired: DesiredProfile) -> None:
        """Raise `NetworkFailed` where nobody can log in with the files of *desired*: NetworkManager would
        accept that, too."""
        profile = desired.profile
        if (login := profile.login) is None:
            return
        password = desired.secrets.get(EAP_PRIVATE_KEY_PASSWORD)
        if (problem := await self._find_login_problem(login, password)) is not None:
            raise NetworkFailed(f"{profile.name}: {problem}", resource=profile.id)

    async def _resolve_desired(self, profile: NetworkProfile) -> DesiredProfile:
        contents = {
            name: await self._read_secret(each)
            for name, each in find_secrets(profile.link).items()
            if each is not None
        }
        return resolve_desired(profile, contents)

    async def _read_secret(self, given: SecretRef | str) -> SecretContent:
        """Return the content of a secret, and its mark, which does not let anybody guess the value of a
        secret word."""
        if isinstance(given, str):
            return SecretContent(
                content=self._secret_values.reveal(given.encode()),
                mark=self._secret_values.call_as_in_force(given),
            )
        content = await self._secrets.read(given.secret)
        return SecretContent(content=content, mark=hashlib.sha256(content).hexdigest())

    async def _with_own_key(
        self, desired: DesiredProfile, found: FoundNetwork, *, apply: bool
    ) -> DesiredProfile:
        """Return *desired* with the private key that the device makes for it, where nobody has given one.

        Once made, the key stays, whatever happens to the profile: others know the public key. A plan that is
        not applied makes no key.
        """
        profile, there = desired.profile, found.profile
        if not makes_its_key(profile.link):
            return desired
        name = own_key_of(profile.name)
        if (kept := await self._secrets.find_own(name)) is not None:
            return desired.with_own_key(kept)
        key = there.secrets.get(PRIVATE_KEY) if there is not None else None
        if key is None and not apply:
            return desired
        content = f"{key or make_private_key()}\n".encode()
        if apply:
            await self._secrets.keep_own(name, content)
        return desired.with_own_key(content)

    async def _record(self, desired: DesiredProfile, *, apply: bool) -> NetworkRecord:
        """Return the record of the profile. First give up a trial of something else than *desired*."""
        profile = desired.profile
        written = self._records.get(profile.id)
        record = NetworkRecord.read(written) if written is not None else None
        if record is None or record.left:
            return await self._first_record(profile, apply=apply)
        if apply and record.trial is not None and record.trial.spec != desired.attempt:
            return await self._trials.give_up(profile.id, record)
        return record

    async def _first_record(self, profile: NetworkProfile, *, apply: bool) -> NetworkRecord:
        """Return the record of a profile that was never changed by Harmony: a new one, or one to take over.
        Raise `NotOurs` where it must not be taken over."""
        uuid = profile_uuid(profile.name)
        found = await self._daemon.look(profile.name, uuid, None)
        strangers = list(found.namesakes)
        if found.profile is not None and not found.profile.label:
            strangers.append(uuid)
        if not strangers:
            return NetworkRecord(uuid=uuid, made=True)
        if len(strangers) > 1 or not profile.take_over:
            raise foreign(profile, attrs.evolve(found, namesakes=tuple(strangers)))
        there = (await self._daemon.look(profile.name, strangers[0], None)).profile
        was_up = there is not None and there.use != "down"
        record = NetworkRecord(uuid=strangers[0], made=False, was_up=was_up)
        if apply:
            snapshot = await self._daemon.snapshot(record.uuid)
            await self._backups.keep(profile.id, snapshot)
            await self._records.put(profile.id, record.written)
        return record

    async def _read_backup(self, profile: NetworkProfile, record: NetworkRecord) -> Settings:
        if record.made or not record.wrote:
            return {}
        backup = await self._backups.get(profile.id)
        return self._daemon.settings_in(backup) if backup is not None else {}

    def _tell_what_failed(self, plan: NetworkPlan) -> None:
        """Raise `NetworkFailed` where the last request failed: otherwise it would be repeated over and over,
        and nobody would know."""
        if why := self._use.why_not(plan):
            raise NetworkFailed(
                f"{plan.profile.name} could not be brought up: {why}; "
                "see on the device: journalctl -u NetworkManager"
            )

    def _refuse_a_fight(self, plan: NetworkPlan) -> None:
        """Raise `OwnershipConflict` where another of Harmony's profiles uses the interface: they would
        replace each other for ever."""
        rival = plan.found.interface.uses
        if rival in {"", plan.profile.name}:
            return
        written = self._records.get(resource_id(NetworkProfile.resource_type, rival))
        if written is not None and not NetworkRecord.read(written).left:
            self._use.refuse_a_fight(plan, rival)

    def _group(self, plans: dict[int, NetworkPlan]) -> dict[tuple[int, ...], _Work]:
        """Return which work is to be done with which of *plans*: present trials first, new ones last."""
        trials: defaultdict[str, list[int]] = defaultdict(list)
        direct, risky, waiting = list[int](), list[int](), list[int]()
        for n, plan in plans.items():
            if plan.is_on_trial and plan.record.trial is not None:
                trials[plan.record.trial.checkpoint].append(n)
            elif plan.has_to_wait:
                waiting.append(n)
            else:
                (risky if plan.is_risky else direct).append(n)
        groups = {tuple(numbers): self._trials.settle for numbers in trials.values()}
        todo: dict[tuple[int, ...], _Work] = {**groups}
        if direct:
            todo[tuple(direct)] = self._apply_now
        if risky:
            todo[tuple(risky)] = self._try
        if waiting:
            todo[tuple(waiting)] = self._put_off
        return todo

    async def _put_off(self, plans: Sequence[NetworkPlan]) -> Sequence[_Result]:
        return [plan.put_off(self._use.pending(plan, plan.found)) for plan in plans]

    async def _try(self, plans: Sequence[NetworkPlan]) -> Sequence[_Result]:
        refused = [plan for plan in plans if plan.record.refused == plan.desired.attempt]
        if refused:
            # What it was tried together with is not tried without it.
            told = refused[0].record.refusal
            return [make_rolled_back(plan.id, plan.record.refusal or told) for plan in plans]
        return await self._trials.begin(plans)

    async def _apply_now(self, plans: Sequence[NetworkPlan]) -> Sequence[_Result]:
        results = list[_Result]()
        for plan in plans:
            try:
                results.append(await self._apply_one(plan))
            except Exception as error:  # noqa: BLE001 - one profile's error is that profile's answer
                results.append(error)
        return results

    async def _tidy(self, resource_id: str) -> None:
        """Delete, once, what an agent that was killed right after a trial may have left of it."""
        if resource_id not in self._tidied:
            await self._trials.forget(resource_id)
            self._tidied.add(resource_id)

    async def _apply_one(self, plan: NetworkPlan) -> _Result:
        await self._tidy(plan.id)
        if plan.proves_itself:
            return await self._trials.prove_by_use(plan)
        steps = plan.steps
        if steps:
            await self._records.put(plan.id, plan.record.written)
        if steps.create:
            await self._daemon.add(
                plan.uuid, plan.profile.name, steps.write, plan.secrets, keep=True
            )
        elif steps.changed or steps.keep:
            await self._daemon.change(plan.uuid, steps.write, plan.secrets, keep=True)
        await self._use.bring_up(plan)
        await self._records.put(plan.id, plan.wrote.written)
        if not steps:
            return plan.change(plan.found, self._use.pending(plan, plan.found))
        found = await self._daemon.look(plan.profile.name, plan.uuid, plan.profile.interface)
        if steps.create or steps.changed or steps.keep:
            error = plan.find_what_did_not_stick(found, steps.write, on_disk=True)
            if error is not None:
                return error
        return plan.change(found, self._use.pending(plan, found))


async def _answers(work: _Work, plans: Sequence[NetworkPlan]) -> Sequence[_Result]:
    """Return the answers of *work*. If it raises an error, return that for every plan, as where the daemon
    could not be asked."""
    try:
        return await work(plans)
    except CapabilityError as error:
        return [copy.copy(error) for _ in plans]
