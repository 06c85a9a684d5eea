"""Whoever sends a device what is no request, as fast as they like, keeps nobody waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harmony_agent.rpc.server import Requests
from harmony_control.bus.requests import Asking, Waits
from harmony_core.wire.envelope import SigningKey, seal
from harmony_core.wire.requests import REQUEST_TYPE, open_request

from .rig import Note, Rig, entry

SENT_AT_ONCE = 15


def no_envelope(_: Rig) -> bytes:
    return b'{"payload":"' + b"A" * 300 + b'"}'


def by_a_stranger(_: Rig) -> bytes:
    return seal(b"{}" + b" " * 300, SigningKey(bytes(32)), payload_type=REQUEST_TYPE)


def with_a_false_signature(rig: Rig) -> bytes:
    """What costs most to be refused: it names a key that is trusted."""
    true = seal(b"{}" + b" " * 300, rig.key, payload_type=REQUEST_TYPE)
    other = seal(b"[]" + b" " * 300, rig.key, payload_type=REQUEST_TYPE)
    signature = true.partition(b'"sig":"')[2].partition(b'"')[0]
    return other.replace(other.partition(b'"sig":"')[2].partition(b'"')[0], signature)


@asynccontextmanager
async def flood(rig: Rig, junk: bytes, *, per_s: int) -> AsyncGenerator[None]:
    async def send() -> None:
        while True:
            for _ in range(SENT_AT_ONCE):
                await rig.bus.admin.publish("harmony.mail.pi-1.request", junk)
            await asyncio.sleep(SENT_AT_ONCE / per_s)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("junk", [no_envelope, by_a_stranger, with_a_false_signature])
async def test_a_flood_of_what_is_no_request_keeps_no_true_one_away_and_costs_little(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, junk: Callable[[Rig], bytes]
) -> None:
    looked, spent_s = 0, 0.0

    def counting(envelope: bytes, **more: Any) -> object:
        nonlocal looked, spent_s
        began = time.thread_time()
        try:
            return open_request(envelope, **more)
        finally:
            spent_s += time.thread_time() - began
            looked += 1

    monkeypatch.setattr("harmony_agent.rpc.dispatch.open_request", counting)
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        began = time.monotonic()
        async with flood(rig, junk(rig), per_s=300):
            await asyncio.sleep(1)
            for _ in range(4):
                asked = time.monotonic()
                async with Asking(rig.bus.home, rig.bus.admin, "pi-1").reconcile() as told:
                    assert [each.score async for each in told] == ["note"]
                assert time.monotonic() - asked < 10
        assert looked > 100
        assert spent_s < 0.3 * (time.monotonic() - began)


@pytest.mark.timeout(60)
async def test_large_junk_is_looked_at_so_seldom_that_it_costs_no_more(rig: Rig) -> None:
    junk = seal(b" " * 200_000, SigningKey(bytes(32)), payload_type=REQUEST_TYPE)
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        async with flood(rig, junk, per_s=100):
            await asyncio.sleep(1)
            await rig.put(2, entry(Note(text="newer"), "note"))
            await rig.seen(2)
        # What was in the way is soon worked off.
        async with Asking(rig.bus.home, rig.bus.admin, "pi-1").reconcile() as told:
            assert [each.score async for each in told] == ["note"]


async def test_a_request_that_was_lost_is_sent_again_and_answered_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[bytes] = []
    receive = Requests.receive

    async def lose_first(self: Requests, envelope: bytes) -> None:
        came.append(envelope)
        if len(came) > 1:
            await receive(self, envelope)
            await receive(self, envelope)

    monkeypatch.setattr(Requests, "receive", lose_first)
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        asking = Asking(rig.bus.home, rig.bus.admin, "pi-1", Waits(first_look_s=0.3))
        async with asking.reconcile() as told:
            assert [each.score async for each in told] == ["note"]
    assert len(came) >= 2
    assert len(set(came)) == 1
