"""Containers in memory: what a Score sees of a container runtime, and what happens behind its back.

Passes the same `ContainerRuntimeContract` as the real one. Time stands still unless `pass_time` is
called; with ``patient=True`` (the default) a container's own settling is waited for within `converge`, so
that a Score converges at its first interpretation. What a container does is decided by its command::

    containers = FakeContainers()
    containers.programs[("crash",)] = Program(exit_code=3, log=("out of cheese",))
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import Literal

import attrs

from harmony_core.change import Change, NotReady, Progress
from harmony_core.errors import (
    CapabilityError,
    ContainerFailed,
    ContainerNetworkMissing,
    HardwareMissing,
    ImageNotFound,
    NotOurs,
    NotReadyInTime,
    PortTaken,
    RegistryUnreachable,
    VolumeMissing,
)
from harmony_core.holds import read_hold
from harmony_core.images import parse_image
from harmony_core.resources import (
    Completed,
    Container,
    ContainerState,
    Exited,
    HealthCheck,
    Running,
    Starting,
    resource_id,
)
from harmony_core.secret_values import SecretValues
from harmony_core.steps import (
    Created,
    KeptVolume,
    Pulled,
    Recreated,
    Removed,
    Renamed,
    Started,
    Step,
    Stopped,
)
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.gather import name_resource
from harmony_pi_topology.common.log_tail import log_tail
from harmony_pi_topology.containers.hold_clock import HoldClock, WrittenHold
from harmony_pi_topology.containers.podman_reply import FoundNetwork, FoundVolume
from harmony_pi_topology.containers.secret_store import call_as_in_force, find_secret_texts
from harmony_pi_topology.containers.spec import (
    ABSENT,
    RESOURCE_LABEL,
    DesiredContainer,
    is_followed,
    max_hold_s,
    resolve_desired,
    runs_once,
)

from .fake_files import FakeFiles, FileContents
from .fake_reconciler import FakeReconciler

__all__ = ["FakeAttachments", "FakeContainers", "Program"]

Health = Literal["healthy", "starting", "unhealthy", "unprobed"]
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Program:
    """What a container does that runs a certain command."""

    exit_code: int | None = None
    """Ends with this code; None runs on."""
    runs_for_s: float = 0.0
    """When it ends, counted from its start."""
    log: tuple[str, ...] = ()
    """Lines that it writes at each start."""
    ready_after_s: float = 0.0
    """From when on its readiness probe succeeds, counted from its start."""
    deaf: bool = False
    """Goes on when it is asked to end, until it is killed."""
    healthy_after_s: float = 0.0
    """From when on its health check succeeds, counted from its start."""


@attrs.define(kw_only=True)
class _Made:
    """A container that is there."""

    id: str
    labels: dict[str, str]
    image: str
    ports: frozenset[int]
    program: Program
    volumes: dict[str, str] = attrs.Factory(dict[str, str])
    networks: set[str] = attrs.Factory(set[str])
    secrets: dict[str, str] = attrs.Factory(dict[str, str])
    """The ids of its secrets, by name."""
    environment: dict[str, str] = attrs.field(factory=dict[str, str], repr=False)
    secret_files: dict[str, str] = attrs.field(factory=dict[str, str], repr=False)
    """What is in them, by where it sees them."""
    restarts_itself: bool
    stop_timeout_s: int = 10
    asked_to_end_s: float | None = None
    stopped_by_user: bool = False
    restarts: int = 0
    started_s: float | None = None
    running: bool = False
    end_told: bool = True
    """Whether that it ended is known, so that the next look starts it again."""
    health: Health = "unprobed"
    log: list[str] = attrs.Factory(list[str])


@attrs.define(kw_only=True)
class _Kept:
    """The images that a container keeps on the device."""

    image: str
    converged: bool = False
    last_good: str | None = None
    next: str | None = None

    @property
    def all(self) -> set[str]:
        images = (self.image, self.last_good, self.next)
        return {image for image in images if image is not None}


class _Device:
    """Everything that is lost with the device's disk."""

    def __init__(self) -> None:
        self.made: dict[str, _Made] = {}
        self.images: set[str] = set()
        self.pulled: set[str] = set()
        self.pulls: dict[str, int] = {}
        self.kept: dict[str, _Kept] = {}
        self.volumes: set[str] = set()
        self.secrets: dict[str, str] = {}
        """Their ids, by name."""


