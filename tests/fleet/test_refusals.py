"""Bad input on a real Pi: each is refused with its own typed error, nothing on the device changes, and
heartbeats and other Scores go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from harmony_control.bus.connection import Bucket, admin
from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_control.push.entries import Entry, serialize
from harmony_control.store import operator_key
from harmony_core import PublishedPort
from harmony_core.errors import MissingCapability
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.score import AnyScore
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.envelope import Signer, generate_key, seal
from harmony_core.wire.manifest import Manifest
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed, Box
from tests.fleet.ground import (
    AGENT,
    SERVE,
    ControlPlane,
    Host,
    code_of,
    heard_again,
    in_shell,
    until,
)
from tests.topology import odd_disk

Pi: TypeAlias = Device[PiTopology]

GOOD = FileScore(path="/srv/good", content="good\n")
EVIL = FileScore(path="/srv/evil", content="evil\n")
"""What must never be there."""


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("web", "1", command=in_shell(SERVE))


@pytest.fixture(scope="module")
def bare(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    """A Pi on which podman is not installed."""
    box = boot()
    box.run(["systemctl", "mask", "--now", "podman.socket"])
    box.run(["rm", "-f", "/usr/bin/podman", "/run/podman/podman.sock"])
    plane.enrol(box)
    return box


async def test_a_capability_that_a_device_lacks_is_refused_at_push_and_forced_by_the_device(
    plane: ControlPlane, fleet: Fleet, bare: Box, image: str, tmp_path: Path
) -> None:
    """Elsewhere it is accepted, and then waits for ever without a reason (synadia-io/nex#239,
    eclipse-ankaios/ankaios#401)."""
    device = fleet.device(bare.name)
    await until(device, lambda _: True)
    spec = {"name": "box", "image": image}
    file = tmp_path / "box.json"
    file.write_text(json.dumps([{"id": "box", "kind": "ContainerScore", "spec": spec}]))
    said = await plane.harmony("push-score", bare.name, str(file))
    assert said.status == 3
    assert "box needs ContainerRuntime, which" in said.err
    assert "podman is not installed; run: apt install podman" in said.err
    with pytest.raises(MissingCapability):
        await device.push(ContainerScore(name="box", image=image))

    await device.push(GOOD, id="good")
    said = await plane.harmony("push-score", bare.name, str(file), "--force", "--json")
    assert said.status == 1
    assert said.documents[-1]["outcome"]["error"]["code"] == "MissingCapability"
    assert said.documents[-1]["outcome"]["error"]["retry_at"] is None
    state = await device.put_and_wait({"good": GOOD})
    assert code_of(state, "box") == "MissingCapability"
    assert code_of(state, "good") == "NOOP"


async def _refused(
    device: Pi, score: AnyScore, code: str, *, says: str, changes_nothing_on: Host | None = None
) -> ScoreStatus:
    """*score* fails with *code*, beside a Score that succeeds."""
    before = changes_nothing_on.everything() if changes_nothing_on else []
    state = await device.put_and_wait({"bad": score}, resolve=False)
    assert code_of(state, "bad") == code
    if changes_nothing_on:
        assert changes_nothing_on.everything() == before
    page = state.scores["bad"]
    assert isinstance(page.outcome, Failure)
    assert says in page.outcome.error.message
    async with _heartbeats(device):
        assert isinstance(await device.push(GOOD, id="good"), Success | Noop)
    return page


@asynccontextmanager
async def _heartbeats(device: Pi) -> AsyncGenerator[None]:
    """The device's heart beats during the block, and twice more."""
    before = await device.heartbeat()
    assert before is not None
    yield
    async with asyncio.timeout(10):
        while (now := await device.heartbeat()) is None or now.queue_seq < before.queue_seq + 2:
            await asyncio.sleep(0.1)


async def test_an_image_that_is_not_there(device: Pi, host: Host, bed: Bed) -> None:
    missing = f"{bed.registry.host}/web@sha256:{'0' * 64}"
    score = ContainerScore(name="box", image=missing)
    await _refused(device, score, "ImageNotFound", says="push it there", changes_nothing_on=host)


async def test_an_image_that_is_not_there_is_not_even_pushed_by_tag(
    plane: ControlPlane, device: Pi, bed: Bed, tmp_path: Path
) -> None:
    spec = {"name": "box", "image": f"{bed.registry.host}/web:gone"}
    file = tmp_path / "box.json"
    file.write_text(json.dumps([{"id": "box", "kind": "ContainerScore", "spec": spec}]))
    said = await plane.harmony(
        "push-score", device.id, str(file), HARMONY_REGISTRY_CA=str(bed.registry.ca)
    )
    assert said.status == 2
    assert "web:gone (HTTP 404); check the name and the tag" in said.err
    state = await device.state()
    assert state is not None
    assert not state.scores


@pytest.fixture
def registry_down(bed: Bed) -> Generator[None]:
    bed.registry.stop()
    yield
    bed.registry.start()


@pytest.mark.usefixtures("registry_down")
async def test_a_registry_that_is_down(device: Pi, host: Host, bed: Bed) -> None:
    score = ContainerScore(name="box", image=f"{bed.registry.host}/web@sha256:{'1' * 64}")
    page = await _refused(
        device, score, "RegistryUnreachable", says="is its registry up", changes_nothing_on=host
    )
    assert isinstance(page.outcome, Failure)
    assert page.outcome.error.retry_at is not None


LISTEN = """
import socket
listener = socket.create_server(("", 8090))
print("listening", flush=True)
input()
"""


@pytest.fixture
async def port_8090_taken(pi: Box) -> AsyncGenerator[None]:
    pipe = asyncio.subprocess.PIPE
    listener = await asyncio.create_subprocess_exec(
        *pi.inside(["python3", "-c", LISTEN]), stdin=pipe, stdout=pipe
    )
    assert listener.stdout is not None
    await listener.stdout.readline()
    yield
    await listener.communicate(b"\n")


@pytest.mark.usefixtures("port_8090_taken")
async def test_a_port_that_another_process_holds(device: Pi, host: Host, image: str) -> None:
    page = await _refused(device, _on_port_8090("box", image), "PortTaken", says="port 8090")
    assert isinstance(page.outcome, Failure)
    assert page.outcome.error.resource == "container:box"


async def test_a_port_that_another_score_has(device: Pi, host: Host, image: str) -> None:
    assert isinstance(await device.push(_on_port_8090("first", image), id="first"), Success)
    before = host.identities(containers=["first"])
    refused = await _refused(
        device, _on_port_8090("second", image), "OwnershipConflict", says="port:8090/tcp"
    )
    assert "'first'" in refused.outcome.message
    assert host.identities(containers=["first"]) == before


def _on_port_8090(name: str, image: str) -> ContainerScore:
    return ContainerScore(name=name, image=image, ports=(PublishedPort(host=8090, container=80),))


async def test_a_unit_that_fails_at_its_start_says_its_last_lines(device: Pi) -> None:
    score = SystemdServiceScore(
        name="broken.service",
        exec_start=("/bin/sh", "-c", "echo cannot open /dev/sensor0 >&2; exit 3"),
        restart="no",
    )
    page = await _refused(device, score, "UnitFailed", says="status 3")
    assert isinstance(page.outcome, Failure)
    assert page.outcome.error.message.endswith("cannot open /dev/sensor0")
    assert page.outcome.error.resource == "unit:broken.service"
    assert page.resources["unit:broken.service"]["state"] == "Failed"


async def test_a_unit_that_fails_is_started_again_with_growing_pauses_until_somebody_mends_it(
    device: Pi, pi: Box
) -> None:
    # Looked at before the start is noted: who counts the starts makes the file right after the fifth.
    command = (
        "test -e /srv/sensor; gone=$?; date +%s%N >> /srv/starts; "
        "[ $gone = 0 ] && exec sleep infinity; exit 3"
    )
    score = SystemdServiceScore(
        name="broken.service", exec_start=("/bin/sh", "-c", command), restart="no"
    )
    assert code_of(await device.put_and_wait({"bad": score}), "bad") == "UnitFailed"
    starts: list[int] = []
    async with asyncio.timeout(50):
        while len(starts) < 5:
            await asyncio.sleep(0.2)
            starts = [int(line) for line in pi.read("/srv/starts").split()]
    pauses_s = [(after - before) / 1e9 for before, after in pairwise(starts)]
    # Of the first, too little is left where the device is slow to see that the unit has ended.
    assert all(pause > 0.7 * 2**number for number, pause in enumerate(pauses_s) if number)
    pi.write("/srv/sensor", "")
    pi.run(["systemctl", "start", "broken.service"])
    await until(device, lambda state: state.scores["bad"].outcome.status in {"SUCCESS", "NOOP"})
    assert len(pi.read("/srv/starts").split()) == 6


async def test_a_path_that_escapes_is_refused_before_it_is_pushed(
    plane: ControlPlane, device: Pi, tmp_path: Path
) -> None:
    file = tmp_path / "escape.json"
    spec = {"path": "/srv/../etc/shadow", "content": ""}
    file.write_text(json.dumps([{"id": "bad", "kind": "FileScore", "spec": spec}]))
    said = await plane.harmony("push-score", device.id, str(file))
    assert said.status == 2
    assert "path" in said.err
    state = await device.state()
    assert state is not None
    assert not state.scores


async def test_a_path_that_escapes_is_refused_by_the_device_too(device: Pi, host: Host) -> None:
    unchecked = EVIL.model_copy(update={"path": "/srv/../etc/evil"})
    await _refused(device, unchecked, "InvalidScore", says="path", changes_nothing_on=host)


async def test_a_link_on_the_way_is_not_followed(device: Pi, host: Host, pi: Box) -> None:
    pi.run(["ln", "-sfn", "/etc", "/srv/link"])
    score = FileScore(path="/srv/link/evil", content="evil\n")
    await _refused(device, score, "UnsafePath", says="/srv/link", changes_nothing_on=host)
    pi.run(["ln", "-sfn", "/etc/hostname", "/srv/leaf"])
    before = pi.read("/etc/hostname")
    leaf = FileScore(path="/srv/leaf", content="evil\n")
    await _refused(device, leaf, "UnsafePath", says="/srv/leaf", changes_nothing_on=host)
    assert pi.read("/etc/hostname") == before
    pi.run(["rm", "/srv/link", "/srv/leaf"])


def is_mounted(pi: Box, point: str) -> bool:
    return pi.run(["findmnt", "-n", point], check=False).returncode == 0


async def test_a_file_system_that_keeps_no_modes_is_named_and_then_left_alone(
    device: Pi, host: Host, pi: Box
) -> None:
    """As FAT. Nothing is told that was not seen, and nobody is fought who is not there."""
    stick, token = "/srv/stick", "/srv/stick/token"
    pi.write("/root/odd_disk.py", Path(odd_disk.__file__).read_text())
    pi.run(["mkdir", "-p", stick])
    serve = ["/opt/harmony/bin/python", "/root/odd_disk.py", stick, "fixed_mode=0755"]
    pi.run(["systemd-run", "--unit=odd-disk", *serve, "chmod=ignore", "chown=ignore"])
    await asyncio.to_thread(pi.wait_for, lambda: is_mounted(pi, stick))
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])  # so that it sees the mount
    await heard_again(device)
    try:
        score = FileScore(path=token, content="s\n", mode=0o600)
        await _refused(device, score, "DidNotStick", says="ask for mode 0755")
        assert host.file(token) is None
        kept = FileScore(path=token, content="s\n", mode=0o755)
        state = await device.put_and_wait({"bad": kept})
        assert code_of(state, "bad") == "SUCCESS"
        page = await _refused(device, score, "DidNotStick", says="ask for mode 0755")
        assert [each["mode"] for each in page.resources.values()] == ["0755"]
        changed = pi.text("stat", "-c", "%z", token)
        async with _heartbeats(device):
            pass
        assert pi.text("stat", "-c", "%z", token) == changed
        later = await until(device, lambda _: True)
        assert (later.scores["bad"].attempts, later.scores["bad"].drift_count) == (
            page.attempts,
            page.drift_count,
        )
    finally:
        await device.remove("bad")
        pi.run(["systemctl", "stop", "odd-disk"])
        pi.run(["umount", stick])


