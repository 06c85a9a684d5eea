"""Making a container, also in the place of another: what podman refuses, it refuses while that one runs.

    podman has its secrets -> created under another name -> the old one has ended -> it is removed
                                                                 -> the name goes to the new one

A call cut short anywhere leaves the new one under its other name. The next call takes it, if it is what is
desired; else it goes, at the latest with the container itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from harmony_core.change import NotReady
from harmony_core.errors import NotOurs
from harmony_core.resources import Container, resource_id
from harmony_pi_topology.common.path_calls import PathCalls

from .confinement import provide_profile
from .holds import ContainerHolds
from .images import ContainerImages
from .podman import Podman, can_be_a_name
from .podman_reply import FoundContainer
from .request import build_request
from .secret_store import ContainerSecrets
from .spec import RESOURCE_LABEL, DesiredContainer
from .stops import ContainerStops
from .volumes import assign_volumes

__all__ = ["ContainerReplacement"]

log = logging.getLogger(__name__)

_SUCCESSOR = ".harmony-successor"


class ContainerReplacement:
    """Makes containers, and keeps in mind which names have no successor that waits for them."""

    def __init__(
        self,
        podman: Podman,
        images: ContainerImages,
        holds: ContainerHolds,
        stops: ContainerStops,
        secrets: ContainerSecrets,
        root: Path,
        calls: PathCalls,
    ) -> None:
        self._podman = podman
        self._images = images
        self._holds = holds
        self._stops = stops
        self._secrets = secrets
        self._root = root
        self._calls = calls
        self._alone: set[str] = set()

    async def make(self, desired: DesiredContainer, old: FoundContainer | None) -> NotReady | None:
        """Make and start *desired* in place of *old*. Return what it waits for, while that takes its time.

        If this raises an error before *old* was asked to end, *old* is unchanged. A fault that only a start
        can show leaves the new container in place, not started.
        """
        container = desired.container
        # The order makes this safe to be killed at any point, and keeps a service up for as long as possible:
        # the new one is created in full, under another name, while the old one runs, so a wrong image,
        # command or mount costs nothing. Only then is the old one asked to end. Between its removal and the
        # renaming nothing has the name; the next call finds the successor, and goes on there.
        await self._images.record_chosen(container.name, desired.image)
        successor = await self._successor(desired, old)
        if old is not None:
            if (pending := await self._stops.stop(old)) is not None:
                return pending
            await self._podman.remove(old.id)
            if old.hold_directory is not None and container.max_hold_s is None:
                await self._holds.forget(container.name)
        await self._podman.rename(successor, container.name)
        try:
            await self._podman.start(successor, container.name)
        finally:
            # Not before: taking away an image would only make it wait.
            await self._images.record_created(container.name, desired.image)
        return None

    async def clear(self, name: str, *, anew: bool = False) -> None:
        """Remove every other container that was made for *name*: unfinished replacements, and containers with
        its label under another name. Look for them only once, unless *anew*, for when *name* itself is to be
        removed."""
        if name in self._alone and not anew:
            return
        for other, container_id in (await self._all(name)).items():
            if other != name:
                log.warning("container %s is removed: %s is there in its place", other, name)
                await self._podman.remove(container_id)
        self._alone.add(name)

    async def clear_secrets(self, container: Container) -> None:
        """Remove the podman secrets that were made for *container*, that it does not want, and that none of
        its existing containers uses."""
        if self._secrets.find_left(container, None):
            names = (container.name, container.name + _SUCCESSOR)
            there = [await self._podman.inspect(each) for each in names]
            await self._secrets.keep_only(container, there)

    async def find_renamed(self, name: str) -> str | None:
        """Return the present name of the container *name*, if somebody has renamed it; None when there is
        none. Call this only where no container has that name."""
        others = sorted(set(await self._all(name)) - {name, name + _SUCCESSOR})
        return others[0] if others else None

    async def _all(self, name: str) -> Mapping[str, str]:
        """Return the ids of all containers that were made as *name*, by their present names."""
        if not can_be_a_name(name):
            return {}
        return await self._podman.list_by_label(
            RESOURCE_LABEL, resource_id(Container.resource_type, name)
        )

    async def _successor(self, desired: DesiredContainer, old: FoundContainer | None) -> str:
        """Return the id of the container that is to replace *old*, created and not started."""
        container = desired.container
        self._alone.discard(container.name)
        left = await self._podman.inspect(container.name + _SUCCESSOR)
        if left is not None:
            _refuse_strangers(left, container)
            is_it = left.status == "created" and not desired.differences_from(left.labels)
            if is_it and not await self._secrets.find_altered(left):
                return left.id
            await self._podman.remove(left.id)
        if container.max_hold_s is not None:
            await self._holds.provide(container.name)
        await self._calls.run(provide_profile, self._root)
        of_image = await self._podman.image_volumes(desired.image)
        volumes = assign_volumes(container, of_image, old.volumes if old is not None else {})
        secrets = await self._secrets.provide(container, [old])
        request = {
            **build_request(desired, volumes, secrets),
            "name": container.name + _SUCCESSOR,
        }
        return await self._podman.create(container.name, request)


def _refuse_strangers(left: FoundContainer, container: Container) -> None:
    if left.labels.get(RESOURCE_LABEL) != container.id:
        raise NotOurs(
            f"a container {left.name} is there that Harmony did not make, where {container.name} is "
            f"to be made; remove it (podman rm {left.name})",
            resource=container.id,
        )
