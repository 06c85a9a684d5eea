"""A real Prometheus reads a real `harmony serve`, by the configuration that docs/monitoring.md shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.control.ground import command, environment
from tests.control.light_fleet import light_fleet
from tests.ports import free_address
from tests.prometheus import find_tool

TREE = Path(__file__).parents[2]
MONITORING = TREE / "deploy" / "monitoring"
TOKEN = "0123456789abcdef0123456789abcdef"


@asynccontextmanager
async def running(*arguments: str, **more: Any) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        **more,
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.communicate()


def _write_configuration(root: Path, target: str) -> Path:
    page = (TREE / "docs" / "monitoring.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (root / "harmony.token").write_text(TOKEN)
    (root / "harmony.rules.yml").write_text((MONITORING / "harmony.rules.yml").read_text())
    text = text.replace("/etc/prometheus", str(root)).replace("https", "http")
    file = root / "prometheus.yml"
    every = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n"
    file.write_text(every + text.replace("harmony.lan:8443", target))
    return file


async def _ask(client: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    reply = await client.get(f"/api/v1/{path}", params=parameters)
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]


@pytest.mark.timeout(90)
async def test_prometheus_reads_it_and_knows_every_rule_and_query(tmp_path: Path) -> None:
    prometheus = find_tool("prometheus")
    (tmp_path / "token").write_text(TOKEN)
    async with light_fleet(tmp_path, 2) as devices, asyncio.timeout(60):
        await devices.publish("one", ["100%"])
        await devices.look()
        target, own = free_address(), free_address()
        serve = command(
            "serve", "--listen", target, "--metrics-token-file", str(tmp_path / "token"), "--json"
        )
        async with (
            running(*serve, env=environment(devices.bus.home)) as served,
            running(
                prometheus,
                f"--config.file={_write_configuration(tmp_path, target)}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={own}",
            ),
            httpx.AsyncClient(base_url=f"http://{own}") as client,
        ):
            assert served.stdout is not None
            await served.stdout.readline()
            online = 'harmony_devices{job="harmony", state="online"}'
            while True:
                await asyncio.sleep(0.2)
                try:
                    found = (await _ask(client, "query", query=online))["result"]
                    rollouts = (await _ask(client, "query", query="harmony_rollout_wave"))["result"]
                except (httpx.TransportError, AssertionError):
                    continue  # it is starting
                if rollouts and [each["value"][1] for each in found] == ["2"]:
                    break
            while True:
                await asyncio.sleep(0.2)
                groups = (await _ask(client, "rules"))["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                if rules and all(rule["health"] != "unknown" for rule in rules):
                    break
            assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
            assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
            dashboard = json.loads((MONITORING / "harmony-fleet.grafana.json").read_text())
            empty: list[str] = []
            for panel in dashboard["panels"]:
                for each in panel["targets"]:
                    query = each["expr"].replace("$job", ".*").replace("$class", ".*")
                    if not (await _ask(client, "query", query=query))["result"]:
                        empty.append(panel["title"])
            # There is no root document, and nobody is degraded.
            assert empty == ["Why devices are degraded", "The root document counts for"]
