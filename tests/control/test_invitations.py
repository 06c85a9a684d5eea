"""Devices let themselves in, by an invitation and with keys of their own, on a real server."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from harmony_agent.config import load
from harmony_agent.enroll import enroll
from harmony_control import invitations
from harmony_control.enrol import add_agent, retire, revoke
from harmony_control.invitations import (
    accept,
    admit,
    invite,
    read_pending,
    refuse,
    withdraw_all,
)
from harmony_control.operators import add_operator
from harmony_control.server.apply import RELOAD_REFUSED, RELOADED
from harmony_control.server.doorkeeper import keeping_the_door
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.invitations import read_invitations, save_invitations, withdraw
from harmony_control.store.nkey import Nkey
from harmony_core.errors import BusUnreachable, ConfigError, UsageError
from harmony_core.wire.enrolment import EnrolRequest, Invitation
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.names import fingerprint, new_mailbox
from harmony_core.wire.tls import PinnedTransport, verifying_context
from tests.nats import Bus, serving, worked_off
from tests.ports import free_address

from .ground import count_reloads, harmony


@attrs.frozen
class Door:
    """A server that lets devices in, and a place for what they keep."""

    bus: Bus
    root: Path

    async def invite(self, **options: Any) -> Invitation:
        return await asyncio.to_thread(lambda: invite(self.bus.home, **options))

    def config(self, name: str) -> Path:
        return self.root / name / "agent.toml"

    async def enroll(
        self, name: str, invitation: Invitation, *, waits_s: float = 0, **options: Any
    ) -> int:
        """As the device *name* does it."""
        options = {"agent_id": None, **options}
        return await enroll(self.config(name), invitation.to_text(), waits_s=waits_s, **options)


@asynccontextmanager
async def door_of(root: Path) -> AsyncGenerator[Door]:
    async with serving(root) as bus, keeping_the_door(bus.home, bus.admin):
        yield Door(bus, root)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncGenerator[Door]:
    async with door_of(tmp_path) as door:
        yield door


async def test_a_device_comes_by_itself_with_a_key_of_its_own(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await door.enroll("pi-1", await door.invite(agent_id="pi-1")) == 0
    said = capsys.readouterr().out
    config = load(door.config("pi-1"))
    entered = door.bus.home.agents()["pi-1"]
    assert Nkey.of_seed(config.nats.seed).public == entered.nkey
    assert config.nats.mailbox == entered.mailbox
    assert entered.fingerprint in said
    assert config.report_key.public.to_text() == entered.report_key
    assert "this device is authenticated" in said
    assert door.config("pi-1").stat().st_mode & 0o777 == 0o600
    assert not door.config("pi-1").with_name("agent.toml.new").exists()


async def test_no_secret_of_the_device_is_anywhere_on_the_control_plane(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    seed = load(door.config("pi-1")).nats.seed.encode()
    kept = [path for path in door.bus.home.root.rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if seed in path.read_bytes()] == []


async def test_nor_is_the_secret_of_an_invitation(door: Door) -> None:
    seed = (await door.invite()).seed.encode()
    kept = [path for path in door.bus.home.root.rglob("*") if path.is_file()]
    assert [path for path in kept if seed in path.read_bytes()] == []


async def test_many_come_with_one_and_no_more_than_it_says(door: Door) -> None:
    invitation = await door.invite(count=3)
    names = [f"pi-{n}" for n in range(5)]
    done = await asyncio.gather(
        *(door.enroll(name, invitation, agent_id=name) for name in names), return_exceptions=True
    )
    assert sorted(map(str, done))[:3] == ["0", "0", "0"]
    assert all("used up" in str(each) for each in done if each != 0)
    assert len(door.bus.home.agents()) == 3


async def test_an_answer_that_was_lost_is_asked_for_again_and_counts_once(door: Door) -> None:
    invitation = await door.invite(count=1)
    await door.enroll("pi-1", invitation, agent_id="pi-1")
    path = door.config("pi-1")
    path.rename(path.with_name("agent.toml.new"))
    assert await door.enroll("pi-1", invitation, agent_id="pi-1") == 0
    assert len(door.bus.home.agents()) == 1


async def test_who_waits_is_let_in_by_the_fingerprint_that_both_see(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    invitation = await door.invite(asks=True)
    assert await door.enroll("pi-1", invitation, agent_id="pi-1") == 1
    (pending,) = read_pending(door.bus.home)
    assert pending.device.fingerprint in capsys.readouterr().out
    assert door.bus.home.agents() == {}
    with pytest.raises(UsageError, match="by now another device waits"):
        accept(door.bus.home, {"pi-1": "0000-0000-0000-0000"})
    waiting = asyncio.create_task(door.enroll("pi-1", invitation, agent_id="pi-1", waits_s=60))
    await asyncio.to_thread(accept, door.bus.home, {"pi-1": pending.device.fingerprint})
    assert await waiting == 0
    assert read_pending(door.bus.home) == []


async def test_whoever_cannot_be_taken_off_the_waiting_list_is_not_let_in(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the command fails, and nothing has come of it."""
    home, invitation = door.bus.home, await door.invite(asks=True, count=2)
    for name in ("pi-1", "pi-2"):
        assert await door.enroll(name, invitation, agent_id=name) == 1
    shown = {each.agent_id: each.device.fingerprint for each in read_pending(home)}
    before = (read_pending(home), read_invitations(home))

    def fail(*_: object) -> None:
        raise ConfigError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(invitations, "save_waiting", fail)
        with pytest.raises(ConfigError, match="no space left"):
            await asyncio.to_thread(accept, home, shown)
    assert home.agents() == {}
    assert (read_pending(home), read_invitations(home)) == before
    await asyncio.to_thread(accept, home, shown)
    assert set(home.agents()) == {"pi-1", "pi-2"}
    assert read_pending(home) == []


