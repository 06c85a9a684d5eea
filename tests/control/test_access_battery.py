"""All that a stolen Pi can send to the real server, one thing after another; none of it has an effect.

`pi-1` was stolen: whoever has it speaks the protocol as they like, with its key. Beside it are `pi-2`, an
operator who hears everything in the control plane's account, and one who may only look. After each attack
every stream holds what it held, and everybody has heard what they had heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeAlias

import attrs
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from harmony_control.bus.connection import admin
from harmony_control.bus.requests import Asking
from harmony_control.operators import add_operator, join
from harmony_control.server.buckets import HEARTBEAT_WATCH, ensure_buckets
from harmony_control.server.config import device_permissions
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.wire.envelope import pin_keys
from harmony_core.wire.replies import Alive, End, Item, LoggedLine, to_frame, to_item
from harmony_core.wire.requests import Nonces, accept_request, open_request
from tests.nats import BUCKETS, STREAMS, Bus, Device, connected, serving, serving_jwts, worked_off
from tests.soak import runs, seed, tell

pytestmark = pytest.mark.asyncio(loop_scope="module")

STOLEN = b"chosen by who stole pi-1"
SECRET = b"only for pi-2"
ASKED = b"asked of pi-2"
NONCE = "0123456789abcdef0123456789abcdef"
INBOX = "_INBOX_pi-1.loot"
NOON = "2026-01-31T12:00:00.000Z"
_GET = "$JS.API.DIRECT.GET.KV_"
FOR_ALL = b"for every device"
KEYS_FOR_ALL = {
    "desired-class": "kiosk.1",
    "rollout": "kiosk",
    "fleet": "index",
    "trust": "1",
    "assets": "a.a1.0",
}
"""What every device may read."""


def _in_place_of_wildcards(subject: str) -> str:
    """Return one of the subjects that *subject* stands for."""
    if subject.startswith("harmony.reply."):
        return subject.replace("*", NONCE)
    bucket = subject.removeprefix(_GET).partition(".")[0]
    return f"{_GET}{bucket}.$KV.{bucket}.{KEYS_FOR_ALL[bucket]}" if "*" in subject else subject


ALLOWED = tuple(
    map(_in_place_of_wildcards, device_permissions("pi-1", "a" * 26)["publish"]["allow"])
)
"""All that a device may publish to: a right that is new is tried by itself."""
READS = tuple(each for each in ALLOWED if each.startswith(_GET))
WRITES = tuple(each for each in ALLOWED if each.startswith("$KV."))
_TOLD_BACK = "harmony.mail.pi-1.actual-state"
"""On which the server tells it that its report was written."""


@attrs.frozen
class Attack:
    """One message, or with *listen* one subscription."""

    subject: str
    payload: bytes = STOLEN
    reply: str = INBOX
    headers: Mapping[str, str] | None = None
    listen: str | None = None
    """The queue group; an empty one for none."""


class _Subscribing(Protocol):
    """What is used of nats-py's client, whose own signature is half typed."""

    async def subscribe(self, subject: str) -> Subscription: ...


async def _listen(client: _Subscribing, subject: str) -> Subscription:
    return await client.subscribe(subject)


async def _heard(subscription: Subscription) -> list[tuple[str, bytes]]:
    """Return what has come since this was asked before."""
    messages = [await subscription.next_msg() for _ in range(subscription.pending_msgs)]
    return [(each.subject, each.data) for each in messages]


