"""`x-harmony-login` of compose files: which service has which login, and what is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from harmony_control.compose.mapping import MappedProject, map_project
from harmony_core import RegistryLogin
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore
from tests.control.compose_files import read

SERVICES = """
services:
  own: {image: ghcr.io/acme/own:1}
  ours: {image: ghcr.io/acme/team/ours:1}
  other: {image: ghcr.io/acme-too/other:1}
  hub: {image: nginx}
  far: {image: ghcr.io.example.org/acme/far:1}
"""


def mapped(folder: Path, text: str, *more: str, **options: dict[str, str]) -> MappedProject:
    return map_project(read(folder, text, *more, **options), Registry([ComposeScore]))


def logins(project: MappedProject) -> dict[str, str]:
    (entry,) = project.entries.values()
    assert isinstance(entry.score, ComposeScore)
    services = entry.score.services
    return {
        name: f"{each.login.username} {each.login.password}"
        for name, each in services.items()
        if each.login is not None
    }


def test_services_have_the_login_of_their_registry_and_the_nearest_part_of_it(
    tmp_path: Path,
) -> None:
    text = """
    x-harmony-login:
      ghcr.io: {username: all, password: "${secret.all}"}
      ghcr.io/acme: {username: acme, password: "x-${secret.acme}"}
      ghcr.io/acme/own: {username: own, password: "$${secret.own}"}
      docker.io: {username: "${HUB_USER}", password: "${secret.hub}"}
    """
    project = mapped(tmp_path, textwrap.dedent(text) + SERVICES, files={".env": "HUB_USER=ada\n"})
    assert logins(project) == {
        "own": "own ${secret.own}",
        "ours": "acme x-${secret.acme}",
        "other": "all ${secret.all}",
        "hub": "ada ${secret.hub}",
    }
    assert "x-harmony-login" not in "".join(project.notes)


def test_a_later_file_says_otherwise_and_what_is_included_counts(tmp_path: Path) -> None:
    first = 'x-harmony-login: {ghcr.io: {username: a, password: "${secret.a}"}}\n' + SERVICES
    later = "x-harmony-login: {ghcr.io: {username: b}}\n"
    assert logins(mapped(tmp_path, first, later))["own"] == "b ${secret.a}"
    including = "include: [inner.yaml]\nservices: {more: {image: ghcr.io/more:1}}\n"
    project = mapped(tmp_path, including, files={"inner.yaml": first})
    assert logins(project)["more"] == logins(project)["own"] == "a ${secret.a}"


def test_what_no_service_needs_is_noted(tmp_path: Path) -> None:
    login = '{username: a, password: "${secret.a}"}'
    text = f"x-harmony-login: {{quay.io: {login}, ghcr.io: {login}}}\n{SERVICES}"
    notes = [each for each in mapped(tmp_path, text).notes if "x-harmony-login" in each]
    assert len(notes) == 1
    assert "x-harmony-login.quay.io: no service has an image from there" in notes[0]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("hunter2", "x-harmony-login: write registries, as in ghcr.io: {username: me"),
        ("[ghcr.io]", "x-harmony-login: write registries"),
        ("{ghcr.io: hunter2}", "x-harmony-login.ghcr.io: write registries"),
        ("{ghcr.io: }", "x-harmony-login.ghcr.io: write registries"),
        ("{ghcr.io: {username: a}}", "x-harmony-login.ghcr.io.password: is missing; add it"),
        ("{ghcr.io: {username: a, password: hunter2}}", "it would stand in clear in the manifest"),
        ("{ghcr.io: {username: a, password: 1234567}}", "password: must be text"),
        ("{ghcr.io: {username: a, password: [hunter2]}}", "password: must be text"),
        (
            '{HTTPS: {username: a, password: "${secret.a}"}}',
            "x-harmony-login.HTTPS: write a registry",
        ),
        ('{index.docker.io: {username: a, password: "${secret.a}"}}', "podman calls it docker.io"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place_and_no_password(
    says: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ComposeFileError) as raised:
        mapped(tmp_path, f"x-harmony-login: {says}\n{SERVICES}")
    assert told in raised.value.message
    assert "compose.yaml:1: " in raised.value.message
    assert "hunter2" not in raised.value.message
    assert "1234567" not in raised.value.message


def test_a_login_is_a_login_as_a_container_has_it(tmp_path: Path) -> None:
    text = 'x-harmony-login: {ghcr.io: {username: a, password: "${secret.a}"}}\n' + SERVICES
    (entry,) = mapped(tmp_path, text).entries.values()
    assert isinstance(entry.score, ComposeScore)
    own = entry.score.services["own"].login
    assert own == RegistryLogin(username="a", password="${secret.a}")
