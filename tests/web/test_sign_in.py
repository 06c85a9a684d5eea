"""Who comes in, who does not, and for how long."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from harmony_control.store.home import Home
from harmony_control.web.door import Door
from harmony_control.web.sessions import IDLE_S, LIFE_S, Attempts, Sessions
from harmony_control.web.users import Users
from harmony_core.errors import ConfigError, UsageError
from tests.control.ground import harmony

from .ground import CHEAP, PASSWORD, Ground
from .test_api import events, until


@pytest.fixture
def users(tmp_path: Path) -> Users:
    made = Users(Home(tmp_path / "home"), CHEAP)
    made.add("ada", "operator", PASSWORD)
    return made


async def test_nothing_is_told_to_who_is_not_signed_in(ground: Ground) -> None:
    paths = (
        "fleet", "fleet/changes", "devices", "devices/pi-1", "devices/pi-1/events",
        "devices/pi-1/events/live", "devices/pi-1/logs?score=a", "session", "schema/openapi.json",
    )  # fmt: skip
    async with ground.site.client() as client:
        for path in paths:
            reply = await client.get(f"/api/{path}")
            assert reply.status_code == 401, path
            assert "pi-1" not in reply.text
        assert (await client.post("/api/devices/pi-1/reconcile", json={})).status_code == 401
        client.cookies.set("harmony", "guessed")
        assert (await client.get("/api/fleet")).status_code == 401


async def test_a_wrong_name_and_a_wrong_password_are_answered_alike(ground: Ground) -> None:
    async with ground.site.client() as client:
        replies = [
            await client.post("/api/session", json={"name": name, "password": "wrong" * 3})
            for name in ("viewer", "nobody", "v" * 100)
        ]
    assert {each.status_code for each in replies} == {401}
    assert len({each.text for each in replies}) == 1


async def test_too_many_wrong_ones_have_to_wait_and_the_right_one_too(ground: Ground) -> None:
    async with ground.site.client() as client:
        for _ in range(10):
            wrong = {"name": "viewer", "password": "wrong"}
            assert (await client.post("/api/session", json=wrong)).status_code == 401
        reply = await client.post("/api/session", json={"name": "viewer", "password": PASSWORD})
        assert reply.status_code == 429
        assert 0 < int(reply.headers["retry-after"]) <= 301
        assert "try again in" in reply.json()["message"]
    async with ground.site.client("operator"):
        pass  # nobody else waits


async def test_signed_out_is_out(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        word = client.cookies["harmony"]
        assert (await client.get("/api/session")).json() == {"name": "viewer", "role": "viewer"}
        assert (await client.delete("/api/session")).status_code == 204
        assert "harmony" not in client.cookies
        client.cookies.set("harmony", word)
        assert (await client.get("/api/fleet")).status_code == 401


@pytest.mark.parametrize("limit", ["IDLE_S", "LIFE_S"])
async def test_a_sign_in_that_has_expired_is_none_and_ends_what_is_read_by_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    async with ground.site.client("operator") as client, asyncio.timeout(20):
        assert (await client.get("/api/session")).status_code == 200
        async with events(client, "/api/fleet/changes") as told:
            await until(told, "source")
            monkeypatch.setattr(f"harmony_control.web.sessions.{limit}", -1.0)
            reply = await client.get("/api/fleet")
            assert (reply.status_code, reply.json()["code"]) == (401, "NotAuthorizedException")
            assert "sign in first" in reply.text
            refused = await client.post("/api/devices/pi-1/reconcile", json={})
            assert refused.status_code == 401
            ground.site.web.live.notify()
            assert "reset" not in {each[0] async for each in told}
        # It stays so: the word is forgotten.
        monkeypatch.undo()
        assert (await client.get("/api/session")).status_code == 401
        reply = await client.post("/api/session", json={"name": "operator", "password": PASSWORD})
        assert reply.status_code == 201


async def test_whoever_is_taken_out_or_has_another_password_is_out_at_once(
    ground: Ground,
) -> None:
    async with ground.site.client("viewer") as one, ground.site.client("operator") as other:
        ground.site.users.remove("viewer")
        ground.site.users.add("operator", "operator", "another password")
        assert (await one.get("/api/fleet")).status_code == 401
        assert (await other.get("/api/fleet")).status_code == 401


async def test_a_viewer_has_no_device_do_anything(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        reply = await client.post("/api/devices/pi-1/reconcile", json={})
    assert reply.status_code == 403
    assert "for the role operator" in reply.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_what_another_site_sends_changes_nothing(
    ground: Ground, headers: dict[str, str]
) -> None:
    async with ground.site.client("operator") as client:
        reply = await client.delete("/api/session", headers=headers)
        assert reply.status_code == 403
        assert reply.json()["code"] == "CrossSiteRequest"
        assert (await client.get("/api/session")).status_code == 200


async def test_every_reply_tells_the_browser_what_it_may_not_do(ground: Ground) -> None:
    async with ground.site.client() as client:
        for path in ("/", "/app.js", "/api/fleet", "/nowhere", "/healthz"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(users: Users) -> None:
    now = 0.0
    sessions = Sessions(users, lambda: now)
    ada = users.read()["ada"]
    word = sessions.begin(ada)
    now = IDLE_S - 1
    assert sessions.find(word, is_use=False) == ada
    now = IDLE_S + 1
    assert sessions.find(word) is None
    begun = now
    word = sessions.begin(ada)
    while now < begun + LIFE_S - IDLE_S / 2:
        now += IDLE_S / 2
        assert sessions.find(word) == ada
    now += IDLE_S
    assert sessions.find(word) is None


def test_failed_attempts_are_forgotten_with_time() -> None:
    now = 0.0
    attempts = Attempts(most=2, within_s=10, clock=lambda: now)
    attempts.fail("ada")
    attempts.fail("ada")
    assert attempts.wait_s("ada") == 10
    assert attempts.wait_s("bob") == 0
    now = 10.5
    assert attempts.wait_s("ada") == 0


def test_over_https_the_cookie_is_for_that_host_and_for_https_alone(users: Users) -> None:
    door = Door(users, is_https=True, is_behind_proxy=True)
    header = door.cookie_of("word", 60).to_header(header="")
    assert header.startswith("__Host-harmony=word")
    for part in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert part in header
    assert "Domain" not in header


def test_behind_a_proxy_only_its_own_word_for_an_address_counts(users: Users) -> None:
    behind = Door(users, is_https=True, is_behind_proxy=True)
    assert behind.address_of("10.0.0.1", ["6.6.6.6, 7.7.7.7"]) == "7.7.7.7"
    alone = Door(users, is_https=False, is_behind_proxy=False)
    assert alone.address_of("10.0.0.1", ["6.6.6.6"]) == "10.0.0.1"


def test_the_file_of_users_is_for_its_owner_and_has_no_password(users: Users) -> None:
    assert stat.S_IMODE(users.file.stat().st_mode) == 0o600
    assert PASSWORD not in users.file.read_text()
    assert users.verify("ada", PASSWORD) == users.read()["ada"]
    assert users.verify("ada", PASSWORD + " ") is None


@pytest.mark.parametrize("name", ["", "Ada", "a b", "-a", "a" * 65, "a\n"])
def test_what_cannot_be_a_name_is_refused(users: Users, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a user's name"):
        users.add(name, "viewer", PASSWORD)


def test_a_short_password_is_refused(users: Users) -> None:
    with pytest.raises(UsageError, match="a password has 10 to 1000 characters"):
        users.add("bob", "viewer", "short")


@pytest.mark.parametrize("text", ["[ada", "ada = 1", '[ada]\nrole = "god"\npassword = "x"'])
def test_a_file_that_cannot_be_read_lets_nobody_in(users: Users, text: str) -> None:
    users.file.write_text(text)
    with pytest.raises(ConfigError, match=r"web-users\.toml"):
        users.verify("ada", PASSWORD)


async def test_users_by_the_command(tmp_path: Path) -> None:
    made = await harmony(
        tmp_path, "serve-user", "add", "ada", "--role", "operator", stdin=f"{PASSWORD}\n"
    )
    assert (made.status, made.out) == (0, "added ada, operator\n")
    again = await harmony(tmp_path, "serve-user", "add", "ada", stdin=f"{PASSWORD}!\n")
    assert again.out == "changed ada, viewer\n"
    listed = await harmony(tmp_path, "serve-user", "list", "--json")
    assert listed.documents == [{"name": "ada", "role": "viewer"}]
    assert (await harmony(tmp_path, "serve-user", "remove", "ada")).status == 0
    unknown = await harmony(tmp_path, "serve-user", "remove", "ada")
    assert (unknown.status, unknown.err) == (
        2,
        "harmony: there is no user 'ada'; there are: none\n",
    )