@attrs.frozen
class Scene:
    """A fleet, of which one device was stolen."""

    bus: Bus
    stolen: Device
    victim: Device
    at_victim: Sequence[Subscription]
    reader: Client
    at_reader: Subscription
    operator: Client
    """Another connection of the control plane's account, so that its ear is not filled by the test's own."""
    at_operator: Subscription

    async def settle(self) -> None:
        """Return when all that was sent before is worked off: by the server, by each stream, by each ear."""
        await worked_off(self.stolen.client)
        for _ in range(2):
            await self.stolen.bucket("actual-state").get("pi-1")
        for name in BUCKETS:
            await self.bus.bucket(name).put("settled", b"")
        for client in (self.victim.client, self.reader, self.operator):
            await worked_off(client)

    async def stands(self) -> dict[str, Any]:
        """Return all that the streams hold and are, but what is the stolen device's own."""
        names = await self._ask("STREAM.NAMES")
        seen: dict[str, Any] = {"streams": sorted(names["streams"])}
        for name in STREAMS:
            info = await self._ask(f"STREAM.INFO.{name}", b'{"subjects_filter":">"}')
            seen[name] = (info["config"], info["state"]["consumer_count"])
            subjects: dict[str, int] = info["state"].get("subjects") or {}
            for subject in subjects:
                if subject not in WRITES and "settled" not in subject.split("."):
                    seen[f"{name} {subject}"] = await self._history(name, subject)
        return seen

    async def _history(self, stream: str, subject: str) -> list[object]:
        """Return every message of *subject* that *stream* still has."""
        found: list[object] = []
        after = 0
        while True:
            body = json.dumps({"seq": after + 1, "next_by_subj": subject}).encode()
            answer = await self.bus.admin.request(f"$JS.API.DIRECT.GET.{stream}", body)
            headers = dict(answer.headers or {})
            if "Nats-Sequence" not in headers:
                return found
            after = int(headers["Nats-Sequence"])
            found.append((headers, answer.data))

    async def heard(self) -> dict[str, list[tuple[str, bytes]]]:
        """Return what everybody has heard since this was asked before, but what they are to hear of a device:
        what it reports, what it asks of its own, and what it answers."""
        at_operator = [
            (subject, data)
            for subject, data in await _heard(self.at_operator)
            if subject not in {*ALLOWED, _TOLD_BACK} and not self._is_ours(subject)
        ]
        said = {
            "the operator": at_operator,
            "pi-2": [each for ear in self.at_victim for each in await _heard(ear)],
            "who may only look": await _heard(self.at_reader),
        }
        return {who: [each for each in said[who] if each[1] != ASKED] for who in said}

    def _is_ours(self, subject: str) -> bool:
        """Return whether *subject* is of this test, when it settles, or of what a device was answered."""
        own = self.bus.admin.new_inbox().split(".")[0]
        return "settled" in subject.split(".") or subject.startswith((f"{own}.", "_R_."))

    async def send(self, attack: Attack) -> list[tuple[str, bytes]]:
        """Return what the stolen device has got by it."""
        client = self.stolen.client
        await worked_off(self.operator)
        await self.heard()  # what `stands` has asked
        loot = await self.stolen.subscribe(f"{INBOX.rpartition('.')[0]}.loot")
        if attack.listen is not None:
            ear = await self.stolen.subscribe(attack.subject, attack.listen)
            # Somebody must speak, or nothing could be heard.
            await self.bus.bucket("desired-state").put("settled", b"")
            await self.bus.admin.publish("harmony.mail.pi-2.request", ASKED)
            await worked_off(self.bus.admin)
            await self.settle()
            found = await _heard(ear)
            await ear.unsubscribe()
        else:
            headers = dict(attack.headers) if attack.headers else None
            await client.publish(attack.subject, attack.payload, attack.reply, headers)
            await self.settle()
            found = []
        found += await _heard(loot)
        await loot.unsubscribe()
        return found

    async def _ask(self, verb: str, body: bytes = b"") -> Any:
        return json.loads((await self.bus.admin.request(f"$JS.API.{verb}", body)).data)


Serving: TypeAlias = Callable[..., AbstractAsyncContextManager[Bus]]
BOTH: Mapping[str, Serving] = {"static keys": serving, "JWTs": serving_jwts}
"""How the server knows its users."""


@asynccontextmanager
async def _fleet(root: Path, how: Serving = serving) -> AsyncGenerator[Scene]:
    eve = Home(root / "eve")
    operator_key.create(eve)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(how(root / "bus", "pi-1", "pi-2"))

        def let_in() -> Path:
            path = root / "eve.fleet"
            add_operator(bus.home, "eve", eve.operator_pub, access="look").write(path)
            return path

        await join(eve, await asyncio.to_thread(let_in))
        reader = await stack.enter_async_context(admin(eve))
        operator = await stack.enter_async_context(admin(bus.home))
        stolen, victim = await bus.device("pi-1"), await bus.device("pi-2")
        for name in BUCKETS:
            for _ in range(2):
                await bus.bucket(name).put("pi-2", SECRET)
            if name not in KEYS_FOR_ALL:
                await bus.bucket(name).put("kiosk", SECRET)
        for name, key in KEYS_FOR_ALL.items():
            await bus.bucket(name).put(key, FOR_ALL)
        await bus.bucket("desired-state").put("pi-1", b"to be")
        for name in ("actual-state", "heartbeat", "inventory"):
            await stolen.bucket(name).put("pi-1", STOLEN)
        # What nobody has to have done is not to happen: that heartbeats expire, or are copied only now.
        await ensure_buckets(bus.admin, heartbeat_age_s=3_600)
        async with asyncio.timeout(20):
            while await bus.bucket("heartbeat").get_copied("pi-1", stream=HEARTBEAT_WATCH) is None:
                await asyncio.sleep(0.05)
        scene = Scene(
            bus,
            stolen,
            victim,
            [await victim.subscribe(victim.mail("*")), await victim.subscribe("_INBOX_pi-2.>")],
            reader,
            await _listen(reader, f"{reader.new_inbox().rpartition('.')[0]}.>"),
            operator,
            await _listen(operator, ">"),
        )
        await scene.settle()
        await scene.heard()
        yield scene


