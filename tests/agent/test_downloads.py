"""Downloads, from a server over TLS to a file of the agent's own: cut, slow, hostile, or something else."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from email.utils import formatdate
from pathlib import Path

import attrs
import pytest

from harmony_agent import https
from harmony_agent.https import measure_reach
from harmony_agent.store import assets, downloads
from harmony_agent.store.assets import AssetCache
from harmony_core.change import NotReady, Progress
from harmony_core.errors import (
    AssetsFull,
    BusUnreachable,
    CapabilityError,
    DownloadFailed,
    DownloadRefused,
    PolicyRefused,
)
from harmony_core.resources import ASSET_MAX_BYTES, Download
from tests.connect_proxy import Proxy, serving_proxy
from tests.https_server import Page, Web, environment_of, serving_web

from .test_asset_cache import Pieces

RESOURCE = "file:/srv/model.bin"
PIECE = 256 * 1024
CONTENT = random.Random(1).randbytes(3 * PIECE + 11)
OTHER = random.Random(2).randbytes(3 * PIECE + 5)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Web]:
    async with serving_web(tmp_path) as web:
        for name, value in environment_of(web).items():
            monkeypatch.setenv(name, value)
        yield web


@attrs.define
class Place:
    directory: Path
    cache: AssetCache

    def names(self) -> list[str]:
        return sorted(each.name for each in self.directory.iterdir())

    def part(self, download: Download) -> Path:
        return self.directory / f"{download.sha256}.part"

    def content(self, download: Download) -> bytes:
        path = self.cache.find(download)
        assert path is not None
        return path.read_bytes()

    async def fetch(self, download: Download) -> None:
        """Ask until it is here, as a Score does."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.cache.fetch(download, resource=RESOURCE)
                except NotReady:
                    continue
                else:
                    return

    async def fails(self, download: Download) -> DownloadFailed:
        with pytest.raises(DownloadFailed) as caught:
            await self.fetch(download)
        assert caught.value.resource == RESOURCE
        assert self.cache.find(download) is None
        return caught.value

    async def is_refused(self, download: Download) -> str:
        with pytest.raises(DownloadRefused) as caught:
            await self.fetch(download)
        assert self.cache.find(download) is None
        return caught.value.message


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    cache = AssetCache(
        tmp_path / "assets",
        Pieces(),
        most_bytes=128 * 1024**2,
        find_refusal=lambda url: "it is not listed" if "/elsewhere" in url else None,
    )
    yield Place(tmp_path / "assets", cache)
    await cache.close()


async def test_it_comes_whole_for_its_owner_alone_and_is_asked_for_once(
    web: Web, place: Place
) -> None:
    download = web.put(CONTENT)
    await asyncio.gather(*(place.fetch(download) for _ in range(3)))
    assert place.content(download) == CONTENT
    assert place.names() == [download.sha256]
    assert (place.directory / download.sha256).stat().st_mode & 0o777 == 0o600
    (asked,) = web.asked
    assert (asked.path, asked.headers["host"]) == ("/model.bin", web.server)
    assert asked.headers["accept-encoding"] == "identity"
    assert not {"range", "authorization", "cookie", "referer"} & {*asked.headers}


@pytest.mark.parametrize("in_chunks", [False, True], ids=["of a length", "in chunks"])
@pytest.mark.parametrize("size_bytes", [None, len(CONTENT)], ids=["unsaid", "said"])
async def test_its_size_need_not_be_known(
    web: Web, place: Place, size_bytes: int | None, *, in_chunks: bool
) -> None:
    download = web.put(CONTENT, in_chunks=in_chunks).model_copy(update={"size_bytes": size_bytes})
    await place.fetch(download)
    assert place.content(download) == CONTENT


async def test_what_is_empty_is_content_too(web: Web, place: Place) -> None:
    download = web.put(b"")
    await place.fetch(download)
    assert place.content(download) == b""


