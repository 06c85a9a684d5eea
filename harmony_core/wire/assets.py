"""Assets on the wire: content in pieces, each encrypted, by the key that stands in a signed manifest.

    content -> pieces of `CHUNK_BYTES` -> XChaCha20-Poly1305, by the asset's key -> bucket ``assets``
                                          nonce: the piece's number
                                          key: ``<first digit of the id>.<id>.<number>``

The id is a hash of the key, so that it tells nothing of the content: who has no manifest with the key can
neither read a piece nor find out whether content that they know, or guess, is there. A key belongs to one
content, hence a nonce is never used for two texts. What a piece is, and of how many, is bound in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from harmony_core.errors import AssetDamaged, InvalidResource
from harmony_core.resources import ASSET_MAX_BYTES, Asset, ImageBlob

__all__ = [
    "CHUNK_BYTES",
    "asset_id",
    "chunk_count",
    "chunk_key",
    "find_assets",
    "find_downloads",
    "find_fetched",
    "find_files",
    "key_prefix",
    "map_assets",
    "open_chunk",
    "seal_chunk",
]

CHUNK_BYTES = 256 * 1024
"""Of content in one piece: on a line of 10 kB/s it comes in half a minute, and is all that a cut costs."""
_FIELDS = {"sha256", "size_bytes", "name"}
_IMAGE_BLOBS = "image_blobs"
_OF_DOWNLOAD = {"url", "sha256"}
_SHA256 = re.compile("[0-9a-f]{64}")


def asset_id(asset: Asset) -> str:
    """Return the id by which its pieces are found. Raise `InvalidResource` for one that was never pushed."""
    return hashlib.blake2b(_key(asset), digest_size=16, person=b"harmony-asset-id").hexdigest()


def chunk_count(asset: Asset) -> int:
    """Return how many pieces it has."""
    return -(-asset.size_bytes // CHUNK_BYTES)


def chunk_key(asset: Asset, number: int) -> str:
    """Return the bucket's key of the piece *number*, from 0 on."""
    return f"{key_prefix(asset_id(asset))}.{number}"


def key_prefix(name: str) -> str:
    """Return the beginning of the keys of all pieces of the asset whose id is *name*.

    It has a part with few values, since who lists what is there gets one message for each.
    """
    return f"{name[0]}.{name}"


def seal_chunk(asset: Asset, number: int, plain: bytes) -> bytes:
    """Return the piece *number* of *asset*, encrypted. The same content gives the same bytes."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt  # noqa: PLC0415 - few have assets

    sealed: bytes = crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, _bound(asset, number), _nonce(number), _key(asset)
    )
    return sealed


def open_chunk(asset: Asset, number: int, sealed: bytes) -> bytes:
    """Return the content of the piece *number* of *asset*. Raise `AssetDamaged` for anything else."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt  # noqa: PLC0415 - as above
    from nacl.exceptions import CryptoError  # noqa: PLC0415 - as above

    try:
        plain: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed, _bound(asset, number), _nonce(number), _key(asset)
        )
    except (CryptoError, ValueError) as error:
        raise AssetDamaged(
            f"piece {number} of {asset.summary} is not what was pushed; on an operator's machine: harmony "
            f"assets remove {asset_id(asset)}, and push it again from its file"
        ) from error
    wanted = min(CHUNK_BYTES, asset.size_bytes - number * CHUNK_BYTES)
    if len(plain) != wanted:
        raise AssetDamaged(
            f"piece {number} of {asset.summary} has {len(plain)} bytes instead of {wanted}; on an operator's "
            f"machine: harmony assets remove {asset_id(asset)}, and push it again from its file"
        )
    return plain


def find_assets(spec: object) -> Iterator[Asset]:
    """Yield every asset in *spec*, a Score's fields as they stand in a manifest."""
    for each in _walk(spec):
        if (asset := _read(each)) is not None:
            yield asset


def find_fetched(spec: object) -> Iterator[str]:
    """Yield the hash of every asset and download in *spec*: of all that a device keeps for it."""
    for each in _walk(spec):
        if (asset := _read(each)) is not None:
            yield asset.sha256
        elif (download := _read_download(each)) is not None:
            yield str(download["sha256"])


def find_downloads(spec: object) -> Iterator[Mapping[str, object]]:
    """Yield every download in *spec*, as it is written: its address may have references, its hash has
    none."""
    for each in _walk(spec):
        if (download := _read_download(each)) is not None:
            yield download


def find_files(spec: object) -> Iterator[str]:
    """Yield the hash of every asset and download in *spec* that is the content of a file.

    The other ones are parts of images, which podman keeps.
    """
    yield from find_fetched(_without_image_blobs(spec))


def _without_image_blobs(spec: object) -> object:
    if isinstance(spec, dict):
        return {
            name: _without_image_blobs(each)
            for name, each in cast("dict[str, object]", spec).items()
            # Only a list: it may be how somebody calls a file.
            if name != _IMAGE_BLOBS or not isinstance(each, list)
        }
    if isinstance(spec, list):
        return [_without_image_blobs(each) for each in cast("list[object]", spec)]
    return spec


def _walk(spec: object) -> Iterator[object]:
    """Yield *spec* and all that is in it."""
    yield spec
    if isinstance(spec, dict):
        for each in cast("dict[str, object]", spec).values():
            yield from _walk(each)
    elif isinstance(spec, list):
        for each in cast("list[object]", spec):
            yield from _walk(each)


def map_assets(spec: object, change: Callable[[Asset], Asset]) -> Any:
    """Return *spec* with *change* made to every asset in it; nothing of *spec* itself is changed."""
    if (asset := _read(spec)) is not None:
        return change(asset).model_dump(mode="json")
    if isinstance(spec, dict):
        return {
            name: map_assets(each, change) for name, each in cast("dict[str, object]", spec).items()
        }
    if isinstance(spec, list):
        return [map_assets(each, change) for each in cast("list[object]", spec)]
    return spec


def _read_download(value: object) -> Mapping[str, object] | None:
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, object]", value)
    if fields.keys() - {"size_bytes"} != _OF_DOWNLOAD:
        return None
    sha256 = fields["sha256"]
    return fields if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None


def _read(value: object) -> Asset | None:
    """Return the asset that *value* is: no field of anything else has just these names and values.

    What is larger than a file may be is an `ImageBlob`.
    """
    if not isinstance(value, dict) or cast("dict[str, object]", value).keys() - {"key"} != _FIELDS:
        return None
    size_bytes = cast("dict[str, object]", value)["size_bytes"]
    is_large = isinstance(size_bytes, int) and size_bytes > ASSET_MAX_BYTES
    try:
        return (ImageBlob if is_large else Asset).model_validate(value)
    except ValidationError:
        return None


def _key(asset: Asset) -> bytes:
    if asset.key is None:
        raise InvalidResource(
            f"{asset.summary} has no key, so that nobody could have fetched it; push its Score with `harmony`"
        )
    return bytes.fromhex(asset.key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(24, "big")


def _bound(asset: Asset, number: int) -> bytes:
    return f"{asset_id(asset)} {number} {chunk_count(asset)}".encode()
