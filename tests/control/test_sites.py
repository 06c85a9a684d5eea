"""The server of a site, as it is exported: what devices reach by it, and what it may not, whoever has it."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from harmony_control.bus.connection import connect
from harmony_control.cli import main
from harmony_control.enrol import add_agent, revoke
from harmony_control.fleet import Fleet
from harmony_control.server.accounts import encode_accounts
from harmony_control.server.apply import server_config
from harmony_control.server.check import check_server
from harmony_control.server.config import MAX_SUBSCRIPTIONS, Listen
from harmony_control.server.export import export
from harmony_control.server.finding import Finding
from harmony_control.server.leaf import SITE_NAME_MAX
from harmony_control.store.home import Enrolled, Home
from harmony_control.store.issuers import read_issuers
from harmony_control.store.nkey import Nkey
from harmony_control.store.sites import Sites, new_site, read_site_authority, read_sites
from harmony_core.errors import BusUnreachable, ConfigError
from harmony_core.plugins import Registry
from harmony_core.wire.jwt import decode_jwt
from harmony_core.wire.names import new_mailbox
from harmony_scores import FileScore
from tests.control.cut_off import assert_cut_off_when_told
from tests.counting_files import CountingFiles
from tests.device import running_agent
from tests.forged_leaf import ForgedLeaf, forged_leaf
from tests.nats import Device, connected, fleet_home
from tests.sites import SITE, SiteScene, serving_site
from tests.soak import runs

pytestmark = pytest.mark.timeout(180)
WITHIN_S = 60
PATH = "/etc/own"
WRITTEN = ("actual-state", "heartbeat", "inventory")
"""The buckets that devices write."""


def wrong(found: list[Finding]) -> list[str]:
    return [f"{each.what}: {each.detail}" for each in found if each.verdict == "wrong"]


async def test_what_is_exported_is_all_that_a_site_needs(tmp_path: Path) -> None:
    async with serving_site(tmp_path, "probe") as site:
        home = site.home
        of_site, of_fleet = home.agent_toml("probe"), home.agent_toml("other")
        assert wrong(await check_server(home, site.leaf.url, of_site)) == []
        assert wrong(await check_server(home, home.control().url, of_fleet)) == []
        seen = await check_server(home, home.control().url, None)
        gate = f"{site.line.to}: it waits for servers of sites"
        assert [each.verdict for each in seen if each.what == gate] == ["right"]

        # Who is of the fleet is not let in at the site, nor the other way round.
        assert "a device is let in" in "\n".join(
            wrong(await check_server(home, site.leaf.url, of_fleet))
        )
        assert "a device is let in" in "\n".join(
            wrong(await check_server(home, home.control().url, of_site))
        )
        await site.line.cut()
        assert "it cannot read desired-state" in "\n".join(
            wrong(await check_server(home, site.leaf.url, of_site))
        )
        await site.leaf.kill()
        assert "is not reached" in "\n".join(wrong(await check_server(home, site.leaf.url, None)))


@asynccontextmanager
async def agents(
    site: SiteScene, root: Path, *names: str
) -> AsyncGenerator[dict[str, CountingFiles]]:
    """Real agents over made-up files, at the site."""
    files = {name: CountingFiles() for name in names}
    async with AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(
                running_agent(
                    site.home,
                    name,
                    root / name,
                    registry=Registry([FileScore]),
                    offers={"FileSystemHost": files[name]},
                    missing={"SystemdHost": "no systemd here"},
                )
            )
        yield files


async def _push(fleet: Fleet, files: Mapping[str, CountingFiles], content: str) -> None:
    for name in files:
        await fleet.device(name).put({"own": FileScore(path=PATH, content=content)}, resolve=False)


async def _reported(fleet: Fleet, files: Mapping[str, CountingFiles], content: str) -> None:
    """Return once each device has made it so, and the fleet's server knows."""
    async with asyncio.timeout(WITHIN_S):
        while {files[name].read(PATH) for name in files} != {content.encode()}:
            await asyncio.sleep(0.05)
        while True:
            rows = [each for each in await fleet.rows() if each.id in files]
            if rows and all((each.device, each.update) == ("Online", "UpToDate") for each in rows):
                return
            await asyncio.sleep(0.05)


