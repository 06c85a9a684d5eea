"""Logins of Scores, where tags are looked up: who is given the password, who never is, and what is told."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harmony_control.push.entries import Entry
from harmony_control.push.resolve import with_digests
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_core import RegistryLogin
from harmony_core.errors import HarmonyError, ImageNotFound, RegistryUnreachable
from harmony_scores import ContainerScore, WebAppScore
from tests.box import Bed

from .ground import Ground
from .registry import DIGEST, Answer, Asked, Registry, serving_registry
from .test_resolving import PRIVATE, two_networks

__all__ = ["two_networks"]

PASSWORD = "hunter2:and-more"
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
LOGIN = RegistryLogin(username="me", password="${secret.registry}")
NONE_AT_ALL = {"WWW-Authenticate": 'Basic realm="reg"'}


@pytest.fixture
def secrets(tmp_path: Path) -> FleetSecrets:
    home = Home(tmp_path / "home")
    operator_key.create(home)
    secrets = FleetSecrets(home)
    secrets.set("registry", PASSWORD)
    return secrets


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What has this process believe the registries that are given."""

    def trust(*registries: Registry) -> None:
        file = tmp_path / "authorities.pem"
        file.write_text("".join(each.ca.read_text() for each in registries))
        monkeypatch.setenv("HARMONY_REGISTRY_CA", str(file))
        monkeypatch.setenv("NO_PROXY", "*")

    return trust


