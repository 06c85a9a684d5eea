"""Registries by a real agent and podman: mirrors of one that is down, the authority of one that is new."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, TypeAlias

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry
from harmony_core import RegistryMirror
from harmony_core.outcome import Failure
from harmony_core.resources.image_registry import certificates_path, mirrors_path
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, RegistryScore
from tests.box import Bed, Box
from tests.box.bed import GATEWAY
from tests.box.registry import Registry
from tests.fleet.ground import Host, code_of, pushed, statuses, until

Pi: TypeAlias = Device[PiTopology]

DOWN = f"{GATEWAY}:5999"
"""Nobody listens there."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
FORGED = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode()
DIRECTORY = "/etc/containers/registries.conf.d"


@pytest.fixture
def registry(bed: Bed, pi: Box) -> Generator[Registry]:
    """One whose certificate the device believes."""
    bed.registry.make_known_to(pi)
    yield bed.registry
    bed.registry.make_known_to(pi)


def app(image: str, name: str = "app") -> ContainerScore:
    return ContainerScore(name=name, image=image, stop_timeout_s=0, settle_s=0.2, pull_timeout_s=20)


def mirror(host: str, *places: str) -> RegistryScore:
    return RegistryScore(host=host, mirrors=tuple(RegistryMirror(location=each) for each in places))


def pulled_as(image: str, host: str, repository: str) -> str:
    """Return the reference of *image* by another name: of *repository* at *host*."""
    return f"{host}/{repository}:1@{image.partition('@')[2]}"


