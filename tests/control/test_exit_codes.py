"""Exit codes of the real command, which scripts rely on: every one of them, and what is said beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harmony_control.cli.exits import exit_code_of
from harmony_core import errors
from harmony_core.outcome import Noop, Outcome, Running, Success

from .ground import Ground, Said, command, environment, harmony
from .scripted_device import failure, page

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"
AFTER = "- {id: after, kind: FileScore, after: [motd], spec: {path: /etc/b, content: b}}\n"
UNIT = "- {id: unit, kind: SystemdServiceScore, spec: {name: x.service}}\n"
BROKEN = failure("WriteFailed", "the disk is full\nand the log's last line")


async def answer(plane: Ground, **outcomes: Outcome) -> None:
    """Have pi-1 say that of the next generation."""
    before = await plane.fleet.device("pi-1").state()
    generation = 1 + (before.generation if before else 0)
    pages = {name: page(each, generation) for name, each in outcomes.items()}
    ready = all(isinstance(each, Success | Noop) for each in outcomes.values())
    await plane.pi.report(plane.pi.state(generation, pages, ready=ready))
    await plane.pi.beat()


async def answered(
    plane: Ground, *arguments: str, stdin: str = "", outcomes: Mapping[str, Outcome] | None = None
) -> Said:
    """What a command says that pushes, and to whose push pi-1 answers with *outcomes*."""
    bucket = plane.bus.bucket("desired-state")
    before = await bucket.get("pi-1")
    running = asyncio.create_task(plane.harmony(*arguments, stdin=stdin))
    async with asyncio.timeout(20):
        while await bucket.get("pi-1") == before:
            await asyncio.sleep(0.02)
    await answer(plane, **(outcomes or {}))
    return await running


async def pushed(plane: Ground, files: str, **outcomes: Outcome) -> tuple[int, str]:
    """Exit code and standard output of a push to which pi-1 answers with *outcomes*."""
    said = await answered(plane, "push-score", "pi-1", "-", stdin=files, outcomes=outcomes)
    return said.status, said.out


async def test_0_when_everything_pushed_has_converged(plane: Ground) -> None:
    status, out = await pushed(plane, MOTD + AFTER, motd=Success(), after=Noop())
    assert status == 0
    assert out.splitlines()[0] == "pushed to pi-1: generation 1, 2 Scores"
    assert "SUCCESS" in out
    assert "unchanged" in out


async def test_1_when_a_score_has_failed_with_its_reason_and_last_lines(plane: Ground) -> None:
    status, out = await pushed(plane, MOTD, motd=BROKEN)
    assert status == 1
    assert "WriteFailed (permanent): the disk is full\n    and the log's last line" in out


async def test_1_when_what_was_pushed_is_blocked_behind_a_failure(plane: Ground) -> None:
    blocked = Running(reason="Blocked", message="waits for motd")
    status, out = await pushed(plane, MOTD + AFTER, motd=BROKEN, after=blocked)
    assert status == 1
    assert "Blocked: waits for motd" in out


async def test_3_for_what_the_device_cannot_do_and_nothing_is_pushed(plane: Ground) -> None:
    await answer(plane)
    said = await plane.harmony("push-score", "pi-1", "-", stdin=UNIT)
    assert said.status == 3
    assert "unit: pi-1 does not know the kind SystemdServiceScore" in said.err
    assert await plane.bus.bucket("desired-state").get("pi-1") is None


OWN = """
from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of

class GreetingScore(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(File(path="/etc/greeting", content=b"hi")))

