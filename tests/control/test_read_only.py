"""An operator who may only look: sees what stands in the buckets, and changes nothing, whatever is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from harmony_control.bus.connection import admin
from harmony_control.bus.following import following
from harmony_control.bus.newest import newest
from harmony_control.bus.tls_client import TlsClient
from harmony_control.operators import add_operator, join, remove_operator
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import UsageError
from harmony_core.wire.audit import AuditHead
from tests.nats import BUCKETS, STREAMS, Bus, Device, serving, worked_off

from .ground import Said, harmony
from .scripted_device import ScriptedDevice

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHOSEN = b"chosen by who may only look"
MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"
REFUSED = 3


@attrs.frozen
class Scene:
    """``ada`` runs the server, ``bob`` may look, ``pi-1`` is a device."""

    bus: Bus
    bob: Home
    client: TlsClient
    """Bob's, to be used as he likes."""
    pi: Device

    async def stands(self) -> dict[str, Any]:
        """All that Bob must not change, once everything that was sent before is worked off."""
        await self._settled()
        seen: dict[str, Any] = {"streams": await self._ask("STREAM.NAMES")}
        for name in STREAMS:
            info = await self._ask(f"STREAM.INFO.{name}")
            seen[name] = (info["config"], info["state"]["consumer_count"])
        for name in BUCKETS:
            for entry in await newest(self.bus.admin, f"KV_{name}", name):
                if entry.key != "settled":
                    seen[f"{name}.{entry.key}"] = entry
        return seen

    async def _settled(self) -> None:
        """The server, then each stream, in turn."""
        await worked_off(self.client)
        for _ in range(2):
            for name in BUCKETS:
                await newest(self.client, f"KV_{name}", name)
        for name in BUCKETS:
            await self.bus.bucket(name).put("settled", b"")
        await worked_off(self.pi.client)

    async def _ask(self, verb: str, body: bytes = b"") -> Any:
        answer = json.loads((await self.bus.admin.request(f"$JS.API.{verb}", body)).data)
        return answer.get("streams", answer)

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bob, *arguments, stdin=stdin)


def _let_in(bus: Bus, bob: Home, **access: Any) -> Path:
    path = bob.root / "bob.fleet"
    add_operator(bus.home, "bob", bob.operator_pub, **access).write(path)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    root = tmp_path_factory.mktemp("read")
    bob = Home(root / "bob")
    operator_key.create(bob)
    async with serving(root / "ada", "pi-1", "pi-2") as bus:
        await publish_devices(bus.home, bus.admin)
        await join(bob, await asyncio.to_thread(_let_in, bus, bob, access="look"))
        pi = await bus.device("pi-1")
        said = await harmony(bus.home, "push-score", "pi-1", "-", "--no-wait", stdin=MOTD)
        assert said.status == 0, said.err
        device = ScriptedDevice(pi)
        await device.report(device.state(1))
        await device.beat()
        # Without compare-and-swap: what it expects would come with each answer, and spoil an injection.
        await bus.bucket("actual-state").put("loot", CHOSEN)
        async with admin(bob) as client:
            assert isinstance(client, TlsClient)
            yield Scene(bus, bob, client, pi)


async def test_the_state_of_all_devices_is_seen(scene: Scene) -> None:
    said = await scene.harmony("status", "--json")
    seen = next(each for each in said.documents if each["agent_id"] == "pi-1")
    assert (seen["agent_id"], seen["presence"], seen["wanted_generation"]) == ("pi-1", "Heard", 1)
    assert "pi-1" in (await scene.harmony("status")).out


