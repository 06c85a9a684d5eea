"""Content that is too large for a manifest: known by its hash, and fetched by the device in pieces."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ._base import in_words

__all__ = ["ASSET_MAX_BYTES", "IMAGE_BLOB_MAX_BYTES", "Asset", "Hex64", "ImageBlob"]

ASSET_MAX_BYTES = 64 * 1024 * 1024
"""What a device hashes of one file at most, at each look; more belongs into an image."""
IMAGE_BLOB_MAX_BYTES = 2 * 1024 * 1024 * 1024
"""Of one part of an image: after it was fetched, podman looks after it, and nobody hashes it any more."""

Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256, or a key, in hex."""


class Asset(BaseModel):
    """Names content by its hash. The content itself is not here: an operator's push puts it, encrypted and in
    pieces, where devices fetch it from.

    `harmony_control.assets.read_asset` makes one of a file; `content_from` and `asset_from` do in YAML.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    sha256: Annotated[Hex64, in_words("write the SHA-256 of the content, as 64 hexadecimal digits")]
    """Hex, of the content as it is to be on the device."""
    size_bytes: Annotated[int, Field(strict=True, ge=1, le=ASSET_MAX_BYTES)]
    """Of the content."""
    name: Annotated[
        str,
        StringConstraints(pattern=r"^[^\x00-\x1f\x7f/]{1,255}$"),
        in_words("write a file's name, without the directories above it"),
    ]
    """What the file was called where it came from; only for people."""
    key: Annotated[Hex64 | None, Field(repr=False, exclude_if=lambda given: given is None)] = None
    """What opens it, in hex. A push writes it, so that it stands in a signed manifest and nowhere else."""

    @property
    def summary(self) -> str:
        """Name, size and the begin of the hash, for people."""
        return f"{self.name}, {self.size_bytes} bytes, sha256 {self.sha256[:12]}…"


class ImageBlob(Asset):
    """An asset that is a part of a container image: its manifest, its configuration or a layer.

    `harmony_control.assets.read_image` makes those of an archive; `image_from` does in YAML.
    """

    size_bytes: Annotated[int, Field(strict=True, ge=1, le=IMAGE_BLOB_MAX_BYTES)]
    """Of the content."""

    @property
    def digest(self) -> str:
        """Return how images name it."""
        return f"sha256:{self.sha256}"