scores = {"greeting": GreetingScore()}
"""


async def test_3_for_a_kind_of_ones_own_that_no_package_brings_to_the_device(
    plane: Ground, tmp_path: Path
) -> None:
    await answer(plane)
    (tmp_path / "own.py").write_text(OWN)
    said = await plane.harmony("push-score", "pi-1", str(tmp_path / "own.py"))
    assert said.status == 3
    assert (
        "greeting: pi-1 does not know the kind GreetingScore; it is defined in own.py" in said.err
    )
    assert "docs/writing-a-score.md" in said.err


async def test_3_for_a_bucket_that_somebody_else_wrote(plane: Ground) -> None:
    await plane.bus.bucket("desired-state").put("pi-1", b"{}")
    said = await plane.harmony("push-score", "pi-1", "-", stdin=MOTD)
    assert said.status == 3
    assert "was not signed by an operator trusted here" in said.err
    assert "harmony push-score pi-1 --all --force" in said.err


async def test_4_when_the_time_is_up_and_the_push_stands(plane: Ground) -> None:
    said = await plane.harmony("push-score", "pi-2", "-", "--timeout", "0.2", stdin=MOTD)
    assert said.status == 4
    assert "pi-2 was never heard of" in said.err
    assert "has not converged within 0.2 s: it was never heard of" in said.err
    assert "generation 1" in said.out


async def test_0_at_once_when_nobody_waits(plane: Ground) -> None:
    said = await plane.harmony("push-score", "pi-2", "-", "--no-wait", stdin=MOTD)
    assert said.status == 0


async def test_0_when_what_was_removed_is_gone_and_2_when_it_was_not_there(plane: Ground) -> None:
    await pushed(plane, MOTD, motd=Success())
    said = await answered(plane, "remove-score", "pi-1", "motd", "--json")
    assert said.status == 0, said.err
    assert said.documents[-1] == {"event": "removed", "id": "motd"}
    again = await plane.harmony("remove-score", "pi-1", "motd")
    assert again.status == 2
    assert "there is no Score 'motd' on this device; there are: none" in again.err


async def test_130_when_interrupted_and_what_was_pushed_stands(plane: Ground) -> None:
    process = await asyncio.create_subprocess_exec(
        *command("push-score", "pi-2", "-"),
        env=environment(plane.home),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(MOTD.encode())
    process.stdin.close()
    assert b"generation 1" in await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert await plane.bus.bucket("desired-state").get("pi-2") is not None


async def test_141_when_nobody_reads_on(plane: Ground) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{' '.join(command('kinds', '--json'))} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        executable="/bin/bash",
        env=environment(plane.home),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode in {0, 141}  # head may be slower than what it reads
    assert err == b""


async def test_status_is_0_when_all_is_well_1_for_a_failure_and_4_for_no_word(
    plane: Ground,
) -> None:
    await answer(plane, motd=Success())
    assert (await plane.harmony("status", "pi-1")).status == 0
    assert (await plane.harmony("status", "pi-2")).status == 4
    assert (await plane.harmony("status")).status == 4
    await answer(plane, motd=Running(reason="NotReady"))
    assert (await plane.harmony("status", "pi-1")).status == 4
    await plane.pi.report(
        plane.pi.state(9, {"motd": page(Success(), 9)}, rejected="NotJson: empty")
    )
    assert (await plane.harmony("status", "pi-1")).status == 4
    await answer(plane, motd=BROKEN)
    assert (await plane.harmony("status")).status == 1
    assert (await plane.harmony("status", "pi-9")).status == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("push-score",),
        ("push-score", "pi-1"),
        ("push-score", "pi-1", "a.yaml", "--all"),
        ("push-score", "pi-1", "no-such.yaml"),
        ("push-score", "pi-1", "a.yaml", "--timeout", "0"),
        ("push-score", "pi-1", "a.yaml", "--timeout", "nan"),
        ("push-score", "Pi", "--all"),
        ("status", "*"),
        ("kinds", "Unheard"),
        ("no-such-command",),
    ],
)
async def test_2_for_what_cannot_be_meant(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = await harmony(tmp_path, *arguments)
    assert said.status == 2, said
    assert said.err
    assert said.out == ""


async def test_a_file_in_the_place_of_a_device_is_told_as_that(tmp_path: Path) -> None:
    for name in ("push-score", "diff"):
        said = await harmony(tmp_path, name, "a.yaml", "pi-1")
        assert "'a.yaml' cannot be a device's id" in said.err


async def test_an_error_is_a_document_too(tmp_path: Path) -> None:
    said = await harmony(tmp_path, "push-score", "pi-1", "no-such.yaml", "--json")
    assert said.status == 2
    document = json.loads(said.err)["error"]
    assert document["code"] == "ScoreFileError"
    assert "no-such.yaml cannot be read" in document["message"]


async def test_where_it_went_wrong_is_shown_to_who_asks(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command("push-score", "pi-1", "no-such.yaml"),
        env=environment(tmp_path, HARMONY_DEBUG="1"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"Traceback" in err


def test_every_error_of_ours_has_an_exit_code_between_1_and_4() -> None:
    made = [getattr(errors, name) for name in errors.__all__]
    # Some take more than a message; what they exit with is their kind's alone.
    codes = {each.code: exit_code_of(each.__new__(each, "")) for each in made}
    assert set(codes.values()) == {1, 2, 3, 4}
    failed_there = {code for code, status in codes.items() if status == 1}
    of_volumes = {"LoadTakenBack", "NoRoom", "TransferDamaged", "UnknownTransfer", "VolumeBusy"}
    assert failed_there == {"AnswerTooLarge", "RequestFailed"} | of_volumes
    refused = {code for code, status in codes.items() if status == 3}
    assert refused == {
        "BootedSince",
        "FactMissing",
        "MissingCapability",
        "NotEnrolled",
        "OutOfScope",
        "PolicyRefused",
        "RevisionConflict",
        "RootExpired",
        "RootRejected",
        "StaleGeneration",
        "UnknownKind",
        "UnknownVerb",
        "UnsupportedVersion",
        "UntrustedSignature",
        "WrongEpoch",
    }
    assert exit_code_of(ZeroDivisionError()) == 70


async def test_a_mistyped_command_is_answered_with_the_one_that_is_close(tmp_path: Path) -> None:
    said = await harmony(tmp_path, "stauts")
    assert said.status == 2
    assert "did you mean 'status'?" in said.err


def test_where_what_the_command_needs_is_not_installed_it_says_so(tmp_path: Path) -> None:
    """As on a device, where the environment of the agent has the command, and not what that needs."""
    (tmp_path / "rich.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n"
    )
    program = "import sys; from harmony_control.cli import main; sys.exit(main(['agents']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.returncode == 2
    assert "rich is not installed here" in done.stderr
    assert "run harmony on your own machine" in done.stderr
