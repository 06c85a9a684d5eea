"""``harmony serve`` as a person runs it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import httpx
import pytest

from harmony_control.web.listen import parse_listen
from harmony_control.web.users import Users
from harmony_core.errors import ConfigError, UsageError
from tests.control.ground import command, environment
from tests.nats import free_address, serving

from .ground import CHEAP, PASSWORD


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