async def test_what_was_pushed_while_the_line_was_cut_is_made_once_when_it_is_back(
    tmp_path: Path,
) -> None:
    names = ("pi-1", "pi-2", "pi-3")
    async with (
        serving_site(tmp_path, *names) as site,
        Fleet.connect(site.home) as fleet,
        agents(site, tmp_path, *names) as files,
    ):
        await _push(fleet, files, "first")
        await _reported(fleet, files, "first")
        await site.line.cut()
        await _push(fleet, files, "never made")
        await _push(fleet, files, "second")
        async with asyncio.timeout(WITHIN_S):
            while await site.is_joined():
                await asyncio.sleep(0.05)
        # Devices keep what they have; none of them is heard.
        assert {each.read(PATH) for each in files.values()} == {b"first"}
        await site.line.mend()
        await _reported(fleet, files, "second")
        await site.leaf.kill()
        await _push(fleet, files, "third")
        await site.leaf.start()
        await _reported(fleet, files, "third")
        for each in files.values():
            assert each.written == {(PATH, b"first"): 1, (PATH, b"second"): 1, (PATH, b"third"): 1}


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_pushing_goes_on_while_the_line_is_cut_again_and_again(tmp_path: Path) -> None:
    async with (
        serving_site(tmp_path, "pi-1") as site,
        Fleet.connect(site.home) as fleet,
        agents(site, tmp_path, "pi-1") as files,
    ):
        for each in range(runs(12, part=6)):
            await _push(fleet, files, f"{each} before")
            await site.line.cut()
            await _push(fleet, files, f"{each} cut")
            # Shorter than the beat of a heart, or longer.
            await asyncio.sleep(0.2 + each % 3)
            await site.line.mend()
            await site.joined()
        await _push(fleet, files, "last")
        await _reported(fleet, files, "last")
        assert set(files["pi-1"].written.values()) == {1}, files["pi-1"].written


async def test_a_site_may_have_many_devices(tmp_path: Path) -> None:
    names = [f"pi-{each}" for each in range(1, 21)]
    async with serving_site(tmp_path, *names) as site, AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(connected(site.home, each)) for each in names]
        for each in devices:
            mail = await each.subscribe(each.mail("request"))
            async with asyncio.timeout(WITHIN_S):
                while not await _says(each):
                    await asyncio.sleep(0.1)
            await _arrives(site, each, mail)
        told = site.leaf.conf.with_name("nats.log").read_text()
        assert "subscriptions exceeded" not in told


