"""How often a device says that it lives: often while something goes on, and else as its owner wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from harmony_agent.report import heartbeat
from harmony_control.bus.connection import Entry
from harmony_control.fleet import Fleet
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import Heartbeat, from_json
from harmony_core.wire.lifetimes import compute_lifetime_s, find_lifetime_s
from harmony_scores import FileScore
from tests.device import running_agent
from tests.nats import Bus, serving

OFTEN_S = 0.2
SELDOM, OFTEN = 1_800.0, 90.0
"""After how long the server drops a heartbeat: three times what the next one may take."""
PATIENCE_S = 30


@attrs.frozen
class Rig:
    bus: Bus
    fleet: Fleet

    async def heartbeat(self) -> Entry | None:
        return await self.bus.bucket("heartbeat").get("pi-1")

    async def until(self, holds: Callable[[Entry], bool]) -> Entry:
        """The first heartbeat of which it holds."""
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self.heartbeat()) is None or not holds(found):
                await asyncio.sleep(0.02)
        return found

    async def until_quiet(self) -> Entry:
        return await self.until(lambda beat: beat.lifetime_s == SELDOM)


@asynccontextmanager
async def _device(bus: Bus, root: Path, heartbeat_s: float) -> AsyncGenerator[None]:
    async with running_agent(
        bus.home,
        "pi-1",
        root / "pi-1",
        registry=Registry([FileScore]),
        offers={"FileSystemHost": FakeFiles()},
        missing={},
        heartbeat_s=heartbeat_s,
    ):
        yield


@pytest.fixture(autouse=True)
def _soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BUSY_EVERY_S", OFTEN_S)
    monkeypatch.setattr(heartbeat, "BUSY_FOR_S", 1.0)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1") as bus, Fleet.connect(bus.home) as fleet:
        yield Rig(bus, fleet)


async def test_a_device_on_a_thin_line_beats_often_while_something_goes_on_and_then_seldom(
    rig: Rig, tmp_path: Path
) -> None:
    async with _device(rig.bus, tmp_path, 600):
        await rig.until(lambda beat: beat.lifetime_s == OFTEN)
        quiet = await rig.until_quiet()
        await asyncio.sleep(5 * OFTEN_S)
        assert await rig.heartbeat() == quiet

        # What is pushed makes it beat at once, and for a while.
        score = FileScore(path="/etc/motd", content="hello\n")
        await rig.fleet.device("pi-1").put({"motd": score})
        first = await rig.until(lambda beat: beat.revision > quiet.revision)
        assert first.lifetime_s == OFTEN
        await rig.until(lambda beat: beat.revision > first.revision)
        quiet = await rig.until_quiet()

        # So does a question, though it changes nothing.
        async with rig.fleet.device("pi-1").events() as events:
            async for _ in events:
                pass
        assert (await rig.until(lambda beat: beat.revision > quiet.revision)).lifetime_s == OFTEN
        state = await rig.fleet.device("pi-1").state()
        assert state is not None
        assert state.heartbeat_s == 600


async def test_a_device_that_beats_as_usual_says_always_that_90_s_are_enough(
    rig: Rig, tmp_path: Path
) -> None:
    async with _device(rig.bus, tmp_path, OFTEN_S):
        first = await rig.until(lambda _: True)
        later = await rig.until(lambda beat: beat.revision > first.revision + 10)
        assert (first.lifetime_s, later.lifetime_s) == (OFTEN, OFTEN)
        assert _tells_vitals(later)


async def test_vitals_are_told_while_something_goes_on_and_then_once_an_hour(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_VITALS_S", 1.5)
    monkeypatch.setattr(heartbeat, "_LEAN_FROM_S", 0.0)
    async with _device(rig.bus, tmp_path, 2 * OFTEN_S):
        await rig.until(_tells_vitals)
        for _ in range(2):
            await rig.until(lambda beat: not _tells_vitals(beat))
            await rig.until(_tells_vitals)


def _tells_vitals(beat: Entry) -> bool:
    return from_json(beat.value, Heartbeat).vitals is not None


async def test_a_server_that_knows_no_lifetimes_hears_of_the_device_as_often_as_it_must(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As an older one, or one of somebody else's that was not upgraded: it forgets each after 90 s."""
    admin = rig.bus.admin
    answer = await admin.request("$JS.API.STREAM.INFO.KV_heartbeat")
    options = json.loads(answer.data)["config"] | {"max_age": 90 * 10**9, "allow_msg_ttl": False}
    await admin.request("$JS.API.STREAM.DELETE.KV_heartbeat")
    answer = await admin.request("$JS.API.STREAM.CREATE.KV_heartbeat", json.dumps(options).encode())
    assert "error" not in json.loads(answer.data)

    async with _device(rig.bus, tmp_path, 600):
        first = await rig.until(lambda _: True)
        assert first.lifetime_s is None
        # Past the time after which it would be quiet elsewhere.
        await rig.until(lambda beat: beat.revision > first.revision + 12)
        assert caplog.text.count("does not know yet how long heartbeats count") == 1


@pytest.mark.parametrize(
    ("interval_s", "counts_s"),
    [(0.5, 90), (30, 90), (30.1, 91), (120, 360), (600, 1800), (1e9, 1800)],
)
def test_a_heartbeat_counts_for_three_intervals_within_bounds(
    interval_s: float, counts_s: int
) -> None:
    assert compute_lifetime_s(interval_s) == counts_s


@pytest.mark.parametrize(
    ("said", "counts_s"),
    [
        ("90", 90.0),
        ("1800", 1800.0),
        ("31536000", 1800.0),
        ("never", None),
        ("1h", None),
        ("-1", None),
        ("9" * 400, None),
        ("٣", None),
        ("", None),
    ],
)
def test_what_is_no_number_of_seconds_is_read_as_if_nothing_was_said(
    said: str, counts_s: float | None
) -> None:
    assert find_lifetime_s({"Nats-TTL": said}) == counts_s
    assert find_lifetime_s(None) is None
