"""A compose project by a real agent, on real podman: its order, its names, and what a change costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harmony_control.compose.local import LocalPath
from harmony_control.compose.mapping import map_project
from harmony_control.compose.project import ComposeProject
from harmony_control.device import Device
from harmony_control.push.entries import AnyEntry
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_pi_topology import PiTopology
from harmony_scores import ComposeScore
from tests.box import Bed
from tests.fleet.ground import SERVE, Host, pushed, statuses

FETCH = "busybox wget -T 5 -qO- http://db/ > /data/page"


async def test_services_come_in_their_order_and_a_change_of_one_costs_that_one_alone(
    device: Device[PiTopology], host: Host, bed: Bed, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    image = bed.registry.push_busybox("app", "1", page="page\n")
    (tmp_path / "web.conf").write_text("mode = quiet\n")

    def project(web: str, **more: Any) -> dict[str, AnyEntry]:
        data = {"type": "volume", "source": "data", "target": "/data"}
        services: dict[str, Any] = {
            "web": {
                "command": ["sh", "-c", web],
                "depends_on": {
                    "migrate": {"condition": "service_completed_successfully"},
                    "db": {"condition": "service_started"},
                },
                "restart": "unless-stopped",
                "volumes": [
                    data,
                    {
                        "type": "bind",
                        "source": LocalPath(tmp_path / "web.conf"),
                        "target": "/etc/web.conf",
                        "read_only": True,
                    },
                ],
            },
            "migrate": {
                "command": ["sh", "-c", f"sleep 1; {FETCH}"],
                "depends_on": {"db": {"condition": "service_healthy"}},
                "volumes": [data],
            },
            "db": {
                "command": ["sh", "-c", f"sleep 1; exec {SERVE}"],
                "restart": "always",
                "healthcheck": {
                    "test": ["CMD-SHELL", "busybox wget -qO- http://127.0.0.1/"],
                    "interval": 1.0,
                    "retries": 20,
                },
            },
            **more,
        }
        document = {
            "name": "shop",
            "services": {
                name: {"image": image, "stop_grace_period": 0.0, **each}
                for name, each in services.items()
            },
            "volumes": {"data": {"name": "shop_data"}},
        }
        read = ComposeProject("shop", tmp_path, document, ())
        return map_project(read, Registry([ComposeScore])).entries

    def inspect() -> dict[str, Any]:
        ids = host.box.run(["podman", "ps", "-aq"]).stdout.decode().split()
        found: list[dict[str, Any]] = (
            json.loads(host.box.run(["podman", "inspect", *ids]).stdout) if ids else []
        )
        return {each["Name"]: each for each in found}

    def identities() -> dict[str, tuple[str, str]]:
        return {name: (each["Id"], each["State"]["StartedAt"]) for name, each in inspect().items()}

    state, _ = await pushed(device, project("cat /data/page; exec sleep 86399"))
    assert statuses(state) == {"shop": "SUCCESS"}
    found = inspect()
    assert found.keys() == {"shop-web-1", "shop-migrate-1", "shop-db-1"}
    started = {name: each["State"]["StartedAt"] for name, each in found.items()}
    assert started["shop-db-1"] < started["shop-migrate-1"] < started["shop-web-1"]
    ended = found["shop-migrate-1"]["State"]
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 0)
    assert ended["FinishedAt"] <= started["shop-web-1"]
    within = ["podman", "exec", "shop-web-1"]
    for name in ("db", "shop-db-1"):
        page = host.box.run([*within, "busybox", "wget", "-T", "5", "-qO-", f"http://{name}/"])
        assert page.stdout == b"page\n"
    assert host.box.run([*within, "cat", "/data/page"]).stdout == b"page\n"
    assert host.box.run([*within, "cat", "/etc/web.conf"]).stdout == b"mode = quiet\n"
    # The same again: nothing is done to anything, nor is what has ended run again.
    before = identities()
    state, _ = await pushed(device, project("cat /data/page; exec sleep 86399"))
    assert statuses(state) == {"shop": "NOOP"}
    assert identities() == before
    # Another file makes anew who mounts it; a broken service is told by its name, and stops nobody.
    (tmp_path / "web.conf").write_text("mode = loud\n")
    state, _ = await pushed(
        device,
        project(
            "cat /data/page; exec sleep 86399",
            broken={"command": ["sh", "-c", "echo out of cheese; exit 3"]},
        ),
    )
    outcome = state.scores["shop"].outcome
    assert isinstance(outcome, Failure)
    assert "shop-broken-1 exited with code 3" in outcome.error.message
    assert "out of cheese" in outcome.error.message
    now = identities()
    assert {name for name in before if before[name] != now[name]} == {"shop-web-1"}
    # What is no longer named goes, with its container; the volume stays with its data.
    state, _ = await pushed(device, project("exec sleep 86399"))
    assert statuses(state) == {"shop": "SUCCESS"}
    assert inspect().keys() == {"shop-web-1", "shop-migrate-1", "shop-db-1"}
    last = identities()
    assert {name for name in before if now[name] != last[name]} == {"shop-web-1"}
    await device.remove("shop")
    assert inspect() == {}
    assert host.box.run(["podman", "volume", "ls", "-q"]).stdout == b"shop_data\n"
    assert host.box.run(["podman", "network", "ls", "-q"]).stdout == b"podman\n"