async def _arrives(site: SiteScene, device: Device, mail: Subscription) -> None:
    """Return once *device* was sent something."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            await site.bus.admin.publish(f"harmony.mail.{device.id}.request", b"{}")
            with suppress(NatsError):
                await mail.next_msg(timeout=0.5)
                return


async def test_a_stolen_device_has_nothing_written_into_the_places_of_its_neighbours(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path, "pi-1", "pi-2") as site:
        own = site.home.agents()
        async with connected(site.home, "pi-1") as thief, connected(site.home, "pi-2") as other:
            before = {name: await other.say(name, b"{}") for name in WRITTEN}
            # What answers who reads this is taken for a removal, wherever it is written.
            await thief.client.request(
                "$KV.actual-state.pi-1", b"", headers={"KV-Operation": "PURGE"}, timeout=WITHIN_S
            )
            read = "$JS.API.DIRECT.GET.KV_actual-state.$KV.actual-state.pi-1"
            for name in WRITTEN:
                subject = f"$KV.{name}.pi-2"
                # As both servers name it between them; the thief may even know the other's mailbox.
                for reply in (
                    subject,
                    f"harmony.relay.{own['pi-1'].mailbox}.{subject}",
                    f"harmony.relay.{own['pi-2'].mailbox}.{subject}",
                ):
                    await thief.client.publish(read, b"", reply=reply)
            # By the same ways, behind all that was sent.
            for _ in range(2):
                await thief.client.request(read, b"", timeout=WITHIN_S)
                await thief.say("heartbeat", b"{}")
            for name, revision in before.items():
                stands = await site.bus.bucket(name).get("pi-2")
                assert stands is not None, name
                assert stands.revision == revision, name


async def test_a_stolen_device_takes_no_subscriptions_and_no_connections_from_its_neighbours(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path, "pi-1", "pi-2") as site, AsyncExitStack() as stack:
        thief = await stack.enter_async_context(connected(site.home, "pi-1"))
        with suppress(NatsError):
            for number in range(2 * MAX_SUBSCRIPTIONS):
                await thief.subscribe(thief.mail(f"{number}"))
        async with asyncio.timeout(WITHIN_S):
            while thief.client.is_connected:
                await asyncio.sleep(0.05)
        with suppress(NatsError):
            for number in range(MAX_SUBSCRIPTIONS):
                thief = await stack.enter_async_context(connected(site.home, "pi-1"))
                for each in range(6):
                    await thief.subscribe(thief.mail(f"{number}-{each}"))
        found = (await site.leaf.ask("connz?acc=DEVICE-pi-1"))["connections"]
        assert 24 <= sum(each["subscriptions"] for each in found) <= MAX_SUBSCRIPTIONS
        other = await stack.enter_async_context(connected(site.home, "pi-2"))
        await other.say("heartbeat", b"{}")
        await _arrives(site, other, await other.subscribe(other.mail("request")))
        assert await site.is_joined()


async def test_who_is_revoked_is_cut_off_at_once_whatever_the_server_of_the_site_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving_site(tmp_path, "pi-1", "pi-2") as site:
        home = site.home
        async with connected(home, "pi-1") as revoked, connected(home, "pi-2") as stays:
            await revoked.say("actual-state", b"{}")
            await site.bus.bucket("desired-class").put("web.1", b"for a class")
            manifest = "$JS.API.DIRECT.GET.KV_desired-class.$KV.desired-class.web.1"
            await site.bus.bucket("assets").put("a.a1.0", b"a piece")
            piece = "$JS.API.DIRECT.GET.KV_assets.$KV.assets.a.a1.0"
            for each in (revoked, stays):
                for subject, value in ((manifest, b"for a class"), (piece, b"a piece")):
                    found = await each.client.request(subject, timeout=WITHIN_S)
                    assert found.data == value
            mail = await revoked.subscribe(revoked.mail("request"))
            answers = await revoked.subscribe("_INBOX_pi-1.forged")
            command = ["revoke", "--home", str(home.root), "pi-1"]

            async def revoke_it() -> None:
                assert await asyncio.to_thread(main, command) == 0

            await assert_cut_off_when_told(site.bus, revoked, revoke_it)
            stood = await site.bus.bucket("actual-state").get("pi-1")
            # The server of the site knows nothing of it; nobody answers all the same.
            for subject in (
                manifest,
                "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.pi-1",
                "$KV.actual-state.pi-1",
                "$KV.heartbeat.pi-1",
                "harmony.reply.pi-1.nonce",
            ):
                await revoked.client.publish(subject, b"forged", reply="_INBOX_pi-1.forged")
            await revoked.client.flush()
            said = capsys.readouterr().out
            assert "nothing that it says or asks is passed on" in said
            assert "harmony add-agent pi-1 --site shop" in said
            await site.bus.admin.publish("harmony.mail.pi-1.request", b"{}")
            # By the same line, behind all of that.
            assert await _says(stays)
            assert (await stays.client.request(manifest, timeout=WITHIN_S)).data == b"for a class"
            assert (mail.pending_msgs, answers.pending_msgs) == (0, 0)
            assert stood is not None
            assert await site.bus.bucket("actual-state").get("pi-1") == stood
        await site.carry()
        with pytest.raises(NatsError):
            async with connected(home, "pi-1"):
                raise AssertionError


async def _says(device: Device) -> bool:
    with suppress(NatsError, TimeoutError):
        await device.say("actual-state", b"{}")
        return True
    return False


async def test_who_comes_is_let_in_when_the_server_of_the_site_was_restarted(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path) as site:
        for name in ("pi-1", "pi-2"):
            await asyncio.to_thread(add_agent, site.home, name, site=SITE)
            await site.carry()
            async with connected(site.home, name) as device:
                await device.say("heartbeat", b"{}")


async def test_who_comes_and_who_goes_leaves_the_others_of_a_site_as_they_are(
    tmp_path: Path,
) -> None:
    async with (
        serving_site(tmp_path, "pi-1", "pi-2") as site,
        connected(site.home, "pi-1") as stays,
    ):
        mail = await stays.subscribe(stays.mail("request"))
        await _arrives(site, stays, mail)
        for change in (
            lambda: add_agent(site.home, "pi-3", site=SITE),
            lambda: revoke(site.home, "pi-2"),
            lambda: add_agent(site.home, "pi-3", site=SITE, replace=True),
        ):
            await asyncio.to_thread(change)
            # By what it subscribed to at first: it is not told to do so again.
            await _arrives(site, stays, mail)
            await stays.say("heartbeat", b"{}")
        assert stays.client.is_connected


def _jwt_of(site: SiteScene) -> str:
    return site.leaf.conf.with_name("site.creds").read_text().split("\n")[1]


async def test_a_stolen_server_of_a_site_reaches_its_own_devices_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path, "pi-1") as site:
        home, own = site.home, site.home.agents()
        await site.leaf.kill()
        seed = read_sites(home).named(SITE).key.seed
        jwt = _jwt_of(site)
        authority = read_site_authority(home)
        desired = site.bus.bucket("desired-state")
        for name in ("pi-1", "other"):
            await desired.put(name, f"for {name}".encode())
        async with (
            connected(home, "other") as other,
            forged_leaf(site.line.to, authority, seed, jwt=jwt) as leaf,
        ):
            inbox = await other.subscribe("_INBOX_other.x")
            # It can do what its devices can: so what is refused below is refused for what it is.
            await leaf.subscribe("_INBOX_pi-1.>")
            relay = f"harmony.relay.{own['pi-1'].mailbox}"
            read = f"{relay}.$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state"
            assert b"for pi-1" in await _heard(leaf, f"{read}.pi-1", "_INBOX_pi-1.a")
            await leaf.send(f"{relay}.$KV.actual-state.pi-1", b"{}")
            async with asyncio.timeout(WITHIN_S):
                while await site.bus.bucket("actual-state").get("pi-1") is None:
                    await asyncio.sleep(0.05)

            for subject in (
                ">",
                "$KV.>",
                "$SYS.>",
                "harmony.>",
                "harmony.mail.>",
                "harmony.mail.*.*",
                f"harmony.mailbox.{own['other'].mailbox}.*",
                "harmony.mailbox.*.*",
                "_INBOX_other.>",
                "_R_.>",
            ):
                await leaf.subscribe(subject)
            said = b""
            for subject in (
                f"{read}.other",
                f"{relay}.$KV.actual-state.other",
                f"{relay}.$KV.heartbeat.other",
                f"{relay}.$KV.desired-state.pi-1",
                f"{relay}.$JS.API.STREAM.NAMES",
                f"harmony.relay.{own['other'].mailbox}.$KV.actual-state.other",
                f"{relay}.harmony.reply.other.nonce",
                "harmony.reply.pi-1.nonce",
                "harmony.reply.other.nonce",
                "harmony.mail.other.desired-state",
                "harmony.mail.other.request",
                f"harmony.mailbox.{own['other'].mailbox}.request",
                "_INBOX_other.x",
                "$KV.actual-state.other",
                "$KV.actual-state.pi-1",
                "$KV.desired-state.other",
                "$KV.desired-state.pi-1",
                "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.other",
                "$JS.API.STREAM.NAMES",
                "$JS.API.STREAM.DELETE.KV_desired-state",
                "$SYS.REQ.SERVER.PING",
                "$SYS.REQ.CLAIMS.UPDATE",
            ):
                said += await leaf.send(subject, b"forged", reply="_INBOX_pi-1.b")
            # The server itself is to write for it.
            said += await leaf.send(f"{read}.pi-1", b"", reply="$KV.desired-state.other")
            said += await leaf.send(f"{read}.pi-1", b"", reply="harmony.mail.other.desired-state")
            said += await leaf.send(f"{read}.pi-1", b"", reply="_INBOX_other.x")
            await site.bus.admin.publish("harmony.mail.other.request", b"for other")
            await other.say("heartbeat", b"{}")
            await site.bus.admin.flush()
            said += await _heard(leaf, f"{read}.pi-1", "_INBOX_pi-1.last")
            assert b"for other" not in said
            assert b"MSG _INBOX_pi-1.b" not in said
            assert inbox.pending_msgs == 0
        for name in ("pi-1", "other"):
            stands = await desired.get(name)
            assert stands is not None
            assert stands.value == f"for {name}".encode()
        assert await site.bus.bucket("actual-state").get("other") is None


async def _heard(leaf: ForgedLeaf, subject: str, reply: str) -> bytes:
    """Return all that came until the answer to this did."""
    said = await leaf.send(subject, b"", reply=reply)
    async with asyncio.timeout(WITHIN_S):
        while reply.encode() not in said:
            said += await leaf.say()
    return said


async def test_nobody_else_is_taken_for_the_server_of_a_site(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path, "pi-1") as site:
        home, authority = site.home, read_site_authority(site.home)
        table = tomllib.loads(home.agent_toml("other").read_text())["nats"]
        pi_1 = tomllib.loads(home.agent_toml("pi-1").read_text())["nats"]["seed"]
        for seed, jwt in (
            (Nkey.new().seed, None),
            (pi_1, None),
            (table["seed"], table.get("jwt")),
        ):
            with pytest.raises(ConnectionError):
                async with forged_leaf(site.line.to, authority, seed, jwt=jwt):
                    raise AssertionError(jwt)
        # Nor is the key of a site that of a device or an operator.
        own = read_sites(home).named(SITE).key.seed
        with pytest.raises(BusUnreachable):
            await connect(
                home.control().url,
                seed=own,
                jwt=_jwt_of(site),
                authority=home.read_authority(home.control()),
            )
        # A device of a site of another name does not take it for its own.
        with pytest.raises(BusUnreachable, match="does not prove"):
            await connect(
                site.leaf.url,
                seed=pi_1,
                authority=authority,
                server_name=new_site(f"{SITE}-2", "").server_name,
            )
        # And nobody but its devices takes the server of a site for one of the fleet.
        with pytest.raises(BusUnreachable, match="does not prove"):
            await connect(
                site.leaf.url,
                seed=own,
                authority=home.read_authority(home.control()),
            )


async def test_a_server_of_a_site_that_was_stolen_is_let_in_no_more(
    tmp_path: Path,
) -> None:
    async with serving_site(tmp_path, "pi-1") as site:
        again = ["server", "--home", str(site.home.root), "--export", str(site.given)]
        at = site.leaf.url.removeprefix("tls://")
        assert await asyncio.to_thread(main, [*again, "--leaf", f"{SITE}={at}", "--new-key"]) == 0
        async with asyncio.timeout(WITHIN_S):
            while await site.is_joined():
                await asyncio.sleep(0.05)
        await site.leaf.kill()
        site.settle()
        await site.leaf.start()
        await site.joined()
        async with connected(site.home, "pi-1") as device:
            await device.say("actual-state", b"{}")


async def test_a_site_that_is_removed_is_let_in_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving_site(tmp_path, "pi-1") as site:
        home, seed, jwt = site.home, read_sites(site.home).named(SITE).key.seed, _jwt_of(site)
        remove = ["server", "--home", str(home.root), "--export", str(site.given)]
        remove += ["--remove-leaf", SITE]
        assert await asyncio.to_thread(main, remove) == 2
        assert "has devices: pi-1; take them out" in capsys.readouterr().err
        assert await site.is_joined()
        await asyncio.to_thread(revoke, home, "pi-1")
        assert await asyncio.to_thread(main, remove) == 0
        async with asyncio.timeout(WITHIN_S):
            while await site.is_joined():
                await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            async with forged_leaf(site.line.to, read_site_authority(home), seed, jwt=jwt):
                raise AssertionError
        # What the fleet's server has is right without it; and nobody is told of what there is not.
        assert wrong(await check_server(home, home.control().url, None)) == []
        assert await asyncio.to_thread(main, remove) != 0
        assert f"there is no site '{SITE}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--leaf", "Shop=10.0.0.1"], "cannot be a site's name"),
        (["--leaf", "shop"], "write the address"),
        (["--leaf", "shop=0.0.0.0:4222"], "write the address"),
        (["--leaf", "shop=10.0.0.1:99999"], "is not an address"),
        (["--leaf", "shop=10.0.0.1", "--listen", "127.0.0.1:63000"], "choose a port below"),
        (["--leaf", "shop=10.0.0.1"], "leads back to its own machine"),
        (
            ["--leaf", "shop=10.0.0.1", "--listen", "localhost:4222"],
            "leads back to its own machine",
        ),
        (["--leaf", f"{'s' * 52}=10.0.0.1", "--listen", "10.0.0.2:4222"], "at most 51 letters"),
        (["--new-key"], "goes with --leaf"),
    ],
)
def test_what_is_no_site_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    home = fleet_home(tmp_path)
    export_it = ["server", "--home", str(home.root), "--export", str(tmp_path / "given"), "--jwt"]
    assert main([*export_it, *options]) == 2
    assert said in capsys.readouterr().err
    assert read_sites(home).by_name == {}


def test_a_site_may_have_the_longest_name(tmp_path: Path) -> None:
    home, name = fleet_home(tmp_path), "s" * SITE_NAME_MAX
    command = ["server", "--home", str(home.root), "--export", str(tmp_path / "given"), "--jwt"]
    assert main([*command, "--listen", "10.0.0.2:4222", "--leaf", f"{name}=10.0.0.1"]) == 0
    assert list(read_sites(home).by_name) == [name]


def test_leaf_goes_with_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = fleet_home(tmp_path)
    for option in ("--leaf=shop=10.0.0.1", "--new-key", "--remove-leaf=shop"):
        assert main(["server", "--home", str(home.root), option]) == 2
        assert "go with --export" in capsys.readouterr().err


def test_a_site_needs_jwts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = fleet_home(tmp_path)
    command = ["server", "--home", str(home.root), "--export", str(tmp_path / "given")]
    assert main([*command, "--leaf", "shop=10.0.0.1"]) == 2
    assert "--leaf goes with --jwt" in capsys.readouterr().err
    assert not home.control_toml.exists()


def test_no_device_is_let_in_at_a_site_that_there_is_not(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    export(home, tmp_path / "given", listen=None, fleet=None, issued=None)
    with pytest.raises(ConfigError, match="there is no site 'shop'"):
        add_agent(home, "pi-1", site="shop")
    assert home.agents() == {}


def _accounts_with(home: Home, sites: Sites, agents: int) -> dict[str, str]:
    """Return the JWTs of a fleet with *sites*, and so many devices at `SITE`."""
    issuers = read_issuers(home)
    assert issuers is not None
    found = {
        f"pi-{number}": Enrolled(Nkey.new().public, new_mailbox(), "", SITE)
        for number in range(agents)
    }
    config = attrs.evolve(server_config(home, home.control()), agents=found, sites=sites)
    return encode_accounts(issuers, config, [], revoked_there={}, issued_at_s=1)


def test_only_with_a_site_is_what_users_may_another(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    command = ["server", "--home", str(home.root), "--export", str(tmp_path / "given"), "--jwt"]
    assert main([*command, "--listen", "10.0.0.2:4222", "--leaf", f"{SITE}=10.0.0.1"]) == 0
    for sites, most in ((Sites(), -1), (read_sites(home), MAX_SUBSCRIPTIONS)):
        accounts = _accounts_with(home, sites, 0)
        for name in ("CTRL", "FLEET-00", "LOOK", "DOOR"):
            (key,) = decode_jwt(accounts[name])["nats"]["signing_keys"]
            assert key["template"]["subs"] == most, name


def test_a_site_of_too_many_devices_is_refused_in_words(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    command = ["server", "--home", str(home.root), "--export", str(tmp_path / "given"), "--jwt"]
    assert main([*command, "--listen", "10.0.0.2:4222", "--leaf", f"{SITE}=10.0.0.1"]) == 0
    assert f"SITE-{SITE}" in _accounts_with(home, read_sites(home), 70)
    with pytest.raises(ConfigError, match="this site has too many devices; make two of it"):
        _accounts_with(home, read_sites(home), 100)


async def test_of_a_cluster_a_site_knows_each_server_and_each_waits_for_it(tmp_path: Path) -> None:
    home, given = fleet_home(tmp_path), tmp_path / "given"
    command = ["server", "--home", str(home.root), "--export", str(given)]
    cluster = "10.0.0.1,10.0.0.2,nats-3.example.org:4333"
    options = ["--jwt", "--cluster", cluster, "--leaf", "shop=192.168.7.2"]
    assert await asyncio.to_thread(main, [*command, *options]) == 0
    leaf = (given / "site-shop" / "nats.conf").read_text()
    for address in ("10.0.0.1:7422", "10.0.0.2:7422", "nats-3.example.org:7533"):
        assert f"tls://{address}" in leaf
        assert str(Listen.parse(address)) in read_sites(home).hubs
    for name, listen in (
        ("10.0.0.2", "10.0.0.2:7422"),
        ("nats-3.example.org-4333", "0.0.0.0:7533"),
    ):
        assert f'"listen": "{listen}"' in (given / name / "nats.conf").read_text()
        assert (given / name / "sites.pem").exists()
