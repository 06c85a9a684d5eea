"""systemd is woken as long as somebody waits for it, and no longer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from harmony_pi_topology.systemd.waker import WAKE_AFTER_S, Waker

pytestmark = pytest.mark.looptime


@pytest.fixture
def heard(tmp_path: Path) -> Generator[socket.socket]:
    """The socket at which systemd hears of services."""
    path = tmp_path / "run/systemd/notify"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as heard:
        heard.bind(str(path))
        yield heard


def count(heard: socket.socket) -> int:
    """Return how often it was woken since the last time."""
    number = 0
    try:
        while heard.recv(100):
            number += 1
    except BlockingIOError:
        return number
    raise AssertionError("an empty message is none")


async def test_it_is_woken_every_second_while_an_answer_is_waited_for(
    heard: socket.socket, tmp_path: Path
) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    Waker(tmp_path).wake_until(answer)
    await asyncio.sleep(0.9 * WAKE_AFTER_S)
    assert count(heard) == 0
    await asyncio.sleep(2.5 * WAKE_AFTER_S)
    assert count(heard) == 3
    answer.cancel()
    await asyncio.sleep(10 * WAKE_AFTER_S)
    assert count(heard) == 0


async def test_it_is_woken_until_a_job_has_ended(heard: socket.socket, tmp_path: Path) -> None:
    end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    Waker(tmp_path).wake_until(end)
    await asyncio.sleep(3.5 * WAKE_AFTER_S)
    end.set_result("done")
    await asyncio.sleep(10 * WAKE_AFTER_S)
    assert count(heard) == 3


async def test_where_there_is_no_systemd_nobody_is_woken(tmp_path: Path) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    Waker(tmp_path).wake_until(answer)
    await asyncio.sleep(2.5 * WAKE_AFTER_S)
    answer.cancel()
