"""Tags become digests at push: what registries answer, and what a person is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from harmony_control.push.entries import Entry
from harmony_control.push.resolve import with_digests
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_core import HasContainers, Inventory, Outcome, Score
from harmony_core.errors import ConfigError, HarmonyError, ImageNotFound, RegistryUnreachable
from harmony_core.images import ImageRef
from harmony_scores import ComposeScore, ContainerScore
from tests.box import Bed
from tests.ports import free_address

from .ground import Ground, Said
from .registry import DIGEST, Answer, Asked, Registry, serving_registry

PINNED = f"example.org/a@{DIGEST}"
NO_SECRETS = FleetSecrets(Home(Path("/no/such/home")))
REMEDY = "name the image by digest, or push with --no-resolve"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Registry]:
    with serving_registry(tmp_path) as registry:
        monkeypatch.setenv("HARMONY_REGISTRY_CA", str(registry.ca))
        monkeypatch.setenv("NO_PROXY", "localhost")
        yield registry


async def resolved(image: str) -> str:
    found = await with_digests({"c": Entry(ContainerScore(name="c", image=image))}, NO_SECRETS)
    score = found["c"].score
    assert isinstance(score, ContainerScore)
    return score.image


async def refused(image: str, error: type[HarmonyError]) -> str:
    with pytest.raises(error) as raised:
        await resolved(image)
    return raised.value.message


async def test_a_tag_becomes_the_digest_that_the_registry_names(registry: Registry) -> None:
    assert (
        await resolved(f"{registry.host}/team/web:1.2") == f"{registry.host}/team/web:1.2@{DIGEST}"
    )
    assert registry.paths == ["HEAD /v2/team/web/manifests/1.2"]
    assert "application/vnd.oci.image.index.v1+json" in registry.asked[0].accept


async def test_without_a_tag_the_latest_is_meant(registry: Registry) -> None:
    assert await resolved(f"{registry.host}/web") == f"{registry.host}/web@{DIGEST}"
    assert registry.paths == ["HEAD /v2/web/manifests/latest"]


async def test_a_digest_is_left_alone_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even the file of authorities is looked for.
    monkeypatch.setenv("HARMONY_REGISTRY_CA", "/no/such/file")
    image = f"{free_address()}/web:1@{DIGEST}"
    entries = {"c": Entry(ContainerScore(name="c", image=image))}
    assert await with_digests(entries, NO_SECRETS) == entries


async def test_what_is_not_there_is_not_found(registry: Registry) -> None:
    registry.answer = lambda _: Answer(404)
    said = await refused(f"{registry.host}/web:9", ImageNotFound)
    assert said == (
        f"{registry.host} has no web:9 (HTTP 404); check the name and the tag (Score 'c' wants it)"
    )


def _behind_a_token(asked: Asked, host: str, token: Answer) -> Answer:
    if asked.path.startswith("/token"):
        return token
    if asked.authorization == "Bearer let-me-in":
        return Answer.found()
    challenge = f'Bearer realm="https://{host}/token",service="reg",scope="repository:web:pull"'
    return Answer(401, {"WWW-Authenticate": challenge})


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_where_a_token_is_wanted_an_anonymous_one_is_got(
    name: str, registry: Registry
) -> None:
    token = Answer(body=json.dumps({name: "let-me-in"}).encode())
    registry.answer = lambda asked: _behind_a_token(asked, registry.host, token)
    assert (await resolved(f"{registry.host}/web:1")).endswith(DIGEST)
    assert registry.paths == [
        "HEAD /v2/web/manifests/1",
        "GET /token?service=reg&scope=repository%3Aweb%3Apull",
        "HEAD /v2/web/manifests/1",
    ]
    assert registry.asked[1].authorization is None


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (Answer(401), 401),
        (Answer(403), 403),
        (Answer(404), 401),
        (Answer(body=b"{}"), 401),
        (Answer(body=b"[]"), 401),
        (Answer(body=b'{"token": ""}'), 401),
        (Answer(body=b'{"token": "wrong"}'), 401),
    ],
)
async def test_what_needs_a_login_is_told_so(
    token: Answer, status: int, registry: Registry
) -> None:
    registry.answer = lambda asked: _behind_a_token(asked, registry.host, token)
    said = await refused(f"{registry.host}/web:1", ImageNotFound)
    assert said.startswith(f"{registry.host} requires a login for web:1 (HTTP {status})")
    assert "give the image a login" in said
    assert REMEDY in said


CHALLENGES = [
    'Basic realm="https://localhost/"',
    'Bearer realm="http://localhost/token"',  # a token is not asked for in clear
    "Bearer",
    "",
]


@pytest.mark.parametrize("challenge", CHALLENGES)
async def test_a_challenge_that_offers_no_token_is_a_login(
    challenge: str, registry: Registry
) -> None:
    registry.answer = lambda _: Answer(401, {"WWW-Authenticate": challenge})
    assert "requires a login" in await refused(f"{registry.host}/web:1", ImageNotFound)
    assert len(registry.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_registry_in_trouble_is_told_with_its_status(
    status: int, registry: Registry
) -> None:
    registry.answer = lambda _: Answer(status)
    said = await refused(f"{registry.host}/web:1", RegistryUnreachable)
    assert f"answered HTTP {status} to web:1" in said
    assert REMEDY in said


@pytest.mark.parametrize("said_to_head", ["", "sha512:00", "sha256:xyz", f"{DIGEST} "])
async def test_where_head_says_no_digest_it_is_that_of_the_manifest(
    said_to_head: str, registry: Registry
) -> None:
    manifest = b'{"schemaVersion": 2}'
    headers = {"Docker-Content-Digest": said_to_head.strip()} if said_to_head[-1:] != " " else {}
    registry.answer = lambda _: Answer(headers=headers, body=manifest)
    expected = hashlib.sha256(manifest).hexdigest()
    assert (await resolved(f"{registry.host}/web:1")).endswith(f"@sha256:{expected}")
    assert [each.method for each in registry.asked] == ["HEAD", "GET"]


async def test_half_a_manifest_is_no_manifest(registry: Registry) -> None:
    registry.answer = lambda _: Answer(body=b"x" * 10_000, cut_off=True)
    said = await refused(f"{registry.host}/web:1", RegistryUnreachable)
    assert REMEDY in said


async def test_a_manifest_without_an_end_is_no_manifest(registry: Registry) -> None:
    registry.answer = lambda _: Answer(body=b"x" * (4 * 1024 * 1024 + 1))
    said = await refused(f"{registry.host}/web:1", RegistryUnreachable)
    assert "larger than" in said


async def test_a_token_that_is_not_json_is_trouble_of_the_registry(registry: Registry) -> None:
    token = Answer(body=b"<html>")
    registry.answer = lambda asked: _behind_a_token(asked, registry.host, token)
    assert REMEDY in await refused(f"{registry.host}/web:1", RegistryUnreachable)


async def test_a_redirect_is_followed_and_one_without_end_is_not(registry: Registry) -> None:
    def answer(asked: Asked) -> Answer:
        moved = asked.path.startswith("/elsewhere")
        return Answer.found() if moved else Answer(307, {"Location": "/elsewhere"})

    registry.answer = answer
    assert (await resolved(f"{registry.host}/web:1")).endswith(DIGEST)
    registry.answer = lambda asked: Answer(307, {"Location": asked.path})
    assert REMEDY in await refused(f"{registry.host}/web:1", RegistryUnreachable)


async def test_a_registry_that_is_down_is_told_so() -> None:
    host = free_address()
    said = await refused(f"{host}/web:1", RegistryUnreachable)
    assert said.startswith(f"{host} cannot be asked for web:1: ")
    assert REMEDY in said


async def test_a_registry_without_tls_is_told_so() -> None:
    server = await asyncio.start_server(_speak_plainly, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await refused(f"127.0.0.1:{port}/web:1", RegistryUnreachable)
    assert "it does not speak TLS" in said


async def _speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_a_certificate_that_is_not_trusted_names_the_variable(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARMONY_REGISTRY_CA")
    said = await refused(f"{registry.host}/web:1", RegistryUnreachable)
    assert "certificate" in said
    assert "set HARMONY_REGISTRY_CA to the file with its CA certificate" in said
    assert registry.asked == []


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
async def test_a_file_of_authorities_that_is_none_is_named(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("HARMONY_REGISTRY_CA", str(file))
    said = await refused(f"{free_address()}/web:1", ConfigError)
    assert said.startswith(f"HARMONY_REGISTRY_CA={file} ")


class Side(BaseModel):
    image: ImageRef
    note: str = "example.org/not-an-image:1"


class PodScore(Score[HasContainers]):
    """Images at every depth."""

    image: ImageRef
    others: tuple[ImageRef, ...] = ()
    by_name: dict[str, ImageRef] = Field(default_factory=dict[str, str])
    maybe: ImageRef | None = None
    sides: list[Side] = Field(default_factory=list[Side])
    deep: dict[str, list[Side]] = Field(default_factory=dict[str, list[Side]])
    command: str = "example.org/not-an-image:2"

    async def interpret(self, inventory: Inventory, topology: HasContainers) -> Outcome:
        raise NotImplementedError


async def test_images_are_found_at_whatever_depth_and_nothing_else_is(registry: Registry) -> None:
    tag = f"{registry.host}/web:1"
    at = f"{tag}@{DIGEST}"
    score = PodScore(
        image=tag,
        others=(tag, PINNED),
        by_name={tag: tag},
        maybe=tag,
        sides=[Side(image=tag)],
        deep={"x": [Side(image=tag), Side(image=PINNED)]},
    )
    found = (await with_digests({"pod": Entry(score)}, NO_SECRETS))["pod"].score
    assert isinstance(found, PodScore)
    assert found == PodScore(
        image=at,
        others=(at, PINNED),
        by_name={tag: at},
        maybe=at,
        sides=[Side(image=at)],
        deep={"x": [Side(image=at), Side(image=PINNED)]},
    )
    assert registry.paths == ["HEAD /v2/web/manifests/1"], "each is asked for once"
    assert score.image == tag, "what was given stays as it was"


async def test_the_images_of_a_project_s_services_are_found(registry: Registry) -> None:
    tag = f"{registry.host}/web:1"
    services = {"web": {"name": "shop-web-1", "image": tag}}
    entry = Entry(ComposeScore.model_validate({"services": services}))
    found = (await with_digests({"shop": entry}, NO_SECRETS))["shop"].score
    assert isinstance(found, ComposeScore)
    assert found.services["web"].image == f"{tag}@{DIGEST}"


async def push(plane: Ground, image: str, *options: str, **environment: str) -> Said:
    entry = {"id": "web", "kind": "ContainerScore", "spec": {"name": "web", "image": image}}
    return await plane.harmony(
        *("push-score", "pi-1", "-", "--no-wait", "--force", *options),
        stdin=json.dumps([entry]),
        **environment,
    )


async def pushed_image(plane: Ground) -> str:
    again = await plane.fleet.device("pi-1").put_again()
    spec: dict[str, Any] = again.entries["web"].spec
    return str(spec["image"])


async def test_the_command_pins_what_it_pushes(plane: Ground, registry: Registry) -> None:
    image = f"{registry.host}/web:1"
    said = await push(plane, image, HARMONY_REGISTRY_CA=str(registry.ca))
    assert said.status == 0, said
    assert await pushed_image(plane) == f"{image}@{DIGEST}"


async def test_the_command_pushes_a_tag_as_it_is_when_told_so(plane: Ground) -> None:
    image = f"{free_address()}/web:1"
    said = await push(plane, image, "--no-resolve")
    assert said.status == 0, said
    assert await pushed_image(plane) == image


async def test_what_cannot_be_resolved_is_not_pushed(plane: Ground, registry: Registry) -> None:
    registry.answer = lambda _: Answer(404)
    ca = str(registry.ca)
    missing = await push(plane, f"{registry.host}/web:9", HARMONY_REGISTRY_CA=ca)
    assert (missing.status, missing.out) == (2, "")
    down = await push(plane, f"{free_address()}/web:1")
    assert (down.status, down.out) == (4, "")
    for said in (missing, down):
        assert said.err.startswith("harmony: ")
        assert said.err.count("\n") == 1
    assert await plane.bus.bucket("desired-state").get("pi-1") is None


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.1:18080/latest/meta-data/", "which is not https"),
        ("https://127.0.0.1:18080/latest/meta-data/", "which is this machine or its own link"),
        ("https://[::1]:18080/", "which is this machine or its own link"),
        ("https://[::ffff:127.0.0.1]:18080/", "which is this machine or its own link"),
        ("https://169.254.169.254/latest/meta-data/", "which is this machine or its own link"),
        ("https://localhost:18080/", "which is this machine or its own link"),
        ("https://0.0.0.0:18080/", "which is this machine or its own link"),
    ],
)
async def test_a_registry_sends_nobody_elsewhere_on_this_machine_nor_away_from_https(
    location: str, why: str, registry: Registry
) -> None:
    """What is answered there would be signed as the image's digest."""
    registry.answer = lambda _: Answer(302, {"Location": location})
    assert why in await refused(f"{registry.host}/web:1", RegistryUnreachable)
    challenge = f'Bearer realm="{location}"'
    registry.answer = lambda _: Answer(401, {"WWW-Authenticate": challenge})
    if location.startswith("https"):
        assert why in await refused(f"{registry.host}/web:1", RegistryUnreachable)


