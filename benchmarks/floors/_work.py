"""What several floors do: open an envelope, read a manifest, write files safely one by one."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey
from pydantic import BaseModel

__all__ = ["Entry", "FileSpec", "Manifest", "opened", "write"]


class Entry(BaseModel):
    id: str
    kind: str
    version: int
    spec: dict[str, Any]
    after: tuple[str, ...] = ()


class Manifest(BaseModel):
    fleet: str
    target: str
    generation: int
    scores: tuple[Entry, ...]


class FileSpec(BaseModel):
    path: str
    content: str


def opened(envelope: bytes, key: VerifyKey) -> bytes:
    fields = json.loads(envelope)
    payload = base64.b64decode(fields["payload"], validate=True)
    kind = fields["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    key.verify(signed, base64.b64decode(fields["signatures"][0]["sig"]))
    return payload


def write(root: Path, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        spec = FileSpec.model_validate(entry.spec)
        path = root / spec.path[1:]
        if not path.exists() or path.read_bytes() != spec.content.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, spec.content.encode())


def _replace(path: Path, content: bytes) -> None:
    with path.with_suffix(".new").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.with_suffix(".new").rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
