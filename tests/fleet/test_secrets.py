"""A secret on a real device: in its file and in whoever reads that, and nowhere else that can be searched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

import pytest

from harmony_control.device import Device
from harmony_core.outcome import Noop, Success
from harmony_pi_topology import PiTopology
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, Said, heard_again, in_shell, until

FILE = "/etc/app/password"
OLD, NEW = "hunter2-of-old", "correct-horse-of-new"
PODMAN_STORE = "/var/lib/containers/storage/secrets"
WIFI = "/etc/NetworkManager/system-connections/home.nmconnection"
HOME = {
    "id": "home",
    "kind": "NetworkConfigScore",
    "spec": {"name": "home", "link": {"type": "wifi", "ssid": "home", "psk": "${secret.wifi}"}},
}
_LOOKED_THROUGH = ("/etc", "/var", "/run", "/root", "/home", "/tmp", "/srv", "/opt")


def entries(image: str) -> Sequence[Mapping[str, object]]:
    return [
        {"id": "password", "kind": "FileScore", "spec": {"path": FILE, "content": "${secret.db}"}},
        {
            "id": "app",
            "kind": "ContainerScore",
            "after": ["password"],
            "spec": {
                "name": "app",
                "image": image,
                "command": in_shell("sleep 86399"),
                "mounts": [{"source": FILE, "target": "/run/secrets/db"}],
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            },
        },
        {
            "id": "db",
            "kind": "ContainerScore",
            "spec": {
                "name": "db",
                "image": image,
                "command": in_shell("sleep 86399"),
                "environment": {"URL": "pg://me:${secret.db}@db"},
                "secrets": [{"content": "${secret.db}", "target": "/run/secrets/db", "uid": 7}],
                "healthcheck": {"shell": 'test -n "$URL"', "interval_s": 1},
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            },
        },
    ]


def holders_of(pi: Box, value: str) -> list[str]:
    """The files of the device in which *value* stands."""
    kept = base64.b64encode(value.encode()).decode()  # as podman keeps its secrets
    words = ["-e", value, "-e", kept, *_LOOKED_THROUGH]
    found = pi.run(["grep", "-rlaF", "-D", "skip", *words], check=False)
    return sorted(found.stdout.decode().split())


def is_podmans(path: str) -> bool:
    """Whether root alone can come to *path*, and podman keeps it for a container or in its store."""
    return path.startswith(
        ("/var/lib/containers/storage/overlay-containers/", "/run/crun/", PODMAN_STORE)
    )


async def test_a_secret_is_where_it_is_meant_to_be_and_an_old_one_is_gone(
    device: Device[PiTopology], host: Host, pi: Box, bed: Bed, plane: ControlPlane
) -> None:
    bed.registry.make_known_to(pi)
    image = bed.registry.push_busybox("app", "1")
    told: list[Said] = []

    async def run(*words: str, stdin: str = "") -> Said:
        told.append(await plane.harmony(*words, stdin=stdin))
        return told[-1]

    async def push() -> None:
        said = await run("push-score", pi.name, "-", stdin=json.dumps(entries(image)))
        assert said.status == 0, said

    def inside() -> str:
        of_app, of_db = (
            pi.text("podman", "exec", name, "cat", "/run/secrets/db") for name in ("app", "db")
        )
        assert of_app == of_db
        assert f"URL=pg://me:{of_db}@db\0" in pi.text(
            "podman", "exec", "db", "cat", "/proc/1/environ"
        )
        return of_app

    def holders(value: str) -> list[str]:
        found = holders_of(pi, value)
        assert any(each.startswith(PODMAN_STORE) for each in found)
        return [each for each in found if not is_podmans(each)]

    await run("secret", "set", "db", stdin=OLD)
    await push()
    assert pi.text("stat", "-c", "%a %U", FILE).strip() == "600 root"
    assert inside() == OLD
    assert holders(OLD) == [FILE]

    await run("secret", "set", "db", stdin=NEW)
    await push()
    assert inside() == NEW
    assert holders(NEW) == [FILE]
    assert holders_of(pi, OLD) == []
    for each in ("/var/lib/containers/storage/overlay-containers", PODMAN_STORE):
        assert pi.text("stat", "-c", "%a %U", each).strip() == "700 root"
    # Podman itself starts it again, too, once it has ended: of the two, the second one fails.
    pi.run(["sh", "-c", "podman restart -t 0 db || podman restart -t 0 db"])
    assert inside() == NEW

    # An agent that starts anew opens what it has kept, and puts right what somebody else has written.
    pi.run(["systemctl", "restart", AGENT])
    await heard_again(device)
    pi.write(FILE, "mine", mode=0o600)
    await until(device, lambda _: pi.text("cat", FILE) == NEW)

    for words in (("events", pi.name), ("history", pi.name), ("describe", pi.name)):
        await run(*words)
    await run("diff", pi.name, "-", stdin=json.dumps(entries(image)))
    shown = "".join(each.out + each.err for each in told)
    shown += pi.journal(AGENT) + pi.text("podman", "inspect", "app", "db") + pi.text("ps", "-ef")
    shown += pi.text("journalctl", "--no-pager", "-q")
    assert OLD not in shown
    assert NEW not in shown
    assert (await run("remove-score", pi.name, "db")).status == 0
    assert holders_of(pi, NEW) == [FILE]
    kept = [each for each in plane.home.root.rglob("*") if each.is_file()]
    assert not [each for each in kept if NEW.encode() in each.read_bytes()]


@pytest.fixture
async def with_network_manager(device: Device[PiTopology], pi: Box) -> None:
    """NetworkManager looks after the network of the device, but for the cable by which it is reached."""
    pi.write("/etc/NetworkManager/conf.d/20-quiet.conf", "[main]\nno-auto-default=*\n")
    pi.run(["systemctl", "start", "NetworkManager.service"])
    pi.run(["systemctl", "restart", AGENT])  # it is asked at its start what there is
    await heard_again(device)


@pytest.mark.usefixtures("with_network_manager")
async def test_the_password_of_a_wifi_is_in_its_profile_alone_and_put_right(
    device: Device[PiTopology], pi: Box, plane: ControlPlane
) -> None:
    told: list[Said] = []

    async def run(*words: str, stdin: str = "") -> Said:
        told.append(await plane.harmony(*words, stdin=stdin))
        assert told[-1].status == 0, told[-1]
        return told[-1]

    async def push(value: str) -> object:
        await run("secret", "set", "wifi", stdin=value)
        await run("push-score", pi.name, "-", stdin=json.dumps([HOME]))
        state = await device.state()
        assert state is not None
        return state.scores["home"].outcome

    assert isinstance(await push(OLD), Success)
    assert pi.text("stat", "-c", "%a %U", WIFI).strip() == "600 root"
    assert f"psk={OLD}\n" in pi.text("cat", WIFI)
    assert holders_of(pi, OLD) == [WIFI]
    written = pi.text("stat", "-c", "%i %Y", WIFI)
    assert isinstance(await push(OLD), Noop), "the same, set anew"
    assert pi.text("stat", "-c", "%i %Y", WIFI) == written
    assert isinstance(await push(NEW), Success)
    assert f"psk={NEW}\n" in pi.text("cat", WIFI)
    assert (holders_of(pi, NEW), holders_of(pi, OLD)) == ([WIFI], [])

    # An agent that starts anew opens what it has kept.
    for _ in range(2):
        pi.run(["nmcli", "connection", "modify", "home", "wifi-sec.psk", "of-somebody-else"])
        await until(device, lambda _: f"psk={NEW}\n" in pi.text("cat", WIFI))
        pi.run(["systemctl", "restart", AGENT])
        await heard_again(device)
    state = await device.state()
    assert state is not None
    assert state.scores["home"].drift_count

    for words in (("events", pi.name), ("history", pi.name), ("describe", pi.name)):
        await run(*words)
    await run("diff", pi.name, "-", stdin=json.dumps([HOME]))
    shown = "".join(each.out + each.err for each in told)
    shown += pi.text("journalctl", "--no-pager", "-q") + pi.text("ps", "-ef")
    assert not any(each in shown for each in (OLD, NEW))
    assert "of-somebody-else" not in shown
    await run("remove-score", pi.name, "home")
    assert holders_of(pi, NEW) == []
