"""A NATS server that is not ours: what is exported makes it a fleet's, and what is wrong is found."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket, admin, close, connect_admin
from harmony_control.cli import main
from harmony_control.enrol import add_agent
from harmony_control.server.apply import server_pid
from harmony_control.server.check import check_server
from harmony_control.server.check_device import NOBODY, Probe
from harmony_control.server.config import permissions
from harmony_control.server.export import STORE, export
from harmony_control.server.finding import Finding
from harmony_control.server.process import prepare, server_binary
from harmony_control.store.home import Home
from harmony_core.errors import BusUnreachable, ConfigError, UsageError
from tests.nats import fleet_home, serving
from tests.ports import free_address

Edit = Callable[[str], str]
WITHIN_S = 20


@attrs.frozen
class Elsewhere:
    """A NATS server by what was exported, as somebody has edited it, and a device that it knows."""

    home: Home
    url: str
    device: Path

    async def check(self) -> list[Finding]:
        return await check_server(self.home, self.url, self.device)


def as_it_is(text: str) -> str:
    return text


@asynccontextmanager
async def elsewhere(
    root: Path, *, edit: Edit = as_it_is, edit_bucket: Edit = as_it_is
) -> AsyncGenerator[Elsewhere]:
    home, address, given = fleet_home(root), free_address(), root / "given"
    await asyncio.to_thread(export, home, given, listen=address, fleet=None, issued=None)
    device = await asyncio.to_thread(add_agent, home, "probe")
    await asyncio.to_thread(export, home, given, listen=None, fleet=None, issued=None)
    conf = given / "nats.conf"
    before = conf.read_text().replace(str(STORE), str(root / "store"))
    after = edit(before)
    assert edit is as_it_is or after != before
    conf.write_text(after)
    with (root / "nats.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(server_binary()), "-c", str(conf), stdout=log, stderr=log
        )
    try:
        client = await answering(home, process, root / "nats.log")
        for path in (given / "buckets").iterdir():
            await make_stream(client, path.stem, edit_bucket(path.read_text()))
        await close(client)
        yield Elsewhere(home, f"tls://{address}", device)
    finally:
        process.terminate()
        await process.wait()


async def answering(home: Home, process: asyncio.subprocess.Process, log: Path) -> Client:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await connect_admin(home)
            except BusUnreachable:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)


async def edit_stream(client: Client, name: str, options: str) -> None:
    """As `nats stream edit --config` does it."""
    answer = await client.request(f"$JS.API.STREAM.UPDATE.{name}", options.encode())
    assert "error" not in json.loads(answer.data), answer.data


async def make_stream(client: Client, name: str, options: str) -> None:
    """As `nats stream add --config` does it."""
    answer = await client.request(f"$JS.API.STREAM.CREATE.{name}", options.encode())
    assert "error" not in json.loads(answer.data), answer.data


def wrong(found: list[Finding]) -> list[str]:
    return [f"{each.what}: {each.detail}" for each in found if each.verdict == "wrong"]


async def test_what_is_exported_is_all_that_a_server_needs(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as server:
        found = await server.check()
        assert wrong(found) == []
        assert len([each for each in found if each.verdict == "right"]) == 22
        assert len([each for each in found if each.verdict == "not looked at"]) == 2
        # Nothing of the look stays.
        async with admin(server.home) as client:
            for name in ("desired-state", "actual-state", "heartbeat"):
                for key in (NOBODY, "probe"):
                    assert await Bucket(client, name).get(key) is None


async def test_the_servers_own_is_right_too(tmp_path: Path) -> None:
    async with serving(tmp_path, "probe") as bus:
        url = bus.home.control().url
        assert wrong(await check_server(bus.home, url, bus.home.agent_toml("probe"))) == []
        without = await check_server(bus.home, url, None)
        assert wrong(without) == []
        (unseen,) = (each for each in without if each.what == "what a device may do")
        assert unseen.verdict == "not looked at"
        assert "harmony add-agent probe" in unseen.detail


def swap(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new)


def swap_pattern(old: str, new: str) -> Edit:
    return lambda text: re.sub(old, new, text)


def with_a_right(name: str) -> Edit:
    own = permissions("probe", "A" * 22)["publish"]["allow"][0]
    return swap(f'"{own}",', f'"{own}", "{name}",')


def in_one_account(text: str) -> str:
    """Devices as users of CTRL, with the same rights."""
    (user,) = re.findall(
        r'\{\s*"nkey": "[^"]*",\s*"permissions": \{\s*"publish": .*?\}\s*\}\s*\}', text, re.DOTALL
    )
    moved = text.replace(user, "")
    return re.sub(
        r'(CTRL: ?\{.*?"users": \[)', lambda found: f"{found[1]} {user},", moved, flags=re.DOTALL
    )


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            swap('"min_version": "1.3"', '"min_version": "1.2"'),
            "TLS 1.3 alone",
        ),
        (
            swap('"handshake_first": true', '"handshake_first": "50ms"'),
            "set handshake_first: true",
        ),
        (swap_pattern(r"max_payload: \d+", "max_payload: 1048576"), "set 1310720"),
        (swap_pattern(r"max_subscriptions: \d+", ""), "max_subscriptions: a stolen"),
        (
            swap(
                "accounts {",
                'no_auth_user: "x"\naccounts {\n X { users: [{user: "x", password: "x"}] }',
            ),
            "take no_auth_user away",
        ),
        (swap('"$KV.heartbeat.probe",', ""), "it cannot write heartbeat"),
        # As exported by a version that knew no classes.
        (swap('"$JS.API.DIRECT.GET.KV_fleet.$KV.fleet.index",', ""), "it cannot read fleet"),
        # And by one that knew no assets.
        (swap(".$KV.assets.*.*.*", ".$KV.assets.x.*.*"), "it cannot read assets"),
        (swap("harmony.mail.probe.*", "harmony.mail.x.*"), "harmony.mail.probe.request does not"),
        (with_a_right("$KV.>"), f"it may publish to $KV.desired-state.{NOBODY}"),
        (with_a_right("$JS.API.>"), "it may publish to $JS.API.INFO"),
        (with_a_right("harmony.>"), f"publish to harmony.mail.{NOBODY}.request"),
        (swap('"_INBOX_probe.>"', '"_INBOX_probe.>", ">"'), "subscribe to >"),
        (in_one_account, "devices need an account apart"),
    ],
)
async def test_what_is_wrong_with_a_server_is_found(tmp_path: Path, edit: Edit, said: str) -> None:
    async with elsewhere(tmp_path, edit=edit) as server:
        found = wrong(await server.check())
        assert said in "\n".join(found)
        async with admin(server.home) as client:
            assert await Bucket(client, "actual-state").get(NOBODY) is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            swap('"deny_purge": true', '"deny_purge": false'),
            "deny_purge is False instead of True",
        ),
        (
            swap('"max_msgs_per_subject": 8', '"max_msgs_per_subject": 1'),
            "max_msgs_per_subject is 1 instead of 8",
        ),
        (
            swap('"discard": "new"', '"discard": "old"'),
            "discard is old instead",
        ),
    ],
)
async def test_a_bucket_with_other_options_is_found(tmp_path: Path, edit: Edit, said: str) -> None:
    async with elsewhere(tmp_path, edit_bucket=edit) as server:
        assert said in "\n".join(wrong(await server.check()))


async def test_a_bucket_of_an_earlier_version_is_edited_by_what_is_exported(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as server, admin(server.home) as client:
        exported = (tmp_path / "given" / "buckets" / "KV_desired-state.json").read_text()
        earlier = json.loads(exported)
        earlier["republish"] = {
            "src": "$KV.desired-state.>",
            "dest": "harmony.push.desired-state.>",
        }
        await edit_stream(client, "KV_desired-state", json.dumps(earlier))
        (found,) = wrong(await server.check())
        assert found.startswith("the stream KV_desired-state: republish is ")
        assert "buckets/KV_desired-state.json" in found
        await edit_stream(client, "KV_desired-state", exported)
        assert wrong(await server.check()) == []


async def test_a_bucket_that_is_missing_is_found(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as server:
        async with admin(server.home) as client:
            await client.request("$JS.API.STREAM.DELETE.KV_desired-class", b"")
        found, of_a_device = wrong(await server.check())
        assert found.startswith(
            "the stream KV_desired-class: it is missing; buckets/KV_desired-class"
        )
        assert "it cannot read desired-class" in of_a_device


async def test_a_device_that_is_not_let_in_is_found(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as server:
        other = await asyncio.to_thread(add_agent, server.home, "unknown-there")
        assert "a device is let in: " in "\n".join(
            wrong(await check_server(server.home, server.url, other))
        )
        with pytest.raises(ConfigError, match=r"is no agent\.toml"):
            await check_server(server.home, server.url, server.home.control_toml)
    with pytest.raises(BusUnreachable):
        await server.check()


async def test_options_of_a_server_that_runs_are_not_changed_beneath_it(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        before = bus.home.nats_conf.read_bytes()
        with pytest.raises(UsageError, match="end it first"):
            export(bus.home, tmp_path / "given", listen="0.0.0.0:1", fleet=None, issued=None)
        export(bus.home, tmp_path / "given", listen=None, fleet=None, issued=None)
        assert bus.home.nats_conf.read_bytes() == before
        assert bus.home.agents()["pi-1"].nkey in (tmp_path / "given" / "nats.conf").read_text()
    assert (tmp_path / "given" / "server.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", [".", "server", "server/given"])
async def test_nothing_is_exported_over_the_files_of_the_server_itself(
    tmp_path: Path, place: str
) -> None:
    async with serving(tmp_path) as bus:
        before = bus.home.nats_conf.read_bytes()
        with pytest.raises(UsageError, match="name another directory"):
            export(bus.home, bus.home.root / place, listen=None, fleet=None, issued=None)
        assert bus.home.nats_conf.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--export", ""], "write --export DIR"),
        (["--check", ""], "is not a server's address"),
        (["--check", f"tls://{'x' * 64}.example"], "is not a server's address"),
        (["--device", ""], "goes with --check"),
    ],
    ids=["no directory", "no address", "a name that is too long", "a device alone"],
)
def test_a_command_that_names_nothing_starts_no_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    home = fleet_home(tmp_path)
    prepare(home, free_address(), None, None)
    assert main(["server", "--home", str(home.root), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert server_pid(home) is None


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _without_a_seed(path: Path) -> None:
    path.write_text('agent_id = "pi-1"\n[nats]\nseed = "SX"\nmailbox = "x"\n')


@pytest.mark.parametrize("make", [_pipe, _endless, _huge, _without_a_seed])
def test_what_is_no_agent_toml_is_said_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match="harmony add-agent ID --out FILE makes one"):
        Probe.read(tmp_path / "agent.toml")


async def test_the_commands_say_what_is_right_and_end_with_one_where_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with elsewhere(tmp_path, edit=swap('"min_version": "1.3"', '"min_version": "1.2"')) as it:
        home = ["--home", str(it.home.root)]
        check = ["server", *home, "--check", it.url]
        assert await asyncio.to_thread(main, check) == 1
        said = capsys.readouterr().out
        assert re.search(r"^wrong +TLS 1.3 alone: it speaks TLS 1.2, too; set", said, re.MULTILINE)
        assert re.search(r"^right +the stream KV_heartbeat$", said, re.MULTILINE)
        assert re.search(r"^not looked at +what a device may do: ", said, re.MULTILINE)
    again = ["server", *home, "--export", str(tmp_path / "again")]
    assert await asyncio.to_thread(main, again) == 0
    assert (tmp_path / "again" / "nats.conf").exists()
    assert await asyncio.to_thread(main, ["server", *home, "--device", "x"]) == 2
