"""Downloads in a bundle: fetched on the operator's machine, and taken by a device that reaches no web."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from harmony_control.bus.connection import Bucket
from harmony_core.resources import ASSET_MAX_BYTES, Download
from tests.bundles import Island, island, pack, unpack
from tests.connect_proxy import serving_proxy
from tests.control.ground import Said
from tests.https_server import Page, Web, environment_of, serving_web
from tests.nats import serving

CONTENT = random.Random(1).randbytes(700_001)
OTHER = random.Random(2).randbytes(300_000)


@attrs.frozen
class Place:
    """A device of which nobody has told the authority of *web*, and an operator's machine that knows it."""

    pi: Island
    web: Web

    @property
    def file(self) -> Path:
        return self.pi.root / "bundle"

    @property
    def cache(self) -> Path:
        return self.pi.root / "state/assets"

    def content(self, path: str = "srv/model.bin") -> bytes | None:
        target = self.pi.device / path
        return target.read_bytes() if target.exists() else None

    async def bundle(self, *more: str, ends: int = 0) -> Said:
        """Write it; where that fails, nothing is left."""
        self.file.unlink(missing_ok=True)
        environment = environment_of(self.web)
        said = await self.pi.harmony(
            "bundle", "pi-1", str(self.file), *more, ends=ends, **environment
        )
        left = [each.name for each in self.pi.root.iterdir() if each.name.endswith(".part")]
        assert (self.file.exists(), left) == (ends == 0, [])
        return said

    async def is_refused(self, *scores: Mapping[str, Any], ends: int) -> str:
        await self.pi.push(*scores)
        return (await self.bundle(ends=ends)).err

    def asked(self) -> list[str]:
        return [each.path for each in self.web.asked]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with (
        serving(tmp_path, "pi-1", "pi-2") as bus,
        serving_web(tmp_path) as web,
        island(bus, tmp_path) as pi,
    ):
        yield Place(pi, web)


def a_score(
    download: Download, path: str = "/srv/model.bin", id: str = "model", **fields: Any
) -> Mapping[str, Any]:
    spec = {"path": path, "download": {**download.model_dump(mode="json"), **fields}}
    return {"id": id, "kind": "FileScore", "spec": spec}


async def test_what_is_downloaded_comes_in_it_once_and_is_not_taken_again(place: Place) -> None:
    download = place.web.put(CONTENT)
    await place.pi.push(a_score(download), a_score(download, "/srv/again.bin", "again"))
    said = await place.bundle("--json")
    assert said.documents[-1]["downloads"] == 1
    assert place.asked() == ["/model.bin"]
    _, files = unpack(place.file)
    assert [*files] == ["desired-state/pi-1", f"downloads/{download.sha256}"]
    assert files[f"downloads/{download.sha256}"] == CONTENT

    loaded = await place.pi.load(place.file)
    assert loaded.out.count("SUCCESS") == 2
    assert place.content() == place.content("srv/again.bin") == CONTENT
    (kept,) = place.cache.iterdir()
    before = kept.stat()
    await place.pi.load(place.file)
    assert kept.stat().st_ino == before.st_ino

    # What is kept puts it right, without any bundle.
    (place.pi.device / "srv/model.bin").write_bytes(b"mine")
    await place.pi.stop()
    await place.pi.start()
    _, documents = unpack(place.file)
    poor = place.pi.root / "poor"
    poor.write_bytes(pack({"desired-state/pi-1": documents["desired-state/pi-1"]}))
    await place.pi.load(poor)
    assert place.content() == CONTENT
    assert place.asked() == ["/model.bin"]


async def test_left_out_they_are_not_asked_for_and_the_device_asks_itself(place: Place) -> None:
    await place.pi.push(a_score(place.web.put(CONTENT)))
    said = await place.bundle("--no-downloads")
    assert "0 downloads" in said.out
    _, files = unpack(place.file)
    assert [*files] == ["desired-state/pi-1"]
    said = await place.pi.load(place.file, ends=1)
    assert "DownloadFailed" in said.out
    assert place.asked() == []
    # The next one has it, though the device has asked for it meanwhile.
    await place.bundle()
    await place.pi.load(place.file)
    assert place.content() == CONTENT


