"""What a device can do on the real server, and that it can do no more, whatever it sends.

`pi-1` has been broken into: it holds its own key and speaks the protocol as it likes. `pi-2` is its victim.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from harmony_control.server.buckets import HEARTBEAT_WATCH
from harmony_control.server.config import inbox_prefix, permissions
from harmony_core.errors import RevisionConflict, StoreError, UsageError
from harmony_core.wire.names import new_mailbox
from tests.nats import BUCKETS, STREAMS, Bus, Device, serving, worked_off

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"only for pi-2"
CHOSEN = b"chosen by pi-1"
INBOX = "_INBOX_pi-1.loot"
OWN_STATE = "$JS.API.DIRECT.GET.KV_actual-state.$KV.actual-state.pi-1"

OWN_KEYS = {f"$KV.{each}.pi-1" for each in ("actual-state", "heartbeat", "inventory")}


@attrs.frozen
class Scene:
    """A fleet of two, each with something to lose."""

    bus: Bus
    attacker: Device
    victim: Device

    async def keys(self) -> dict[str, object]:
        """All that the attacker must not change: every stream's options and every key but its own."""
        streams = JetStreamContext(self.bus.admin)
        seen: dict[str, object] = {}
        for name in STREAMS:
            info = await streams.stream_info(name, subjects_filter=">")
            # What HEARTBEAT_WATCH copies arrives in its own time.
            subjects = {} if name == HEARTBEAT_WATCH else info.state.subjects or {}
            # Its own, which it may give a lifetime, may end at any moment.
            others = [each for each in sorted(subjects) if each not in OWN_KEYS]
            seen[name] = (info.config, info.state.consumer_count, others)
        for name in BUCKETS:
            for key in ("pi-1", "pi-2", "kiosk"):
                if f"$KV.{name}.{key}" not in OWN_KEYS:
                    seen[f"{name}.{key}"] = await self.bus.bucket(name).get(key)
        return seen

    async def settled(self) -> None:
        """Everything that was sent before has been worked off: the server, then each stream, in turn."""
        for client in (self.attacker.client, self.bus.admin):
            await worked_off(client)
        for _ in range(2):
            await self.attacker.bucket("actual-state").get("pi-1")
        for name in BUCKETS:
            await self.bus.bucket(name).put("settled", b"")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    async with serving(tmp_path_factory.mktemp("bus"), "pi-1", "pi-2") as bus:
        await bus.bring_together("pi-1", "pi-2")
        scene = Scene(bus, await bus.device("pi-1"), await bus.device("pi-2"))
        for name in BUCKETS:
            await bus.bucket(name).put("pi-2", SECRET)
        await bus.bucket("desired-state").put("pi-1", b"to be")
        await bus.bucket("actual-state").put("pi-1", CHOSEN)
        await bus.bucket("heartbeat").put("pi-1", CHOSEN)
        await bus.bucket("inventory").put("pi-1", CHOSEN)
        await scene.settled()
        yield scene


async def test_a_device_reads_its_own_desired_state(scene: Scene) -> None:
    entry = await scene.attacker.bucket("desired-state").get("pi-1")

    assert entry is not None
    assert entry.value == b"to be"


async def test_a_push_reaches_the_device_at_once_with_the_whole_value(scene: Scene) -> None:
    pushed = b"x" * 352 * 1024
    hints = await scene.victim.subscribe(scene.victim.mail("desired-state"))

    revision = await scene.bus.bucket("desired-state").put("pi-2", pushed)
    hint = await hints.next_msg(timeout=5)
    await hints.unsubscribe()

    assert hint.data == pushed
    assert hint.headers is not None
    assert hint.headers["Nats-Sequence"] == str(revision)
    await scene.bus.bucket("desired-state").put("pi-2", SECRET)