def _consumer(stream: str, deliver: str) -> bytes:
    config = {"deliver_subject": deliver, "deliver_policy": "all", "ack_policy": "none"}
    return json.dumps({"stream_name": stream, "config": config}).encode()


def _of_streams() -> Iterator[Attack]:
    """Yield what would read, change or copy a stream by JetStream's own verbs."""
    for stream in STREAMS:
        for verb, body in {
            f"STREAM.INFO.{stream}": b'{"subjects_filter":">"}',
            f"STREAM.UPDATE.{stream}": json.dumps({"name": stream}).encode(),
            f"STREAM.DELETE.{stream}": b"",
            f"STREAM.PURGE.{stream}": b"",
            f"STREAM.MSG.GET.{stream}": b'{"seq":1}',
            f"STREAM.MSG.DELETE.{stream}": b'{"seq":1}',
            f"STREAM.SNAPSHOT.{stream}": b'{"deliver_subject":"_INBOX_pi-1.loot"}',
            f"STREAM.LEADER.STEPDOWN.{stream}": b"",
            f"STREAM.PEER.REMOVE.{stream}": b"{}",
            f"CONSUMER.LIST.{stream}": b"",
            f"CONSUMER.NAMES.{stream}": b"",
            f"CONSUMER.CREATE.{stream}": _consumer(stream, INBOX),
            f"CONSUMER.CREATE.{stream}.c": _consumer(stream, INBOX),
            f"CONSUMER.CREATE.{stream}.c.$KV.actual-state.pi-1": _consumer(
                stream, "$KV.heartbeat.x"
            ),
            f"CONSUMER.DURABLE.CREATE.{stream}.c": _consumer(stream, INBOX),
            f"CONSUMER.MSG.NEXT.{stream}.c": b"1",
            f"CONSUMER.DELETE.{stream}.c": b"",
            f"CONSUMER.PAUSE.{stream}.c": b'{"pause_until":"2099-01-01T00:00:00Z"}',
            f"DIRECT.GET.{stream}": b'{"seq":1}',
            f"DIRECT.GET.{stream}.>": b"",
            f"DIRECT.GET.{stream}.$KV.desired-state.pi-2": b"",
        }.items():
            yield Attack(f"$JS.API.{verb}", body)
    for verb, body in {
        "INFO": b"",
        "STREAM.LIST": b"",
        "STREAM.NAMES": b"",
        "STREAM.CREATE.SHADOW": b'{"name":"SHADOW","subjects":["$KV.actual-state.>"]}',
        "STREAM.CREATE.OTHER": b'{"name":"OTHER","sources":[{"name":"KV_desired-state"}]}',
        "STREAM.RESTORE.OTHER": b"{}",
        "META.LEADER.STEPDOWN": b"",
        "SERVER.REMOVE": b"{}",
        "ACCOUNT.PURGE.CTRL": b"",
    }.items():
        yield Attack(f"$JS.API.{verb}", body)
    for subject in ("SERVER.PING", "ACCOUNT.CTRL.INFO", "CLAIMS.UPDATE", "SERVER.X.RELOAD"):
        yield Attack(f"$SYS.REQ.{subject}", b"{}")