async def test_one_device_is_seen_in_full_with_its_history(scene: Scene) -> None:
    said = await scene.harmony("status", "pi-1", "--json")
    assert said.documents[0]["presence"] == "Heard", said.err
    # Whose keys count, the file that he joined by has told.
    (adas,) = scene.bob.operators.glob("*.pub")
    away = adas.rename(scene.bob.root / "ada.pub")
    try:
        said = await scene.harmony("history", "pi-1")
    finally:
        away.rename(adas)
    assert (said.status, said.out) == (0, "")
    assert f"put their operator.pub into {scene.bob.operators}" in said.err
    said = await scene.harmony("history", "pi-1")
    assert "+motd" in said.out or "oldest revision kept" in said.out, said
    assert "unknown signer" not in said.err


async def test_what_is_reported_is_followed(scene: Scene) -> None:
    async with (
        asyncio.timeout(20),
        following(scene.client, "actual-state", "pi-1") as entries,
    ):
        first = await anext(entries)
        device = ScriptedDevice(scene.pi)
        await device.report(device.state(1))
        assert (await anext(entries)).revision > first.revision


@pytest.mark.parametrize(
    "command",
    [
        ("push-score", "pi-1", "-", "--no-wait"),
        ("remove-score", "pi-1", "motd", "--no-wait", "--force"),
        ("label", "pi-1", "a=b", "--no-wait", "--force"),
        ("reconcile", "pi-1"),
        ("events", "pi-1"),
        ("logs", "pi-1", "motd"),
        ("release", "pi-1", "motd"),
        ("diff", "pi-1", "-"),
    ],
)
async def test_a_command_that_does_more_is_refused_in_words(
    scene: Scene, command: tuple[str, ...]
) -> None:
    before = await scene.stands()
    (scene.bob.operators / "ada.pub").parent.mkdir(exist_ok=True)
    (scene.bob.operators / "ada.pub").write_bytes(scene.bus.home.operator_pub.read_bytes())

    said = await scene.harmony(*command, stdin=MOTD)

    assert "this key may only look" in said.err, said
    assert said.status == REFUSED
    assert await scene.stands() == before
    assert scene.bob.pending_manifest("pi-1") is None


async def test_a_record_is_compared_with_what_was_seen_of_it_though_it_may_not_be_asked_for(
    scene: Scene,
) -> None:
    """It says that the record itself was not read, and nothing of its being whole."""
    device = ScriptedDevice(scene.pi)

    async def verify(head: AuditHead) -> tuple[int, dict[str, Any]]:
        await device.report(attrs.evolve(device.state(1), audit=head))
        said = await scene.harmony("audit", "verify", "pi-1", "--json")
        (document,) = said.documents
        return said.status, document

    for _ in range(2):  # the second time, there is something to compare it with
        status, found = await verify(AuditHead(seq=7, head="a" * 64))
        (unchecked,) = found["unchecked"]
        assert "this key may only look" in unchecked["message"]
        assert (status, found["intact"], found["faults"]) == (REFUSED, False, [])
    status, found = await verify(AuditHead(seq=7, head="b" * 64))
    assert (status, found["intact"]) == (1, False)
    assert [each["kind"] for each in found["faults"]] == ["Rewritten"]
    said = await scene.harmony("audit", "verify", "pi-1")
    assert "its record was not read" in said.out
    assert "this key may only look" in said.out
    await device.report(device.state(1))


async def test_what_belongs_to_the_servers_machine_is_refused_elsewhere(scene: Scene) -> None:
    for command in (("add-agent", "pi-9"), ("revoke", "pi-1"), ("remove-operator", "bob")):
        said = await scene.harmony(*command)
        assert said.status != 0, said
    assert (await scene.harmony("retire", "pi-1", "--yes")).status != 0
    assert await scene.bus.bucket("actual-state").get("pi-1") is not None


def _consumer(stream: str, options: str) -> bytes:
    config = f'{{{options},"deliver_policy":"all","ack_policy":"none"}}'
    return f'{{"stream_name":"{stream}","config":{config}}}'.encode()


