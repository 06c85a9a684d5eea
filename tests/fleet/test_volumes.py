"""Volumes and networks, by a real agent: an application of two containers, over all that becomes of it."""

from __future__ import annotations

from harmony_control.device import Device
from harmony_control.push.entries import Entry
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerNetworkScore, ContainerScore, VolumeScore
from tests.box import Bed
from tests.fleet.ground import (
    AGENT,
    SERVE,
    ControlPlane,
    Host,
    in_shell,
    pushed,
    statuses,
    until,
)


async def test_an_application_keeps_its_data_and_its_names_whatever_becomes_of_it(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane
) -> None:
    bed.registry.make_known_to(host.box)
    images = [bed.registry.push_busybox("app", f"{n}", page=f"page {n}\n") for n in range(2)]

    def application(number: int, *, internal: bool = False) -> dict[str, Entry[PiTopology]]:
        db = ContainerScore.model_validate(
            {
                "name": "db",
                "image": images[number],
                "command": in_shell(SERVE),
                "volumes": [{"volume": "app-data", "target": "/data"}],
                "networks": [{"network": "app", "aliases": ["store"]}],
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            }
        )
        front = ContainerScore.model_validate(
            {
                "name": "front",
                "image": images[0],
                "command": in_shell("sleep 86399"),
                "networks": [{"network": "app"}],
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            }
        )
        return {
            "db": Entry(db, after=["app", "data"]),
            "front": Entry(front, after=["app"]),
            "app": Entry(ContainerNetworkScore(name="app", internal=internal)),
            "data": Entry(VolumeScore(name="app-data", delete_data=True)),
        }

    def within(container: str, *command: str) -> str:
        return host.box.run(["podman", "exec", container, *command]).stdout.decode()

    def page(name: str) -> str:
        return within("front", "busybox", "wget", "-T", "5", "-qO-", f"http://{name}/")

    first, _ = await pushed(device, {name: application(0)[name] for name in ("app", "front")})
    state, _ = await pushed(device, application(0))
    assert set(statuses(state).values()) <= {"SUCCESS", "NOOP"}, state
    within("db", "sh", "-c", "echo kept > /data/it")
    assert page("db") == page("store") == "page 0\n"
    # Another image and another network, while the agent is killed; and back.
    taken = await device.put(application(1, internal=True))
    host.box.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT])
    await device.wait(taken)
    assert within("db", "cat", "/data/it") == "kept\n"
    assert page("store") == "page 1\n"
    await device.wait(await device.rollback())
    assert within("db", "cat", "/data/it") == "kept\n"
    assert page("store") == "page 0\n"
    # It is listed with who has it.
    listed = (await plane.harmony("volumes", device.id)).out.splitlines()
    assert listed[0].split() == ["VOLUME", "SIZE", "USED", "BY", "SCORE"]
    assert [line.split() for line in listed[1:]] == [["app-data", "5", "B", "db", "data"]]
    # Back to before there was any of it: the data, which nobody has named, waits until that is approved.
    await device.rollback(first.generation)
    await until(device, lambda state: state.removals_held == 2)
    assert within("db", "cat", "/data/it") == "kept\n"
    assert "with all data of volume:app-data" in (await plane.harmony("status", device.id)).out
    state = await device.wait(await device.approve())
    assert statuses(state).keys() == {"front", "app"}
    assert host.box.run(["podman", "volume", "ls", "-q"]).stdout == b""
    assert host.containers() == ["front"]
    await device.remove("front", "app")
    assert host.box.run(["podman", "network", "ls", "-q"]).stdout == b"podman\n"