@pytest.fixture
def two(tmp_path: Path, trusted: Callable[..., None]) -> Generator[tuple[Registry, Registry]]:
    """Two registries on this machine, each of which may name no other that is here."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with serving_registry(tmp_path / "a") as a, serving_registry(tmp_path / "b") as b:
        trusted(a, b)
        yield a, b


@pytest.fixture
def registry(two: tuple[Registry, Registry]) -> Registry:
    return two[0]


async def resolved(secrets: FleetSecrets, *images: tuple[str, RegistryLogin | None]) -> list[str]:
    entries = {
        f"c{number}": Entry(ContainerScore(name="c", image=image, login=login))
        for number, (image, login) in enumerate(images)
    }
    found = await with_digests(entries, secrets)
    scores = [found[name].score for name in entries]
    return [each.image for each in scores if isinstance(each, ContainerScore)]


async def refused(
    secrets: FleetSecrets,
    image: str,
    error: type[HarmonyError],
    login: RegistryLogin | None = LOGIN,
) -> str:
    """What is told; the password is nowhere in it, nor in what a program would print of it."""
    with pytest.raises(error) as raised:
        await resolved(secrets, (image, login))
    told = raised.value.message
    printed = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    for text in (PASSWORD, BASIC.removeprefix("Basic ")):
        assert text not in told
        assert text not in printed
    return told


def by_password(asked: Asked) -> Answer:
    """As htpasswd does it."""
    return Answer.found() if asked.authorization == BASIC else Answer(401, NONE_AT_ALL)


def by_token(realm: str, **more: Answer) -> Callable[[Asked], Answer]:
    """As Docker Hub does it; *more* is what the server of tokens answers otherwise."""

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            if "token" in more:
                return more["token"]
            name = "mine" if asked.authorization == BASIC else "anybody's"
            return Answer(body=json.dumps({"token": name}).encode())
        if asked.authorization == "Bearer mine":
            return more.get("image", Answer.found())
        challenge = f'Bearer realm="{realm}",service="reg",scope="repository:web:pull"'
        return Answer(401, {"WWW-Authenticate": challenge})

    return answer


def shown_to(registry: Registry) -> set[str | None]:
    return {each.authorization for each in registry.asked}


async def test_a_password_is_given_where_it_is_wanted_and_not_before(
    registry: Registry, secrets: FleetSecrets
) -> None:
    registry.answer = by_password
    (found,) = await resolved(secrets, (f"{registry.host}/web:1", LOGIN))
    assert found == f"{registry.host}/web:1@{DIGEST}"
    assert [each.authorization for each in registry.asked] == [None, BASIC]


@pytest.mark.parametrize("more", ["", ', Basic realm="other"'])
async def test_a_password_is_given_for_a_token_and_the_token_from_then_on(
    more: str, registry: Registry, secrets: FleetSecrets
) -> None:
    answer = by_token(f"https://{registry.host}/token")

    def answer_with_more(asked: Asked) -> Answer:
        found = answer(asked)
        if found.status != 401:
            return found
        return Answer(401, {"WWW-Authenticate": found.headers["WWW-Authenticate"] + more})

    registry.answer = answer_with_more
    (found,) = await resolved(secrets, (f"{registry.host}/web:1", LOGIN))
    assert found.endswith(DIGEST)
    assert [(each.method, each.authorization) for each in registry.asked] == [
        ("HEAD", None),
        ("GET", BASIC),
        ("HEAD", "Bearer mine"),
    ]
    assert registry.paths[1] == "GET /token?service=reg&scope=repository%3Aweb%3Apull"


async def test_a_web_app_has_a_login_too(registry: Registry, secrets: FleetSecrets) -> None:
    registry.answer = by_password
    score = WebAppScore(
        name="w",
        image=f"{registry.host}/web:1",
        login=LOGIN,
        config="",
        config_path="/etc/c",
        port=80,
    )
    found = (await with_digests({"w": Entry(score)}, secrets))["w"].score
    assert isinstance(found, WebAppScore)
    assert found.image.endswith(DIGEST)
    assert "login" not in score.model_copy(update={"login": None}).model_dump(mode="json")


async def test_what_is_refused_is_told_with_whose_login_it_was(
    registry: Registry, secrets: FleetSecrets
) -> None:
    image = f"{registry.host}/web:1"
    registry.answer = lambda _: Answer(401, NONE_AT_ALL)
    said = await refused(secrets, image, ImageNotFound)
    assert f"{registry.host} does not take the login of 'me' for web:1 (HTTP 401)" in said
    assert "harmony secret set" in said
    realm = f"https://{registry.host}/token"
    registry.answer = by_token(realm, token=Answer(401))
    assert "does not take the login of 'me'" in await refused(secrets, image, ImageNotFound)
    for more in ({"token": Answer(403)}, {"image": Answer(403)}):
        registry.answer = by_token(realm, **more)
        said = await refused(secrets, image, ImageNotFound)
        assert "does not let 'me' pull web:1 (HTTP 403); let that user pull it" in said
    registry.answer = by_token(realm, image=Answer(404))
    assert "has no web:1 (HTTP 404)" in await refused(secrets, image, ImageNotFound)


@pytest.mark.parametrize("where", ["token", "image"])
async def test_a_limit_is_told_and_who_has_no_login_hears_of_it(
    where: str, registry: Registry, secrets: FleetSecrets
) -> None:
    image = f"{registry.host}/web:1"
    registry.answer = by_token(f"https://{registry.host}/token", **{where: Answer(429)})
    said = await refused(secrets, image, RegistryUnreachable)
    assert "HTTP 429 to web:1: too much was asked of it by 'me'; wait" in said
    registry.answer = lambda _: Answer(429)
    said = await refused(secrets, image, RegistryUnreachable, login=None)
    assert "too much was asked of it without a login; wait, give the image a login" in said


@pytest.mark.parametrize(
    ("username", "password", "why"),
    [
        ("me", "${secret.other}", "there is no secret 'other'"),
        ("me", "${labels.site}-${secret.registry}", "${labels.site} in its password"),
        ("${labels.site}", "${secret.registry}", "what its username stands for"),
        ("${secret.registry}", "${secret.registry}", "what its username stands for"),
    ],
)
async def test_a_login_that_cannot_be_used_here_is_told_where_one_is_wanted(
    username: str, password: str, why: str, registry: Registry, secrets: FleetSecrets
) -> None:
    login = RegistryLogin(username=username, password=password)
    image = f"{registry.host}/web:1"
    registry.answer = by_password
    said = await refused(secrets, image, ImageNotFound, login)
    assert (
        "requires a login for web:1 (HTTP 401), and that of its Score could not be used: " in said
    )
    assert why in said
    registry.answer = lambda _: Answer.found()
    assert (await resolved(secrets, (image, login)))[0].endswith(DIGEST)
    assert shown_to(registry) == {None}


async def test_a_login_is_for_the_image_beside_it_and_for_no_other(
    two: tuple[Registry, Registry], secrets: FleetSecrets
) -> None:
    a, b = two
    a.answer = by_password
    b.answer = by_password
    image = f"{a.host}/web:1"
    (first,) = await resolved(secrets, (image, LOGIN))
    assert first.endswith(DIGEST)
    with pytest.raises(ImageNotFound, match=r"requires a login for web:1.*Score 'c1' wants it"):
        await resolved(secrets, (image, LOGIN), (f"{b.host}/web:1", None))
    assert shown_to(b) == {None}
    with pytest.raises(ImageNotFound, match=r"requires a login for web:1.*Score 'c1' wants it"):
        await resolved(secrets, (image, LOGIN), (image, None))


async def test_a_registry_gets_nothing_of_another_s_login_by_naming_its_tokens(
    two: tuple[Registry, Registry], secrets: FleetSecrets
) -> None:
    """B says that it gives tokens where A does."""
    a, b = two
    a.answer = by_token(f"https://{a.host}/token")
    b.answer = by_token(f"https://{a.host}/token")
    with pytest.raises(RegistryUnreachable, match="this machine or its own link"):
        await resolved(secrets, (f"{a.host}/web:1", LOGIN), (f"{b.host}/web:1", None))
    assert shown_to(b) == {None}


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        ("http://{a}/token", "it wants logins without TLS"),
        ("http://{b}/token", "it wants logins without TLS"),
        ("ftp://{b}/token", "it wants logins without TLS"),
        ("//{b}/token", "it wants logins without TLS"),
        ("https://{b}/token", "this machine or its own link"),
        ("https://{a}@{b}/token", "this machine or its own link"),
        ("https://169.254.169.254/token", "this machine or its own link"),
    ],
)
async def test_a_login_goes_nowhere_that_a_registry_may_not_name(
    realm: str, why: str, two: tuple[Registry, Registry], secrets: FleetSecrets
) -> None:
    a, b = two
    a.answer = by_token(realm.format(a=a.host, b=b.host))
    assert why in await refused(secrets, f"{a.host}/web:1", RegistryUnreachable)
    assert shown_to(a) == {None}
    assert b.asked == []


async def test_a_token_that_repeats_the_password_is_not_told(
    registry: Registry, secrets: FleetSecrets
) -> None:
    for token in (f"{PASSWORD}\r\nX: y", f"{PASSWORD}\x00"):
        answer = Answer(body=json.dumps({"token": token}).encode())
        registry.answer = by_token(f"https://{registry.host}/token", token=answer)
        said = await refused(secrets, f"{registry.host}/web:1", RegistryUnreachable)
        assert "the token that it gives is none" in said
    registry.answer = by_token(
        f"https://{registry.host}/token",
        token=Answer(307, {"Location": f"http://{registry.host}/{PASSWORD}"}),
    )
    said = await refused(secrets, f"{registry.host}/web:1", RegistryUnreachable)
    assert "which is not https" in said


@pytest.fixture
def far(
    bed: Bed, tmp_path: Path, two_networks: None, trusted: Callable[..., None]
) -> Generator[tuple[Registry, Registry]]:
    """Two in one private network, where the one may lead to the other."""
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
    with (
        serving_registry(tmp_path / "near", name=PRIVATE) as near,
        serving_registry(tmp_path / "far", name=PRIVATE) as far,
    ):
        trusted(near, far)
        yield near, far


async def test_a_server_of_tokens_that_leads_elsewhere_takes_no_login_along(
    far: tuple[Registry, Registry], secrets: FleetSecrets
) -> None:
    near, other = far
    leads = Answer(307, {"Location": f"https://{other.host}/token"})
    near.answer = by_token(f"https://{near.host}/token", token=leads)
    other.answer = lambda _: Answer(body=b'{"token": "mine"}')
    assert (await resolved(secrets, (f"{near.host}/web:1", LOGIN)))[0].endswith(DIGEST)
    assert BASIC in shown_to(near)
    assert shown_to(other) == {None}


async def test_who_a_registry_leads_to_is_not_logged_in_to(
    far: tuple[Registry, Registry], secrets: FleetSecrets
) -> None:
    """Neither by a password nor for a token; and what was given to the registry stays there."""
    near, other = far
    image = f"{near.host}/web:1"
    near.answer = lambda _: Answer(307, {"Location": f"https://{other.host}/v2/web"})
    for challenged in (by_password, by_token(f"https://{other.host}/token")):
        other.answer = challenged
        said = await refused(secrets, image, RegistryUnreachable)
        assert f"it leads to {other.host}, which wants a login" in said

    def let_in(asked: Asked) -> Answer:
        found = by_password(asked)
        return near_leads if found.status == 200 else found

    near_leads = Answer(307, {"Location": f"https://{other.host}/v2/web"})
    near.answer = let_in
    other.answer = lambda _: Answer.found()
    assert (await resolved(secrets, (image, LOGIN)))[0].endswith(DIGEST)
    assert BASIC in shown_to(near)
    assert shown_to(other) == {None}


def score(image: str) -> Mapping[str, Any]:
    spec = {"name": "web", "image": image, "login": LOGIN.model_dump()}
    return {"id": "web", "kind": "ContainerScore", "spec": spec}


async def test_the_commands_ask_with_the_login_and_say_nothing_of_it(
    plane: Ground, registry: Registry, tmp_path: Path
) -> None:
    """push-score and plan, of a Score file, a compose file and a folder."""
    registry.answer = by_password
    image = f"{registry.host}/web:1"
    trust = {"HARMONY_REGISTRY_CA": str(registry.ca), "NO_PROXY": "*"}
    said = await plane.harmony("secret", "set", "registry", stdin=PASSWORD)
    assert said.status == 0, said
    compose = tmp_path / "shop/compose.yaml"
    compose.parent.mkdir()
    compose.write_text(
        f'x-harmony-login: {{"{registry.host}": {{username: me, password: "${{secret.registry}}"}}}}\n'
        f"services: {{web: {{image: {image}}}}}\n"
    )
    scores, fleet = tmp_path / "web.json", tmp_path / "fleet.yaml"
    scores.write_text(json.dumps([score(image)]))
    fleet.write_text("devices:\n  pi-1: {scores: [web.json, shop/compose.yaml]}\n")
    once = ("--no-wait", "--force")
    for arguments, status in (
        (("plan", str(fleet)), 5),
        (("push-score", "pi-1", str(scores), *once), 0),
        (("push-score", "pi-1", str(compose), *once), 0),
    ):
        registry.asked.clear()
        said = await plane.harmony(*arguments, **trust)
        assert said.status == status, said
        assert BASIC in shown_to(registry)
        assert PASSWORD not in said.out + said.err
    again = await plane.fleet.device("pi-1").put_again()
    assert again.entries["web"].spec["image"] == f"{image}@{DIGEST}"
    service = again.entries["shop"].spec["services"]["web"]
    assert (service["image"], service["login"]) == (f"{image}@{DIGEST}", LOGIN.model_dump())
    assert PASSWORD not in json.dumps([each.model_dump() for each in again.entries.values()])