INTO_DESIRED = '"deliver_subject":"$KV.desired-state.pi-2"'
WRITES = [
    *((f"$KV.{bucket}.{key}", CHOSEN) for bucket in BUCKETS for key in ("pi-1", "pi-2", "x")),
    ("harmony.mail.pi-1.desired-state", CHOSEN),
    ("harmony.mail.pi-1.request", CHOSEN),
    ("harmony.mail.pi-2.request", CHOSEN),
    ("harmony.reply.pi-1.nonce", CHOSEN),
    ("harmony.enrol.x", CHOSEN),
    ("harmony.mailbox.x.request", CHOSEN),
    ("_INBOX.guessed", CHOSEN),
    ("$JS.API.INFO", b""),
    ("$JS.API.STREAM.NAMES", b""),
    ("$JS.API.STREAM.LIST", b""),
    ("$JS.API.STREAM.INFO.KV_desired-state", b""),
    ("$JS.API.STREAM.CREATE.SHADOW", b'{"name":"SHADOW","subjects":["$KV.actual-state.pi-2"]}'),
    ("$JS.API.STREAM.UPDATE.KV_actual-state", b'{"name":"KV_actual-state"}'),
    ("$JS.API.STREAM.DELETE.KV_desired-state", b""),
    ("$JS.API.STREAM.PURGE.KV_desired-state", b""),
    ("$JS.API.STREAM.MSG.GET.KV_desired-state", b'{"seq":1}'),
    ("$JS.API.STREAM.MSG.DELETE.KV_actual-state", b'{"seq":1}'),
    ("$JS.API.STREAM.SNAPSHOT.KV_desired-state", b'{"deliver_subject":"$KV.desired-state.pi-2"}'),
    ("$JS.API.STREAM.RESTORE.STOLEN", b"{}"),
    ("$JS.API.STREAM.LEADER.STEPDOWN.KV_desired-state", b""),
    ("$JS.API.META.LEADER.STEPDOWN", b""),
    ("$JS.API.SERVER.REMOVE", b"{}"),
    ("$JS.API.CONSUMER.NAMES.KV_actual-state", b""),
    ("$JS.API.CONSUMER.CREATE.KV_actual-state", _consumer("KV_actual-state", INTO_DESIRED)),
    (
        "$JS.API.CONSUMER.CREATE.KV_actual-state.c.$KV.actual-state.pi-1",
        _consumer(
            "KV_actual-state", f'"name":"c","filter_subject":"$KV.actual-state.pi-1",{INTO_DESIRED}'
        ),
    ),
    ("$JS.API.CONSUMER.DURABLE.CREATE.KV_desired-state.c", b"{}"),
    ("$JS.API.CONSUMER.DELETE.KV_desired-state.c", b""),
    ("$JS.API.CONSUMER.MSG.NEXT.KV_desired-state.c", b"1"),
    ("$JS.ACK.KV_desired-state.c.1.1.1.1.1", b"+ACK"),
    ("$SYS.REQ.SERVER.PING", b""),
    ("$SYS.REQ.CLAIMS.UPDATE", b"{}"),
]


@pytest.mark.parametrize(("subject", "payload"), WRITES)
async def test_whatever_is_sent_but_a_question_is_refused(
    scene: Scene, subject: str, payload: bytes
) -> None:
    before = await scene.stands()
    requests = await scene.pi.subscribe(scene.pi.mail("request"))
    scene.client.refused = ""

    await scene.client.publish(subject, payload, reply=scene.client.new_inbox())

    assert await scene.stands() == before
    assert requests.pending_msgs == 0
    assert subject.lower() in scene.client.refused.lower()
    await requests.unsubscribe()


