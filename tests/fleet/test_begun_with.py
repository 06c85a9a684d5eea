"""What `harmony new` writes and `harmony import` prints, on a real Pi: only the images are the bed's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from tests.box import Bed
from tests.fleet.ground import ControlPlane, Host, statuses


def serving(port: int) -> tuple[str, ...]:
    return ("httpd", "-f", "-p", str(port), "-h", "/www")


@pytest.mark.timeout(180)
async def test_what_somebody_begins_with_converges_and_then_stays(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    web = bed.registry.push_busybox("web", "template", command=serving(80))
    broker = bed.registry.push_busybox("broker", "template", command=serving(1883))
    for template in ("web-app", "mqtt"):
        assert (await plane.harmony("new", template, str(tmp_path / template))).status == 0
    scores = (tmp_path / "web-app/web.yaml").read_text() + (tmp_path / "mqtt/mqtt.yaml").read_text()
    for theirs, ours in (("nginx:1.29", web), ("eclipse-mosquitto:2", broker)):
        scores = scores.replace(f"docker.io/library/{theirs}", ours)
    command = (
        "podman run -d --name imported --restart always -p 8081:80 --network imported:alias=web "
        f"-v imported:/data --tmpfs /tmp:size=1m --cap-drop=SETUID --read-only -e A='b c' {web}"
    )
    imported = await plane.harmony("import", "run", command)
    assert imported.status == 0, imported.err
    for _ in range(2):
        pushed = await plane.harmony("push-score", device.id, "-", stdin=scores + imported.out)
        assert pushed.status == 0, pushed.out + pushed.err
    state = await device.state()
    assert state is not None
    assert set(statuses(state)) == {
        *("web", "mqtt", "mqtt-data", "mqtt-config"),
        *("imported", "imported-volume", "imported-network"),
    }
    assert set(statuses(state).values()) == {"NOOP"}
    found = host.box.run(["podman", "exec", "imported", "sh", "-c", 'echo "$A"; test -w /data'])
    assert found.stdout.decode() == "b c\n"


@pytest.mark.timeout(180)
async def test_a_compose_file_to_begin_with_runs_and_becomes_scores_without_a_stop(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    pages = ("httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html")
    assert (await plane.harmony("new", "compose", str(tmp_path / "clock"))).status == 0
    file = tmp_path / "clock/compose.yaml"
    compose = file.read_text()
    for theirs, ours in (
        ("nginx:1.29-alpine", bed.registry.push_busybox("pages", "template", command=pages)),
        ("alpine:3.22", bed.registry.push_busybox("writer", "template")),
    ):
        compose = compose.replace(f"image: {theirs}", f"image: {ours}")
    file.write_text(compose)
    (tmp_path / "clock/.env").write_text("PORT=8090\nGREETING=Hello from the box.\n")

    async def push(*files: str) -> dict[str, str]:
        pushed = await plane.harmony("push-score", device.id, *files)
        assert pushed.status == 0, pushed.out + pushed.err
        state = await device.state()
        assert state is not None
        return statuses(state)

    def containers() -> str:
        shown = ("podman", "ps", "--format", "{{.Names}} {{.ID}} {{.StartedAt}}", "--sort", "names")
        return host.box.text(*shown)

    assert await push(str(file)) == {"clock": "SUCCESS"}
    async with httpx.AsyncClient(trust_env=False) as client:
        page = await client.get(f"http://{host.box.address}:8090/")
    assert page.text.startswith("Hello from the box. It is ")
    before = containers()
    assert [each.split()[0] for each in before.splitlines()] == ["clock-web-1", "clock-writer-1"]
    assert await push(str(file)) == {"clock": "NOOP"}
    # The Scores take over what the compose file has made, and nothing of it is made anew.
    imported = await plane.harmony("import", "compose", str(file))
    assert imported.status == 0, imported.err
    (tmp_path / "clock.yaml").write_text(imported.out)
    now = await push(str(tmp_path / "clock.yaml"), "--prune", "--yes")
    assert now.keys() == {"clock-default", "clock-pages", "clock-web", "clock-writer"}
    assert containers() == before
