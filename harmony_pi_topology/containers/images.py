"""Which images a container keeps on the device: the one that it has, and the last that it ran well with.

While it is made from another, that one too.

Only images that we fetched ourselves are ever removed, and never one that any container still uses. One
that cannot be removed now is left: an image too many harms nobody.
"""

from __future__ import annotations

import contextlib

import attrs
import cattrs

from harmony_core.errors import CapabilityError
from harmony_core.images import parse_image
from harmony_core.reconciler import Records
from harmony_core.resources import Container, resource_id

from .image_pull import image_record, own_name
from .podman import Podman


@attrs.frozen(kw_only=True)
class _Kept:
    image: str
    converged: bool = False
    last_good: str | None = None
    next: str | None = None
    """What another is to be made from, which podman may refuse."""

    @property
    def all(self) -> set[str]:
        images = (self.image, self.last_good, self.next)
        return {image for image in images if image is not None}

    def replace_with(self, image: str) -> _Kept:
        if image == self.image:
            return attrs.evolve(self, next=None)
        return _Kept(image=image, last_good=self.image if self.converged else self.last_good)


class ContainerImages:
    """Kept in the records of each container, so that it needs no memory."""

    def __init__(self, podman: Podman, records: Records) -> None:
        self._podman = podman
        self._records = records

    async def record_chosen(self, name: str, image: str) -> None:
        """Record that *image* is about to be fetched for the container *name*, or used to make it. It is then
        removed with that container, even if the fetch fails or the container is never made."""
        known = self._load(name)
        before = known or _Kept(image=image)
        now = before if image in before.all else attrs.evolve(before, next=image)
        await self._replace(name, known, now)

    async def record_created(self, name: str, image: str) -> None:
        """Record that the container *name* was made from *image*, and remove the images that it no longer
        needs."""
        known = self._load(name)
        await self._replace(name, known, (known or _Kept(image=image)).replace_with(image))

    async def record_converged(self, name: str, image: str) -> None:
        """Record that the container *name* runs well with *image*, which is then the image to return to."""
        known = self._load(name)
        now = attrs.evolve((known or _Kept(image=image)).replace_with(image), converged=True)
        await self._replace(name, known, now)

    async def record_gone(self, name: str, image: str | None) -> None:
        """Record that the container *name*, last seen with *image*, is gone, and remove its images."""
        kept = self._load(name)
        images = kept.all if kept else set[str]()
        await self._drop(images | {image} if image else images)
        await self._records.forget(_record(name))

    async def _replace(self, name: str, known: _Kept | None, now: _Kept) -> None:
        if now != known:
            await self._records.put(_record(name), cattrs.unstructure(now))
        if known is not None:
            await self._drop(known.all - now.all)

    async def _drop(self, images: set[str]) -> None:
        for image in images:
            if self._records.get(image_record(image)) is None:
                continue
            with contextlib.suppress(CapabilityError):
                if await self._remove(image):
                    await self._records.forget(image_record(image))

    async def _remove(self, image: str) -> bool:
        """Remove Harmony's name of *image*, and the image itself with its last name. Return whether nothing
        of Harmony's is left of it.

        Removal by digest alone would also remove a name that somebody else, or another Score, has given it.
        """
        own = own_name(parse_image(image))
        is_by_own = await self._podman.has_image(own)
        if not await self._podman.remove_image(own):
            return False
        if is_by_own and await self._podman.image_tags(image):
            return True
        return await self._podman.remove_image(image)

    def _load(self, name: str) -> _Kept | None:
        record = self._records.get(_record(name))
        return cattrs.structure(record, _Kept) if record is not None else None


def _record(name: str) -> str:
    return resource_id(Container.resource_type, name)
