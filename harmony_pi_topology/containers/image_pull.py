"""Fetching images beside everything else: one pull an image, shared by whoever asks for it.

    ask -> under way: how far it is
        -> done: its result, told once to each asker

A converge never waits for a pull: it asks again until there is a result. So asking is also what keeps a
pull alive; one that nobody has asked for in a while, because its Score went or wants another image, is
cancelled, and podman drops what it has fetched. So is one of which nothing comes any more, and one that has
no room on the disk: podman by itself would fill it.

An image that is at hand, in a bundle, is had from there, and its registry is not waited for any more. One
that comes from an archive consists of assets, and is had from them (`.image_blobs`).
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from harmony_core.assets import Assets, NoAssets
from harmony_core.change import NotReady
from harmony_core.errors import (
    AssetsFull,
    CapabilityError,
    ImageNotFound,
    RegistryUnreachable,
    TimedOut,
    WriteFailed,
)
from harmony_core.images import ImageName, parse_image
from harmony_core.nearby import Blobs, NearbyImages
from harmony_core.reconciler import Records
from harmony_core.resources import Container, ImageBlob, resource_id
from harmony_core.room import ROOM_KEPT_BYTES

from .image_blobs import ImageBlobs
from .podman import PULL_SILENCE_S, Podman
from .podman_reply import PullProgress
from .pull_names import PullNames

_WAIT_S = 1.0
_ABANDONED_AFTER_S = 60.0
_LOOK_AGAIN_S = 0.5
_FULL_FOR_S = 3600.0
"""So long it is not asked again what podman lacks of an image that has no room here."""


class ImagePulls:
    """The pulls under way, by image. Used from one event loop."""

    def __init__(
        self,
        podman: Podman,
        records: Records,
        nearby: NearbyImages | None = None,
        assets: Assets | None = None,
        *,
        root: Path = Path("/"),
        wait_s: float = _WAIT_S,
        abandoned_after_s: float = _ABANDONED_AFTER_S,
    ) -> None:
        self._podman = podman
        self._records = records
        self._nearby = nearby or NearbyImages()
        self._assets = assets or NoAssets()
        self._names = PullNames(podman, records)
        self._root = root
        self._wait_s = wait_s
        self._abandoned_after_s = abandoned_after_s
        self._pulls: dict[str, _Pull] = {}
        self._lacked: dict[str, frozenset[str]] = {}
        """By asker, of what podman lacked when a pull from assets came to nothing."""
        self._needed_bytes: dict[str, int] = {}
        """By image, how many bytes at least were to come when it was given up for want of room."""
        self._kept_nothing_of: dict[str, str] = {}
        """By asker, the image of whose assets nothing is kept any more."""

    async def ask(
        self, image: str, *, for_: Container, login: tuple[str, str] | None = None
    ) -> NotReady | None:
        """Return the progress of the pull of *image*, within a second; None once the image is here.

        If the pull failed, raise its error, once: the next call starts another pull. Record that Harmony
        fetched the image before it is fetched. The *login* of the first caller counts; where that fails, a
        caller with another login may ask again.
        """
        asker = for_.name
        self.leave(asker, but=image)
        await self._refuse_again_without_room(image)
        pull = await self._join(image, for_, login)
        pull.keep_alive(asker, for_s=self._abandoned_after_s, timeout_s=for_.pull_timeout_s)
        await asyncio.wait({pull.task}, timeout=self._wait_s)
        if not pull.task.done():
            await self._refuse_without_room(pull)
        if not pull.task.done():
            return pull.tell(for_.id)
        self._leave(pull, asker)
        match pull.failure():
            case None:
                self._lacked.pop(asker, None)
                return None
            case NotReady() as signal:
                self._lacked[asker] = pull.lacked
                return _for(for_.id, signal)
            case failure:
                self._lacked[asker] = pull.lacked
                if isinstance(failure, AssetsFull):
                    # By then podman may have more of it, by another image.
                    forget = self._lacked.pop
                    asyncio.get_running_loop().call_later(_FULL_FOR_S, forget, asker, None)
                raise failure

    async def _refuse_without_room(self, pull: _Pull) -> None:
        """End *pull* where what is known to come has no room on podman's disk. Others write there, too."""
        left_bytes = pull.left_bytes
        disk = await self._measure_disk() if left_bytes else None
        if disk is not None and disk.free_bytes < left_bytes + ROOM_KEPT_BYTES:
            self._needed_bytes[pull.image] = pull.known_bytes
            await pull.give_up(_describe_lack(pull.image, left_bytes, disk))

    async def _refuse_again_without_room(self, image: str) -> None:
        """Raise `WriteFailed` where *image* was given up for want of room, and there is no more by now."""
        if image in self._pulls or (needed_bytes := self._needed_bytes.get(image)) is None:
            return
        disk = await self._measure_disk()
        if disk is not None and disk.free_bytes < needed_bytes + ROOM_KEPT_BYTES:
            raise WriteFailed(_describe_lack(image, needed_bytes, disk))
        self._needed_bytes.pop(image, None)

    async def _measure_disk(self) -> _Disk | None:
        """Return the disk on which podman has images; None where nobody says."""
        try:
            directory = await self._podman.image_directory()
            found = await asyncio.to_thread(os.statvfs, f"{self._root}/{directory}")
        except (CapabilityError, OSError):
            return None  # podman itself tells of it
        return _Disk(directory=directory, free_bytes=found.f_bavail * found.f_frsize)

    async def keep_nothing(self, image: str, *, of: Container) -> None:
        """Delete the stored assets of *image*, which podman has: the agent may have ended before it could do
        so. Do this once for each container."""
        if not of.image_blobs or self._kept_nothing_of.get(of.name) == image:
            return
        with suppress(CapabilityError):  # it is tried again at the next look
            await self._drop(image, of.image_blobs)
            self._kept_nothing_of[of.name] = image

    def is_asked_for(self, image: str, *, by: str) -> bool:
        """Return whether *by* has asked for *image* and has not received the result yet."""
        pull = self._pulls.get(image)
        return pull is not None and by in pull.askers

    def leave(self, asker: str, *, but: str | None = None) -> None:
        """Note that *asker* wants no image any more, except *but*."""
        if but is None:
            self._lacked.pop(asker, None)
        for pull in list(self._pulls.values()):
            if pull.image != but:
                self._leave(pull, asker)

    async def close(self) -> None:
        """Cancel every pull, and wait until podman has been told."""
        pulls = [pull.task for pull in self._pulls.values()]
        self._pulls.clear()
        for task in pulls:
            task.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
        await self._names.close()

    def clear(self) -> None:
        """Start removing what is left of pulls that were interrupted."""
        self._names.clear()

    async def _join(self, image: str, container: Container, login: tuple[str, str] | None) -> _Pull:
        if (pull := self._find(image, container.name)) is not None:
            return pull
        await self._records.put(image_record(image), {"pulled": True})
        # Looked for again: somebody else may have begun while this was being recorded.
        if (pull := self._find(image, container.name)) is not None:
            return pull
        pull = self._pulls[image] = self._begin(image, container, login)
        return pull

    def _begin(self, image: str, container: Container, login: tuple[str, str] | None) -> _Pull:
        name, progress = parse_image(image), PullProgress()
        if (nearby := self._nearby.find(name.digest)) is not None:
            coming = _pull_nearby(self._podman, self._names, name, progress, nearby)
            return _Pull(image, coming, progress, nearby=nearby)
        if not container.image_blobs:
            return _Pull(image, self._podman.pull(image, progress, login), progress)
        blobs = ImageBlobs(
            self._assets,
            container.image_blobs,
            resource=container.id,
            lacked_before=self._lacked.get(container.name, frozenset()),
            # What has come would keep other assets out.
            on_full=partial(self._drop_as_possible, image, container.image_blobs),
        )
        coming = self._pull_from_assets(image, progress, blobs, container.image_blobs)
        return _Pull(image, coming, progress, blobs=blobs)

    async def _pull_from_assets(
        self,
        image: str,
        progress: PullProgress,
        blobs: ImageBlobs,
        assets: Sequence[ImageBlob],
    ) -> None:
        """Have podman pull *image*, which consists of *assets*. Then delete the stored assets."""
        name = parse_image(image)
        try:
            await blobs.begin(name.digest or "")
            await _pull_nearby(self._podman, self._names, name, progress, blobs, silent_for_s=None)
        except CapabilityError as error:
            if blobs.failure is not None:
                raise blobs.failure from error
            if isinstance(error, ImageNotFound):
                raise ImageNotFound(
                    f"{image} comes from an archive, in which podman finds nothing for this device "
                    f"({error.message}); build it for {platform.machine()}, and push that"
                ) from error
            raise
        finally:
            blobs.end()
        await self._drop_as_possible(image, assets)

    async def _drop_as_possible(self, image: str, assets: Sequence[ImageBlob]) -> None:
        try:
            await self._drop(image, assets)
        except CapabilityError:
            self._kept_nothing_of.clear()  # what is left goes with the next look

    async def _drop(self, image: str, assets: Sequence[ImageBlob]) -> None:
        """Delete the stored *assets* of *image*, except those that other pulls wait for."""
        others = (each for each in self._pulls.values() if each.image != image)
        awaited = {digest for each in others for digest in each.lacked}
        await self._assets.let_go([each for each in assets if each.digest not in awaited])

    def _find(self, image: str, asker: str) -> _Pull | None:
        """Return the pull that is under way, or whose result *asker* has not received yet; None where there
        is none. Cancel a pull from elsewhere if the image is at hand by now, so that nobody waits for an
        unreachable registry or a removed stick."""
        pull = self._pulls.get(image)
        if pull is None or not pull.has_news_for(asker):
            return None
        nearby = self._nearby.find(parse_image(image).digest)
        if nearby is not None and nearby is not pull.nearby:
            pull.task.cancel()
            return None
        return pull

    def _leave(self, pull: _Pull, asker: str) -> None:
        pull.askers.discard(asker)
        if not pull.askers:
            pull.task.cancel()
            if self._pulls.get(pull.image) is pull:
                del self._pulls[pull.image]


