"""A registry, as a Score has it: what is refused when it is written, and what it asks for."""

from __future__ import annotations

from typing import Any

import pytest
import trustme
from pydantic import ValidationError

from harmony_core import Failure, ImageRegistry, Noop, RegistryMirror, Success
from harmony_core.resources import all_problems, first_problem
from harmony_core.resources.image_registry import certificates_path, mirrors_path
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_scores import AptSourceScore, RegistryScore

AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes().decode()
OTHER = trustme.CA().cert_pem.bytes().decode()
KEY = AUTHORITY.private_key_pem.bytes().decode()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "give mirrors, ca or insecure"),
        ({"host": "localhost", "insecure": True}, "come from archives"),
        ({"host": "index.docker.io", "insecure": True}, "podman calls it docker.io"),
        ({"host": "nginx", "insecure": True}, "write a registry"),
        ({"host": "Registry.lan", "insecure": True}, "in lower-case letters"),
        ({"host": "https://registry.lan", "insecure": True}, "write a registry"),
        ({"host": "registry.lan:66000", "insecure": True}, "a port is at most 65535"),
        ({"host": "registry.lan/app:1", "insecure": True}, "write a registry"),
        ({"host": "*.lan", "insecure": True}, "write a registry"),
        ({"host": "a.b" + "/a" * 62, "insecure": True}, "host has too many parts"),
        ({"host": "registry.lan/../x", "insecure": True}, "write a registry"),
        ({"host": 'a.lan"\nblocked = true', "insecure": True}, "write a registry"),
        ({"mirrors": ["cache.lan", "cache.lan"]}, "cache.lan is named twice"),
        ({"mirrors": ["registry.lan"]}, "registry.lan is named twice"),
        ({"mirrors": ["a.lan/x y"]}, "write a registry"),
        ({"mirrors": [{"location": "a.lan", "secure": False}]}, "unknown field|extra"),
        ({"ca": CA, "insecure": True}, "ca is in vain"),
        ({"host": "registry.lan/team", "ca": CA}, "with host: registry.lan"),
        ({"ca": "my ca"}, "must be certificates in PEM"),
        ({"ca": CA.replace("-----END CERTIFICATE-----", "")}, "must be certificates in PEM"),
        ({"ca": CA[:100] + CA[140:]}, "certificate 1 of 1 cannot be read"),
        ({"ca": CA + OTHER[:200] + OTHER[260:]}, "certificate 2 of 2 cannot be read"),
        ({"ca": CA + KEY}, "that is a private key"),
        ({"ca": CA.replace("CERTIFICATE", "TRUSTED CERTIFICATE")}, "must be certificates in PEM"),
        ({"ca": CA * 200}, "at most 49152"),
    ],
)
def test_what_cannot_be_is_refused_by_its_words(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RegistryScore.model_validate({"host": "registry.lan", **fields})


def test_a_mirror_may_be_only_its_place() -> None:
    score = RegistryScore.model_validate({"host": "docker.io", "mirrors": ["cache.lan:5000/a"]})
    assert score.mirrors == (RegistryMirror(location="cache.lan:5000/a"),)
    schema = RegistryScore.model_json_schema()
    kinds = schema["properties"]["mirrors"]["items"]["anyOf"]
    assert [each.get("type", "an object") for each in kinds] == ["string", "an object"]


@pytest.mark.parametrize("kind", [RegistryScore, AptSourceScore])
def test_a_private_key_is_not_shown(kind: type[RegistryScore | AptSourceScore]) -> None:
    fields = {"host": "a.lan", "ca": KEY} if kind is RegistryScore else {"name": "a", "key": KEY}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    told = [first_problem(caught.value), *(text for _, text in all_problems(caught.value))]
    assert any("that is a private key" in each for each in told)
    assert not any("BEGIN" in each for each in told)


def test_the_file_of_a_host_with_many_parts_has_a_name_that_a_disk_takes() -> None:
    """A mirror is in no name, and may have as many as it likes."""
    place = "a.b" + "/a" * 59
    score = RegistryScore(host=place, mirrors=(RegistryMirror(location=f"{place}/a/a/a"),))
    assert len(mirrors_path(score.host).rpartition("/")[2]) == 252


def test_of_several_certificates_each_is_kept_and_nothing_else() -> None:
    text = f"# mine\r\n{CA}\n-- and --\n{OTHER}".replace("\n", "\r\n")
    score = RegistryScore(host="registry.lan", ca=text)
    assert score.ca == CA + OTHER


def test_a_part_of_a_registry_has_a_file_of_its_own() -> None:
    paths = {mirrors_path(each) for each in ("a.lan/b-c", "a.lan/b/c", "a.lan/b_c", "a.lan:5000")}
    assert len(paths) == 4
    assert certificates_path("a.lan:5000") == "/etc/containers/certs.d/a.lan:5000/harmony.crt"


async def test_interpret_twice_it_is_success_then_noop() -> None:
    score = RegistryScore(
        host="registry.lan:5000",
        mirrors=(
            RegistryMirror(location="cache.lan/a"),
            RegistryMirror(location="old.lan", insecure=True),
        ),
        ca=CA,
    )
    pi = FakePi()
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    assert pi.files.read(certificates_path(score.host)) == CA.encode()
    assert b"old.lan" in (pi.files.read(mirrors_path(score.host)) or b"")


async def test_what_another_file_says_is_a_failure_that_names_it() -> None:
    pi = FakePi()
    path = "/etc/containers/registries.conf.d/mine.conf"
    pi.files.write(path, b'[[registry]]\nlocation = "docker.io"\n')
    score = RegistryScore(host="docker.io", mirrors=(RegistryMirror(location="cache.lan"),))
    outcome = (await interpret_once(score, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NotOurs"
    assert path in outcome.error.message


def test_its_files_are_nobody_elses() -> None:
    registry = ImageRegistry(host="docker.io", insecure=True)
    assert registry.exclusive == {f"path:{mirrors_path('docker.io')}"}
