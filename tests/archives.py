"""Images as archives, written as the image specification says it, and by nothing that Harmony has."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

__all__ = [
    "INDEX",
    "LAYER",
    "MANIFEST",
    "Archive",
    "busybox_layer",
    "called",
    "digest_of",
    "layer_of",
    "write_tar",
]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_LAYOUT = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
_APPLETS = ("sh", "httpd", "sleep", "cat", "echo", "test", "true")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A layer, as a tar that is not compressed: programs, and links by where they lead."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def busybox_layer(busybox: Path, ballast_bytes: int = 0) -> bytes:
    """A layer with a shell and a web server, and noise, which no compression makes smaller."""
    ballast = {"ballast": os.urandom(ballast_bytes)} if ballast_bytes else {}
    links = {f"bin/{each}": "busybox" for each in _APPLETS}
    page = {"www/index.html": b"hello\n"}
    return layer_of({"bin/busybox": busybox.read_bytes(), **page, **ballast}, links)


@attrs.define
class Archive:
    """What is to be in one archive: blobs by digest, and what index.json names."""

    blobs: dict[str, bytes] = attrs.Factory(dict[str, bytes])
    entries: list[dict[str, Any]] = attrs.Factory(list[dict[str, Any]])

    def add(self, content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Have *content* in it; what names it."""
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def add_json(self, value: object, media_type: str, **more: Any) -> dict[str, Any]:
        return self.add(json.dumps(value).encode(), media_type, **more)

    def add_image(
        self,
        *layers: bytes,
        command: Sequence[str] = ("sleep", "1000"),
        architecture: str = ARCHITECTURE,
        compressed: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """Have an image of these layers in it; what names its manifest."""
        packed = [
            self.add(gzip.compress(each, 1, mtime=0), LAYER)
            if compressed
            else self.add(each, LAYER.removesuffix("+gzip"))
            for each in layers
        ]
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add_json(config, CONFIG),
            "layers": packed,
        }
        of = {"architecture": architecture, "os": "linux"}
        return self.add_json(manifest, MANIFEST, platform=of, **more)

    def add_index(self, *manifests: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Have an index of images of several platforms in it; what names that."""
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return self.add_json(index, INDEX, **more)

    def members(self, *entries: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of an archive of which *entries* are the images."""
        index = {"schemaVersion": 2, "manifests": list(entries)}
        blobs = {f"blobs/sha256/{digest[7:]}": each for digest, each in self.blobs.items()}
        return {**_LAYOUT, "index.json": json.dumps(index).encode(), **blobs}


def called(name: str) -> dict[str, Any]:
    """What an archive says where podman has saved the image *name*."""
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
