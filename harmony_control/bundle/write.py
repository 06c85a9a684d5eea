"""Write a bundle: an index first, then every file behind it, one part at a time in memory.

downloads are fetched; of all else sizes are known before -> room for the index
          -> each file, hashed as it is written -> the index, with the hashes, into its room
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO, TypeAlias

import attrs
from nats.aio.client import Client
from pydantic import ValidationError

from harmony_control.bus.connection import Bucket
from harmony_control.bus.volume_data import TellProgress
from harmony_control.registry import RegistryClient, open_registries
from harmony_core.errors import UsageError
from harmony_core.resources import Asset, first_problem
from harmony_core.wire.assets import asset_id, chunk_count, chunk_key
from harmony_core.wire.bundle import (
    BLOBS,
    DOWNLOADS,
    END,
    INDEX_MAX_BYTES,
    INDEX_NAME,
    BundledFile,
    BundleIndex,
    header_of,
    padding_of,
    sealed_size,
)
from harmony_core.wire.names import ASSETS

from .collect import Contents
from .downloads import Fetched, fetch_downloads, read_fetched
from .images import Blob, Platform, find_blobs, read_blob

__all__ = ["Bundled", "write_bundle"]

_Parts: TypeAlias = AbstractAsyncContextManager[AsyncIterator[bytes]]
_UNKNOWN = "0" * 64


@attrs.frozen(kw_only=True)
class Bundled:
    """What was written."""

    generation: int
    size_bytes: int
    documents: int
    assets: int
    downloads: int
    images: int
    platform: str


@attrs.frozen(kw_only=True)
class _Source:
    """One file of the bundle, and where its content comes from."""

    name: str
    size_bytes: int
    sha256: str = _UNKNOWN
    read: Callable[[], _Parts]


async def write_bundle(
    file: BinaryIO,
    contents: Contents,
    client: Client,
    platform: Platform,
    *,
    tell: TellProgress,
) -> Bundled:
    """Write *contents* to *file*, at its beginning, with the parts of the images for *platform*.

    Raise `UsageError` where a piece of an asset is no longer on the server, where the file cannot take more,
    or for more than a bundle has room for; and what `find_blobs` and `fetch_downloads` raise.
    """
    async with (
        open_registries() as registries,
        fetch_downloads(contents.downloads, tell) as fetched,
    ):
        blobs = await find_blobs(registries, contents.images, platform)
        sources = [*_list_sources(contents, client, registries, blobs, fetched)]
        await _write(file, contents, sources, tell)
    return Bundled(
        generation=contents.generation,
        size_bytes=file.tell(),
        documents=len(contents.documents),
        assets=len(contents.assets),
        downloads=len(fetched),
        images=len(contents.images),
        platform=str(platform),
    )


def _list_sources(
    contents: Contents,
    client: Client,
    registries: RegistryClient,
    blobs: Sequence[Blob],
    fetched: Sequence[Fetched],
) -> list[_Source]:
    documents = [
        _Source(name=name, size_bytes=len(content), read=partial(_give, content))
        for name, content in contents.documents.items()
    ]
    assets = [
        _Source(
            name=f"{ASSETS}/{asset_id(each)}",
            size_bytes=sealed_size(each),
            read=partial(_read_asset, client, each),
        )
        for each in contents.assets
    ]
    parts = [
        _Source(
            name=f"{BLOBS}/{each.digest.removeprefix('sha256:')}",
            size_bytes=each.size_bytes,
            sha256=each.digest.removeprefix("sha256:"),
            read=partial(read_blob, registries, each)
            if each.content is None
            else partial(_give, each.content),
        )
        for each in blobs
    ]
    downloads = [
        _Source(
            name=f"{DOWNLOADS}/{each.sha256}",
            size_bytes=each.size_bytes,
            sha256=each.sha256,
            read=partial(read_fetched, each),
        )
        for each in fetched
    ]
    return [*documents, *assets, *parts, *downloads]


async def _write(
    file: BinaryIO, contents: Contents, sources: Sequence[_Source], tell: TellProgress
) -> None:
    index = _make_index(contents, sources, {})
    text = index.to_bytes()
    if len(text) > INDEX_MAX_BYTES:
        raise UsageError(
            "there are more files than a bundle has room for; have the device need less"
        )
    whole = sum(each.size_bytes for each in sources)
    await asyncio.to_thread(_put, file, header_of(INDEX_NAME, len(text)))
    await asyncio.to_thread(_put, file, text + bytes(padding_of(len(text))))
    hashes: dict[str, str] = {}
    done = 0
    for source in sources:
        await asyncio.to_thread(_put, file, header_of(source.name, source.size_bytes))
        digest, size_bytes = hashlib.sha256(), 0
        async with source.read() as parts:
            async for part in parts:
                digest.update(part)
                size_bytes += len(part)
                await asyncio.to_thread(_put, file, part)
                tell("writing", done + size_bytes, whole)
        if size_bytes != source.size_bytes:
            raise UsageError(f"{source.name} has changed meanwhile; make the bundle again")
        done += size_bytes
        hashes[source.name] = digest.hexdigest()
        await asyncio.to_thread(_put, file, bytes(padding_of(size_bytes)))
    await asyncio.to_thread(_put, file, END)
    await asyncio.to_thread(_put_index, file, _make_index(contents, sources, hashes, index))


def _make_index(
    contents: Contents,
    sources: Sequence[_Source],
    hashes: Mapping[str, str],
    before: BundleIndex | None = None,
) -> BundleIndex:
    try:
        return BundleIndex(
            fleet=contents.fleet,
            agent_id=contents.agent_id,
            made_at=before.made_at if before is not None else datetime.now(UTC),
            files=tuple(
                BundledFile(
                    name=each.name,
                    sha256=hashes.get(each.name, each.sha256),
                    size_bytes=each.size_bytes,
                )
                for each in sources
            ),
        )
    except ValidationError as error:
        raise UsageError(
            f"this is more than a bundle has room for: {first_problem(error)}; have the device need less"
        ) from error


def _put(file: BinaryIO, content: bytes) -> None:
    with _told_as_usage():
        file.write(content)


def _put_index(file: BinaryIO, index: BundleIndex) -> None:
    text = index.to_bytes()
    with _told_as_usage():  # what is buffered is written by then
        end = file.tell()
        file.seek(len(header_of(INDEX_NAME, len(text))))
        file.write(text)
        file.seek(end)


@contextmanager
def _told_as_usage() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the bundle cannot be written: {error.strerror}; make room, or choose another place"
        ) from error


@asynccontextmanager
async def _give(content: bytes) -> AsyncGenerator[AsyncIterator[bytes]]:
    async def parts() -> AsyncIterator[bytes]:
        yield content

    yield parts()


@asynccontextmanager
async def _read_asset(client: Client, asset: Asset) -> AsyncGenerator[AsyncIterator[bytes]]:
    bucket = Bucket(client, ASSETS)

    async def parts() -> AsyncIterator[bytes]:
        for number in range(chunk_count(asset)):
            if (found := await bucket.get(chunk_key(asset, number))) is None:
                raise UsageError(
                    f"piece {number} of {asset.summary} is not on the server; push its Score again from "
                    "where the file is"
                )
            yield found.value

    yield parts()
