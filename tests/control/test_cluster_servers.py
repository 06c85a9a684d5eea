"""The servers of a cluster as they are exported: who is let in, and what is found to be wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from harmony_control.bus.connection import close, connect_admin
from harmony_control.cli import main
from harmony_control.enrol import revoke
from harmony_control.invitations import invite
from harmony_control.server.buckets import describe_buckets, ensure_buckets
from harmony_control.server.check import check_server
from harmony_control.server.cluster import parse_nodes
from harmony_control.server.config import Listen
from harmony_control.server.finding import Finding
from harmony_control.server.process import running
from harmony_control.store.home import Home, write_toml
from harmony_core.errors import UsageError
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_scores import FileScore
from tests.cluster import Cluster, ServerNode, serving_cluster
from tests.device import running_agent
from tests.nats import connected, fleet_home
from tests.ports import free_addresses

pytestmark = pytest.mark.timeout(180)
WITHIN_S = 40


def wrong(found: list[Finding]) -> list[str]:
    return [f"{each.what}: {each.detail}" for each in found if each.verdict == "wrong"]


async def _check(cluster: Cluster) -> list[str]:
    home = cluster.bus.home
    return wrong(await check_server(home, home.control().url, home.agent_toml("probe")))


@pytest.mark.parametrize("with_jwts", [False, True], ids=["static keys", "JWTs"])
async def test_what_is_exported_is_all_that_a_cluster_needs(
    tmp_path: Path, with_jwts: bool
) -> None:
    async with serving_cluster(tmp_path, "probe", with_jwts=with_jwts) as cluster:
        await cluster.whole()
        assert await _check(cluster) == []
        for stream in ("KV_desired-state", "KV_actual-state", "KV_heartbeat", "HEARTBEAT_WATCH"):
            assert (await cluster.stream_info(stream))["config"]["num_replicas"] == 3

        # Each device is told of all three, and whoever joins.
        servers = [each.url for each in cluster.nodes]
        home = cluster.bus.home
        assert tomllib.loads(home.agent_toml("probe").read_text())["nats"]["servers"] == servers
        assert list((await asyncio.to_thread(invite, home)).servers) == servers

        await cluster.nodes[1].kill()
        await _find(cluster, f"{cluster.nodes[1].url}: it proves")
        # The others wait some seconds before they say so.
        await _find(cluster, f"the copy on {cluster.nodes[1].name} is behind, or not reached")


async def _find(cluster: Cluster, said: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while said not in "\n".join(await _check(cluster)):
            await asyncio.sleep(0.2)


async def test_a_bucket_that_one_server_alone_keeps_is_found_and_put_right(tmp_path: Path) -> None:
    async with serving_cluster(tmp_path, "probe") as cluster:
        await cluster.whole()
        config = (await cluster.stream_info("KV_desired-state"))["config"] | {"num_replicas": 1}
        subject = "$JS.API.STREAM.UPDATE.KV_desired-state"
        await cluster.bus.admin.request(subject, json.dumps(config).encode())
        assert "num_replicas is 1 instead of 3" in "\n".join(await _check(cluster))
        await ensure_buckets(cluster.bus.admin)
        await cluster.whole()


async def test_server_by_server_is_upgraded_and_one_that_has_lost_its_disk_gets_all_from_the_others(
    tmp_path: Path,
) -> None:
    async with serving_cluster(tmp_path, "pi-1") as cluster:
        home, bucket = cluster.bus.home, cluster.bus.bucket("desired-state")
        command = ["server", "--home", str(home.root), "--check", home.control().url]
        for number, node in enumerate(cluster.nodes):
            async with asyncio.timeout(WITHIN_S):
                while await asyncio.to_thread(main, command):
                    await asyncio.sleep(0.2)
            await bucket.put("pi-1", b"%d" % number)
            await node.stop()
            if number == 1:
                shutil.rmtree(tmp_path / node.name)
            await node.start()
        await cluster.whole()
        assert [each.value for each in await bucket.history("pi-1")] == [b"0", b"1", b"2"]
        (account,) = (await cluster.nodes[1].ask("jsz?streams=1"))["account_details"]
        assert {each["name"] for each in account["stream_detail"]} == set(describe_buckets())


async def test_whoever_connects_finds_a_server_that_runs(tmp_path: Path) -> None:
    async with serving_cluster(tmp_path, "pi-1") as cluster:
        await cluster.whole()
        for node in cluster.nodes:
            await node.kill()
            # Addresses are tried in an order of chance.
            for _ in range(4):
                client = await connect_admin(cluster.bus.home)
                await close(client)
            await node.start()
            await cluster.whole()


async def test_a_device_leaves_a_server_that_has_lost_the_others(tmp_path: Path) -> None:
    async with serving_cluster(tmp_path, "pi-1") as cluster:
        await cluster.whole()
        async with running_agent(
            cluster.bus.home,
            "pi-1",
            tmp_path / "pi-1",
            registry=Registry([FileScore]),
            offers={"FileSystemHost": FakeFiles()},
            missing={},
        ):
            own = await _server_of(cluster, "pi-1")
            others = [each for each in cluster.nodes if each != own]
            began = await _connections(own)
            for each in others:
                each.signal(signal.SIGSTOP)
            async with asyncio.timeout(WITHIN_S):
                # The operator is connected already: who connects anew is the device.
                while await _connections(own) == began:
                    await asyncio.sleep(0.1)
            for each in others:
                each.signal(signal.SIGCONT)
            await cluster.whole()
            heartbeats = cluster.bus.bucket("heartbeat")
            before = await heartbeats.get("pi-1")
            async with asyncio.timeout(WITHIN_S):
                while await heartbeats.get("pi-1") in {before, None}:
                    await asyncio.sleep(0.1)


async def _connections(node: ServerNode) -> int:
    """Return how often a device has connected to *node* since it was started."""
    return int((await node.ask("varz"))["total_connections"])


async def _server_of(cluster: Cluster, agent: str) -> ServerNode:
    async with asyncio.timeout(WITHIN_S):
        while True:
            for node in cluster.nodes:
                for each in (await node.ask("connz"))["connections"]:
                    if each.get("name") == f"harmony-agent {agent}":
                        return node
            await asyncio.sleep(0.1)


async def test_who_is_revoked_is_cut_off_by_every_server_when_that_is_said(tmp_path: Path) -> None:
    names = [f"pi-{each}" for each in range(6)]
    async with (
        serving_cluster(tmp_path, *names, with_jwts=True) as cluster,
        AsyncExitStack() as stack,
    ):
        home = cluster.bus.home
        devices = [await stack.enter_async_context(connected(home, each)) for each in names]
        for each in devices:
            await asyncio.to_thread(revoke, home, each.id)
            # Whoever is cut off is told so before anything else.
            with pytest.raises((NatsError, OSError)):
                await each.say("actual-state", b"{}")
            assert await cluster.bus.bucket("actual-state").get(each.id) is None
        with pytest.raises(NatsError):
            await stack.enter_async_context(connected(home, names[0]))


async def test_a_server_that_was_away_lets_nobody_in_who_was_revoked_meanwhile(
    tmp_path: Path,
) -> None:
    async with serving_cluster(tmp_path, "pi-1", "pi-2", with_jwts=True) as cluster:
        home, away = cluster.bus.home, cluster.nodes[0]
        await away.kill()
        await asyncio.to_thread(revoke, home, "pi-1")
        await away.start()
        await cluster.whole()
        toml = home.agent_toml("pi-1")
        table = tomllib.loads(toml.read_text())
        for each in cluster.nodes:
            table["nats"]["servers"] = [each.url]
            write_toml(toml, table)
            async with asyncio.timeout(WITHIN_S):
                while await _is_let_in(home, "pi-1"):
                    await asyncio.sleep(0.1)
        assert await _is_let_in(home, "pi-2")


async def _is_let_in(home: Home, agent: str) -> bool:
    try:
        async with connected(home, agent):
            return True
    except NatsError:
        return False


async def test_nobody_becomes_a_server_of_the_cluster_by_a_certificate_of_another_authority(
    tmp_path: Path,
) -> None:
    async with serving_cluster(tmp_path, "pi-1") as cluster:
        node = cluster.nodes[0]
        (at,) = (
            each
            for each in parse_nodes(cluster.bus.home.control().cluster or "")
            if each.name == node.name
        )
        routes, folder = at.routes, node.conf.parent
        authority = folder / "cluster-ca.pem"
        assert await asyncio.to_thread(_is_taken_in, routes, authority, folder / "cluster.pem")
        # What devices and operators know the server by, whose key is on each server; and nothing at all.
        assert not await asyncio.to_thread(_is_taken_in, routes, authority, folder / "server.pem")
        assert not await asyncio.to_thread(_is_taken_in, routes, authority, None)


def _is_taken_in(routes: Listen, authority: Path, certificate: Path | None) -> bool:
    """Return whether the server takes who has *certificate* for one of its own."""
    context = ssl.create_default_context(cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    try:
        with (
            socket.create_connection((routes.host, routes.port), timeout=WITHIN_S) as bare,
            context.wrap_socket(bare, server_hostname=routes.host) as connection,
        ):
            # To one of its own it says who it is, as soon as it has looked at the certificate.
            return connection.recv(256).startswith(b"INFO ")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nats-1,nats-2", "has three servers"),
        ("nats-1,nats-2,nats-3,nats-4", "has three servers"),
        ("nats-1,nats-2,nats-1", "named twice"),
        ("nats-1,nats-2,0.0.0.0", "needs an address"),
        ("nats-1,nats-2,nats-3:64000", "choose a port below"),
        ("nats-1,nats-2,", "needs an address"),
    ],
)
def test_what_is_no_cluster_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str, said: str
) -> None:
    home = fleet_home(tmp_path)
    export_it = ["server", "--home", str(home.root), "--export", str(tmp_path / "given")]
    assert main([*export_it, "--cluster", named]) == 2
    assert said in capsys.readouterr().err
    assert not home.control_toml.exists()


async def test_in_the_home_of_a_cluster_no_server_is_started_by_mistake(tmp_path: Path) -> None:
    home, given = fleet_home(tmp_path), tmp_path / "given"
    arguments = ["server", "--home", str(home.root), "--export", str(given)]
    assert (
        await asyncio.to_thread(main, [*arguments, "--cluster", "nats-1,nats-2,nats-3:4333"]) == 0
    )
    assert sorted(each.name for each in given.iterdir()) == [
        "buckets",
        "nats-1",
        "nats-2",
        "nats-3-4333",
    ]
    assert home.control().url == "tls://nats-1:4222,tls://nats-2:4222,tls://nats-3:4333"
    before = (given / "nats-1" / "cluster.pem").read_bytes()
    # Again, as after each change: by what is remembered.
    assert await asyncio.to_thread(main, arguments) == 0
    assert (given / "nats-1" / "cluster.pem").read_bytes() == before
    with pytest.raises(UsageError, match="run by somebody else"):
        async with running(home):
            raise AssertionError
    async with running(home, listen=free_addresses(1)[0]):
        assert home.control().cluster is None
