"""Names of images as people write them for Docker and podman, where a registry may be left out."""

from __future__ import annotations

__all__ = ["with_registry"]


def with_registry(image: str) -> str:
    """Return *image* with its registry: Docker Hub's, where it names none."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
