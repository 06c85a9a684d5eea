"""The API by its own description: whatever is sent, no answer is a defect of ours."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from nats.js import JetStreamContext
from schemathesis import GenerationMode

from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_core.wire.names import DESIRED_CLASS, DESIRED_STATE, FLEET
from harmony_scores import FileScore
from tests.device import running_agent

from .ground import Ground

WANTED = (DESIRED_STATE, DESIRED_CLASS, FLEET)
_SKIPPED = {
    "GET /api/fleet/changes",
    "GET /api/devices/{device_id}/events/live",
    "GET /api/devices/{device_id}/logs",
    "DELETE /api/session",
}
"""Streams that have no end where there is something to tell; and what would end the session of the rest."""


_OF_DEVICES = {
    "GET /api/devices/{device_id}",
    "GET /api/devices/{device_id}/events",
    "POST /api/devices/{device_id}/reconcile",
}
_THERE, _NOWHERE = "pi-3", "pi-9"


# The agent beside asks for random delays, in another thread than that which makes up what is sent.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
async def test_no_request_that_the_description_allows_or_forbids_is_a_defect(
    ground: Ground, tmp_path: Path
) -> None:
    async with running_agent(
        ground.bus.home,
        _THERE,
        tmp_path / "agent",
        registry=Registry([FileScore]),
        offers={"FileSystemHost": FakeFiles()},
        missing={},
    ):
        await _look_at_all(ground)


async def _look_at_all(ground: Ground) -> None:
    motd = FileScore(path="/etc/motd", content="a")
    await ground.fleet.device("pi-1").put({"motd": motd})
    await ground.fleet.device(_THERE).push(motd, id="motd")
    await ground.fleet.allow_gate_key()
    await ground.fleet.push_class("kiosk", {"motd": motd}, selector="")
    async with ground.site.client("approver") as client, asyncio.timeout(20):
        while not await opens_waves(client):
            await asyncio.sleep(0.05)
        document = (await client.get("/api/schema/openapi.json")).json()
        cookies = dict(client.cookies)
    wanted = await count_wanted(ground)
    assert all(written > 0 for _, written in wanted.values())
    assert document["openapi"].startswith("3.1")
    assert {"/api/fleet", "/api/devices", "/api/devices/{device_id}"} <= document["paths"].keys()
    for path in ("/api/rollouts/{name}", "/api/rollouts/{name}/orders"):
        for operation in document["paths"][path].values():
            # By chance alone, no name would be that of a class.
            operation["parameters"][0]["schema"]["enum"] = ["kiosk", "door"]
    for label in _OF_DEVICES:
        method, path = label.split()
        (name,) = (
            each
            for each in document["paths"][path][method.lower()]["parameters"]
            if each["name"] == "device_id"
        )
        name["schema"]["enum"] = [_THERE, _NOWHERE]
    found = await asyncio.to_thread(_fuzz, document, ground.site.url, cookies)
    # A device was asked, and not only whether there is one.
    assert {label for label in _OF_DEVICES if {200, 404} <= set(found[label])} == _OF_DEVICES
    statuses = [each for answers in found.values() for each in answers]
    assert len(statuses) > 100
    assert {200, 400, 404} <= set(statuses)
    assert 500 not in statuses
    gates = await ground.fleet.rollout("kiosk").history()
    assert len(gates) > 1  # some of what was made up was done
    # And yet nothing is wanted of any device that was not before: the web never pushes.
    assert await count_wanted(ground) == wanted


async def count_wanted(ground: Ground) -> dict[str, tuple[int, int]]:
    """Of each bucket of what devices shall be: how many values it has, and the number of its newest write."""
    streams = JetStreamContext(ground.bus.admin)
    states = {name: (await streams.stream_info(f"KV_{name}")).state for name in WANTED}
    return {name: (each.messages, each.last_seq) for name, each in states.items()}


async def opens_waves(client: httpx.AsyncClient) -> bool:
    reply = await client.get("/api/rollouts/kiosk")
    return reply.status_code == 200 and not reply.json()["only_looks"]


def _fuzz(
    document: dict[str, Any], url: str, cookies: dict[str, str]
) -> defaultdict[str, list[int]]:
    """Return the status of each answer to what schemathesis makes of *document*, right and wrong, by what was
    asked."""
    schema: Any = schemathesis.openapi.from_dict(document)
    found: defaultdict[str, list[int]] = defaultdict(list)
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.label in _SKIPPED:
            continue
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            # What has neither a parameter nor a body cannot be asked wrongly.
            with suppress(Unsatisfiable):
                _fuzz_one(operation, mode, found[operation.label], url=url, cookies=cookies)
    return found


def _fuzz_one(operation: Any, mode: GenerationMode, statuses: list[int], **where: Any) -> None:
    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        reply = case.call(
            base_url=where["url"], cookies=where["cookies"], headers={"Origin": where["url"]}
        )
        statuses.append(reply.status_code)
        assert reply.status_code != 500, (case.as_curl_command(), reply.text)

    one()
