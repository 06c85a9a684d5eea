"""Each operator has a key of their own for the bus, and is let in, and cut off, by it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket, admin
from harmony_control.operators import FleetFile, add_operator, join, remove_operator
from harmony_control.server.process import running
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.nkey import Nkey
from harmony_core.errors import BusUnreachable, ConfigError, UsageError
from tests.nats import Bus, serving
from tests.ports import free_address

from .ground import harmony

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"


@attrs.frozen
class Two:
    """``ada`` runs the server; ``bob`` is elsewhere."""

    bus: Bus
    bob: Home
    root: Path

    def add(self, name: str = "bob") -> Path:
        """Ada lets bob in: the file that goes back to him."""
        path = self.root / f"{name}.fleet"
        add_operator(self.bus.home, name, self.bob.operator_pub).write(path)
        return path


@pytest.fixture
async def two(tmp_path: Path) -> AsyncGenerator[Two]:
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    async with serving(tmp_path / "ada", "pi-1") as bus:
        yield Two(bus, bob, tmp_path)


async def test_an_operator_comes_in_with_a_key_of_their_own(two: Two) -> None:
    fleet = await join(two.bob, await asyncio.to_thread(two.add))
    assert fleet.fleet == two.bob.control().fleet == "home"
    async with admin(two.bob) as client:
        assert await Bucket(client, "desired-state").put("pi-1", b"by bob") > 0
    assert two.bus.home.admin_seed.read_bytes() != two.bob.bus_seed.read_bytes()
    for path in two.bob.root.rglob("*"):
        assert not path.is_file() or two.bus.home.admin_seed.read_bytes() not in path.read_bytes()


async def test_an_operator_pushes_with_keys_of_their_own(two: Two) -> None:
    await join(two.bob, await asyncio.to_thread(two.add))
    said = await harmony(two.bob, "push-score", "pi-1", "-", "--no-wait", stdin=MOTD)
    assert said.status == 0, said.err
    assert await two.bus.bucket("desired-state").get("pi-1") is not None


async def test_a_home_with_a_copy_of_the_servers_key_goes_on_working_and_can_join(
    two: Two,
) -> None:
    copied = {"admin.nk": two.bus.home.admin_seed, "server/ca.pem": two.bus.home.authority}
    for name, path in copied.items():
        (two.bob.root / name).parent.mkdir(exist_ok=True)
        (two.bob.root / name).write_bytes(path.read_bytes())
    url = two.bus.home.control().url
    two.bob.control_toml.write_text(f'fleet = "home"\nurl = "{url}"\nadmin_seed = "admin.nk"\n')
    async with admin(two.bob) as client:
        assert await Bucket(client, "desired-state").put("pi-1", b"by a copy") > 0

    await join(two.bob, await asyncio.to_thread(two.add))

    assert two.bob.control().admin_seed == two.bob.bus_seed
    (two.bob.root / "admin.nk").unlink()
    async with admin(two.bob) as client:
        assert await Bucket(client, "desired-state").put("pi-1", b"by a key of his own") > 0


async def test_a_copied_key_is_taken_away_from_all_by_deleting_the_servers(tmp_path: Path) -> None:
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    async with serving(tmp_path / "ada") as bus:
        home, copy = bus.home, bus.home.admin_seed.read_bytes()
        path = bob.root / "bob.fleet"
        (await asyncio.to_thread(add_operator, home, "bob", bob.operator_pub)).write(path)
    home.admin_seed.unlink()
    async with running(home):
        assert home.admin_seed.read_bytes() != copy
        await join(bob, path)
        config = attrs.evolve(home.control(), admin_seed=bob.root / "admin.nk", listen=None)
        config.admin_seed.write_bytes(copy)
        other = Home(tmp_path / "other")
        other.make()
        other.save_control(config)
        with pytest.raises(BusUnreachable, match="does not know our key"):
            async with admin(other):
                pass


async def test_nothing_secret_goes_either_way(two: Two) -> None:
    path = await asyncio.to_thread(two.add)
    for text in (path.read_text(), two.bob.operator_pub.read_text()):
        assert re.search(r"SU[A-Z2-7]{56}", text) is None
        assert "seed" not in text
        assert "PRIVATE" not in text


async def test_who_is_removed_is_cut_off_at_once_and_others_are_not(two: Two) -> None:
    await join(two.bob, await asyncio.to_thread(two.add))
    async with admin(two.bob) as client:
        cut = asyncio.create_task(_ended(client))
        await asyncio.to_thread(remove_operator, two.bus.home, "bob")
        await asyncio.wait_for(cut, 1)
    with pytest.raises(BusUnreachable, match="does not know our key"):
        async with admin(two.bob):
            pass
    assert two.bus.admin.is_connected
    assert not (two.bus.home.operators / "bob.pub").exists()
    with pytest.raises(UsageError, match="there is no operator 'bob'"):
        await asyncio.to_thread(remove_operator, two.bus.home, "bob")


async def _ended(client: Client) -> None:
    while client.is_connected:
        await asyncio.sleep(0.001)


async def test_to_add_somebody_twice_changes_nothing_and_a_name_is_not_taken_over(
    two: Two, tmp_path: Path
) -> None:
    assert two.add().read_text() == two.add().read_text()
    eve = Home(tmp_path / "eve")
    operator_key.create(eve)
    with pytest.raises(UsageError, match="there is another operator bob"):
        add_operator(two.bus.home, "bob", eve.operator_pub)


async def test_who_joins_too_early_is_told_and_nothing_is_written(two: Two) -> None:
    path = await asyncio.to_thread(two.add)
    await asyncio.to_thread(remove_operator, two.bus.home, "bob")
    with pytest.raises(BusUnreachable, match="does not know our key"):
        await join(two.bob, path)
    assert not two.bob.control_toml.exists()
    assert not two.bob.joined_authority.exists()


async def test_who_joins_without_keys_is_told_which_command_makes_them(
    two: Two, tmp_path: Path
) -> None:
    path = await asyncio.to_thread(two.add)
    said = await harmony(tmp_path / "none", "join", str(path))
    assert said.status == 2
    assert "run `harmony keygen`" in said.err
    assert not (tmp_path / "none" / "control.toml").exists()


async def test_who_joins_a_server_that_is_not_meant_is_told(two: Two, tmp_path: Path) -> None:
    path = await asyncio.to_thread(two.add)
    async with serving(tmp_path / "other") as other:
        diverted = attrs.evolve(FleetFile.read(path), url=other.home.control().url)
        diverted.write(path)
        with pytest.raises(BusUnreachable, match="does not prove to be the server"):
            await join(two.bob, path)
    attrs.evolve(diverted, url=f"tls://{free_address()}").write(path)
    with pytest.raises(BusUnreachable, match="nothing listens"):
        await join(two.bob, path)
    assert not two.bob.control_toml.exists()


async def test_the_home_of_a_server_joins_no_other(two: Two) -> None:
    path = await asyncio.to_thread(two.add)
    before = two.bus.home.control_toml.read_bytes()
    with pytest.raises(UsageError, match="and of its server"):
        await join(two.bus.home, path)
    assert two.bus.home.control_toml.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "x", 'fleet = "home"', "fleet = 1\nurl = 2\nserver_name = 3\nca = 4"]
)
async def test_what_describes_no_fleet_is_said(two: Two, text: str) -> None:
    path = two.root / "x.fleet"
    path.write_text(text)
    with pytest.raises(ConfigError, match="does not describe a fleet"):
        await join(two.bob, path)


@pytest.mark.parametrize("name", ["*", "../x", "Bob", "", "a b"])
async def test_a_name_that_is_none_is_refused(two: Two, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be an operator's name"):
        add_operator(two.bus.home, name, two.bob.operator_pub)


async def test_a_file_of_an_earlier_version_is_trusted_and_lets_nobody_in(two: Two) -> None:
    one_line = two.root / "old.pub"
    one_line.write_text(two.bob.operator_pub.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match="has no key for the bus"):
        add_operator(two.bus.home, "bob", one_line)
    two.bus.home.operators.mkdir()
    (two.bus.home.operators / "bob.pub").write_text(one_line.read_text())
    assert len(operator_key.load_trusted(two.bus.home)) == 2
    assert operator_key.load_bus_keys(two.bus.home, two.bus.home.operators) == {}


async def test_who_was_trusted_before_there_were_keys_for_the_bus_is_let_in_by_the_same_name(
    two: Two,
) -> None:
    ours = two.bus.home.operators / "bob.pub"
    ours.parent.mkdir()
    ours.write_text(two.bob.operator_pub.read_text().splitlines()[0] + "\n")
    await join(two.bob, await asyncio.to_thread(two.add))
    assert ours.read_text() == two.bob.operator_pub.read_text()


def test_keygen_adds_the_key_for_the_bus_to_keys_of_an_earlier_version(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    signing = operator_key.create(home)
    home.bus_seed.unlink()
    home.operator_pub.write_text(signing.to_text() + "\n")

    assert operator_key.create(home) == signing

    assert home.bus_seed.stat().st_mode & 0o777 == 0o600
    bus = Nkey.read(home.bus_seed).public
    assert home.operator_pub.read_text() == f"{signing.to_text()}\n{bus}\n"
    with pytest.raises(UsageError, match="exists and devices may trust it"):
        operator_key.create(home)


async def test_a_key_has_one_name_and_one_owner(two: Two) -> None:
    await asyncio.to_thread(two.add)
    with pytest.raises(UsageError, match="that key is let in as bob"):
        add_operator(two.bus.home, "robert", two.bob.operator_pub, access="look")
    own = Nkey.read(two.bus.home.admin_seed).public
    path, first = two.root / "other.pub", two.bus.home.operator_pub.read_text().split()[0]
    for taken in (own, two.bus.home.agents()["pi-1"].nkey):
        path.write_text(f"{first}\n{taken}\n")
        with pytest.raises(ConfigError, match="would have the same key"):
            add_operator(two.bus.home, "eve", path)
    assert [each.name for each in two.bus.home.operators.iterdir()] == ["bob.pub"]


async def test_a_name_that_is_nearly_one_is_told_and_shells_complete_the_names(two: Two) -> None:
    await asyncio.to_thread(two.add)
    said = await harmony(two.bus.home, "remove-operator", "bop")
    assert said.status == 2
    assert "there is no operator 'bop'; did you mean 'bob'?" in said.err
    said = await harmony(two.bus.home, "remove-operator", "xyz")
    assert "there are: bob" in said.err
    assert (await harmony(two.bus.home, "completion", "--list", "operators")).out == "bob\n"


async def test_the_commands_say_what_to_do_next(two: Two) -> None:
    pub, out = str(two.bob.operator_pub), two.root / "to-bob"
    said = await harmony(two.bus.home, "add-operator", "bob", pub, "--out", str(out))
    assert (said.status, f"send {out} back" in said.out) == (0, True)
    assert "leads back to the machine that uses it" in said.err
    assert (await harmony(two.bob, "join", str(out))).status == 0
    said = await harmony(two.bus.home, "remove-operator", "bob")
    assert "Devices go on trusting what bob signs" in said.out
    said = await harmony(two.bob, "status")
    assert "its operator lets us in, with `harmony add-operator`" in said.err


@pytest.mark.parametrize("second", ["*", "UAAA", "U" + "A" * 55 + " more", ">"])
async def test_a_key_that_is_none_reaches_no_configuration(two: Two, second: str) -> None:
    first = two.bob.operator_pub.read_text().splitlines()[0]
    path = two.root / "bad.pub"
    path.write_text(f"{first}\n{second}\n")
    with pytest.raises(ConfigError, match="not the public key for the bus"):
        add_operator(two.bus.home, "bob", path)


async def test_who_has_renewed_the_key_to_sign_with_is_one_operator(two: Two) -> None:
    """As the guide has it: the earlier operator.pub stays in operators/ until each device was pushed to."""
    home = two.bus.home
    await asyncio.to_thread(two.add)
    home.operators.mkdir(exist_ok=True)
    for number in range(2):
        (home.operators / f"bob-{number}.pub").write_text(two.bob.operator_pub.read_text())
        two.bob.operator_key.unlink()
        operator_key.create(two.bob)
    await two.bus.enrol("pi-2")
    with pytest.raises(UsageError, match="that key is let in as bob"):
        add_operator(home, "bobby", two.bob.operator_pub)
    await join(two.bob, two.root / "bob.fleet")
    await asyncio.to_thread(remove_operator, home, "bob")
    assert list(home.operators.glob("*.pub")) == []
    with pytest.raises(BusUnreachable, match="does not know our key"):
        async with admin(two.bob):
            pass
