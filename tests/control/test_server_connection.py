"""The control plane's connection: quick to fail, in our words, and gone without a trace."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from nats.errors import FlushTimeoutError
from nats.js import JetStreamContext

from harmony_control.bus.connection import Bucket, admin, close, connect, connect_admin
from harmony_control.store.home import Home
from harmony_control.store.nkey import Nkey
from harmony_core.errors import BusUnreachable, ConfigError, RevisionConflict
from harmony_core.wire.tls import PinnedTransport
from tests.authority import AUTHORITY, serving_context
from tests.faults.relay import Relay
from tests.nats import serving
from tests.ports import free_address

SEED = Nkey.new().seed


async def test_nothing_listening_is_said_at_once_and_leaves_no_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = asyncio.all_tasks()
    url = f"tls://{free_address()}"

    with pytest.raises(BusUnreachable, match=f"nothing listens at {url}; is `harmony server`"):
        await connect(url, seed=SEED, authority=AUTHORITY)

    assert asyncio.all_tasks() == before
    assert caplog.record_tuples == []


async def test_something_that_never_answers_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BusUnreachable, match="no answer from"):
            await connect(url, seed=SEED, authority=AUTHORITY)

    assert caplog.record_tuples == []


async def test_something_that_is_not_nats_is_said() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(BusUnreachable, match="does not prove to be the server"):
            await connect(f"tls://127.0.0.1:{port}", seed=SEED, authority=AUTHORITY)


async def test_a_name_that_does_not_resolve_is_said() -> None:
    with pytest.raises(BusUnreachable, match=r"nowhere\.invalid"):
        await connect("tls://nowhere.invalid:4222", seed=SEED, authority=AUTHORITY)


async def test_a_key_that_the_server_does_not_know_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        authority = bus.home.authority.read_text()
        with pytest.raises(BusUnreachable, match="does not know our key"):
            await connect(bus.server.url, seed=SEED, authority=authority)


async def test_who_is_half_way_in_while_the_server_is_told_of_another_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-server refuses whoever has not said yet who it is, whenever it reads its configuration anew."""
    connect_slowly = PinnedTransport.connect

    async with serving(tmp_path) as bus:

        async def connect_meanwhile(self: PinnedTransport, *where: Any) -> None:
            monkeypatch.undo()
            await connect_slowly(self, *where)
            await bus.enrol("pi-1")

        monkeypatch.setattr(PinnedTransport, "connect", connect_meanwhile)
        async with admin(bus.home) as client:
            assert await Bucket(client, "heartbeat").get("pi-1") is None


async def test_a_server_of_another_authority_gets_not_even_our_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        with pytest.raises(BusUnreachable, match="does not prove to be the server of this fleet"):
            await connect(bus.server.url, seed=SEED, authority=AUTHORITY)


async def test_a_server_of_the_right_authority_with_another_name_is_refused() -> None:
    heard = list[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    context = serving_context("somebody-else")
    async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(BusUnreachable, match="ostname mismatch"):
            await connect(f"tls://127.0.0.1:{port}", seed=SEED, authority=AUTHORITY)
    assert heard in ([], [b""])


async def test_a_home_without_a_server_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `harmony server` first"):
        await connect_admin(Home(tmp_path))


async def test_a_lost_server_is_said_and_its_connection_can_be_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nats")
    async with serving(tmp_path) as bus:
        home = bus.home
        client = await connect_admin(home)
        bucket = Bucket(client, "desired-state", timeout_s=0.5)
        await bucket.put("pi-1", b"value")

    with pytest.raises(BusUnreachable, match="NATS does not answer"):
        await bucket.get("pi-1")
    await close(client)
    assert caplog.record_tuples == []


async def test_a_bucket_that_is_missing_is_said_with_the_command_that_makes_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as bus:
        await JetStreamContext(bus.admin).delete_stream("KV_heartbeat")

        with pytest.raises(BusUnreachable, match="no such bucket; `harmony server`"):
            await bus.bucket("heartbeat").get("pi-1")
        with pytest.raises(BusUnreachable, match="no such bucket; `harmony server`"):
            await bus.bucket("heartbeat").put("pi-1", b"alive")


async def test_compare_and_swap_knows_deleted_keys(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        bucket = bus.bucket("desired-state")
        assert await bucket.get("pi-1") is None
        first = await bucket.create("pi-1", b"one")
        with pytest.raises(RevisionConflict, match=r"desired-state\.pi-1.*read it again"):
            await bucket.create("pi-1", b"two")
        await bus.admin.publish("$KV.desired-state.pi-1", b"", headers={"KV-Operation": "DEL"})

        with pytest.raises(RevisionConflict):
            await bucket.update("pi-1", b"two", last=first)
        assert await bucket.get("pi-1") is None
        assert await bucket.create("pi-1", b"three") > first


async def test_a_connection_that_is_closed_leaves_no_task(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        before = asyncio.all_tasks()
        async with admin(bus.home) as client:
            await Bucket(client, "desired-state").put("pi-1", b"value")
        await asyncio.sleep(0)

        assert asyncio.all_tasks() == before


async def test_an_answer_that_comes_late_does_not_end_it(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as bus,
        Relay(int(bus.server.url.rpartition(":")[2])) as relay,
    ):
        client = await connect(
            f"tls://127.0.0.1:{relay.port}",
            seed=Nkey.read(bus.home.control().admin_seed).seed,
            authority=bus.home.authority.read_text(),
        )
        bucket = Bucket(client, "heartbeat")
        relay.become("stalled")
        with pytest.raises(FlushTimeoutError):
            await client.flush(timeout=1)
        relay.become("open")
        await client.rtt(timeout=10)  # this answer comes after the late one
        assert await bucket.get("pi-1") is None
        await close(client)
