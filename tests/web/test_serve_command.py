"""``harmony serve`` as a person runs it."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from harmony_control.web.listen import parse_listen
from harmony_control.web.users import Users
from harmony_core.errors import ConfigError, UsageError
from tests.control.ground import command, environment
from tests.nats import serving
from tests.ports import free_address

from .ground import CHEAP, PASSWORD
from .serve_process import add_viewer, serve


async def test_it_serves_until_it_is_told_to_end_although_somebody_watches(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as bus, asyncio.timeout(40):
        Users(bus.home, CHEAP).add("ada", "viewer", PASSWORD)
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--listen", free_address(), "--json"),
            env=environment(bus.home),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with httpx.AsyncClient(base_url=url, headers={"Origin": url}) as client:
            signing_in = {"name": "ada", "password": PASSWORD}
            assert (await client.post("/api/session", json=signing_in)).status_code == 201
            assert "Harmony" in (await client.get("/")).text
            async with client.stream("GET", "/api/fleet/changes") as reply:
                lines = reply.aiter_lines()
                await anext(lines)
                process.send_signal(signal.SIGTERM)
                assert "event: reset" not in [line async for line in lines]
        out, err = await process.communicate()
    assert process.returncode in {0, -signal.SIGTERM}
    assert b"Traceback" not in err
    assert err == b""
    assert out in {b'{"event": "stopped"}\n', b""}


async def test_with_a_certificate_one_signs_in_over_https_and_in_clear_nothing_is_said(
    tmp_path: Path,
) -> None:
    authority, pem, key = trustme.CA(), tmp_path / "web.pem", tmp_path / "web.key"
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(pem))
    issued.private_key_pem.write_to_path(str(key))
    believing = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    address = free_address()
    options = ("--listen", address, "--tls-cert", str(pem), "--tls-key", str(key))
    async with serving(tmp_path, "pi-1") as bus, serve(bus.home, *options) as served:
        add_viewer(bus.home)
        url = served.url
        assert url == f"https://{address}"
        async with httpx.AsyncClient(
            base_url=url, headers={"Origin": url}, verify=believing
        ) as client:
            reply = await client.post("/api/session", json={"name": "ada", "password": PASSWORD})
            assert reply.status_code == 201
            assert reply.headers["set-cookie"].startswith("__Host-harmony=")
            assert "; Secure" in reply.headers["set-cookie"]
            assert (await client.get("/api/session")).json()["name"] == "ada"
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
        async with httpx.AsyncClient(base_url=url) as stranger:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await stranger.get("/")


async def test_behind_a_proxy_who_calls_is_whom_the_proxy_names_last_and_the_cookie_is_for_https(
    tmp_path: Path,
) -> None:
    options = ("--listen", free_address(), "--behind-proxy")
    async with serving(tmp_path, "pi-1") as bus, serve(bus.home, *options) as served:
        add_viewer(bus.home)
        url = served.url
        # As nginx and Caddy pass it on: the name that the browser knows, and whom they have heard.
        outside = {"Host": "fleet.example", "Origin": "https://fleet.example"}
        async with httpx.AsyncClient(base_url=url, headers=outside) as proxy:

            async def sign_in(password: str, heard: str) -> httpx.Response:
                said = {"name": "ada", "password": password}
                headers = {"X-Forwarded-For": heard}
                return await proxy.post("/api/session", json=said, headers=headers)

            # What somebody claims of themselves, before the proxy's own word, is nothing.
            for each in range(10):
                assert (
                    await sign_in("wrong", f"203.0.113.{each}, 198.51.100.1")
                ).status_code == 401
            assert (await sign_in(PASSWORD, "203.0.113.99, 198.51.100.1")).status_code == 429
            reply = await sign_in(PASSWORD, "198.51.100.1, 198.51.100.2")
            assert reply.status_code == 201
            cookie, _, rest = reply.headers["set-cookie"].partition(";")
            assert cookie.startswith("__Host-harmony=")
            assert "Secure" in rest
            known = {"Cookie": cookie}
            assert (await proxy.get("/api/session", headers=known)).json()["name"] == "ada"
            # Another page than that of the name outside changes nothing.
            elsewhere = {**known, "Origin": url}
            refused = await proxy.delete("/api/session", headers=elsewhere)
            assert (refused.status_code, refused.json()["code"]) == (403, "CrossSiteRequest")
            assert (await proxy.delete("/api/session", headers=known)).status_code == 204
            assert (await proxy.get("/api/session", headers=known)).status_code == 401


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "192.0.2.1:80", "[::]:8080", "pi.lan:8080"])
def test_others_are_not_let_in_in_clear(address: str) -> None:
    with pytest.raises(UsageError, match="passwords would go over the network in clear"):
        parse_listen(address, certificate=None, key=None, is_behind_proxy=False)
    behind = parse_listen(address, certificate=None, key=None, is_behind_proxy=True)
    assert behind.is_https


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "[::1]:8080", "localhost:8080"])
def test_this_machine_alone_may_be_served_in_clear(address: str) -> None:
    found = parse_listen(address, certificate=None, key=None, is_behind_proxy=False)
    assert (found.port, found.is_https, found.url) == (8080, False, f"http://{address}")


@pytest.mark.parametrize("address", ["", "8080", ":8080", "127.0.0.1:", "a:0", "a:65536", "a:²"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address to listen on"):
        parse_listen(address, certificate=None, key=None, is_behind_proxy=False)


def test_a_certificate_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong together"):
        parse_listen("127.0.0.1:1", certificate="a", key=None, is_behind_proxy=False)
    file = tmp_path / "web.pem"
    with pytest.raises(ConfigError, match="there is no file"):
        parse_listen("127.0.0.1:1", certificate=str(file), key=str(file), is_behind_proxy=False)
    file.write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be used"):
        parse_listen("127.0.0.1:1", certificate=str(file), key=str(file), is_behind_proxy=False)
