"""Alerts to people: each thing once, together, until it is over; by a real hook, a real mail, a real bus."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_control.alerts.channels import Channel, EmailChannel, make_channels
from harmony_control.alerts.message import DEVICES_TOLD, Message
from harmony_control.alerts.notifier import LOOK_S, SETTLE_S, Notifier
from harmony_control.alerts.records import LEASE_S
from harmony_control.alerts.settings import Email, read_settings
from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.web.readings import Readings
from harmony_control.web.rollout_board import RolloutBoard
from harmony_core.errors import ConfigError
from tests.control.ground import command, environment, harmony
from tests.control.light_fleet import CLASS, light_fleet
from tests.control.scripted_device import ScriptedDevice, failure, page
from tests.nats import Bus, serving
from tests.ports import free_address
from tests.web.ground import read_rollouts

from .receivers import (
    SECRET,
    HookReceiver,
    receiving_hooks,
    receiving_mails,
    write_settings,
)

PATIENCE_S = 30


def row(name: str, **fields: Any) -> DeviceRow:
    made = DeviceRow(id=name, device="Online", update="UpToDate", workloads="Healthy", reason="")
    return attrs.evolve(made, **fields)


def offline(
    names: Sequence[str], site: str = "attic", reason: str = "it was not heard"
) -> list[DeviceRow]:
    labels = {"site": site}
    return [
        row(each, device="Offline", workloads="Unknown", reason=reason, labels=labels)
        for each in names
    ]


@attrs.define
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@attrs.define
class Watched:
    """What is known of a fleet, as a test says."""

    is_current: bool = True
    has_documents: bool = True
    devices: dict[str, DeviceRow] = attrs.field(factory=dict[str, DeviceRow])
    rollouts: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    root: Any = None

    def rows(self) -> list[DeviceRow]:
        return list(self.devices.values())

    def put(self, *rows: DeviceRow) -> None:
        self.devices.update({each.id: each for each in rows})


@attrs.define
class Rig:
    bus: Bus
    hook: HookReceiver
    root: Path
    watched: Watched = attrs.field(factory=Watched)
    clock: Clock = attrs.field(factory=Clock)

    async def notifier(
        self, *more: str, wait_s: float = 0, channels: Sequence[Channel] | None = None
    ) -> Notifier:
        settings = read_settings(write_settings(self.root, self.hook, *more, wait_s=wait_s))
        made = Notifier(
            self.watched,
            self.bus.admin,
            "home",
            settings,
            channels or make_channels(settings),
            clock=self.clock,
        )
        await made.begin()
        return made

    def readings(self) -> Readings:
        return Readings(Fleet(self.bus.home, self.bus.admin))

    async def look(self, notifier: Notifier, readings: Readings) -> None:
        """Look once, with rollouts and root as they are now."""
        await readings.read()
        board = RolloutBoard()
        board.take(await read_rollouts(Fleet(self.bus.home, self.bus.admin)))
        self.watched.rollouts, self.watched.root = board.looks, readings.root
        await notifier.look_once()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    with receiving_hooks() as hook:
        async with serving(tmp_path) as bus:
            yield Rig(bus, hook, tmp_path)


async def test_three_hundred_devices_of_a_site_are_one_message_and_one_that_it_is_over(
    rig: Rig,
) -> None:
    notifier = await rig.notifier()
    names = [f"pi-{each}" for each in range(300)]
    rig.watched.put(*offline(names))
    await notifier.look_once()
    await notifier.look_once()
    (message,) = rig.hook.taken
    assert rig.hook.alerts == [("firing", "DevicesOffline", "attic", 300)]
    assert message["title"] == "[home] 300 devices at attic are offline"
    assert message["text"].endswith(f"and {300 - DEVICES_TOLD} more\n")
    assert len(message["alerts"][0]["devices"]) == DEVICES_TOLD
    rig.watched.put(*(row(each, labels={"site": "attic"}) for each in names[1:]))
    await notifier.look_once()
    assert len(rig.hook.taken) == 1
    rig.watched.put(row(names[0], labels={"site": "attic"}))
    await notifier.look_once()
    await notifier.look_once()
    assert rig.hook.alerts[1:] == [("resolved", "DevicesOffline", "attic", 300)]
    rig.watched.put(*offline(names[:1]))
    await notifier.look_once()
    assert rig.hook.alerts[2:] == [("firing", "DevicesOffline", "attic", 1)]
    ids = [each["id"] for told in rig.hook.taken for each in told["alerts"]]
    assert len(set(ids)) == 3


async def test_each_kind_is_found_and_all_that_comes_together_is_one_message(rig: Rig) -> None:
    notifier = await rig.notifier(wait_s=30)
    rig.watched.put(*offline(["pi-1"]))
    await notifier.look_once()
    rig.clock.now_s += 20
    rig.watched.put(
        *offline(["pi-2"], site="cellar"),
        row("pi-3", workloads="Error", reason="1 of 1 Scores failed: web: JobFailed"),
        row("pi-4", device="Unverified", workloads="Unknown", reason="not signed"),
        row("pi-5", workloads="Degraded", degraded="DeviceCopied"),
        row("pi-6", workloads="Degraded", degraded="ForeignReport"),
        row("pi-7", device="Silent"),
        row("pi-8", device="Never"),
        row("pi-9", workloads="Degraded", degraded="CapabilityUnavailable"),
    )
    await notifier.look_once()
    assert rig.hook.taken == []
    rig.clock.now_s += 10
    await notifier.look_once()
    (message,) = rig.hook.taken
    assert message["title"] == "[home] 1 device at attic is offline, and 3 more"
    assert rig.hook.alerts == [
        ("firing", "DevicesOffline", "attic", 1),
        ("firing", "DevicesOffline", "cellar", 1),
        ("firing", "NotWhoTheySay", "", 3),
        ("firing", "WorkloadsError", "", 1),
    ]
    assert "pi-3: 1 of 1 Scores failed: web: JobFailed" in message["text"]


async def test_what_is_over_before_the_wait_is_over_is_not_told(rig: Rig) -> None:
    notifier = await rig.notifier(wait_s=30)
    rig.watched.put(*offline(["pi-1"]))
    await notifier.look_once()
    rig.watched.put(row("pi-1"))
    rig.clock.now_s += 29
    await notifier.look_once()
    rig.watched.put(*offline(["pi-1"]))
    rig.clock.now_s += 2
    await notifier.look_once()
    assert rig.hook.taken == []


async def test_of_many_more_people_are_told_again(rig: Rig) -> None:
    notifier = await rig.notifier()
    for count, told in [(1, 1), (5, 1), (6, 2), (11, 2), (12, 3)]:
        rig.watched.put(*offline([f"pi-{each}" for each in range(count)]))
        await notifier.look_once()
        assert len(rig.hook.taken) == told, count


async def test_only_the_kinds_that_are_asked_for_are_told(rig: Rig) -> None:
    notifier = await rig.notifier('kinds = ["WorkloadsError"]\n')
    rig.watched.put(*offline(["pi-1"]), row("pi-2", workloads="Error"))
    await notifier.look_once()
    assert [kind for _, kind, _, _ in rig.hook.alerts] == ["WorkloadsError"]


async def test_nothing_is_told_while_the_message_server_is_away_nor_before_hearts_beat_again(
    rig: Rig,
) -> None:
    notifier = await rig.notifier()
    rig.watched.put(row("pi-1"))
    await notifier.look_once()
    rig.watched.is_current = False
    rig.watched.put(*offline(["pi-1"]))
    await notifier.look_once()
    rig.clock.now_s += 600
    rig.watched.is_current = True
    await notifier.look_once()
    rig.clock.now_s += SETTLE_S - 1
    await notifier.look_once()
    assert rig.hook.taken == []
    rig.clock.now_s += 1
    await notifier.look_once()
    assert len(rig.hook.taken) == 1


# Side by side, broken off, and not taken.


async def test_of_two_that_look_at_the_same_time_one_tells(rig: Rig) -> None:
    notifiers = [await rig.notifier() for _ in range(4)]
    for round_ in range(5):
        rig.watched.put(*offline([f"pi-{each}" for each in range(3)]))
        await asyncio.gather(*(each.look_once() for each in notifiers))
        await asyncio.gather(*(each.look_once() for each in notifiers))
        rig.watched.put(*(row(f"pi-{each}") for each in range(3)))
        await asyncio.gather(*(each.look_once() for each in notifiers))
        await asyncio.gather(*(each.look_once() for each in notifiers))
        states = [state for state, *_ in rig.hook.alerts]
        assert states == ["firing", "resolved"] * (round_ + 1)


async def test_one_that_was_started_anew_tells_nothing_twice(rig: Rig) -> None:
    rig.watched.put(*offline(["pi-1"]))
    await (await rig.notifier()).look_once()
    again = await rig.notifier()
    await again.look_once()
    assert len(rig.hook.taken) == 1
    rig.watched.put(row("pi-1"))
    await again.look_once()
    assert [state for state, *_ in rig.hook.alerts] == ["firing", "resolved"]


class Hanging:
    """A channel that never comes to an end: its process is frozen, or has died over it."""

    name = "ops"

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> str:
        self.messages.append(message)
        await asyncio.Event().wait()
        raise AssertionError


async def test_what_one_has_claimed_and_not_told_another_tells_later_with_the_same_id(
    rig: Rig,
) -> None:
    hanging = Hanging()
    dead, living = await rig.notifier(channels=[hanging]), await rig.notifier()
    rig.watched.put(*offline(["pi-1"]))
    task = asyncio.create_task(dead.look_once())
    async with asyncio.timeout(PATIENCE_S):
        while not hanging.messages:
            await asyncio.sleep(0.01)
    await living.look_once()
    rig.clock.now_s += LEASE_S - 1
    await living.look_once()
    assert rig.hook.taken == []
    rig.clock.now_s += 2
    await living.look_once()
    assert rig.hook.taken[0]["alerts"][0]["id"] == hanging.messages[0].alerts[0].id
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_does_not_take_it_is_told_later_and_then_how_it_is_then(rig: Rig) -> None:
    notifier = await rig.notifier()
    rig.hook.status = 500
    rig.watched.put(*offline(["pi-1"]))
    tried_at: list[float] = []
    for _ in range(600):
        before = rig.hook.refused
        await notifier.look_once()
        if rig.hook.refused > before:
            tried_at.append(rig.clock.now_s)
        rig.clock.now_s += 1
    waits = [b - a for a, b in pairwise(tried_at)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256]
    rig.watched.put(*offline(["pi-2"], site="cellar"))
    rig.hook.status = 200
    rig.clock.now_s += 300
    await notifier.look_once()
    assert len(rig.hook.taken) == 1
    assert [of for _, _, of, _ in rig.hook.alerts] == ["attic", "cellar"]
    assert notifier.counts == {("ops", "sent"): 1, ("ops", "failed"): 9}


async def test_words_of_devices_steer_nothing(rig: Rig) -> None:
    notifier = await rig.notifier()
    evil = "x\r\nBcc: eve@example.com\r\n\r\n\x1b[2J" + "y" * 10_000
    with receiving_mails() as mails:
        file = rig.root / "alerts.toml"
        file.write_text(
            file.read_text()
            + f'[[email]]\nname = "night"\nhost = "127.0.0.1"\nport = {mails.port}\n'
            'tls = "none"\nsender = "harmony@example.com"\nto = ["ada@example.com"]\n'
        )
        settings = read_settings(file)
        notifier = Notifier(
            rig.watched, rig.bus.admin, "home", settings, make_channels(settings), clock=rig.clock
        )
        await notifier.begin()
        rig.watched.put(*offline(["pi-1"], site="at\r\nBcc: eve@example.com", reason=evil))
        await notifier.look_once()
        (mail,) = mails.taken
    assert mails.recipients == [["ada@example.com"]]
    assert mail["Bcc"] is None
    assert str(mail["To"]) == "ada@example.com"
    assert "\\r\\nBcc" in str(mail["Subject"])
    text = mail.get_content()
    assert "\x1b" not in text
    assert len(text) < 1_000
    assert "\x1b" not in rig.hook.taken[0]["text"]


async def test_mail_that_is_refused_for_one_is_told_as_that() -> None:
    with receiving_mails() as mails:
        mails.refuses = frozenset({"bob@example.com"})
        settings = Email(
            name="night",
            host="127.0.0.1",
            port=mails.port,
            tls="none",
            sender="Harmony <harmony@example.com>",
            to=("ada@example.com", "bob@example.com"),
        )
        channel = EmailChannel(settings)
        assert await channel.send(_message()) == "it refuses bob@example.com"
        safe = EmailChannel(settings.model_copy(update={"tls": "starttls"}))
        assert "STARTTLS" in await safe.send(_message())
    assert "Error" in await channel.send(_message())
    assert len(mails.taken) == 1


def _message() -> Message:
    from harmony_control.alerts.message import Alert

    alert = Alert(id="1", state="test", kind=None, of="", count=1, devices={})
    return Message(fleet="home", alerts=[alert])


async def test_an_aborted_rollout_is_told_with_why(tmp_path: Path) -> None:
    with receiving_hooks() as hook:
        async with light_fleet(tmp_path, 2) as devices:
            await devices.publish("one", ["100%"])
            await devices.look()
            rig = Rig(devices.bus, hook, tmp_path)
            notifier, readings = await rig.notifier(), rig.readings()
            await rig.look(notifier, readings)
            assert hook.taken == []
            await devices.rollout().order("abort", "it is too slow")
            await rig.look(notifier, readings)
            await rig.look(notifier, readings)
            assert hook.alerts == [("firing", "RolloutAborted", f"{CLASS}/1", 1)]
            assert "it is too slow" in hook.taken[0]["text"]


async def test_what_is_not_read_yet_or_not_asked_for_any_more_is_not_told_as_over(
    tmp_path: Path,
) -> None:
    with receiving_hooks() as hook:
        async with light_fleet(tmp_path, 2) as devices:
            await devices.publish("one", ["100%"])
            await devices.rollout().order("abort")
            rig = Rig(devices.bus, hook, tmp_path)
            rig.watched.put(*offline(["pi-1"]))
            await rig.look(await rig.notifier(), rig.readings())
            assert len(hook.taken) == 1
            again = Rig(devices.bus, hook, tmp_path, Watched(has_documents=False))
            again.watched.put(*offline(["pi-1"]))
            await (await again.notifier()).look_once()
            again.watched.put(row("pi-1"))
            await (await again.notifier('kinds = ["WorkloadsError"]\n')).look_once()
            assert len(hook.taken) == 1
            await (await again.notifier()).look_once()
            assert hook.alerts[2:] == [("resolved", "DevicesOffline", "attic", 1)]


async def test_a_root_document_that_ends_soon_is_told_until_it_is_renewed(rig: Rig) -> None:
    notifier, readings = await rig.notifier(), rig.readings()
    said = await harmony(rig.bus.home, "trust", "init", "--expires-in", "5d")
    assert said.status == 0, said.err
    await rig.look(notifier, readings)
    await rig.look(notifier, readings)
    said = await harmony(rig.bus.home, "trust", "renew", "--expires-in", "365d")
    assert said.status == 0, said.err
    await rig.look(notifier, readings)
    assert rig.hook.alerts == [
        ("firing", "RootExpires", "1", 1),
        ("resolved", "RootExpires", "1", 1),
    ]


# By the command.


async def test_two_servers_beside_each_other_tell_once_what_a_device_reports(
    tmp_path: Path,
) -> None:
    """Also where one is frozen meanwhile."""
    with receiving_hooks() as hook:
        file = write_settings(tmp_path, hook)
        async with serving(tmp_path, "pi-1") as bus, asyncio.timeout(50):
            device = ScriptedDevice(await bus.device("pi-1"))
            async with AsyncExitStack() as stack:
                first, _ = [await stack.enter_async_context(_serving(bus, file)) for _ in range(2)]
                first.send_signal(signal.SIGSTOP)
                await device.report(device.state(0, {"web": page(failure("JobFailed", "x"), 0)}))
                await device.beat()
                await _taken(hook, 1)
                first.send_signal(signal.SIGCONT)
                await asyncio.sleep(2 * LOOK_S)
                await device.report(device.state(0))
                await _taken(hook, 2)
    assert hook.alerts == [
        ("firing", "WorkloadsError", "", 1),
        ("resolved", "WorkloadsError", "", 1),
    ]


@asynccontextmanager
async def _serving(bus: Bus, file: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command("serve", "--listen", free_address(), "--alerts", str(file), "--json"),
        env=environment(bus.home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert b"serve" in await process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        await process.communicate()


async def _taken(hook: HookReceiver, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(hook.taken) < count:
            await asyncio.sleep(0.05)


async def test_everybody_can_be_tried(tmp_path: Path) -> None:
    with receiving_hooks() as hook, receiving_mails() as mails:
        file = write_settings(tmp_path, hook)
        file.write_text(
            file.read_text()
            + f'[[email]]\nname = "night"\nhost = "127.0.0.1"\nport = {mails.port}\n'
            'tls = "none"\nsender = "harmony@example.com"\nto = ["ada@example.com"]\n'
        )
        async with serving(tmp_path) as bus:
            said = await harmony(bus.home, "alerts", "test", str(file))
            assert (said.status, said.out) == (
                0,
                "ops: a test was taken\nnight: a test was taken\n",
            )
            hook.status = 404
            said = await harmony(bus.home, "alerts", "test", str(file), "--json")
    assert said.status == 1
    assert [(each["channel"], each["ok"], each["problem"]) for each in said.documents] == [
        ("ops", False, "it answers with 404"),
        ("night", True, ""),
    ]
    assert mails.taken[0]["Subject"] == "[home] a test of harmony's alerts: nothing is wrong"
    assert [each["state"] for each in hook.taken[0]["alerts"]] == ["test"]


HOOK = '[[webhook]]\nname = "ops"\nurl = "https://example.com/"\nsecret_file = "secret"\n'
MAIL = '[[email]]\nname = "ops"\nhost = "h"\nsender = "a@b.c"\nto = ["d@e.f"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"neither a \[\[webhook\]\] nor an \[\[email\]\]"),
        ("= 1", "is no TOML"),
        (HOOK + "colour = 1\n", "colour"),
        (HOOK.replace("https://example.com/", "http://example.com/"), "must be https"),
        (HOOK.replace("https://example.com/", "file:///etc/passwd"), "must be https"),
        (HOOK.replace('"secret"', '"nowhere"'), "cannot read"),
        (HOOK.replace('"secret"', '"short"'), "at least 16 characters"),
        (HOOK + 'ca_file = "secret"\n', "cannot be used as an authority"),
        (HOOK + MAIL, "the name ops is used twice"),
        (MAIL + 'user = "u"\n', "belong together"),
        (MAIL + 'user = "u"\npassword_file = "secret"\ntls = "none"\n', "not sent in clear"),
        (MAIL.replace("d@e.f", "nobody"), "must be an e-mail address"),
        (MAIL.replace("d@e.f", "d@e.f\\nBcc: x@y.z"), "must be an e-mail address"),
        ('kinds = ["Weather"]\n' + HOOK, "kinds"),
        ("wait_s = -1\n" + HOOK, "wait_s"),
    ],
)
def test_a_file_that_is_wrong_says_what_to_correct(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "short").write_text("short")
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_settings(file)


async def test_a_file_that_is_wrong_ends_the_command(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        said = await harmony(bus.home, "serve", "--alerts", str(tmp_path / "nowhere.toml"))
        assert said.status == 2
        assert "cannot read" in said.err
        said = await harmony(bus.home, "alerts", "test", str(tmp_path / "nowhere.toml"), "--json")
        assert json.loads(said.err)["error"]["code"] == "ConfigError"
