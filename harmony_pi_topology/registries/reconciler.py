"""Registries, reconciled: all of it but for podman, so that every reconciler judges alike.

    look   (podman itself, once it has read its files as they are now) -> as desired: left
             -> it cannot read them: nothing is known, and ours are put right all the same
    refused: another file of podman's that speaks of the same registry (`NotOurs`), certificates of it in a
             place that would count in place of ours, or such that podman refuses
    recorded -> files written, and those that are not needed any more taken away
             -> podman has read them, and is asked -> `DidNotStick` where it uses the registry otherwise

    removal: the files go, or what was there before comes back -> podman is asked again

podman's service reads its files once, and keeps what it has read. What it said of the files of this content
is remembered for as long as that very process runs, and while none does: one that starts then reads them as
they are. It is forgotten with each change of ours, and when another file is in the way.

What is recorded of ``registry:HOST``: ``paths``, the files that were written for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, CapabilityUnavailable, NotOurs
from harmony_core.reconciler import Reconciler, Records
from harmony_core.resources import (
    File,
    FileState,
    ImageRegistry,
    PresentAt,
    RegistryAt,
    RegistryMirror,
    resource_id,
)
from harmony_core.resources.image_registry import (
    certificates_directory,
    certificates_path,
    mirrors_path,
)
from harmony_core.steps import Created, Did, Removed, Step, Wrote
from harmony_pi_topology.common.check import did_it_stick
from harmony_pi_topology.common.gather import require_changes
from harmony_pi_topology.containers.podman_reply import FoundRegistry

from .configuration import (
    Configuration,
    describe_registry,
    find_lone,
    find_places,
    read_registries,
)

__all__ = ["Registries", "RegistryStore"]

_REMEDY = (
    "another file of podman's says so: look for it in /etc/containers/registries.conf and registries.conf.d, "
    "as root on the device; or podman goes on with what it has read before: systemctl restart podman.service"
)


class RegistryStore(Protocol):
    """What the rules need of podman and its files. Every verb: a `CapabilityError` for what it will not
    do."""

    async def read_configuration(self) -> Configuration:
        """Return every file that podman reads, in the order in which it reads them."""
        ...

    async def ask(
        self, expected: Mapping[str, FoundRegistry] | None
    ) -> Mapping[str, FoundRegistry]:
        """Return how podman uses registries, once it has read its files again. Where *expected* is known and
        podman agrees, return that."""
        ...

    async def find_process(self) -> str | None:
        """Return a text that is another for each process of podman's service; empty while none runs, and None
        where that cannot be told."""
        ...

    async def find_other_certificates(self, host: str) -> str | None:
        """Return the directory of certificates of *host* that podman reads in place of Harmony's, or would
        stop reading once Harmony's exists; None where there is none."""
        ...

    async def list_certificates(self, host: str) -> Sequence[str]:
        """Return the files in Harmony's directory of certificates for *host*."""
        ...


