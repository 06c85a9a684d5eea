"""Containers, reconciled over podman's REST socket.

    observe (`_look`)    ours, absent, or a stranger's; the files that it uses, its mounts, its hold
    plan    (`.plan`)    create, recreate or start -> a dry run ends here
    apply                ports free? -> fetch the image -> make it in the place of the old one
    check   (`.in_force`, `.health`)  as asked? settled and ready? the answer is what podman says then

A container is recognised by its labels, and by them it is decided whether it is what is desired. One that
is not is made anew, and what can go wrong goes wrong while the old one still runs. Everything else that
must be known later is podman's own knowledge, or in the `Records`: which images are here because we
fetched them, which one a container has, and which it last ran well with.

A call cut short at any point is made whole by the next one, since nothing but what is there counts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import attrs

from harmony_core.assets import Assets
from harmony_core.change import Change, NotReady
from harmony_core.container_turns import ContainerTurns
from harmony_core.errors import (
    CapabilityError,
    ContainerFailed,
    ContainerNetworkMissing,
    MountMissing,
    NotOurs,
    UnsafePath,
    VolumeMissing,
)
from harmony_core.logs import LogLine
from harmony_core.nearby import NearbyImages
from harmony_core.reconciler import Availability, MemoryRecords, OnChange, Records
from harmony_core.resources import (
    Completed,
    Container,
    ContainerState,
    Exited,
    Mount,
    Running,
    Starting,
    resource_id,
)
from harmony_core.secret_values import SecretValues
from harmony_core.steps import Removed, Renamed, Step
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.gather import gather_results, name_resource
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.common.liveness import LIVENESS_EVERY_S, Liveness
from harmony_pi_topology.common.mounted import MountGuard
from harmony_pi_topology.common.path_calls import PATIENCE_S, PathCalls

from .attachments import describe_networks, list_volume_mounts, require_attachments
from .devices import NO_DEVICES, DevicesLook, look_at_devices
from .exit_watcher import OpenProcess
from .health import HealthCheck
from .holds import ContainerHolds
from .image_pull import ImagePulls
from .images import ContainerImages
from .in_force import ContainerShortfalls, find_unmet, make_shortfall
from .logs import read_logs
from .mounts import (
    NO_MOUNTS,
    MountsLook,
    find_replaced_volumes,
    look_at_mounts,
    sees_any_source,
)
from .plan import ContainerSteps, plan_removal, plan_steps
from .podman import DEFAULT_URL, Podman
from .podman_reply import ENDED, FoundContainer
from .ports import BindPort, ContainerPorts, bind_port
from .published import PublishedPorts
from .quiet import find_quiet
from .records import ContainerRestarts
from .replacement import ContainerReplacement
from .secret_store import ContainerSecrets
from .spec import (
    RESOURCE_LABEL,
    DesiredContainer,
    has_completed,
    max_hold_s,
    resolve_desired,
)
from .stops import ContainerStops
from .used_files import hash_used_files
from .watch import ContainerWatcher

_END_LOOK_AGAIN_S = 0.05
_REST_LOOK_AGAIN_S = 1.0


@attrs.frozen(kw_only=True)
class _Look:
    """What is wished for, what is there, and what follows from that."""

    desired: DesiredContainer
    found: FoundContainer | None
    steps: ContainerSteps
    held: NotReady | None
    """Why not now."""
    mounts: MountsLook
    devices: DevicesLook
    renamed: tuple[Step, ...]
    """That it has got its name back."""
    left: tuple[Step, ...]
    """Which secrets are removed that something cut short has left in podman's store."""

    @property
    def problem(self) -> CapabilityError | None:
        """The reason why it cannot be made as desired. What is unsafe comes before what is missing."""
        return self.mounts.problem or self.devices.problem


