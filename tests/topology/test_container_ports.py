"""Whether a port can be had is tried as podman will have it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from harmony_core.resources import PublishedPort
from harmony_pi_topology.containers.ports import bind_port


@pytest.fixture(params=["0.0.0.0", "127.0.0.1", "::"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Somebody who listens, on a port that nobody had."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server(
        (request.param, 0), family=family, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        yield server


def test_a_port_that_somebody_listens_on_is_taken_and_then_is_free(
    listener: socket.socket,
) -> None:
    port = PublishedPort(host=listener.getsockname()[1], container=80)
    assert bind_port(port) == errno.EADDRINUSE
    assert bind_port(port.model_copy(update={"protocol": "udp"})) == 0
    listener.close()
    assert bind_port(port) == 0


def test_a_port_that_somebody_receives_on_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        number = receiver.getsockname()[1]
        port = PublishedPort(host=number, container=80, protocol="udp", address="127.0.0.1")
        assert bind_port(port) == errno.EADDRINUSE
        assert bind_port(port.model_copy(update={"address": "127.0.0.2"})) == 0
        assert bind_port(port.model_copy(update={"protocol": "tcp"})) == 0


def test_a_port_whose_connections_were_closed_a_moment_ago_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = server.accept()
            accepted.close()  # first to close, so that it waits
            assert client.recv(1) == b""
    assert bind_port(PublishedPort(host=address[1], container=80)) == 0


def test_an_address_that_the_device_has_not_is_told_from_a_port_that_is_taken() -> None:
    port = PublishedPort(host=18080, container=80, address="192.0.2.1")
    assert bind_port(port) == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("address", ["1.2.3", "abc", "1:2", "...."])
def test_what_is_no_address_is_left_to_podman(address: str) -> None:
    assert bind_port(PublishedPort(host=18080, container=80, address=address)) == 0
