"""An image from a registry that wants a password: a secret in the Score, or a file that is root's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore
from tests.box import Bed, Box
from tests.box.registry import LOGIN, Registry
from tests.fleet.ground import ControlPlane, code_of, heard_again

Pi: TypeAlias = Device[PiTopology]

AUTH = "/root/.config/containers/auth.json"
"""Where podman looks for it that runs as a service of the system. By default a login is gone at a reboot."""


@pytest.fixture
def registry(bed: Bed, pi: Box) -> Registry:
    bed.private_registry.make_known_to(pi)
    return bed.private_registry


async def test_a_score_logs_in_with_a_secret_and_no_file_is_kept(
    device: Pi, pi: Box, registry: Registry, plane: ControlPlane
) -> None:
    name, password = LOGIN
    image = registry.push_busybox("web", "2", command=("sleep", "4711"))
    login = {"username": name, "password": "${secret.registry}"}
    spec = {"name": "web", "image": image, "login": login, "stop_timeout_s": 0}
    scores = json.dumps([{"id": "web", "kind": "ContainerScore", "spec": spec}])
    await plane.harmony("secret", "set", "registry", stdin="not-it")
    said = await plane.harmony("push-score", pi.name, "-", "--timeout", "20", stdin=scores)
    assert said.status != 0
    assert "the registry does not take this login" in said.out
    await plane.harmony("secret", "set", "registry", stdin=password)
    said = await plane.harmony("push-score", pi.name, "-", stdin=scores)
    assert said.status == 0, said
    assert not pi.text("find", "/root", "/run/containers", "/etc/containers", "-name", "auth.json")
    assert "boxes" not in pi.text("podman", "inspect", "web")


def trusting(registry: Registry) -> dict[str, str]:
    """What has this machine believe it, as a person sets it."""
    return {"HARMONY_REGISTRY_CA": str(registry.ca)}


async def test_a_tag_is_looked_up_with_the_login_of_its_score_and_its_digest_is_what_runs(
    device: Pi, pi: Box, registry: Registry, plane: ControlPlane
) -> None:
    name, password = LOGIN
    tag, _, digest = registry.push_busybox("web", "3", command=("sleep", "4713")).partition("@")
    login = {"username": name, "password": "${secret.registry}"}
    spec = {"name": "web", "image": tag, "stop_timeout_s": 0}
    without = json.dumps([{"id": "web", "kind": "ContainerScore", "spec": spec}])
    scores = json.dumps([{"id": "web", "kind": "ContainerScore", "spec": {**spec, "login": login}}])
    trust = trusting(registry)
    said = await plane.harmony("push-score", pi.name, "-", stdin=without, **trust)
    assert said.status == 2, said
    assert "requires a login for web:3 (HTTP 401)" in said.err
    await plane.harmony("secret", "set", "registry", stdin="not-it")
    said = await plane.harmony("push-score", pi.name, "-", stdin=scores, **trust)
    assert said.status == 2, said
    assert f"does not take the login of {name!r} for web:3 (HTTP 401)" in said.err
    await plane.harmony("secret", "set", "registry", stdin=password)
    said = await plane.harmony("diff", pi.name, "-", stdin=scores, **trust)
    assert said.status == 0, said
    assert "container:web" in said.out
    said = await plane.harmony("push-score", pi.name, "-", stdin=scores, **trust)
    assert said.status == 0, said
    assert pi.text("podman", "inspect", "--format", "{{.ImageDigest}}", "web") == digest


async def test_a_compose_file_has_a_login_for_all_images_of_a_registry(
    device: Pi, pi: Box, registry: Registry, plane: ControlPlane, tmp_path: Path
) -> None:
    name, password = LOGIN
    images = {
        each: registry.push_busybox(each, "1", command=("sleep", "4714"))
        for each in ("front", "back")
    }
    services = {
        each: {"image": image.partition("@")[0], "restart": "always", "stop_grace_period": "0s"}
        for each, image in images.items()
    }
    login = {"username": name, "password": "${secret.registry}"}
    file = tmp_path / "compose.yaml"
    document = {
        "name": "shop",
        "x-harmony-login": {registry.host: login},
        "services": services,
    }
    file.write_text(json.dumps(document))
    await plane.harmony("secret", "set", "registry", stdin=password)
    said = await plane.harmony("push-score", pi.name, str(file), **trusting(registry))
    assert said.status == 0, said
    for each, image in images.items():
        running = pi.text("podman", "inspect", "--format", "{{.ImageDigest}}", f"shop-{each}-1")
        assert running == image.partition("@")[2]
    assert not pi.text("find", "/root", "/run/containers", "/etc/containers", "-name", "auth.json")


async def test_a_bundle_brings_an_image_that_wants_a_login_to_a_device_without_a_network(
    device: Pi, pi: Box, registry: Registry, plane: ControlPlane, tmp_path: Path
) -> None:
    name, password = LOGIN
    tag, _, digest = registry.push_busybox("web", "5", command=("sleep", "4715")).partition("@")
    login = {"username": name, "password": "${secret.registry}"}
    spec = {"name": "web", "image": tag, "login": login, "settle_s": 0.5, "stop_timeout_s": 0}
    scores = json.dumps([{"id": "web", "kind": "ContainerScore", "spec": spec}])
    bundle, trust = tmp_path / "bundle", trusting(registry)
    await plane.harmony("secret", "set", "registry", stdin=password)
    pi.cut_network()
    try:
        said = await plane.harmony("push-score", pi.name, "-", "--no-wait", stdin=scores, **trust)
        assert said.status == 0, said
        said = await plane.harmony("bundle", pi.name, str(bundle), **trust)
        assert said.status == 0, said
        assert password.encode() not in bundle.read_bytes()
        pi.write("/media/stick/bundle", bundle.read_bytes())
        command = ["/opt/harmony/bin/harmony-agent", "load", "/media/stick/bundle"]
        loaded = await asyncio.to_thread(pi.run, command, timeout_s=120)
        assert b"web                  SUCCESS" in loaded.stdout
        wanted = f"{tag.rpartition(':')[0]}@{digest}"
        assert pi.run(["podman", "image", "exists", wanted], check=False).returncode == 0
    finally:
        pi.restore_network()
    await heard_again(device)


async def test_a_device_that_root_has_logged_in_pulls_from_a_private_registry(
    device: Pi, pi: Box, registry: Registry
) -> None:
    """As docs/score-files.md has it."""
    image = registry.push_busybox("web", "1", command=("sleep", "4711"))
    score = ContainerScore(name="web", image=image, stop_timeout_s=0)
    state = await device.put_and_wait({"web": score})
    assert code_of(state, "web") == "ImageNotFound"
    name, password = LOGIN
    login = ["podman", "login", "--authfile", AUTH, "--username", name, "--password-stdin"]
    pi.run([*login, registry.host], stdin=password.encode())
    state = await device.put_and_wait({"web": score})
    assert code_of(state, "web") == "SUCCESS"
    assert pi.text("stat", "-c", "%a", AUTH) == "600"
