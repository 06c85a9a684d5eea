"""References to container images: which are accepted, and how a tag is told from a digest.

Accepted is what names a registry outright: ``registry/path:tag`` or ``registry/path@sha256:…``. Short
names (``nginx``) mean different images on different machines, and other transports (``oci-archive:``,
``dir:``) read the device's own files; both are refused.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import attrs
from pydantic import AfterValidator, Field

__all__ = ["ImageName", "ImageRef", "names_elsewhere", "parse_image"]

_REFERENCE = re.compile(
    r"(?P<registry>(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[0-9]{1,5})?)"
    r"/(?P<repository>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)


@attrs.frozen(kw_only=True)
class ImageName:
    """The parts of a reference. Without tag and digest, the tag is ``latest``."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def at(self, digest: str) -> str:
        """Return the same image, pinned to *digest*; the tag stays for people to read."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}@{digest}"

    @property
    def pull(self) -> str:
        """What to ask a registry or podman for: by digest where there is one."""
        name = f"{self.registry}/{self.repository}"
        return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag or 'latest'}"


def parse_image(reference: str) -> ImageName:
    """Split *reference*, or raise ValueError with the remedy."""
    match = _REFERENCE.match(reference)
    registry = match["registry"] if match else ""
    if match is None or not ("." in registry or ":" in registry or registry == "localhost"):
        raise ValueError(
            "not a full image reference; write registry/path:tag or registry/path@sha256:…, "
            "as in docker.io/library/nginx:1.29"
        )
    return ImageName(
        registry=registry,
        repository=match["repository"],
        tag=match["tag"],
        digest=match["digest"],
    )


def names_elsewhere(document: bytes) -> bool:
    """Return whether a manifest or an index has `urls`, which have a part of it fetched from another place.

    Upper and lower case are the same: podman, which is written in Go, takes ``URLS`` for it too. Raise
    ValueError or RecursionError for what is no JSON.
    """
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        # What is a text is none, as an annotation that is called so.
        found.extend(
            key
            for key, value in pairs
            if key.casefold() == "urls" and value and not isinstance(value, str)
        )

    json.loads(document, object_pairs_hook=look)
    return bool(found)


def _check(reference: str) -> str:
    parse_image(reference)
    return reference


class _ImageMark:
    """Marks the fields of a Score that hold an image, so that a push can resolve their tags."""


IMAGE_MARK = _ImageMark()
ImageRef = Annotated[str, Field(max_length=512), AfterValidator(_check), IMAGE_MARK]