async def test_a_score_larger_than_a_manifest_is_refused_before_it_is_pushed(
    plane: ControlPlane, device: Pi, tmp_path: Path
) -> None:
    file = tmp_path / "large.json"
    spec = {"path": "/srv/large", "content": "x" * 300_000}
    file.write_text(json.dumps([{"id": "large", "kind": "FileScore", "spec": spec}]))
    said = await plane.harmony("push-score", device.id, str(file))
    assert said.status == 2
    assert "262144" in said.err.replace(",", "")


@attrs.frozen
class Forger:
    """Whoever can write the bucket, with whatever key."""

    bucket: Bucket
    agent_id: str
    generation: int
    """Of the manifest in force."""
    genuine: bytes

    def sealed(
        self, key: Signer, *, target: str = "", fleet: str = "home", later: int = 1
    ) -> bytes:
        """A manifest *later* generations after the one in force."""
        manifest = Manifest(
            fleet=fleet,
            target=target or f"agent:{self.agent_id}",
            generation=self.generation + later,
            issued_at=datetime.now(UTC),
            scores=(serialize("evil", Entry(EVIL)),),
        )
        return seal(manifest.payload(), key)

    async def put(self, value: bytes) -> None:
        await self.bucket.put(self.agent_id, value)

    async def put_back(self) -> None:
        await self.put(self.genuine)