def _tell_nobody(_: str) -> None: ...


class FakeAttachments:
    """The volumes and networks of a device that have names of their own, and who is on which."""

    def __init__(self) -> None:
        self.volumes: dict[str, FoundVolume] = {}
        self.networks: dict[str, FoundNetwork] = {}
        self.made: dict[str, _Made] = {}
        """The containers of the device."""
        self.on_end: Callable[[str], None] = _tell_nobody

    def users_of_volume(self, name: str) -> list[str]:
        """Return the names of the containers that have it."""
        return sorted(each for each, made in self.made.items() if name in made.volumes.values())

    def users_of_network(self, name: str) -> dict[str, bool]:
        """Return the names of the containers that are on it, and whether each is ours."""
        return {
            each: RESOURCE_LABEL in made.labels
            for each, made in self.made.items()
            if name in made.networks
        }

    def take_off(self, container: str, network: str) -> None:
        """End *container*, and take it off *network*."""
        made = self.made[container]
        was_running, made.running = made.running, False
        made.networks.discard(network)
        if was_running:
            self.on_end(container)

    def require(self, container: Container) -> None:
        """Raise for the first volume or network that *container* names in vain."""
        for volume in container.volumes:
            if volume.volume not in self.volumes:
                raise VolumeMissing(f"volume {volume.volume} is not there; push a VolumeScore")
        for each in container.networks:
            if each.network not in self.networks:
                raise ContainerNetworkMissing(
                    f"network {each.network} is not there; push a ContainerNetworkScore"
                )