async def test_a_device_writes_its_own_state_by_compare_and_swap(scene: Scene) -> None:
    states = scene.attacker.bucket("actual-state")
    before = await states.get("pi-1")
    assert before is not None

    with pytest.raises(RevisionConflict):
        await states.create("pi-1", b"is there already")
    newer = await states.update("pi-1", CHOSEN, last=before.revision)
    with pytest.raises(RevisionConflict):
        await states.update("pi-1", b"stale", last=before.revision)

    after = await states.get("pi-1")
    assert after is not None
    assert (after.value, after.revision) == (CHOSEN, newer)


async def test_a_device_writes_its_heartbeat_with_and_without_an_acknowledgement(
    scene: Scene,
) -> None:
    await scene.attacker.bucket("heartbeat").put("pi-1", b"first")
    await scene.attacker.client.publish("$KV.heartbeat.pi-1", CHOSEN)
    await scene.settled()

    entry = await scene.bus.bucket("heartbeat").get("pi-1")
    assert entry is not None
    assert entry.value == CHOSEN


@attrs.frozen(kw_only=True)
class Attack:
    """One message. *noticed* is whether the server answers with a permissions violation."""

    subject: str
    payload: bytes = b""
    reply: str = INBOX
    headers: dict[str, str] | None = None
    noticed: bool = True


def _consumer(options: str) -> bytes:
    config = f'{options},"deliver_policy":"all","ack_policy":"none"'
    return f'{{"stream_name":"KV_desired-state","config":{{{config}}}}}'.encode()


READS = [
    Attack(subject=subject, payload=payload)
    for subject, payload in (
        ("$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.pi-2", b""),
        ("$JS.API.DIRECT.GET.KV_actual-state.$KV.actual-state.pi-2", b""),
        ("$JS.API.DIRECT.GET.KV_heartbeat.$KV.heartbeat.pi-2", b""),
        ("$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.*", b""),
        ("$JS.API.DIRECT.GET.KV_desired-state", b'{"last_by_subj":"$KV.desired-state.pi-2"}'),
        ("$JS.API.DIRECT.GET.KV_actual-state", b'{"multi_last":["$KV.actual-state.>"]}'),
        ("$JS.API.STREAM.MSG.GET.KV_desired-state", b'{"seq":1}'),
        ("$JS.API.INFO", b""),
        ("$JS.API.STREAM.LIST", b""),
        ("$JS.API.STREAM.NAMES", b""),
        ("$JS.API.STREAM.INFO.KV_desired-state", b'{"subjects_filter":">"}'),
        ("$JS.API.STREAM.SNAPSHOT.KV_desired-state", b'{"deliver_subject":"_INBOX_pi-1.loot"}'),
        ("$JS.API.CONSUMER.LIST.KV_desired-state", b""),
        ("$JS.API.CONSUMER.NAMES.KV_desired-state", b""),
        (
            "$JS.API.CONSUMER.CREATE.KV_desired-state",
            _consumer('"deliver_subject":"_INBOX_pi-1.loot"'),
        ),
        (
            "$JS.API.CONSUMER.CREATE.KV_desired-state.c.$KV.desired-state.pi-1",
            _consumer(
                '"name":"c","filter_subject":"$KV.desired-state.pi-1",'
                '"deliver_subject":"$KV.desired-state.pi-2"'
            ),
        ),
        ("$JS.API.CONSUMER.DURABLE.CREATE.KV_desired-state.c", b"{}"),
        ("$JS.API.CONSUMER.MSG.NEXT.KV_desired-state.c", b"1"),
    )
]

