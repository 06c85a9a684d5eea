"""What was ready is asked now and then whether it still is, at a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from harmony_core.resources import TcpProbe
from harmony_core.testing.hearing import Hearer
from harmony_pi_topology._liveness import Liveness
from tests.nats import free_address

HERE = "127.0.0.1"


class Service:
    """Something that listens, or not."""

    def __init__(self) -> None:
        self.port = int(free_address().rpartition(":")[2])
        self.asked = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def begin(self) -> None:
        self._server = await asyncio.start_server(self._hang_up, HERE, self.port)

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def probe(self) -> TcpProbe:
        return TcpProbe(port=self.port)

    async def _hang_up(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        writer.close()


@pytest.fixture
async def service() -> AsyncGenerator[Service]:
    service = Service()
    await service.begin()
    yield service
    await service.end()


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
    liveness.judged("web", service.probe, address=HERE, answers=True)
    await service.asked.wait()
    assert heard.heard == []
    await service.end()
    await heard.hears("web")
    await asyncio.sleep(0.2)
    assert heard.heard == []
    await service.begin()
    await heard.hears("web")


async def test_what_is_not_ready_yet_is_told_when_it_is(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    liveness.judged("web", service.probe, address=HERE, answers=False)
    liveness.watch(["web"], heard)
    await heard.hears("web")


async def test_what_nobody_watches_or_is_gone_is_not_asked(
    service: Service, liveness: Liveness
) -> None:
    heard = Hearer()
    liveness.judged("web", service.probe, address=HERE, answers=False)
    await asyncio.sleep(0.1)
    assert not service.asked.is_set()
    liveness.forget("web")
    liveness.watch(["web"], heard)
    await asyncio.sleep(0.1)
    assert not service.asked.is_set()
    assert heard.heard == []
