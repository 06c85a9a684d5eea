"""A bundle on this device: an open file, whole, from which is fetched as from the bus.

    open -> index -> every header -> check: every hash, and every piece of every asset -> fetch_…, read…

What is read again later may be something else by then, since who has made the stick may make it say so. So
whoever takes it compares: documents are verified, pieces opened, downloads hashed, and podman hashes what
images consist of.
The file is read in a few threads, never beyond what its index says, and never more than a part of it is in
memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from typing import Self

import attrs

from harmony_core.errors import (
    AssetDamaged,
    BundleRefused,
    BusUnreachable,
    CapabilityError,
    ManifestRejected,
)
from harmony_core.resources import Asset
from harmony_core.visible import cut, word
from harmony_core.wire import strict_json
from harmony_core.wire.assets import asset_id, chunk_count, find_assets, find_downloads, open_chunk
from harmony_core.wire.bundle import (
    BLOBS,
    BLOCK_BYTES,
    DOWNLOADS,
    END,
    INDEX_NAME,
    BundledFile,
    BundleIndex,
    chunk_at,
    header_of,
    index_size,
    padding_of,
    parse_index,
    sealed_size,
)
from harmony_core.wire.class_manifest import CLASS_TYPE
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES, PAYLOAD_TYPE, split_envelope
from harmony_core.wire.names import (
    ASSETS,
    DESIRED_CLASS,
    DESIRED_STATE,
    FLEET,
    INDEX_KEY,
    ROLLOUT,
    TRUST,
)
from harmony_pi_topology.common.worker import Worker

__all__ = ["Bundle"]

_PART_BYTES = 1024 * 1024
_SHOWN_MOST = 160
_READ_WITHIN_S = 60.0
"""So long a part may take of what is slow, and not longer what hangs."""


@attrs.frozen
class _Place:
    """Where a file is in the archive."""

    file: BundledFile
    begin: int


class Bundle:
    """One bundle, as `open` has found it. `close` it."""

    def __init__(self, descriptor: int, index: BundleIndex, places: dict[str, _Place]) -> None:
        self._descriptor = descriptor
        self.index = index
        self._places = places
        self._worker = Worker("bundle", threads=2, timeout_s=_READ_WITHIN_S)
        self._lock = threading.Lock()
        self._is_over = False
        self.trouble: BundleRefused | None = None
        """Why it cannot be read any more; None while it can."""
        self.checked_bytes = 0
        self.size_bytes = sum(each.size_bytes for each in index.files)

    @classmethod
    def open(cls, descriptor: int, *, fleet: str, agent_id: str) -> Self:
        """Read the index and every header, from an open file that belongs to this bundle from now on. Call it
        in a thread.

        Raise `BundleRefused` for what is no bundle, not complete, or another device's; the file is closed
        then.
        """
        try:
            return cls(descriptor, *_read_layout(descriptor, fleet=fleet, agent_id=agent_id))
        except BaseException:
            os.close(descriptor)
            raise

    def check(self) -> None:
        """Read all of it, and compare every hash; open every piece of the assets that its documents name, and
        compare the sizes of downloads with theirs.

        Call it in a thread. Raise `BundleRefused`.
        """
        for place in self._places.values():
            digest = hashlib.sha256()
            for part in self._read_parts(place):
                digest.update(part)
                self.checked_bytes += len(part)
            if digest.hexdigest() != place.file.sha256:
                raise BundleRefused(
                    f"{place.file.name} in the bundle is damaged: it has another hash than the index says; "
                    "copy it again, or make it anew"
                )
        for payload in self._read_payloads():
            for asset in find_assets(payload):
                if asset.key is not None:
                    self._check_asset(asset)
            for download in find_downloads(payload):
                self._check_download(download)

    def put_away(self) -> None:
        """Read nothing more, whoever asks: then `close` waits only for what is being read."""
        self._is_over = True

    def close(self) -> None:
        """Close the file. In a thread."""
        self.put_away()
        with self._lock:
            os.close(self._descriptor)
        self._worker.close()

    # As `harmony_agent.bus.connection.Bus` has it.

    async def fetch_desired(self) -> bytes:
        """Return this device's own manifest, sealed. Raise `BusUnreachable`, as all that follows."""
        found = await self._fetch(f"{DESIRED_STATE}/{self.index.agent_id}")
        assert found is not None  # the index has it
        return found

    async def fetch_root(self, version: int) -> bytes | None:
        """Return that version of the root document; None where it is not in here."""
        return await self._fetch(f"{TRUST}/{version}")

    async def fetch_index(self) -> bytes | None:
        """Return the fleet index; None where it is not in here."""
        return await self._fetch(f"{FLEET}/{INDEX_KEY}")

    async def fetch_gate(self, name: str) -> bytes | None:
        """Return the gate of the class *name*; None where it is not in here."""
        return await self._fetch(f"{ROLLOUT}/{name}")

    async def fetch_class_manifest(self, name: str, generation: int) -> bytes:
        """Return that generation of the class *name*; `BusUnreachable` also where it is not in here."""
        found = await self._fetch(f"{DESIRED_CLASS}/{name}.{generation}")
        if found is None:
            raise BusUnreachable(f"generation {generation} of class {name} is not in the bundle")
        return found

    async def fetch_chunk(self, key: str) -> bytes | None:
        """Return that piece of an asset; None where it is not in here."""
        _, _, rest = key.partition(".")
        name, _, number = rest.partition(".")
        place = self._places.get(f"{ASSETS}/{name}")
        if place is None:
            return None
        begin, size_bytes = chunk_at(int(number), place.file.size_bytes)
        return await self._run(place, begin, size_bytes)

    async def _fetch(self, name: str) -> bytes | None:
        place = self._places.get(name)
        return None if place is None else await self._run(place, 0, place.file.size_bytes)

    async def _run(self, place: _Place, begin: int, size_bytes: int) -> bytes:
        try:
            if self._is_over:
                raise _closed()
            return await self._worker.run(self._read, place, begin, size_bytes)
        except CapabilityError as error:  # it hangs
            self.trouble = BundleRefused(f"the bundle cannot be read any further: {error.message}")
            raise BusUnreachable(self.trouble.message) from error
        except BundleRefused as error:
            raise BusUnreachable(error.message) from error

    # As `harmony_agent.store.assets.Nearby` has it.

    def find_download(self, sha256: str) -> int | None:
        place = self._places.get(f"{DOWNLOADS}/{sha256}")
        return None if place is None else place.file.size_bytes

    async def read_download(self, sha256: str, begin: int, size_bytes: int) -> bytes:
        return await self._run(self._places[f"{DOWNLOADS}/{sha256}"], begin, size_bytes)

    # As `harmony_core.nearby.Blobs` has it.

    def find_size(self, digest: str) -> int | None:
        place = self._places.get(f"{BLOBS}/{digest.removeprefix('sha256:')}")
        return None if place is None else place.file.size_bytes

    def read(self, digest: str) -> Iterator[bytes]:
        return self._read_parts(self._places[f"{BLOBS}/{digest.removeprefix('sha256:')}"])

    # From here on in a thread.

    def _read_parts(self, place: _Place) -> Iterator[bytes]:
        for begin in range(0, place.file.size_bytes, _PART_BYTES):
            yield self._read(place, begin, min(_PART_BYTES, place.file.size_bytes - begin))

    def _read(self, place: _Place, begin: int, size_bytes: int) -> bytes:
        with self._lock:  # what is closed may be another file by now
            if self._is_over:
                raise _closed()
            try:
                return _read_at(self._descriptor, place.begin + begin, size_bytes)
            except BundleRefused as error:
                self.trouble = error
                raise

    def _read_payloads(self) -> Iterator[object]:
        """Yield the content of each manifest in here, whoever has signed it."""
        for name, place in self._places.items():
            bucket = name.partition("/")[0]
            payload_type = {DESIRED_STATE: PAYLOAD_TYPE, DESIRED_CLASS: CLASS_TYPE}.get(bucket)
            if payload_type is None:
                continue
            try:
                envelope = self._read(place, 0, place.file.size_bytes)
                payload, _ = split_envelope(envelope, payload_type=payload_type)
                yield strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES)
            except ManifestRejected as error:
                raise BundleRefused(f"{name} in the bundle: {error.message}") from error

    def _check_asset(self, asset: Asset) -> None:
        place = self._places.get(f"{ASSETS}/{asset_id(asset)}")
        if place is None:
            return  # the device may have it
        if place.file.size_bytes != sealed_size(asset):
            raise BundleRefused(f"{asset.summary} has another size in the bundle; make it anew")
        for number in range(chunk_count(asset)):
            sealed = self._read(place, *chunk_at(number, place.file.size_bytes))
            try:
                open_chunk(asset, number, sealed)
            except AssetDamaged as error:
                raise BundleRefused(
                    f"piece {number} of {asset.summary} in the bundle is not what was pushed; make it anew"
                ) from error

    def _check_download(self, download: Mapping[str, object]) -> None:
        size_bytes = self.find_download(str(download["sha256"]))
        said_bytes = download.get("size_bytes", size_bytes)
        if size_bytes is not None and said_bytes != size_bytes:
            address = word(cut(str(download["url"]).partition("?")[0], _SHOWN_MOST))
            raise BundleRefused(
                f"{address} has {size_bytes} bytes in the bundle, and size_bytes of its Score is another; "
                "correct that, and make the bundle anew"
            )


