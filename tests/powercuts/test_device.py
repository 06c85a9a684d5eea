"""A power cut at any point of a device's life: what it has said is so, and it goes on by itself.

An agent of real files and a real database is recorded while its device goes through three manifests: made,
changed, and all taken away. Then devices are laid out as a cut may have left them, and the agent that starts
there is asked for what was asked for last, and after that for nothing.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.agent.folder_device import MADE, NOTHING, WISHES, everything
from tests.powercuts.bench import Bench, is_as, running_bench
from tests.powercuts.choosing import chosen, failure_of
from tests.powercuts.disk import Cut, Disk
from tests.powercuts.recording import Recording
from tests.soak import runs, seed, tell
from tests.topology.tracing import need_strace

STATED = 400
IGNORED = ("run", "said", "told.json", "started.json")
"""What of a device's folder is on no disk of its own."""


@attrs.frozen
class Life:
    """A device that went through all generations without a cut."""

    disk: Disk
    before: Path
    after: Mapping[int, Path]

    @classmethod
    def of(cls, bench: Bench) -> Life:
        before = bench.device()
        device = bench.device(before)
        recording = Recording(device, bench.log)
        disk = Disk(device, device / "said", ignored=IGNORED)
        after: dict[int, Path] = {}
        with recording.of_process(bench.process.pid):
            for generation in WISHES:
                assert bench.agent(device, generation, is_watched=True) == 0
                after[generation] = bench.device(device)
        disk.record(recording.read())
        return cls(disk, before, after)


@attrs.frozen
class Said:
    """What a device had said to the world before it was cut off."""

    asked: int
    """The generation that it was asked for last."""
    report: Mapping[str, Any] | None
    events: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, lines: Sequence[str]) -> Said:
        said = [json.loads(line) for line in lines]
        reports = [each["report"] for each in said if "report" in each]
        return cls(
            asked=max((each["asked"] for each in said if "asked" in each), default=MADE),
            report=reports[-1] if reports else None,
            events=[each["event"] for each in said if "event" in each],
        )

    @property
    def generation(self) -> int:
        return self.report["generation"] if self.report else 0

    @property
    def is_finished(self) -> bool:
        """Whether it has said that all is as it was asked for last."""
        return (
            self.report is not None
            and self.report["observed_generation"] == self.asked
            and len(self.report["scores"]) == sum(map(len, WISHES[self.asked].values()))
            and all(
                each["outcome"]["status"] in {"SUCCESS", "NOOP"}
                for each in self.report["scores"].values()
            )
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    need_strace()
    with running_bench(tmp_path) as running:
        yield running


def all_is_there(bench: Bench, life: Life, cut: Cut) -> None:
    """What *cut* leaves has all that was said, and whoever starts there ends where all others would."""
    device = bench.folder / "cut"
    said = Said.of(life.disk.said_before(cut))
    try:
        life.disk.lay_out(cut, device)
        (device / "device").mkdir(exist_ok=True)
        files_are_whole(device, life)
        if said.is_finished:
            assert everything(device) == everything(life.after[said.asked]), "said to be so"
        assert bench.agent(device, said.asked, is_watched=True) == 0
        memory_is_there(device, said)
        is_as(device, life.after[said.asked])
        is_well(device)
        assert bench.agent(device, NOTHING) == 0
        is_as(device, life.after[NOTHING])
    finally:
        shutil.rmtree(device)


def files_are_whole(device: Path, life: Life) -> None:
    """Each file is one that somebody wanted there, or the one that was there before."""
    for path, (kind, _, content) in everything(device).items():
        if kind == "file" and not path.rpartition("/")[2].startswith(".harmony."):
            wanted = {each["files"].get(f"/{path}") for each in WISHES.values()}
            _, _, before = everything(life.before).get(path, ("", 0, None))
            assert content in {*wanted, before}, f"{path} is neither old nor new"


def memory_is_there(device: Path, said: Said) -> None:
    started = json.loads((device / "started.json").read_text())
    assert started["damaged"] == ""
    assert started["floor_lost"] == ""
    assert started["generation"] >= said.generation, "older than was said"
    assert started["floor"] >= said.generation
    if said.report is not None:
        assert started["reserved"], "a counter could be said again by whose clock went back"
        assert started["reserved"][0][0] >= said.report["counter"]
    with closing(sqlite3.connect(device / "state/agent.db")) as database:
        rows = database.execute("SELECT json FROM event").fetchall()
    kept = {event["seq"]: event for event in (json.loads(text) for (text,) in rows)}
    for event in said.events:
        assert kept.get(event["seq"]) == event, "an event that was told is not known"


def is_well(device: Path) -> None:
    told = json.loads((device / "told.json").read_text())
    wrong = [each for each in told["conditions"] if each["type"] == "Degraded"]
    assert [each["reason"] for each in wrong] == ["AllWell"]


@pytest.mark.security
@pytest.mark.timeout(1800)
def test_whatever_a_power_cut_leaves_of_a_device_it_knows_what_it_has_said_and_goes_on(
    bench: Bench,
) -> None:
    life = Life.of(bench)
    cuts = life.disk.cuts()
    number = seed(f"{len(cuts)} things that a cut may leave")
    tried = chosen(cuts, runs(STATED, part=25), number)
    lost = [failure for cut in tried if (failure := failure_of(all_is_there, bench, life, cut))]
    tell("power cuts", f"{len(tried)} of a device, {len(lost)} with a loss")
    assert lost == []