WRITES = [
    Attack(subject=subject, payload=payload)
    for subject, payload in (
        ("$KV.desired-state.pi-2", CHOSEN),
        ("$KV.desired-state.pi-1", CHOSEN),
        ("$KV.desired-class.kiosk", CHOSEN),
        ("$KV.actual-state.pi-2", CHOSEN),
        ("$KV.heartbeat.pi-2", CHOSEN),
        ("$KV.inventory.pi-2", CHOSEN),
        ("$KV.actual-state.>", CHOSEN),
        ("harmony.mail.pi-2.desired-state", CHOSEN),
        ("harmony.mail.pi-2.request", CHOSEN),
        ("harmony.reply.pi-2.nonce", CHOSEN),
        ("_INBOX_pi-2.guessed", CHOSEN),
        ("$JS.API.STREAM.CREATE.SHADOW", b'{"name":"SHADOW","subjects":["$KV.actual-state.pi-2"]}'),
        ("$JS.API.STREAM.UPDATE.KV_actual-state", b'{"name":"KV_actual-state"}'),
        ("$JS.API.STREAM.DELETE.KV_desired-state", b""),
        ("$JS.API.STREAM.PURGE.KV_desired-state", b""),
        ("$JS.API.STREAM.MSG.DELETE.KV_actual-state", b'{"seq":1}'),
        ("$JS.API.STREAM.RESTORE.STOLEN", b"{}"),
        ("$JS.API.STREAM.LEADER.STEPDOWN.KV_desired-state", b""),
        ("$JS.API.META.LEADER.STEPDOWN", b""),
        ("$JS.API.SERVER.REMOVE", b"{}"),
        ("$JS.API.CONSUMER.DELETE.KV_desired-state.c", b""),
        ("$JS.ACK.KV_desired-state.c.1.1.1.1.1", b"+ACK"),
        ("$SYS.REQ.SERVER.PING", b""),
        ("$SYS.REQ.CLAIMS.UPDATE", b"{}"),
    )
]

INJECTIONS = [
    # A subject that is allowed, with a key of somebody else as where the answer is to go.
    Attack(
        subject=subject,
        payload=CHOSEN if subject.startswith("$KV") else b"",
        reply=reply,
        noticed=False,
    )
    for subject in (
        OWN_STATE,
        "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.pi-1",
        "$KV.actual-state.pi-1",
        "$KV.heartbeat.pi-1",
        "$KV.inventory.pi-1",
    )
    for reply in (
        "$KV.desired-state.pi-2",
        "$KV.desired-class.kiosk",
        "$KV.actual-state.pi-2",
        "$KV.heartbeat.pi-2",
        "$KV.inventory.pi-2",
        "$JS.API.STREAM.PURGE.KV_desired-state",
    )
]

HEADERS = [
    Attack(subject=subject, payload=CHOSEN, headers=headers, noticed=False)
    for subject in ("$KV.actual-state.pi-1", "$KV.heartbeat.pi-1", "$KV.inventory.pi-1")
    for headers in (
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"KV-Operation": "PURGE", "Nats-Rollup": "all"},
        {"Nats-TTL": "1s"},
        {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "$KV.actual-state.pi-2"},
        {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"},
        {"Nats-Incr": "1"},
    )
]

TRACES = [
    Attack(subject=subject, headers={"Nats-Trace-Dest": "$KV.desired-state.pi-2"})
    for subject in ("$KV.actual-state.pi-1", "$KV.heartbeat.pi-1", OWN_STATE)
]

BODIES = [
    # The subject names our own key, the body somebody else's.
    Attack(subject=OWN_STATE, payload=body, noticed=False)
    for body in (
        b'{"last_by_subj":"$KV.actual-state.pi-2"}',
        b'{"seq":1}',
        b'{"next_by_subj":"$KV.actual-state.>"}',
        b'{"multi_last":["$KV.actual-state.>"]}',
    )
]


@pytest.mark.parametrize("attack", [*READS, *WRITES, *INJECTIONS, *HEADERS, *TRACES, *BODIES])
async def test_a_broken_device_neither_reads_nor_changes_what_is_not_its_own(
    scene: Scene, attack: Attack
) -> None:
    inbox = await scene.attacker.subscribe("_INBOX_pi-1.>")
    before = await scene.keys()
    scene.attacker.refusals.clear()

    await scene.attacker.client.publish(
        attack.subject, attack.payload, reply=attack.reply, headers=attack.headers
    )
    await scene.settled()
    loot = [await inbox.next_msg() for _ in range(inbox.pending_msgs)]
    await inbox.unsubscribe()

    assert await scene.keys() == before
    assert [message for message in loot if _is_the_victims(message)] == []
    assert bool(scene.attacker.refusals) is attack.noticed


