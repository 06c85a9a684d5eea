"""Signing in by OpenID Connect: with a real provider, and whatever one says that lies or fails."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from playwright.async_api import Page, expect

from harmony_control.fleet import Fleet
from harmony_control.store.home import Home
from harmony_control.web.oidc.begun import WITHIN_S
from harmony_control.web.oidc.faults import ProviderFault, SignInRefused
from harmony_control.web.oidc.id_token import verify_id_token
from harmony_control.web.oidc.identity import identify
from harmony_control.web.oidc.settings import OidcSettings, load_oidc_settings
from harmony_control.web.sessions import VOUCHED_LIFE_S, Sessions
from harmony_control.web.users import User, Users
from harmony_core.errors import ConfigError
from tests.browser import browsing
from tests.control.ground import harmony
from tests.nats import serving
from tests.ports import free_address

from .ground import CHEAP, PASSWORD, running
from .openid import (
    SECRET,
    Claims,
    Liar,
    Vouched,
    lying,
    lying_over_tls,
    real_provider,
    sign_in_there,
    vouched_by,
    write_settings,
)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncGenerator[Fleet]:
    async with serving(tmp_path, "pi-1") as bus, Fleet.connect(bus.home) as found:
        yield found


@attrs.frozen
class Deceived:
    """A site whose provider lies, and a browser before it."""

    vouched: Vouched
    liar: Liar
    browser: httpx.AsyncClient
    clock: Clock

    async def come_back(self, **changed: str) -> httpx.Response:
        """Begin, and come back at once with what a provider sends, but for what is *changed*."""
        brought = self.liar.come(await begin(self.browser))
        return await self.browser.get(
            "/oidc/callback",
            params={"code": "a-code", "state": brought["state"], **changed},
            headers={"Sec-Fetch-Site": "cross-site"},
        )

    async def who(self) -> int:
        return (await self.browser.get("/api/session")).status_code


@attrs.define
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def deceived(fleet: Fleet) -> AsyncGenerator[Deceived]:
    clock = Clock()
    async with (
        lying() as liar,
        vouched_by(fleet, liar.issuer, free_address(), clock=clock) as vouched,
        vouched.browser() as browser,
    ):
        yield Deceived(vouched, liar, browser, clock)


async def begin(browser: httpx.AsyncClient) -> str:
    reply = await browser.post("/api/oidc")
    assert reply.status_code == 200, reply.text
    location: str = reply.json()["location"]
    return location


def words(reply: httpx.Response) -> str:
    """What a page of words says, which nothing can be done by but to read it."""
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in reply.headers["content-security-policy"]
    assert "location" not in reply.headers
    _, _, rest = reply.text.partition('<p role="alert">')
    return html.unescape(rest.partition("</p>")[0])


@pytest.mark.parametrize(
    ("in_userinfo", "algorithm", "claim"),
    [(False, "PS256", "groups"), (True, "ES256", "realm_access.roles")],
)
async def test_who_a_real_provider_vouches_for_is_signed_in_by_role(
    fleet: Fleet, in_userinfo: bool, algorithm: str, claim: str
) -> None:
    more = f'scopes = ["groups"]\ngroups_claim = "{claim}"'
    address = free_address()
    async with (
        real_provider(address, in_userinfo=in_userinfo, algorithm=algorithm) as issuer,
        vouched_by(fleet, issuer, address, more) as vouched,
    ):
        async with vouched.browser() as browser:
            assert (await browser.get("/api/oidc")).json() == {"provider": "Example"}
            location = await begin(browser)
            asked = parse_qs(urlsplit(location).query)
            assert asked["response_type"] == ["code"]
            assert asked["code_challenge_method"] == ["S256"]
            assert asked["scope"] == ["openid groups"]
            back = await sign_in_there(browser, location, "ada")
            assert (await browser.get("/api/session")).status_code == 401
            reply = await browser.get(back)
            assert (reply.status_code, reply.headers["location"]) == (303, "/")
            ada = {"name": "oidc:ada", "role": "operator"}
            assert (await browser.get("/api/session")).json() == ada
            assert (await browser.get("/api/fleet")).status_code == 200
            reply = await browser.get(back)  # a code counts once
            assert (reply.status_code, "was used before" in words(reply)) == (400, True)
            word = browser.cookies["harmony"]
            assert await who_is(vouched, word) == 200
            assert (await browser.delete("/api/session")).status_code == 204
            assert await who_is(vouched, word) == 401
        async with vouched.browser() as browser:  # the greatest role counts
            await browser.get(await sign_in_there(browser, await begin(browser), "bob"))
            assert (await browser.get("/api/session")).json()["role"] == "approver"
        async with vouched.browser() as browser:
            reply = await browser.get(await sign_in_there(browser, await begin(browser), "eve"))
            assert reply.status_code == 403
            assert "knows you as oidc:eve, and you have no role here" in words(reply)
            assert f"its claim {claim} says: staff" in words(reply)
            assert (await browser.get("/api/session")).status_code == 401


async def test_who_refuses_at_a_real_provider_reads_so(fleet: Fleet) -> None:
    address = free_address()
    async with (
        real_provider(address) as issuer,
        vouched_by(fleet, issuer, address) as vouched,
        vouched.browser() as browser,
    ):
        page = await browser.get(await begin(browser), follow_redirects=True)
        reply = await browser.get(f"{page.url}/abort")
        while urlsplit(reply.headers["location"]).path != "/oidc/callback":
            reply = await browser.get(reply.headers["location"])
        back = await browser.get(reply.headers["location"])
        assert (back.status_code, "access_denied" in words(back)) == (403, True)


async def test_a_person_signs_in_by_the_provider_in_a_browser(fleet: Fleet) -> None:
    address = free_address()
    async with (
        real_provider(address) as issuer,
        vouched_by(fleet, issuer, address, 'scopes = ["groups"]') as vouched,
        browsing() as view,
    ):
        # The provider's own page has a font of the internet.
        await view.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
        await sign_in_at(view, vouched.site.url, "ada")
        await expect(view.locator(".bar .me")).to_have_text("oidc:ada operator")
        assert urlsplit(view.url).query == ""
        await view.get_by_role("button", name="Sign out").click()
        await expect(view.get_by_label("Password")).to_be_visible()
        await view.reload()
        await expect(view.get_by_label("Password")).to_be_visible()
        await view.context.clear_cookies()
        await sign_in_at(view, vouched.site.url, "eve")
        await expect(view.get_by_role("alert")).to_contain_text("you have no role here")
        await view.get_by_role("link", name="Back to signing in").click()
        await expect(view.get_by_label("Password")).to_be_visible()


async def sign_in_at(view: Page, url: str, name: str) -> None:
    await view.goto(url)
    await view.get_by_role("button", name="Sign in with Example").click()
    await view.get_by_placeholder("Enter any login").fill(name)
    await view.get_by_placeholder("and password").fill("any")
    await view.get_by_role("button", name="Sign-in").click()
    await view.get_by_role("button", name="Continue").click()
    await view.wait_for_url(f"{url}/**")


async def test_a_secret_that_the_real_provider_does_not_know_is_told_with_what_to_do(
    fleet: Fleet,
) -> None:
    address = free_address()
    async with real_provider(address) as issuer, vouched_by(fleet, issuer, address) as vouched:
        vouched.settings.client_secret_file.write_text("another")
        async with vouched.browser() as browser:
            reply = await browser.get(await sign_in_there(browser, await begin(browser), "ada"))
            assert reply.status_code == 502
            assert "refuses: invalid_client; compare client_id" in words(reply)


async def test_the_provider_that_does_not_lie_is_believed(deceived: Deceived) -> None:
    reply = await deceived.come_back()
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert await deceived.who() == 200
    form = dict(deceived.liar.asked)["/token"]
    assert form["code"] == "a-code"
    assert form["redirect_uri"] == f"{deceived.vouched.site.url}/oidc/callback"
    assert len(form["code_verifier"]) >= 43


def without(name: str) -> Callable[[Claims], Claims]:
    return lambda claims: {key: each for key, each in claims.items() if key != name}


def having(**changed: object) -> Callable[[Claims], Claims]:
    return lambda claims: {**claims, **changed}


FOREIGN: list[tuple[Callable[[Claims], Claims], str]] = [
    (having(nonce="another"), "it is not for this sign-in"),
    (without("nonce"), "nonce"),
    (having(aud="another"), "it is for another client"),
    (having(aud=["harmony", "another"]), "azp"),
    (having(aud=["harmony", "another"], azp="another"), "it was issued to another client"),
    (having(azp="another"), "it was issued to another client"),
    (without("aud"), "aud"),
    (having(iss="https://elsewhere.example"), "another issuer"),
    (without("iss"), "iss"),
    (having(exp=int(time.time()) - 3600), "it has expired"),
    (having(exp="tomorrow"), "exp"),
    (without("exp"), "exp"),
    (having(iat=int(time.time()) + 3600), "it is from the future"),
    (having(nbf=int(time.time()) + 3600), "it does not count yet"),
    (having(at_hash="of another token"), "it belongs to another access token"),
    (having(sub=""), "sub"),
    (having(sub=["ada"]), "sub"),
    (having(sub="a" * 256), "sub"),
    (without("sub"), "sub"),
]


async def test_an_id_token_that_is_not_for_us_and_now_signs_nobody_in(deceived: Deceived) -> None:
    for claims, said in FOREIGN:
        deceived.liar.claims = claims
        reply = await deceived.come_back()
        assert reply.status_code == 502, said
        told = words(reply)
        assert told.startswith("Example could not sign you in: its ID token does not count: ")
        assert said in told
        assert "harmony" not in deceived.browser.cookies
    assert await deceived.who() == 401


def unsigned(claims: Claims, _: RSAKey) -> str:
    parts = ({"alg": "none", "kid": "one"}, claims)
    header, body = (
        base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts
    )
    return f"{header.decode()}.{body.decode()}."


def by_the_public_key_as_a_secret(claims: Claims, key: RSAKey) -> str:
    secret = OctKey.import_key({"kty": "oct", "k": key.as_dict(private=False)["n"]})
    return jwt.encode({"alg": "HS256", "kid": "one"}, claims, secret, algorithms=["HS256"])


def by_another_key(claims: Claims, _: RSAKey) -> str:
    key = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256", "kid": "one"}, claims, key, algorithms=["RS256"])


def by_a_key_in_its_own_header(claims: Claims, _: RSAKey) -> str:
    key = RSAKey.generate_key(2048, {"kid": "two"})
    header = {"alg": "RS256", "kid": "two", "jwk": key.as_dict(private=False)}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


def changed_after_it_was_signed(claims: Claims, key: RSAKey) -> str:
    header, _, signature = jwt.encode({"alg": "RS256", "kid": "one"}, claims, key).split(".")
    _, body, _ = jwt.encode({"alg": "RS256"}, {**claims, "groups": ["pi-approvers"]}, key).split(
        "."
    )
    return f"{header}.{body}.{signature}"


def of_no_object(_: Claims, key: RSAKey) -> str:
    return jws.serialize_compact({"alg": "RS256", "kid": "one"}, b"[]", key)


FORGED: list[Callable[[Claims, RSAKey], str]] = [
    unsigned,
    by_the_public_key_as_a_secret,
    by_another_key,
    by_a_key_in_its_own_header,
    changed_after_it_was_signed,
    of_no_object,
    lambda _, __: "",
    lambda _, __: "a.b",
    lambda _, __: "ä.ö.ü",
    lambda _, __: "eyJhbGciOiAiUlMyNTYifQ.e30.",
]


async def test_an_id_token_that_the_provider_has_not_signed_signs_nobody_in(
    deceived: Deceived,
) -> None:
    for sign in FORGED:
        deceived.liar.sign = sign
        reply = await deceived.come_back()
        assert (reply.status_code, "its ID token" in words(reply)) == (502, True), sign
    assert await deceived.who() == 401


async def test_a_shared_secret_among_the_published_keys_signs_nobody_in(
    deceived: Deceived,
) -> None:
    key = OctKey.generate_key(256, {"kid": "one"})
    weak = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "one"}
    published = {"keys": [key.as_dict(), weak, {"kty": "later", "kid": "one"}, {"kid": 7}, 7]}
    deceived.liar.answers["/jwks"] = 200, json.dumps(published).encode()
    deceived.liar.sign = lambda claims, _: jwt.encode(
        {"alg": "HS256", "kid": "one"}, claims, key, algorithms=["HS256"]
    )
    reply = await deceived.come_back()
    assert (reply.status_code, "its algorithm is none of RS256" in words(reply)) == (502, True)


async def test_a_key_that_the_provider_has_changed_counts_and_one_that_we_cannot_use_is_left(
    deceived: Deceived,
) -> None:
    assert (await deceived.come_back()).status_code == 303
    key = ECKey.generate_key("P-256", {"kid": "new"})
    odd = {"kty": "EC", "crv": "P-1000", "x": "AQ", "y": "AQ", "kid": "odd"}
    published = {"keys": [odd, *KeySet([key]).as_dict()["keys"]]}
    deceived.liar.answers["/jwks"] = 200, json.dumps(published).encode()
    deceived.liar.sign = lambda claims, _: jwt.encode(
        {"alg": "ES256", "kid": "new"}, claims, key, algorithms=["ES256"]
    )
    assert (await deceived.come_back()).status_code == 303


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEY = RSAKey.generate_key(2048, {"kid": "one"})
RIGHT: Claims = {"iss": "https://id.example", "sub": "ada", "aud": "harmony", "nonce": "this"}


def verify(token: str, keys: dict[str, Any]) -> Claims:
    """The claims of *token*, or nothing; anything that is raised beside is a defect."""
    try:
        return verify_id_token(
            token,
            keys,
            issuer="https://id.example",
            client_id="harmony",
            nonce="this",
            access_token="opaque",
        )
    except ProviderFault:
        return {}


@settings(max_examples=300, deadline=None)
@given(
    changed=st.dictionaries(
        st.sampled_from(
            (
                "iss",
                "sub",
                "aud",
                "exp",
                "iat",
                "nbf",
                "nonce",
                "azp",
                "at_hash",
                "amr",
                "auth_time",
            )
        ),
        JSON,
        max_size=3,
    )
)
def test_whatever_is_claimed_only_what_is_right_counts(changed: Claims) -> None:
    now = int(time.time())
    claims: Claims = {**RIGHT, "iat": now, "exp": now + 60, **changed}
    header = {"alg": "RS256", "kid": "one"}
    signed = jws.serialize_compact(header, json.dumps(claims).encode(), KEY)
    found = verify(signed, dict(KeySet([KEY]).as_dict()))
    assert found or changed
    if found:
        assert [name for name in ("iss", "nonce") if claims[name] != RIGHT[name]] == []
        assert claims["aud"] == "harmony" or "harmony" in list(claims["aud"])
        assert claims["exp"] > now - 120


@settings(max_examples=300, deadline=None)
@given(
    header=JSON,
    keys=JSON,
    key=st.dictionaries(
        st.sampled_from(("kty", "n", "e", "x", "y", "crv", "kid", "use", "alg", "key_ops")),
        JSON | st.sampled_from(("RSA", "EC", "OKP", "AQAB")),
    ),
)
def test_no_header_and_no_keys_that_somebody_makes_up_are_believed(
    header: object, keys: object, key: dict[str, Any]
) -> None:
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    for token in (head, f"{head}.e30.", f"{head}.e30.AA", f"{head}.{head}.{head}"):
        for published in ({"keys": keys}, {"keys": [key]}, {}):
            assert verify(token, published) == {}


async def test_what_another_browser_began_ends_nowhere(deceived: Deceived) -> None:
    brought = deceived.liar.come(await begin(deceived.browser))
    back = {"code": "a-code", "state": brought["state"]}
    async with deceived.vouched.browser() as other:
        reply = await other.get(
            "/oidc/callback", params=back, headers={"Cookie": "harmony-oidc=guessed"}
        )
        assert (reply.status_code, "was not begun in this browser" in words(reply)) == (400, True)
        assert "harmony" not in other.cookies
    # And it is used up by that: whoever knew the state is not to be trusted with another try.
    assert (await deceived.browser.get("/oidc/callback", params=back)).status_code == 400
    assert dict(deceived.liar.asked).get("/token") is None


async def test_a_state_that_we_have_not_given_ends_nowhere(deceived: Deceived) -> None:
    for state in ("", "guessed", "ä" * 9000):
        reply = await deceived.come_back(state=state)
        assert (reply.status_code, "sign in again at http" in words(reply)) == (400, True)
    assert await deceived.who() == 401


async def test_who_takes_too_long_begins_anew(deceived: Deceived) -> None:
    brought = deceived.liar.come(await begin(deceived.browser))
    deceived.clock.now += WITHIN_S + 1
    back = {"code": "a-code", "state": brought["state"]}
    reply = await deceived.browser.get("/oidc/callback", params=back)
    assert (reply.status_code, "longer than ten minutes" in words(reply)) == (400, True)


async def test_the_answer_of_another_issuer_is_not_taken_for_ours(deceived: Deceived) -> None:
    liar = deceived.liar
    reply = await deceived.come_back(iss="https://elsewhere.example")
    assert (reply.status_code, "another provider's answer" in words(reply)) == (502, True)
    assert (await deceived.come_back(iss=liar.issuer)).status_code == 303
    # Where the provider always says who it is, an answer that does not is none of its own.
    liar.metadata = having(authorization_response_iss_parameter_supported=True)
    reply = await deceived.come_back()
    assert (reply.status_code, "another provider's answer" in words(reply)) == (502, True)
    assert (await deceived.come_back(iss=liar.issuer)).status_code == 303


async def test_nobody_is_sent_anywhere_but_to_our_own_page(deceived: Deceived) -> None:
    elsewhere = "https://elsewhere.example"
    wanted = dict.fromkeys(("next", "redirect_uri", "return_to", "url", "location"), elsewhere)
    reply = await deceived.come_back(**wanted)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    # Nor is a browser sent back to whom it says that we are.
    for headers in ({"Host": "elsewhere.example", "Origin": elsewhere}, {"Origin": ""}):
        refused = await deceived.browser.post(
            "/api/oidc", headers={**headers, "Sec-Fetch-Site": "same-origin"}
        )
        assert refused.status_code == 400
        assert refused.json()["code"] == "NotOffered"
    location = await begin(deceived.browser)
    asked = parse_qs(urlsplit(location).query)
    assert asked["redirect_uri"] == [f"{deceived.vouched.site.url}/oidc/callback"]
    assert asked["tenant"] == ["1"]
    assert location.startswith(f"{deceived.liar.issuer}/auth?")


async def test_a_page_of_another_site_begins_no_sign_in(deceived: Deceived) -> None:
    reply = await deceived.browser.post("/api/oidc", headers={"Sec-Fetch-Site": "cross-site"})
    assert (reply.status_code, reply.json()["code"]) == (403, "CrossSiteRequest")


async def test_the_session_is_a_new_one_whatever_the_browser_had(deceived: Deceived) -> None:
    assert (await deceived.come_back()).status_code == 303
    first = deceived.browser.cookies["harmony"]
    assert await who_is(deceived.vouched, first) == 200
    assert (await deceived.come_back()).status_code == 303
    second = deceived.browser.cookies["harmony"]
    assert second != first
    assert [await who_is(deceived.vouched, each) for each in (first, second)] == [401, 200]
    # A word that somebody else has chosen, and put there, is no session, then or later.
    brought = deceived.liar.come(await begin(deceived.browser))
    kept = deceived.browser.cookies["harmony-oidc"]
    async with deceived.vouched.browser() as other:
        reply = await other.get(
            "/oidc/callback",
            params={"code": "a-code", "state": brought["state"]},
            headers={"Cookie": f"harmony=chosen; harmony-oidc={kept}"},
        )
        assert reply.status_code == 303
        assert other.cookies["harmony"] != "chosen"
    assert await who_is(deceived.vouched, "chosen") == 401


async def who_is(vouched: Vouched, word: str) -> int:
    """What the server answers to a browser that has *word* of a session, and nothing else."""
    async with vouched.browser() as browser:
        reply = await browser.get("/api/session", headers={"Cookie": f"harmony={word}"})
        return reply.status_code


async def test_roles_are_taken_anew_at_each_sign_in(deceived: Deceived) -> None:
    assert (await deceived.come_back()).status_code == 303
    refused = await deceived.browser.post("/api/rollouts/kiosk/orders", json={"verb": "abort"})
    assert refused.status_code != 500
    deceived.liar.claims = having(groups="pi-viewers")
    assert (await deceived.come_back()).status_code == 303
    assert (await deceived.browser.get("/api/session")).json()["role"] == "viewer"
    refused = await deceived.browser.post("/api/devices/pi-1/reconcile", json={})
    assert refused.status_code == 403
    assert "oidc:ada is viewer here" in refused.json()["message"]
    assert "for a group of Example, in web-oidc.toml" in refused.json()["message"]


@pytest.mark.parametrize(
    ("path", "claims", "role"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["pi-viewers"]}}, "viewer"),
        (
            "access.my.app.roles",
            {"access": {"my.app": {"roles": ["pi-viewers"]}}},
            "viewer",
        ),
        (
            "https://example.org/groups",
            {"https://example.org/groups": ["pi-approvers"]},
            "approver",
        ),
        # What is named so is meant, and not what lies within another.
        ("a.b", {"a.b": ["pi-viewers"], "a": {"b": ["pi-approvers"]}}, "viewer"),
        ("realm_access.roles", {"realm_access": {"roles": {"pi-viewers": True}}}, None),
        ("realm_access.roles", {"realm_access": ["roles"], "roles": ["pi-viewers"]}, None),
        ("realm_access.roles", {"realm_access": {}}, None),
        ("realm_access.", {"realm_access": {"roles": ["pi-viewers"]}}, None),
        ("realm_access", {"realm_access": {"roles": ["pi-viewers"]}}, None),
    ],
)
def test_a_claim_within_another_gives_a_role(
    tmp_path: Path, path: str, claims: Mapping[str, object], role: str | None
) -> None:
    wanted = OidcSettings.model_validate_json(
        json.dumps(
            {
                "name": "Example",
                "issuer": "https://id.example.org",
                "client_id": "harmony",
                "client_secret_file": str(tmp_path / "secret"),
                "url": "https://harmony.example.org",
                "groups_claim": path,
                "roles": {"viewer": ["pi-viewers"], "approver": ["pi-approvers"]},
            }
        )
    )
    said = {"sub": "ada", "groups": ["pi-approvers"], **claims}
    if role is None:
        with pytest.raises(SignInRefused, match="no role here"):
            identify(said, wanted)
    else:
        assert identify(said, wanted).role == role


async def test_a_name_of_the_provider_is_no_name_of_ours(deceived: Deceived) -> None:
    deceived.liar.claims = having(sub="operator", groups=["pi-viewers"])
    assert (await deceived.come_back()).status_code == 303
    assert (await deceived.browser.get("/api/session")).json() == {
        "name": "oidc:operator",
        "role": "viewer",
    }
    deceived.vouched.site.users.remove("operator")
    assert await deceived.who() == 200
    async with deceived.vouched.site.client("viewer"):
        pass  # who has a password signs in by that, too


async def test_who_has_no_group_that_gives_a_role_is_refused_in_words(
    deceived: Deceived,
) -> None:
    odd: tuple[object, ...] = (
        [],
        None,
        7,
        {"pi-operators": True},
        [7, None],
        ["PI-OPERATORS"],
        "staff",
    )
    for groups in odd:
        deceived.liar.claims = having(groups=groups)
        reply = await deceived.come_back()
        assert (reply.status_code, "you have no role here" in words(reply)) == (403, True), groups
        assert "web-oidc.toml" in words(reply)
    assert await deceived.who() == 401


async def test_what_the_provider_says_is_text_on_our_page_and_no_more(
    deceived: Deceived,
) -> None:
    deceived.liar.claims = having(groups=["<img src=x onerror=alert(1)>\x1b[31m"])
    reply = await deceived.come_back()
    assert "<img src=x" not in reply.text
    assert "<img src=x" in words(reply)
    assert "\x1b" not in reply.text
    reply = await deceived.come_back(code="", error="<script>alert(1)</script>")
    assert "<script>alert" not in reply.text
    assert reply.status_code == 403


async def test_whatever_keeps_somebody_out_is_one_line_of_the_log(
    deceived: Deceived, caplog: pytest.LogCaptureFixture
) -> None:
    async def noted(**changed: str) -> str:
        caplog.clear()
        assert (await deceived.come_back(**changed)).status_code >= 400
        (line,) = [each.getMessage() for each in caplog.records if each.name == "harmony.web"]
        assert line.isprintable()
        assert line.startswith("sign-in with ")
        return line

    assert "was not begun in this browser" in await noted(state="guessed")
    assert "did not sign you in: no\\n" in await noted(
        code="", error="no\n2026 root: signed in\x1b[31m"
    )
    assert "sent you back without a code" in await noted(code="")
    deceived.liar.claims = having(groups=["a\n2026 root: signed in\u202e"])
    assert "you have no role here" in await noted()
    secret = deceived.vouched.settings.client_secret_file
    secret.chmod(0o644)
    assert "others can read" in await noted()


async def test_a_name_that_cannot_be_shown_is_none(deceived: Deceived) -> None:
    for sub in ("a\nb", "a" * 65, "\u202eada", "\u3164ada"):
        deceived.liar.claims = having(sub=sub)
        reply = await deceived.come_back()
        assert (reply.status_code, "tells no name" in words(reply)) == (502, True), sub


async def test_userinfo_about_somebody_else_is_not_believed(deceived: Deceived) -> None:
    deceived.liar.claims = without("groups")
    assert (await deceived.come_back()).status_code == 303
    assert (await deceived.browser.get("/api/session")).json()["role"] == "approver"
    said = {"sub": "bob", "groups": ["pi-approvers"]}
    deceived.liar.answers["/me"] = 200, json.dumps(said).encode()
    reply = await deceived.come_back()
    assert (reply.status_code, "about somebody else" in words(reply)) == (502, True)


async def test_an_address_that_nobody_has_verified_is_no_name(fleet: Fleet) -> None:
    async with (
        lying() as liar,
        vouched_by(fleet, liar.issuer, free_address(), 'username_claim = "email"') as vouched,
        vouched.browser() as browser,
    ):
        deceived = Deceived(vouched, liar, browser, Clock())
        for verified in (False, "true", None):
            liar.claims = having(email="ada@example.org", email_verified=verified)
            reply = await deceived.come_back()
            assert (reply.status_code, "has not verified" in words(reply)) == (502, True)
        liar.claims = having(email="ada@example.org", email_verified=True)
        assert (await deceived.come_back()).status_code == 303
        assert (await browser.get("/api/session")).json()["name"] == "oidc:ada@example.org"


BROKEN = {
    "an error": (500, b"<h1>Internal Server Error</h1>"),
    "no JSON": (200, b"<html>"),
    "nothing": (200, b""),
    "no object": (200, b"[]"),
    "an empty object": (200, b"{}"),
    "no text": (200, b"\xff\xfe"),
    "a key twice": (200, b'{"issuer": 1, "issuer": 2}'),
    "depth": (200, b"[" * 100_000),
    "too much": (200, b'{"a": "' + b"a" * 300_000 + b'"}'),
    "a redirect": (302, b"http://127.0.0.1:9/elsewhere"),
    "other types": (200, b'{"id_token": 1, "access_token": [], "keys": 7, "token_endpoint": {}}'),
    "keys of nothing": (200, b'{"keys": [{}, null, {"kty": []}, {"kty": "RSA", "n": 1}]}'),
    "a refusal": (400, b'{"error": "invalid_grant", "error_description": "<b>used</b>"}'),
    "an odd refusal": (400, b'{"error": ["<b>"]}'),
}


@pytest.mark.parametrize("path", ["/token", "/jwks", "/me"])
async def test_a_provider_that_is_broken_is_a_page_in_words(deceived: Deceived, path: str) -> None:
    deceived.liar.claims = without("groups")
    for name, answer in BROKEN.items():
        deceived.liar.answers[path] = answer
        reply = await deceived.come_back()
        assert reply.status_code == 502, name
        assert words(reply).startswith("Example could not sign you in: ")
    assert await deceived.who() == 401
    del deceived.liar.answers[path]
    assert (await deceived.come_back()).status_code == 303


async def test_an_answer_without_end_is_not_read_to_its_end(deceived: Deceived) -> None:
    deceived.liar.answers["/jwks"] = BROKEN["too much"]
    assert "/jwks answers with more than 262144 bytes" in words(await deceived.come_back())


async def test_a_provider_that_says_nothing_of_use_of_itself_is_a_problem_in_words(
    deceived: Deceived,
) -> None:
    for name, answer in BROKEN.items():
        deceived.liar.answers["/.well-known/openid-configuration"] = answer
        reply = await deceived.browser.post("/api/oidc")
        assert reply.status_code == 502, name
        assert reply.json()["code"] == "ProviderFault"
        assert reply.json()["message"].startswith("Example could not sign you in: ")


async def test_a_provider_that_would_be_asked_elsewhere_or_in_clear_is_not_asked(
    deceived: Deceived,
) -> None:
    elsewhere: list[tuple[dict[str, object], str]] = [
        ({"issuer": "http://127.0.0.1:9"}, "it calls itself http://127.0.0.1:9"),
        ({"token_endpoint": "http://elsewhere.example/token"}, "must be https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "must be https"),
        ({"jwks_uri": "file:///etc/passwd"}, "must be https"),
        ({"issuer": "https://id.example"}, "is in clear, and the issuer is https"),
    ]
    for changed, said in elsewhere:
        deceived.liar.metadata = having(**changed)
        reply = await deceived.browser.post("/api/oidc")
        assert (reply.status_code, said in reply.json()["message"]) == (502, True), changed


async def test_a_secret_is_sent_as_the_provider_takes_it(deceived: Deceived) -> None:
    ways = ["private_key_jwt", "client_secret_post"]
    deceived.liar.metadata = having(token_endpoint_auth_methods_supported=ways)
    assert (await deceived.come_back()).status_code == 303
    assert dict(deceived.liar.asked)["/token"]["client_secret"] == SECRET
    deceived.liar.metadata = having(token_endpoint_auth_methods_supported=ways[:1])
    reply = await deceived.come_back()
    assert (reply.status_code, "neither by client_secret_basic" in words(reply)) == (502, True)


async def test_over_tls_only_who_our_authority_vouches_for_is_the_provider(
    fleet: Fleet, tmp_path: Path
) -> None:
    for more, status in (("", 502), (f'ca_file = "{tmp_path / "ca.pem"}"', 303)):
        async with (
            lying_over_tls(tmp_path) as liar,
            vouched_by(fleet, liar.issuer, free_address(), more) as vouched,
            vouched.browser() as browser,
        ):
            if status == 303:
                reply = await Deceived(vouched, liar, browser, Clock()).come_back()
                assert reply.status_code == 303
                continue
            reply = await browser.post("/api/oidc")
            assert reply.status_code == 502
            assert "certificate verify failed" in reply.json()["message"]


async def test_a_provider_that_is_down_is_told_and_passwords_go_on(fleet: Fleet) -> None:
    async with (
        vouched_by(fleet, f"http://{free_address()}", free_address()) as vouched,
        vouched.browser() as browser,
    ):
        reply = await browser.post("/api/oidc")
        assert (reply.status_code, "cannot be reached" in reply.json()["message"]) == (502, True)
        signing_in = {"name": "viewer", "password": PASSWORD}
        assert (await browser.post("/api/session", json=signing_in)).status_code == 201


async def test_a_provider_that_goes_down_meanwhile_is_a_page_in_words(fleet: Fleet) -> None:
    address = free_address()
    async with (
        lying() as liar,
        vouched_by(fleet, liar.issuer, address) as vouched,
        vouched.browser() as browser,
    ):
        brought = liar.come(await begin(browser))
        liar.metadata = having(token_endpoint=f"http://{free_address()}/token")
        brought = liar.come(await begin(browser))
        back = urlencode({"code": "a-code", "state": brought["state"]})
        reply = await browser.get(f"/oidc/callback?{back}")
        assert (reply.status_code, "cannot be reached" in words(reply)) == (502, True)


async def test_sign_ins_are_not_begun_without_end(deceived: Deceived) -> None:
    for _ in range(50):
        await begin(deceived.browser)
    reply = await deceived.browser.post("/api/oidc")
    assert (reply.status_code, reply.json()["code"]) == (429, "TooManyAttempts")
    deceived.clock.now += 301
    assert (await deceived.come_back()).status_code == 303


async def test_where_there_is_no_provider_nothing_of_it_is_offered_or_loaded(
    fleet: Fleet,
) -> None:
    async with running(fleet) as site, site.client() as client:
        assert (await client.get("/api/oidc")).json() == {"provider": ""}
        reply = await client.post("/api/oidc")
        assert (reply.status_code, reply.json()["code"]) == (400, "NotOffered")
        reply = await client.get("/oidc/callback?code=a&state=b")
        assert (reply.status_code, "with a name and a password" in words(reply)) == (400, True)
    loaded = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-c",
            "import sys, harmony_control.web.app; sys.exit('authlib' in sys.modules)",
        ],
        check=False,
    )
    assert loaded.returncode == 0


def test_a_session_by_somebody_elses_word_is_short_however_much_it_is_used(
    tmp_path: Path,
) -> None:
    now = 0.0
    sessions = Sessions(Users(Home(tmp_path), CHEAP), lambda: now)
    word = sessions.begin(User(name="oidc:ada", role="viewer", issuer="Example"))
    while now < VOUCHED_LIFE_S - 3600:
        now += 3600
        assert sessions.find(word) is not None
    now += 3601
    assert sessions.find(word) is None


def settings_at(root: Path, change: Callable[[str], str] = str) -> Home:
    root.mkdir(exist_ok=True)
    file = write_settings(root, "https://id.example", "https://harmony.example:443")
    file.write_text(change(file.read_text()))
    return Home(root)


def test_the_file_says_who_the_provider_is_and_paths_are_seen_from_it(tmp_path: Path) -> None:
    assert load_oidc_settings(Home(tmp_path), is_https=True) is None
    found = load_oidc_settings(settings_at(tmp_path), is_https=True)
    assert found is not None
    assert found.client_secret_file == tmp_path / "web-oidc.secret"
    assert found.callback == "https://harmony.example/oidc/callback"
    assert found.roles.find(frozenset({"pi-viewers", "pi-approvers"})) == "approver"
    assert found.scope == "openid profile"


def test_the_example_of_the_page_is_taken(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
    home = settings_at(tmp_path, lambda _: page.partition("```toml\n")[2].partition("```")[0])
    found = load_oidc_settings(home, is_https=True)
    assert found is not None
    assert found.roles.find(frozenset({"pi-leads"})) == "approver"
    named = {found.callback.removeprefix(found.url), *(f"`{each}`" for each in FAULTS)}
    assert [each for each in sorted(named) if each not in page] == []


FAULTS = ("ProviderFault", "SignInLost", "SignInRefused", "NotOffered")


def replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


UNFIT: list[tuple[Callable[[str], str], str | None]] = [
    (replacing("https://id", "http://id"), "issuer.*must be https"),
    (replacing("id.example", "id.example?a=1"), "issuer.*no query"),
    (replacing("id.example", "ada@id.example"), "issuer.*no user"),
    (replacing(".example:443", ".example/harmony"), "url.*nothing behind"),
    (replacing("https://harmony", "http://harmony"), "url.*must be https"),
    (replacing("https://harmony.example:443", "http://127.0.0.1:8080"), "url is http"),
    (replacing("pi-", ""), None),
    (lambda text: text.partition("[roles]")[0] + "[roles]", "nobody would have a role"),
    (lambda text: text.partition("[roles]")[0], "roles"),
    (replacing("[roles]", "secret = 'a'\n[roles]"), "secret"),
    (replacing("viewer", "owner"), "owner"),
    (replacing('name = "Example"', 'name = "a\\u001b"'), "name"),
    (replacing("web-oidc.secret", "nowhere"), "cannot read .*nowhere"),
    (replacing("[roles]", 'ca_file = "nowhere"\n[roles]'), "as an authority"),
    (lambda _: "[", "is no TOML"),
]


@pytest.mark.parametrize(("change", "said"), UNFIT)
def test_a_file_that_would_not_do_is_refused_with_what_to_correct(
    tmp_path: Path, change: Callable[[str], str], said: str | None
) -> None:
    home = settings_at(tmp_path, change)
    if said is None:
        assert load_oidc_settings(home, is_https=True) is not None
        return
    with pytest.raises(ConfigError, match=said):
        load_oidc_settings(home, is_https=True)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    home = settings_at(tmp_path)
    (tmp_path / "web-oidc.secret").chmod(0o640)
    with pytest.raises(ConfigError, match="run `chmod 600"):
        load_oidc_settings(home, is_https=True)


def test_where_browsers_come_in_clear_an_https_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --tls-cert and --tls-key, or --behind-proxy"):
        load_oidc_settings(settings_at(tmp_path), is_https=False)


async def test_serve_does_not_begin_with_a_file_that_would_not_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings_at(home)
    said = await harmony(home, "serve", "--listen", free_address())
    assert said.status == 2
    assert "web-oidc.toml: url is https" in said.err