@pytest.fixture
async def forger(plane: ControlPlane, device: Pi) -> AsyncGenerator[Forger]:
    """One good Score is there; what the forger leaves in the bucket is put right at the end."""
    assert isinstance(await device.push(GOOD, id="good"), Success)
    state = await device.state()
    assert state is not None
    genuine = plane.home.read_stored_manifest(device.id)
    assert genuine is not None
    async with admin(plane.home) as client:
        forger = Forger(Bucket(client, "desired-state"), device.id, state.generation, genuine)
        yield forger
        await forger.put_back()


def _is_rejected(code: str) -> Callable[[ActualState], bool]:
    def holds(state: ActualState) -> bool:
        return any(
            each.reason == "ManifestRejected" and each.message.startswith(f"{code}:")
            for each in state.conditions
        )

    return holds


async def test_what_a_stranger_signed_is_refused_while_everything_goes_on(
    device: Pi, host: Host, forger: Forger
) -> None:
    before = host.everything()
    async with _heartbeats(device):
        await forger.put(forger.sealed(generate_key()))
        state = await until(device, _is_rejected("UntrustedSignature"))
    assert state.generation == forger.generation
    assert code_of(state, "good") in {"SUCCESS", "NOOP"}
    assert host.everything() == before
    await forger.put_back()
    await until(device, lambda state: not _is_rejected("UntrustedSignature")(state))


