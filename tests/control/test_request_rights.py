"""Who can ask a device and who can answer for it, on the real server and whatever is sent.

`pi-1` has been broken into: it holds its own key and speaks the protocol as it likes. `pi-2` is its victim.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import attrs
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from tests.nats import BUCKETS, Bus, Device, serving, worked_off

pytestmark = pytest.mark.asyncio(loop_scope="module")

NONCE = "0123456789abcdef0123456789abcdef"
CHOSEN = b"chosen by pi-1"
OWN_STATE = "$JS.API.DIRECT.GET.KV_actual-state.$KV.actual-state.pi-1"
KEYS = (
    "$KV.desired-state.pi-2",
    "$KV.desired-class.kiosk",
    "$KV.actual-state.pi-2",
    "$KV.heartbeat.pi-2",
    "$JS.API.STREAM.PURGE.KV_desired-state",
)


@attrs.frozen
class Scene:
    bus: Bus
    attacker: Device
    victim: Device

    async def listening(self, subject: str) -> Subscription:
        """The control plane, waiting for an answer."""
        subscription = await self.bus.admin.subscribe(subject)  # pyright: ignore[reportUnknownMemberType] - nats-py's own
        await worked_off(self.bus.admin)
        return subscription

    async def keys(self) -> list[object]:
        return [
            await self.bus.bucket(name).get(key) for name in BUCKETS for key in ("pi-2", "kiosk")
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    async with serving(tmp_path_factory.mktemp("bus"), "pi-1", "pi-2") as bus:
        await bus.bring_together("pi-1", "pi-2")
        for name in ("desired-state", "actual-state", "heartbeat"):
            await bus.bucket(name).put("pi-2", b"only for pi-2")
        await bus.bucket("actual-state").put("pi-1", CHOSEN)
        yield Scene(bus, await bus.device("pi-1"), await bus.device("pi-2"))


async def drained(subscription: Subscription, *clients: Client) -> list[Msg]:
    """What has arrived, once everything that *clients* sent was worked off."""
    for _ in range(2):
        for each in clients:
            await worked_off(each)
    found = [await subscription.next_msg() for _ in range(subscription.pending_msgs)]
    await subscription.unsubscribe()
    return found


def bodies(messages: Sequence[Msg]) -> list[bytes]:
    return [each.data for each in messages]


async def test_a_request_reaches_the_device_that_is_meant_and_no_other(scene: Scene) -> None:
    at_victim = await scene.victim.subscribe(scene.victim.mail("request"))
    at_attacker = await scene.attacker.subscribe(scene.attacker.mail("request"))
    await scene.bus.admin.publish("harmony.mail.pi-2.request", b"for pi-2")
    clients = (scene.bus.admin, scene.victim.client, scene.attacker.client)
    assert bodies(await drained(at_victim, *clients)) == [b"for pi-2"]
    assert await drained(at_attacker, *clients) == []


async def test_a_thousand_frames_come_in_their_order(scene: Scene) -> None:
    answer = await scene.listening(f"harmony.reply.pi-2.{NONCE}")
    frames = [f"{n}".encode() for n in range(1000)]
    for each in frames:
        await scene.victim.client.publish(f"harmony.reply.pi-2.{NONCE}", each)
    assert bodies(await drained(answer, scene.victim.client, scene.bus.admin)) == frames


@pytest.mark.parametrize(
    "subject",
    [
        "harmony.mail.pi-2.request",
        "harmony.mail.*.request",
        "harmony.mail.>",
        "harmony.*.pi-2",
        "harmony.mailbox.>",
        "harmony.mailbox.*.request",
        "harmony.>",
    ],
)
async def test_no_device_hears_what_another_is_asked(scene: Scene, subject: str) -> None:
    scene.attacker.refusals.clear()
    loot = await scene.attacker.subscribe(subject)
    assert [subject in refusal.lower() for refusal in scene.attacker.refusals] == [True]
    await scene.bus.admin.publish("harmony.mail.pi-2.request", b"for pi-2")
    assert await drained(loot, scene.bus.admin, scene.attacker.client) == []


@pytest.mark.parametrize(
    "subject",
    [
        "harmony.reply.pi-2.*",
        f"harmony.reply.pi-2.{NONCE}",
        "harmony.reply.pi-1.*",
        f"harmony.reply.pi-1.{NONCE}",
        "harmony.reply.>",
    ],
)
async def test_no_device_hears_any_answer(scene: Scene, subject: str) -> None:
    scene.attacker.refusals.clear()
    loot = await scene.attacker.subscribe(subject)
    assert [subject in refusal.lower() for refusal in scene.attacker.refusals] == [True]
    await scene.victim.client.publish(f"harmony.reply.pi-2.{NONCE}", b"secret")
    assert await drained(loot, scene.victim.client, scene.attacker.client) == []


@pytest.mark.parametrize(
    "subject",
    [
        f"harmony.reply.pi-2.{NONCE}",
        "harmony.reply.pi-2.*",
        f"harmony.reply.pi-1.{NONCE}.more",
        "harmony.reply.pi-1",
        "harmony.mail.pi-2.request",
        "harmony.mail.pi-1.request",
    ],
)
async def test_no_device_answers_for_another_or_asks_any(scene: Scene, subject: str) -> None:
    answers = await scene.listening("harmony.>")
    asked = await scene.victim.subscribe(scene.victim.mail("request"))
    scene.attacker.refusals.clear()
    await scene.attacker.client.publish(subject, CHOSEN)
    clients = (scene.attacker.client, scene.bus.admin, scene.victim.client)
    assert CHOSEN not in bodies(await drained(answers, *clients))
    assert await drained(asked, *clients) == []
    assert len(scene.attacker.refusals) == 1


async def test_nor_by_having_the_server_answer_it_there(scene: Scene) -> None:
    answers = await scene.listening(f"harmony.reply.pi-2.{NONCE}")
    await scene.attacker.client.publish(OWN_STATE, b"", reply=f"harmony.reply.pi-2.{NONCE}")
    await scene.attacker.client.publish(
        "$KV.actual-state.pi-1", CHOSEN, reply=f"harmony.reply.pi-2.{NONCE}"
    )
    await scene.attacker.bucket("actual-state").get("pi-1")
    assert await drained(answers, scene.attacker.client, scene.bus.admin) == []


GUESSES = ["harmony.mail.pi-2.request", "harmony.mailbox.pi-2.request", "harmony.mailbox.*.request"]


@pytest.mark.parametrize("reply", GUESSES)
async def test_no_device_is_reached_by_who_does_not_know_its_mailbox(
    scene: Scene, reply: str
) -> None:
    asked = await scene.victim.subscribe(scene.victim.mail("request"))
    await scene.attacker.client.publish(OWN_STATE, b"", reply=reply)
    assert await drained(asked, scene.attacker.client, scene.victim.client) == []


async def test_who_knows_it_still_needs_a_signature(scene: Scene) -> None:
    # What two accounts cannot prevent. If this ever fails, the server has become stricter: rejoice.
    asked = await scene.victim.subscribe(scene.victim.mail("request"))
    await scene.attacker.client.publish(OWN_STATE, b"", reply=scene.victim.mail("request"))
    message = await asked.next_msg(timeout=5)
    await asked.unsubscribe()
    assert message.data == CHOSEN


@pytest.mark.parametrize("reply", KEYS)
async def test_where_a_frame_asks_to_be_answered_reaches_no_key(scene: Scene, reply: str) -> None:
    answers = await scene.listening(f"harmony.reply.pi-1.{NONCE}")
    before = await scene.keys()
    await scene.attacker.client.publish(f"harmony.reply.pi-1.{NONCE}", CHOSEN, reply=reply)
    (frame,) = await drained(answers, scene.attacker.client, scene.bus.admin)
    assert frame.reply != reply
    assert not frame.reply.startswith("$")
    await scene.bus.admin.publish(frame.reply or "nowhere", CHOSEN)
    await worked_off(scene.bus.admin)
    assert await scene.keys() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Trace-Dest": "$KV.desired-state.pi-2"},
        {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "$KV.desired-state.pi-2"},
        {"Nats-Rollup": "all", "KV-Operation": "PURGE"},
    ],
)
async def test_nor_does_any_header_of_a_frame(scene: Scene, headers: dict[str, str]) -> None:
    before = await scene.keys()
    await scene.attacker.client.publish(f"harmony.reply.pi-1.{NONCE}", CHOSEN, headers=headers)
    await worked_off(scene.attacker.client)
    await worked_off(scene.bus.admin)
    assert await scene.keys() == before
