"""Downloads for a bundle: fetched here as devices fetch them, before anything of the bundle is written.

    address -> https, from a public server into no private network -> hashed as it comes -> a nameless file

How large a file is must be known before the bundle's index is, and only its end tells that for sure: so all
of them are here, whole and verified, before the first is put into the bundle.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import attrs

from harmony_control.bus.volume_data import TellProgress
from harmony_control.registry import TIMEOUT_S, describe_problem, open_client, say_named
from harmony_core.errors import DownloadFailed, DownloadRefused, UsageError
from harmony_core.resources import ASSET_MAX_BYTES, Download

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetched", "Wanted", "fetch_downloads", "read_fetched"]

_PART_BYTES = 256 * 1024
_LEFT_OUT = "or leave all downloads out with --no-downloads"


@attrs.frozen(kw_only=True)
class Wanted:
    """A download, and whose it is."""

    score: str
    download: Download

    def __str__(self) -> str:
        return f"{self.score!r} downloads {self.download.name}"


@attrs.frozen(kw_only=True)
class Fetched:
    """A download that is here: a part of *file*."""

    sha256: str
    size_bytes: int
    begin: int
    file: BinaryIO


@asynccontextmanager
async def fetch_downloads(
    wanted: Iterable[Wanted], tell: TellProgress
) -> AsyncGenerator[Sequence[Fetched]]:
    """Yield the files of what is *wanted*, each content once, for as long as the block lasts.

    Raise `DownloadFailed`, `DownloadRefused`; `UsageError` where there is no room.
    """
    by_hash: dict[str, list[Wanted]] = {}
    for each in wanted:
        by_hash.setdefault(each.download.sha256, []).append(each)
    if not by_hash:
        yield ()
        return
    with _open_file() as file:
        async with open_client() as client:
            found = [await _fetch_any(client, same, file, tell) for same in by_hash.values()]
        yield found


@asynccontextmanager
async def read_fetched(fetched: Fetched) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Yield the content of *fetched*, in parts."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, fetched.size_bytes, _PART_BYTES):
            size_bytes = min(_PART_BYTES, fetched.size_bytes - at)
            yield await asyncio.to_thread(_read_at, fetched.file, fetched.begin + at, size_bytes)

    yield parts()


async def _fetch_any(
    client: httpx.AsyncClient, same: Sequence[Wanted], file: BinaryIO, tell: TellProgress
) -> Fetched:
    """Return the content that all of *same* name, from the first of their addresses that returns it."""
    begin = file.tell()
    found = None
    for each in same:
        try:
            found = await _fetch(client, each, file, tell)
        except (DownloadFailed, DownloadRefused):
            file.seek(begin)
            if each is same[-1]:
                raise
        else:
            break
    assert found is not None  # the last one has raised
    for each in same:
        _refuse_other_size(each, found.size_bytes)
    return found


async def _fetch(
    client: httpx.AsyncClient, wanted: Wanted, file: BinaryIO, tell: TellProgress
) -> Fetched:
    import httpx

    url = httpx.URL(wanted.download.url)
    begin = file.tell()
    try:
        async with client.stream(
            "GET",
            url,
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
            extensions=say_named(url.netloc.decode("ascii")),
        ) as answer:
            _refuse_answer(wanted, answer)
            size_bytes = await _take(wanted, answer, file, tell)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        problem = describe_problem(error, within_s=TIMEOUT_S)
        raise DownloadFailed(
            f"{wanted}, which cannot be fetched: {problem}; look at that server and this machine's network, "
            f"{_LEFT_OUT}"
        ) from error
    return Fetched(sha256=wanted.download.sha256, size_bytes=size_bytes, begin=begin, file=file)


def _refuse_answer(wanted: Wanted, answer: httpx.Response) -> None:
    server = answer.url.netloc.decode("ascii")
    if answer.status_code != HTTPStatus.OK:
        raise DownloadFailed(
            f"{wanted}, and {server} answers {answer.status_code} {answer.reason_phrase}".rstrip()
            + f"; correct the address, or put the file there, {_LEFT_OUT}"
        )
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DownloadFailed(
            f"{wanted}, and {server} sends it packed, though it was asked for as it is; give an address that "
            f"gives the file itself, {_LEFT_OUT}"
        )
    length = str(answer.headers.get("Content-Length", ""))
    if length.isascii() and length.isdecimal():
        _refuse_other_size(wanted, int(length))


async def _take(wanted: Wanted, answer: httpx.Response, file: BinaryIO, tell: TellProgress) -> int:
    """Append what arrives to *file*. Return how many bytes that was: exactly what is wanted."""
    download, digest, size_bytes = wanted.download, hashlib.sha256(), 0
    async for part in answer.aiter_raw(_PART_BYTES):
        digest.update(part)
        size_bytes += len(part)
        if size_bytes > (download.size_bytes or ASSET_MAX_BYTES):
            _refuse_other_size(wanted, size_bytes, or_more=True)
        await asyncio.to_thread(_append, file, part)
        tell(f"fetching {download.name}", size_bytes, download.size_bytes)
    _refuse_other_size(wanted, size_bytes)
    if digest.hexdigest() != download.sha256:
        raise DownloadRefused(
            f"{wanted}, which has another content than sha256 {download.sha256[:12]}… says; look at what is "
            f"there now: if it is what you want, give its sha256, {_LEFT_OUT}"
        )
    return size_bytes


def _refuse_other_size(wanted: Wanted, size_bytes: int, *, or_more: bool = False) -> None:
    said_bytes = wanted.download.size_bytes
    has = f"{size_bytes} bytes{' or more' if or_more else ''}"
    if said_bytes is not None and size_bytes != said_bytes:
        _refuse(wanted, f"{has}, and size_bytes says {said_bytes}; correct sha256 and size_bytes")
    if size_bytes > ASSET_MAX_BYTES:
        _refuse(wanted, f"{has}, and at most {ASSET_MAX_BYTES // 1024**2} MiB are fetched")


def _refuse(wanted: Wanted, found: str) -> NoReturn:
    raise DownloadRefused(f"{wanted}, which has {found}, {_LEFT_OUT}")


def _open_file() -> BinaryIO:
    try:
        # Nameless, so that nothing is left of it, whatever ends this.
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise _no_room(error) from error


def _append(file: BinaryIO, part: bytes) -> None:
    left = memoryview(part)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(error) from error


def _read_at(file: BinaryIO, begin: int, size_bytes: int) -> bytes:
    file.seek(begin)
    return file.read(size_bytes)


def _no_room(error: OSError) -> UsageError:
    return UsageError(
        f"downloads cannot be kept in {tempfile.gettempdir()} until they are in the bundle: "
        f"{error.strerror}; make room there, or choose another place by TMPDIR"
    )