class Registries:
    """The verbs of a `Reconciler` of registries. *files* are those of podman's that are ours."""

    def __init__(
        self, files: Reconciler[File, FileState], store: RegistryStore, records: Records
    ) -> None:
        self.files = files
        self._store = store
        self._records = records
        self._turn = asyncio.Lock()
        self._said_of: bytes | None = None
        """The hash of the files of which podman has said what is in `_said`; None: it has to be asked."""
        self._said_by = ""
        """The process that has said it."""
        self._said: Mapping[str, FoundRegistry] = {}

    @property
    def resource_class(self) -> type[ImageRegistry]:
        return ImageRegistry

    async def converge(
        self, resources: Sequence[ImageRegistry], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources* one after another, since all belong to one podman."""
        return [await self._converge_one(each, apply=apply) for each in resources]

    async def observe(self, key: str) -> RegistryAt | None:
        async with self._turn:
            return await self._look(key, await self._store.read_configuration())

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [await self._remove_one(key, apply=apply) for key in keys]

    async def _converge_one(self, registry: ImageRegistry, *, apply: bool) -> Change | Exception:
        try:
            async with self._turn:
                return await self._converge(registry, apply=apply)
        except CapabilityError as error:
            return error.with_resource(registry.id)

    async def _converge(self, registry: ImageRegistry, *, apply: bool) -> Change:
        configuration = await self._store.read_configuration()
        await self._refuse(registry, configuration)
        before, problem = await self._look_before(registry.host, configuration)
        wanted = _list_files(registry)
        paths = [each.path for each in wanted]
        had = self._list_paths(registry.id)
        if apply and not {*paths} <= {*had}:
            # Before they are there: whoever finds them later has to know whose they are.
            await self._records.put(registry.id, {"paths": sorted({*had, *paths})})
        gone = [each for each in had if each not in paths]
        changes = [
            *require_changes(await self.files.converge(wanted, apply=apply)),
            *require_changes(await self.files.remove(gone, apply=apply)),
        ]
        self._forget_after(changes, problem)
        after = _desired(registry)
        if apply:
            found = await self._look(registry.host, await self._store.read_configuration())
            after = did_it_stick(f"podman's {registry.host}", after, found, remedy=_REMEDY)
            if gone:
                await self._records.put(registry.id, {"paths": paths})
        return _tell(registry.id, [*paths, *gone], changes, before, after)

    async def _refuse(self, registry: ImageRegistry, configuration: Configuration) -> None:
        """Raise `NotOurs` where a file, or a directory of certificates, that Harmony did not make stands in
        the way of *registry*."""
        host = registry.host
        if (path := _find_other_file(host, configuration)) is not None:
            self._said_of = None  # podman may read it by itself, and go on so when it is gone
            raise NotOurs(
                f"{path} says how podman uses {host}, too, and only one file may; take it out of there, as "
                "root on the device, or leave this Score out"
            )
        if registry.ca is None:
            return
        if (directory := await self._store.find_other_certificates(host)) is not None:
            ours = certificates_directory(host)
            raise NotOurs(
                f"podman reads one directory of certificates of {host}, and there is {directory}; move what "
                f"is in it to {ours}, as root on the device, and take the directory away"
            )
        if (path := find_lone(await self._store.list_certificates(host))) is not None:
            raise NotOurs(
                f"podman asks {host} for nothing while {path} lacks its other half: X.cert has its X.key "
                "beside it, and an authority's certificates end in .crt; give it that, or take it away, as "
                "root on the device"
            )

    async def _look_before(
        self, place: str, configuration: Configuration
    ) -> tuple[RegistryAt | None, CapabilityUnavailable | None]:
        """Return the present state, or why podman does not tell: the cause may be the file that is about to
        be corrected."""
        try:
            return await self._look(place, configuration), None
        except CapabilityUnavailable as problem:
            return None, problem

    def _forget_after(
        self, changes: Sequence[Change], problem: CapabilityUnavailable | None
    ) -> None:
        """Make the next question ask podman again once there are *changes*. Raise *problem* where there are
        none."""
        if any(each.changed for each in changes):
            self._said_of = None
        elif problem is not None:
            raise problem

    async def _look(self, place: str, configuration: Configuration) -> RegistryAt | None:
        said = await self._ask(configuration)
        found = said.get(place)
        there = await self.files.observe(certificates_path(place)) if "/" not in place else None
        ca = there.sha256 if isinstance(there, PresentAt) else ""
        if found is None and not ca:
            return None
        return _to_state(found or FoundRegistry(location=place), ca)

    async def _ask(self, configuration: Configuration) -> Mapping[str, FoundRegistry]:
        """Return what podman makes of its files in their present state."""
        digest = _hash(configuration)
        process = await self._store.find_process()
        if digest == self._said_of and digest is not None and process in {"", self._said_by}:
            return self._said
        self._said_of = None
        expected = read_registries(configuration)
        said = await self._store.ask(expected)
        by = await self._store.find_process()
        # What is not as its files are read here may be what it has read before.
        if said == expected and by and process in {"", by}:
            self._said_of, self._said_by, self._said = digest, by, said
        return said

    def _list_paths(self, rid: str) -> list[str]:
        record = self._records.get(rid)
        return [*record["paths"]] if record is not None else []

    async def _remove_one(self, key: str, *, apply: bool) -> Change | Exception:
        rid = resource_id(ImageRegistry.resource_type, key)
        try:
            async with self._turn:
                return await self._remove(key, rid, apply=apply)
        except CapabilityError as error:
            return error.with_resource(rid)

    async def _remove(self, place: str, rid: str, *, apply: bool) -> Change:
        configuration = await self._store.read_configuration()
        paths = self._list_paths(rid)
        if not paths:
            if (path := _find_other_file(place, configuration)) is not None:
                self._said_of = None
                raise NotOurs(
                    f"how podman uses {place} was not said by Harmony, but in {path}; take it out of there "
                    "by hand if it is to go"
                )
            return Change(resource=rid)
        before, problem = await self._look_before(place, configuration)
        changes = require_changes(await self.files.remove(paths, apply=apply))
        self._forget_after(changes, problem)
        after = None
        if apply:
            self._said_of = None
            configuration = await self._store.read_configuration()
            after = await self._look(place, configuration)
            _refuse_remembered(place, configuration, after)
            await self._records.forget(rid)
        return _tell(rid, paths, changes, before, after)


def _list_files(registry: ImageRegistry) -> list[File]:
    files: list[File] = []
    if registry.mirrors or registry.insecure:
        files.append(File(path=mirrors_path(registry.host), content=describe_registry(registry)))
    if registry.ca is not None:
        files.append(File(path=certificates_path(registry.host), content=registry.ca.encode()))
    return files


def _desired(registry: ImageRegistry) -> RegistryAt:
    ca = "" if registry.ca is None else hashlib.sha256(registry.ca.encode()).hexdigest()
    return RegistryAt(
        mirrors=tuple(map(str, registry.mirrors)),
        insecure=registry.insecure,
        location=registry.host,
        blocked=False,
        ca=ca,
    )


def _to_state(found: FoundRegistry, ca: str) -> RegistryAt:
    return RegistryAt(
        mirrors=tuple(
            str(RegistryMirror.model_construct(location=location, insecure=insecure))
            for location, insecure in found.mirrors
        ),
        insecure=found.insecure,
        location=found.location,
        blocked=found.blocked,
        ca=ca,
    )


def _find_other_file(place: str, configuration: Configuration) -> str | None:
    ours = mirrors_path(place)
    others = (
        path
        for path, content in configuration.items()
        if path != ours and place in find_places(content)
    )
    return next(others, None)


def _hash(configuration: Configuration) -> bytes | None:
    """Return a hash that changes whenever a file does; None where that cannot be told."""
    digest = hashlib.sha256()
    for path, content in configuration.items():
        if content is None:
            return None
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


def _refuse_remembered(place: str, configuration: Configuration, found: RegistryAt | None) -> None:
    """Raise `DidNotStick` where podman still uses a setting that none of its files has."""
    expected = read_registries(configuration)
    if found is None or expected is None:
        return
    wanted = _to_state(expected.get(place) or FoundRegistry(location=place), found.ca)
    did_it_stick(f"podman's {place}", wanted, found, remedy="run: systemctl restart podman.service")


def _tell(
    rid: str,
    paths: Sequence[str],
    changes: Sequence[Change],
    before: RegistryAt | None,
    after: RegistryAt | None,
) -> Change:
    steps = [
        _name_file(path, step)
        for path, change in zip(paths, changes, strict=True)
        for step in change.steps
    ]
    diff = "".join(each.diff for each in changes if each.diff)
    return Change(resource=rid, steps=tuple(steps), before=before, after=after, diff=diff or None)


def _name_file(path: str, step: Step) -> Step:
    match step:
        case Created():
            return Created(path)
        case Removed():
            return Removed(path)
        case Wrote():
            return Wrote(path)
        case _:
            return Did(f"{path}: {step}")
