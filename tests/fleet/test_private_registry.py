"""An image from a registry that wants a password: a secret in the Score, or a file that is root's."""

from __future__ import annotations

import json
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore
from tests.box import Bed, Box
from tests.box.registry import LOGIN, Registry
from tests.fleet.ground import ControlPlane, code_of

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