class FakeContainers(FakeReconciler):
    """A `ContainerRuntime`'s reconciler over a dictionary.

    ``faults[name]`` is an error with which everything about that container is answered. An image's pull
    is looked at ``looks_at_a_pull`` times before it is done.
    """

    def __init__(self, *, patient: bool = True) -> None:
        super().__init__()
        self.faults: dict[str, Exception] = {}
        self.programs: dict[tuple[str, ...], Program] = {}
        self.missing_images: set[str] = set()
        self.unreachable_registries: set[str] = set()
        self.logins: dict[str, tuple[str, str]] = {}
        """Name and password that a registry wants."""
        self.image_volumes: dict[str, tuple[str, ...]] = {}
        """The paths at which an image brings volumes."""
        self.image_labels: dict[str, dict[str, str]] = {}
        """What an image says: a container has of it what it does not say itself."""
        self.devices: dict[str, str] = {}
        """Nodes below /dev that there are, by their paths: kind and numbers, as in ``c 188:0``."""
        self.secret_values = SecretValues()
        """What the words stand for that are in containers in place of secrets."""
        self.looks_at_a_pull = 0
        self._patient = patient
        self._now_s = 0.0
        self._ids = itertools.count(1)
        self._held_ports: set[int] = set()
        self._uses: dict[str, tuple[str, ...]] = {}
        self.files = FakeFiles().contents
        self._device = _Device()
        self.attachments = FakeAttachments()
        """The volumes and networks of this device: those of `FakeVolumes` and `FakeContainerNetworks`."""
        self.attachments.made = self._device.made
        self.attachments.on_end = self._watch.tell
        self._holds: dict[str, WrittenHold] = {}
        self._hold_clock = HoldClock(monotonic_s=lambda: self._now_s, now=self._now)

    @property
    def files(self) -> MutableMapping[str, bytes]:
        """Those that containers use or mount. A mount's source is there when a file below it is. May be
        replaced by those of another fake, or by a dictionary, of which no change is told."""
        return self._files

    @files.setter
    def files(self, files: MutableMapping[str, bytes]) -> None:
        self._files = files
        if isinstance(files, FileContents):
            files.listen(self._hear_file)

    @property
    def resource_class(self) -> type[Container]:
        return Container

    async def converge(
        self, resources: Sequence[Container], *, apply: bool
    ) -> Sequence[Change | Exception]:
        self._end_what_is_due()
        return [
            _answer_one(partial(self._converge_one, each, apply=apply), each.id)
            for each in resources
        ]

    async def prepare(self, resources: Sequence[Container]) -> None:
        for each in resources:
            self._prepare(each)

    async def observe(self, key: str) -> ContainerState | None:
        self._fault(key)
        self._end_what_is_due()
        made = self._device.made.get(key)
        return self._state(made) if made is not None else None

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [
            _answer_one(partial(self._remove_one, each, apply=apply), _id(each)) for each in keys
        ]

    async def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, for the containers."""
        self._now_s += seconds
        self._end_what_is_due()

    def write(self, path: str, content: bytes) -> None:
        """Write a file on the device, as a bystander would."""
        self.files[path] = content

    async def make_strange(self, name: str) -> None:
        """Make a container of this name, as a bystander would, and start it."""
        self._device.made[name] = self._start(
            _Made(
                id=self._next_id(),
                labels={},
                image="localhost/theirs:1",
                ports=frozenset(),
                program=Program(),
                restarts_itself=False,
            )
        )

    def make_beside(
        self, name: str, *, ours: bool, volume: str | None = None, network: str | None = None
    ) -> None:
        """Make a container that has *volume* or is on *network*, as somebody else would, or with *ours* as
        Harmony would, and do not start it."""
        self._device.made[name] = _Made(
            id=self._next_id(),
            labels={RESOURCE_LABEL: _id(name)} if ours else {},
            image="localhost/theirs:1",
            ports=frozenset(),
            program=Program(),
            volumes={} if volume is None else {"/data": volume},
            networks=set() if network is None else {network},
            restarts_itself=False,
        )

    async def kill(self, name: str) -> None:
        """Kill the container's process; the runtime does what its restart policy says."""
        made = self._device.made[name]
        made.running = False
        made.end_told = True
        if made.restarts_itself:
            self._start(made)
            made.restarts += 1
        self._watch.tell(name)

    async def stop(self, name: str) -> None:
        """Stop a container, as a bystander would."""
        self._device.made[name].running = False
        self._device.made[name].stopped_by_user = True
        self._device.made[name].end_told = True
        self._watch.tell(name)

    async def delete(self, name: str) -> None:
        """Remove a container by force, as a bystander would."""
        self._remove_container(name)

    async def rename(self, name: str, other: str) -> None:
        """Rename a container, as a bystander would."""
        self._device.made[other] = self._device.made.pop(name)

    async def identity(self, name: str) -> tuple[str, str] | None:
        """Return the container's id and when it was started: both stay when nothing is done. None when there
        is none."""
        made = self._device.made.get(name)
        return (made.id, str(made.started_s)) if made is not None else None

    async def has_image(self, image: str) -> bool:
        return parse_image(image).pull in self._device.images

    async def volume(self, name: str, target: str) -> str | None:
        """Return which volume a container sees at *target*."""
        return self._device.made[name].volumes.get(target)

    async def has_volume(self, volume: str) -> bool:
        return volume in self._device.volumes

    async def read_inside(self, name: str, path: str) -> str:
        """Return what the container sees in the file of a secret."""
        return self._device.made[name].secret_files[path]

    async def read_environment(self, name: str, variable: str) -> str | None:
        """Return what the container has in *variable*; None where it has none."""
        return self._device.made[name].environment.get(variable)

    async def tell_all(self, name: str) -> str:
        """Return all that is reported of the container."""
        return repr(self._device.made[name])

    async def list_secrets(self) -> Sequence[str]:
        """Return the names of the secrets that are kept for containers."""
        return sorted(self._device.secrets)

    async def make_secret(self, name: str, value: str) -> None:  # noqa: ARG002 - nobody reads it
        """Make a secret, as a bystander would."""
        self._device.secrets[name] = self._next_id()

    async def delete_secret(self, name: str) -> None:
        """Delete a secret, as a bystander would."""
        del self._device.secrets[name]

    async def find_hold(self, key: str) -> NotReady | None:
        made = self._device.made.get(key)
        return self._find_hold(key, made) if made is not None else None

    async def release(self, key: str) -> bool:
        if await self.find_hold(key) is None:
            return False
        self._hold_clock.release(_id(key))
        return True

    async def plug_in(self, path: str, numbers: str) -> None:
        """Make a device appear as the node *path*, with these *numbers*, as in ``c 188:0``."""
        self.devices[path] = numbers
        self._hear_file(path)

    async def unplug(self, path: str) -> None:
        """Make the device at *path* disappear."""
        self.devices.pop(path, None)
        self._hear_file(path)

    async def write_hold(self, name: str, data: bytes | None) -> None:
        """Write the container's hold, as the program in it would; with None remove the hold."""
        hold = read_hold(data) if data is not None else ""
        if isinstance(hold, str):
            self._holds.pop(name, None)
        else:
            self._holds[name] = WrittenHold(hold=hold, writing=object(), written_at=self._now())
        self._watch.tell(name)

    async def hold_port(self, port: int) -> None:
        """Occupy the port, as another process on the device would."""
        self._held_ports.add(port)

    async def free_port(self, port: int) -> None:
        """Free the port."""
        self._held_ports.discard(port)

    def forget_everything(self) -> None:
        """Replace the disk by an empty one."""
        for name in list(self._device.made):
            self._remove_container(name)
        self._device = _Device()
        self.attachments.made = self._device.made
        self.attachments.volumes.clear()
        self.attachments.networks.clear()

    def _remove_container(self, name: str) -> None:
        if self._device.made.pop(name).running:
            self._watch.tell(name)

    def _hear_file(self, path: str) -> None:
        self._watch.tell(*(name for name, uses in self._uses.items() if path in uses))

    def _prepare(self, container: Container) -> None:
        desired = resolve_desired(container, self._read(container))
        found = self._ours(container.name)
        steps = self._steps(desired, found)
        if not steps or (found is not None and self._find_hold(container.name, found) is not None):
            return
        self._check_ports(container, apply=False)
        if Pulled() in steps and (fetching := self._pull(desired)) is not None:
            raise _fetching(desired, fetching)

    def _converge_one(self, container: Container, *, apply: bool) -> Change:
        container = call_as_in_force(container, self.secret_values)
        read = self._read(container)
        sources = [mount.source for mount in container.mounts if not mount.live]
        devices = [device.source for device in container.devices]
        self._uses[container.name] = (*container.uses, *sources, *devices)
        desired = resolve_desired(container, read)
        found, called = self._ours_by_any_name(container.name, apply=apply)
        change = self._bring_about(container, desired, found, apply=apply)
        renamed = (Renamed(called),) if called is not None else ()
        wanted = find_secret_texts(container).keys()
        left = self._secrets_of(container.name) - wanted - (found.secrets if found else {}).keys()
        if apply:
            made = self._device.made.get(container.name)
            self._drop_secrets(container.name, {*wanted, *(made.secrets if made else ())})
        told = (Removed(f"podman secret {each}") for each in sorted(left))
        return attrs.evolve(change, steps=(*renamed, *change.steps, *told))

    def _bring_about(
        self, container: Container, desired: DesiredContainer, found: _Made | None, *, apply: bool
    ) -> Change:
        before = self._state(found) if found is not None else None
        steps = self._steps(desired, found)
        held = self._find_hold(container.name, found) if steps and found is not None else None
        if steps and held is None:
            self._check_ports(container, apply=apply)
        is_made = bool(steps) and held is None and steps != (Started(),)
        lacks = partial(self._require_others, container, is_made=is_made)
        if not apply:
            after = self._predict_state(desired) if steps else before
            return Change(
                resource=container.id,
                steps=steps,
                before=before,
                after=after,
                pending=held,
                doubt=_error_of(lacks),
            )
        lacks()
        if held is not None:
            return Change(resource=container.id, before=before, after=before, pending=held)
        if Pulled() in steps and (fetching := self._pull(desired)) is not None:
            return Change(
                resource=container.id,
                before=before,
                after=before or Starting(image=desired.image),
                pending=_fetching(desired, fetching),
            )
        made = self._make(desired, found, steps)
        if isinstance(made, NotReady):
            return Change(resource=container.id, before=before, after=before, pending=made)
        pending = self._evaluate_health(container, made, just_started=bool(steps))
        if pending is None:
            self._device.kept[container.name].converged = True
        return Change(
            resource=container.id,
            steps=steps,
            before=before,
            after=self._state(made),
            pending=pending,
        )

    def _require_others(self, container: Container, *, is_made: bool) -> None:
        """Raise for what it needs of others and is not there; of some, only where it *is_made*."""
        self._check_mounts(container)
        self._check_devices(container)
        if is_made:
            self.attachments.require(container)

    def _steps(self, desired: DesiredContainer, found: _Made | None) -> tuple[Step, ...]:
        fetch = () if desired.image in self._device.images else (Pulled(),)
        if found is None:
            return (*fetch, Created(), Started())
        changed = set(desired.differences_from(found.labels))
        if {each.network for each in desired.container.networks} != found.networks:
            changed.add("networks")
        if not changed:
            changed = {
                f"podman secret {name}"
                for name, each in found.secrets.items()
                if self._device.secrets.get(name) != each
            }
        if changed:
            targets = {*desired.container.targets}
            return (
                *fetch,
                Recreated(fields=frozenset(changed)),
                Started(),
                *_find_kept_volumes(desired.container.name, found, targets),
            )
        rests = found.running or not found.end_told or _has_completed(found)
        return () if rests else (Started(),)

    def _pull(self, desired: DesiredContainer) -> Progress | None:
        image, login = desired.image, desired.container.login
        self._choose(desired.container.name, image)
        given = login and (login.username, self.secret_values.reveal_text(login.password))
        if self.logins.get(parse_image(image).registry, given) != given:
            raise ImageNotFound(f"the registry does not take this login for {image}")
        if parse_image(image).registry in self.unreachable_registries:
            raise RegistryUnreachable(f"{image} could not be fetched (connection refused)")
        if image in {parse_image(missing).pull for missing in self.missing_images}:
            raise ImageNotFound(f"the registry has no image {image}")
        looks = self._device.pulls.get(image, 0)
        if looks < self.looks_at_a_pull:
            self._device.pulls[image] = looks + 1
            return Progress(done=looks * 1000, total=self.looks_at_a_pull * 1000, unit="bytes")
        self._device.pulls.pop(image, None)
        self._device.images.add(image)
        self._device.pulled.add(image)
        return None

    def _make(
        self, desired: DesiredContainer, found: _Made | None, steps: tuple[Step, ...]
    ) -> _Made | NotReady:
        container = desired.container
        if found is not None and not steps:
            found.asked_to_end_s = None
            return found
        if found is None or steps != (Started(),):
            self._choose(container.name, desired.image)
            secrets = self._provide_secrets(container, found)
            _check_addresses(container)
            if found is not None:
                if (pending := self._stop(container.name, found)) is not None:
                    return pending
                self._remove_container(container.name)
            found = self._device.made[container.name] = _Made(
                id=self._next_id(),
                labels={**self.image_labels.get(desired.image, {}), **desired.labels},
                image=desired.image,
                ports=frozenset(port.host for port in container.ports),
                program=self.programs.get(container.command, Program()),
                volumes=self._volumes(container, desired.image),
                networks={each.network for each in container.networks},
                secrets=secrets,
                environment={
                    name: self.secret_values.reveal_text(text)
                    for name, text in container.environment.items()
                },
                secret_files={
                    each.target: self.secret_values.reveal_text(each.content)
                    for each in container.secrets
                },
                restarts_itself=container.restart == "always",
                stop_timeout_s=container.stop_timeout_s,
            )
            self._keep(container.name, desired.image)
        elif not found.running:
            found.restarts += 1
        self._holds.pop(container.name, None)
        self._start(found)
        if not found.running:
            self._watch.tell(container.name)
        return found

    def _provide_secrets(self, container: Container, found: _Made | None) -> dict[str, str]:
        """Have its secrets kept; return their ids, by name."""
        texts = find_secret_texts(container)
        for text in texts.values():
            self.secret_values.reveal_text(text)
        had, kept = found.secrets if found is not None else {}, self._device.secrets
        for name in texts:
            if name not in kept or kept[name] != had.get(name):
                kept[name] = self._next_id()
        return {name: kept[name] for name in texts}

    def _secrets_of(self, container: str) -> set[str]:
        """Return the names of the secrets that are kept for *container*."""
        return {
            name
            for name in self._device.secrets
            if name.rpartition("-")[0] == f"harmony-{container}"
        }

    def _drop_secrets(self, container: str, but: Collection[str] = ()) -> None:
        for name in self._secrets_of(container) - {*but}:
            del self._device.secrets[name]

    def _volumes(self, container: Container, image: str) -> dict[str, str]:
        """Return the volumes by where they are seen, named so that whatever is made in its place has them
        too."""
        brought = {
            target
            for each, targets in self.image_volumes.items()
            if parse_image(each).pull == image
            for target in targets
        }
        named = {volume.target: volume.volume for volume in container.volumes}
        wanted = brought - {*container.targets}
        volumes = {target: f"{container.name}:{target}" for target in wanted}
        self._device.volumes.update(volumes.values())
        return {**volumes, **named}

    def _stop(self, name: str, made: _Made) -> NotReady | None:
        """Stop the container. Return None once it runs no more; until then, the time that it has left."""
        if not made.running or not made.program.deaf:
            return None
        if made.asked_to_end_s is None:
            made.asked_to_end_s = self._now_s
        if self._patient:
            self._now_s = max(self._now_s, made.asked_to_end_s + made.stop_timeout_s)
        left_s = made.asked_to_end_s + made.stop_timeout_s - self._now_s
        if left_s <= 0:
            return None
        return NotReady(
            f"{name} is stopping ({made.stop_timeout_s} s grace period)",
            resource=_id(name),
            reason="Progressing",
            look_again_s=min(left_s, 1.0),
        )

    def _start(self, made: _Made) -> _Made:
        made.running = made.program.exit_code is None or made.program.runs_for_s > 0
        made.stopped_by_user = False
        made.end_told = False
        made.asked_to_end_s = None
        made.started_s = self._now_s
        made.log.extend(made.program.log)
        return made

    def _evaluate_health(
        self, container: Container, made: _Made, *, just_started: bool
    ) -> NotReady | None:
        if just_started and self._patient:
            self._now_s += container.settle_s
            self._end_what_is_due()
        if _has_completed(made):
            return None
        if just_started and not self._patient and not made.running:
            return NotReady("it was started and has ended", resource=container.id)
        tail = log_tail("\n".join(made.log).encode())
        if not made.running:
            made.end_told = True
            code = made.program.exit_code
            raise ContainerFailed(f"container {container.name} exited with code {code}{tail}")
        age_s = self._now_s - (made.started_s or 0)
        if age_s < container.settle_s:
            return NotReady(
                "it was started, and must stay up for a while",
                resource=container.id,
                look_again_s=container.settle_s - age_s,
            )
        made.health, every_s = _health(age_s, made.program, container)
        match made.health:
            case "starting":
                return NotReady(
                    "it does not answer yet", resource=container.id, look_again_s=every_s
                )
            case "unhealthy":
                raise NotReadyInTime(f"container {container.name} was not ready in time{tail}")
            case _:
                return None

    def _remove_one(self, name: str, *, apply: bool) -> Change:
        found, _ = self._ours_by_any_name(name, apply=apply)
        if found is None:
            if apply:
                self._keep_nothing(name)
            return Change(resource=_id(name))
        before = self._state(found)
        stopped = (Stopped(),) if found.running else ()
        steps = (*stopped, Removed(), *_find_kept_volumes(name, found, found.volumes))
        if (held := self._find_hold(name, found)) is not None:
            after = before if apply else None
            steps = () if apply else steps
            return Change(resource=_id(name), steps=steps, before=before, after=after, pending=held)
        if apply:
            if (pending := self._stop(name, found)) is not None:
                return Change(resource=_id(name), before=before, after=before, pending=pending)
            self._remove_container(name)
            self._keep_nothing(name)
        return Change(resource=_id(name), steps=steps, before=before)

    def _find_hold(self, name: str, made: _Made) -> NotReady | None:
        most_s = max_hold_s(made.labels)
        if most_s is None or not made.running:
            return None
        started_at = _BEGINNING + timedelta(seconds=made.started_s or 0)
        return self._hold_clock.find_hold(
            _id(name),
            self._holds.get(name),
            life=(made.id, made.started_s),
            started_at=started_at,
            max_hold_s=most_s,
        )

    def _now(self) -> datetime:
        return _BEGINNING + timedelta(seconds=self._now_s)

    def _choose(self, name: str, image: str) -> None:
        """Choose what it is to be made from, which is recorded also where making it fails."""
        kept = self._device.kept.setdefault(name, _Kept(image=image))
        if image not in kept.all:
            before = kept.all
            kept.next = image
            self._drop(before - kept.all)

    def _keep(self, name: str, image: str) -> None:
        """Keep its image, and the last that it ran well with; delete others that we fetched."""
        kept = self._device.kept[name]
        before = kept.all
        kept.next = None
        if kept.image != image:
            last_good = kept.image if kept.converged else kept.last_good
            kept = self._device.kept[name] = _Kept(image=image, last_good=last_good)
        self._drop(before - kept.all)

    def _keep_nothing(self, name: str) -> None:
        self._drop_secrets(name)
        kept = self._device.kept.pop(name, None)
        self._drop(kept.all if kept is not None else set())

    def _drop(self, images: set[str]) -> None:
        used = {made.image for made in self._device.made.values()}
        gone = (images & self._device.pulled) - used
        self._device.images -= gone
        self._device.pulled -= gone

    def _ours(self, name: str) -> _Made | None:
        self._fault(name)
        found = self._device.made.get(name)
        if found is not None and found.labels.get(RESOURCE_LABEL) != _id(name):
            raise NotOurs(f"a container {name} is there that Harmony did not make")
        return found

    def _ours_by_any_name(self, name: str, *, apply: bool) -> tuple[_Made | None, str | None]:
        """Return the container, and the name that somebody else had given it, if any."""
        found = self._ours(name)
        if found is not None:
            return found, None
        for other, made in self._device.made.items():
            if made.labels.get(RESOURCE_LABEL) == _id(name):
                if apply:
                    self._device.made[name] = self._device.made.pop(other)
                return made, other
        return None, None

    def _fault(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]

    def _check_mounts(self, container: Container) -> None:
        for mount in container.mounts:
            below = mount.source + "/"
            if not any(path == mount.source or path.startswith(below) for path in self.files):
                raise ContainerFailed(f"{mount.source} does not exist; create it")

    def _check_devices(self, container: Container) -> None:
        for device in container.devices:
            if device.source not in self.devices:
                raise HardwareMissing(
                    f"{device.source} is not there; plug the device in", path=device.source
                )

    def _check_ports(self, container: Container, *, apply: bool) -> None:
        """Raise if a port is taken. In a dry run, a port of another container of ours may be free by then."""
        others = [
            made
            for name, made in self._device.made.items()
            if made.running and name != container.name
        ]
        taken = self._held_ports.union(*(made.ports for made in others if apply))
        for port in container.ports:
            if port.host in taken:
                raise PortTaken(f"port {port.host} is held by another process on this device")

    def _state(self, made: _Made) -> ContainerState:
        if made.started_s is None:
            return Starting(image=made.image)
        if made.running:
            return Running(
                since=rfc3339(_BEGINNING + timedelta(seconds=made.started_s)),
                restarts=made.restarts,
                image=made.image,
                health=made.health,
            )
        if _has_completed(made):
            ended_s = made.started_s + made.program.runs_for_s
            since = rfc3339(_BEGINNING + timedelta(seconds=ended_s))
            return Completed(since=since, image=made.image)
        code = made.program.exit_code
        return Exited(
            exit_code=137 if code is None else code, restarts=made.restarts, image=made.image
        )

    def _predict_state(self, desired: DesiredContainer) -> Running | Completed:
        since = rfc3339(_BEGINNING + timedelta(seconds=self._now_s))
        if desired.container.runs == "once":
            return Completed(since=since, image=desired.image)
        return Running(since=since, restarts=0, image=desired.image, health="unprobed")

    def _read(self, container: Container) -> dict[str, str]:
        mounted = [mount.source for mount in container.mounts if is_followed(mount)]
        followed = [path for path in mounted if path in self.files]
        devices = {each.source: self.devices.get(each.source, ABSENT) for each in container.devices}
        return {path: self._hash(path) for path in (*followed, *container.uses)} | devices

    def _hash(self, path: str) -> str:
        content = self.files.get(path)
        return ABSENT if content is None else hashlib.sha256(content).hexdigest()

    def _end_what_is_due(self) -> None:
        """End what runs a program that has come to its end by now."""
        for name, made in self._device.made.items():
            program, started_s = made.program, made.started_s
            is_over = started_s is not None and self._now_s - started_s >= program.runs_for_s
            if made.running and program.exit_code is not None and is_over:
                made.running = False
                self._watch.tell(name)

    def _next_id(self) -> str:
        return f"{next(self._ids):064x}"


