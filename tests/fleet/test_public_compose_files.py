"""The public compose files that are taken, each on a real Pi: as it is, but for images, which are the bed's.

An image of the bed has the names of the programs that the file calls. Its server listens on the ports that
the file publishes, writes into whatever it may write to, and is healthy from then on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from harmony_control.compose.project import ComposeProject, read_project
from harmony_control.device import Device
from harmony_control.score_files.read import read_score_files
from harmony_core.plugins import Registry
from harmony_pi_topology import PiTopology
from harmony_scores import ComposeScore
from harmony_scores.compose import ComposeService
from tests.box import Bed, Box
from tests.docs.compose_tables import BEYOND_A_BOX, FILES, outcome_of_file, paths_to_allow
from tests.fleet.ground import AGENT, ControlPlane, Host, heard_again, statuses
from tests.soak import runs

FIRST = ("grafana-influxdb-telegraf", "jellyfin", "secrets-of-the-device")
"""A health check that is waited for, files beside and another user; devices and paths; a secret."""
TAKEN = [each.name for each in FILES.iterdir() if not outcome_of_file(each)]
APPLICATIONS = [*FIRST, *sorted({*TAKEN} - {*FIRST})]
PAGE = "served by the bed\n"

STAND_IN = """\
#!/bin/sh
case "$0 $*" in
*-migrate*) exit 0 ;;
/stand-in*|/cron.sh*) ;;
*) test -e /dev/shm/up && echo PONG OK; exit ;;
esac
trap 'exit 0' TERM
for each in $WRITES; do echo "$*" > "$each/written" || exit 4; done
for each in $PORTS; do httpd -f -p "$each" -h /www & done
sleep 0.5
echo > /dev/shm/up
sleep 86399 & wait $!
"""
"""A server; also what migrates a database and ends, and health checks of one that is up."""
_PROGRAMS = (
    *("/stand-in", "/cron.sh", "/usr/bin/miniflux"),
    *("/bin/pg_isready", "/bin/redis-cli", "/bin/influx", "/bin/curl"),
)

# What an operator has made on the device before.
_DIRECTORIES = (
    *("/mnt/recordings", "/srv/photos", "/srv/immich-db", "/srv/media", "/opt/signal-api"),
    *(
        "/wherever/st-sync",
        "/usr/lib/modules",
        "/run/udev",
        "/dev/dri",
        "/dev/net",
        "/dev/bus/usb/001",
    ),
    "/dev/serial/by-id",
)
_DEVICES = {
    **dict.fromkeys(("dri/renderD128", "video10", "ttyACM0", "video0", "bus/usb/001/001"), "c 1 3"),
    "sda": "b 7 250",  # a loop device, and no disk of this machine
    "net/tun": "c 10 200",
}
_LINKS = {
    "/dev/serial/by-id/usb-Texas_Instruments_TI_CC2531-if00": "../../ttyACM0",
}


def make_ready(pi: Box) -> None:
    """Make the paths and devices that the files name."""
    made = [f"mkdir -p {' '.join(_DIRECTORIES)}"]
    made += [f"mknod /dev/{name} {numbers}" for name, numbers in _DEVICES.items()]
    made += [f"ln -s {leads_to} {path}" for path, leads_to in _LINKS.items()]
    pi.run(["sh", "-ec", "\n".join(made)])


@attrs.frozen
class Application:
    """One of the files, in a folder of its own."""

    folder: Path
    project: ComposeProject
    score: ComposeScore

    @classmethod
    def copied(cls, name: str, into: Path) -> Application:
        """A copy of the public file and what is beside it, without a change."""
        folder = into / name
        shutil.copytree(FILES / name, folder)
        file = folder / "compose.yaml"
        files = [file, folder / "images.yaml"]
        files[1].write_text(json.dumps({"services": BEYOND_A_BOX.get(name, {})}))
        project = read_project(files, environment={})
        (entry,) = read_score_files([*map(str, files)], Registry([ComposeScore])).values()
        assert isinstance(entry.score, ComposeScore)
        return cls(folder, project, entry.score)

    @property
    def services(self) -> Mapping[str, dict[str, Any]]:
        """What the file says of each, in its long form."""
        found: dict[str, dict[str, Any]] = self.project.document["services"]
        return found

    @property
    def files(self) -> tuple[str, str]:
        """What is pushed: the file, and what names the bed's images in the place of its own."""
        return str(self.folder / "compose.yaml"), str(self.folder / "images.yaml")

    def use_images(self, bed: Bed) -> None:
        """Make an image for each service, and the file that names them."""
        images: dict[str, dict[str, Any]] = {
            name: {"image": _push_stand_in(bed, f"{self.folder.name}/{name}", service)}
            for name, service in self.score.services.items()
        }
        for name, limits in BEYOND_A_BOX.get(self.folder.name, {}).items():
            images[name] |= limits
        (self.folder / "images.yaml").write_text(json.dumps({"services": images}))

    def container_of(self, service: str) -> str:
        named: str | None = self.services[service].get("container_name")
        return named or f"{self.project.name}-{service}-1"

    @property
    def volumes(self) -> set[str]:
        """Those that it names, and those that stand for directories beside the file."""
        return {each.name for each in self.score.volumes}


