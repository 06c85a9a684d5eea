"""Ten thousand devices follow one class in waves: 1 % and then 6 % fail on purpose, and many are killed.

`make fleet` does it with 10,000, or as many as $HARMONY_DEVICES says; `make test` with 100. It tells what
each step took; the times are of a machine on which all devices and the server share a few processors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.soak import runs, tell

from .agents import fails, name_of
from .ground import Scale, scale

STATED = 10_000


@pytest.fixture
def folder() -> Generator[Path]:
    """A place on a disk: all databases together would fill a memory."""
    made = Path(tempfile.mkdtemp(prefix="scale-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@asynccontextmanager
async def tell_step(fleet: Scale, what: str) -> AsyncGenerator[None]:
    """Tell what the block took, and what was sent to the devices meanwhile."""
    before, began_s = await fleet.look(), time.monotonic()
    yield
    took_s, after = time.monotonic() - began_s, await fleet.look()
    sent_mib = max(0, after.received_bytes - before.received_bytes) / 2**20
    said = f"{what:<28} {took_s:6.1f} s  {sent_mib:7.1f} MiB sent to devices  {fleet.server_load()}"
    print(said, flush=True)
    tell("scale", said)


@pytest.mark.fleet
@pytest.mark.timeout(7200)
async def test_a_class_comes_to_all_in_waves_and_what_fails_goes_back_by_itself(
    folder: Path,
) -> None:
    stated = runs(STATED, part=100)
    count = int(os.environ.get("HARMONY_DEVICES", stated))
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
            assert "it is done" in said.out, said
        found = await fleet.look()
        assert found.versions == {"1": count - well, "2": well}

        async with tell_step(fleet, "the third, 6 % fail, aborted"):
            said = await fleet.apply(3, fails_on=6, success="97%")
            assert "aborted" in said.out, said
            assert "on purpose" in said.out
            await fleet.until(lambda now: "3" not in now.versions)
        assert (await fleet.look()).versions == found.versions

        async with tell_step(fleet, "many are killed and begin"):
            await fleet.kill_some()
            await fleet.until_heard()
        async with tell_step(fleet, "the fourth"):
            said = await fleet.apply(4)
            assert said.status == 0, said
        assert (await fleet.look()).versions == {"4": count}