@pytest.mark.parametrize("headers", [None, {"Nats-Trace-Dest": "$KV.desired-state.pi-2"}])
@pytest.mark.parametrize(
    "reply",
    [
        "$KV.desired-state.pi-2",
        "$KV.actual-state.pi-2",
        "harmony.mail.pi-1.request",
        "harmony.mail.pi-1.desired-state",
        "$JS.API.STREAM.PURGE.KV_desired-state",
    ],
)
@pytest.mark.parametrize(
    ("question", "body"),
    [
        ("KV_actual-state.$KV.actual-state.loot", b""),
        ("KV_actual-state", b'{"last_by_subj":"$KV.actual-state.loot"}'),
        ("KV_actual-state", b'{"multi_last":["$KV.actual-state.>"]}'),
    ],
)
async def test_an_answer_is_sent_to_nobody_else(
    scene: Scene, question: str, body: bytes, reply: str, headers: dict[str, str] | None
) -> None:
    before = await scene.stands()
    requests = await scene.pi.subscribe(scene.pi.mail("request"))

    await scene.client.publish(f"$JS.API.DIRECT.GET.{question}", body, reply=reply, headers=headers)

    assert await scene.stands() == before
    assert requests.pending_msgs == 0
    await requests.unsubscribe()


async def test_these_tests_would_see_an_injection(scene: Scene) -> None:
    before = await scene.stands()
    # The same message, by somebody inside the control plane's account.
    question = "$JS.API.DIRECT.GET.KV_actual-state.$KV.actual-state.loot"
    await scene.bus.admin.publish(question, b"", reply="$KV.desired-state.pi-2")
    await worked_off(scene.bus.admin)
    after = await scene.stands()
    assert after.keys() - before.keys() == {"desired-state.pi-2"}


@pytest.mark.parametrize(
    "subject",
    [
        ">",
        "_INBOX.>",
        "$KV.>",
        "$KV.actual-state.*",
        "harmony.>",
        "harmony.mail.>",
        "harmony.mail.*.request",
        "harmony.reply.>",
        "harmony.mailbox.>",
        "$JS.>",
        "$JS.API.DIRECT.GET.>",
        "$SYS.>",
        "_R_.>",
    ],
)
async def test_nothing_is_listened_to_but_answers(scene: Scene, subject: str) -> None:
    scene.client.refused = ""
    subscription = await _subscribed(scene.client, subject)
    await worked_off(scene.client)
    assert subject.lower() in scene.client.refused.lower()
    await subscription.unsubscribe()


async def _subscribed(client: Any, subject: str) -> Subscription:
    subscription: Subscription = await client.subscribe(subject)
    return subscription


async def test_nobody_trusts_who_may_only_look(scene: Scene) -> None:
    own = operator_key.load_public(scene.bus.home)
    assert operator_key.load_trusted(scene.bus.home) == (own,)


async def test_access_is_changed_by_letting_in_again_also_of_who_is_connected(
    tmp_path: Path,
) -> None:
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    async with serving(tmp_path / "ada", "pi-1") as bus:
        await join(bob, await asyncio.to_thread(_let_in, bus, bob, access="push"))
        async with admin(bob) as client:
            assert await _may_write(client)
            await asyncio.to_thread(_let_in, bus, bob, access="look")
            assert not (bus.home.operators / "bob.pub").exists()
            assert not await _may_write(client)
        async with admin(bob) as client:
            assert await newest(client, "KV_actual-state", "actual-state") == []
            assert not await _may_write(client)
        await asyncio.to_thread(_let_in, bus, bob, access="push")
        assert not (bus.home.readers / "bob.pub").exists()
        async with admin(bob) as client:
            assert await _may_write(client)
        await asyncio.to_thread(_let_in, bus, bob, access="look")
        async with admin(bob) as client:
            cut = asyncio.create_task(_ended(client))
            assert await asyncio.to_thread(remove_operator, bus.home, "bob") == "look"
            await asyncio.wait_for(cut, 1)
        with pytest.raises(UsageError, match="there is no operator 'bob'; there is none"):
            await asyncio.to_thread(remove_operator, bus.home, "bob")


async def _may_write(client: Client) -> bool:
    try:
        answer = await client.request("$KV.desired-class.x", b"x", timeout=1)
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    return b"error" not in answer.data


async def _ended(client: Client) -> None:
    while client.is_connected:
        await asyncio.sleep(0.001)
