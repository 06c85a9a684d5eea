"""`harmony agents`, as it is typed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from ruamel.yaml import YAML

from harmony_core.outcome import Noop
from harmony_core.wire.vitals import Vitals

from .ground import Ground, environment, running_command
from .scripted_device import failure, page


def _documents(text: str) -> list[dict[str, Any]]:
    return [YAML(typ="safe", pure=True).load(each) for each in text.split("---\n")[1:]]  # pyright: ignore[reportUnknownMemberType] - half typed there


async def _two(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(0, {"a": page(failure("Bad", "no"), 0)}, ready=False))
    await plane.pi.beat()


async def test_the_table_shows_the_three_axes_and_why(plane: Ground) -> None:
    await _two(plane)
    said = await plane.harmony("agents")
    assert said.status == 0, said.err
    title, one, two = said.out.splitlines()
    assert title.split()[:4] == ["AGENT", "DEVICE", "UPDATE", "WORKLOADS"]
    assert one.split()[:4] == ["pi-1", "Online", "-", "Error"], "nothing is wanted of it"
    assert "1 of 1 Scores failed: a: Bad" in one
    assert two.split()[:2] == ["pi-2", "Never"]


async def test_status_without_a_device_prints_the_same(plane: Ground) -> None:
    await _two(plane)
    status, agents = await plane.harmony("status"), await plane.harmony("agents")
    assert status.out.splitlines()[0] == agents.out.splitlines()[0]
    assert [line.split()[:4] for line in status.out.splitlines()] == [
        line.split()[:4] for line in agents.out.splitlines()
    ]


async def test_some_are_chosen_and_sorted(plane: Ground) -> None:
    await _two(plane)

    async def names(*arguments: str) -> list[str]:
        said = await plane.harmony("agents", "-o", "name", *arguments)
        assert said.status == 0, said.err
        return said.out.split()

    assert await names() == ["pi-1", "pi-2"]
    assert await names("--sort=-id") == ["pi-2", "pi-1"]
    assert await names("--sort=-observed_generation") == ["pi-1", "pi-2"], "unknown comes last"
    assert await names("--where", "workloads == Error") == ["pi-1"]
    assert await names("--where", "scores > 7") == []


async def test_what_is_printed_for_programs_can_be_read_by_them(plane: Ground) -> None:
    await _two(plane)
    said = await plane.harmony("agents", "-o", "json")
    one, two = [json.loads(line) for line in said.out.splitlines()]
    assert (one["id"], one["workloads"], one["scores_failed"]) == ("pi-1", "Error", 1)
    assert (two["device"], two["last_seen"], two["vitals"]) == ("Never", None, None)
    assert (await plane.harmony("--json", "agents", "--sort", "id")).out
    said = await plane.harmony("agents", "-o", "yaml")
    loaded = _documents(said.out)
    assert [each["id"] for each in loaded] == ["pi-1", "pi-2"]
    assert loaded[1] == two


async def test_what_cannot_be_understood_is_shown_with_its_place(plane: Ground) -> None:
    said = await plane.harmony("agents", "--where", "temprature > 70")
    assert said.status == 2
    assert "did you mean 'temperature'" in said.err
    assert "temprature > 70" in said.err
    said = await plane.harmony("agents", "--sort", "xyzzy")
    assert said.status == 2
    assert "--sort: there is no field 'xyzzy'; there are: id (or agent), " in said.err
    assert "memory_available (or memory, memory_free)" in said.err


async def test_a_fleet_that_is_well_is_explained_by_nothing(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(0, {"a": page(Noop(), 0)}))
    await plane.pi.beat()
    said = await plane.harmony("agents", "-o", "json")
    row, _ = [json.loads(line) for line in said.out.splitlines()]
    assert (row["device"], row["workloads"], row["reason"]) == ("Online", "Healthy", "")


async def test_the_state_of_one_device_is_read_without_what_only_others_need(plane: Ground) -> None:
    """A person waits for it, and to load models of what is not read there takes longer than the rest."""
    await plane.pi.report(plane.pi.state(0))
    code = (
        "import sys\n"
        "from harmony_control.cli import main\n"
        "main(['status', 'pi-1'])\n"
        "print(sorted({'pydantic', 'rich', 'ruamel', 'httpx'} & set(sys.modules)), file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env=environment(plane.bus.home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.startswith(b"pi-1")
    assert err.decode().strip() == "[]"


async def test_a_device_is_described_with_its_reasons(plane: Ground) -> None:
    await _two(plane)
    said = await plane.harmony("describe", "pi-2")
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "device     Never: it was never heard"
    assert lines[1] == "update     UpToDate"
    assert lines[2].startswith("workloads  Unknown: ")
    assert lines[-1] == "  not asked for: the device is not heard"
    said = await plane.harmony("describe", "pi-3")
    assert said.status == 2
    assert "there is no device 'pi-3'" in said.err


_FEW = 'memory < 1GiB and labels.site == "attic"'


async def _begin_with_memory(plane: Ground, memory_bytes: int) -> None:
    """Let pi-1 be in the attic, with so much memory free."""
    await plane.fleet.device("pi-1").label({"site": "attic"})
    await plane.pi.report(plane.pi.state(1))
    await plane.pi.beat(vitals=Vitals(memory_available_bytes=memory_bytes))


async def test_what_is_called_memory_over_the_column_can_be_asked_for_by_that_name(
    plane: Ground,
) -> None:
    await _begin_with_memory(plane, 512 * 2**20)
    said = await plane.harmony(
        "agents", "--where", _FEW, "--sort=-memory", "-o", "wide", COLUMNS="200"
    )
    assert said.status == 0, said.err
    title, *rows = said.out.splitlines()
    for each in ("HEAT", "POWER", "DISK FREE", "MEMORY FREE", "UP", "LABELS", "REASON"):
        assert each in title
    (row,) = rows
    at = title.index("MEMORY FREE")
    assert row.startswith("pi-1")
    assert row[at:].startswith("536.9 MB"), row
    assert "site=attic" in row[title.index("LABELS") :]
    assert (await plane.harmony("agents", "--where", "memory > 1GiB", "-o", "name")).out == ""


async def test_who_watches_is_told_of_those_chosen_and_once_when_one_is_chosen_no_more(
    plane: Ground,
) -> None:
    await _begin_with_memory(plane, 512 * 2**20)
    command = ("agents", "--watch", "--where", _FEW, "-o", "json")
    async with running_command(plane.home, *command) as process, asyncio.timeout(60):
        assert process.stdout is not None

        async def read() -> tuple[str, int]:
            assert process.stdout is not None
            row = json.loads(await process.stdout.readline())
            return row["id"], row["vitals"]["memory_available_bytes"]

        assert await read() == ("pi-1", 512 * 2**20)
        await plane.pi.beat(vitals=Vitals(memory_available_bytes=256 * 2**20))
        assert await read() == ("pi-1", 256 * 2**20)
        await plane.pi.beat(vitals=Vitals(memory_available_bytes=2 * 2**30))
        assert await read() == ("pi-1", 2 * 2**30), "that it is one of them no more"
        await plane.pi.beat(vitals=Vitals(memory_available_bytes=3 * 2**30))
        await plane.pi.beat(vitals=Vitals(memory_available_bytes=128 * 2**20))
        assert await read() == ("pi-1", 128 * 2**20)