def _answer_one(verb: Callable[[], Change], resource: str) -> Change | Exception:
    try:
        return verb()
    except Exception as error:  # noqa: BLE001 - one container's error is that container's answer
        return name_resource(error, resource)


def _error_of(check: Callable[[], None]) -> CapabilityError | None:
    try:
        check()
    except CapabilityError as error:
        return error
    return None


def _has_completed(made: _Made) -> bool:
    return (
        runs_once(made.labels)
        and not made.running
        and made.started_s is not None
        and made.program.exit_code == 0
        and not made.stopped_by_user
    )


def _find_kept_volumes(owner: str, made: _Made, targets: Collection[str]) -> tuple[KeptVolume, ...]:
    return tuple(
        KeptVolume(name=name, target=target)
        for target, name in sorted(made.volumes.items())
        if target in targets and name == f"{owner}:{target}"
    )


def _check_addresses(container: Container) -> None:
    for port in container.ports:
        try:
            ip_address(port.address or "::")
        except ValueError:
            raise ContainerFailed(
                f"container {container.name} could not be created: invalid address {port.address}"
            ) from None


def _health(age_s: float, program: Program, container: Container) -> tuple[Health, float]:
    """Return how healthy it is after *age_s*, the worse of probe and check; and when to look again."""
    told: list[tuple[Health, float]] = []
    if (ready := container.ready) is not None:
        is_late = age_s >= ready.within_s
        told.append((_verdict(age_s >= program.ready_after_s, is_late=is_late), ready.every_s))
    if (check := container.healthcheck) is not None:
        check = check if isinstance(check, HealthCheck) else HealthCheck(command=("true",))
        is_late = age_s >= check.start_period_s + check.interval_s * check.retries
        is_well = age_s >= program.healthy_after_s
        told.append((_verdict(is_well, is_late=is_late), check.interval_s))
    worst: tuple[Health, ...] = ("unhealthy", "starting", "healthy")
    return min(told, key=lambda each: worst.index(each[0]), default=("unprobed", 0.0))


def _verdict(is_well: bool, *, is_late: bool) -> Health:
    if is_well:
        return "healthy"
    return "unhealthy" if is_late else "starting"


def _fetching(desired: DesiredContainer, progress: Progress) -> NotReady:
    return NotReady(
        f"fetching {desired.image}",
        resource=desired.container.id,
        reason="Progressing",
        progress=progress,
        look_again_s=0.5,
    )


def _id(name: str) -> str:
    return resource_id(Container.resource_type, name)
