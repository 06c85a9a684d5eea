"""Whatever happens to a real Pi in whatever order: once it is quiet, it is what its newest manifest says.

The sister of `tests/agent/test_engine_at_random.py`, over real systemd, podman and files, with the agent as
it is installed. In each round there are a few steps at random: manifests, somebody else's hands, kill -9, a
pulled cable, a control plane that is away, a reboot in order, or after everything was killed at once. Then
all is mended, and

* what is wanted is there, what is not wanted any more is gone, what stood there before is back;
* what the agent tells is what the device's own tools say, and no generation ever went back;
* what is foreign was not touched; and where there is nothing to do, nothing is done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import pytest

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_control.push.entries import Entry
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, heard_again
from tests.fleet.things import AContainer, ADirectory, AFile, AUnit, Foreign, Thing
from tests.soak import runs, seed

STEPS = 8
QUIET_WITHIN_S = 120
COLOURS = ("red", "blue")


@pytest.fixture(scope="module")
def pi(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    box = boot()
    plane.enrol(box, drop_in="RestartSec=100ms")
    return box


@attrs.frozen
class Want:
    """That a thing be there in this colour, made by a Score of this id."""

    thing: Thing
    colour: str
    score: str
    after: tuple[str, ...]


@attrs.define
class World:
    """One Pi, its control plane, and everything that can happen to them."""

    plane: ControlPlane
    host: Host
    things: list[Thing]
    foreign: Foreign
    dice: random.Random
    wants: dict[str, Want] = attrs.field(factory=dict[str, Want])
    """By the thing's name."""
    touched: set[str] = attrs.field(factory=set[str])
    is_up: bool = True
    """The control plane."""
    newest: int = 0
    """The generation that was pushed last."""
    seen: int = 0
    """The newest generation that the device ever told of."""
    ran_on: dict[str, object] = attrs.field(factory=dict[str, object])

    @asynccontextmanager
    async def device(self) -> AsyncGenerator[Device[PiTopology]]:
        async with Fleet.connect(self.plane.home) as fleet:
            yield fleet.device(self.host.box.name)

    async def step(self) -> None:
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self.somebody_pushes: 4,
            self.somebody_meddles: 5,
            self.the_agent_is_killed: 3,
            self.the_cable_is_moved: 2,
            self.the_control_plane_is_switched: 1,
            self.it_boots: 2,
        }
        (step,) = self.dice.choices(list(steps), list(steps.values()))
        await step()
        await self.passes(self.dice.choice([0.0, 0.1, 0.5, 1.5, 3.0]))
        await self.generation_never_went_back()

    async def passes(self, seconds: float) -> None:
        print(f"  {seconds:g} s")
        await asyncio.sleep(seconds)

    async def somebody_pushes(self) -> None:
        if self.is_up:
            chosen = [each for each in self.things if self.dice.random() < 0.7]
            await self.push({each.name: self.want(each) for each in chosen})

    def want(self, thing: Thing) -> Want:
        score = thing.name + self.dice.choice(["", "-renamed"])
        return Want(thing, self.dice.choice(COLOURS), score, after=())

    async def push(self, wants: dict[str, Want]) -> None:
        self.dice.shuffle(ordered := list(wants.values()))
        for number, each in enumerate(ordered[1:]):
            if self.dice.random() < 0.2:
                before = self.dice.choice(ordered[: number + 1]).score
                wants[each.thing.name] = attrs.evolve(each, after=(before,))
        print("pushed:", *(f"{each.score}={each.colour}" for each in wants.values()))
        entries = {
            each.score: Entry(each.thing.score(each.colour), after=each.after)
            for each in wants.values()
        }
        gone = {each.score for each in self.wants.values()} - entries.keys()
        async with self.device() as device:
            self.newest = (await device.put(entries, remove=gone)).generation
        self.wants = wants

    async def somebody_meddles(self) -> None:
        for thing in self.dice.sample(self.things, self.dice.randint(1, 3)):
            deed = self.dice.choice(thing.deeds)
            print("by hand:", deed)
            self.touched.add(thing.name)
            await asyncio.to_thread(self.host.box.run, ["sh", "-c", deed], check=False)

    async def the_agent_is_killed(self) -> None:
        print("killed")
        command = ["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT]
        self.host.box.run(command, check=False)

    async def the_cable_is_moved(self) -> None:
        pull = self.dice.choice([True, False])
        print("the cable is", "out" if pull else "in")
        (self.host.box.cut_network if pull else self.host.box.restore_network)()

    async def the_control_plane_is_switched(self) -> None:
        print("the control plane is", "away" if self.is_up else "back")
        await asyncio.to_thread(self.plane.stop if self.is_up else self.plane.start)
        self.is_up = not self.is_up

    async def it_boots(self) -> None:
        in_order = self.dice.choice([True, False])
        print("rebooted" if in_order else "everything killed, and booted")
        self.ran_on_so_far()
        await asyncio.to_thread(self.host.box.reboot if in_order else self.is_killed_as_a_whole)
        # A container that nobody starts at boot stays down, and that is how it is left, too.
        self.ran_on = self.foreign.passing(self.host)

    def is_killed_as_a_whole(self) -> None:
        self.host.box.power_cut()
        self.host.box.power_on()

    def ran_on_so_far(self) -> None:
        assert self.foreign.passing(self.host) == self.ran_on

    async def generation_never_went_back(self) -> None:
        if not self.is_up:
            return
        async with self.device() as device:
            state = await device.state()
        if state is not None:
            assert self.seen <= state.generation <= self.newest
            assert state.observed_generation <= state.generation
            self.seen = state.generation

    async def is_mended(self) -> None:
        print("mended")
        self.host.box.restore_network()
        if not self.is_up:
            await self.the_control_plane_is_switched()

    async def comes_to_rest(self) -> None:
        """Nothing is wrong any more, and what is told is true; then nothing is done any more."""
        async with self.device() as device:
            left: list[str] = []
            try:
                async with asyncio.timeout(QUIET_WITHIN_S):
                    while left := await self.amiss(device):
                        await asyncio.sleep(0.5)
            except TimeoutError:
                raise AssertionError(f"it did not come to rest: {left}") from None
            before = self.identities()
            await heard_again(device)
            async with device.reconcile() as looked:
                async for _ in looked:
                    pass
            assert await self.amiss(device) == []
            assert self.identities() == before
        self.ran_on_so_far()

    async def amiss(self, device: Device[PiTopology]) -> list[str]:
        await self.generation_never_went_back()
        state = await device.state()
        if state is None or state.observed_generation != self.newest:
            return [f"it tells of {state and state.observed_generation}, not {self.newest}"]
        try:
            return await asyncio.to_thread(lambda: self.wrong() or self.untrue(state))
        except FileNotFoundError as error:
            return [f"{error.filename} went while it was looked at"]

    def wrong(self) -> list[str]:
        colours = {name: want.colour for name, want in self.wants.items()}
        return [
            each
            for thing in self.things
            for each in thing.wrong(
                self.host, colours.get(thing.name), touched=thing.name in self.touched
            )
        ]

    def untrue(self, state: ActualState) -> list[str]:
        wanted = {each.score: each.thing for each in self.wants.values()}
        if state.scores.keys() != wanted.keys():
            return [f"it tells of {sorted(state.scores)}, not of {sorted(wanted)}"]
        found: list[str] = []
        for name, page in state.scores.items():
            if page.outcome.status not in {"SUCCESS", "NOOP"}:
                found.append(f"{name}: {page.outcome}")
            elif page.observed_generation != state.generation:
                found.append(f"{name} was last looked at under {page.observed_generation}")
            else:
                (told_of,) = page.resources.values()
                found += wanted[name].untrue(self.host, told_of)
        return found

    def hands_are_off(self) -> None:
        """Whoever meddled cleans up; everything else has to be clean."""
        for each in self.things:
            if each.name in self.touched:
                each.lay(self.host)
        self.touched.clear()

    def identities(self) -> Mapping[str, object]:
        wanted = [each.thing for each in self.wants.values()]
        return self.host.identities(
            files=[each.path for each in wanted if isinstance(each, AFile)],
            units=[each.unit for each in wanted if isinstance(each, AUnit)],
            containers=[each.name for each in wanted if isinstance(each, AContainer)],
        )


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_whatever_happens_to_a_pi_it_comes_to_rest_as_its_newest_manifest_says(
    plane: ControlPlane, pi: Box, host: Host, bed: Bed
) -> None:
    dice = random.Random(seed(f"{STEPS} steps each"))
    image = bed.registry.push_busybox("web", "1")
    foreign = Foreign(image)
    foreign.lay(host)
    lasting = foreign.lasting(host)
    world = World(plane, host, things(image), foreign, dice)
    world.ran_on = foreign.passing(host)
    for each in world.things:
        each.lay(host)
    empty = names(host)
    try:
        for round_ in range(1, runs(20, part=20) + 1):
            print(f"round {round_}")
            await world.somebody_pushes()
            for _ in range(STEPS - 1):
                await world.step()
            await world.is_mended()
            await world.comes_to_rest()
            await world.push({})
            await world.comes_to_rest()
            world.hands_are_off()
            assert names(host) == empty
            assert foreign.lasting(host) == lasting
    finally:
        print(pi.journal(AGENT)[-8000:])


def things(image: str) -> list[Thing]:
    return [
        AFile("made", "/srv/random/made"),
        AFile("deep", "/srv/random/a/b/deep"),
        AFile("taken", "/etc/taken.conf", prior="as it was\n"),
        ADirectory("folder", "/srv/folder"),
        ADirectory("taken-folder", "/srv/taken", prior=0o705),
        AUnit("unit-one"),
        AUnit("unit-two"),
        AContainer("box-one", image),
        AContainer("box-two", image),
    ]


def names(host: Host) -> set[str]:
    """Of all that is on the device."""
    return {line.split()[0] for line in host.everything()}