async def test_who_is_half_way_in_while_the_server_is_told_of_another_is_let_in(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-server refuses whoever has not said yet who it is, whenever it reads its configuration anew."""
    invitation = await door.invite(agent_id="pi-1")
    connect = PinnedTransport.connect
    times = 0

    async def connect_slowly(self: PinnedTransport, *where: Any) -> None:
        nonlocal times
        times += 1
        await connect(self, *where)
        if times == 1:
            await door.invite(agent_id="pi-2")

    monkeypatch.setattr(PinnedTransport, "connect", connect_slowly)
    assert await door.enroll("pi-1", invitation, agent_id="pi-1", waits_s=60) == 0
    assert times > 2  # refused, asked again, and proved


async def test_who_asks_again_while_it_is_accepted_is_let_in(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of its invitation is used up, by itself."""
    invitation = await door.invite(asks=True, count=1)
    assert await door.enroll("pi-1", invitation, agent_id="pi-1") == 1
    (pending,) = read_pending(door.bus.home)
    wait: Any = vars(invitations)["_wait"]

    def accept_first(home: Home, public: str, request: EnrolRequest) -> None:
        accept(home, {"pi-1": pending.device.fingerprint})
        wait(home, public, request)

    monkeypatch.setattr(invitations, "_wait", accept_first)
    assert await door.enroll("pi-1", invitation, agent_id="pi-1") == 0
    assert read_pending(door.bus.home) == []


_WRITES = (
    ("invite", "pi-5", "--out"),
    ("add-agent", "pi-5", "--out"),
    ("add-operator", "bob", "bob.pub", "--out"),
)


@pytest.mark.parametrize("command", _WRITES, ids=lambda command: command[0])
async def test_an_address_is_tried_before_it_is_written(
    door: Door, tmp_path: Path, command: tuple[str, ...]
) -> None:
    home, out = door.bus.home, tmp_path / "written"
    bob = Home(tmp_path / "bob")
    await asyncio.to_thread(operator_key.create, bob)
    words = [str(bob.operator_pub) if each == "bob.pub" else each for each in command]
    before = {path: path.read_bytes() for path in home.server.glob("*.json")}
    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(door_of(tmp_path / "theirs"))
        free = f"tls://{free_address()}"
        for url, why in (
            (free, f"{free} cannot be reached"),
            (theirs.bus.server.url, "does not prove to be the server of this fleet"),
        ):
            said = await harmony(home, *words, str(out), "--url", url)
            assert (said.status, why in said.err, "--no-try" in said.err) == (4, True, True), said
            assert not out.exists()
            assert {path: path.read_bytes() for path in home.server.glob("*.json")} == before
    said = await harmony(home, *words, str(out), "--url", free, "--no-try")
    assert (said.status, out.exists()) == (0, True), said


async def test_the_address_of_the_server_that_runs_is_written(door: Door, tmp_path: Path) -> None:
    out = tmp_path / "written"
    said = await harmony(door.bus.home, "invite", "--out", str(out))
    assert (said.status, "not tried" in said.err) == (0, False), said
    assert out.exists()


async def test_where_no_server_runs_an_address_is_written_untried_and_that_is_said(
    tmp_path: Path,
) -> None:
    async with door_of(tmp_path) as door:
        home = door.bus.home
    said = await harmony(home, "invite", "--url", "tls://192.0.2.1:4222")
    assert (said.status, "was not tried, since `harmony server` does not run" in said.err) == (
        0,
        True,
    )


async def test_several_who_wait_are_let_in_together_or_none_of_them(door: Door) -> None:
    home = door.bus.home
    for name, invitation in (
        ("pi-1", await door.invite(asks=True)),
        ("pi-2", await door.invite(asks=True)),
        ("pi-3", await door.invite(agent_id="pi-3", asks=True)),
    ):
        assert await door.enroll(name, invitation, agent_id=name) == 1
    before = count_reloads(home)
    # One that does not wait, and one whose invitation is withdrawn meanwhile.
    said = await harmony(home, "accept", "pi-1", "pi-7", "--yes")
    assert (said.status, "no device waits to be accepted as 'pi-7'" in said.err) == (2, True), said
    withdraw(home, "pi-3")
    said = await harmony(home, "accept", "pi-1", "pi-2", "pi-3", "--yes")
    assert (said.status, "pi-3: the invitation has expired" in said.err) == (2, True), said
    assert (home.agents(), len(read_pending(home)), count_reloads(home)) == ({}, 3, before)
    said = await harmony(home, "accept", "pi-1", "pi-3", "pi-7", "--refuse")
    assert (said.status, len(read_pending(home))) == (2, 3)

    said = await harmony(home, "--json", "accept", "pi-2,pi-1", "pi-2", "--yes")
    assert said.status == 0, said
    assert [(each["event"], each["agent"]) for each in said.documents] == [
        ("accepted", "pi-2"),
        ("accepted", "pi-1"),
    ]
    assert (set(home.agents()), count_reloads(home)) == ({"pi-1", "pi-2"}, before + 1)
    assert (await harmony(home, "accept", "pi-3", "--refuse")).status == 0
    assert read_pending(home) == []


async def test_an_invitation_that_is_for_fewer_lets_in_none_of_those_accepted_together(
    door: Door,
) -> None:
    """As where one comes with it who waits for nobody."""
    home, invitation = door.bus.home, await door.invite(count=2, asks=True)
    for name in ("pi-1", "pi-2"):
        assert await door.enroll(name, invitation, agent_id=name) == 1
    (public, invited), *_ = read_invitations(home).items()
    save_invitations(home, {public: attrs.evolve(invited, left=1)})
    said = await harmony(home, "accept", "pi-1", "pi-2", "--yes")
    assert (said.status, "pi-2: the invitation is used up" in said.err) == (2, True), said
    assert (home.agents(), len(read_pending(home))) == ({}, 2)
    assert read_invitations(home)[public].left == 1


async def test_another_cannot_take_the_place_of_who_waits(door: Door) -> None:
    invitation = await door.invite(asks=True)
    await door.enroll("pi-1", invitation, agent_id="pi-1")
    with pytest.raises(ConfigError, match="another device waits to be accepted as pi-1"):
        await door.enroll("thief", invitation, agent_id="pi-1")
    refuse(door.bus.home, "pi-1")
    assert read_pending(door.bus.home) == []


async def test_an_id_is_not_taken_from_who_has_it(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    before = door.bus.home.agents()
    with pytest.raises(ConfigError, match="another device is enrolled as pi-1"):
        await door.enroll("thief", await door.invite(), agent_id="pi-1")
    with pytest.raises(UsageError, match="pi-1 is enrolled"):
        await door.invite(agent_id="pi-1")
    assert door.bus.home.agents() == before


async def test_a_device_set_up_anew_comes_back_and_the_old_key_is_cut_off(door: Door) -> None:
    await asyncio.to_thread(add_agent, door.bus.home, "pi-1")
    old = await door.bus.device("pi-1")
    assert await door.enroll("pi-1", await door.invite(agent_id="pi-1", replaces=True)) == 0
    async with asyncio.timeout(10):
        while not old.client.is_closed:
            await asyncio.sleep(0.01)


async def test_an_invitation_that_has_expired_lets_nobody_in(door: Door) -> None:
    invitation = await door.invite(expires_in=timedelta(seconds=-1))
    with pytest.raises(ConfigError, match="has expired"):
        await door.enroll("pi-1", invitation, agent_id="pi-1")
    await door.invite()  # which renders the configuration anew
    with pytest.raises(ConfigError, match="does not know the invitation"):
        await door.enroll("pi-1", invitation, agent_id="pi-1")
    assert door.bus.home.agents() == {}


async def test_an_invitation_for_one_is_not_for_another(door: Door) -> None:
    invitation = await door.invite(agent_id="pi-1")
    with pytest.raises(ConfigError, match="the invitation is for pi-1"):
        await door.enroll("pi-2", invitation, agent_id="pi-2")
    forged = invitation.model_copy(update={"agent_id": None})
    with pytest.raises(ConfigError, match="the invitation is for pi-1"):
        await door.enroll("pi-2", forged, agent_id="pi-2")


async def test_a_device_in_a_fleet_does_not_leave_it_by_mistake(door: Door, tmp_path: Path) -> None:
    await door.enroll("pi-1", await door.invite(), agent_id="pi-1")
    before = door.config("pi-1").read_bytes()
    with pytest.raises(ConfigError, match="by it this device is pi-1 of the fleet"):
        await door.enroll("pi-1", await door.invite(), agent_id="pi-2")
    async with door_of(tmp_path / "theirs") as theirs:
        # Of the same name.
        with pytest.raises(ConfigError, match="or of another authority"):
            await door.enroll("pi-1", await theirs.invite(), agent_id="pi-1")
        assert theirs.bus.home.agents() == {}
    assert door.config("pi-1").read_bytes() == before


async def test_a_device_that_is_let_in_may_be_so_again_and_nothing_changes(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    path = door.config("pi-1")
    path.write_text(path.read_text() + '[topology]\nroot = "/"\n')
    before, agents = path.read_bytes(), door.bus.home.agents()
    again = await door.invite(agent_id="pi-1", again=True)
    assert await door.enroll("pi-1", again) == 0
    assert await door.enroll("pi-1", again) == 0
    assert (path.read_bytes(), door.bus.home.agents()) == (before, agents)
    with pytest.raises(ConfigError, match="another device is enrolled as pi-1"):
        await door.enroll("thief", again)
    assert door.bus.home.agents() == agents


async def test_a_device_whose_key_was_revoked_comes_back_with_a_new_one(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    before = load(door.config("pi-1")).nats.seed
    await asyncio.to_thread(revoke, door.bus.home, "pi-1")
    with pytest.raises(ConfigError, match=r"this key was revoked; .* --replace"):
        await door.enroll("pi-1", await door.invite(agent_id="pi-1", again=True))
    again = await door.invite(agent_id="pi-1", replaces=True)
    assert await door.enroll("pi-1", again, replaces=True) == 0
    assert load(door.config("pi-1")).nats.seed != before


async def test_where_nobody_keeps_the_door_that_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        invitation = await asyncio.to_thread(lambda: invite(bus.home))
        with pytest.raises(BusUnreachable, match="nobody lets devices in"):
            await enroll(tmp_path / "agent.toml", invitation.to_text(), agent_id="a", waits_s=0)
    with pytest.raises(BusUnreachable, match="cannot be asked"):
        await enroll(tmp_path / "agent.toml", invitation.to_text(), agent_id="a", waits_s=0)
    assert not (tmp_path / "agent.toml").exists()


async def test_a_server_in_between_is_not_asked(door: Door, tmp_path: Path) -> None:
    async with door_of(tmp_path / "theirs") as theirs:
        invitation = await door.invite()
        diverted = invitation.model_copy(update={"servers": (theirs.bus.home.control().url,)})
        with pytest.raises(BusUnreachable, match="does not prove to be the server"):
            await door.enroll("pi-1", diverted, agent_id="pi-1")


async def test_a_device_that_was_removed_can_be_invited_again(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    await retire(door.bus.home, door.bus.admin, "pi-1")
    door.config("pi-1").unlink()
    assert await door.enroll("pi-1", await door.invite(agent_id="pi-1")) == 0


@pytest.mark.parametrize("agent_id", ["*", ">", "pi.1", "Pi", "", "a" * 64, "-a"])
async def test_a_name_that_could_be_a_wildcard_is_refused_at_both_ends(
    door: Door, agent_id: str
) -> None:
    invitation = await door.invite()
    with pytest.raises(ConfigError, match="cannot be a device's id"):
        await door.enroll("x", invitation, agent_id=agent_id or "-")
    request = json.dumps(
        {"v": 1, "agent_id": agent_id, "nkey": Nkey.new().public, "mailbox": new_mailbox()}
    )
    answer = admit(door.bus.home, Nkey.of_seed(invitation.seed).public, request.encode())
    assert answer.status == "refused"
    assert door.bus.home.agents() == {}


GOOD = {
    "v": 1,
    "agent_id": "pi-1",
    "nkey": "UD466L6EBCM3YY5HEGHJANNTN4LSKTSUXTH7RILHCKEQMQHTBNLHJJXT",
    "mailbox": "a" * 26,
}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 5_000,
        b'{"v":1}' + b" " * 5_000,
        json.dumps({**GOOD, "v": 2}).encode(),
        json.dumps({**GOOD, "nkey": "UAAA"}).encode(),
        json.dumps({**GOOD, "nkey": f"U{'A' * 55}"}).encode(),
        json.dumps({**GOOD, "nkey": f"{GOOD['nkey']}\n"}).encode(),
        json.dumps({**GOOD, "mailbox": "*"}).encode(),
        json.dumps({**GOOD, "mailbox": ">" * 26}).encode(),
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps(GOOD).replace('"v": 1', '"v": 1, "v": 1').encode(),
    ],
)
async def test_what_is_no_request_gets_an_answer_and_changes_nothing(
    door: Door, request_bytes: bytes
) -> None:
    invitation = await door.invite()
    answer = admit(door.bus.home, Nkey.of_seed(invitation.seed).public, request_bytes)
    assert answer.status == "refused"
    assert "cannot be read" in answer.message
    assert door.bus.home.agents() == {}


@asynccontextmanager
async def stranger(invitation: Invitation) -> AsyncGenerator[tuple[Client, list[str]]]:
    """Who holds an invitation, and uses it for something else."""
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    public = Nkey.of_seed(invitation.seed).public
    client = Client()
    await client.connect(
        list(invitation.servers),
        nkeys_seed_str=invitation.seed,
        inbox_prefix=f"_INBOX_{public}".encode(),
        tls=verifying_context(invitation.ca),
        tls_hostname=invitation.tls_server_name,
        tls_handshake_first=True,
        error_cb=note,
        allow_reconnect=False,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        yield client, refusals


@pytest.mark.parametrize(
    "subject",
    [
        "$KV.desired-state.pi-1",
        "$KV.actual-state.pi-1",
        "$KV.heartbeat.pi-1",
        "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.pi-1",
        "$JS.API.STREAM.NAMES",
        "harmony.mail.pi-1.request",
        "harmony.reply.pi-1.nonce",
        "harmony.enrol.UOTHER",
        "harmony.enrol",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_an_invitation_opens_nothing_else(door: Door, subject: str) -> None:
    async with stranger(await door.invite()) as (client, refusals):
        await client.publish(subject, b"x")
        await worked_off(client)
        assert len(refusals) == 1


@pytest.mark.parametrize(
    "subject", [">", "harmony.>", "harmony.enrol.*", "_INBOX.>", "$KV.>", "_R_.>"]
)
async def test_with_an_invitation_nothing_is_heard(door: Door, subject: str) -> None:
    async with stranger(await door.invite()) as (client, refusals):
        await client.subscribe(subject)  # pyright: ignore[reportUnknownMemberType]
        await worked_off(client)
        assert len(refusals) == 1


async def test_requests_as_fast_as_they_go_keep_no_other_away(door: Door) -> None:
    flooding, honest = await door.invite(count=10_000), await door.invite()
    async with stranger(flooding) as (client, _):
        subject = f"harmony.enrol.{Nkey.of_seed(flooding.seed).public}"
        for _ in range(2_000):
            await client.publish(subject, b"{", reply=f"{client._inbox_prefix.decode()}.x")  # pyright: ignore[reportPrivateUsage]
        assert await door.enroll("pi-1", honest, agent_id="pi-1") == 0


@pytest.mark.parametrize("text", ["", "x", "harmony-invitation:", "harmony-invitation:AAAA", "{}"])
async def test_what_is_no_invitation_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="this is no invitation"):
        await enroll(tmp_path / "agent.toml", text, agent_id="pi-1", waits_s=0)
    assert list(tmp_path.iterdir()) == []


async def test_texts_of_an_invitation_stay_texts(door: Door, tmp_path: Path) -> None:
    """It comes from an operator, and is quoted all the same."""
    invitation = await door.invite()
    spoilt = invitation.model_copy(update={"operator_keys": ('x"]\n[policy]\njobs = "any"\n#',)})
    with pytest.raises((ConfigError, BusUnreachable, NatsError)):
        await door.enroll("pi-1", spoilt, agent_id="pi-1")
    for path in (tmp_path / "pi-1").iterdir():
        assert "policy" not in tomllib.loads(path.read_text())


async def test_what_the_server_says_is_shown_without_control_characters(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(*_: object) -> object:
        from harmony_core.wire.enrolment import EnrolAnswer

        return EnrolAnswer(status="refused", message="\x1b[31mno\nERROR forged")

    monkeypatch.setattr("harmony_control.server.doorkeeper.admit", hostile)
    with pytest.raises(ConfigError) as raised:
        await door.enroll("pi-1", await door.invite(), agent_id="pi-1")
    assert raised.value.message == "not let in: ?[31mno?ERROR forged"


def test_the_same_key_has_the_same_fingerprint_and_another_one_another() -> None:
    one, other = Nkey.new().public, Nkey.new().public
    key, another = (generate_key().public.to_text() for _ in range(2))
    assert fingerprint(one, key) == fingerprint(one, key) != fingerprint(other, key)
    assert fingerprint(one, key) != fingerprint(one, another)


@pytest.mark.parametrize("whose", ["device", "admin", "invitation", "operator"])
async def test_a_key_or_mailbox_that_somebody_has_is_nobody_elses(door: Door, whose: str) -> None:
    """The server would take none of its configuration any more."""
    home = door.bus.home
    invitation = await door.invite(count=5)
    public = Nkey.of_seed(invitation.seed).public
    await asyncio.to_thread(add_agent, home, "pi-1")
    bob = Home(door.root / "bob")
    operator_key.create(bob)
    await asyncio.to_thread(add_operator, home, "bob", bob.operator_pub)
    keys = {
        "device": home.agents()["pi-1"].nkey,
        "admin": Nkey.read(home.admin_seed).public,
        "invitation": public,
        "operator": Nkey.read(bob.bus_seed).public,
    }
    report_key = generate_key().public.to_text()
    request = EnrolRequest(
        agent_id="evil", nkey=keys[whose], mailbox=new_mailbox(), report_key=report_key
    )
    before = (home.agents(), home.nats_conf.read_bytes(), home.invitations_json.read_bytes())
    with pytest.raises(ConfigError, match="the same key"):
        await asyncio.to_thread(admit, home, public, request.to_json())
    assert (
        home.agents(),
        home.nats_conf.read_bytes(),
        home.invitations_json.read_bytes(),
    ) == before
    mailbox = home.agents()["pi-1"].mailbox
    request = EnrolRequest(
        agent_id="evil", nkey=Nkey.new().public, mailbox=mailbox, report_key=report_key
    )
    with pytest.raises(ConfigError, match="the same key or mailbox"):
        await asyncio.to_thread(admit, home, public, request.to_json())
    assert await door.enroll("pi-2", invitation, agent_id="pi-2") == 0
    await asyncio.to_thread(revoke, home, "pi-1")


async def test_what_the_server_does_not_take_is_as_before_and_can_be_done_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, invitation = door.bus.home, await door.invite()
    await asyncio.to_thread(add_agent, home, "pi-1")

    def refused(_: object) -> bool:
        raise ConfigError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("harmony_control.server.apply.reload", refused)
        with pytest.raises(ConfigError, match="no room"):
            revoke(home, "pi-1")
        with pytest.raises(ConfigError, match="could not do it"):
            await door.enroll("pi-2", invitation, agent_id="pi-2")
    assert list(home.agents()) == ["pi-1"]
    await asyncio.to_thread(revoke, home, "pi-1")
    assert await door.enroll("pi-2", invitation, agent_id="pi-2") == 0


async def test_a_revoked_key_never_comes_back_and_its_id_only_by_name(door: Door) -> None:
    many = await door.invite(count=50)
    await door.enroll("pi-1", many, agent_id="pi-1")
    await asyncio.to_thread(revoke, door.bus.home, "pi-1")
    path = door.config("pi-1")
    path.rename(path.with_name("agent.toml.new"))
    with pytest.raises(ConfigError, match="this key was revoked"):
        await door.enroll("pi-1", many, agent_id="pi-1")
    assert not path.with_name("agent.toml.new").exists()
    with pytest.raises(ConfigError, match="harmony invite pi-1"):
        await door.enroll("thief", many, agent_id="pi-1")
    assert await door.enroll("new", await door.invite(agent_id="pi-1")) == 0


async def test_what_is_withdrawn_lets_nobody_in(door: Door) -> None:
    invitation = await door.invite(count=5)
    assert await asyncio.to_thread(withdraw_all, door.bus.home) == 1
    with pytest.raises(ConfigError, match="does not know the invitation"):
        await door.enroll("pi-1", invitation, agent_id="pi-1")


async def test_who_waits_is_counted_when_accepted_and_no_more_wait_than_may_come(
    door: Door,
) -> None:
    invitation = await door.invite(asks=True)
    assert await door.enroll("pi-1", invitation, agent_id="pi-1") == 1
    with pytest.raises(ConfigError, match="too many"):
        await door.enroll("pi-2", invitation, agent_id="pi-2")
    (pending,) = read_pending(door.bus.home)
    await asyncio.to_thread(add_agent, door.bus.home, "pi-1")
    with pytest.raises(UsageError, match="another device is enrolled as pi-1"):
        accept(door.bus.home, {"pi-1": pending.device.fingerprint})
    await retire(door.bus.home, door.bus.admin, "pi-1")
    with pytest.raises(UsageError, match="no device waits"):
        accept(door.bus.home, {"pi-1": pending.device.fingerprint})
    with pytest.raises(ConfigError, match="invitation of its own"):
        await door.enroll("pi-1", invitation, agent_id="pi-1")


async def test_a_draft_is_whole_or_not_there_and_one_enrols_at_a_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = await door.invite(asks=True)
    await door.enroll("pi-1", asking, agent_id="pi-1")
    draft = door.config("pi-1").with_name("agent.toml.new")
    before = draft.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("harmony_agent.enroll.os.fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            await door.enroll("pi-1", asking, agent_id="pi-1")
    assert draft.read_bytes() == before
    waiting = asyncio.create_task(door.enroll("pi-1", asking, agent_id="pi-1", waits_s=60))
    await asyncio.sleep(0.2)
    with pytest.raises(ConfigError, match="is being enrolled already"):
        await door.enroll("pi-1", asking, agent_id="other")
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_settings_of_ones_own_are_not_lost(door: Door) -> None:
    await door.enroll("pi-1", await door.invite(agent_id="pi-1"))
    path = door.config("pi-1")
    path.write_text(path.read_text() + '[topology]\nroot = "/srv/box"\n')
    with pytest.raises(ConfigError, match="settings of its own"):
        await door.enroll("pi-1", await door.invite(agent_id="pi-1", replaces=True), replaces=True)


async def test_a_log_line_of_a_strangers_making_is_not_the_servers(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        home = bus.home
        with home.nats_log.open("a") as log:
            log.write(
                '[1] 2026/01/01 00:00:00.0 [ERR] 10.0.0.9:1 - cid:5 - Nkey "Failed to reload server '
                'configuration"\n'
            )

        forged = home.nats_log.read_text().splitlines()[-1]
    assert RELOAD_REFUSED.fullmatch(forged) is None
    assert RELOADED.fullmatch(forged) is None