@contextmanager
def awake(pi: Box) -> Generator[str]:
    """podman's service does not end; its process."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.connect(pi.podman_url.removeprefix("unix://"))
        listening.sendall(b"GET /v4.0.0/libpod/events?stream=true HTTP/1.1\r\nHost: d\r\n\r\n")
        answer = http.client.HTTPResponse(listening)
        answer.begin()
        yield main_process(pi)


def main_process(pi: Box) -> str:
    return pi.text("systemctl", "show", "--value", "-p", "MainPID", "podman.service")


async def test_a_mirror_has_the_images_of_a_registry_that_is_down(
    device: Pi, pi: Box, registry: Registry
) -> None:
    first = registry.push_busybox("hub/app", "1", command=("sleep", "4711"))
    second = registry.push_busybox("hub/app", "1", command=("sleep", "4712"))
    image, other = (pulled_as(each, DOWN, "app") for each in (first, second))
    mirrored = mirror(DOWN, f"{GATEWAY}:5998/none", f"{registry.host}/hub")
    with awake(pi) as process:
        # The service has read its files, and says that the registry is down.
        state, _ = await pushed(device, {"app": app(image)})
        assert code_of(state, "app") == "RegistryUnreachable"
        entries: dict[str, Entry[PiTopology]] = {
            "mirror": Entry(mirrored),
            "app": Entry(app(image), after=["mirror"]),
        }
        state, _ = await pushed(device, entries)
        assert statuses(state) == {"mirror": "SUCCESS", "app": "SUCCESS"}, state
        assert main_process(pi) == process, "it goes on as it was"
        # Once more it is as it was wished for, and nothing is done.
        inode = pi.text("stat", "-c", "%i %Z", mirrors_path(DOWN))
        state, _ = await pushed(device, entries)
        assert statuses(state) == {"mirror": "NOOP", "app": "NOOP"}, state
        assert pi.text("stat", "-c", "%i %Z", mirrors_path(DOWN)) == inode
        # Without it, podman asks the registry itself again.
        await pushed(device, {"app": app(image)})
        await device.remove("mirror")
        assert not exists(pi, mirrors_path(DOWN))
        state, _ = await pushed(device, {"app": app(other)})
        assert code_of(state, "app") == "RegistryUnreachable"
        assert main_process(pi) == process


async def test_a_mirror_that_is_down_leaves_the_registry_itself(
    device: Pi, registry: Registry
) -> None:
    image = registry.push_busybox("lone/app", "1", command=("sleep", "4713"))
    mirrored = mirror(registry.host, f"{GATEWAY}:5998/none")
    state, _ = await pushed(
        device, {"mirror": mirrored, "app": Entry(app(image), after=["mirror"])}
    )
    assert statuses(state) == {"mirror": "SUCCESS", "app": "SUCCESS"}, state


async def test_an_authority_has_a_registry_believed_for_as_long_as_its_score_is_there(
    device: Pi, pi: Box, registry: Registry
) -> None:
    images = [
        registry.push_busybox("private/app", f"{n}", command=("sleep", f"472{n}")) for n in range(2)
    ]
    pi.run(["rm", "-r", f"/etc/containers/certs.d/{registry.host}"])
    state, _ = await pushed(device, {"app": app(images[0])})
    assert code_of(state, "app") == "RegistryUnreachable"
    outcome = state.scores["app"].outcome
    assert isinstance(outcome, Failure)
    assert "certificate" in outcome.error.message
    believed = RegistryScore(host=registry.host, ca=registry.ca.read_text())
    state, _ = await pushed(device, {"ca": believed, "app": Entry(app(images[0]), after=["ca"])})
    assert statuses(state) == {"ca": "SUCCESS", "app": "SUCCESS"}, state
    await pushed(device, {"app": app(images[0])})
    await device.remove("ca")
    assert not exists(pi, certificates_path(registry.host))
    state, _ = await pushed(device, {"app": app(images[1])})
    assert code_of(state, "app") == "RegistryUnreachable"
    # Whatever its certificate is.
    anyhow = RegistryScore(host=registry.host, insecure=True)
    state, _ = await pushed(
        device, {"anyhow": anyhow, "app": Entry(app(images[1]), after=["anyhow"])}
    )
    assert statuses(state) == {"anyhow": "SUCCESS", "app": "SUCCESS"}, state


async def test_what_others_do_to_it_is_put_right_or_told(device: Pi, pi: Box) -> None:
    mirrored = mirror(DOWN, f"{GATEWAY}:5998/none")
    state, _ = await pushed(device, {"mirror": mirrored})
    assert statuses(state) == {"mirror": "SUCCESS"}
    written = pi.read(mirrors_path(DOWN))
    pi.run(["rm", mirrors_path(DOWN)])
    await until(device, lambda _: exists(pi, mirrors_path(DOWN)))
    assert pi.read(mirrors_path(DOWN)) == written
    theirs = f"{DIRECTORY}/zz-theirs.conf"
    pi.write(theirs, f'[[registry]]\nlocation = "{DOWN}"\nblocked = true\n')
    state = await until(device, lambda state: code_of(state, "mirror") == "NotOurs")
    outcome = state.scores["mirror"].outcome
    assert isinstance(outcome, Failure)
    assert theirs in outcome.error.message
    pi.run(["rm", theirs])
    await until(device, lambda state: code_of(state, "mirror") in {"SUCCESS", "NOOP"})


async def test_its_file_that_podman_cannot_read_any_more_is_put_right_and_can_go(
    device: Pi, pi: Box, registry: Registry
) -> None:
    image = registry.push_busybox("hub/torn", "1", command=("sleep", "4714"))
    mirrored = mirror(DOWN, f"{GATEWAY}:5998/none")
    state, _ = await pushed(device, {"mirror": mirrored})
    assert statuses(state) == {"mirror": "SUCCESS"}
    written = pi.read(mirrors_path(DOWN))
    pi.write(mirrors_path(DOWN), "[[registry]\n")
    await until(device, lambda _: pi.read(mirrors_path(DOWN)) == written)
    state, _ = await pushed(device, {"mirror": mirrored, "app": app(image)})
    assert statuses(state)["app"] == "SUCCESS", state
    # A stranger's is named, and ours goes all the same.
    theirs = f"{DIRECTORY}/zz-theirs.conf"
    pi.write(theirs, "[[registry]\n")
    state = await until(device, lambda state: code_of(state, "mirror") == "CapabilityUnavailable")
    outcome = state.scores["mirror"].outcome
    assert isinstance(outcome, Failure)
    assert theirs in outcome.error.message
    pi.run(["rm", theirs])
    await until(device, lambda state: code_of(state, "mirror") in {"SUCCESS", "NOOP"})
    await device.remove("mirror")
    assert not exists(pi, mirrors_path(DOWN))


def exists(pi: Box, path: str) -> bool:
    return (pi.root / path.lstrip("/")).exists()


async def test_of_two_scores_for_one_registry_one_is_refused(device: Pi) -> None:
    one, other = (mirror(DOWN, f"{GATEWAY}:5998/{name}") for name in ("a", "b"))
    state, _ = await pushed(device, {"one": one, "other": other})
    assert "OwnershipConflict" in {code_of(state, each) for each in ("one", "other")}


class Forging(BaseHTTPRequestHandler):
    """A mirror without TLS, which has another image under every digest."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        content = b"{}" if self.path == "/v2/" else FORGED
        self.send_response(200)
        self.send_header("Content-Type", MANIFEST)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the base's

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


async def test_a_mirror_that_gives_another_image_is_not_believed(
    device: Pi, host: Host, registry: Registry
) -> None:
    image = pulled_as(registry.push_busybox("signed/app", "1"), DOWN, "app")
    with ThreadingHTTPServer((GATEWAY, 0), Forging) as forging:
        threading.Thread(target=forging.serve_forever, daemon=True).start()
        forged = RegistryMirror(location=f"{GATEWAY}:{forging.server_address[1]}/x", insecure=True)
        state, _ = await pushed(
            device,
            {
                "mirror": RegistryScore(host=DOWN, mirrors=(forged,)),
                "app": Entry(app(image), after=["mirror"]),
            },
        )
        forging.shutdown()
    assert statuses(state)["mirror"] == "SUCCESS"
    assert f"/v2/x/app/manifests/{image.partition('@')[2]}" in Forging.asked
    assert code_of(state, "app") in {"ImageNotFound", "RegistryUnreachable"}
    assert host.container("app") is None
