"""How a download comes: asked for from where it was cut, flushed piece by piece, and taken by its hash alone.

    what has come so far -> its server, asked for the rest -> room for it? -> pieces, each flushed
        ^        ^                                                                  |
        |        +---- cut, after at least one piece: at once ----------------------+
        |                                                                           |
        +---- made of several answers, and not the right content: once, from the start
                                                                                    |
                              the hash of the whole is the right one <--------------+

What has come stays, whatever ends this: whoever asks again goes on behind it, also a new agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn, ParamSpec, Protocol, TypeVar

from harmony_agent.clock import monotonic_s
from harmony_agent.https import Answer, Exchange
from harmony_core.errors import DownloadFailed, DownloadRefused, TimedOut
from harmony_core.resources import ASSET_MAX_BYTES, Download
from harmony_pi_topology.common.worker import Worker

from .asset_files import AssetFiles

__all__ = ["Downloads", "Progressing"]

_AT_ONCE = 2
"""So that one server that is slow does not keep all others waiting."""
_STEP_WITHIN_S = 60.0
_PIECE_BYTES = 256 * 1024
_PIECE_WITHIN_S = 5.0
_TOO_SLOW_S = 60.0
_TOO_SLOW_BYTES = 16 * 1024
_GOES_ON_AFTER_S = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class Progressing(Protocol):
    """One fetch, as it is told of, and as others leave room for it."""

    done_bytes: int
    total_bytes: int | None

    def refuse_abandoned(self) -> None:
        """Raise `asyncio.CancelledError` where nobody has asked for it for a while."""
        ...

    async def promise_room(self, total_bytes: int) -> None:
        """Return once there is room for the whole. Raise `AssetsFull`."""
        ...


class Downloads:
    """Fetches into *files*, whose calls *disk* makes, from where *find_refusal* has nothing against."""

    def __init__(
        self, files: AssetFiles, disk: Worker, find_refusal: Callable[[str], str | None]
    ) -> None:
        self._files = files
        self._disk = disk
        self._find_refusal = find_refusal
        self._web = Worker("downloads", threads=_AT_ONCE, timeout_s=_STEP_WITHIN_S)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, download: Download, progress: Progressing) -> None:
        """Return once the whole of *download* is among the files.

        Raise `DownloadFailed`, `DownloadRefused`, `PolicyRefused`, `AssetsFull`, `WriteFailed`.
        """
        async with self._turns:
            progress.refuse_abandoned()
            progress.done_bytes = await self._disk.run(self._files.begin_part, download)
            if download.size_bytes is not None:
                await progress.promise_room(download.size_bytes)
            is_of_several = await self._fetch_rest(download, progress)
            if await self._disk.run(self._files.give_name, download):
                return
            if is_of_several:
                # Two answers may be of two contents.
                await self._begin_anew(download, progress)
                await self._fetch_rest(download, progress)
                if await self._disk.run(self._files.give_name, download):
                    return
            raise DownloadRefused(
                f"{download.name} has another content than sha256 {download.sha256[:12]}… says; look at what "
                "is there now: if it is what you want, give its sha256, or else give another address"
            )

    def close(self) -> None:
        """Begin nothing more."""
        self._web.close()

    async def _begin_anew(self, download: Download, progress: Progressing) -> None:
        progress.done_bytes = 0
        await self._disk.run(self._files.begin_part, download, anew=True)

    async def _fetch_rest(self, download: Download, progress: Progressing) -> bool:
        """Fetch all that is missing. Return whether the whole is made of several answers."""
        answers, validator = 1 if progress.done_bytes else 0, ""
        while True:
            asked_from = progress.done_bytes
            exchange = Exchange(
                download, self._find_refusal, offset=asked_from, validator=validator
            )
            try:
                answer = await self._step(exchange, exchange.open)
                if answer.offset < asked_from:
                    await self._begin_anew(download, progress)
                    answers = 0
                answers, validator = answers + 1, answer.validator
                await self._take(download, progress, exchange, answer)
            except DownloadFailed:
                # At once only for what goes on, and has brought something: else it would never end.
                if progress.done_bytes - asked_from < _PIECE_BYTES:
                    raise
                await asyncio.sleep(_GOES_ON_AFTER_S)
            else:
                return answers > 1
            finally:
                exchange.end()

    async def _take(
        self, download: Download, progress: Progressing, exchange: Exchange, answer: Answer
    ) -> None:
        progress.total_bytes = answer.total_bytes
        most_bytes = ASSET_MAX_BYTES if answer.total_bytes is None else answer.total_bytes
        await progress.promise_room(most_bytes)
        counted_bytes, counted_at_s = progress.done_bytes, monotonic_s()
        while not exchange.is_over:
            progress.refuse_abandoned()
            piece = await self._step(exchange, exchange.read, _PIECE_BYTES, _PIECE_WITHIN_S)
            if progress.done_bytes + len(piece) > most_bytes:
                await self._refuse(download, f"has more than {most_bytes} bytes")
            if piece:
                await self._disk.run(self._files.append, download, progress.done_bytes, piece)
            progress.done_bytes += len(piece)
            if (now_s := monotonic_s()) - counted_at_s > _TOO_SLOW_S:
                if progress.done_bytes - counted_bytes < _TOO_SLOW_BYTES:
                    slow = f"{_TOO_SLOW_BYTES // 1024} KiB in {_TOO_SLOW_S:.0f} s"
                    raise DownloadFailed(
                        f"{download.name} brings less than {slow}; look at its server and the device's "
                        "network; it is gone on with by itself"
                    )
                counted_bytes, counted_at_s = progress.done_bytes, now_s
        if progress.done_bytes < (download.size_bytes or 0):
            await self._refuse(download, f"has {progress.done_bytes} bytes")

    async def _refuse(self, download: Download, found: str) -> NoReturn:
        """Raise `DownloadRefused` for another size than announced, and keep nothing of what has come."""
        # But for what is whole: that is another's, who has said its size as it is.
        await self._disk.run(self._files.begin_part, download, anew=True)
        said = "" if download.size_bytes is None else f", and size_bytes says {download.size_bytes}"
        raise DownloadRefused(
            f"{download.name} {found}{said}; look at what is there now, and correct sha256 and size_bytes, "
            "or give another address. What is larger than 64 MiB belongs into an image"
        )

    async def _step(
        self, exchange: Exchange, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return the result of *call* of *exchange*, which runs in a thread and ends with its caller."""
        try:
            return await self._web.run(call, *args, **kwargs)
        except TimedOut:
            exchange.end()
            raise DownloadFailed(
                f"{exchange.name} is not answered within {_STEP_WITHIN_S:.0f} s; look at its server and the "
                "device's network; it is gone on with by itself"
            ) from None
        except asyncio.CancelledError:
            exchange.end()
            raise