_OPERATIONS: tuple[Mapping[str, str] | None, ...] = (
    None,
    {"KV-Operation": "DEL"},
    {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
)


def _of_others_keys() -> Iterator[Attack]:
    """Yield what would write where somebody else writes, or speak in their name."""
    for bucket in BUCKETS:
        for key in ("pi-1", "pi-2", "pi-10", "pi-1.more", "kiosk", "*", ">"):
            if f"$KV.{bucket}.{key}" not in ALLOWED:
                for headers in _OPERATIONS:
                    yield Attack(f"$KV.{bucket}.{key}", headers=headers)
    for subject in (
        *(
            f"harmony.{what}.{who}"
            for what in ("request", "enrol")
            for who in ("pi-1", "pi-2", "*")
        ),
        *(f"harmony.mail.{who}.desired-state" for who in ("pi-1", "pi-2", "*")),
        *(f"harmony.reply.{who}.{NONCE}" for who in ("pi-2", "pi-10", "*")),
        f"harmony.reply.pi-1.{NONCE}.more",
        "harmony.reply.pi-1",
        *(f"harmony.mailbox.{'a' * 26}.{what}" for what in ("request", "desired-state", "*")),
        "_INBOX_pi-2.guessed",
        "_INBOX.guessed",
        "_R_.guessed",
        "$JS.ACK.KV_desired-state.c.1.1.1.1.1",
        "$JS.EVENT.ADVISORY.API",
        "$SRV.PING",
    ):
        yield Attack(subject)


_ELSEWHERE = (
    *(f"$KV.{bucket}.{key}" for bucket in BUCKETS for key in ("pi-2", "kiosk")),
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("PURGE", "DELETE") for stream in STREAMS),
    "$KV.desired-state.pi-1",
    "harmony.mail.pi-2.desired-state",
    "harmony.mail.pi-2.request",
    f"harmony.reply.pi-2.{NONCE}",
    "harmony.enrol.pi-2",
    "_INBOX.guessed",
)
"""Where nothing of a device may arrive."""


