"""A NATS server that somebody else runs, whose users are let in by JWTs: who is in, and who is not."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import tomllib
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import nats.errors
import pytest

from harmony_agent.bus.connection import Bus as AgentBus
from harmony_agent.config import AgentConfig, load
from harmony_agent.enroll import enroll
from harmony_control.bus.connection import admin, close, connect
from harmony_control.enrol import add_agent, revoke
from harmony_control.invitations import invite, withdraw_all
from harmony_control.operators import Access, FleetFile, add_operator, join, remove_operator
from harmony_control.server.accounts import FOR_EVER, encode_accounts, encode_system_user
from harmony_control.server.apply import bring_up_to_date, server_config
from harmony_control.server.check import check_server
from harmony_control.server.claims import find_stale_accounts
from harmony_control.server.doorkeeper import keeping_the_door
from harmony_control.server.export import STORE, export
from harmony_control.server.jwt import encode
from harmony_control.server.process import running
from harmony_control.store import operator_key
from harmony_control.store.home import Enrolled, Home, write_json, write_toml
from harmony_control.store.issuers import Issued, note_issued, read_issued, read_issuers
from harmony_control.store.nkey import Issuer, Nkey
from harmony_core.errors import (
    BusUnreachable,
    ConfigError,
    HarmonyError,
    NotAllowed,
    UsageError,
)
from harmony_core.wire.jwt import Claims, decode_jwt
from harmony_core.wire.names import new_mailbox
from tests.authority import NATS, REPORT
from tests.nats import (
    Bus,
    connected,
    fleet_home,
    run_nats,
    serving,
    serving_jwts,
    told_of_users,
    worked_off,
)
from tests.ports import free_address
from tests.soak import tell

from .cut_off import assert_cut_off_when_told
from .ground import command, environment, harmony

WITHIN_S = 20


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncGenerator[Bus]:
    async with serving_jwts(tmp_path, "pi-1", "pi-2") as made:
        yield made


def export_jwts(home: Home, root: Path) -> None:
    given, listen = root / "given", "nats.example:4222"
    export(home, given, listen=listen, fleet=None, issued=None, with_jwts=True)


def wrong(findings: list[Any]) -> list[str]:
    return [f"{each.what}: {each.detail}" for each in findings if each.verdict == "wrong"]


async def is_cut(client: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not client.is_closed:
            await asyncio.sleep(0.001)


async def test_what_is_exported_and_told_is_all_that_a_server_needs(bus: Bus) -> None:
    found = await check_server(bus.home, bus.server.url, bus.home.agent_toml("pi-1"))
    assert wrong(found) == []
    assert "the accounts, and who is revoked" in [each.what for each in found]


async def test_a_revoked_device_is_cut_off_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with serving_jwts(tmp_path, "pi-1", "pi-2") as bus:
        thief, other = await bus.device("pi-1"), await bus.device("pi-2")

        async def revoke_it() -> None:
            said = await harmony(bus.home, "revoke", "pi-1")
            assert "is revoked, and its connection is cut" in said.out, said

        await assert_cut_off_when_told(bus, thief, revoke_it)
        await is_cut(thief.client)
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await bus.device("pi-1")
        assert other.client.is_connected
    # By the same files, and nothing else: nobody tells it again.
    async with run_nats(tmp_path / "given" / "nats.conf"):
        await _answers(bus.home)
        async with connected(bus.home, "pi-2"):
            pass
        with pytest.raises(nats.errors.Error, match="Authorization"):
            async with connected(bus.home, "pi-1"):
                pass


async def _answers(home: Home) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with admin(home):
                    return
            except BusUnreachable:
                await asyncio.sleep(0.05)


async def test_a_home_put_back_from_a_backup_lets_nobody_in_again(bus: Bus) -> None:
    kept = {path: path.read_bytes() for path in bus.home.server.glob("*.json")}
    await bus.enrol("pi-3")
    seed = bus.home.agent_toml("pi-3")
    await asyncio.to_thread(revoke, bus.home, "pi-3")
    for path in bus.home.server.glob("*.json"):
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    assert "pi-3" not in bus.home.agents()
    assert seed.exists()
    await asyncio.to_thread(add_agent, bus.home, "pi-4")
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await bus.device("pi-3")
    await bus.device("pi-4")


async def test_a_device_makes_its_own_key_and_gets_its_jwt_back(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "new" / "agent.toml"
    async with keeping_the_door(bus.home, bus.admin):
        invitation = await asyncio.to_thread(lambda: invite(bus.home, agent_id="pi-9"))
        assert await enroll(path, invitation.to_text(), agent_id=None, waits_s=0) == 0
        config = load(path)
        assert config.nats.jwt is not None
        assert decode_jwt(config.nats.jwt)["sub"] == bus.home.agents()["pi-9"].nkey
        for each in bus.home.root.rglob("*"):
            assert not each.is_file() or config.nats.seed.encode() not in each.read_bytes()
        # One that has its file keeps it, a person's lines too; what lets it in is new.
        text = path.read_text().replace(config.nats.jwt, "e30.e30." + "A" * 86)
        path.write_text("# mine\n" + text)
        again = await asyncio.to_thread(lambda: invite(bus.home, agent_id="pi-9", again=True))
        assert await enroll(path, again.to_text(), agent_id=None, waits_s=0) == 0
        before, after = tomllib.loads(text), tomllib.loads(path.read_text())
        assert decode_jwt(after["nats"].pop("jwt"))["sub"] == bus.home.agents()["pi-9"].nkey
        del before["nats"]["jwt"]
        assert (after, path.read_text().startswith("# mine\n")) == (before, True)
        # One that was let in by its key alone gets the line.
        path.write_text("".join(each for each in text.splitlines(True) if "jwt" not in each))
        assert await enroll(path, again.to_text(), agent_id=None, waits_s=0) == 0
        assert load(path).nats.jwt is not None


async def test_an_invitation_that_is_withdrawn_opens_nothing(bus: Bus, tmp_path: Path) -> None:
    async with keeping_the_door(bus.home, bus.admin):
        invitation = await asyncio.to_thread(lambda: invite(bus.home))
        await asyncio.to_thread(withdraw_all, bus.home)
        with pytest.raises(ConfigError, match="does not know the invitation"):
            await enroll(tmp_path / "agent.toml", invitation.to_text(), agent_id="pi-9", waits_s=0)
    assert "pi-9" not in bus.home.agents()


async def test_operators_come_in_look_and_are_cut_off(bus: Bus, tmp_path: Path) -> None:
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)

    async def let_in(access: Access) -> None:
        def write() -> Path:
            path = tmp_path / "bob.fleet"
            add_operator(bus.home, "bob", bob.operator_pub, access=access).write(path)
            return path

        await join(bob, await asyncio.to_thread(write))

    await let_in("push")
    async with admin(bob) as client:
        await bus.bucket("desired-state").put("pi-1", b"by ada")
        await attrs.evolve(bus, admin=client).bucket("desired-state").put("pi-1", b"by bob")
        await let_in("look")
        await is_no_operator(client)
    async with admin(bob) as client:
        found = await attrs.evolve(bus, admin=client).bucket("desired-state").get("pi-1")
        assert found is not None
        assert found.value == b"by bob"
        with pytest.raises(NotAllowed):
            await attrs.evolve(bus, admin=client).bucket("desired-state").put("pi-1", b"x")
    await asyncio.to_thread(remove_operator, bus.home, "bob")
    with pytest.raises(BusUnreachable, match="does not know our key"):
        async with admin(bob):
            pass


async def is_no_operator(client: Any) -> None:
    """Return once the connection is cut: `harmony` makes it again by itself, and is not let in."""
    async with asyncio.timeout(WITHIN_S):
        while client.is_connected:
            await asyncio.sleep(0.001)


def test_a_file_for_an_operator_of_static_keys_is_as_it_was(tmp_path: Path) -> None:
    fleet = FleetFile(fleet="home", url="tls://a:1", server_name="s", ca="c", operator_keys=())
    fleet.write(tmp_path / "bob.fleet")
    assert "jwt" not in (tmp_path / "bob.fleet").read_text()


async def test_what_cannot_be_told_is_not_done_and_can_be_done_again(tmp_path: Path) -> None:
    async with serving_jwts(tmp_path, "pi-1") as bus:
        pass
    before = {path: path.read_bytes() for path in bus.home.server.glob("[ar]*.json")}
    with pytest.raises(BusUnreachable):
        await asyncio.to_thread(revoke, bus.home, "pi-1")
    assert {path: path.read_bytes() for path in bus.home.server.glob("[ar]*.json")} == before
    async with run_nats(tmp_path / "given" / "nats.conf"):
        await _answers(bus.home)
        await asyncio.to_thread(revoke, bus.home, "pi-1")
        with pytest.raises(nats.errors.Error, match="Authorization"):
            async with connected(bus.home, "pi-1"):
                pass


async def test_a_server_that_has_lost_what_it_knew_is_found_and_told_again(tmp_path: Path) -> None:
    async with serving_jwts(tmp_path, "pi-1", "pi-2") as bus:
        await asyncio.to_thread(revoke, bus.home, "pi-2")
    for each in (tmp_path / "store" / "jwt").iterdir():
        each.unlink()
    config = server_config(bus.home, bus.home.control())
    async with run_nats(tmp_path / "given" / "nats.conf"):
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    assert "CTRL" in await find_stale_accounts(bus.home, config)
                except BusUnreachable:
                    await asyncio.sleep(0.05)
                else:
                    break
        await told_of_users(bus.home)
        assert await find_stale_accounts(bus.home, config) == []
        async with connected(bus.home, "pi-1"):
            pass
        with pytest.raises(nats.errors.Error, match="Authorization"):
            async with connected(bus.home, "pi-2"):
                pass


async def test_accounts_that_are_not_as_in_the_home_are_found(bus: Bus) -> None:
    enrolled = {**bus.home.agents(), "pi-3": Enrolled(Nkey.new().public, new_mailbox(), "x")}
    bus.home.save_agents(enrolled)
    found = wrong(await check_server(bus.home, bus.server.url, None))
    assert [each.partition(": FLEET-")[0] for each in found] == [
        "the accounts, and who is revoked: it has others"
    ]


@attrs.frozen
class _Forger:
    """Who has stolen pi-1, and has seen the JWT of pi-2, which is no secret."""

    home: Home
    seed: str
    public: str
    own: str
    others: str

    def resigned(self, issuer: Issuer, **changes: object) -> str:
        """The own JWT with *changes*, signed by *issuer*."""
        claims: dict[str, Any] = decode_jwt(self.own)
        return encode(
            issuer,
            self.public,
            str(changes.pop("name", "pi-1")),
            "user",
            {**claims["nats"], **changes},
            issued_at_s=claims["iat"],
        )

    def edited(self, change: Mapping[str, object]) -> str:
        """The own JWT with other claims under the signature that it had."""
        head, _, signature = self.own.split(".")
        body = _as_text({**decode_jwt(self.own), **change})
        return f"{head}.{body}.{signature}"

    def unsigned(self, algorithm: str) -> str:
        head = _as_text({"typ": "JWT", "alg": algorithm})
        return f"{head}.{_as_text({**decode_jwt(self.own), 'name': 'pi-2'})}."


def _as_text(table: Mapping[str, object]) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(json.dumps(table).encode()).decode().rstrip("=")


def _forgeries(forger: _Forger) -> Iterator[str]:
    account = decode_jwt(forger.own)["nats"]["issuer_account"]
    wide: dict[str, object] = {"subs": -1, "data": -1, "payload": -1}
    yield forger.others
    for name, tags in (("pi-2", []), ("*", []), (">", []), ("pi-1", ["mailbox:>"])):
        changes: dict[str, object] = {"tags": tags} if tags else {}
        yield forger.edited({"name": name, **changes})
        for kind in ("account", "operator"):
            yield forger.resigned(Issuer.new(kind), name=name, **changes)
        yield forger.resigned(Issuer.new("account"), name=name, issuer_account=account, **wide)
    yield forger.edited({"nats": {**decode_jwt(forger.own)["nats"], "bearer_token": True}})
    yield forger.edited({"iss": account})
    yield forger.edited({"iat": FOR_EVER})
    for algorithm in ("none", "ed25519", "ed25519-nkey", "HS256"):
        yield forger.unsigned(algorithm)
    for cut in range(1, 4):
        yield forger.own[:-cut]
    # An activation says that an account may import: signed by CTRL, and for no user.
    issuers = read_issuers(forger.home)
    assert issuers is not None
    exported = encode_accounts(
        issuers,
        server_config(forger.home, forger.home.control()),
        [],
        revoked_there={},
        issued_at_s=1,
    )
    yield decode_jwt(exported["FLEET-00"])["nats"]["imports"][0]["token"]
    yield exported["CTRL"]
    # Of who tells the server of accounts, for another key.
    yield encode_system_user(issuers, Nkey.new().public, "_INBOX")


async def test_no_jwt_but_the_one_that_was_given_lets_a_stolen_key_in(bus: Bus) -> None:
    tables = [tomllib.loads(bus.home.agent_toml(each).read_text()) for each in ("pi-1", "pi-2")]
    own, others = (each["nats"]["jwt"] for each in tables)
    seed = tables[0]["nats"]["seed"]
    forger = _Forger(bus.home, seed, Nkey.of_seed(seed).public, own, others)

    async def connect_with(jwt: str | None) -> None:
        client = await connect(
            bus.server.url,
            seed=seed,
            jwt=jwt,
            authority=tables[0]["nats"]["ca"],
            inbox="_INBOX_pi-1",
        )
        await close(client)

    await connect_with(own)
    forged = [None, *_forgeries(forger)]
    for each in forged:
        with pytest.raises(BusUnreachable):
            await connect_with(each)
    tell("access", f"{len(forged)} forged JWTs, 0 let in")


async def test_a_jwt_of_a_device_gives_no_more_than_its_account_allows(bus: Bus) -> None:
    """What the one who signs for devices adds to a JWT counts for nothing, or lets nobody in."""
    issuers = read_issuers(bus.home)
    assert issuers is not None
    device = Nkey.new()
    for name, keys in issuers.accounts.items():
        if name.startswith("FLEET"):
            jwt = encode(
                keys.signing,
                device.public,
                "pi-1",
                "user",
                {"issuer_account": keys.identity.public, "pub": {"allow": [">"]}, "subs": -1},
                issued_at_s=int(time.time()),
            )
            with pytest.raises(BusUnreachable):
                await connect(
                    bus.server.url,
                    seed=device.seed,
                    jwt=jwt,
                    authority=bus.home.read_authority(bus.home.control()),
                )


async def test_such_a_home_runs_no_server_itself_and_says_so(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    export_jwts(home, tmp_path)
    with pytest.raises(UsageError, match="run by somebody else"):
        async with running(home):
            pass
    assert not home.nats_conf.exists()
    # It stays so, and the file is the same.
    before = (tmp_path / "given" / "nats.conf").read_text()
    export(home, tmp_path / "given", listen=None, fleet=None, issued=None)
    assert (tmp_path / "given" / "nats.conf").read_text() == before
    assert "accounts {" not in before
    for path in (home.issuers_json, home.issued_json, home.control().jwt):
        assert path.stat().st_mode & 0o777 == 0o600
    said = await harmony(home, "server", "--listen", "127.0.0.1:4222")
    assert said.status == 2
    assert "go with --export DIR" in said.err
    said = await harmony(home, "server", "--jwt")
    assert said.status == 2
    assert "--jwt and --expire go with --export DIR" in said.err


async def test_a_server_of_static_keys_that_runs_is_not_left_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        with pytest.raises(UsageError, match="end it first"):
            await asyncio.to_thread(
                lambda: export(
                    bus.home,
                    tmp_path / "given",
                    listen=None,
                    fleet=None,
                    issued=None,
                    with_jwts=True,
                )
            )
        assert not bus.home.issuers_json.exists()


async def test_the_commands_lead_from_an_export_to_a_device(tmp_path: Path) -> None:
    home, given = fleet_home(tmp_path), tmp_path / "given"
    address = free_address()
    said = await harmony(home, "server", "--listen", address, "--export", str(given), "--jwt")
    assert said.status == 0, said.err
    assert "start NATS by it, then `harmony server`" in said.out
    conf = given / "nats.conf"
    conf.write_text(conf.read_text().replace(str(STORE), str(tmp_path / "store")))
    async with run_nats(conf):
        await told_of_users(home)
        process = await asyncio.create_subprocess_exec(
            *command("server", "--json"),
            env=environment(home),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), WITHIN_S)
            assert json.loads(line)["event"] == "server"
            path = tmp_path / "agent.toml"
            said = await harmony(home, "invite", "pi-1")
            assert said.status == 0, said.err
            assert await enroll(path, said.out.split()[-1], agent_id=None, waits_s=0) == 0
            said = await harmony(
                home, "server", "--check", f"tls://{address}", "--device", str(path)
            )
            assert said.status == 0, said.out + said.err
            said = await harmony(home, "status", "--json")
            assert said.documents[0]["agent_id"] == "pi-1"
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["event"] == "stopped"


def test_devices_are_spread_and_a_fleet_that_is_too_large_is_told(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    export_jwts(home, tmp_path)
    issuers = read_issuers(home)
    assert issuers is not None
    config = server_config(home, home.control())

    def encode_for(count: int, *, prefix: str) -> dict[str, str]:
        agents = {
            f"{prefix}{number}": Enrolled(f"U{number:055}", new_mailbox(), "x")
            for number in range(count)
        }
        larger = attrs.evolve(config, agents=agents)
        return encode_accounts(issuers, larger, [], revoked_there={}, issued_at_s=1)

    spread = [
        len(decode_jwt(each)["nats"]["imports"])
        for name, each in encode_for(320, prefix="pi-").items()
        if name.startswith("FLEET")
    ]
    assert len(spread) == 16
    assert min(spread) < max(spread) < 320
    with pytest.raises(ConfigError, match="too large for JWTs"):
        encode_for(40_000, prefix="a" * 58)


def test_who_was_given_one_is_remembered_until_it_has_expired(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    home.make_server()
    for each in (
        Issued("FLEET-00", "A", None),
        Issued("DOOR", "B", 1),
        Issued("DOOR", "C", FOR_EVER),
    ):
        note_issued(home, each)
    assert sorted(each.nkey for each in read_issued(home)) == ["A", "C"]


@pytest.mark.parametrize("name", ["issuers.json", "issued.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"operator": "x"}', '{"x:A": [1]}'])
def test_what_is_damaged_is_told_and_nobody_is_let_in_by_it(
    tmp_path: Path, name: str, content: str
) -> None:
    home = fleet_home(tmp_path)
    export_jwts(home, tmp_path)
    (home.server / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} is damaged .*put back a copy"):
        add_agent(home, "pi-1")
    assert home.agents() == {}


async def test_a_device_that_has_the_key_of_another_is_refused(bus: Bus) -> None:
    both = {**bus.home.agents(), "pi-3": bus.home.agents()["pi-1"]}
    write_json(bus.home.agents_json, {each: attrs.asdict(found) for each, found in both.items()})
    with pytest.raises(HarmonyError, match="would have the same key"):
        await asyncio.to_thread(bring_up_to_date, bus.home)


async def test_a_device_renews_its_jwt_and_comes_back_when_the_earlier_has_expired(
    bus: Bus, tmp_path: Path
) -> None:
    await asyncio.to_thread(let_devices_expire, bus.home, tmp_path, timedelta(days=90))
    config = load(bus.home.agent_toml("pi-1"))
    kept: list[str] = []
    connected_at: list[str] = []

    async def keep(jwt: str) -> None:
        kept.append(jwt)

    async with keeping_the_door(bus.home, bus.admin):
        now_s = int(time.time())
        # Long enough that a busy machine lets the agent in, and renews it, before.
        agent = AgentBus.of(with_times(bus.home, config, now_s - 3_600, now_s + 15))
        agent.on_renewed = keep
        agent.on_connect(lambda: connected_at.append("again" if connected_at else "first"))
        running = asyncio.create_task(agent.run())
        try:
            async with asyncio.timeout(2 * WITHIN_S):
                # The server ends the connection that was opened with the first.
                while "again" not in connected_at:
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.wait([running])
    (renewed,) = map(Claims.of, kept)
    assert renewed.subject == bus.home.agents()["pi-1"].nkey
    assert renewed.expires_at_s == renewed.issued_at_s + 90 * 86_400


async def test_who_has_let_it_expire_is_told_so(bus: Bus) -> None:
    path = bus.home.agent_toml("pi-1")
    expired = with_times(bus.home, load(path), 1_000, 2_000)
    assert expired.nats.jwt is not None
    why_not = await AgentBus.of(expired).why_not(within_s=WITHIN_S)
    assert why_not is not None
    assert "(nats.jwt) has expired on 1970-01-01T00:33:20" in why_not
    assert why_not.endswith("to let it in again with that key: harmony enroll root@HOST")
    path.write_text(path.read_text().replace(load(path).nats.jwt or "", expired.nats.jwt))
    (found,) = wrong(await check_server(bus.home, bus.server.url, path))
    assert found.startswith("a device is let in: the JWT in the file of pi-1 has expired on 1970")


def with_times(home: Home, config: AgentConfig, issued_at_s: int, expires_at_s: int) -> AgentConfig:
    """*config* with its JWT as if issued then."""
    issuers = read_issuers(home)
    assert issuers is not None
    claims = decode_jwt(config.nats.jwt or "")
    (issuer,) = (
        each.signing for each in issuers.accounts.values() if each.signing.public == claims["iss"]
    )
    jwt = encode(
        issuer,
        claims["sub"],
        claims["name"],
        "user",
        claims["nats"],
        issued_at_s=issued_at_s,
        expires_at_s=expires_at_s,
    )
    return config.model_copy(update={"nats": config.nats.model_copy(update={"jwt": jwt})})


def let_devices_expire(home: Home, root: Path, life: timedelta) -> None:
    export(home, root / "again", listen=None, fleet=None, issued=None, device_life=life)


@pytest.mark.parametrize("is_newer", [True, False])
def test_what_was_renewed_counts_after_a_restart_while_the_key_is_the_same(
    tmp_path: Path, is_newer: bool
) -> None:
    home = fleet_home(tmp_path)
    export_jwts(home, tmp_path)
    issuers = read_issuers(home)
    assert issuers is not None
    device, other = Nkey.new().public, Nkey.new().public

    def made(key: str, at_s: int) -> str:
        account = issuers.accounts["FLEET-00"].signing
        return encode(account, key, "pi-1", "user", {}, issued_at_s=at_s, expires_at_s=at_s + 90)

    path = tmp_path / "agent.toml"
    nats = NATS.model_dump(exclude_none=True) | {"jwt": made(device, 1_000)}
    write_toml(
        path,
        {
            "agent_id": "pi-1",
            "fleet": "home",
            "state_directory": str(tmp_path),
            "nats": nats,
            "report": REPORT.model_dump(),
            "trust": {"operator_keys": [operator_key.load_public(home).to_text()]},
        },
    )
    for text in ("", "junk", "a.b.c", made(other, 5_000)):
        (tmp_path / "bus.jwt").write_text(text)
        assert load(path).nats.jwt == nats["jwt"]
    renewed = made(device, 2_000 if is_newer else 500)
    (tmp_path / "bus.jwt").write_text(renewed + "\n")
    assert load(path).nats.jwt == (renewed if is_newer else nats["jwt"])


def test_a_jwt_is_renewed_after_two_thirds_of_its_life_and_where_nobody_knows_the_time() -> None:
    claims = Claims("U", issued_at_s=1_000, expires_at_s=1_090)
    assert claims.renewal_due_in_s(1_000) == pytest.approx(60)
    assert claims.renewal_due_in_s(1_059) == pytest.approx(1)
    assert claims.renewal_due_in_s(1_060) == 0
    assert claims.renewal_due_in_s(5_000) == 0
    assert claims.renewal_due_in_s(0) == 0
    assert Claims("U", 1_000, None).renewal_due_in_s(5_000) is None


async def test_a_device_renews_its_own_and_nobody_elses(bus: Bus) -> None:
    async with keeping_the_door(bus.home, bus.admin):
        device = await bus.device("pi-1")
        answer = await device.client.request("harmony.renew.pi-1", b"", timeout=WITHIN_S)
        given = json.loads(answer.data)
        assert Claims.of(given["jwt"]).subject == bus.home.agents()["pi-1"].nkey
        for subject in ("harmony.renew.pi-2", "harmony.renew.*", "harmony.renew.pi-1.more"):
            await device.client.publish(subject, b"", reply="_INBOX_pi-1.loot")
            await worked_off(device.client)
            assert f'"{subject}"' in device.refusals[-1].lower()


def test_who_was_let_in_for_ever_is_remembered_for_ever(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    home.make_server()
    for expires_at_s in (None, FOR_EVER):
        note_issued(home, Issued("FLEET-00", "A", expires_at_s))
    assert [each.expires_at_s for each in read_issued(home)] == [None]


def test_a_key_alone_does_not_expire(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    with pytest.raises(UsageError, match="--expire goes with --jwt"):
        export(
            home,
            tmp_path / "given",
            listen="nats.example:4222",
            fleet=None,
            issued=None,
            device_life=timedelta(days=90),
        )
