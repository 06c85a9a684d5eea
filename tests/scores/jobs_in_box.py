"""Scores that are made of jobs, interpreted here, while their jobs are run by a Pi in a box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from harmony_core import Running
from harmony_core.outcome import Outcome
from harmony_core.reconciler import MemoryRecords, Offers
from harmony_core.score import AnyScore
from harmony_core.testing import AllowAll, interpret_once
from harmony_pi_topology.jobs.systemd import SystemdJobs
from tests.box import Box
from tests.scores.apt_repository import BUILD, GONE

__all__ = ["ask_again", "offer_jobs", "offer_without_records", "remove", "settle"]


@asynccontextmanager
async def offer_jobs(pi: Box, *names: str) -> AsyncGenerator[Offers]:
    """Offer jobs in a box whose apt knows our repository alone; those of these *names* go at the end."""
    await asyncio.to_thread(pi.run, ["sh", "-c", GONE], check=False)
    await asyncio.to_thread(pi.run, ["sh", "-c", BUILD])
    jobs = _open_jobs(pi)
    offers: Offers = {"JobRunner": jobs}
    yield offers
    await asyncio.to_thread(pi.run, ["sh", "-c", GONE], check=False)
    for name in names:
        await remove(offers, name)
    await jobs.close()


@asynccontextmanager
async def offer_without_records(pi: Box) -> AsyncGenerator[Offers]:
    """Offer the jobs of the same Pi to an agent that has lost its state."""
    jobs = _open_jobs(pi)
    yield {"JobRunner": jobs}
    await jobs.close()


def _open_jobs(pi: Box) -> SystemdJobs:
    return SystemdJobs(
        records=MemoryRecords(), policy=AllowAll(), address=pi.dbus_address, root=pi.root
    )


async def settle(score: AnyScore, offers: Offers) -> Outcome:
    """Look until it has settled."""
    while True:
        outcome = (await interpret_once(score, offers)).outcome
        if not isinstance(outcome, Running):
            return outcome
        await asyncio.sleep(0.1)


async def remove(offers: Offers, name: str) -> None:
    """Remove the job of that name; raise why it cannot be."""
    while True:
        (result,) = await offers["JobRunner"].remove([name], apply=True)
        if isinstance(result, Exception):
            raise result
        if result.pending is None:
            return
        await asyncio.sleep(0.1)


def ask_again(offers: Offers) -> None:
    """Have every job's question asked again, as a push does."""
    jobs = offers["JobRunner"]
    assert isinstance(jobs, SystemdJobs)
    jobs.ask_again(None)
