"""Enrolling devices, the operator's key, and the operator's directory."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path

import nats.errors
import pytest

from harmony_agent import config as agent_config
from harmony_control.cli import enroll
from harmony_control.enrol import add_agent, add_agents, revoke
from harmony_control.server.authority import ensure_certificate
from harmony_control.server.process import running
from harmony_control.store import operator_key
from harmony_control.store.home import ControlConfig, Home
from harmony_control.store.issuers import FLEETS
from harmony_control.store.nkey import Nkey
from harmony_core.errors import ConfigError, UnknownDevice, UsageError
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_scores import FileScore
from tests.device import running_agent
from tests.nats import connected, fleet_home, serving

from .cut_off import assert_cut_off_when_told
from .ground import count_reloads, harmony


def _set_up(root: Path) -> Home:
    """A home as `harmony server` leaves it, without a server that runs."""
    home = fleet_home(root)
    home.make_server()
    home.admin_seed.write_text(Nkey.new().seed)
    home.save_control(
        ControlConfig(
            fleet="home",
            url="tls://127.0.0.1:4222",
            admin_seed=home.admin_seed,
            authority=home.authority,
            listen="127.0.0.1:4222",
        )
    )
    ensure_certificate(home, "home")
    return home


def test_the_agent_reads_what_enrolment_wrote(tmp_path: Path) -> None:
    home = _set_up(tmp_path)

    path = add_agent(home, "pi-1", url="tls://control.local:4222")

    config = agent_config.load(path)
    assert (config.agent_id, config.fleet) == ("pi-1", "home")
    assert config.nats.servers == ("tls://control.local:4222",)
    assert Nkey.of_seed(config.nats.seed).public == home.agents()["pi-1"].nkey
    assert config.trust.operator_keys == (home.operator_pub.read_text().split()[0],)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["10.0.0.7:4222", "nats://10.0.0.7:4222"])
def test_there_is_no_address_but_by_tls(tmp_path: Path, url: str) -> None:
    path = add_agent(_set_up(tmp_path), "pi-1", url=url)

    assert tomllib.loads(path.read_text())["nats"]["servers"] == ["tls://10.0.0.7:4222"]


@pytest.mark.parametrize("url", ["http://x", "tls://", "a b"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    home = _set_up(tmp_path)

    with pytest.raises(UsageError, match="is not a server's address"):
        add_agent(home, "pi-1", url=url)

    assert home.agents() == {}


def test_the_file_can_be_written_elsewhere_and_then_no_copy_of_the_seed_stays(
    tmp_path: Path,
) -> None:
    home = _set_up(tmp_path)

    path = add_agent(home, "pi-1", out=tmp_path / "card" / "agent.toml")

    assert path == tmp_path / "card" / "agent.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not home.agent_toml("pi-1").exists()


def test_a_file_that_exists_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    home = _set_up(tmp_path)
    out = tmp_path / "agent.toml"
    out.write_text("precious")

    with pytest.raises(UsageError, match="exists; choose another file"):
        add_agent(home, "pi-1", out=out)
    assert (out.read_text(), home.agents()) == ("precious", {})

    add_agent(home, "pi-1", out=out, replace=True)
    assert agent_config.load(out).agent_id == "pi-1"


def test_a_device_that_is_enrolled_is_not_enrolled_twice(tmp_path: Path) -> None:
    home = _set_up(tmp_path)
    path = add_agent(home, "pi-1")
    before = path.read_text()

    with pytest.raises(UsageError, match=r"pi-1 is enrolled.*--replace"):
        add_agent(home, "pi-1")

    assert path.read_text() == before


@pytest.mark.parametrize("name", ["*", ">", "pi-*", "pi.1", "../pi", "", "Pi", "pi 1", "pi\n"])
def test_a_name_that_could_be_a_wildcard_or_a_path_is_refused(tmp_path: Path, name: str) -> None:
    home = _set_up(tmp_path)

    with pytest.raises(UsageError, match="cannot be a device's id"):
        add_agent(home, name)

    assert home.agents() == {}


def test_enrolment_without_the_operators_key_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `harmony keygen` first"):
        add_agent(Home(tmp_path), "pi-1")


def test_enrolment_before_the_first_server_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `harmony server` first"):
        add_agent(fleet_home(tmp_path), "pi-1")


def test_enrolment_where_the_server_does_not_run_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    home = fleet_home(tmp_path)
    home.control_toml.write_text(
        'fleet = "home"\nurl = "tls://10.0.0.1:4222"\nadmin_seed = "admin.nk"\n'
    )

    with pytest.raises(ConfigError, match="is not run from"):
        add_agent(home, "pi-1")

    assert not home.agent_toml("pi-1").exists()


async def test_replacing_a_device_cuts_the_old_holder_off(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        old, other = await bus.device("pi-1"), await bus.device("pi-2")
        old_file = bus.home.agent_toml("pi-1").read_text()

        await bus.enrol("pi-1", replace=True)

        with pytest.raises(nats.errors.Error):
            await old.client.flush()
        new = await bus.device("pi-1")
        assert await new.bucket("heartbeat").put("pi-1", b"alive") > 0
        assert await other.bucket("heartbeat").put("pi-2", b"alive") > 0

        bus.home.agent_toml("pi-1").write_text(old_file)
        with pytest.raises(nats.errors.Error, match="Authorization"):
            async with connected(bus.home, "pi-1"):
                pass


def test_the_operators_key_is_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    public = operator_key.create(home)

    assert operator_key.load(home).public == public == operator_key.load_public(home)
    assert home.operator_key.stat().st_mode & 0o777 == 0o600
    assert home.operator_pub.read_text().split()[0] == public.to_text()
    with pytest.raises(UsageError, match=f"{home.operator_key} exists"):
        operator_key.create(home)
    assert operator_key.load_public(home) == public


def test_an_operators_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    home.operator_key.chmod(0o640)

    with pytest.raises(ConfigError, match="run `chmod 600"):
        operator_key.load(home)


@pytest.mark.parametrize(
    "content", ["", "harmony-ed25519-seed:", "harmony-ed25519-seed:!!", "\xff"]
)
def test_a_damaged_operators_key_is_said_without_showing_it(tmp_path: Path, content: str) -> None:
    home = fleet_home(tmp_path)
    home.operator_key.write_bytes(content.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"operator\.key"):
        operator_key.load(home)


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    assert Home.find({"HARMONY_HOME": str(tmp_path)}).root == tmp_path
    assert Home.find({}).root == Path.home() / ".harmony"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not toml", "is not TOML"),
        ('fleet = "home"\nurl = "tls://x"', "admin_seed"),
        ('fleet = 3\nurl = "tls://x"\nadmin_seed = "x"', "fleet"),
        ('fleet = "home"\nurl = "tls://x"\nadmin_seed = "x"\nlisten = 4222', "listen"),
    ],
)
def test_a_damaged_control_toml_names_the_file_and_the_field(
    tmp_path: Path, content: str, said: str
) -> None:
    home = Home(tmp_path)
    home.control_toml.write_text(content)

    with pytest.raises(ConfigError, match=f"control.toml.*{said}"):
        home.control()


@pytest.mark.parametrize("content", ["", "[]", '{"*": "U"}', '{"pi-1": 1}'])
def test_a_damaged_list_of_agents_is_said_and_nothing_is_rendered_from_it(
    tmp_path: Path, content: str
) -> None:
    home = _set_up(tmp_path)
    home.agents_json.write_text(content)

    with pytest.raises(ConfigError, match=r"agents\.json"):
        add_agent(home, "pi-1")

    assert not home.nats_conf.exists()


def test_what_was_signed_is_kept_for_each_device_and_counts_once_the_bus_has_taken_it(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    assert home.read_stored_manifest("pi-1") is None

    home.store_pending("pi-1", b"envelope")
    assert home.read_stored_manifest("pi-1") is None
    assert home.pending_manifest("pi-1") == b"envelope"

    home.confirm_pending("pi-1", 1)
    assert home.read_stored_manifest("pi-1") == b"envelope"
    assert home.pending_manifest("pi-1") is None
    assert home.read_stored_manifest("pi-2") is None

    home.drop_pending("pi-1")
    assert home.read_stored_manifest("pi-1") == b"envelope"
    with pytest.raises(UsageError):
        home.read_stored_manifest("../pi-1")


def test_only_one_push_of_a_home_to_a_device_is_under_way(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with (
        home.pushing("pi-1") as first,
        home.pushing("pi-1") as second,
        home.pushing("pi-2") as other,
    ):
        assert (first, second, other) == (True, False, True)
    with home.pushing("pi-1") as again:
        assert again


def test_an_nkey_seed_that_is_none_is_not_shown() -> None:
    secret = "SUxxxx"
    with pytest.raises(ConfigError) as refused:
        Nkey.of_seed(secret)

    assert secret not in str(refused.value)
    assert "seed" not in repr(Nkey.new())


async def test_a_revoked_device_is_cut_off_and_what_is_known_of_it_stays(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        thief, other = await bus.device("pi-1"), await bus.device("pi-2")

        async def revoke_it() -> None:
            said = await harmony(bus.home, "revoke", "pi-1")
            assert "is revoked, and its connection is cut" in said.out, said

        await assert_cut_off_when_told(bus, thief, revoke_it)
        async with asyncio.timeout(30):
            while not thief.client.is_closed:
                await asyncio.sleep(0.001)
        with pytest.raises(nats.errors.Error):
            await bus.device("pi-1")
        assert other.client.is_connected
        assert await bus.bucket("actual-state").get("pi-1") is not None
    async with running(bus.home):
        with pytest.raises(nats.errors.Error):
            async with connected(bus.home, "pi-1"):
                pass


async def test_several_are_cut_off_together_or_none_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1", "pi-2", "pi-3") as bus:
        stolen = [await bus.device("pi-1"), await bus.device("pi-2")]
        other = await bus.device("pi-3")
        before = count_reloads(bus.home)
        said = await harmony(bus.home, "revoke", "pi-1", "pi-2", "pi-9")
        assert (said.status, "there is no device 'pi-9'" in said.err) == (2, True), said
        assert (len(bus.home.agents()), count_reloads(bus.home)) == (3, before)
        await asyncio.gather(*(each.client.flush() for each in stolen))

        said = await harmony(bus.home, "--json", "revoke", "pi-1", "pi-2", "pi-1")
        assert said.status == 0, said
        assert [(each["event"], each["agent"]) for each in said.documents] == [
            ("revoked", "pi-1"),
            ("revoked", "pi-2"),
        ]
        assert (set(bus.home.agents()), count_reloads(bus.home)) == ({"pi-3"}, before + 1)
        for each in ("pi-1", "pi-2"):
            with pytest.raises(nats.errors.Error):
                await bus.device(each)
        assert other.client.is_connected


async def test_a_server_of_an_earlier_version_keeps_its_configuration(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        conf, agents = bus.home.nats_conf, bus.home.agents_json.read_bytes()
        earlier = conf.read_text().replace('"FLEET-00"', '"FLEET"')
        conf.write_text(earlier)
        with pytest.raises(ConfigError, match="end it, start it again"):
            await asyncio.to_thread(revoke, bus.home, "pi-1")
        toml, elsewhere = bus.home.agent_toml("pi-1"), tmp_path / "pi-2.toml"
        key = toml.read_bytes()
        with pytest.raises(ConfigError, match="nothing was changed"):
            await asyncio.to_thread(add_agent, bus.home, "pi-1", replace=True)
        with pytest.raises(ConfigError, match="nothing was changed"):
            await asyncio.to_thread(add_agent, bus.home, "pi-2", out=elsewhere)
        assert (toml.read_bytes(), elsewhere.exists()) == (key, False)
        assert conf.read_text() == earlier
        assert bus.home.agents_json.read_bytes() == agents
        device = await bus.device("pi-1")
        assert await device.bucket("desired-state").get("pi-1") is None
    async with running(bus.home):
        await asyncio.to_thread(revoke, bus.home, "pi-1")


def test_devices_are_spread_over_accounts_and_each_keeps_its_own(tmp_path: Path) -> None:
    home = _set_up(tmp_path)
    add_agents(home, [f"pi-{number}" for number in range(320)])
    before = _find_accounts(home)
    assert sum(map(len, before.values())) == 320
    assert max(map(len, before.values())) < 60
    revoke(home, "pi-7")
    assert _find_accounts(home) == {
        name: keys - set(home.revoked()) for name, keys in before.items()
    }


def _find_accounts(home: Home) -> dict[str, set[str]]:
    """Who is in which account of devices, by nats.conf."""
    accounts = json.loads(home.nats_conf.read_text())["accounts"]
    return {name: {each["nkey"] for each in accounts[name]["users"]} for name in FLEETS}


def test_nobody_is_revoked_who_is_not_enrolled(tmp_path: Path) -> None:
    with pytest.raises(UnknownDevice, match="pi-1"):
        revoke(_set_up(tmp_path), "pi-1")


def test_many_are_let_in_at_once_or_none(tmp_path: Path) -> None:
    home = _set_up(tmp_path)
    paths = add_agents(home, [f"pi-{number}" for number in range(1, 301)])
    assert len({tomllib.loads(path.read_text())["nats"]["seed"] for path in paths}) == 300
    assert home.agents().keys() == {f"pi-{number}" for number in range(1, 301)}
    with pytest.raises(UsageError, match="pi-300 is enrolled"):
        add_agents(home, ["pi-301", "pi-300"])
    assert "pi-301" not in home.agents()
    assert not home.agent_toml("pi-301").exists()
    with pytest.raises(UsageError):
        add_agents(home, ["pi-302", "pi.303"])
    assert "pi-302" not in home.agents()


async def test_who_is_up_and_knows_no_kind_is_not_told_as_enrolled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enroll, "_HEARD_WITHIN_S", 3.0)
    async with serving(tmp_path, "pi-1") as bus:
        for registry in (Registry(), Registry([FileScore])):
            async with running_agent(
                bus.home,
                "pi-1",
                tmp_path,
                registry=registry,
                offers={"FileSystemHost": FakeFiles()},
                missing={},
            ):
                if not registry.kinds:
                    with pytest.raises(ConfigError, match="does not say which kinds"):
                        await enroll.hear(bus.home, "pi-1", None)
                else:
                    await enroll.hear(bus.home, "pi-1", None)