FORGERIES: Mapping[str, tuple[str, Callable[[Forger, Signer], bytes]]] = {
    "wrong target": ("WrongTarget", lambda f, key: f.sealed(key, target="agent:other")),
    "wrong fleet": ("WrongFleet", lambda f, key: f.sealed(key, fleet="other")),
    "older generation": ("StaleGeneration", lambda f, key: f.sealed(key, later=-1)),
    "other content": ("Equivocation", lambda f, key: f.sealed(key, later=0)),
    "too large": ("TooLarge", lambda _, key: b" " * 400_000),
    "truncated": ("NotJson", lambda f, key: f.sealed(key)[:-20]),
    "empty": ("NotJson", lambda _, key: b""),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_bad_manifest_in_the_bucket_changes_nothing(
    forgery: str, plane: ControlPlane, device: Pi, pi: Box, host: Host, forger: Forger
) -> None:
    code, forged = FORGERIES[forgery]
    before = host.everything()
    await forger.put(forged(forger, operator_key.load(plane.home)))
    # A hint is doubted once a minute; each start reads what is there.
    pi.run(["systemctl", "restart", AGENT])
    state = await until(device, _is_rejected(code))
    assert state.generation == forger.generation
    assert host.everything() == before


async def test_a_deleted_key_is_no_instruction(
    plane: ControlPlane, device: Pi, pi: Box, host: Host, forger: Forger
) -> None:
    """Missing data is no wish that something be empty (saltstack/salt#30600)."""
    before = host.everything()
    async with admin(plane.home) as client:
        deleted = {"KV-Operation": "DEL"}
        await client.publish(f"$KV.desired-state.{device.id}", b"", headers=deleted)
        await client.flush()
    async with _heartbeats(device):
        pass
    pi.run(["systemctl", "restart", AGENT])
    await until(device, lambda state: code_of(state, "good") in {"SUCCESS", "NOOP"})
    pi.wait_for(lambda: "generation" in host.unit(AGENT, "StatusText")["StatusText"])
    assert host.everything() == before