async def test_one_of_a_class_comes_by_an_address_with_the_device_s_label(place: Place) -> None:
    download = place.web.put(CONTENT, "/attic/model.bin")
    await place.pi.harmony("label", "pi-1", "role=kiosk", "site=attic", "--no-wait")
    of_class = a_score(download, url=place.web.url("/${labels.site}/model.bin"))
    file = place.pi.root / "class.json"
    file.write_text(json.dumps([of_class]))
    to_class = ("push-score", "--class", "kiosk", "--selector", "role=kiosk", "--no-wait")
    await place.pi.harmony(*to_class, str(file))
    await place.bundle()
    _, files = unpack(place.file)
    assert [*files][-1] == f"downloads/{download.sha256}"
    await place.pi.load(place.file)
    assert place.content() == CONTENT
    assert place.asked() == ["/attic/model.bin"]


async def test_a_class_that_cannot_be_read_is_told_and_nothing_is_left(place: Place) -> None:
    await place.pi.harmony("label", "pi-1", "role=kiosk", "--no-wait")
    file = place.pi.root / "class.json"
    file.write_text(json.dumps([a_score(place.web.put(CONTENT))]))
    to_class = ("push-score", "--class", "kiosk", "--selector", "role=kiosk", "--no-wait")
    await place.pi.harmony(*to_class, str(file))
    bucket = Bucket(place.pi.bus.admin, "desired-class")
    found = await bucket.get("kiosk.1")
    assert found is not None
    envelope = json.loads(found.value)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["scores"][0]["new"] = 1
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    await bucket.put("kiosk.1", json.dumps(envelope).encode())
    for more in ((), ("--no-images",), ("--no-images", "--no-downloads")):
        said = await place.bundle(*more, ends=0 if len(more) > 1 else 4)
        assert len(more) > 1 or "what stands on the server cannot be read: new" in said.err


async def test_an_address_that_only_the_device_knows_is_told_and_all_else_comes(
    place: Place,
) -> None:
    download = place.web.put(CONTENT)
    unknown = place.web.url("/${inventory.hostname}/model.bin")
    await place.pi.push(
        a_score(place.web.put(OTHER, "/other"), "/srv/other", "other"),
        a_score(download, url=unknown),
    )
    said = await place.bundle()
    assert "downloads whose addresses only the device knows: model;" in said.err
    await place.pi.load(place.file, ends=1)
    assert place.content("srv/other") == OTHER


async def test_one_that_is_at_several_addresses_comes_from_the_first_that_gives_it(
    place: Place,
) -> None:
    moved = place.web.put(CONTENT, "/moved")
    old = place.web.put(OTHER, "/old").model_copy(update={"sha256": moved.sha256})
    await place.pi.push(a_score(old), a_score(moved, "/srv/moved", "moved"))
    await place.bundle()
    assert place.asked() == ["/old", "/moved"]
    await place.pi.load(place.file)
    assert place.content() == place.content("srv/moved") == CONTENT


async def test_what_leads_elsewhere_is_followed_by_https_alone(place: Place) -> None:
    download = place.web.put(CONTENT, "/there")
    place.web.pages["/here"] = Page(status=302, headers={"Location": "/there"})
    here = download.model_copy(update={"url": place.web.url("/here")})
    await place.pi.push(a_score(here))
    await place.bundle()
    assert place.asked() == ["/here", "/there"]
    for leads in ("http://127.0.0.1:1/x", "https://localhost:1/x", place.web.url("/here")):
        place.web.pages["/here"] = Page(status=302, headers={"Location": leads})
        told = await place.is_refused(a_score(here), ends=4)
        assert f"'model' downloads {here.url}, which cannot be fetched: " in told


async def test_a_proxy_is_asked_which_alone_knows_the_names(place: Place, tmp_path: Path) -> None:
    authority = trustme.CA()
    (tmp_path / "files").mkdir()
    (tmp_path / "store").mkdir()
    async with (
        serving_web(tmp_path / "files", authority=authority, name="files.invalid") as files,
        serving_web(tmp_path / "store", authority=authority, name="store.invalid") as store,
        serving_proxy() as proxy,
    ):
        proxy.hosts = dict.fromkeys(("files.invalid", "store.invalid"), "127.0.0.1")
        there = f"https://store.invalid:{store.port}/there"
        files.pages["/here"] = Page(status=302, headers={"Location": there})
        here = f"https://files.invalid:{files.port}/here"
        await place.pi.push(a_score(store.put(CONTENT, "/there"), url=here))
        by_proxy = {"https_proxy": f"http://127.0.0.1:{proxy.port}"}
        environment = {**environment_of(files), **by_proxy}
        await place.pi.harmony("bundle", "pi-1", str(place.file), ends=0, **environment)
        assert [each.split(" ")[1] for each in proxy.asked] == [
            f"files.invalid:{files.port}",
            f"store.invalid:{store.port}",
        ]
    await place.pi.load(place.file)
    assert place.content() == CONTENT


