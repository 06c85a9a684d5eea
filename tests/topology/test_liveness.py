"""What was ready is asked now and then whether it still is, at a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from harmony_core.resources import HttpProbe
from harmony_pi_topology.common.liveness import Liveness
from harmony_pi_topology.testing.hearing import Hearer
from tests.ports import free_address

HERE = "127.0.0.1"


class Service:
    """Something that listens, is well or not, and counts how often it is asked."""

    def __init__(self) -> None:
        self.port = int(free_address().rpartition(":")[2])
        self.is_well = True
        self.asked = 0
        self._server: asyncio.Server | None = None

    async def begin(self) -> None:
        self._server = await asyncio.start_server(self._answer, HERE, self.port)

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def probe(self) -> HttpProbe:
        return HttpProbe(port=self.port)

    async def is_asked(self, times: int = 1) -> None:
        """So often more, from now on."""
        until = self.asked + times
        while self.asked < until:
            await asyncio.sleep(0.001)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        status = b"200 OK" if self.is_well else b"500 Internal Server Error"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving() -> AsyncGenerator[Service]:
    service = Service()
    await service.begin()
    yield service
    await service.end()


@pytest.fixture
async def service() -> AsyncGenerator[Service]:
    async with serving() as service:
        yield service


@pytest.fixture
async def liveness() -> AsyncGenerator[Liveness]:
    liveness = Liveness(every_s=0.02)
    yield liveness
    await liveness.close()


async def test_that_it_answers_no_more_is_told_once_and_that_it_does_again(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    liveness.watch(["web"], heard)
    liveness.record_probe("web", service.probe, address=HERE, answers=True)
    await service.is_asked()
    assert heard.heard == []
    service.is_well = False
    await heard.hears("web")
    await service.is_asked(times=10)
    assert heard.heard == []
    service.is_well = True
    await heard.hears("web")


async def test_that_nobody_listens_any_more_is_told_too(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    liveness.watch(["web"], heard)
    liveness.record_probe("web", service.probe, address=HERE, answers=True)
    await service.end()
    await heard.hears("web")
    await service.begin()
    await heard.hears("web")


async def test_what_is_not_ready_yet_is_told_when_it_is(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    liveness.record_probe("web", service.probe, address=HERE, answers=False)
    liveness.watch(["web"], heard)
    await heard.hears("web")


async def test_what_nobody_watches_or_is_gone_is_not_asked(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    async with serving() as other:
        liveness.record_probe("other", other.probe, address=HERE, answers=True)
        liveness.record_probe("web", service.probe, address=HERE, answers=False)
        liveness.watch(["other"], heard)
        await other.is_asked(times=5)
        liveness.forget("web")
        liveness.watch(["other", "web"], heard)
        await other.is_asked(times=5)
        assert service.asked == 0
        assert heard.heard == []
