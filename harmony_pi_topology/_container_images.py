"""Which images a container keeps on the device: the one that it has, and the last that it ran well with.

Only images that we fetched ourselves are ever removed, and never one that any container still uses. One
that cannot be removed now is left: an image too many harms nobody.
"""

from __future__ import annotations

import contextlib

import attrs
import cattrs

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import Records
from harmony_core.resources import Container, resource_id

from ._image_pull import image_record
from ._podman import Podman


@attrs.frozen(kw_only=True)
class _Kept:
    image: str
    converged: bool = False
    last_good: str | None = None

    @property
    def all(self) -> set[str]:
        return {image for image in (self.image, self.last_good) if image is not None}

    def replaced_by(self, image: str) -> _Kept:
        return _Kept(image=image, last_good=self.image if self.converged else self.last_good)


class ContainerImages:
    """Kept in the records of each container, so that it needs no memory."""

    def __init__(self, podman: Podman, records: Records) -> None:
        self._podman = podman
        self._records = records

    async def created(self, name: str, image: str) -> None:
        """A container *name* was made from *image*; what it needs no more goes."""
        before = self._kept(name)
        if before is not None and before.image == image:
            return
        now = before.replaced_by(image) if before else _Kept(image=image)
        await self._put(name, now)
        if before is not None:
            await self._drop(before.all - now.all)

    async def converged(self, name: str, image: str) -> None:
        """It runs well with *image*: the one to come back to."""
        kept = self._kept(name) or _Kept(image=image)
        await self._put(name, attrs.evolve(kept, image=image, converged=True))

    async def gone(self, name: str, image: str | None) -> None:
        """The container is no more, which had *image* when it was last seen."""
        kept = self._kept(name)
        images = kept.all if kept else set[str]()
        await self._drop(images | {image} if image else images)
        await self._records.forget(_record(name))

    async def _drop(self, images: set[str]) -> None:
        for image in images:
            if self._records.get(image_record(image)) is None:
                continue
            with contextlib.suppress(CapabilityError):
                if await self._podman.remove_image(image):
                    await self._records.forget(image_record(image))

    def _kept(self, name: str) -> _Kept | None:
        record = self._records.get(_record(name))
        return cattrs.structure(record, _Kept) if record is not None else None

    async def _put(self, name: str, kept: _Kept) -> None:
        if kept != self._kept(name):
            await self._records.put(_record(name), cattrs.unstructure(kept))


def _record(name: str) -> str:
    return resource_id(Container.resource_type, name)