def _of_own_subjects() -> Iterator[Attack]:
    """Yield what is sent where a device may send, and is to have an effect elsewhere."""
    for subject in ALLOWED:
        payload = b"" if subject in READS else STOLEN
        for elsewhere in _ELSEWHERE:
            yield Attack(subject, payload, elsewhere)
            yield Attack(subject, payload, headers={"Nats-Trace-Dest": elsewhere})
    for subject in WRITES:
        for headers in (
            *({"Nats-Rollup": what} for what in ("all", "sub")),
            {"KV-Operation": "PURGE", "Nats-Rollup": "all"},
            *({"Nats-TTL": how_long} for how_long in ("1s", "90", "never")),
            {"Nats-Incr": "1"},
            {"Nats-Msg-Id": "1"},
            {"Nats-Expected-Stream": "KV_desired-state"},
            {"Nats-Expected-Last-Subject-Sequence-Subject": "$KV.actual-state.pi-2"},
            {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "$KV.actual-state.pi-2"},
            {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"},
            {"Nats-Stream-Source": "KV_desired-state 1 $KV.desired-state.> >"},
            {"Nats-Marker-Reason": "Purge"},
        ):
            yield Attack(subject, headers=headers)
    for subject in READS:
        bodies: tuple[dict[str, object], ...] = (
            {"seq": 1},
            {"last_by_subj": "$KV.actual-state.pi-2"},
            {"last_by_subj": "$KV.desired-state.pi-2"},
            {"next_by_subj": "$KV.>", "seq": 1},
            {"multi_last": ["$KV.>"]},
            {"multi_last": ["$KV.>"], "batch": 100, "max_bytes": 1 << 20},
            {"start_time": "2020-01-01T00:00:00Z", "next_by_subj": "$KV.>"},
        )
        for body in bodies:
            yield Attack(subject, json.dumps(body).encode())


def _of_listening() -> Iterator[Attack]:
    """Yield what would hear what is for somebody else."""
    for subject in (
        *(">", "*", "*.>", "_INBOX.>", "_INBOX_pi-2.>", "_INBOX_pi-10.>", "_R_.>"),
        *("$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.ADVISORY.>", "$SYS.>", "$SRV.>"),
        *("$KV.>", *(f"$KV.{bucket}.{key}" for bucket in BUCKETS for key in ("*", "pi-1", "pi-2"))),
        *("harmony.>", "harmony.*.pi-2", "harmony.mail.*.request", "harmony.mail.pi-2.request"),
        *("harmony.mail.>", "harmony.mail.*.desired-state", "harmony.mail.pi-2.desired-state"),
        *("harmony.reply.>", f"harmony.reply.pi-2.{NONCE}", "harmony.enrol.>"),
        *("harmony.mailbox.>", "harmony.mailbox.*.request", "harmony.mailbox.*.*"),
    ):
        for queue in ("", "q"):
            yield Attack(subject, listen=queue)


ATTACKS = (*_of_streams(), *_of_others_keys(), *_of_own_subjects(), *_of_listening())


async def _effect_of(scene: Scene, attack: Attack, before: Mapping[str, object]) -> list[str]:
    """Return what is other than before, and what anybody has got; nothing when it had no effect."""
    loot = await scene.send(attack)
    found = [f"stolen: {each}" for each in loot if SECRET in each[1] or b"pi-2" in each[1]]
    found += [
        f"{who} heard {each}" for who, heard in (await scene.heard()).items() for each in heard
    ]
    after = await scene.stands()
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    return found + [f"{key} is {after.get(key)}, and was {before.get(key)}" for key in changed]


@pytest.mark.security
@pytest.mark.timeout(600)
@pytest.mark.parametrize("users", BOTH)
async def test_nothing_that_a_stolen_device_sends_has_an_effect_on_anybody_else(
    tmp_path_factory: pytest.TempPathFactory, users: str
) -> None:
    assert len(ATTACKS) >= 300
    chosen = Random(seed()).sample(ATTACKS, runs(len(ATTACKS), part=10 * len(BOTH)))
    effects: list[tuple[Attack, list[str]]] = []
    async with _fleet(tmp_path_factory.mktemp("access"), BOTH[users]) as scene:
        before = await scene.stands()
        for attack in chosen:
            if effect := await _effect_of(scene, attack, before):
                effects.append((attack, effect))
                before = await scene.stands()
    tell("access", f"{len(chosen)} attacks, {len(effects)} with effect; users by {users}")
    assert effects == []


@pytest.mark.parametrize(
    ("users", "attack"),
    [
        ("static keys", Attack(READS[1], b"", "$KV.desired-state.pi-2")),
        ("JWTs", Attack("$KV.desired-class.kiosk")),
        ("static keys", Attack("$JS.API.STREAM.PURGE.KV_desired-state", b"")),
        (
            "static keys",
            Attack(
                "$JS.API.CONSUMER.CREATE.KV_desired-state", _consumer("KV_desired-state", INBOX)
            ),
        ),
        ("static keys", Attack("harmony.mail.pi-2.request")),
        ("JWTs", Attack("harmony.mail.*.request", listen="")),
    ],
    ids=lambda each: each.subject if isinstance(each, Attack) else each,
)
async def test_this_battery_would_see_an_effect(tmp_path: Path, attack: Attack, users: str) -> None:
    async with _fleet(tmp_path, BOTH[users]) as scene:
        # The same messages, by somebody inside the control plane's account.
        insider = attrs.evolve(scene, stolen=attrs.evolve(scene.stolen, client=scene.bus.admin))
        assert await _effect_of(insider, attack, await scene.stands())


async def _answer(scene: Scene, questions: Subscription) -> None:
    """Be a healthy pi-2: answer every request with one line."""
    trusted = pin_keys([operator_key.load_public(scene.bus.home)])
    nonces = Nonces()
    told = LoggedLine(resource="unit:web", at=NOON, stream="out", text="well", cursor="c=1")
    async for message in questions.messages:
        asked = open_request(message.data, trusted=trusted, fleet="home", agent_id="pi-2")
        accept_request(asked, nonces=nonces, now=datetime.now(UTC))
        for frame in (Alive(seq=0, at=NOON), Item(seq=1, item=to_item(told)), End(seq=2)):
            await scene.victim.reply(asked.request.nonce, to_frame(frame))


async def _is_served(scene: Scene) -> None:
    """Fail unless pi-2's heartbeat is taken, its desired state is read, and it answers an operator, each
    within its ordinary time."""
    await scene.victim.bucket("heartbeat").put("pi-2", SECRET)
    wanted = await scene.victim.bucket("desired-state").get("pi-2")
    assert wanted is not None
    assert wanted.value == SECRET
    async with Asking(scene.bus.home, scene.bus.admin, "pi-2").logs("web", follow=False) as lines:
        assert [each.text async for each in lines] == ["well"]


class _Flooding(Protocol):
    """Sends very much of one thing as the stolen device, on connections of its own."""

    async def __call__(self, scene: Scene, device: Device, count: int) -> None: ...


async def _flood_subscriptions(scene: Scene, device: Device, count: int) -> None:
    for number in range(count):
        await _listen(device.client, f"_INBOX_pi-1.{number}")
    await worked_off(device.client)


async def _flood_refused_subscriptions(scene: Scene, device: Device, count: int) -> None:
    for number in range(count):
        await _listen(device.client, f"harmony.mailbox.{number}.request")


async def _flood_connections(scene: Scene, device: Device, count: int) -> None:
    async with AsyncExitStack() as stack:
        # Beyond the limit of the account none is let in.
        with suppress(nats.errors.Error, OSError):
            for _ in range(max(1, count // 50)):
                await stack.enter_async_context(connected(scene.bus.home, "pi-1"))
        await _is_served(scene)


async def _flood_large_answers(scene: Scene, device: Device, count: int) -> None:
    for number in range(max(1, count // 50)):
        await device.client.publish(f"harmony.reply.pi-1.{number}", bytes(1 << 20))
    await worked_off(device.client)


async def _flood_reports(scene: Scene, device: Device, count: int) -> None:
    for _ in range(max(1, count // 10)):
        await device.client.publish("$KV.actual-state.pi-1", bytes(255 << 10))
    await worked_off(device.client)


async def _flood_heartbeats(scene: Scene, device: Device, count: int) -> None:
    for _ in range(count):
        await device.client.publish("$KV.heartbeat.pi-1", STOLEN)
    await worked_off(device.client)


async def _flood_replies_to_others(scene: Scene, device: Device, count: int) -> None:
    for number in range(count):
        elsewhere = _ELSEWHERE[number % len(_ELSEWHERE)]
        await device.client.publish(READS[number % 2], b"", reply=elsewhere)
    await worked_off(device.client)


async def _flood_forbidden_messages(scene: Scene, device: Device, count: int) -> None:
    for number in range(count):
        await device.client.publish(f"$KV.desired-state.pi-{number}", STOLEN)
    await worked_off(device.client)


FLOODS: tuple[_Flooding, ...] = (
    _flood_subscriptions,
    _flood_refused_subscriptions,
    _flood_connections,
    _flood_large_answers,
    _flood_reports,
    _flood_heartbeats,
    _flood_replies_to_others,
    _flood_forbidden_messages,
)


@pytest.mark.security
@pytest.mark.timeout(600)
@pytest.mark.parametrize("users", BOTH)
async def test_a_flood_by_one_device_leaves_the_others_served(
    tmp_path_factory: pytest.TempPathFactory, users: str
) -> None:
    count = runs(5_000, part=10 * len(BOTH))
    async with _fleet(tmp_path_factory.mktemp("flood"), BOTH[users]) as scene:
        healthy = await scene.victim.subscribe(scene.victim.mail("request"))
        answering = asyncio.create_task(_answer(scene, healthy))
        await _is_served(scene)
        before = _but_heartbeats(await scene.stands())
        for flood in FLOODS:
            async with connected(scene.bus.home, "pi-1") as device:
                flooding = asyncio.create_task(flood(scene, device, count))
                await asyncio.sleep(0)
                await _is_served(scene)
                assert await asyncio.wait_for(_is_over(flooding, device), 120), flood
                if flood is _flood_subscriptions:
                    # It was cut off for it, and holds none: not only did the server bear it.
                    assert "maximum subscriptions exceeded" in str(device.client.last_error).lower()
            await _is_served(scene)
            assert _but_heartbeats(await scene.stands()) == before, flood
        answering.cancel()
    tell(
        "access",
        f"{len(FLOODS)} floods, 0 with effect: pi-2 was served beside each; users by {users}",
    )


async def _is_over(flooding: asyncio.Task[None], device: Device) -> bool:
    """Return whether *flooding* was sent whole, or until the server cut the connection off."""
    while not flooding.done() and device.client.is_connected:
        await asyncio.sleep(0.01)
    was_cut = not device.client.is_connected
    flooding.cancel()
    (error,) = await asyncio.gather(flooding, return_exceptions=True)
    return was_cut or error is None


def _but_heartbeats(stands: Mapping[str, object]) -> dict[str, object]:
    """Return *stands* without what a healthy device writes."""
    return {key: value for key, value in stands.items() if "$KV.heartbeat.pi-2" not in key}