@pytest.mark.parametrize("in_chunks", [False, True], ids=["of a length", "in chunks"])
async def test_what_is_cut_goes_on_where_it_was(web: Web, place: Place, *, in_chunks: bool) -> None:
    first = PIECE + 4711
    download = web.put(
        CONTENT, cut_after=first, in_chunks=in_chunks, then=Page(CONTENT, in_chunks=in_chunks)
    )
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [0, first]
    assert web.asked[1].headers["if-range"] == '"1"'
    assert web.sent_bytes == len(CONTENT)


async def test_what_is_cut_at_once_is_told_and_what_has_come_stays(web: Web, place: Place) -> None:
    download = web.put(CONTENT, cut_after=1000)
    error = await place.fails(download)
    assert f"{web.server} has ended the connection" in error.message
    assert place.part(download).read_bytes() == CONTENT[:1000]
    web.put(CONTENT)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    # The last byte is fetched again: so also what was whole and had no name yet has something to ask for.
    assert web.asked[-1].begin == 999


async def test_content_that_changes_between_two_answers_is_begun_anew(
    web: Web, place: Place
) -> None:
    download = web.put(CONTENT)
    web.put(OTHER, tag='"0"', cut_after=2 * PIECE, then=Page(CONTENT))
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [0, 2 * PIECE]
    assert web.asked[1].headers["if-range"] == '"0"'
    assert web.sent_bytes == 2 * PIECE + len(CONTENT)


async def test_of_two_contents_that_nobody_tells_apart_one_whole_is_asked_for(
    web: Web, place: Place
) -> None:
    download = web.put(CONTENT)
    web.put(OTHER[:-5] + CONTENT[-11:], tag="", cut_after=2 * PIECE, then=Page(CONTENT, tag=""))
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [0, 2 * PIECE, 0]
    assert "if-range" not in web.asked[1].headers