def _closed() -> BundleRefused:
    return BundleRefused("the bundle is not open any more; load it again")


def _read_layout(
    descriptor: int, *, fleet: str, agent_id: str
) -> tuple[BundleIndex, dict[str, _Place]]:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise BundleRefused("a bundle is read from a file; name one, or copy it into one first")
    header = _read_at(descriptor, 0, BLOCK_BYTES)
    size_bytes = index_size(header)
    text = _read_at(descriptor, BLOCK_BYTES, size_bytes)
    index = parse_index(text)
    _refuse_other(index, fleet=fleet, agent_id=agent_id)
    at = BLOCK_BYTES + size_bytes
    at = _skip_padding(descriptor, at, size_bytes, INDEX_NAME)
    places: dict[str, _Place] = {}
    for file in index.files:
        if _read_at(descriptor, at, BLOCK_BYTES) != header_of(file.name, file.size_bytes):
            raise BundleRefused(
                f"the bundle has something else where {file.name} of {file.size_bytes} bytes is to "
                "begin; copy it again, or make it anew"
            )
        places[file.name] = _Place(file, at + BLOCK_BYTES)
        end = at + BLOCK_BYTES + file.size_bytes
        at = _skip_padding(descriptor, end, file.size_bytes, file.name)
    if _read_at(descriptor, at, len(END)) != END or os.fstat(descriptor).st_size > at + len(END):
        raise BundleRefused("the bundle does not end where its index says; make it anew")
    return index, places


