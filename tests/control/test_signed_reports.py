"""Nobody is believed but the device itself: whoever holds the message server may try.

Here that one is `bus.admin`, who may write every bucket and answer every request.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest
from nats.js import JetStreamContext

from harmony_control.bus.connection import Bucket, Entry
from harmony_control.bus.newest import newest
from harmony_control.bus.requests import Asking
from harmony_control.enrol import revoke
from harmony_control.fleet import Fleet
from harmony_control.operators import add_operator, join
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import Unverified
from harmony_core.outcome import Success
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.device_record import DeviceRecord, open_record, seal_record
from harmony_core.wire.device_signature import (
    ACTUAL_STATE_TYPE,
    HEARTBEAT_TYPE,
    SIGNATURE_HEADER,
    sign,
)
from harmony_core.wire.envelope import SigningKey, generate_key, pin_keys
from harmony_core.wire.names import ACTUAL_STATE, DEVICES, HEARTBEAT
from harmony_core.wire.replies import Alive, End, to_frame

from .ground import Ground, ground
from .scripted_device import NOON, page

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncGenerator[Ground]:
    async with ground(tmp_path) as plane:
        yield plane


async def write(plane: Ground, bucket: str, value: bytes, signature: str | None) -> None:
    """As whoever holds the server."""
    headers = None if signature is None else {SIGNATURE_HEADER: signature}
    streams = JetStreamContext(plane.bus.admin)
    await streams.publish(f"$KV.{bucket}.pi-1", value, headers=headers)


def forge(kind: str, key: SigningKey, value: bytes, other: bytes) -> str | None:
    """The signature that a forger could put beside *value*; *other* is what the device has signed."""
    match kind:
        case "none":
            return None
        case "another key's":
            return sign(generate_key(), ACTUAL_STATE_TYPE, value)
        case "of other content":
            return sign(key, ACTUAL_STATE_TYPE, other)
        case "as another type":
            return sign(key, HEARTBEAT_TYPE, value)
        case "cut":
            return sign(key, ACTUAL_STATE_TYPE, value)[:-4]
        case _:
            return kind


FORGERIES = ("none", "another key's", "of other content", "as another type", "cut", "", "=")


async def operator_elsewhere(plane: Ground, root: Path) -> Home:
    """The home of Bob, who has joined from another machine."""
    bob = Home(root / "bob")
    operator_key.create(bob)
    fleet = await asyncio.to_thread(add_operator, plane.home, "bob", bob.operator_pub)
    fleet.write(root / "bob.fleet")
    await join(bob, root / "bob.fleet")
    return bob


@pytest.mark.parametrize("kind", FORGERIES, ids=range(len(FORGERIES)))
async def test_a_report_that_the_device_has_not_signed_is_not_believed(
    kind: str, plane: Ground
) -> None:
    honest = plane.pi.state(0)
    await plane.pi.report(honest)
    forged = to_json(plane.pi.state(7, {"motd": page(Success(), 7)}))
    signature = forge(kind, plane.pi.device.report_key, forged, to_json(honest))
    await write(plane, ACTUAL_STATE, forged, signature)
    seen = await plane.fleet.device("pi-1").read_seen()
    assert seen.state is None
    assert "Unverified" in seen.problem
    (same,) = [each for each in await plane.fleet.agents() if each.agent_id == "pi-1"]
    assert (same.state, same.problem) == (None, seen.problem)
    said = await plane.harmony("status", "pi-1")
    assert said.status == 4
    assert "Unverified" in said.out


async def test_no_push_goes_well_by_what_somebody_else_says(plane: Ground) -> None:
    """The device is off; who holds the server says SUCCESS in its place."""
    pushing = asyncio.create_task(
        plane.harmony("push-score", "pi-1", "-", "--timeout", "4", "--force", stdin=MOTD)
    )
    wanted: Entry | None = None
    while wanted is None:
        assert not pushing.done(), pushing
        await asyncio.sleep(0.02)
        wanted = await plane.bus.bucket("desired-state").get("pi-1")
    forged = to_json(plane.pi.state(1, {"motd": page(Success(), 1)}))
    for kind in FORGERIES[:5]:
        signature = forge(kind, generate_key(), forged, b"")
        await write(plane, ACTUAL_STATE, forged, signature)
    said = await pushing
    assert said.status == 4, said
    assert "SUCCESS" not in said.out


async def test_nor_by_what_the_device_has_said_of_another_manifest_of_that_number(
    plane: Ground,
) -> None:
    other = hashlib.sha256(b"another manifest").hexdigest()
    told = attrs.evolve(plane.pi.state(1, {"motd": page(Success(), 1)}), manifest_sha256=other)
    pushing = asyncio.create_task(
        plane.harmony("push-score", "pi-1", "-", "--timeout", "3", "--force", stdin=MOTD)
    )
    while await plane.bus.bucket("desired-state").get("pi-1") is None:
        assert not pushing.done(), pushing
        await asyncio.sleep(0.02)
    await plane.pi.report(told)
    await plane.pi.beat(1)
    assert (await pushing).status == 4


async def test_what_the_device_has_said_before_is_not_said_again(plane: Ground) -> None:
    bucket = plane.bus.bucket(ACTUAL_STATE)
    await plane.pi.report(plane.pi.state(1))
    old = await bucket.get("pi-1")
    assert old is not None
    await plane.pi.report(plane.pi.state(2))
    pi = plane.fleet.device("pi-1")
    state = await pi.state()
    assert state is not None
    assert state.generation == 2
    await write(plane, ACTUAL_STATE, old.value, old.signature)
    assert await pi.state() is None
    assert "something newer before" in (await pi.read_seen()).problem
    # Neither by another process of the same operator; and the device's next word counts.
    assert (await plane.harmony("status", "pi-1")).status == 4
    await plane.pi.report(plane.pi.state(3))
    state = await pi.state()
    assert state is not None
    assert state.generation == 3


async def test_a_heartbeat_that_is_repeated_keeps_no_device_alive(plane: Ground) -> None:
    await plane.pi.beat()
    pi = plane.fleet.device("pi-1")
    assert (await pi.read_seen()).presence == "Heard"
    last = await plane.bus.bucket(HEARTBEAT).get("pi-1")
    assert last is not None
    assert (await pi.read_seen()).presence == "Heard"  # the same one, read again
    await asyncio.sleep(0.6)
    await write(plane, HEARTBEAT, last.value, last.signature)
    assert await pi.heartbeat() is None
    assert (await pi.read_seen()).presence == "Never"
    await write(plane, HEARTBEAT, last.value, None)
    assert (await pi.read_seen()).presence == "Never"


async def test_what_another_device_has_signed_is_not_this_ones(plane: Ground) -> None:
    other = await plane.bus.device("pi-2")
    forged = to_json(plane.pi.state(3))
    await write(plane, ACTUAL_STATE, forged, sign(other.report_key, ACTUAL_STATE_TYPE, forged))
    assert await plane.fleet.device("pi-1").state() is None


async def test_an_answer_by_somebody_else_is_told_as_that(plane: Ground) -> None:
    """Who holds the server sees each request, and may answer first."""
    requests = await plane.bus.admin.subscribe("harmony.mail.pi-1.request")  # pyright: ignore[reportUnknownMemberType] - nats-py's own

    async def answer() -> None:
        message = await requests.next_msg(timeout=20)
        payload = json.loads(message.data)["payload"]
        nonce = json.loads(base64.b64decode(payload))["nonce"]
        for frame in (Alive(seq=0, at=NOON), End(seq=1)):
            await plane.bus.admin.publish(f"harmony.reply.pi-1.{nonce}", to_frame(frame))

    answering = asyncio.create_task(answer())
    with pytest.raises(Unverified, match="not signed with the key"):
        await Asking(plane.home, plane.bus.admin, "pi-1").release("motd")
    await answering


async def test_an_operator_elsewhere_knows_each_device_by_who_enrolled_it(
    plane: Ground, tmp_path: Path
) -> None:
    bob = await operator_elsewhere(plane, tmp_path)
    await plane.pi.report(plane.pi.state(1))
    async with Fleet.connect(bob) as his:
        assert await his.device("pi-1").state() is None  # nobody has said yet who pi-1 is
        await publish_devices(plane.home, plane.bus.admin)
        assert await his.device("pi-1").state() is not None
        # Whoever holds the server cannot say it.
        thief = generate_key()
        forged = DeviceRecord(
            fleet="home", agent_id="pi-1", report_key=thief.public.to_text(), serial=2**52
        )
        await Bucket(plane.bus.admin, DEVICES).put("pi-1", seal_record(forged, thief))
        data = to_json(plane.pi.state(9))
        await write(plane, ACTUAL_STATE, data, sign(thief, ACTUAL_STATE_TYPE, data))
        assert await his.device("pi-1").state() is None


async def test_who_was_revoked_is_believed_nowhere_also_by_an_old_record(
    plane: Ground, tmp_path: Path
) -> None:
    bob = await operator_elsewhere(plane, tmp_path)
    await publish_devices(plane.home, plane.bus.admin)
    old = await plane.bus.bucket(DEVICES).get("pi-1")
    assert old is not None
    stolen = plane.pi.device.report_key
    await plane.bus.enrol("pi-1", replace=True)
    await publish_devices(plane.home, plane.bus.admin)
    data = to_json(plane.pi.state(9))
    await write(plane, ACTUAL_STATE, data, sign(stolen, ACTUAL_STATE_TYPE, data))
    async with Fleet.connect(bob) as his:
        assert await his.device("pi-1").state() is None
        await plane.bus.bucket(DEVICES).put("pi-1", old.value)
        assert await his.device("pi-1").state() is None
    async with Fleet.connect(bob) as his:  # and remembered by the next command
        assert await his.device("pi-1").state() is None


async def test_of_a_revoked_device_it_is_told_that_no_key_is_known(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(9))
    async with Fleet.connect(plane.home) as fleet:
        seen = {each.agent_id: each for each in await fleet.agents()}["pi-1"]
        assert seen.state is not None
    await asyncio.to_thread(revoke, plane.home, "pi-1")
    async with Fleet.connect(plane.home) as fleet:
        seen = {each.agent_id: each for each in await fleet.agents()}["pi-1"]
    assert seen.state is None
    assert seen.is_unverified
    assert "no key is known with which it signs" in seen.problem


async def test_the_bucket_says_what_the_home_says_and_is_written_where_it_does_not(
    plane: Ground,
) -> None:
    admin = plane.bus.admin
    trusted = pin_keys([operator_key.load_public(plane.home)])

    async def read() -> dict[str, tuple[str | None, int]]:
        found = await newest(admin, f"KV_{DEVICES}", DEVICES)
        records = [
            open_record(each.value, trusted=trusted, fleet="home", agent_id=each.key)
            for each in found
        ]
        return {each.agent_id: (each.report_key, each.serial) for each in records}

    await publish_devices(plane.home, admin)
    first = await read()
    enrolled = plane.home.agents()
    assert {name: key for name, (key, _) in first.items()} == {
        name: each.report_key for name, each in enrolled.items()
    }
    await publish_devices(plane.home, admin)
    assert await read() == first
    plane.home.save_agents({"pi-2": enrolled["pi-2"]})
    await publish_devices(plane.home, admin)
    second = await read()
    assert second["pi-2"] == first["pi-2"]
    assert second["pi-1"][0] is None
    assert second["pi-1"][1] > first["pi-1"][1]
