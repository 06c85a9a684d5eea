"""The registry for one pull, asked as podman asks it."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import attrs
import pytest

from harmony_pi_topology.containers.nearby_registry import TAG, NearbyRegistry

LAYER = {"digest": f"sha256:{'1' * 64}", "size": 7}
ELSEWHERE = ["http://10.0.0.1/layer"]


@attrs.frozen
class OneBlob:
    """`Blobs` that are one."""

    content: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def find_size(self, digest: str) -> int | None:
        return len(self.content) if digest == self.digest else None

    def read(self, digest: str) -> Iterator[bytes]:
        assert digest == self.digest
        yield self.content


def ask(blob: OneBlob, name: str) -> tuple[int, bytes, str]:
    """The status, the content, and what was wrong with it, of its manifest asked for by *name*."""
    registry = NearbyRegistry(blob, blob.digest)
    registry.begin()
    host, _, secret = registry.repository.partition("/")
    try:
        with urllib.request.urlopen(f"http://{host}/v2/{secret}/manifests/{name}") as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    finally:
        registry.end()
    return status, content, registry.failure.message if registry.failure is not None else ""


def test_a_manifest_is_served_by_its_tag_and_by_its_digest() -> None:
    blob = OneBlob(json.dumps({"layers": [LAYER], "annotations": {"urls": "none"}}).encode())
    assert ask(blob, TAG) == (200, blob.content, "")
    assert ask(blob, blob.digest) == (200, blob.content, "")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"layers": [{**LAYER, "urls": ELSEWHERE}]}),
        json.dumps({"config": {**LAYER, "URLs": ELSEWHERE}}),
        json.dumps({"manifests": [{**LAYER, "url\u017f": ELSEWHERE}]}),
        '{"layers": [{"urls": ["http://10.0.0.1/layer"], "urls": []}]}',
    ],
)
def test_one_that_has_a_part_fetched_from_elsewhere_is_not(content: str) -> None:
    blob = OneBlob(content.encode())
    for name in (TAG, blob.digest):
        status, served, why = ask(blob, name)
        assert (status, served) == (404, b"{}")
        assert f"{blob.digest} has urls: parts of it are to be fetched from elsewhere" in why


@pytest.mark.parametrize("content", [b"{", b'{"a": "\xff"}', b"[" * 100_000])
def test_one_that_cannot_be_read_is_not_either(content: bytes) -> None:
    """podman might read in it what is not seen here."""
    status, _, why = ask(OneBlob(content), TAG)
    assert status == 404
    assert "is no JSON; save the image anew" in why