@attrs.frozen(kw_only=True)
class _Disk:
    directory: str
    free_bytes: int


def _describe_lack(image: str, left_bytes: int, disk: _Disk) -> str:
    return (
        f"{image} has no room on this device: at least {left_bytes / 1e6:.1f} MB of it are still to come, "
        f"and the disk of {disk.directory} has {disk.free_bytes / 1e6:.1f} MB left, of which "
        f"{ROOM_KEPT_BYTES / 1e6:.1f} MB stay free; make room there (podman image prune --all takes every "
        "image that no container uses)"
    )


class _Pull:
    """One pull under way, or ended and not yet told to everybody who asked for it."""

    def __init__(
        self,
        image: str,
        coming: Coroutine[Any, Any, None],
        progress: PullProgress,
        *,
        nearby: Blobs | None = None,
        blobs: ImageBlobs | None = None,
    ) -> None:
        self.image = image
        self.nearby = nearby
        self._blobs = blobs
        self.askers: set[str] = set()
        self._progress = progress
        self.task = asyncio.ensure_future(coming)
        self.task.add_done_callback(self._on_end)
        self._loop = asyncio.get_running_loop()
        self._moved_s = self._deadline_s = self._loop.time()
        """When more of it was last seen to have come."""
        self._done_bytes = 0
        self._no_room = ""
        self._timer: asyncio.TimerHandle | None = None

    def has_news_for(self, asker: str) -> bool:
        """Return whether *asker* can still get the result. One who first asks after the end cannot: each
        asker gets it once."""
        return not self.task.done() or asker in self.askers

    @property
    def lacked(self) -> frozenset[str]:
        """The digests of what podman was found to lack, of an image that consists of assets."""
        return self._blobs.lacked if self._blobs is not None else frozenset()

    @property
    def left_bytes(self) -> int:
        """How many bytes are still to come, as far as that is known: of layers that have begun, packed."""
        return self._progress.left_bytes

    @property
    def known_bytes(self) -> int:
        """How many bytes it has, as far as that is known."""
        return self._progress.left_bytes + self._progress.so_far().done

    async def give_up(self, why: str) -> None:
        """Cancel the pull for lack of room, and wait until podman has been told."""
        self._no_room = why
        self.task.cancel()
        await asyncio.wait({self.task})

    def tell(self, resource: str) -> NotReady:
        """Return its progress as that of *resource*."""
        if self._blobs is not None and (signal := self._blobs.so_far()) is not None:
            return _for(resource, signal)
        return NotReady(
            f"fetching {self.image}",
            resource=resource,
            reason="Progressing",
            progress=self._progress.so_far(),
            look_again_s=_LOOK_AGAIN_S,
        )

    def keep_alive(self, asker: str, *, for_s: float, timeout_s: float) -> None:
        """Let the pull go on for *for_s* seconds without being asked for, and for *timeout_s* seconds without
        any new data."""
        self.askers.add(asker)
        if (done_bytes := self._progress.so_far().done) != self._done_bytes:
            self._done_bytes, self._moved_s = done_bytes, self._loop.time()
        since_s = self._moved_s if self._blobs is None else self._blobs.last_piece_s
        self._deadline_s = max(self._deadline_s, since_s + timeout_s)
        self._stop_timer()
        if not self.task.done():
            until_s = min(self._deadline_s, self._loop.time() + for_s)
            self._timer = self._loop.call_at(until_s, self._expire)

    def failure(self) -> Exception | None:
        """Return what went wrong; None where nothing did. Each call returns a new error, to which the asker
        adds its resource. Call this only after the end."""
        if self.task.cancelled() and self._no_room:
            return WriteFailed(self._no_room)
        if self.task.cancelled():
            return TimedOut(
                f"{self.image} was given up: nothing more of it came within pull_timeout_s; look at the "
                "device's connection, or raise that"
            )
        match self.task.exception():
            case CapabilityError() as error:
                return type(error)(error.message)
            case Exception() as error:
                return error
            case _:
                return None

    def _expire(self) -> None:
        if self._loop.time() < self._deadline_s:
            self.askers.clear()
        self.task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._stop_timer()
        # Looked at here, since perhaps nobody comes to ask any more.
        if not task.cancelled():
            task.exception()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _for(resource: str, signal: NotReady) -> NotReady:
    """Return *signal* as that of *resource*."""
    return NotReady(
        signal.message,
        resource=resource,
        reason=signal.reason,
        progress=signal.progress,
        look_again_s=signal.look_again_s,
    )


