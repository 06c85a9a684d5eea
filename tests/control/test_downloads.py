"""Downloads from a Score file to a device: an agent in a process of its own, and a server over TLS."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from harmony_control.store import operator_key
from harmony_core.outcome import Failure
from harmony_core.resources import Download
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState, from_json
from tests.agent.process import Agent, process
from tests.agent.rig import Rig
from tests.control.ground import Said, harmony
from tests.https_server import Page, Web, environment_of, serving_web
from tests.nats import Bus, serving

PIECE = 256 * 1024
CONTENT = random.Random(1).randbytes(3 * PIECE + 11)
OTHER = random.Random(2).randbytes(3 * PIECE + 5)
LARGE_BYTES = 48 * 1024**2
HELD_MOST_KIB = 12 * 1024
"""What an agent may take more of memory while it downloads: TLS, all authorities, and a few pieces."""


@attrs.frozen
class Place:
    bus: Bus
    rig: Rig
    web: Web

    @property
    def target(self) -> Path:
        return self.rig.root / "device/srv/model.bin"

    @property
    def cache(self) -> Path:
        return self.rig.root / "state/assets"

    @property
    def policy(self) -> Path:
        return self.rig.root / "policy.toml"

    @asynccontextmanager
    async def device(self) -> AsyncGenerator[Agent]:
        """An agent, once it was heard of."""
        before = await self.count_heartbeats()
        async with process(self.rig, environment_of(self.web)) as agent:
            async with asyncio.timeout(20):
                while await self.count_heartbeats() == before or await self.has_not_reported():
                    await asyncio.sleep(0.05)
            yield agent

    async def count_heartbeats(self) -> int:
        found = await self.bus.bucket("heartbeat").get("pi-1")
        return found.revision if found is not None else 0

    async def has_not_reported(self) -> bool:
        return await self.bus.bucket("actual-state").get("pi-1") is None

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)

    async def push(self, download: Download, *more: str, **fields: object) -> Said:
        spec = {"path": "/srv/model.bin", "download": download.model_dump(mode="json"), **fields}
        scores = json.dumps([{"id": "model", "kind": "FileScore", "spec": spec}])
        return await self.harmony("push-score", "pi-1", "-", *more, stdin=scores)

    async def until_told(self, code: str) -> str:
        async with asyncio.timeout(20):
            while True:
                found = await self.bus.bucket("actual-state").get("pi-1")
                state = from_json(found.value, ActualState) if found and found.value else None
                score = state.scores.get("model") if state is not None else None
                error = (
                    score.outcome.error if score and isinstance(score.outcome, Failure) else None
                )
                if error is not None and error.code == code:
                    return error.message
                await asyncio.sleep(0.05)

    async def until_part(self, download: Download, size_bytes: int) -> Path:
        part = self.cache / f"{download.sha256}.part"
        async with asyncio.timeout(20):
            while not part.exists() or part.stat().st_size < size_bytes:
                await asyncio.sleep(0.02)
        return part


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with serving(tmp_path, "pi-1") as bus, serving_web(tmp_path) as web:
        rig = Rig(bus, tmp_path / "process", operator_key.load(bus.home), FakeFiles())
        rig.root.mkdir()
        yield Place(bus, rig, web)


async def test_it_is_fetched_by_the_device_and_kept_for_when_there_is_no_network(
    place: Place,
) -> None:
    download = place.web.put(CONTENT)
    async with place.device():
        said = await place.push(download, mode="0640")
        assert said.status == 0, said
        assert place.target.read_bytes() == CONTENT
        assert place.target.stat().st_mode & 0o777 == 0o640
        assert f"downloaded from {download.url}" in said.out
        assert [each.name for each in place.cache.iterdir()] == [download.sha256]
        assert "unchanged" in (await place.push(download, mode="0640")).out
        assert len(place.web.asked) == 1

        place.web.pages.clear()
        place.target.write_bytes(b"mine")
        said = await place.harmony("reconcile", "pi-1")
        assert said.status == 0, said
        assert place.target.read_bytes() == CONTENT
        assert len(place.web.asked) == 1

        said = await place.harmony("remove-score", "pi-1", "model")
        assert said.status == 0, said
        assert not place.target.exists()
        async with asyncio.timeout(10):
            while [*place.cache.iterdir()]:
                await asyncio.sleep(0.05)


async def test_a_diff_says_from_where_and_fetches_nothing(place: Place) -> None:
    download = place.web.put(CONTENT)
    spec = {"path": "/srv/model.bin", "download": download.model_dump(mode="json")}
    scores = json.dumps([{"id": "model", "kind": "FileScore", "spec": spec}])
    async with place.device():
        said = await place.harmony("diff", "pi-1", "-", stdin=scores)
        assert f"+ file:/srv/model.bin  downloaded from {download.url}, created" in said.out
    assert place.web.asked == []


async def test_a_file_without_a_hash_is_refused_with_how_to_get_one(place: Place) -> None:
    scores = f"- {{id: m, kind: FileScore, spec: {{path: /srv/m, download: {{url: '{place.web.url()}'}}}}}}"
    said = await place.harmony("push-score", "pi-1", "-", stdin=scores)
    assert said.status == 2, said
    assert "add sha256, without which anything could come from there" in said.err
    assert f"curl -fsSL {place.web.url()} | sha256sum" in said.err


async def test_another_content_changes_nothing_and_is_told(place: Place) -> None:
    async with place.device():
        assert (await place.push(place.web.put(CONTENT))).status == 0
        wanted = place.web.put(OTHER)
        place.web.pages["/model.bin"] = Page(CONTENT[::-1])
        said = await place.push(wanted)
        assert said.status == 1, said
        assert "DownloadRefused" in said.out
        assert "has another content than sha256" in said.out
        assert place.target.read_bytes() == CONTENT


async def test_what_was_in_order_before_is_gone_back_to_without_a_network(place: Place) -> None:
    def scores(download: Download) -> str:
        spec = {"path": "/srv/model.bin", "download": download.model_dump(mode="json")}
        policy = {"on_failure": "rollback"}
        return json.dumps([{"id": "model", "kind": "FileScore", "spec": spec, "policy": policy}])

    first = place.web.put(CONTENT)
    other = place.web.put(OTHER, "/other").model_copy(update={"sha256": "ab" * 32})
    async with place.device():
        assert (await place.harmony("push-score", "pi-1", "-", stdin=scores(first))).status == 0
        said = await place.harmony("push-score", "pi-1", "-", stdin=scores(other))
        assert "RolledBack" in said.out, said
        place.web.pages.clear()
        place.target.unlink()
        async with asyncio.timeout(20):
            while not place.target.exists():
                await asyncio.sleep(0.05)
        assert place.target.read_bytes() == CONTENT
        assert [each.name for each in place.cache.iterdir()] == [first.sha256]


async def test_a_file_that_is_not_there_yet_is_asked_for_again(place: Place) -> None:
    download = place.web.put(CONTENT)
    page = place.web.pages.pop("/model.bin")
    async with place.device():
        said = await place.push(download, "--timeout", "5")
        assert said.status != 0
        assert f"{download.url}: {place.web.server} answers 404 Not Found" in said.out + said.err
        place.web.pages["/model.bin"] = page
        said = await place.harmony("reconcile", "pi-1", "model")
        assert said.status == 0, said
    assert place.target.read_bytes() == CONTENT


async def test_while_it_comes_it_is_told_how_far_it_is(place: Place) -> None:
    download = place.web.put(CONTENT, stalls_after=2 * PIECE)
    async with place.device():
        said = await place.push(download, "--timeout", "3")
        assert said.status == 4, said
        assert f"fetching {download.url}" in said.out + said.err
        assert not place.target.exists()


async def test_an_agent_that_is_killed_meanwhile_goes_on_where_it_was(place: Place) -> None:
    download = place.web.put(CONTENT, stalls_after=2 * PIECE)
    async with place.device():
        await place.push(download, "--no-wait")
        await place.until_part(download, 2 * PIECE)
    # Killed, as it is at the end of the block.
    assert not place.target.exists()
    place.web.put(CONTENT)
    async with place.device(), asyncio.timeout(20):
        while not place.target.exists():
            await asyncio.sleep(0.05)
    assert place.target.read_bytes() == CONTENT
    assert place.web.asked[-1].begin == 2 * PIECE - 1


async def test_what_is_large_takes_no_more_memory_than_a_few_pieces(place: Place) -> None:
    def held_kib(agent: Agent) -> int:
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    async with place.device() as agent:
        assert (await place.push(place.web.put(b"small"))).status == 0
        before = held_kib(agent)
        large = random.Random(3).randbytes(LARGE_BYTES)
        said = await place.push(place.web.put(large, "/large"), "--timeout", "60")
        assert said.status == 0, said
        assert place.target.stat().st_size == LARGE_BYTES
        assert held_kib(agent) - before < HELD_MOST_KIB


async def test_an_appliance_fetches_from_where_it_lists_and_from_nowhere_else(place: Place) -> None:
    download = place.web.put(CONTENT, "/acme/model.bin")
    rules = 'preset = "appliance"\nkinds = ["FileScore"]\npaths = ["/srv"]\n'
    place.policy.write_text(rules)
    async with place.device():
        said = await place.push(download)
        assert said.status == 3, said
        told = said.out + said.err
        assert (
            f"{place.web.server}/acme/model.bin is nowhere that this device downloads from" in told
        )
        assert f'add the line downloads = ["{place.web.server}/acme"] there' in told
    place.policy.write_text(f'{rules}downloads = ["{place.web.server}/acme"]\n')
    async with place.device():
        assert (await place.push(download)).status == 0
        elsewhere = place.web.put(OTHER, "/elsewhere")
        place.web.pages["/acme/other"] = Page(status=302, headers={"Location": "/elsewhere"})
        url = place.web.url("/acme/other")
        await place.push(elsewhere.model_copy(update={"url": url}), "--no-wait")
        told = await place.until_told("PolicyRefused")
        assert f"{url} leads elsewhere, and {place.web.server}/elsewhere is nowhere" in told
        assert place.target.read_bytes() == CONTENT
    assert "/elsewhere" not in [each.path for each in place.web.asked]


async def test_its_address_may_have_a_reference_and_what_came_is_kept(place: Place) -> None:
    download = place.web.put(CONTENT, "/attic/model.bin")
    with_reference = place.web.url("/${labels.site}/model.bin")
    async with place.device():
        said = await place.harmony("label", "pi-1", "site=attic", "--no-wait")
        assert said.status == 0, said
        said = await place.push(
            Download.model_construct(url=with_reference, sha256=download.sha256)
        )
        assert said.status == 0, said
        assert place.target.read_bytes() == CONTENT
    # Another agent looks at what is needed, and finds it.
    place.target.unlink()
    place.web.pages.clear()
    async with place.device(), asyncio.timeout(20):
        while not place.target.exists():
            await asyncio.sleep(0.05)
    assert place.target.read_bytes() == CONTENT
    assert len(place.web.asked) == 1
