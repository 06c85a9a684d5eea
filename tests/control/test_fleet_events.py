"""The events of a whole fleet: of real agents by the command, and who is asked of how many."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_control.bus.requests import Event
from harmony_control.fleet import DeviceRow
from harmony_control.fleet_view.events import (
    FleetEvent,
    Untold,
    following_events,
    read_events,
)
from harmony_core.errors import ConfigError, NoAnswer
from harmony_core.wire.audit import AuditHead
from harmony_scores import FileScore
from tests.nats import serving

from .ground import harmony, running_command
from .rollout_scene import Scene, serving_scene
from .scripted_device import ScriptedDevice


async def push(scene: Scene, agent_id: str, text: str) -> None:
    score = FileScore(path="/etc/motd", content=text)
    await scene.fleet.device(agent_id).push(score, id="motd")


async def test_the_changes_of_all_devices_come_by_time(tmp_path: Path) -> None:
    async with serving_scene(tmp_path, 3) as scene:
        for agent_id, text in [("pi-2", "a"), ("pi-1", "b"), ("pi-2", "c")]:
            await push(scene, agent_id, text)
        said = await harmony(scene.bus.home, "events", "--fleet", "--json")
        assert (said.status, said.err) == (0, "")
        assert [each["agent_id"] for each in said.documents] == ["pi-2", "pi-1", "pi-2"]
        assert [each["at"] for each in said.documents] == sorted(
            each["at"] for each in said.documents
        )
        assert {each["why"] for each in said.documents} == {"desired"}
        said = await harmony(scene.bus.home, "events", "--fleet", "--lines", "1", "-o", "json")
        assert [(each["agent_id"], each["generation"]) for each in said.documents] == [("pi-2", 2)]
        await scene.fleet.device("pi-1").label({"site": "attic"})
        said = await harmony(scene.bus.home, "events", "--fleet", "--where", "labels.site == attic")
        assert said.status == 0
        first, second = said.out.splitlines()[:2]
        assert first.split()[2:4] == ["pi-1", "motd"]
        assert second.startswith("  + file:/etc/motd")
        assert "pi-2" not in said.out
        said = await harmony(scene.bus.home, "events", "--fleet", "--since", "2090-01-01")
        assert (said.status, said.out) == (0, "")


def following(scene: Scene, *more: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return running_command(scene.bus.home, "events", "--fleet", "-f", "--json", *more)


async def test_what_any_device_changes_is_told_as_it_comes(tmp_path: Path) -> None:
    async with (
        serving_scene(tmp_path, 2) as scene,
        asyncio.timeout(50),
    ):
        await push(scene, "pi-1", "before")
        async with following(scene) as process:
            assert process.stdout is not None

            async def told() -> tuple[str, str]:
                assert process.stdout is not None
                found = json.loads(await process.stdout.readline())
                return found["agent_id"], found["why"]

            assert await told() == ("pi-1", "desired")
            await push(scene, "pi-2", "one")
            assert await told() == ("pi-2", "desired")
            scene.files["pi-1"].write("/etc/motd", b"fiddled\n")
            assert await told() == ("pi-1", "drift")
            await push(scene, "pi-1", "two")
            assert await told() == ("pi-1", "desired")
            process.send_signal(signal.SIGINT)
            rest, err = await process.communicate()
    assert (process.returncode, rest) == (130, b"")
    assert b"Traceback" not in err


async def test_who_does_not_tell_is_named_once_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with serving(tmp_path, *(f"pi-{each}" for each in range(1, 6))) as bus:
        for name in ("pi-1", "pi-2", "pi-3", "pi-4"):
            device = ScriptedDevice(await bus.device(name))
            head = AuditHead(seq=0 if name == "pi-1" else 3, head="a" * 64)
            await device.report(attrs.evolve(device.state(0), audit=head))
        said = await harmony(bus.home, "events", "--fleet", "--json")
    assert (said.status, said.out) == (0, "")
    (warned,) = [json.loads(each)["warning"] for each in said.err.splitlines()]
    assert warned.startswith("what 4 devices are to tell is missing here: pi-2 (it is ")
    assert warned.endswith("and 1 more")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fleet", "pi-1"), "choose some of them with --where"),
        ((), "name a device, or give --fleet"),
        (("pi-1", "--where", "id == pi-1"), "give --fleet in place of the device"),
        (("--fleet", "--where", "colour == red"), "colour"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    found = await harmony(tmp_path, "events", *arguments)
    assert found.status == 2
    assert said in found.err


# Who is asked, of how many.


def row(name: str, events: int | None, device: Any = "Online", **fields: Any) -> DeviceRow:
    made = DeviceRow(id=name, device=device, update="UpToDate", workloads="Healthy", reason="")
    return attrs.evolve(made, events=events, **fields)


class Records:
    """What devices have noted, and each question to one: whose, and after which number."""

    def __init__(self) -> None:
        self.noted: dict[str, int] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.silent: set[str] = set()
        self._rows: asyncio.Queue[list[DeviceRow]] = asyncio.Queue()

    def put(self, *rows: DeviceRow) -> None:
        self.noted.update({each.id: each.events or 0 for each in rows})
        self._rows.put_nowait(list(rows))

    async def read(self, agent_id: str, *, after: int | None) -> list[Event]:
        self.asked.append((agent_id, after))
        await asyncio.sleep(0)
        if agent_id in self.silent:
            raise NoAnswer("it does not answer")
        return [
            {"seq": seq, "at": f"2026-01-01T00:00:{seq:02}Z"}
            for seq in range((after or 0) + 1, self.noted[agent_id] + 1)
        ]

    @asynccontextmanager
    async def watch_rows(self) -> AsyncGenerator[AsyncIterator[list[DeviceRow]]]:
        async def lists() -> AsyncGenerator[list[DeviceRow]]:
            while True:
                yield await self._rows.get()

        async with aclosing(lists()) as told:
            yield told


def events_of(told: Iterable[FleetEvent | Untold]) -> list[tuple[str, object]]:
    return [(each.agent_id, each.event["seq"]) for each in told if isinstance(each, FleetEvent)]


async def test_who_has_noted_nothing_is_not_asked() -> None:
    records = Records()
    rows = [row(f"pi-{each}", 0) for each in range(1_000)] + [row("pi-old", None), row("pi-new", 2)]
    records.put(*rows)
    assert events_of(await read_events(rows, records.read, lines=100)) == [
        ("pi-new", 1),
        ("pi-new", 2),
    ]
    assert sorted(records.asked) == [("pi-new", None), ("pi-old", None)]


async def test_of_a_thousand_only_who_has_noted_more_is_asked_again() -> None:
    records = Records()
    records.put(*(row(f"pi-{each}", 1) for each in range(1_000)))
    async with (
        asyncio.timeout(20),
        following_events(records.watch_rows, records.read, lambda _: True, lines=5) as told,
    ):
        assert len([await anext(told) for _ in range(5)]) == 5
        assert len(records.asked) == 1_000
        records.asked.clear()
        records.put(row("pi-7", 3), *(row(f"pi-{each}", 1, scores=9) for each in range(100, 900)))
        assert events_of([await anext(told), await anext(told)]) == [("pi-7", 2), ("pi-7", 3)]
        records.put(row("pi-new", 1, "Online"))
        assert events_of([await anext(told)]) == [("pi-new", 1)]
        assert records.asked == [("pi-7", 1), ("pi-new", 0)]


async def test_who_is_let_in_anew_under_a_name_that_was_retired_tells_all() -> None:
    records = Records()
    records.put(row("pi-1", 5))
    async with (
        asyncio.timeout(20),
        following_events(records.watch_rows, records.read, lambda _: True, lines=1) as told,
    ):
        assert events_of([await anext(told)]) == [("pi-1", 5)]
        records.put(attrs.evolve(row("pi-1", 5), is_gone=True))
        records.put(row("pi-1", 2))
        assert events_of([await anext(told), await anext(told)]) == [("pi-1", 1), ("pi-1", 2)]


async def test_who_was_away_or_did_not_answer_tells_later_what_it_has_noted() -> None:
    records = Records()
    records.put(row("pi-1", 2, "Offline"), row("pi-2", 0))
    async with (
        asyncio.timeout(20),
        following_events(records.watch_rows, records.read, lambda _: True, lines=5) as told,
    ):
        assert await anext(told) == Untold({"pi-1": "it is Offline"})
        records.put(row("pi-1", 4))
        assert events_of([await anext(told), await anext(told)]) == [("pi-1", 3), ("pi-1", 4)]
        records.silent.add("pi-2")
        records.put(row("pi-2", 1))
        assert await anext(told) == Untold({"pi-2": "it does not answer"})
        records.silent.clear()
        records.put(row("pi-2", 2))
        assert events_of([await anext(told), await anext(told)]) == [("pi-2", 1), ("pi-2", 2)]


async def test_who_is_not_chosen_is_never_asked_also_once_it_is_chosen_for_what_was_before() -> (
    None
):
    records = Records()
    chosen = {"site": "attic"}
    records.put(row("pi-1", 1), row("pi-2", 1, labels=chosen))
    async with (
        asyncio.timeout(20),
        following_events(
            records.watch_rows, records.read, lambda each: "site" in each.labels, lines=5
        ) as told,
    ):
        assert events_of([await anext(told)]) == [("pi-2", 1)]
        records.put(row("pi-1", 5))
        records.put(row("pi-1", 6, labels=chosen))
        assert events_of([await anext(told)]) == [("pi-1", 6)]
        assert records.asked == [("pi-2", None), ("pi-1", 5)]


async def test_what_is_no_device_s_matter_is_raised_while_it_is_followed() -> None:
    records = Records()

    async def read(agent_id: str, *, after: int | None) -> list[Event]:
        raise ConfigError("there is no key here")

    records.put(row("pi-1", 0))
    async with (
        asyncio.timeout(20),
        following_events(records.watch_rows, read, lambda _: True, lines=5) as told,
    ):
        records.put(row("pi-1", 1))
        with pytest.raises(ConfigError, match="there is no key here"):
            await anext(told)
