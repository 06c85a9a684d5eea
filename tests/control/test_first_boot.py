"""The file for a first boot: what is in it, whatever is given, and what becomes of a file that is there."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it has no types
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_control.first_boot import PLACE, first_boot_text, read_own_part, write_user_data
from harmony_control.package import Package
from harmony_control.store.invitations import read_invitations
from harmony_control.store.nkey import Nkey
from harmony_core.errors import ConfigError
from harmony_core.wire.enrolment import Invitation
from harmony_core.wire.envelope import generate_key
from tests.box.layers import TREE, built_wheel

from .ground import Ground

WHEEL = bytes(range(256))
PACKAGE = Package(
    "1.0", {"harmony-1.0-py3-none-any.whl": WHEEL, "agent.lock": b"a==1\n", "build.lock": b"b==1\n"}
)
OWN = "#cloud-config\nhostname: kiosk\n"
HOSTILE = (
    "'; reboot; '",
    "$(reboot)`reboot`",
    '"\n- path: /etc/shadow\n',
    "a: b # c",
    "{{ v1.region }}",
    "%n%%",
    "\u2028\u0085\x1b",
)


def invitation(**fields: Any) -> Invitation:
    told: dict[str, Any] = {
        "fleet": "home",
        "servers": ("tls://10.0.0.1:4222",),
        "ca": "PEM",
        "tls_server_name": "harmony",
        "operator_keys": (generate_key().public.to_text(),),
        "seed": Nkey.new().seed,
    }
    return Invitation(**(told | fields))


def files_of(text: str) -> dict[str, bytes]:
    """What cloud-init writes, whose reader is PyYAML, by *text*."""
    document = yaml.safe_load(text)
    assert text.startswith("#cloud-config\n")
    assert set(document) == {"merge_how", "write_files", "runcmd"}
    return {
        each["path"]: base64.b64decode(each["content"])
        if each.get("encoding") == "b64"
        else each["content"].encode()
        for each in document["write_files"]
    }


def test_all_that_installs_the_agent_is_in_it_and_no_key_of_a_device() -> None:
    made = invitation(agent_id="pi-1")
    text = first_boot_text(PACKAGE, made)
    files = files_of(text)
    assert files[f"{PLACE}/package/invitation"].decode().strip() == made.to_text()
    assert files[f"{PLACE}/package/harmony-1.0-py3-none-any.whl"] == WHEEL
    assert files[f"{PLACE}/package/agent.lock"] == b"a==1\n"
    assert files[f"{PLACE}/user-data"] == b"#cloud-config\n"
    assert b"harmony-agent enroll" in files[f"{PLACE}/install.sh"]
    assert f"{PLACE}/chooses-id" not in files
    assert f"{PLACE}/chooses-id" in files_of(first_boot_text(PACKAGE, invitation()))
    # By which a device finds it on its card.
    assert text.count(made.to_text()) == 1


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_given_as_text_is_text_in_it(hostile: str) -> None:
    """Whatever an address, a name or a version holds: all other words are those of a harmless one."""
    made = invitation(
        servers=(f"tls://{hostile}:1",), fleet="home", tls_server_name=hostile, ca=hostile
    )
    name = f"harmony-1.0-{hostile}.whl".replace("/", "")
    package = Package(hostile, {name: WHEEL, "agent.lock": hostile.encode(), "build.lock": b""})
    text = first_boot_text(package, made, own=f"#cloud-config\n{hostile}")
    own, ours = yaml.safe_load(text)
    assert own == {"content": f"#cloud-config\n{hostile}"}
    files = files_of(ours["content"])
    assert Invitation.from_text(files[f"{PLACE}/package/invitation"].decode()) == made
    assert files[f"{PLACE}/package/agent.lock"].decode() == hostile
    assert files[f"{PLACE}/version"].decode() == hostile
    assert files[f"{PLACE}/package/{name}"] == WHEEL
    assert files[f"{PLACE}/user-data"].decode() == own["content"]
    harmless = yaml.safe_load(first_boot_text(PACKAGE, invitation()))
    assert yaml.safe_load(ours["content"])["runcmd"] == harmless["runcmd"]
    for each in ("install.sh", "first-boot.sh"):
        assert hostile.encode() not in files[f"{PLACE}/{each}"]
    assert set(files) - {f"{PLACE}/package/{name}"} < set(
        files_of(first_boot_text(PACKAGE, invitation()))
    )


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_an_own_part_stays_as_it_was_written(tail: str) -> None:
    own = f"#cloud-config\n{tail}"
    kept, ours = yaml.safe_load(first_boot_text(PACKAGE, INVITATION, own=own))
    assert kept["content"] == own
    assert files_of(ours["content"])[f"{PLACE}/user-data"] == own.encode()


INVITATION = invitation()


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


def test_made_again_for_the_same_file_the_own_part_is_in_it_once(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    assert read_own_part(path) is None
    write_user_data(path, first_boot_text(PACKAGE, invitation()))
    assert read_own_part(path) is None
    path.write_text(OWN)
    for _ in range(2):
        own = read_own_part(path)
        assert own == OWN
        made = first_boot_text(PACKAGE, invitation(), own)
        write_user_data(path, made)
        assert path.read_text() == made
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"#!/bin/sh\necho\n", "its first line must be #cloud-config"),
        (b"Content-Type: multipart/mixed\n", "its first line must be #cloud-config"),
        (b"\x1f\x8b\x08", "cannot be read"),
        (b"", "its first line must be #cloud-config"),
        (f"#cloud-config-archive\n- [\n# {PLACE}".encode(), "changed since"),
        (f"#cloud-config-archive\n{{}} # {PLACE}".encode(), "changed since"),
        (f"#cloud-config-archive\n- content: 7 # {PLACE}".encode(), "changed since"),
        (
            f"#cloud-config\nusers: []\nwrite_files:\n- path: {PLACE}/version\n".encode(),
            "changed since",
        ),
    ],
)
async def test_a_file_that_says_something_else_is_refused_before_anything_is_made(
    plane: Ground, tmp_path: Path, wheel: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "user-data"
    path.write_bytes(content)
    said = await plane.harmony("invite", "--first-boot", str(path), "--wheel", str(wheel))
    assert said.status == 2
    assert why in said.err
    assert path.read_bytes() == content
    assert read_invitations(plane.home) == {}


async def test_the_command_adds_to_what_stands_there_and_says_for_whom_it_is(
    plane: Ground, tmp_path: Path, wheel: Path
) -> None:
    path = tmp_path / "user-data"
    path.write_text(OWN)
    to = ("--first-boot", str(path), "--wheel", str(wheel))
    said = await plane.harmony("invite", "--count", "50", *to)
    assert said.status == 0, said.err
    assert "with what it said before" in said.out
    assert "50 cards" in said.out
    assert "harmony-invitation" not in said.out
    own, ours = yaml.safe_load(path.read_text())
    assert own["content"] == OWN
    files = files_of(ours["content"])
    assert files[f"{PLACE}/package/{wheel.name}"] == wheel.read_bytes()
    assert wheel.name.encode() not in files[f"{PLACE}/first-boot.sh"]
    (invited,) = read_invitations(plane.home).values()
    assert invited.left == 50


async def test_options_that_do_not_fit_together_are_refused(
    plane: Ground, tmp_path: Path, wheel: Path
) -> None:
    said = await plane.harmony("invite", "--wheel", str(wheel))
    assert said.status == 2
    assert "give --first-boot FILE with it" in said.err
    both = ("--out", str(tmp_path / "one"), "--first-boot", str(tmp_path / "two"))
    assert (await plane.harmony("invite", *both)).status == 2
    # In a working tree, there is nothing to install without a wheel.
    said = await plane.harmony("invite", "--first-boot", str(tmp_path / "two"))
    assert said.status == 2
    assert "--wheel" in said.err
    assert list(tmp_path.glob("*one*")) + list(tmp_path.glob("*two*")) == []
    assert read_invitations(plane.home) == {}


def test_where_it_cannot_be_written_what_was_there_stays(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_user_data(tmp_path / "missing" / "user-data", "text")
    taken = tmp_path / "user-data"
    taken.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_own_part(taken)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_user_data(taken, "text")
    assert list(tmp_path.iterdir()) == [taken]
