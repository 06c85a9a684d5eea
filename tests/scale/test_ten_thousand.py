"""Ten thousand devices follow one class in waves: 1 % and then 6 % fail on purpose, and many are killed.

`make fleet` does it with 10,000, or as many as $HARMONY_DEVICES says; `make test` with 100. It tells what
each step took; the times are of a machine on which all devices and the server share a few processors.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from tests.soak import runs, tell

from .agents import Found, fails, name_of
from .ground import Load, Scale, scale

STATED = 10_000
_CANARY_MIB, _ABORT_MIB = 12, 18
"""What ten thousand devices may be sent for a canary of 1 % of them, a document of 64 KiB, and to take it
back."""
_SECOND_WAVE_MIB = 2 * 900 * 64 // 1024
"""Two documents of 64 KiB for each of 9 %."""
_FEWEST = 100
"""Of fewer, one that fails is more than a few percent."""
_FEW_BYTES = 256 * 1024
"""What a few documents and heartbeats weigh, whose number is not in proportion to that of the devices."""


@pytest.fixture
def folder() -> Generator[Path]:
    """A place on a disk: all databases together would fill a memory."""
    made = Path(tempfile.mkdtemp(prefix="scale-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@asynccontextmanager
async def tell_step(fleet: Scale, what: str) -> AsyncGenerator[None]:
    """Tell what the block took, what was sent to the devices meanwhile, and what looking at it took."""
    before, began_s = await fleet.look(), time.monotonic()
    yield
    took_s, after = time.monotonic() - began_s, await fleet.look()
    sent_mib = sent_bytes(before, after) / 2**20
    step = f"{what:<28} {took_s:6.1f} s, {sent_mib:.1f} MiB sent to devices"
    for said in (step, f"  {fleet.load}", f"  the slowest look: {fleet.onlooker.tell()}"):
        print(said, flush=True)
        tell("scale", said)


def sent_bytes(before: Found, after: Found) -> int:
    """Return how much was sent between two looks. An agent that was killed has forgotten what it was sent."""
    return max(0, after.received_bytes - before.received_bytes)


def within(sent: int, of_ten_thousand: int, count: int) -> bool:
    """Return whether *sent* is no more than so many MiB for ten thousand devices."""
    return sent <= of_ten_thousand * 2**20 * count / 10_000 + _FEW_BYTES


def compare_loads(few: int, small: Load, many: int, large: Load) -> list[str]:
    """Return what a device costs in the larger fleet, over what it costs in the smaller."""
    kinds = [each.name for each in attrs.fields(Load)]
    return [
        f"{kind:<16} {getattr(small, kind):.1f} with {few:,}, {getattr(large, kind):.1f} with {many:,}: "
        f"ratio {getattr(large, kind) / getattr(small, kind):.2f}"
        for kind in kinds
    ]


@pytest.mark.fleet
@pytest.mark.timeout(7200)
async def test_a_class_comes_to_all_in_waves_and_what_fails_goes_back_by_itself(
    folder: Path,
) -> None:
    stated = runs(STATED, part=100)
    many = int(os.environ.get("HARMONY_DEVICES", stated))
    few = many // 10
    if few < _FEWEST:
        await follow(folder, many)
        return
    small, large = await follow(folder / "few", few), await follow(folder / "many", many)
    for said in compare_loads(few, small, many, large):
        print(said, flush=True)
        tell("scale", said)


async def follow(folder: Path, count: int) -> Load:
    """Have so many devices follow one class, and return what each has cost in the end."""
    well = sum(not fails(name_of(each), 1) for each in range(count))
    async with scale(folder, count) as fleet:
        async with tell_step(fleet, f"{count:,} agents begin"):
            await fleet.begin(fleet.split())
            await fleet.until_heard()
        async with tell_step(fleet, "the first generation"):
            said = await fleet.apply(1)
            assert said.status == 0, said
        assert (await fleet.look()).versions == {"1": count}

        async with tell_step(fleet, "the second, 1 % fail"):
            said = await fleet.apply(2, fails_on=1)
            assert "all waves are over" in said.out, said
        found = await fleet.look()
        assert found.versions == {"1": count - well, "2": well}

        before = await fleet.look()
        async with tell_step(fleet, "the third, 6 % fail, aborted"):
            said = await fleet.apply(3, fails_on=6, success="97%")
            assert "aborted" in said.out, said
            assert "on purpose" in said.out
            back = await fleet.until(lambda now: "3" not in now.versions)
        assert (await fleet.look()).versions == found.versions
        assert within(sent_bytes(before, back), await _find_abort_mib(fleet), fleet.count)

        await stop_in_the_canary(fleet)
        assert (await fleet.look()).versions == found.versions

        async with tell_step(fleet, "many are killed and begin"):
            await fleet.kill_some()
            await fleet.until_heard()
        async with tell_step(fleet, "the fifth"):
            said = await fleet.apply(5)
            assert said.status == 0, said
        assert (await fleet.look()).versions == {"5": count}
        return fleet.load


async def _find_abort_mib(fleet: Scale) -> int:
    """Return how many MiB ten thousand devices may be sent for what was aborted by itself: as by hand where
    it was in the canary. Of few devices none may fail there; then the second wave, 10 %, has the document,
    too, and the one before."""
    said = await fleet.harmony("--json", "rollout", "status", "kiosk")
    (status,) = said.documents
    assert status["state"] == "aborted"
    by_hand = _CANARY_MIB + _ABORT_MIB
    return {1: by_hand, 2: by_hand + _SECOND_WAVE_MIB}[status["wave"]]


async def stop_in_the_canary(fleet: Scale) -> None:
    """One of a hundred is reached, and brought back by a person. Those alone are sent the document; all are
    sent the gate."""
    reached = -(-fleet.count // 100)
    before = await fleet.look()
    async with tell_step(fleet, "the fourth, 1 % reached"):
        applying = asyncio.create_task(fleet.apply(4, canary_soak="1h"))
        there = await fleet.until(lambda now: now.versions.get("4") == reached)
    assert within(sent_bytes(before, there), _CANARY_MIB, fleet.count)
    async with tell_step(fleet, "aborted"):
        said = await fleet.harmony("rollout", "abort", "kiosk", "--reason", "tried")
        assert said.status == 0, said
        back = await fleet.until(lambda now: "4" not in now.versions)
        assert (await applying).status == 1
    assert within(sent_bytes(there, back), _ABORT_MIB, fleet.count)