async def _pull_nearby(
    podman: Podman,
    names: PullNames,
    image: ImageName,
    progress: PullProgress,
    blobs: Blobs,
    *,
    silent_for_s: float | None = PULL_SILENCE_S,
) -> None:
    """Have podman pull *image* from this machine, and name it as if it came from its own registry.

    By a digest, podman finds any image that has the digest and a name in that repository. The tag is one of
    Harmony's own, so that no tag of anybody else is moved.
    """
    from .nearby_registry import TAG, NearbyRegistry  # noqa: PLC0415 - few are ever loaded

    digest = image.digest or ""
    registry = NearbyRegistry(blobs, digest)
    source = f"{registry.repository}:{TAG}"
    await asyncio.to_thread(registry.begin)
    try:
        await names.begin(source)
        try:
            await podman.pull(image.pull, progress, source=source, silent_for_s=silent_for_s)
        except (ImageNotFound, RegistryUnreachable, WriteFailed):
            await names.forget(source)  # podman has ended, and has nothing
            raise
        repository, _, own = own_name(image).rpartition(":")
        await podman.tag(source, repository, own)
        await names.take_away(source)
    except CapabilityError as error:
        if registry.failure is not None:
            raise registry.failure from error
        raise
    finally:
        names.end(source)
        await asyncio.to_thread(registry.end)


def own_name(image: ImageName) -> str:
    """Return Harmony's own name for *image*, a tag in the image's repository, where it came from no
    registry."""
    digest = (image.digest or "").removeprefix("sha256:")
    return f"{image.registry}/{image.repository}:harmony-{digest[:32]}"


def image_record(image: str) -> str:
    """Return the id of the record that Harmony fetched *image*."""
    return resource_id("image", image)