async def test_a_longer_content_that_was_begun_leaves_nothing_behind_a_shorter_one(
    web: Web, place: Place
) -> None:
    short = CONTENT[: PIECE // 2]
    download = web.put(short)
    web.put(OTHER, tag='"0"', cut_after=2 * PIECE, then=Page(short))
    await place.fetch(download)
    assert place.content(download) == short


async def test_a_server_that_knows_no_ranges_and_cuts_is_not_asked_for_ever(
    web: Web, place: Place
) -> None:
    download = web.put(CONTENT, cut_after=2 * PIECE, knows_ranges=False)
    await place.fails(download)
    assert len(web.asked) == 2


async def test_a_range_that_is_not_the_one_that_was_asked_for_is_not_taken(
    web: Web, place: Place
) -> None:
    download = web.put(CONTENT, cut_after=2 * PIECE)
    page = web.pages["/model.bin"]
    body = CONTENT[PIECE:]
    wrong = (
        f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {PIECE}-{len(CONTENT) - 1}/{len(CONTENT)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    page.then = Page(raw=wrong.encode() + body, then=Page(CONTENT))
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [0, 2 * PIECE, 0]


async def test_another_content_is_refused_and_not_kept(web: Web, place: Place) -> None:
    download = web.put(CONTENT)
    web.put(OTHER)
    message = await place.is_refused(download)
    assert f"{web.url()} has another content than sha256 {download.sha256[:12]}…" in message
    assert "give its sha256, or else give another address" in message
    assert place.names() == []
    assert len(web.asked) == 1


@pytest.mark.parametrize("in_chunks", [False, True], ids=["of a length", "in chunks"])
@pytest.mark.parametrize("more", [-1, 1])
async def test_another_size_than_is_said_is_refused(
    web: Web, place: Place, more: int, *, in_chunks: bool
) -> None:
    said = {"size_bytes": len(CONTENT) + more}
    download = web.put(CONTENT, in_chunks=in_chunks).model_copy(update=said)
    found = f"more than {len(CONTENT) - 1}" if in_chunks and more < 0 else f"{len(CONTENT)}"
    message = await place.is_refused(download)
    assert f"has {found} bytes, and size_bytes says {len(CONTENT) + more}" in message
    assert download.sha256 not in place.names()


async def test_a_wrong_size_costs_nobody_else_the_same_content(web: Web, place: Place) -> None:
    download = web.put(CONTENT, in_chunks=True)
    await place.fetch(download)
    wrong = download.model_copy(update={"size_bytes": len(CONTENT) - 1})
    await place.is_refused(wrong)
    assert place.content(download) == CONTENT


async def test_a_corrected_address_is_asked_and_not_told_what_became_of_the_other(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    monkeypatch.setattr(assets, "_ASKED_AGAIN_WITHIN_S", 0.2)
    right = web.put(CONTENT)
    slow = right.model_copy(update={"url": web.put(OTHER, "/slow", stalls_after=10).url})
    wrong = right.model_copy(update={"url": web.put(OTHER, "/other").url})
    with pytest.raises(NotReady):
        await place.cache.fetch(slow, resource=RESOURCE)
    await place.fetch(right)  # once nobody asks for it from there
    assert place.content(right) == CONTENT
    await place.cache.drop(right)

    with pytest.raises((NotReady, DownloadRefused)):
        await place.cache.fetch(wrong, resource=RESOURCE)
    await asyncio.sleep(0.5)
    await place.fetch(right)
    assert place.content(right) == CONTENT


async def test_what_is_too_large_is_refused_before_it_comes(web: Web, place: Place) -> None:
    download = web.put(b"x", headers={"Content-Length": str(ASSET_MAX_BYTES + 1)})
    message = await place.is_refused(download)
    assert "at most 64 MiB are fetched; put it into an image" in message


async def test_what_does_not_say_where_it_ends_needs_a_size(web: Web, place: Place) -> None:
    download = web.put(CONTENT, says_length=False)
    assert "give size_bytes" in (await place.fails(download)).message
    await place.fetch(download.model_copy(update={"size_bytes": len(CONTENT)}))
    assert place.content(download) == CONTENT


async def test_what_is_packed_is_refused(web: Web, place: Place) -> None:
    download = web.put(CONTENT, headers={"Content-Encoding": "gzip"})
    assert "is sent as 'gzip'" in (await place.fails(download)).message


@pytest.mark.parametrize(
    ("status", "headers", "said", "retry_after_s"),
    [
        (404, {}, "answers 404 Not Found; correct the address", 900),
        (403, {}, "answers 403 Forbidden; give an address that anybody may read", 900),
        (401, {"WWW-Authenticate": "Basic"}, "answers 401 Unauthorized; give an address", 900),
        (
            429,
            {"Retry-After": "120"},
            "answers 429 Too Many Requests; .* asked again in 120 s",
            120,
        ),
        (429, {"Retry-After": "9" * 400}, "asked again in 3600 s", 3600),
        (
            503,
            {"Retry-After": "soon"},
            "answers 503 Service Unavailable; .* asked again later",
            None,
        ),
        (500, {}, "answers 500 Internal Server Error; look at that server", None),
        (418, {}, r"answers 418 I'm a Teapot; try the address with curl", 900),
        (299, {}, "answers 299; try the address with curl", 900),
        (206, {}, "answers 206 Partial Content; try", 900),
    ],
)
async def test_a_server_that_does_not_give_it_is_told_with_its_status_and_a_remedy(
    web: Web,
    place: Place,
    status: int,
    headers: dict[str, str],
    said: str,
    retry_after_s: float | None,
) -> None:
    download = web.put(CONTENT, status=status, headers=headers)
    with pytest.raises(DownloadFailed, match=said) as caught:
        await place.fetch(download)
    assert caught.value.message.startswith(f"{web.url()}: {web.server} ")
    assert caught.value.retry_after_s == retry_after_s


async def test_a_busy_server_may_say_until_when(web: Web, place: Place) -> None:
    until = formatdate(time.time() + 100, usegmt=True)
    download = web.put(CONTENT, status=429, headers={"Retry-After": until})
    error = await place.fails(download)
    assert error.retry_after_s is not None
    assert 90 < error.retry_after_s <= 100


async def test_it_follows_where_a_server_leads_by_https(web: Web, place: Place) -> None:
    download = web.put(CONTENT, "/real.bin").model_copy(update={"url": web.url("/a/b?key=1")})
    web.pages["/a/b?key=1"] = Page(status=302, headers={"Location": "../c#there"})
    web.pages["/c"] = Page(status=307, headers={"Location": web.url("/real.bin")})
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.path for each in web.asked] == ["/a/b?key=1", "/c", "/real.bin"]


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.1/x", "only https is fetched"),
        ("file:///etc/shadow", "only https is fetched"),
        ("https://user:word@127.0.0.1/x", "a name or password"),
        ("https://-/x", "write the server's name"),
        ("", "it is empty"),
        ("//[::1/x", "is not fetched"),
        ("https://127.0.0.1:99999/x", "write the server's name"),
        ("https://127.0.0.1/\x1b[31m", "cannot have"),
        ("https://127.0.0.1/" + "a" * 9000, "is not fetched"),
    ],
)
async def test_it_does_not_follow_elsewhere(
    web: Web, place: Place, location: str, why: str
) -> None:
    download = web.put(CONTENT, status=301, headers={"Location": location})
    message = await place.is_refused(download)
    assert why in message
    assert "\x1b" not in message
    assert len(message) < 600
    assert len(web.asked) == 1


async def test_it_does_not_go_round_and_round(web: Web, place: Place) -> None:
    download = web.put(CONTENT, status=302, headers={"Location": "/model.bin"})
    assert "leads elsewhere more than 5 times" in (await place.fails(download)).message
    assert len(web.asked) == 6


async def test_where_it_leads_is_for_the_device_to_allow(web: Web, place: Place) -> None:
    download = web.put(CONTENT, status=302, headers={"Location": "/elsewhere"})
    with pytest.raises(PolicyRefused, match=r"leads elsewhere, and it is not listed"):
        await place.fetch(download)
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("127.0.0.1", 0),
        ("::1", 0),
        ("fe80::1%eth0", 0),
        ("169.254.169.254", 0),
        ("::ffff:127.0.0.1", 0),
        ("10.0.0.1", 1),
        ("192.168.1.1", 1),
        ("fd00::1", 1),
        ("93.184.216.34", 2),
        ("2606:2800:220:1::1", 2),
    ],
)
def test_how_far_an_address_is_reached_from_is_known(address: str, reach: int) -> None:
    assert measure_reach(address) == reach