def _is_the_victims(message: Msg) -> bool:
    return SECRET in message.data or "pi-2" in (message.headers or {}).get("Nats-Subject", "")


async def test_these_tests_would_see_an_injection(scene: Scene) -> None:
    # The same message as one of the injections, by somebody inside the control plane's account.
    await scene.bus.admin.publish(OWN_STATE, b"", reply="$KV.desired-state.pi-2")
    await scene.settled()

    injected = await scene.bus.bucket("desired-state").get("pi-2")
    assert injected is not None
    assert injected.value == CHOSEN
    await scene.bus.bucket("desired-state").put("pi-2", SECRET)


async def test_a_hint_of_who_knows_the_mailbox_still_needs_its_signature(scene: Scene) -> None:
    # What two accounts cannot prevent. If this ever fails, the server has become stricter: rejoice.
    hints = await scene.victim.subscribe(scene.victim.mail("desired-state"))

    await scene.attacker.client.publish(OWN_STATE, b"", reply=scene.victim.mail("desired-state"))
    hint = await hints.next_msg(timeout=5)
    await hints.unsubscribe()

    assert hint.data == CHOSEN
    stored = await scene.bus.bucket("desired-state").get("pi-2")
    assert stored is not None
    assert stored.value == SECRET


@pytest.mark.parametrize("queue", ["", "q"])
@pytest.mark.parametrize(
    "subject",
    [
        ">",
        "*",
        "_INBOX.>",
        "_INBOX_pi-2.>",
        "$KV.>",
        "$KV.desired-state.pi-1",
        "$KV.desired-state.pi-2",
        "$KV.actual-state.>",
        "harmony.>",
        "harmony.mail.>",
        "harmony.mail.*.desired-state",
        "harmony.mail.pi-2.desired-state",
        "harmony.mailbox.>",
        "harmony.mailbox.*.desired-state",
        "harmony.mailbox.*.*",
        "harmony.mail.*.request",
        "harmony.mail.pi-2.request",
        "harmony.reply.>",
        "_R_.>",
        "$JS.>",
        "$JS.EVENT.ADVISORY.>",
        "$SYS.>",
        "$SRV.>",
    ],
)
async def test_a_broken_device_cannot_listen_to_what_is_not_its_own(
    scene: Scene, subject: str, queue: str
) -> None:
    scene.attacker.refusals.clear()

    subscription = await scene.attacker.subscribe(subject, queue)
    await subscription.unsubscribe()

    assert [subject.lower() in refusal.lower() for refusal in scene.attacker.refusals] == [True]


async def test_message_ids_of_one_device_do_not_hide_anothers_report(scene: Scene) -> None:
    await scene.attacker.client.publish(
        "$KV.actual-state.pi-1", CHOSEN, headers={"Nats-Msg-Id": "poison"}
    )
    await worked_off(scene.attacker.client)

    revision = await scene.victim.bucket("actual-state").put("pi-2", SECRET)

    entry = await scene.bus.bucket("actual-state").get("pi-2")
    assert entry is not None
    assert entry.revision == revision


async def test_a_report_over_its_limit_is_refused_and_the_old_one_stays(scene: Scene) -> None:
    with pytest.raises(StoreError, match="size"):
        await scene.attacker.bucket("actual-state").put("pi-1", b"x" * (256 * 1024 + 1))

    entry = await scene.attacker.bucket("actual-state").get("pi-1")
    assert entry is not None
    assert entry.value == CHOSEN


async def test_two_devices_have_different_inboxes_and_neither_is_a_prefix_of_the_other() -> None:
    assert not inbox_prefix("pi-10").startswith(f"{inbox_prefix('pi-1')}.")
    assert inbox_prefix("pi-1") != inbox_prefix("pi-2")


@pytest.mark.parametrize("name", ["*", ">", "pi-*", "pi.1", "pi 1", "", "PI-1", "-pi", "a" * 64])
async def test_a_name_that_could_be_a_wildcard_never_becomes_a_permission(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a device's id"):
        permissions(name, new_mailbox())
