"""docs/policy.md: every field of policy.toml, and examples that do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.resources import (
    Container,
    Ethernet,
    File,
    Job,
    Mount,
    NetworkProfile,
    Resource,
    SystemdUnit,
)
from tests.docs.fences import files_in, untested_in

PATH = Path(__file__).parents[2] / "docs" / "policy.md"
PAGE = PATH.read_text()
EXAMPLES = files_in(PATH)

MOTD = File(path="/etc/motd", content=b"")
DIGEST = f"@sha256:{'0' * 64}"


def container(image: str, source: str) -> Container:
    return Container(name="it", image=image, mounts=(Mount(source=source, target="/it"),))


def read(name: str) -> DevicePolicy:
    return DevicePolicy("/etc/harmony", rules=PolicyTable.read_text(EXAMPLES[name]))


def test_every_field_stands_in_the_table_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert list(told) == [*PolicyTable.model_fields]
    for name, field in PolicyTable.model_fields.items():
        shown = {"needed": ..., "empty": (), "`false`": False}.get(
            told[name], told[name].strip("`")
        )
        assert field.is_required() if shown is ... else field.default == shown


def test_both_presets_are_shown_and_nothing_that_is_not_run() -> None:
    assert sorted(EXAMPLES) == ["appliance.toml", "open.toml"]
    assert untested_in(PATH) == []


@pytest.mark.parametrize(
    ("name", "resource", "is_refused"),
    [
        ("open.toml", MOTD, False),
        ("open.toml", File(path="/etc/containers/registries.conf.d/it.conf", content=b""), False),
        ("open.toml", File(path="/etc/containers/policy.json", content=b""), True),
        ("open.toml", SystemdUnit(name="ssh.service", state="stopped"), False),
        ("open.toml", SystemdUnit(name="ssh.socket", state="stopped"), True),
        ("open.toml", container("docker.io/library/nginx:1", "/usr/share/zoneinfo"), False),
        ("open.toml", container("docker.io/library/nginx:1", "/usr/share"), True),
        ("open.toml", Job(name="it", command=("/bin/true",)), False),
        ("open.toml", Job(name="it", command=("/bin/true",), privileged=True), True),
        ("appliance.toml", MOTD, True),
        ("appliance.toml", File(path="/etc/kiosk/conf", content=b""), False),
        ("appliance.toml", SystemdUnit(name="kiosk-ui.service"), False),
        ("appliance.toml", SystemdUnit(name="web.service"), True),
        ("appliance.toml", container(f"ghcr.io/acme/ui{DIGEST}", "/srv/kiosk/www"), False),
        ("appliance.toml", container("ghcr.io/acme/ui:1", "/srv/kiosk/www"), True),
        ("appliance.toml", container(f"docker.io/acme/ui{DIGEST}", "/srv/kiosk/www"), True),
        ("appliance.toml", container(f"ghcr.io/acme/ui{DIGEST}", "/srv/other"), True),
        (
            "appliance.toml",
            NetworkProfile(name="office-2", link=Ethernet(interface="eth0")),
            False,
        ),
        ("appliance.toml", NetworkProfile(name="home", link=Ethernet(interface="eth0")), True),
        ("appliance.toml", Job(name="it", command=("/bin/true",)), True),
    ],
)
def test_the_examples_allow_what_they_say(name: str, resource: Resource, is_refused: bool) -> None:
    assert (read(name).refusal(resource) is not None) is is_refused


def test_the_refusal_that_is_shown_is_the_one_that_is_told() -> None:
    refusal = read("appliance.toml").refusal(MOTD)
    assert f"harmony: motd: {refusal}" in " ".join(PAGE.split())
    assert read("appliance.toml").kind_refusal("ShellJobScore") is not None
