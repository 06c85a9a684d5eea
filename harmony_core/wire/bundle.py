"""A bundle: what stands on the server for one device, as one file that is carried to it.

    index.json | desired-state/<id> | trust/<version> … | fleet/index, rollout/…, desired-class/…
               | assets/<id> … | blobs/<sha256> … | downloads/<sha256> …

A plain tar archive, of which the index says every name, size and hash, in order. A header follows from the
name and the size alone, so that it is not parsed: any other byte in its place, such as of a link, is refused.
Nobody signs a bundle: the documents in it are signed, name their assets, downloads and images, and count as
they do on the bus.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self, cast

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harmony_core.errors import BundleRefused, ManifestRejected
from harmony_core.images import parse_image
from harmony_core.resources import ASSET_MAX_BYTES, Asset, first_problem

from . import strict_json
from .assets import CHUNK_BYTES, chunk_count
from .envelope import ENVELOPE_MAX_BYTES
from .manifest import API_VERSION
from .model_fields import AgentId, Part, ScoreId, UtcTime
from .names import ASSETS, DESIRED_CLASS, DESIRED_STATE, FLEET, INDEX_KEY, ROLLOUT, TRUST

__all__ = [
    "BLOBS",
    "BLOCK_BYTES",
    "DOWNLOADS",
    "END",
    "INDEX_MAX_BYTES",
    "INDEX_NAME",
    "BundleIndex",
    "BundledFile",
    "chunk_at",
    "find_pinned_images",
    "header_of",
    "index_size",
    "padding_of",
    "parse_index",
    "sealed_size",
]

INDEX_NAME = "index.json"
INDEX_MAX_BYTES = 2 * 1024 * 1024
BLOBS = "blobs"
"""What images consist of, by its hash; beside the names of buckets."""
DOWNLOADS = "downloads"
"""What lies on the web, by its hash. An agent that does not know them refuses the index."""
BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
_FILES_MOST = 10_000
_FILE_MAX_BYTES = 8 * 1024**3 - 1
"""What the size in a header of the oldest form can say."""
_MOST_BYTES = {ASSETS: _FILE_MAX_BYTES, BLOBS: _FILE_MAX_BYTES, DOWNLOADS: ASSET_MAX_BYTES}
"""Of what is no document."""
_SEAL_BYTES = 16
"""By so much a piece of an asset is longer than what it seals."""
_ID = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = (
    rf"^(?:{DESIRED_STATE}/{_ID}|{TRUST}/[1-9][0-9]{{0,9}}|{FLEET}/{INDEX_KEY}|{ROLLOUT}/{_ID}"
    rf"|{DESIRED_CLASS}/{_ID}\.[1-9][0-9]{{0,15}}|{ASSETS}/[0-9a-f]{{32}}|(?:{BLOBS}|{DOWNLOADS})/[0-9a-f]{{64}})$"
)
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class BundledFile(Part):
    """One file in a bundle."""

    name: Annotated[str, StringConstraints(pattern=_NAME, max_length=100)]
    """``<bucket>/<key>``; of an asset, all its pieces one behind the other; or ``blobs/<sha256>``, or
    ``downloads/<sha256>``."""
    sha256: _Sha256
    size_bytes: Annotated[int, Field(strict=True, ge=0, le=_FILE_MAX_BYTES)]

    @model_validator(mode="after")
    def _is_what_its_name_says(self) -> Self:
        bucket, _, key = self.name.partition("/")
        if bucket in {BLOBS, DOWNLOADS} and key != self.sha256:
            raise ValueError(f"{self.name} must have the hash that it is called by")
        most_bytes = _MOST_BYTES.get(bucket, ENVELOPE_MAX_BYTES)
        if self.size_bytes > most_bytes:
            raise ValueError(f"{self.name} must have at most {most_bytes} bytes")
        return self


class BundleIndex(Part):
    """What is in a bundle, and whom it is for."""

    api_version: Literal["harmony/v1"] = API_VERSION
    fleet: ScoreId
    agent_id: AgentId
    made_at: UtcTime
    """For people."""
    files: Annotated[
        tuple[BundledFile, ...], Field(min_length=1, max_length=_FILES_MOST, fail_fast=True)
    ]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        names = [each.name for each in self.files]
        if len(set(names)) < len(names):
            raise ValueError("files: each name must stand there once")
        manifests = [each for each in names if each.startswith(f"{DESIRED_STATE}/")]
        if manifests != [f"{DESIRED_STATE}/{self.agent_id}"]:
            raise ValueError(f"files: must have {DESIRED_STATE}/{self.agent_id}, and no other's")
        return self

    def to_bytes(self) -> bytes:
        """Return it as it is in the archive. Its length is the same, whatever the hashes are."""
        return strict_json.dumps(self.model_dump(mode="json"))


def parse_index(data: bytes) -> BundleIndex:
    """Read the index of a bundle. `BundleRefused`."""
    try:
        return BundleIndex.model_validate(strict_json.loads(data, max_bytes=INDEX_MAX_BYTES))
    except ManifestRejected as error:
        raise BundleRefused(f"the index of the bundle cannot be read: {error.message}") from error
    except ValidationError as error:
        raise BundleRefused(
            f"the index of the bundle is none that this agent knows: {first_problem(error)}; make the bundle "
            "anew, with a `harmony` of the agent's own version"
        ) from error


def header_of(name: str, size_bytes: int) -> bytes:
    """Return the header of the file *name* in the archive: always the same for the same file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii")


def index_size(header: bytes) -> int:
    """Return how many bytes the index has whose *header* begins an archive. `BundleRefused`."""
    try:
        size_bytes = tarfile.TarInfo.frombuf(header, "ascii", "strict").size
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise BundleRefused(
            "this is no bundle; name the file that `harmony bundle` has made"
        ) from error
    if not 0 < size_bytes <= INDEX_MAX_BYTES or header != header_of(INDEX_NAME, size_bytes):
        raise BundleRefused(
            "this is no bundle as `harmony bundle` makes it; name the file itself, not packed anew"
        )
    return size_bytes


def padding_of(size_bytes: int) -> int:
    """Return how many zero bytes follow a file of that size in the archive."""
    return -size_bytes % BLOCK_BYTES


def sealed_size(asset: Asset) -> int:
    """Return how many bytes all pieces of *asset* have."""
    return asset.size_bytes + chunk_count(asset) * _SEAL_BYTES


def chunk_at(number: int, size_bytes: int) -> tuple[int, int]:
    """Return where the piece *number* begins in an asset's file of that size, and how long it is; an empty
    range for a piece that it does not have."""
    piece_bytes = CHUNK_BYTES + _SEAL_BYTES
    begin = min(number * piece_bytes, size_bytes)
    return begin, min(piece_bytes, size_bytes - begin)


def find_pinned_images(spec: object) -> Iterator[str]:
    """Yield every image in *spec*, a Score's fields as they stand in a manifest, that is named by digest: no
    other text has that form."""
    if isinstance(spec, str):
        if "@sha256:" in spec and _is_pinned(spec):
            yield spec
    elif isinstance(spec, Mapping):
        for each in cast("Mapping[str, object]", spec).values():
            yield from find_pinned_images(each)
    elif isinstance(spec, list | tuple):
        for each in cast("list[object]", spec):
            yield from find_pinned_images(each)


def _is_pinned(text: str) -> bool:
    try:
        return parse_image(text).digest is not None
    except ValueError:
        return False
