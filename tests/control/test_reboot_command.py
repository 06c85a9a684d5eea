"""``harmony reboot``, as a person types it: whole agents, which go down and come back in another boot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import attrs
import pytest

from harmony_control.fleet import Fleet
from harmony_core import plugins
from harmony_core.errors import CapabilityUnavailable
from harmony_core.reconciler import MemoryRecords
from harmony_core.testing import FakeReboots
from harmony_scores import FileScore
from tests.agent.asking import LoggingFiles
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving

MOTD = FileScore(path="/etc/motd", content="hello\n")
_BOOT: ContextVar[str] = ContextVar("boot")
"""In which boot the device is whose agent is being put together."""


class Power(FakeReboots):
    """Goes down when it is asked to; ``asked_whether`` is set once somebody has asked who says "not now"."""

    def __init__(self) -> None:
        super().__init__(MemoryRecords())
        self.down, self.asked_whether = asyncio.Event(), asyncio.Event()
        self.takes_s = 0.5
        """So long it is still there: mostly long enough for the end of its answer."""

    async def find_obstacles(self) -> list[str]:
        self.asked_whether.set()
        return self.obstacles

    async def reboot(self) -> None:
        await super().reboot()
        asyncio.get_running_loop().call_later(self.takes_s, self.down.set)


@attrs.define
class Pi:
    """A device that boots."""

    id: str
    files: LoggingFiles = attrs.field(factory=LoggingFiles)
    power: Power = attrs.field(factory=Power)
    boots: int = 0
    comes_back: bool = True
    at_boot: Callable[[], None] = lambda: None
    """What has become of it meanwhile."""

    async def live(self, bus: Bus, root: Path) -> None:
        while self.comes_back or not self.boots:
            self.boots += 1
            _BOOT.set(f"{self.id}-boot-{self.boots}")
            self.power.down.clear()
            async with running_agent(
                bus.home,
                self.id,
                root / self.id,
                registry=plugins.load(),
                offers={"FileSystemHost": self.files, "RebootHost": self.power},
                missing={},
            ):
                await self.power.down.wait()
            self.at_boot()


@attrs.frozen
class Place:
    bus: Bus
    fleet: Fleet
    pis: Mapping[str, Pi]

    async def harmony(self, *arguments: str) -> Said:
        async with asyncio.timeout(60):
            return await harmony(self.bus.home, "reboot", *arguments)

    @property
    def boots(self) -> list[int]:
        return [each.boots for each in self.pis.values()]


@asynccontextmanager
async def fleet_of(root: Path, *ids: str) -> AsyncGenerator[Place]:
    """These devices, each with a Score that is in order; *pi-9* is enrolled, and was never heard of."""
    async with serving(root, *ids, "pi-9") as bus, Fleet.connect(bus.home) as fleet:
        place = Place(bus, fleet, {each: Pi(each) for each in ids})
        lives = [asyncio.create_task(each.live(bus, root)) for each in place.pis.values()]
        try:
            for each in ids:
                await fleet.device(each).put_and_wait({"motd": MOTD})
            yield place
            assert not [each for each in lives if each.done() and each.exception()]
        finally:
            for task in lives:
                task.cancel()
            await asyncio.wait(lives)


@pytest.fixture(autouse=True)
def its_own_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmony_agent.wiring.boot_id", _BOOT.get)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with fleet_of(tmp_path, "pi-1") as place:
        yield place


def lines(said: Said) -> list[str]:
    return [" ".join(line.split()) for line in said.out.splitlines()]


async def test_it_goes_down_and_is_waited_for_until_its_scores_are_in_order(place: Place) -> None:
    said = await place.harmony("pi-1")
    assert said.status == 0, said
    assert lines(said) == ["pi-1 rebooting", "pi-1 converged, in another boot"]
    state = await place.fleet.device("pi-1").state()
    assert state is not None
    assert (state.boot_id, place.boots) == ("pi-1-boot-2", [2])
    assert all(each.looked_at for each in state.scores.values())
    async with place.fleet.device("pi-1").events() as events:
        last = [event async for event in events][-1]
    assert (last["why"], last["resource"]) == ("request", "reboot:device")

    told = (await place.harmony("pi-1", "--json")).documents
    assert [each["event"] for each in told] == ["rebooting", "converged"]
    assert told[1]["boot_id"] == "pi-1-boot-3"


async def test_one_that_is_gone_before_its_answer_has_ended_is_waited_for_as_well(
    place: Place,
) -> None:
    place.pis["pi-1"].power.takes_s = 0
    said = await place.harmony("pi-1")
    assert (said.status, place.boots) == (0, [2])
    assert lines(said)[-1] == "pi-1 converged, in another boot"


async def test_without_waiting_it_is_over_once_the_device_goes_down(place: Place) -> None:
    said = await place.harmony("pi-1", "--no-wait")
    assert (said.status, lines(said)) == (0, ["pi-1 rebooting"])


async def test_only_where_a_boot_is_needed_if_that_was_asked(place: Place) -> None:
    said = await place.harmony("pi-1", "--if-needed")
    assert (said.status, lines(said)) == (0, ["pi-1 not needed: nothing awaits a boot"])
    assert place.boots == [1]
    pi = place.pis["pi-1"]
    pi.power.system_reasons.append("linux-image-rpi-v8")
    pi.at_boot = pi.power.system_reasons.clear
    said = await place.harmony("pi-1", "--if-needed")
    assert lines(said)[0] == "pi-1 rebooting, awaited by the system (linux-image-rpi-v8)"
    assert (said.status, place.boots) == (0, [2])


async def test_while_somebody_installs_it_is_asked_again_and_named(place: Place) -> None:
    power = place.pis["pi-1"].power
    power.obstacles = ["apt: upgrades packages"]
    running = asyncio.create_task(place.harmony("pi-1"))
    await power.asked_whether.wait()
    power.obstacles = []
    said = await running
    assert said.status == 0, said
    assert lines(said) == [
        "pi-1 not yet: pi-1: apt: upgrades packages",
        "pi-1 rebooting",
        "pi-1 converged, in another boot",
    ]


@pytest.mark.parametrize("patience", ["--no-wait", "--timeout=1"])
async def test_4_where_somebody_says_not_now_for_too_long(place: Place, patience: str) -> None:
    place.pis["pi-1"].power.obstacles = ["apt: upgrades packages"]
    said = await place.harmony("pi-1", patience)
    assert (said.status, said.out) == (4, "")
    assert "apt: upgrades packages" in said.err
    assert place.boots == [1]


async def test_1_for_a_score_that_fails_since(place: Place) -> None:
    pi = place.pis["pi-1"]

    def break_down() -> None:
        pi.files.delete("/etc/motd")
        pi.files.full = True

    pi.at_boot = break_down
    said = await place.harmony("pi-1", "--timeout", "10")
    assert said.status == 1, said
    assert lines(said)[0] == "pi-1 rebooting"
    assert lines(said)[1].startswith("pi-1 motd: FAILURE WriteFailed (again at ")


async def test_what_had_failed_before_in_the_same_way_is_not_waited_for(place: Place) -> None:
    files = place.pis["pi-1"].files
    files.full = True
    device = place.fleet.device("pi-1")
    await device.put_and_wait({"more": FileScore(path="/etc/more", content="x")})
    said = await place.harmony("pi-1")  # for ten minutes, otherwise
    assert said.status == 1, said
    assert lines(said)[1].startswith("pi-1 more: FAILURE WriteFailed")
    assert place.boots == [2]


async def test_3_where_a_device_cannot_be_booted_and_1_where_it_will_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = place.pis["pi-1"].power
    power.refuses = True
    said = await place.harmony("pi-1", "--no-wait")
    assert said.status == 4
    assert "it was refused: systemd-logind is stopping" in said.err

    async def lost(*_: object, **__: object) -> None:
        raise CapabilityUnavailable("the bus is away")

    monkeypatch.setattr(power, "find_system_reasons", lost)
    said = await place.harmony("pi-1", "--no-wait")
    assert said.status == 1
    assert "pi-1: CapabilityUnavailable: the bus is away" in said.err
    assert place.boots == [1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "name the devices"),
        (("pi-1", "--where", "device == Online"), 2, "name the devices"),
        (("pi-1", "--serial", "--no-wait"), 2, "--serial waits"),
        (("nosuch",), 2, "nosuch"),
        (("x*",), 2, "no device is called 'x*'"),
        (("pi-9",), 4, "pi-9 has never reported"),
    ],
)
async def test_what_cannot_be_meant_boots_nothing(
    place: Place, arguments: tuple[str, ...], status: int, said: str
) -> None:
    heard = await place.harmony(*arguments)
    assert heard.status == status, heard
    assert said in heard.err
    assert place.boots == [1]


async def test_several_are_booted_side_by_side_or_one_after_another(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "pi-1", "pi-2", "pi-3") as place:
        said = await place.harmony("pi-1,pi-2", "pi-3")
        assert said.status == 0, said
        assert sorted(lines(said)[:3]) == [f"pi-{n} rebooting" for n in (1, 2, 3)]
        assert lines(said)[-1] == "3 of 3 devices converged"
        assert place.boots == [2, 2, 2]

        said = await place.harmony("pi-*", "--serial", "--yes", "--where=device == Online")
        assert said.status == 2
        # Whom it stands for is asked, and nobody is there to answer.
        assert (await place.harmony("pi-[12]")).status == 2
        assert place.boots == [2, 2, 2]

        said = await place.harmony("pi-[12]", "--serial", "--yes")
        assert said.status == 0, said
        assert lines(said) == [
            "2 devices: pi-1, pi-2",
            "pi-1 rebooting",
            "pi-1 converged, in another boot",
            "pi-2 rebooting",
            "pi-2 converged, in another boot",
            "2 of 2 devices converged",
        ]

        place.pis["pi-2"].comes_back = False
        said = await place.harmony("pi-1,pi-2,pi-3", "--serial", "--timeout", "5")
        assert said.status == 4, said
        assert lines(said)[-2:] == [
            "1 of 2 devices converged",
            "not rebooted, since pi-2 is not in order: pi-3",
        ]
        assert "pi-2 NoAnswer: pi-2 is not back out of another boot within 5 s" in said.out.replace(
            "                 ", " "
        )
        assert place.boots == [4, 3, 2]