async def test_a_server_in_the_network_does_not_lead_to_the_device_itself(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = iter((1, 0))

    def measure(_: str) -> int:
        return next(reached)

    monkeypatch.setattr(https, "measure_reach", measure)
    download = web.put(CONTENT, status=302, headers={"Location": "/own"})
    web.put(CONTENT, "/own")
    assert "in a network of the device's own" in await place.is_refused(download)
    assert [each.path for each in web.asked] == ["/model.bin"]


async def test_an_authority_that_the_device_does_not_know_is_not_believed(
    web: Web, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    async with serving_web(tmp_path / "other") as stranger:
        error = await place.fails(stranger.put(CONTENT))
        assert f"the certificate of {stranger.server} is not believed" in error.message
        assert "unable to get local issuer certificate" in error.message
        assert "update-ca-certificates" in error.message
        assert stranger.asked == []


async def test_a_certificate_for_another_name_is_not_believed(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_web(tmp_path, name="files.example") as web:
        for name, value in environment_of(web).items():
            monkeypatch.setenv(name, value)
        error = await place.fails(web.put(CONTENT))
        assert "IP address mismatch" in error.message
        assert web.asked == []


async def test_a_server_that_is_not_there_is_told(web: Web, place: Place) -> None:
    download = web.put(CONTENT)
    gone = download.model_copy(update={"url": "https://127.0.0.1:9/model.bin"})
    assert "127.0.0.1:9 is not reached: Connection refused" in (await place.fails(gone)).message


async def test_a_name_that_is_not_found_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    download = Download(url="https://nowhere.invalid/x", sha256="ab" * 32)
    error = await place.fails(download)
    assert "is not found: " in error.message
    assert "name servers" in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n"
        + b"".join(b"X-%d: y\r\n" % number for number in range(200))
        + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 2 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
    ids=["nothing", "ssh", "no number", "many", "large", "endless", "continue", "chunks", "end"],
)
async def test_what_is_no_http_is_told_and_bounded(web: Web, place: Place, raw: bytes) -> None:
    download = web.put(CONTENT)
    web.pages["/model.bin"] = Page(raw=raw)
    error = await place.fails(download)
    assert "answers what is no HTTP" in error.message or "has ended the connection" in error.message
    assert place.names() in ([], [f"{download.sha256}.part"])


async def test_a_server_that_falls_silent_is_left_and_what_has_come_stays(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "_SILENT_S", 0.3)
    download = web.put(CONTENT, stalls_after=5000)
    assert "says nothing; look at that server" in (await place.fails(download)).message
    assert place.part(download).read_bytes() == CONTENT[:5000]


async def test_a_server_that_never_answers_is_left(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "_SILENT_S", 0.3)
    download = web.put(CONTENT)
    web.pages["/model.bin"] = Page(raw=b"", pause_s=5)
    assert "says nothing" in (await place.fails(download)).message


async def test_a_head_that_comes_letter_by_letter_is_not_waited_for(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(_: Web, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(downloads, "_STEP_WITHIN_S", 0.5)
    monkeypatch.setattr(Web, "_answer", drip)
    download = web.put(CONTENT)
    assert "is not answered within" in (await place.fails(download)).message
    async with asyncio.timeout(10):
        while web.open:
            await asyncio.sleep(0.01)


async def test_a_server_that_is_too_slow_is_left_and_what_has_come_stays(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_TOO_SLOW_S", 0.3)
    monkeypatch.setattr(downloads, "_TOO_SLOW_BYTES", 1024**2)
    monkeypatch.setattr(downloads, "_PIECE_WITHIN_S", 0.1)
    download = web.put(CONTENT, pause_s=0.05)
    assert "brings less than 1024 KiB in" in (await place.fails(download)).message
    came = place.part(download).read_bytes()
    assert len(came) > 0
    assert came == CONTENT[: len(came)]


async def test_it_tells_how_far_it_is(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.2)
    monkeypatch.setattr(downloads, "_PIECE_WITHIN_S", 0.1)
    download = web.put(CONTENT, pause_s=0.02)
    told: list[NotReady] = []
    async with asyncio.timeout(30):
        while True:
            try:
                await place.cache.fetch(download, resource=RESOURCE)
            except NotReady as signal:
                told.append(signal)
            else:
                break
    assert {(each.message, each.reason) for each in told} == {
        (f"fetching {web.url()}", "Progressing")
    }
    done = [each.progress.done for each in told if each.progress is not None]
    assert done == sorted(done)
    assert done[-1] > 0
    assert told[-1].progress == Progress(done=done[-1], total=len(CONTENT), unit="bytes")


async def test_a_new_agent_goes_on_where_the_other_was(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    download = web.put(CONTENT, stalls_after=2 * PIECE)
    async with asyncio.timeout(20):
        while not place.directory.exists() or (
            not place.part(download).exists() or place.part(download).stat().st_size < 2 * PIECE
        ):
            with pytest.raises(NotReady):
                await place.cache.fetch(download, resource=RESOURCE)
    await place.cache.close()
    async with asyncio.timeout(10):
        while web.open:
            await asyncio.sleep(0.01)
    web.put(CONTENT)
    place.cache = AssetCache(place.directory, Pieces(), most_bytes=64 * 1024**2)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert web.asked[-1].begin == 2 * PIECE - 1
    await place.cache.close()


async def test_what_nobody_asks_for_any_more_is_not_fetched_any_further(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    monkeypatch.setattr(assets, "_ABANDONED_AFTER_S", 0.2)
    monkeypatch.setattr(downloads, "_PIECE_WITHIN_S", 0.05)
    download = web.put(CONTENT, pause_s=0.1)
    with pytest.raises(NotReady):
        await place.cache.fetch(download, resource=RESOURCE)
    async with asyncio.timeout(10):
        while web.open:
            await asyncio.sleep(0.01)
    assert 0 < place.part(download).stat().st_size < len(CONTENT)


async def test_a_slow_server_keeps_no_other_waiting(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    slow = web.put(CONTENT, "/slow", stalls_after=10)
    with pytest.raises(NotReady):
        await place.cache.fetch(slow, resource=RESOURCE)
    download = web.put(OTHER)
    await place.fetch(download)
    assert place.content(download) == OTHER


async def test_a_part_of_something_else_costs_one_more_answer(web: Web, place: Place) -> None:
    download = web.put(CONTENT)
    place.directory.mkdir()
    place.part(download).write_bytes(b"?" * PIECE)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [PIECE - 1, 0]


async def test_a_part_that_is_longer_than_the_whole_is_begun_anew(web: Web, place: Place) -> None:
    download = web.put(CONTENT)
    place.directory.mkdir()
    place.part(download).write_bytes(CONTENT + b"more")
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert [each.begin for each in web.asked] == [len(CONTENT) + 3, 0]


async def test_room_is_looked_for_before_a_server_is_asked_where_the_size_is_known(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = web.put(CONTENT)
    real = os.statvfs(place.directory.parent)
    full = os.statvfs_result((*real[:4], 10, *real[5:]))

    def look(_: Path) -> os.statvfs_result:
        return full

    monkeypatch.setattr(os, "statvfs", look)
    said = download.model_copy(update={"size_bytes": len(CONTENT)})
    with pytest.raises(AssetsFull, match="make room there"):
        await place.fetch(said)
    assert web.asked == []
    with pytest.raises(AssetsFull, match="make room there"):
        await place.fetch(download)
    assert place.part(download).stat().st_size == 0


async def test_two_at_once_are_not_promised_the_same_room(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    await place.cache.close()
    place.cache = AssetCache(place.directory, Pieces(), most_bytes=5 * PIECE)
    first = web.put(CONTENT, "/first", stalls_after=10)
    async with asyncio.timeout(20):
        while not web.asked:
            with pytest.raises(NotReady):
                await place.cache.fetch(first, resource=RESOURCE)
    second = web.put(OTHER, "/second")
    with pytest.raises(AssetsFull, match="raise assets_max_mib"):
        await place.fetch(second)
    await place.cache.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path / "small")], check=False
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    yield tmp_path / "small"
    subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


async def test_a_disk_that_is_filled_meanwhile_is_told_and_gone_on_with(
    web: Web, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.store.asset_files._LEFT_FREE_BYTES", -(1024**3))
    cache = AssetCache(small_disk / "assets", Pieces(), most_bytes=64 * 1024**2)
    place = Place(small_disk / "assets", cache)
    download = web.put(CONTENT)
    with pytest.raises(CapabilityError, match=r"could not be kept in .*: No space left on device"):
        await place.fetch(download)
    assert place.part(download).read_bytes()[:PIECE] == CONTENT[:PIECE]
    enlarge = ["mount", "-o", "remount,size=4m", str(small_disk)]
    await asyncio.to_thread(subprocess.run, enlarge, check=True)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert web.asked[-1].begin >= PIECE - 1
    await cache.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Proxy]:
    async with serving_proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://ada:p%40ss@127.0.0.1:{proxy.port}")
        yield proxy


async def test_it_goes_by_the_proxy_of_the_environment(
    web: Web, place: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = web.put(CONTENT)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT {web.server} HTTP/1.")
    assert "Proxy-Authorization: Basic YWRhOnBAc3M=" in asked
    assert "proxy-authorization" not in web.asked[0].headers
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await place.fetch(web.put(OTHER))
    assert len(proxy.asked) == 1


async def test_a_proxy_that_refuses_is_told(web: Web, place: Place, proxy: Proxy) -> None:
    proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    error = await place.fails(web.put(CONTENT))
    assert "403 Forbidden" in error.message
    assert "and at the proxy" in error.message
    assert "p@ss" not in error.message


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "http://:1", "http://x:99999"])
async def test_what_is_no_address_of_a_proxy_is_told(
    web: Web, place: Place, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("https_proxy", value)
    assert "write http://HOST:PORT" in (await place.fails(web.put(CONTENT))).message
    assert web.asked == []


@attrs.define
class Stick:
    """A bundle that is at hand, or is not any more."""

    contents: dict[str, bytes] = attrs.Factory(dict[str, bytes])
    """By hash."""
    reads: int = 0
    pulled_out_after: int | None = None

    def put(self, content: bytes, download: Download) -> None:
        self.contents[download.sha256] = content

    def find_download(self, sha256: str) -> int | None:
        return len(self.contents[sha256]) if sha256 in self.contents else None

    async def read_download(self, sha256: str, begin: int, size_bytes: int) -> bytes:
        if self.reads == self.pulled_out_after:
            raise BusUnreachable("the bundle cannot be read any further")
        self.reads += 1
        return self.contents[sha256][begin : begin + size_bytes]


@pytest.fixture
async def stick(place: Place) -> Stick:
    """At hand of *place*."""
    stick = Stick()
    await place.cache.close()
    most_bytes = 5 * PIECE
    place.cache = AssetCache(place.directory, Pieces(), most_bytes=most_bytes, nearby=stick)
    return stick


async def test_what_is_at_hand_is_not_asked_for_and_taken_once(
    web: Web, place: Place, stick: Stick
) -> None:
    download = web.put(CONTENT)
    stick.put(CONTENT, download)
    await asyncio.gather(*(place.fetch(download) for _ in range(3)))
    assert place.content(download) == CONTENT
    assert place.names() == [download.sha256]
    await place.fetch(download)
    assert (stick.reads, web.asked) == (4, [])
    await place.fetch(web.put(OTHER[:PIECE], "/other"))
    assert [each.path for each in web.asked] == ["/other"]


async def test_what_is_at_hand_is_taken_though_the_web_was_asked_before(
    web: Web, place: Place, stick: Stick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind a part of something else, which its server has sent."""
    monkeypatch.setattr(assets, "_ASKED_WAITS_S", 0.05)
    monkeypatch.setattr(assets, "_ASKED_AGAIN_WITHIN_S", 0.0)
    download = web.put(OTHER, stalls_after=2 * PIECE).model_copy(
        update={"sha256": web.put(CONTENT, "/good").sha256}
    )
    async with asyncio.timeout(20):
        while not web.sent_bytes:
            with pytest.raises(NotReady):
                await place.cache.fetch(download, resource=RESOURCE)
    stick.put(CONTENT, download)
    await place.fetch(download)
    assert place.content(download) == CONTENT
    assert len(web.asked) == 1


async def test_a_stick_that_is_pulled_out_is_waited_for_and_gone_on_with(
    web: Web, place: Place, stick: Stick
) -> None:
    download = web.put(CONTENT)
    stick.put(CONTENT, download)
    stick.pulled_out_after = 2
    with pytest.raises(NotReady, match="the bundle cannot be read any further"):
        await place.cache.fetch(download, resource=RESOURCE)
    assert place.cache.find(download) is None
    stick.pulled_out_after = None
    await place.fetch(download)
    assert place.content(download) == CONTENT


async def test_what_is_something_else_than_was_checked_is_not_taken(
    web: Web, place: Place, stick: Stick
) -> None:
    download = web.put(CONTENT)
    stick.put(CONTENT[::-1], download)
    assert "is something else in the bundle" in (await place.fails(download)).message
    assert place.names() == []
    stick.put(CONTENT, download)
    await place.fetch(download)
    other_size = download.model_copy(update={"size_bytes": 5})
    assert "size_bytes says 5" in await place.is_refused(other_size)
    assert web.asked == []


async def test_what_is_at_hand_needs_its_room_too(web: Web, place: Place, stick: Stick) -> None:
    download = web.put(CONTENT)
    stick.put(CONTENT + bytes(2 * PIECE), download)
    with pytest.raises(AssetsFull, match="raise assets_max_mib"):
        await place.fetch(download)
    assert place.part(download).stat().st_size == 0