PUBLIC, PRIVATE = "9.9.9.9", "10.99.0.1"


@pytest.fixture
def two_networks(bed: Bed) -> Generator[None]:
    """Both addresses are this process's own, in a network that leads nowhere."""
    for address in (PUBLIC, PRIVATE):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    yield
    for address in (PUBLIC, PRIVATE):
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


@pytest.mark.usefixtures("two_networks")
@pytest.mark.parametrize(
    ("named", "other", "is_followed"),
    [
        (PUBLIC, PRIVATE, False),
        (PRIVATE, PRIVATE, True),  # such as a registry of one's own, and its server of tokens
        (PRIVATE, PUBLIC, True),
        (PUBLIC, PUBLIC, True),
    ],
)
@pytest.mark.parametrize("way", ["redirect", "token"])
async def test_a_public_registry_sends_nobody_into_a_private_network(
    *,
    named: str,
    other: str,
    is_followed: bool,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    places = [tmp_path / each for each in ("named", "other")]
    for place in places:
        place.mkdir()
    with (
        serving_registry(places[0], name=named) as registry,
        serving_registry(places[1], name=other) as elsewhere,
    ):
        authorities = tmp_path / "both.pem"
        authorities.write_text(registry.ca.read_text() + elsewhere.ca.read_text())
        monkeypatch.setenv("HARMONY_REGISTRY_CA", str(authorities))
        if way == "redirect":
            location = {"Location": f"https://{elsewhere.host}/v2/web"}
            registry.answer = lambda _: Answer(307, location)
        else:
            token = Answer(body=b'{"token": "let-me-in"}')
            elsewhere.answer = lambda _: token
            registry.answer = lambda asked: _behind_a_token(asked, elsewhere.host, token)
        image = f"{registry.host}/web:1"
        if is_followed:
            assert (await resolved(image)).endswith(DIGEST)
        else:
            said = await refused(image, RegistryUnreachable)
            assert f"{other}), which is in a private network, and {registry.host} is not" in said
        assert bool(elsewhere.asked) is is_followed
