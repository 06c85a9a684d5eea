"""A power cut at any point of a control plane's life: what it has told an operator is so, and it goes on.

An operator's commands and the server are recorded, from the first key on (`tests.powercuts.control_plane`).
Then homes are laid out as a cut may have left them, a server is started there, and each device is pushed to.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import pytest
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket, admin
from harmony_control.push.history import read_history
from harmony_control.push.push import push
from harmony_control.server.process import running
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.seen import SeenCounters
from harmony_core.wire.envelope import pin_keys
from harmony_core.wire.manifest import reinstate
from harmony_core.wire.names import DESIRED_STATE
from tests.ports import free_address
from tests.powercuts.choosing import chosen, failure_of
from tests.powercuts.control_plane import report, wanting
from tests.powercuts.disk import Cut, Disk
from tests.powercuts.recording import Recording
from tests.soak import runs, seed, tell
from tests.topology.tracing import need_strace

STATED = 200
TREE = Path(__file__).parents[2]
LOGS = ("harmony/server/nats.log", "harmony/server/nats.pid")


@attrs.frozen
class Told:
    """What an operator had been told before the power was cut."""

    key: str = ""
    authority: str = ""
    devices: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Keys of those that may enter, by id."""
    removed: frozenset[str] = frozenset()
    pushed: Mapping[str, Mapping[int, str]] = attrs.field(factory=dict[str, Mapping[int, str]])
    """What was signed, as a hash, by generation and by device."""

    @classmethod
    def of(cls, lines: Sequence[str]) -> Told:
        told = cls()
        for line in lines:
            match json.loads(line):
                case {"key": key}:
                    told = attrs.evolve(told, key=key)
                case {"authority": authority}:
                    told = attrs.evolve(told, authority=authority)
                case {"added": [name, key]}:
                    told = attrs.evolve(told, devices={**told.devices, name: key})
                case {"pushed": [name, generation, sha256]}:
                    of_device = {**told.pushed.get(name, {}), generation: sha256}
                    told = attrs.evolve(told, pushed={**told.pushed, name: of_device})
                case {"removing": name}:
                    told = attrs.evolve(
                        told,
                        devices={k: v for k, v in told.devices.items() if k != name},
                        pushed={k: v for k, v in told.pushed.items() if k != name},
                    )
                case {"removed": name}:
                    told = attrs.evolve(told, removed=told.removed | {name})
                case other:
                    raise AssertionError(other)
        return told


def recorded(folder: Path) -> Disk:
    """Return the disk of a control plane that was never cut off."""
    need_strace()
    root, said = folder / "root", folder / "said"
    root.mkdir()
    recording = Recording(folder, folder / "log")
    disk = Disk(root, said, ignored=LOGS)
    program = [sys.executable, "-m", "tests.powercuts.control_plane"]
    subprocess.run(
        [*recording.command, *program, str(root / "harmony"), str(said)], check=True, cwd=TREE
    )
    disk.record(recording.read())
    return disk


def all_is_there(disk: Disk, folder: Path, cut: Cut) -> None:
    """What *cut* leaves has all that was told, and whoever starts there can go on."""
    copy = folder / "cut"
    disk.lay_out(cut, copy)
    try:
        asyncio.run(_goes_on(Home(copy / "harmony"), Told.of(disk.said_before(cut))))
    finally:
        shutil.rmtree(copy)


async def _goes_on(home: Home, told: Told) -> None:
    if not told.key:
        operator_key.create(home)
    else:
        assert operator_key.load_public(home).to_text() == told.key
    assert home.operator_pub.exists(), "others cannot let this operator in"
    async with running(home, listen=free_address()), admin(home) as client:
        if told.authority:
            assert home.authority.read_text() == told.authority, "devices would believe it no more"
        enrolled = {name: each.nkey for name, each in home.agents().items()}
        assert told.devices.items() <= enrolled.items()
        assert all(home.agent_toml(name).exists() for name in told.devices)
        for name, generations in told.pushed.items():
            await _knows(home, client, name, generations)
        for name in {"pi-1", *told.pushed}:
            await _pushes(home, client, name, told)
        assert not (told.removed & home.agents().keys())
        assert not any(home.knows(name) for name in told.removed), "it was said to be forgotten"
    seen = SeenCounters(home.seen)
    assert seen.admit([report(1000)]) == [True]
    assert seen.admit([report(999)]) == [False], "what was read is not remembered"


async def _knows(home: Home, client: Client, name: str, pushed: Mapping[int, str]) -> None:
    stored = await Bucket(client, DESIRED_STATE).get(name)
    assert stored is not None, "what was pushed is on no server"
    accepted = reinstate(
        stored.value,
        trusted=pin_keys(operator_key.load_trusted(home)),
        fleet=home.control().fleet,
        agent_id=name,
    )
    newest = max(pushed)
    assert accepted.manifest.generation >= newest, "the server has an older one than was pushed"
    assert accepted.manifest.generation > newest or accepted.payload_sha256 == pushed[newest]
    history = await read_history(home, client, name)
    assert pushed.keys() <= {each.number for each in history.generations}


async def _pushes(home: Home, client: Client, name: str, told: Told) -> None:
    before = max(told.pushed.get(name, {}), default=0)
    for text in ("after", "and again"):
        pushed = await push(home, client, name, wanting(text))
        assert pushed.generation > before, "a generation was given twice"
        before = pushed.generation


@pytest.mark.security
@pytest.mark.timeout(1800)
def test_whatever_a_power_cut_leaves_of_a_control_plane_it_knows_what_it_has_told_and_goes_on(
    tmp_path: Path,
) -> None:
    disk = recorded(tmp_path)
    cuts = disk.cuts()
    number = seed(f"{len(cuts)} things that a cut may leave")
    tried = chosen(cuts, runs(STATED, part=25), number)
    lost = [failure for cut in tried if (failure := failure_of(all_is_there, disk, tmp_path, cut))]
    tell("power cuts", f"{len(tried)} of a control plane, {len(lost)} with a loss")
    assert lost == []