def _refuse_other(index: BundleIndex, *, fleet: str, agent_id: str) -> None:
    if (index.fleet, index.agent_id) != (fleet, agent_id):
        raise BundleRefused(
            f"the bundle is for {index.agent_id} of the fleet {index.fleet}, and this is {agent_id} of "
            f"{fleet}; make one for this device: harmony bundle {agent_id} FILE"
        )


def _skip_padding(descriptor: int, end: int, size_bytes: int, name: str) -> int:
    """Return where the next header begins after a file of that size."""
    padding = padding_of(size_bytes)
    if any(_read_at(descriptor, end, padding)):
        raise BundleRefused(f"the bundle has something behind {name} that is not in its index")
    return end + padding


def _read_at(descriptor: int, begin: int, size_bytes: int) -> bytes:
    """Return exactly so many bytes. `BundleRefused`."""
    parts: list[bytes] = []
    left = size_bytes
    while left:
        try:
            part = os.pread(descriptor, left, begin + size_bytes - left)
        except OSError as error:
            raise BundleRefused(
                f"the bundle cannot be read any further: {error.strerror}; is the stick still there? Put it "
                "in, and load it again"
            ) from error
        if not part:
            raise BundleRefused(
                "the bundle ends before it is whole; copy it again, and eject the stick before it is taken "
                "out"
            )
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
