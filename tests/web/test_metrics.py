"""`/metrics`: what it counts, for whom, and that it stays as small for a thousand devices as for one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.web.board import Board
from harmony_control.web.live import Live
from harmony_control.web.metrics import REASONS, FleetCollector, make_registry
from harmony_control.web.metrics_app import TokenFile
from harmony_control.web.readings import Readings
from harmony_control.web.users import Users
from harmony_core.errors import ConfigError
from harmony_core.outcome import Noop
from tests.control.ground import command, environment
from tests.control.light_fleet import CLASS, light_fleet
from tests.control.scripted_device import ScriptedDevice, failure, page
from tests.nats import serving
from tests.ports import free_address
from tests.prometheus import run_promtool

from .ground import CHEAP, PASSWORD, Ground, Rows, read_rollouts, running

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOKEN = "0123456789abcdef0123456789abcdef"


def row(name: str, **fields: Any) -> DeviceRow:
    made = DeviceRow(id=name, device="Online", update="UpToDate", workloads="Healthy", reason="")
    return attrs.evolve(made, **fields)


@attrs.frozen
class Told:
    """What was told, by a real parser."""

    text: str

    def value(self, name: str, **labels: str) -> float:
        """The one sample with that name and those labels."""
        found = [
            each.value
            for family in text_string_to_metric_families(self.text)
            for each in family.samples
            if each.name == name and labels.items() <= each.labels.items()
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (each.name, tuple(sorted(each.labels.items())))
            for family in text_string_to_metric_families(self.text)
            for each in family.samples
        }


@attrs.frozen
class Counting:
    """A collector over rows that a test says."""

    live: Live
    registry: CollectorRegistry

    def put(self, *rows: DeviceRow) -> None:
        self.live.read_at = NOW
        self.live.problem = ""
        self.live.board.take(rows)

    def tell(self) -> Told:
        return Told(generate_latest(self.registry).decode())


@pytest.fixture
async def counting(tmp_path: Path) -> AsyncGenerator[Counting]:
    async with serving(tmp_path) as bus:
        live = Live(Rows([]), Board("home"))
        readings = Readings(Fleet(bus.home, bus.admin))
        collector = FleetCollector(live, readings, is_connected=lambda: True, now=lambda: NOW)
        yield Counting(live, make_registry(collector))


async def test_each_axis_is_counted_and_nobody_is_counted_as_0(counting: Counting) -> None:
    counting.put(
        row("pi-1"),
        row("pi-2", device="Offline", workloads="Unknown", update="OutOfDate"),
        row("pi-3", workloads="Error", update="Refused"),
    )
    told = counting.tell()
    assert told.value("harmony_devices", state="online") == 2
    assert told.value("harmony_devices", state="offline") == 1
    assert told.value("harmony_devices", state="never") == 0
    assert told.value("harmony_devices_update", state="up_to_date") == 1
    assert told.value("harmony_devices_update", state="out_of_date") == 1
    assert told.value("harmony_devices_workloads", state="error") == 1
    assert told.value("harmony_devices_workloads", state="unknown") == 1


async def test_before_the_fleet_was_read_there_are_no_counts_rather_than_0(
    counting: Counting,
) -> None:
    told = counting.tell()
    assert told.value("harmony_fleet_in_sync") == 0
    assert not [name for name, _ in told.series() if name.startswith("harmony_devices")]


async def test_what_devices_that_are_away_have_said_is_not_counted(counting: Counting) -> None:
    said = {
        "scores": 3,
        "scores_ready": 2,
        "outcomes": {"NOOP": 2, "FAILURE": 1},
        "conditions": {"Ready": "False", "Degraded": "True"},
        "degraded": "ScoreFailed",
    }
    counting.put(row("pi-1", **said), row("pi-2", device="Offline", **said))
    told = counting.tell()
    assert told.value("harmony_scores", outcome="failure") == 1
    assert told.value("harmony_scores", outcome="noop") == 2
    assert told.value("harmony_scores", outcome="running") == 0
    assert told.value("harmony_scores_ready") == 2
    assert told.value("harmony_devices_condition", condition="degraded", status="true") == 1
    assert told.value("harmony_devices_degraded", reason="score_failed") == 1


async def test_how_long_ago_devices_were_heard_is_a_histogram(counting: Counting) -> None:
    ages_s = [0, 20, 100, 10_000, 10_000_000, -5]
    counting.put(
        *(row(f"pi-{n}", last_seen=NOW - timedelta(seconds=s)) for n, s in enumerate(ages_s)),
        row("pi-never", device="Never"),
    )
    told, name = counting.tell(), "harmony_devices_last_heard_age_seconds"
    edges = ("15.0", "30.0", "90.0", "180.0", "21600.0", "604800.0", "+Inf")
    counts = [told.value(f"{name}_bucket", le=each) for each in edges]
    assert counts == [2, 3, 3, 4, 5, 5, 6]
    assert told.value(f"{name}_gcount") == 6
    assert told.value(f"{name}_gsum") == 10_010_120


async def test_a_thousand_devices_are_as_many_series_as_one(counting: Counting) -> None:
    counting.put(row("pi-0", agent_version="1.0.0", conditions={"Ready": "True"}))
    one = counting.tell()
    counting.put(
        *(
            row(
                f"pi-{n}",
                device=("Online", "Silent", "Offline")[n % 3],
                labels={"site": f"site-{n}"},
                agent_version="1.0.0",
                reason=f"reason {n}",
                degraded=f"Reason{n}",
                conditions={"Ready": "True"},
            )
            for n in range(1_000)
        )
    )
    many = counting.tell()
    assert many.series() == one.series()
    assert many.value("harmony_devices_degraded", reason="other") == 334
    assert len(many.text) < 20_000


async def test_versions_that_devices_make_up_do_not_add_up(counting: Counting) -> None:
    seen: set[str] = set()
    for at in range(20):
        named = [f"1.{at}.{each}" for each in range(30)]
        bad = ["nonsense", '1"} evil', "1" * 40]
        counting.put(*(row(f"pi-{n}", agent_version=name) for n, name in enumerate([*named, *bad])))
        told = counting.tell()
        labels = {
            dict(labels)["version"] for name, labels in told.series() if name.endswith("agents")
        }
        assert len(labels) <= 11
        assert sum(told.value("harmony_agents", version=each) for each in labels) == 33
        seen |= labels
    assert len(seen) == 51
    assert "other" in seen


async def test_promtool_has_nothing_to_say_against_it(counting: Counting) -> None:
    counting.put(row("pi-1", last_seen=NOW, agent_version="1.0.0"))
    assert run_promtool("check", "metrics", given=counting.tell().text.encode()) == (0, "")


def test_the_reasons_are_those_that_the_wire_has() -> None:
    wire = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    told = set(re.findall(r"^\| `Degraded` \| `(\w+)` \|", wire, re.MULTILINE))
    assert told - {"AllWell"} == set(REASONS)


# Over HTTP, over a real bus.


async def _until(tell: Callable[[], Awaitable[Told]], holds: Callable[[Told], bool]) -> Told:
    async with asyncio.timeout(30):
        while True:
            told = await tell()
            if holds(told):
                return told
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _measured(fleet: Fleet, root: Path) -> AsyncGenerator[httpx.AsyncClient]:
    token = root / "token"
    token.write_text(TOKEN + "\n")
    async with (
        running(fleet, metrics_token=TokenFile(token)) as site,
        httpx.AsyncClient(
            base_url=site.url, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client,
    ):
        yield client


async def test_what_devices_report_is_counted_as_it_comes(ground: Ground, tmp_path: Path) -> None:
    await ground.one.report(
        ground.one.state(0, {"web": page(failure("JobFailed", "x"), 0), "db": page(Noop(), 0)})
    )
    await ground.one.beat()
    async with _measured(ground.fleet, tmp_path) as client:

        async def tell() -> Told:
            return Told((await client.get("/metrics")).text)

        told = await _until(
            tell,
            lambda told: (
                "harmony_devices{" in told.text
                and told.value("harmony_devices", state="online") == 1
                and told.value("harmony_scores", outcome="failure") == 1
            ),
        )
        assert told.value("harmony_devices", state="never") == 2
        assert told.value("harmony_scores", outcome="noop") == 1
        assert told.value("harmony_devices_workloads", state="error") == 1
        assert told.value("harmony_agents", version="1.2.3") == 1
        assert told.value("harmony_bus_connected") == 1
        assert told.value("harmony_fleet_in_sync") == 1
        await ground.two.beat()
        await _until(tell, lambda told: told.value("harmony_devices", state="online") == 2)
        reply = await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        families = {
            each.name: each
            for each in openmetrics.text_string_to_metric_families(reply.text)  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType] - half typed there
        }
        assert families["harmony_devices_last_heard_age_seconds"].type == "gaugehistogram"


async def test_only_who_has_the_token_is_told(ground: Ground, tmp_path: Path) -> None:
    async with _measured(ground.fleet, tmp_path) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.head("/metrics")).status_code == 200
        for header in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"):
            headers = {b"Authorization": header.encode()}
            reply = await client.get("/metrics", headers=list(headers.items()))
            assert reply.status_code == 401, header
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "harmony_devices" not in reply.text
        # It opens nothing else.
        assert (await client.get("/api/fleet")).status_code == 401
        (tmp_path / "token").write_text("another-token-that-is-long-enough")
        assert (await client.get("/metrics")).status_code == 401
        (tmp_path / "token").unlink()
        assert (await client.get("/metrics")).status_code == 401


async def test_without_a_token_there_are_no_metrics_where_people_sign_in(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        assert (await client.get("/metrics")).status_code == 404


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "é" * 30])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        TokenFile(file).read()


async def test_a_rollout_is_told_by_class_with_how_its_devices_stand(tmp_path: Path) -> None:
    async with light_fleet(tmp_path, 4) as devices, Fleet.connect(devices.bus.home) as fleet:
        await devices.publish("one", ["50%", "100%"])
        await devices.look()
        readings = Readings(fleet)
        live = Live(Rows([]), Board("home"))
        registry = make_registry(FleetCollector(live, readings, is_connected=lambda: True))
        await readings.read()
        live.rollouts.take(await read_rollouts(fleet))
        told = Told(generate_latest(registry).decode())
        assert told.value("harmony_rollout_state", state="running", **{"class": CLASS}) == 1
        assert told.value("harmony_rollout_state", state="aborted", **{"class": CLASS}) == 0
        assert told.value("harmony_rollout_generation", **{"class": CLASS}) == 1
        assert told.value("harmony_rollout_wave", **{"class": CLASS}) == 1
        assert told.value("harmony_rollout_waves", **{"class": CLASS}) == 2
        counts = {
            each: told.value("harmony_rollout_devices", state=each)
            for each in ("not_reached", "ready", "unhealthy", "progressing")
        }
        assert counts == {"not_reached": 2, "ready": 2, "unhealthy": 0, "progressing": 0}
        await devices.rollout().order("abort")
        await readings.read()
        live.rollouts.take(await read_rollouts(fleet))
        told = Told(generate_latest(registry).decode())
        assert told.value("harmony_rollout_state", state="aborted") == 1
        found = await read_rollouts(fleet)
        unread = attrs.evolve(found.classes[CLASS], look=None, problem="nobody trusted signed it")
        live.rollouts.take(attrs.evolve(found, classes={CLASS: unread}))
        told = Told(generate_latest(registry).decode())
        assert told.value("harmony_rollout_state", state="aborted") == 1
        assert run_promtool("check", "metrics", given=told.text.encode()) == (0, "")


async def test_an_address_of_its_own_needs_no_token_and_has_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus, asyncio.timeout(40):
        Users(bus.home, CHEAP).add("ada", "viewer", PASSWORD)
        one = ScriptedDevice(await bus.device("pi-1"))
        await one.beat()
        beside = f"http://{(address := free_address())}"
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--listen", free_address(), "--metrics-listen", address, "--json"),
            env=environment(bus.home),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with httpx.AsyncClient() as client:

            async def tell() -> Told:
                return Told((await client.get(f"{beside}/metrics")).text)

            await _until(
                tell,
                lambda told: (
                    "harmony_devices{" in told.text
                    and told.value("harmony_devices", state="online") == 1
                ),
            )
            await _until(tell, lambda told: "harmony_rollouts_last_read" in told.text)
            for path in ("/", "/api/fleet", "/healthz", "/api/session"):
                assert (await client.get(f"{beside}{path}")).status_code == 404
            assert (await client.post(f"{beside}/metrics")).status_code == 405
            assert (await client.get(f"{url}/metrics")).status_code == 404
        process.terminate()
        _, err = await process.communicate()
    assert err == b""


async def test_one_that_is_taken_is_told_with_the_option_to_change(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus, asyncio.timeout(40):
        Users(bus.home, CHEAP).add("ada", "viewer", PASSWORD)
        taken = free_address()
        host, _, port = taken.rpartition(":")
        server = await asyncio.start_server(lambda _, __: None, host, int(port))
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--listen", free_address(), "--metrics-listen", taken),
            env=environment(bus.home),
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        server.close()
    assert process.returncode != 0
    assert b"choose another with --metrics-listen" in err
