"""Two operators, each with a key and a directory of their own, and one device that trusts both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_agent import config as agent_config
from harmony_control.bus.connection import admin
from harmony_control.bus.reports import Reports
from harmony_control.device import Device
from harmony_control.enrol import add_agent
from harmony_control.fleet import Fleet
from harmony_control.push.history import History
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import ConfigError, RevisionConflict, UntrustedSignature
from harmony_core.outcome import Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.control.ground import command, environment
from tests.device import running_agent
from tests.nats import Bus, fleet_home, serving

MOTD = FileScore(path="/etc/motd", content="hello\n")
ISSUE = FileScore(path="/etc/issue", content="issue\n")


@attrs.frozen
class Two:
    """``ada`` runs the bus; ``bob`` reaches it from elsewhere."""

    ada: Home
    bob: Home
    files: FakeFiles
    pi_of_ada: Device[PiTopology]
    pi_of_bob: Device[PiTopology]


def trust(home: Home, other: Home) -> None:
    """As a person does it: a file, copied."""
    home.operators.mkdir(exist_ok=True)
    (home.operators / f"{other.root.parent.name}.pub").write_text(other.operator_pub.read_text())


def elsewhere(bus: Bus, root: Path) -> Home:
    """A directory of another operator, by whose control.toml that bus is reached."""
    home = fleet_home(root)
    home.save_control(attrs.evolve(bus.home.control(), listen=None))
    return home


@pytest.fixture
async def two(tmp_path: Path) -> AsyncGenerator[Two]:
    files = FakeFiles()
    async with serving(tmp_path / "ada") as bus:
        bob = elsewhere(bus, tmp_path / "bob")
        trust(bus.home, bob)
        await bus.enrol("pi-1")
        await publish_devices(bus.home, bus.admin)
        async with (
            running_agent(
                bus.home,
                "pi-1",
                tmp_path / "agent",
                registry=Registry([FileScore]),
                offers={"FileSystemHost": files},
                missing={},
            ),
            Fleet.connect(bus.home) as fleet,
            Fleet.connect(bob) as other,
        ):
            yield Two(bus.home, bob, files, fleet.device("pi-1"), other.device("pi-1"))


async def test_two_operators_with_different_keys_push_to_one_device(two: Two) -> None:
    trust(two.bob, two.ada)
    assert isinstance(await two.pi_of_ada.push(MOTD, id="motd"), Success)
    assert isinstance(await two.pi_of_bob.push(ISSUE, id="issue"), Success)
    state = await two.pi_of_ada.remove("motd")
    assert set(state.scores) == {"issue"}
    assert two.files.read("/etc/issue") == b"issue\n"
    signers = {each.number: each.signed_by for each in (await two.pi_of_ada.history()).generations}
    ada, bob = (operator_key.load_public(home).id for home in (two.ada, two.bob))
    assert signers == {1: (ada,), 2: (bob,), 3: (ada,)}


async def test_on_what_is_signed_by_an_operator_not_trusted_here_nothing_is_built(
    two: Two,
) -> None:
    await two.pi_of_ada.push(MOTD, id="motd")
    with pytest.raises(UntrustedSignature, match=f"operator.pub into {two.bob.operators}"):
        await two.pi_of_bob.push(ISSUE, id="issue")
    assert not two.files.exists("/etc/issue")


async def test_what_another_pushed_since_a_rollback_looked_is_not_undone(two: Two) -> None:
    trust(two.bob, two.ada)
    trust(two.ada, two.bob)
    await two.pi_of_ada.push(MOTD, id="motd")
    await two.pi_of_ada.remove("motd")
    seen = await two.pi_of_ada.history()
    await two.pi_of_bob.push(ISSUE, id="issue")
    bob = operator_key.load_public(two.bob).id[:12]
    said = (
        rf"generation 3 was pushed meanwhile, signed by {bob} \(\+issue\); .*`harmony history pi-1`"
    )
    with pytest.raises(RevisionConflict, match=said):
        await two.pi_of_ada.rollback(1, shown=seen)
    newest = (await two.pi_of_bob.history()).generations[-1]
    assert (newest.number, [each.id for each in newest.manifest.scores]) == (3, ["issue"])
    pushed = await two.pi_of_ada.rollback(1, shown=await two.pi_of_ada.history())
    assert (pushed.generation, {*pushed.entries}, {*pushed.removed}) == (4, {"motd"}, {"issue"})


async def push_and_remove(two: Two) -> None:
    """Two generations by ada, of which bob knows nothing but that she is trusted."""
    trust(two.bob, two.ada)
    trust(two.ada, two.bob)
    await two.pi_of_ada.push(MOTD, id="motd")
    await two.pi_of_ada.remove("motd")


class Interrupted(Device[PiTopology]):
    """A device that somebody else pushes to while it is looked at."""

    between: Device[PiTopology]

    async def history(self) -> History:
        found = await super().history()
        if found.generations[-1].number == 2:
            await self.between.put({"issue": ISSUE})
        return found


async def test_what_is_pushed_between_the_look_and_the_write_of_a_rollback_is_not_undone(
    two: Two,
) -> None:
    await push_and_remove(two)
    async with admin(two.ada) as client:
        pi = Interrupted("pi-1", two.ada, client, Reports(two.ada, client))
        pi.between = two.pi_of_bob
        with pytest.raises(RevisionConflict, match="generation 3 was pushed meanwhile"):
            await pi.rollback()
    assert set(await two.pi_of_bob.read_desired()) == {"issue"}


async def test_what_is_pushed_while_a_person_is_asked_about_a_rollback_is_not_undone(
    two: Two,
) -> None:
    await push_and_remove(two)
    terminal, inner = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *command("rollback", "pi-1"),
        env=environment(two.ada),
        stdin=inner,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(inner)
    assert process.stdout is not None
    await process.stdout.readuntil(b"roll back to it? [y/N] ")
    await two.pi_of_bob.push(ISSUE, id="issue")
    os.write(terminal, b"y\n")
    _, err = await process.communicate()
    os.close(terminal)
    assert process.returncode == 3, err.decode()
    assert "generation 3 was pushed meanwhile" in err.decode()
    assert set(await two.pi_of_bob.read_desired()) == {"issue"}


def test_a_device_pins_every_operator_who_is_trusted_and_each_once(tmp_path: Path) -> None:
    ada, bob = fleet_home(tmp_path / "ada"), fleet_home(tmp_path / "bob")
    trust(ada, bob)
    trust(ada, ada)
    assert operator_key.load_trusted(ada) == tuple(map(operator_key.load_public, (ada, bob)))


async def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        bus.home.operators.mkdir()
        (bus.home.operators / "README.txt").write_text("not a key, and not taken for one")
        path = add_agent(bus.home, "pi-1")
        assert len(agent_config.load(path).trust.operator_keys) == 1
        (bus.home.operators / "eve.pub").write_text("ssh-ed25519 AAAA")
        with pytest.raises(ConfigError, match=r"operators/eve\.pub: "):
            add_agent(bus.home, "pi-2")