def _push_stand_in(bed: Bed, name: str, service: ComposeService) -> str:
    writes = [each.target for each in service.volumes if not each.read_only]
    writes += [
        each.target for each in service.mounts if each.source in _DIRECTORIES and not each.read_only
    ]
    ports = {str(each.container) for each in service.ports if each.protocol == "tcp"}
    return bed.registry.push_busybox(
        name,
        "public",
        page=PAGE,
        programs=dict.fromkeys(_PROGRAMS, STAND_IN),
        entrypoint=("/stand-in",),
        command=(),
        environment={"WRITES": " ".join(writes), "PORTS": " ".join(sorted(ports))},
    )


def found_on(pi: Box) -> dict[str, dict[str, Any]]:
    """What podman says of every container, by name."""
    ids = pi.text("podman", "ps", "-aq").split()
    found: list[dict[str, Any]] = json.loads(pi.text("podman", "inspect", *ids)) if ids else []
    return {each["Name"]: each for each in found}


def _identities(pi: Box) -> dict[str, tuple[str, str]]:
    return {name: (each["Id"], each["State"]["StartedAt"]) for name, each in found_on(pi).items()}


def check_container(said: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Assert that *found*, of podman, is and does what the file has *said*."""
    state, config, host = found["State"], found["Config"], found["HostConfig"]
    if said.get("restart", "no") == "no":
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    else:
        assert state["Status"] == "running"
        assert host["RestartPolicy"]["Name"] != "no"
    if said.get("healthcheck", {}).get("test"):
        assert state["Health"]["Status"] == "healthy"
    assert {f"{name}={value}" for name, value in said.get("environment", {}).items()} <= {
        *config["Env"]
    }
    assert config["User"] == str(said.get("user", ""))
    assert host["Privileged"] is bool(said.get("privileged"))
    assert host["Memory"] == int(said.get("mem_limit", 0))
    assert [*(said.get("command") or ())] == [*(config["Cmd"] or ())]
    if "hostname" in said:
        assert config["Hostname"] == said["hostname"]
    assert {f"CAP_{each.upper()}" for each in said.get("cap_add", ())} <= {
        *(found["EffectiveCaps"] or ())
    }
    bindings: dict[str, list[dict[str, str]]] = host["PortBindings"] or {}
    published = {
        (f"{each['target']}/{each['protocol']}", each.get("host_ip", "0.0.0.0"), each["published"])
        for each in said.get("ports", ())
    }
    assert published == {
        (inside, each["HostIp"] or "0.0.0.0", each["HostPort"])
        for inside, all_of_it in bindings.items()
        for each in all_of_it
    }


async def check_pages(pi: Box, said: Mapping[str, Any]) -> None:
    """Assert that each TCP port answers where it is published."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for each in said.get("ports", ()):
            url = f"{each.get('host_ip') or pi.address}:{each['published']}/"
            if each["protocol"] != "tcp":
                continue
            if "host_ip" in each:
                page = pi.text("busybox", "wget", "-T", "10", "-qO-", f"http://{url}")
            else:
                page = (await client.get(f"http://{url}")).text
            assert page.strip() == PAGE.strip(), url


@attrs.frozen
class Pushing:
    """A Pi, and who pushes to it."""

    pi: Box
    device: Device[PiTopology]
    plane: ControlPlane
    host: Host

    async def push(self, application: Application) -> dict[str, str]:
        """Push, and return the status of each Score."""
        done = await self.plane.harmony("push-score", self.device.id, *application.files)
        assert done.status == 0, done.out[-4000:] + done.err[-4000:]
        state = await self.device.state()
        assert state is not None
        return statuses(state)

    async def allow(self, application: Application) -> None:
        """Have the device allow what *application* needs of it, once it has refused it for that."""
        paths = paths_to_allow(application.score)
        if not paths:
            return
        done = await self.plane.harmony("push-score", self.device.id, *application.files)
        assert done.status == 3, done
        assert f"mounting {paths[0]} into a container would hand out the device" in done.err
        listed = ", ".join(f'"{each}"' for each in paths)
        self.pi.write("/etc/harmony/policy.toml", f'preset = "open"\nmounts = [{listed}]\n')
        await asyncio.to_thread(self.pi.run, ["systemctl", "restart", AGENT])
        await heard_again(self.device)

    async def check(self, application: Application) -> None:
        """Assert that *application* converges, stays, and goes, but for its volumes."""
        score_id = application.project.name
        await self.allow(application)
        assert await self.push(application) == {score_id: "SUCCESS"}
        found = found_on(self.pi)
        assert found.keys() == {application.container_of(each) for each in application.services}
        for name, said in application.services.items():
            check_container(said, found[application.container_of(name)])
            await check_pages(self.pi, said)
        networks = {each.name for each in application.score.networks}
        assert {*self.list_names("network")} == {"podman", *networks}
        assert {*self.list_names("volume")} == application.volumes
        before = _identities(self.pi)
        assert await self.push(application) == {score_id: "NOOP"}
        assert _identities(self.pi) == before
        await self.device.remove(score_id)
        assert self.host.containers() == []
        assert self.list_names("network") == ["podman"]
        assert {*self.list_names("volume")} == application.volumes
        kept = self.pi.root / "etc/harmony-apps"
        assert not kept.exists() or [*kept.iterdir()] == []

    def list_names(self, kind: str) -> list[str]:
        return self.pi.text("podman", kind, "ls", "--format", "{{.Name}}").split()

    async def clean(self) -> None:
        """Take away what is left."""
        state = await self.device.state()
        if state is not None and state.scores:
            await self.device.remove(*state.scores)
        self.pi.run(["podman", "volume", "prune", "--force"])


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_each_converges_stays_as_it_is_and_goes_but_for_its_volumes(
    device: Device[PiTopology],
    host: Host,
    pi: Box,
    bed: Bed,
    plane: ControlPlane,
    tmp_path: Path,
) -> None:
    bed.registry.make_known_to(pi)
    make_ready(pi)
    kept = await plane.harmony("secret", "set", "mysql.root-password", stdin="hunter2")
    assert kept.status == 0, kept.err
    pushing = Pushing(pi, device, plane, host)
    faults: dict[str, str] = {}
    for name in APPLICATIONS[: runs(len(APPLICATIONS), part=11)]:
        application = Application.copied(name, tmp_path)
        application.use_images(bed)
        try:
            await pushing.check(application)
        except AssertionError as fault:
            faults[name] = str(fault)
        await pushing.clean()
    assert faults == {}
