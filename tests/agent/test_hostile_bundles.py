"""Whatever lies on a stick: a bundle is whole and as it is specified, or nothing of it counts."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from harmony_agent.store.bundle import Bundle
from harmony_core.errors import BundleRefused, BusUnreachable
from harmony_core.resources import ASSET_MAX_BYTES
from tests.bundles import pack

BLOB = random.Random(1).randbytes(3000)
NAME = "blobs/" + hashlib.sha256(BLOB).hexdigest()
DOWNLOAD = random.Random(5).randbytes(700)
DOWNLOADED = hashlib.sha256(DOWNLOAD).hexdigest()
FILES = {
    "desired-state/pi-1": b'{"payload":',
    "trust/1": b"root",
    NAME: BLOB,
    f"downloads/{DOWNLOADED}": DOWNLOAD,
}


def opened(path: Path) -> Bundle:
    return Bundle.open(os.open(path, os.O_RDONLY), fleet="home", agent_id="pi-1")


def linked(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""  # that by which they were listed


def look(path: Path, content: bytes) -> None:
    """Open and check it, as it is loaded; whatever it raises, no descriptor is left."""
    path.write_bytes(content)
    try:
        bundle = opened(path)
        try:
            bundle.check()
        finally:
            bundle.close()
    finally:
        assert str(path) not in map(linked, Path("/proc/self/fd").iterdir())


def test_what_is_packed_as_it_is_specified_is_whole_but_for_what_no_device_reads(
    tmp_path: Path,
) -> None:
    with pytest.raises(BundleRefused, match="desired-state/pi-1 in the bundle"):
        look(tmp_path / "bundle", pack(FILES))
    bundle = opened(tmp_path / "bundle")
    assert bundle.find_size(f"sha256:{NAME[6:]}") == len(BLOB)
    assert b"".join(bundle.read(f"sha256:{NAME[6:]}")) == BLOB
    assert bundle.find_size(f"sha256:{'0' * 64}") is None
    # What is downloaded is no image, and the other way round.
    assert bundle.find_download(DOWNLOADED) == len(DOWNLOAD)
    assert bundle.find_size(f"sha256:{DOWNLOADED}") is bundle.find_download(NAME[6:]) is None
    bundle.close()


def test_cut_short_anywhere_it_is_refused(tmp_path: Path) -> None:
    whole = pack(FILES)
    for length in {*range(0, len(whole), 97), 511, 512, 513, len(whole) - 1}:
        with pytest.raises(BundleRefused):
            look(tmp_path / "bundle", whole[:length])


def test_with_any_byte_changed_it_is_refused(tmp_path: Path) -> None:
    """Also in a header, in what fills up a block, and behind the end."""
    whole = pack(FILES)
    chance = random.Random(2)
    for at in {*chance.sample(range(len(whole)), 300), 0, 156, 512, len(whole) - 1}:
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(8)
        if json_is_the_same(whole, bytes(changed)):
            continue
        with pytest.raises(BundleRefused):
            look(tmp_path / "bundle", bytes(changed))
    with pytest.raises(BundleRefused, match="does not end where its index says"):
        look(tmp_path / "bundle", whole + bytes(512))


def json_is_the_same(one: bytes, other: bytes) -> bool:
    """Whether only the time in the index is another one, which is for people."""
    begin = one.index(b"made_at")
    return one[:begin] == other[:begin] and one[begin + 40 :] == other[begin + 40 :]


def archive(*entries: tuple[tarfile.TarInfo, bytes], of: dict[str, bytes] = FILES) -> bytes:
    """A tar archive that begins with a true index of *of*."""
    first = pack(of)
    with tarfile.open(fileobj=io.BytesIO(first)) as made:
        text = made.extractfile("index.json")
        assert text is not None
        index = text.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as made:
        head = tarfile.TarInfo("index.json")
        head.size = len(index)
        made.addfile(head, io.BytesIO(index))
        for entry, content in entries:
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


MANIFEST = FILES["desired-state/pi-1"]


@pytest.mark.parametrize(
    "content",
    [
        archive(entry("desired-state/pi-1", type=tarfile.SYMTYPE, linkname="/etc/shadow")),
        archive(entry("desired-state/pi-1", type=tarfile.LNKTYPE, linkname="/etc/shadow")),
        archive(entry("desired-state/pi-1", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
        archive(entry("desired-state/pi-1", type=tarfile.FIFOTYPE)),
        archive(entry("desired-state/pi-1", type=tarfile.DIRTYPE)),
        archive(entry("../../etc/passwd", MANIFEST)),
        archive(entry("/etc/passwd", MANIFEST)),
        archive(entry("trust/1", b"root"), entry("desired-state/pi-1", MANIFEST)),
        archive(entry("desired-state/pi-1", MANIFEST, uid=1000)),
        archive(entry("x" * 300, MANIFEST)),
        archive(),
        b"",
        bytes(10240),
        random.Random(3).randbytes(10240),
        b"\x1f\x8b" + bytes(1000),
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_what_is_no_plain_file_in_its_place_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused):
        look(tmp_path / "bundle", content)


def file(name: str, size_bytes: int = 1, sha256: str = "0" * 64) -> dict[str, object]:
    return {"name": name, "sha256": sha256, "size_bytes": size_bytes}


OWN = file("desired-state/pi-1", len(MANIFEST))


@pytest.mark.parametrize(
    "fields",
    [
        {"files": []},
        {"files": [OWN, OWN]},
        {"files": [OWN, file("trust/1"), file("trust/1")]},
        {"files": [OWN, file("desired-state/pi-2")]},
        {"files": [file("trust/1")]},
        {"files": [OWN, file("../../etc/shadow")]},
        {"files": [OWN, file("trust/../../x")]},
        {"files": [OWN, file("trust/1\n")]},
        {"files": [OWN, file("blobs/" + "1" * 64)]},
        {"files": [OWN, file("downloads/" + "1" * 64)]},
        {"files": [OWN, file("downloads/" + "0" * 64, ASSET_MAX_BYTES + 1)]},
        {"files": [OWN, file("downloads/" + "0" * 63)]},
        {"files": [OWN, *(file("downloads/" + "0" * 64) for _ in range(2))]},
        {"files": [OWN, file("trust/1", -1)]},
        {"files": [OWN, file("trust/1", 1 << 62)]},
        {"files": [OWN, file("trust/1", 400 * 1024)]},
        {"files": [OWN, *(file(f"trust/{each}") for each in range(1, 10_002))]},
        {"fleet": "other"},
        {"agent_id": "pi-2"},
        {"api_version": "harmony/v2"},
        {"more": 1},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_an_index_of_any_other_form_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match=r"the index of the bundle|the bundle is for"):
        look(tmp_path / "bundle", pack({"desired-state/pi-1": MANIFEST}, **fields))


@pytest.mark.parametrize("text", [b"[]", b"{}", b"null", b'{"a":' * 200, b"\xff\xfe", b"x" * 5000])
def test_an_index_that_is_none_is_refused(text: bytes, tmp_path: Path) -> None:
    head = tarfile.TarInfo("index.json")
    head.size, head.mode = len(text), 0o644
    content = head.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512) + bytes(1024)
    with pytest.raises(BundleRefused):
        look(tmp_path / "bundle", content)


def test_an_index_that_says_that_it_is_huge_costs_nothing(tmp_path: Path) -> None:
    head = tarfile.TarInfo("index.json")
    head.size, head.mode = 4 * 1024**3, 0o644
    with pytest.raises(BundleRefused, match="no bundle as"):
        look(tmp_path / "bundle", head.tobuf(tarfile.USTAR_FORMAT))


@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_what_is_no_file_is_refused(make: str, tmp_path: Path) -> None:
    getattr(os, make)(tmp_path / "bundle")
    descriptor = os.open(tmp_path / "bundle", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BundleRefused, match="read from a file"):
        Bundle.open(descriptor, fleet="home", agent_id="pi-1")


async def test_a_stick_that_is_pulled_out_is_told_and_what_is_closed_is_not_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(pack(FILES))
    bundle = opened(path)
    assert await bundle.fetch_root(1) == b"root"
    os.truncate(path, 1024)
    with pytest.raises(BusUnreachable, match="ends before it is whole"):
        await bundle.fetch_root(1)
    with pytest.raises(BusUnreachable, match="ends before it is whole"):
        await bundle.read_download(DOWNLOADED, 0, 100)
    assert bundle.trouble is not None
    bundle.close()
    with pytest.raises(BusUnreachable, match="not open any more"):
        await bundle.fetch_root(1)
    with pytest.raises(BundleRefused, match="not open any more"):
        next(bundle.read(f"sha256:{NAME[6:]}"))


def test_a_large_one_is_never_in_memory(tmp_path: Path) -> None:
    """A hundred times what may be in memory, in one file."""
    blob = random.Random(4).randbytes(1024 * 1024) * 64
    name = "blobs/" + hashlib.sha256(blob).hexdigest()
    path = tmp_path / "bundle"
    path.write_bytes(pack({"desired-state/pi-1": MANIFEST, name: blob}))
    del blob
    tracemalloc.start()
    bundle = opened(path)
    with pytest.raises(BundleRefused, match="desired-state/pi-1 in the bundle"):
        bundle.check()
    for _ in bundle.read(f"sha256:{name[6:]}"):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bundle.close()
    assert peak < 8 * 1024 * 1024
