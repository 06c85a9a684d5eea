"""Bundles made by hand, in the form that is specified and in others, and a device that no server reaches."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from harmony_control.store.home import Home
from harmony_core.wire.actual_state import ActualState, from_json
from tests.control.ground import Said, harmony
from tests.faults.relay import Relay
from tests.nats import Bus

__all__ = ["AGENT", "Island", "island", "pack", "unpack"]

AGENT = (sys.executable, "-m", "harmony_agent.cli")


def pack(files: Mapping[str, bytes], /, **fields: Any) -> bytes:
    """A bundle of *files*, written as docs/wire.md says it, by tarfile and not by what Harmony has."""
    index = {
        "api_version": "harmony/v1",
        "fleet": "home",
        "agent_id": "pi-1",
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "files": [
            {"name": name, "sha256": hashlib.sha256(each).hexdigest(), "size_bytes": len(each)}
            for name, each in files.items()
        ],
        **fields,
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, content in {"index.json": json.dumps(index).encode(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            made.addfile(entry, io.BytesIO(content))
    return _without_filling(archive.getvalue())


def _without_filling(archive: bytes) -> bytes:
    """End after two empty blocks, where tarfile fills up to twenty."""
    return archive.rstrip(b"\0") + bytes(-len(archive.rstrip(b"\0")) % 512) + bytes(1024)


def unpack(bundle: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The index of a bundle, and its files in order, as any tar reads them."""
    found: dict[str, bytes] = {}
    with tarfile.open(bundle) as archive:
        for each in archive:
            file = archive.extractfile(each)
            assert file is not None
            found[each.name] = file.read()
    return json.loads(found.pop("index.json")), found


@attrs.define
class Island:
    """A device that is a folder, with an agent of its own process, and the fleet to which it belongs."""

    bus: Bus
    root: Path
    relay: Relay
    process: asyncio.subprocess.Process | None = None

    @property
    def home(self) -> Home:
        return self.bus.home

    @property
    def device(self) -> Path:
        """What stands for /."""
        return self.root / "device"

    @property
    def toml(self) -> Path:
        return self.root / "agent.toml"

    @property
    def said(self) -> str:
        """All that the agent has logged."""
        return (self.root / "said").read_text()

    async def harmony(self, *arguments: str, ends: int = 0, **environment: str) -> Said:
        said = await harmony(self.home, *arguments, **environment)
        assert said.status == ends, said
        return said

    async def push(self, *scores: Mapping[str, Any], to: str = "pi-1") -> None:
        """Sign them for the device, which is not there."""
        file = self.root / "scores.json"
        file.write_text(json.dumps(scores))
        await self.harmony("push-score", to, str(file), "--no-wait")

    async def bundle(self, name: str, *more: str, of: str = "pi-1") -> Path:
        file = self.root / name
        await self.harmony("bundle", of, str(file), *more)
        return file

    async def load(self, file: Path, *more: str, ends: int = 0) -> Said:
        """`harmony-agent load`, as root types it on the device."""
        process = await asyncio.create_subprocess_exec(
            *(*AGENT, "load", "--config", str(self.toml), str(file), *more),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        said = Said(process.returncode or 0, out.decode(), err.decode())
        assert said.status == ends, (said, self.said[-4000:])
        assert "Traceback" not in said.err
        return said

    async def start(self) -> None:
        with (self.root / "said").open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(
                *(*AGENT, "run", "--config", str(self.toml)), stderr=said
            )
        async with asyncio.timeout(20):
            while not (self.root / "run/load.sock").exists():
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await self.process.wait()
            (self.root / "run/load.sock").unlink(missing_ok=True)
            self.process = None

    async def reported(self, generation: int) -> ActualState:
        """What the server has of the device, once it has told of that *generation*."""
        async with asyncio.timeout(60):
            while True:
                found = await self.bus.bucket("actual-state").get("pi-1")
                if found is not None and found.value:
                    state = from_json(found.value, ActualState)
                    if state.observed_generation == generation:
                        return state
                await asyncio.sleep(0.05)


@asynccontextmanager
async def island(bus: Bus, root: Path) -> AsyncGenerator[Island]:
    """pi-1 of *bus*, behind a cable that is cut until somebody mends it. It was there once."""
    async with Relay(int(bus.home.control().url.rpartition(":")[2])) as relay:
        made = Island(bus, root, relay)
        made.device.mkdir()
        (root / "said").touch()
        enrolled = bus.home.agent_toml("pi-1").read_text()
        moved, count = re.subn(r"tls://[^\"]+", f"tls://127.0.0.1:{relay.port}", enrolled)
        assert count == 1
        made.toml.write_text(
            f'heartbeat_s = 1.0\nstate_directory = "{root}/state"\nruntime_directory = "{root}/run"\n'
            f'floor_directory = "{root}/etc"\n{moved}\n[topology]\nroot = "{made.device}"\n'
        )
        made.toml.chmod(0o600)
        try:
            await made.start()
            relay.become("cut")
            yield made
        finally:
            await made.stop()