class PodmanContainers:
    """A `Reconciler` of `Container`.

    ``root`` is where the device's files are read (what containers use and mount), ``probe_address``
    where its published ports are, ``open_process`` how its processes are found, ``bind`` how a port
    is tried, and ``journal`` where some have their logs: others than the defaults when it is looked at
    from outside. A file system that does not answer for *patience_s* is left alone until it does, and no
    container that has nothing on it is kept waiting.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        records: Records | None = None,
        root: str | Path = "/",
        probe_address: str = "127.0.0.1",
        answer_within_s: float = 60.0,
        patience_s: float = PATIENCE_S,
        open_process: OpenProcess = os.pidfd_open,
        bind: BindPort = bind_port,
        secret_values: SecretValues | None = None,
        nearby_images: NearbyImages | None = None,
        turns: ContainerTurns | None = None,
        assets: Assets | None = None,
        journal: Journal | None = None,
        liveness_every_s: float = LIVENESS_EVERY_S,
    ) -> None:
        records = records if records is not None else MemoryRecords()
        self._records = records
        self._podman = Podman(url, answer_within_s=answer_within_s)
        self._root = Path(root)
        self._files = PathCalls("container files", str(root), patience_s=patience_s)
        self._guard = MountGuard("/", records, device=self._root, follows=True)
        self._pulls = ImagePulls(self._podman, records, nearby_images, assets, root=self._root)
        self._images = ContainerImages(self._podman, records)
        self._restarts = ContainerRestarts(records)
        self._liveness = Liveness(liveness_every_s)
        self._checks = Liveness(liveness_every_s)
        self._journal = journal or Journal()
        self._health = HealthCheck(
            self._podman,
            journal=self._journal,
            probe_address=probe_address,
            liveness=self._liveness,
            checks=self._checks,
        )
        self._shortfalls = ContainerShortfalls(records)
        self._holds = ContainerHolds(self._podman, self._root, self._files)
        self._stops = ContainerStops(self._podman)
        self._secrets = ContainerSecrets(self._podman, records, secret_values or SecretValues())
        self._replacement = ContainerReplacement(
            self._podman,
            self._images,
            self._holds,
            self._stops,
            self._secrets,
            self._root,
            self._files,
        )
        self._ports = ContainerPorts(self._podman, self._files, bind)
        self._published = PublishedPorts(self._root, self._files, probe_address)
        self._watcher = ContainerWatcher(str(root), open_process)
        self._turns = turns or ContainerTurns()

    @property
    def resource_class(self) -> type[Container]:
        return Container

    async def converge(
        self, resources: Sequence[Container], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. Trouble with one container only delays the others."""
        results = await gather_results(resources, partial(self._converge, apply=apply))
        return [
            name_resource(result, each.id) for each, result in zip(resources, results, strict=True)
        ]

    async def prepare(self, resources: Sequence[Container]) -> None:
        """Check that the ports of *resources* are free, and fetch their images."""
        await asyncio.gather(*map(self._prepare, resources))

    async def observe(self, key: str) -> ContainerState | None:
        found = await self._inspect(key)
        return self._state(found, key) if found is not None else None

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        results = await gather_results(keys, partial(self._remove, apply=apply))
        return [name_resource(result, _id(key)) for key, result in zip(keys, results, strict=True)]

    async def availability(self) -> Availability:
        """Return whether podman is available. Ask podman itself only when it did not answer the last time."""
        await self._watcher.mend()
        self._pulls.clear()
        reason = await self._podman.is_expected_to_answer()
        return Availability(available=reason is None, reason=reason or "")

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch as `Reconciler.watch` describes: report that a container ends, that it stops answering, and
        that a file it uses changes. For a container that does not run, report only changes of its files."""
        self._liveness.watch(keys, on_change)
        self._checks.watch(keys, on_change)
        await asyncio.gather(*map(self._inspect, await self._watcher.watch(keys, on_change)))

    async def logs(
        self, key: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> Sequence[LogLine]:
        """Return log lines as `Logged.logs` describes. Raise `NotOurs` for a container that Harmony did not
        make. For a container that was made anew, return its own output, and from the journal that of those
        before it."""
        found, _ = await self._ours(key, apply=False)
        if found is None:
            return []
        if found.logs_to_journal:
            return await self._journal.container_lines(
                key, found.id, lines=lines, since=since, after=after
            )
        return await read_logs(self._podman, found.id, lines=lines, since=since, after=after)

    async def find_hold(self, key: str) -> NotReady | None:
        if not await self._holds.asks(key):
            return None
        found = await self._inspect(key)
        return await self._holds.find_hold(found, key) if found is not None else None

    async def release(self, key: str) -> bool:
        if await self.find_hold(key) is None:
            return False
        self._holds.release(key)
        return True

    async def close(self) -> None:
        """Cancel what is being fetched, and close as `Reconciler.close` describes."""
        await self._liveness.close()
        await self._checks.close()
        await self._watcher.close()
        await self._guard.close()
        await self._pulls.close()
        self._podman.close()
        self._files.close()

    async def _converge(self, container: Container, *, apply: bool) -> Change:
        async with self._turns.take([container.name]):
            look = await self._look(container, apply=apply)
            change = await self._bring_about(look, apply=apply)
            if apply:
                await self._replacement.clear_secrets(container)
            return attrs.evolve(change, steps=(*look.renamed, *change.steps, *look.left))

    async def _bring_about(self, look: _Look, *, apply: bool) -> Change:
        if not apply:
            return await self._foresee(look)
        container, found = look.desired.container, look.found
        if look.problem is not None:
            raise await self._refuse(look.problem, container, found)
        if look.steps and look.held is None:
            if look.steps.make is not None:
                await require_attachments(self._podman, container)
            await self._ports.check(container, apply=True)
            await self._ports.check_ipv6(container)
        if look.held is not None:
            before = self._state(found, container.name) if found is not None else None
            after = before or Starting(image=look.desired.image)
            return Change(resource=container.id, before=before, after=after, pending=look.held)
        return await self._apply_one(look)

    async def _foresee(self, look: _Look) -> Change:
        """Return what would be done, and the error that it would fail with as the device is now."""
        container, found = look.desired.container, look.found
        doubt = look.problem
        if look.steps and look.held is None:
            if look.steps.make is not None and doubt is None:
                try:
                    await require_attachments(self._podman, container)
                except (VolumeMissing, ContainerNetworkMissing, ContainerFailed) as error:
                    doubt = error
            await self._ports.check(container, apply=False)
        unmet = find_unmet(container, found, look.devices.inside) if found is not None else {}
        planned = self._plan_one(look.desired, found, look.steps, look.held, unmet)
        return attrs.evolve(planned, doubt=doubt)

    async def _prepare(self, container: Container) -> None:
        async with self._turns.take([container.name]):
            look = await self._look(container, apply=False)
            if not look.steps or look.held is not None:
                return
            await self._ports.check(container, apply=False)
            if (pending := await self._fetch_image(look.desired, look.steps)) is not None:
                raise pending

    async def _look(self, container: Container, *, apply: bool) -> _Look:
        container = self._secrets.call_as_in_force(container)
        found, called = await self._ours(container.name, apply=apply)
        pid = found.pid if found is not None and found.running else None
        await self._require_mounts(container, found, pid, apply=apply)
        used, mounts, devices = await self._read(container, found, pid)
        self._watcher.note(container, (*mounts.watched, *devices.watched))
        contents = {**mounts.contents, **devices.contents, **used}
        desired = resolve_desired(container, contents, devices.paths)
        steps = await self._plan_steps(desired, found, mounts, devices)
        quiet = find_quiet(self._records, container) or self._find_rest(container)
        held = (quiet or await self._find_hold(container.name, found)) if steps else None
        renamed = (Renamed(called),) if called is not None else ()
        left = sorted(self._secrets.find_left(container, found))
        return _Look(
            desired=desired,
            found=found,
            steps=steps,
            held=held,
            mounts=mounts,
            devices=devices,
            renamed=renamed,
            left=tuple(Removed(f"podman secret {each}") for each in left),
        )

    def _find_rest(self, container: Container) -> NotReady | None:
        """Return why *container* must be left alone now: what it depends on is being made anew; None where it
        need not be."""
        keeper = self._turns.find_keeper(container.name)
        if keeper is None:
            return None
        return NotReady(
            f"{container.name} waits until {keeper} is made anew",
            resource=container.id,
            reason="Progressing",
            look_again_s=_REST_LOOK_AGAIN_S,
        )

    async def _require_mounts(
        self, container: Container, found: FoundContainer | None, pid: int | None, *, apply: bool
    ) -> None:
        """Raise `MountMissing` unless everything that *container* uses or mounts is on the same disk as
        before.

        Leave a container that runs on that disk alone: the kernel keeps the disk for it. Stop one that podman
        has started by itself on what lies beneath the mount point.
        """
        sources = [mount.source for mount in container.mounts]
        paths = [f"{path}/" for path in (*container.uses, *sources)]
        if not paths:
            return
        missing = await self._guard.missing_of(container.id, paths)
        if not missing:
            if apply:
                await self._guard.remember({container.id: paths})
            return
        self._watcher.note(container, [path.rstrip("/") for path in missing])
        error = next(iter(missing.values()))
        if not apply or found is None:
            raise error
        away = [mount for mount in container.mounts if f"{mount.source}/" in missing]
        is_beneath = pid is not None and await self._files.run(
            sees_any_source, away, self._root, pid
        )
        told = await self._end(container, found) if is_beneath or not found.alive else ""
        raise MountMissing(f"{error.message}{told}", point=error.point, resource=container.id)

    async def _refuse(
        self, problem: CapabilityError, container: Container, found: FoundContainer | None
    ) -> CapabilityError:
        """Return *problem*, because of which *container* cannot be started as desired. Stop *found* where its
        mounts are not safe."""
        if not isinstance(problem, UnsafePath) or found is None:
            return problem
        told = await self._end(container, found)
        return UnsafePath(f"{problem.message}{told}", resource=container.id)

    async def _end(self, container: Container, found: FoundContainer) -> str:
        """Stop *found*, unless it is at rest, so that podman does not start it by itself with whatever lies
        there then. Return the words about it for the message."""
        is_at_rest = found.status == "created" or found.stopped_by_user or container.restart == "no"
        if not found.alive and is_at_rest:
            return ""
        if await self._stops.end(found):
            return ". Until then it is stopped"
        return ". It could not be stopped; that is tried again"

    async def _fetch_image(
        self, desired: DesiredContainer, steps: ContainerSteps
    ) -> NotReady | None:
        """Fetch the image, if *steps* say so. Return what is waited for; None once the image is here."""
        container = desired.container
        self._pulls.leave(container.name, but=desired.image if steps.pull else None)
        if not steps.pull:
            await self._pulls.keep_nothing(desired.image, of=container)
            return None
        # Before it is fetched, so that it also goes where no container is ever made from it.
        await self._images.record_chosen(container.name, desired.image)
        login = self._secrets.reveal_login(container)
        return await self._pulls.ask(desired.image, for_=container, login=login)

    async def _find_hold(self, name: str, found: FoundContainer | None) -> NotReady | None:
        return await self._holds.find_hold(found, name) if found is not None else None

    async def _read(
        self, container: Container, found: FoundContainer | None, pid: int | None
    ) -> tuple[dict[str, str], MountsLook, DevicesLook]:
        """Return the hashes of the files that *container* uses, and the state of its mounts, those of volumes
        included, and of its devices."""
        if not (container.uses or container.mounts or container.volumes or container.devices):
            return {}, NO_MOUNTS, NO_DEVICES
        volumes = list_volume_mounts(container, found)
        return await self._files.run(_read, container, volumes, self._root, pid)

    async def _plan_steps(
        self,
        desired: DesiredContainer,
        found: FoundContainer | None,
        mounts: MountsLook,
        devices: DevicesLook,
    ) -> ContainerSteps:
        """Plan from what was found. Ask podman for the image only where a container is to be made."""
        has_just_failed = found is not None and self._health.has_just_failed(
            found, desired.container
        )
        is_running = found is not None and found.running and not found.is_cut_off
        steps = plan_steps(
            desired,
            found,
            mounts.replaced,
            altered=self._find_altered(desired.container, found, devices)
            | {f"podman secret {each}" for each in await self._secrets.find_altered(found)},
            dead_ports=await self._published.find_dead(desired.container, found)
            if found is not None and is_running
            else frozenset(),
            has_just_failed=has_just_failed,
        )
        if steps.make is None:
            return steps
        asked = self._pulls.is_asked_for(desired.image, by=desired.container.name)
        is_here = not asked and await self._podman.has_image(desired.image)
        return attrs.evolve(steps, pull=not is_here)

    def _find_altered(
        self, container: Container, found: FoundContainer | None, devices: DevicesLook
    ) -> frozenset[str]:
        """Return the fields that were as desired when *found* was made, and are not any more."""
        if found is None:
            return frozenset()
        unmet = find_unmet(container, found, devices.inside)
        return self._shortfalls.find_altered(found, unmet)

    def _plan_one(
        self,
        desired: DesiredContainer,
        found: FoundContainer | None,
        steps: ContainerSteps,
        held: NotReady | None,
        unmet: Mapping[str, str],
    ) -> Change:
        name = desired.container.name
        before = self._state(found, name) if found is not None else None
        now = rfc3339(datetime.now(UTC))
        expected: ContainerState = (
            Completed(since=now, image=desired.image)
            if desired.container.runs == "once"
            else Running(since=now, restarts=0, image=desired.image, health="unprobed")
        )
        return Change(
            resource=desired.container.id,
            steps=steps.in_order,
            before=before,
            after=expected if steps else before,
            pending=held
            if steps or found is None
            else _shortfall(desired.container, unmet)
            or self._health.unproven(found, desired.container),
        )

    async def _apply_one(self, look: _Look) -> Change:
        desired, found, steps = look.desired, look.found, look.steps
        container = desired.container
        before = self._state(found, container.name) if found is not None else None
        if (fetching := await self._fetch_image(desired, steps)) is not None:
            after = before or Starting(image=desired.image)
            return Change(resource=container.id, before=before, after=after, pending=fetching)
        now = await self._apply_steps(desired, found, steps)
        if isinstance(now, NotReady):
            return Change(resource=container.id, before=before, after=before, pending=now)
        unmet = find_unmet(container, now, look.devices.inside)
        if found is None or now.id != found.id:
            await self._shortfalls.record(now, unmet)
        pending = await self._pending(desired, now, unmet, just_started=bool(steps))
        return Change(
            resource=container.id,
            steps=steps.in_order,
            before=before,
            after=self._state(now, container.name),
            pending=pending,
        )

    async def _apply_steps(
        self, desired: DesiredContainer, found: FoundContainer | None, steps: ContainerSteps
    ) -> FoundContainer | NotReady:
        """Carry out *steps*, except the pull. Return the container, or what it waits for if that takes
        longer."""
        container = desired.container
        if found is not None and not steps:
            await self._leave_alone(found)
            return found
        if found is not None and steps.only_starts:
            await self._leave_alone(found)
            if found.status in ENDED:
                await self._restarts.record_restart(found)
            await self._podman.start(found.id, container.name, paused=found.status == "paused")
        elif found is not None and steps.republish:
            await self._leave_alone(found)
            await self._publish_anew(container, found)
        elif (pending := await self._replacement.make(desired, found)) is not None:
            return pending
        now = await self._inspect(container.name)
        if now is None:
            raise ContainerFailed("somebody else removed it meanwhile; it is made again")
        if found is not None and found.status in ENDED and steps.only_starts:
            await self._restarts.record_start(found, now)
        return now

    async def _publish_anew(self, container: Container, found: FoundContainer) -> None:
        """Publish the ports of *container* again. Raise `ContainerFailed` where they still lead nowhere
        afterwards."""
        if container.networks:
            await self._podman.reconnect(found.id, describe_networks(container))
        else:
            await self._podman.reconnect(found.id)
        if dead := await self._published.find_dead(container, found):
            raise ContainerFailed(
                f"port {', '.join(map(str, sorted(dead)))} of the device does not lead into "
                f"{container.name}, also after podman has published it anew; look at what else changes "
                "the rules of the firewall: nft list ruleset",
                resource=container.id,
            )

    async def _leave_alone(self, found: FoundContainer) -> None:
        """Keep *found*: cancel a stop or a replacement of it that was begun."""
        self._stops.forget(found)
        await self._replacement.clear(found.name)

    async def _pending(
        self,
        desired: DesiredContainer,
        now: FoundContainer,
        unmet: Mapping[str, str],
        *,
        just_started: bool,
    ) -> NotReady | None:
        """Return what *now* still waits for; None where it has converged. Raise its failure, or the error
        that reports *unmet*; with *just_started*, leave that to the next look, so that this one reports what
        was done."""
        container = desired.container
        if has_completed(now):
            self._health.forget(container.name)
            await self._images.record_converged(container.name, desired.image)
            return None
        if unmet and just_started:
            return NotReady(
                f"{container.name} was started, and is looked at once more",
                resource=container.id,
                look_again_s=_END_LOOK_AGAIN_S,
            )
        if unmet:
            raise make_shortfall(container, unmet)
        if just_started and not now.running:
            return NotReady(
                f"{container.name} was started and has ended",
                resource=container.id,
                look_again_s=_END_LOOK_AGAIN_S,
            )
        pending = await self._health.evaluate(now, container)
        if pending is None:
            await self._images.record_converged(container.name, desired.image)
        return pending

    async def _remove(self, name: str, *, apply: bool) -> Change:
        async with self._turns.take([name]):
            found, _ = await self._ours(name, apply=apply)
            before = self._state(found, name) if found is not None else None
            steps = plan_removal(found)
            held = await self._find_hold(name, found)
            if held is not None:
                return Change(
                    resource=_id(name),
                    steps=() if apply else steps,
                    before=before,
                    after=before if apply else None,
                    pending=held,
                )
            if apply:
                self._pulls.leave(name)
                if found is not None and (pending := await self._stops.stop(found)) is not None:
                    return Change(resource=_id(name), before=before, after=before, pending=pending)
                self._health.forget(name)
                self._watcher.forget(name)
                self._published.forget(name)
                await self._replacement.clear(name, anew=True)
                if found is not None:
                    await self._podman.remove(found.id)
                    if max_hold_s(found.labels) is not None:
                        await self._holds.forget(name)
                await self._restarts.forget(name)
                await self._shortfalls.forget(name)
                await self._secrets.forget(name, found)
                await self._guard.forget(_id(name))
                await self._images.record_gone(name, found.image if found is not None else None)
            return Change(resource=_id(name), steps=steps, before=before)

    async def _inspect(self, name: str) -> FoundContainer | None:
        found = await self._podman.inspect(name)
        self._holds.note_found(name, found)
        if found is not None:
            self._watcher.note_found(found)
        return found

    async def _ours(self, name: str, *, apply: bool) -> tuple[FoundContainer | None, str | None]:
        """Return the container *name*, and the name that it had, if somebody had renamed it. Raise `NotOurs`
        where Harmony did not make it."""
        found, called = await self._inspect(name), None
        if found is None and (called := await self._replacement.find_renamed(name)) is not None:
            found = await self._podman.inspect(called)
            if found is not None and apply:
                await self._podman.rename(found.id, name)
                found = await self._inspect(name)
            elif found is not None:
                found = attrs.evolve(found, name=name)
        if found is not None and found.labels.get(RESOURCE_LABEL) != _id(name):
            raise NotOurs(
                f"a container {name} is there that Harmony did not make; "
                f"remove it (podman rm {name}), or choose another name"
            )
        return found, called if found is not None else None

    def _state(self, found: FoundContainer, name: str) -> ContainerState:
        match found.status:
            case "running":
                return Running(
                    since=rfc3339(found.started_at),
                    restarts=self._restarts.count(found),
                    image=found.image,
                    health=self._health.health(found, name),
                )
            case "created" | "initialized" | "configured":
                return Starting(image=found.image)
            case _ if has_completed(found):
                return Completed(since=rfc3339(found.finished_at), image=found.image)
            case _:
                restarts = self._restarts.count(found)
                return Exited(exit_code=found.exit_code, restarts=restarts, image=found.image)


def _read(
    container: Container, volumes: Mapping[str, Mount], root: Path, pid: int | None
) -> tuple[dict[str, str], MountsLook, DevicesLook]:
    mounts = look_at_mounts(container, root, pid)
    if pid is not None and (gone := find_replaced_volumes(volumes, root, pid)):
        told = {f"the data of volume {name}" for name in gone}
        mounts = attrs.evolve(mounts, replaced=mounts.replaced | told)
    return hash_used_files(container, root), mounts, look_at_devices(container, root)


def _shortfall(container: Container, unmet: Mapping[str, str]) -> NotReady | None:
    """Return what a dry run knows to be wrong, from *unmet*; None where nothing is."""
    if not unmet:
        return None
    return NotReady(make_shortfall(container, unmet).message, resource=container.id)


def _id(name: str) -> str:
    return resource_id(Container.resource_type, name)
