"""Whether a published port leads into its container, by the kernel's own list of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from harmony_core.resources import Container, PublishedPort
from harmony_pi_topology.common.path_calls import PathCalls
from harmony_pi_topology.containers.podman_reply import FoundContainer
from harmony_pi_topology.containers.published import PublishedPorts

FOUND = FoundContainer(
    id="1",
    name="web",
    labels={},
    status="running",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    exit_code=0,
    restarts=0,
    image="",
    stop_timeout_s=0,
    stopped_by_user=False,
)


@pytest.fixture
async def ports(tmp_path: Path) -> AsyncGenerator[PublishedPorts]:
    """Of this process's own network."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/net").symlink_to(f"/proc/{os.getpid()}/net")
    calls = PathCalls("test", str(tmp_path))
    yield PublishedPorts(tmp_path, calls, "127.0.0.1")
    calls.close()


def publishing(host: int, address: str = "") -> Container:
    port = PublishedPort(host=host, container=80, address=address)
    return Container(name="web", image="registry.test/web:1", ports=(port,))


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
async def test_what_waits_at_the_device_s_own_socket_was_not_led_into_the_container(
    ports: PublishedPorts, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as monitor:
        number = monitor.getsockname()[1]
        web = publishing(number, address)
        assert await ports.find_dead(web, FOUND) == frozenset(), "nobody has tried it"
        with socket.create_connection(("127.0.0.1", number)):
            assert await ports.find_dead(web, FOUND) == {number}
            assert await ports.find_dead(web, FOUND) == {number}, "until it is put right"


@asynccontextmanager
async def waiting_elsewhere(ports: PublishedPorts) -> AsyncGenerator[int]:
    """A port at whose socket a connection waits that is known to be harmless."""
    with socket.create_server(("127.0.0.2", 0)) as monitor:
        number: int = monitor.getsockname()[1]
        with socket.create_connection(("127.0.0.2", number)):
            assert await ports.find_dead(publishing(number), FOUND) == frozenset()
            yield number


async def test_one_that_is_led_elsewhere_is_fine_and_is_not_tried_at_each_look(
    ports: PublishedPorts,
) -> None:
    """What came before its rules were there waits for ever: a socket elsewhere stands for the container."""
    async with waiting_elsewhere(ports) as number:
        with socket.create_server(("127.0.0.1", number)) as container:
            container.setblocking(False)
            assert await ports.find_dead(publishing(number), FOUND) == frozenset()
            with pytest.raises(BlockingIOError):
                container.accept()


async def test_a_start_of_its_own_begins_anew_and_so_does_one_of_that_name(
    ports: PublishedPorts,
) -> None:
    async with waiting_elsewhere(ports) as number:
        with socket.create_server(("127.0.0.1", number)):
            web = publishing(number)
            assert await ports.find_dead(web, FOUND) == frozenset(), "known to be harmless"
            again = attrs.evolve(FOUND, started_at=datetime(2026, 1, 2, tzinfo=UTC))
            assert await ports.find_dead(web, again) == {number}


async def test_where_the_list_cannot_be_read_nothing_is_said(tmp_path: Path) -> None:
    calls = PathCalls("test", str(tmp_path))
    assert await PublishedPorts(tmp_path, calls, "").find_dead(publishing(1), FOUND) == frozenset()
    calls.close()
