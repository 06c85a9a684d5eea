"""The embedded server as a process: started, joined, told of new agents, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from harmony_control.bus.connection import Bucket, admin
from harmony_control.server.apply import log_since, log_size_bytes, server_pid
from harmony_control.server.config import Listen
from harmony_control.server.process import running
from harmony_control.store.home import Enrolled, Home
from harmony_core.errors import BusUnreachable, ConfigError, UsageError
from harmony_core.wire.names import new_mailbox
from tests.nats import connected, fleet_home, serving
from tests.ports import free_address

SERVE = """
import asyncio, sys
from pathlib import Path
from harmony_control.store.home import Home
from harmony_control.server.process import running

async def main():
    async with running(Home(Path(sys.argv[1])), listen=sys.argv[2]) as server:
        print(server.pid, flush=True)
        await server.wait()

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def _started_elsewhere(home: Home) -> AsyncGenerator[tuple[Process, int]]:
    """A process that runs the server of *home*, and the server's pid."""
    command = [sys.executable, "-c", SERVE, str(home.root), free_address()]
    starter = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert starter.stdout is not None
    try:
        yield starter, int(await starter.stdout.readline())
    finally:
        if starter.returncode is None:
            starter.kill()
        await starter.wait()


async def _ended(pid: int) -> None:
    """When that process, nobody's child here, is gone."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(process, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(process)
    os.close(process)


async def test_a_server_answers_with_its_buckets_made(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        revision = await bus.bucket("desired-state").create("pi-1", b"value")
        entry = await bus.bucket("desired-state").get("pi-1")

        assert entry is not None
        assert (entry.value, entry.revision) == (b"value", revision)
        assert bus.server.started_here
        assert bus.home.control().url == bus.server.url


async def test_nothing_is_left_running_when_the_block_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        pid = bus.server.pid
        assert server_pid(bus.home) == pid

    assert server_pid(bus.home) is None
    assert not bus.home.nats_pid.exists()
    with pytest.raises(BusUnreachable, match="nothing listens"):
        async with admin(bus.home):
            pass


async def test_what_is_secret_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        for path in (bus.home.operator_key, bus.home.admin_seed, bus.home.agent_toml("pi-1")):
            assert path.stat().st_mode & 0o777 == 0o600
        for directory in (bus.home.root, bus.home.server):
            assert directory.stat().st_mode & 0o777 == 0o700


async def test_a_second_start_joins_the_server_that_runs_and_leaves_it_alone(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as bus:
        async with running(bus.home) as joined:
            assert not joined.started_here
            assert (joined.url, joined.pid) == (bus.server.url, bus.server.pid)
            await joined.wait()

        assert await bus.bucket("desired-state").put("pi-1", b"still there") > 0


async def test_a_second_start_makes_what_is_missing_of_the_buckets(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        await JetStreamContext(bus.admin).delete_stream("KV_heartbeat")

        async with running(bus.home):
            assert await bus.bucket("heartbeat").put("pi-1", b"alive") == 1


async def test_two_starts_at_once_give_one_server(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    address = free_address()
    started: list[tuple[int | None, bool]] = []
    both_up = asyncio.Barrier(2)

    async def start() -> None:
        async with running(home, listen=address) as server:
            started.append((server.pid, server.started_here))
            await both_up.wait()

    await asyncio.gather(start(), start())

    assert sorted(here for _, here in started) == [False, True]
    assert len({pid for pid, _ in started}) == 1


async def test_the_pid_of_a_server_long_gone_is_not_believed(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        pass
    # A number that another process has got since: this one, which a SIGHUP would end.
    bus.home.nats_pid.write_text(str(os.getpid()))

    assert server_pid(bus.home) is None
    await bus.enrol("pi-2")
    async with running(bus.home) as again:
        assert again.started_here
        assert again.pid != os.getpid()


async def test_a_port_that_is_taken_is_said_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(UsageError, match=f"another program listens on {address}.*--listen"):
            async with running(fleet_home(tmp_path), listen=address):
                pass


async def test_another_server_on_the_port_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    async with serving(tmp_path / "theirs") as theirs:
        listen = theirs.home.control().listen

        with pytest.raises(UsageError, match="another program listens"):
            async with running(fleet_home(tmp_path / "ours"), listen=listen):
                pass


async def test_an_acknowledged_write_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    async with running(home, listen=free_address()) as server, admin(home) as client:
        bucket = Bucket(client, "desired-state")
        for number in range(50):
            await bucket.put(f"pi-{number}", b"signed")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(BusUnreachable, match="ended by itself"):
            await server.wait()

    async with running(home), admin(home) as client:
        bucket = Bucket(client, "desired-state")
        found = [await bucket.get(f"pi-{number}") for number in range(50)]
    assert [entry.value for entry in found if entry] == [b"signed"] * 50


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_server_ends_with_the_process_that_started_it(
    tmp_path: Path, how: signal.Signals
) -> None:
    home = fleet_home(tmp_path)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be inherited as ignored
    async with _started_elsewhere(home) as (starter, server):
        starter.send_signal(how)
        await starter.wait()
        await _ended(server)

    assert server_pid(home) is None
    async with running(home) as again:
        assert again.started_here


async def test_a_new_agent_is_let_in_and_no_other_is_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        first = await bus.device("pi-1")
        hints = await first.subscribe(first.mail("desired-state"))

        await bus.enrol("pi-2")
        second = await bus.device("pi-2")
        await bus.bucket("desired-state").put("pi-1", b"value")

        assert (await hints.next_msg(timeout=5)).data == b"value"
        assert first.client.stats["reconnects"] == 0
        assert await second.bucket("heartbeat").put("pi-2", b"alive") > 0


async def test_an_agent_added_while_the_server_starts_is_let_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as before:
        pass
    async with AsyncExitStack() as stack:
        # Together: it may be before the server reads its file, or while it cannot be told yet.
        await asyncio.gather(
            stack.enter_async_context(running(before.home)), before.enrol("pi-1", "pi-2")
        )
        for name in ("pi-1", "pi-2"):
            device = await stack.enter_async_context(connected(before.home, name))
            assert await device.bucket("heartbeat").put(name, b"alive") > 0


async def test_many_agents_added_at_once_are_all_let_in(tmp_path: Path) -> None:
    names = [f"pi-{number}" for number in range(8)]
    async with serving(tmp_path) as bus:
        await asyncio.gather(*(bus.enrol(name) for name in names))

        for name in names:
            assert await (await bus.device(name)).bucket("heartbeat").put(name, b"alive") > 0


async def test_a_configuration_that_the_server_refuses_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        bus.home.save_agents({"pi-1": Enrolled("not a key", new_mailbox(), "")})

        with pytest.raises(ConfigError, match="the server refused its new configuration"):
            await bus.server.reload()

        assert await bus.bucket("desired-state").put("pi-1", b"still serving") > 0


async def test_a_home_stays_with_the_fleet_that_its_devices_know(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        assert bus.home.control().fleet == "home"
        with pytest.raises(UsageError, match="home of the fleet 'home'"):
            async with running(bus.home, fleet="other"):
                pass
    with pytest.raises(UsageError, match="home of the fleet 'home'"):
        async with running(bus.home, fleet="other"):
            pass


async def test_a_server_that_runs_is_not_asked_to_listen_elsewhere_in_vain(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        listen = bus.home.control().listen
        assert listen is not None
        async with running(bus.home, listen=listen) as same:
            assert not same.started_here
        with pytest.raises(UsageError, match=f"listens on {listen}; end it"):
            async with running(bus.home, listen="127.0.0.1:1"):
                pass


@pytest.mark.parametrize("fleet", ["*", "The Fleet", 'x"', "a.b"])
async def test_a_fleets_name_is_checked_before_anything_is_written(
    tmp_path: Path, fleet: str
) -> None:
    home = fleet_home(tmp_path)

    with pytest.raises(UsageError, match="cannot be a fleet's name"):
        async with running(home, listen=free_address(), fleet=fleet):
            pass

    assert not home.control_toml.exists()


async def test_a_home_that_uses_a_server_elsewhere_does_not_start_one(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    written = 'fleet = "home"\nurl = "tls://10.0.0.1:4222"\nadmin_seed = "admin.nk"\n'
    home.control_toml.write_text(written)

    with pytest.raises(UsageError, match="names a server elsewhere"):
        async with running(home, listen=free_address()):
            pass
    assert home.control_toml.read_text() == written


@pytest.mark.parametrize(
    ("text", "local_url"),
    [
        ("127.0.0.1:4222", "tls://127.0.0.1:4222"),
        ("0.0.0.0:4223", "tls://127.0.0.1:4223"),
        (":4224", "tls://127.0.0.1:4224"),
        ("[::]:4225", "tls://127.0.0.1:4225"),
        ("[::1]:4226", "tls://[::1]:4226"),
        ("pi.local:4227", "tls://pi.local:4227"),
    ],
)
def test_an_address_to_listen_on_gives_the_address_to_connect_to(text: str, local_url: str) -> None:
    listen = Listen.parse(text)

    assert listen.local_url == local_url
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    "text", ["", "4222", "host", "host:", "host:0", "host:99999", "host:-1", "::1:4222", "[x]:1 "]
)
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Listen.parse(text)


def test_a_server_on_every_address_is_reached_by_devices_at_one_of_them() -> None:
    assert "0.0.0.0" not in Listen.parse("0.0.0.0:4222").fleet_url
    assert Listen.parse("127.0.0.1:4222").fleet_url == "tls://127.0.0.1:4222"


def test_the_log_is_read_from_where_it_was_also_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "nats.log"
    assert (log_size_bytes(log), log_since(log, 0)) == (0, "")
    log.write_text("before\nafter\n")

    assert log_since(log, len("before\n")) == "after\n"
    log.write_text("new\n")
    assert log_since(log, len("before\n")) == "new\n"


async def test_a_path_with_quotes_and_accents_is_only_text_to_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path / 'é " $HOME \\ x') as bus:
        assert json.loads(bus.home.nats_conf.read_text())["pid_file"] == str(bus.home.nats_pid)
        assert bus.home.jetstream.is_dir()


def test_a_machine_without_a_way_out_is_found_by_its_name_on_its_own_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unconnected(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "socket", Unconnected)
    for name, told in (("vm", "vm.local"), ("vm.example.org", "vm.example.org")):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        assert Listen.parse("0.0.0.0:4222").fleet_url == f"tls://{told}:4222"