@pytest.mark.parametrize(
    ("page", "said", "ends"),
    [
        (Page(status=404), "answers 404", 4),
        (Page(status=403), "answers 403", 4),
        (Page(CONTENT[::-1]), "which has another content than sha256", 2),
        (Page(CONTENT, cut_after=100_000), "which cannot be fetched", 4),
        (Page(CONTENT, cut_after=100_000, in_chunks=True), "which cannot be fetched", 4),
        (Page(CONTENT[:-1], says_length=False), "which has another content", 2),
        (Page(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "which cannot be fetched", 4),
        (Page(CONTENT, headers={"Content-Encoding": "gzip"}), "sends it packed", 4),
        (
            Page(headers={"Content-Length": str(ASSET_MAX_BYTES + 1)}),
            f"{ASSET_MAX_BYTES + 1} bytes, and at most 64 MiB are fetched",
            2,
        ),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_one_that_cannot_be_fetched_is_named_and_nothing_is_left(
    place: Place, page: Page, said: str, ends: int
) -> None:
    download = place.web.put(CONTENT)
    place.web.pages["/model.bin"] = page
    told = await place.is_refused(a_score(download), ends=ends)
    assert f"'model' downloads {download.url}" in told
    assert said in told
    assert "--no-downloads" in told


@pytest.mark.parametrize("how", [{}, {"in_chunks": True}])
async def test_one_of_another_size_than_its_score_says_is_refused(
    place: Place, how: dict[str, Any]
) -> None:
    download = place.web.put(CONTENT, **how)
    for size_bytes in (len(CONTENT) - 1, len(CONTENT) + 1):
        told = await place.is_refused(a_score(download, size_bytes=size_bytes), ends=2)
        assert f"and size_bytes says {size_bytes}" in told
    # Also where another Score says nothing of it.
    wrong = a_score(download, "/srv/wrong", "wrong", size_bytes=5)
    told = await place.is_refused(a_score(download), wrong, ends=2)
    assert "'wrong' downloads " in told


async def test_a_server_that_is_not_there_or_not_believed_is_told(place: Place) -> None:
    download = place.web.put(CONTENT)
    gone = a_score(download, url="https://127.0.0.1:9/model.bin")
    assert "'model' downloads https://127.0.0.1:9/model.bin" in await place.is_refused(gone, ends=4)
    await place.pi.push(a_score(download))
    said = await place.pi.harmony("bundle", "pi-1", str(place.file), ends=4, SSL_CERT_FILE="")
    assert "HARMONY_REGISTRY_CA" in said.err
    trust = {**environment_of(place.web), "SSL_CERT_FILE": ""}
    trust["HARMONY_REGISTRY_CA"] = str(place.web.ca)
    await place.pi.harmony("bundle", "pi-1", str(place.file), ends=0, **trust)


async def test_one_of_another_size_in_the_bundle_is_refused_before_anything_counts(
    place: Place,
) -> None:
    download = place.web.put(CONTENT)
    await place.pi.push(a_score(download, size_bytes=5))
    await place.bundle("--no-downloads")
    _, files = unpack(place.file)
    place.file.write_bytes(pack({**files, f"downloads/{download.sha256}": CONTENT}))
    said = await place.pi.load(place.file, ends=2)
    assert f"{download.url} has {len(CONTENT)} bytes in the bundle, and size_bytes" in said.err
    assert place.content() is None


async def test_the_policy_of_the_device_holds_for_what_a_bundle_brings(place: Place) -> None:
    await place.pi.push(a_score(place.web.put(CONTENT, "/acme/model.bin")))
    await place.bundle()
    rules = 'preset = "appliance"\nkinds = ["FileScore"]\npaths = ["/srv"]\n'
    policy = place.pi.toml.with_name("policy.toml")
    listing = f'downloads = ["{place.web.server}/acme"]\n'
    for listed, ends, code in (("", 1, "PolicyRefused"), (listing, 0, "SUCCESS")):
        await place.pi.stop()
        policy.write_text(f"{rules}{listed}")
        await place.pi.start()
        said = await place.pi.load(place.file, ends=ends)
        assert code in said.out.splitlines()[-1]
        assert place.content() == (None if ends else CONTENT)
