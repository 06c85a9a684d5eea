"""Completion: of commands and files, and of the devices, Scores and kinds that this machine knows."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .ground import Ground, harmony

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"


async def names(plane: Ground, what: str) -> list[str]:
    said = await plane.harmony("completion", "--list", what)
    assert said.status == 0, said.err
    return said.out.split()


async def test_what_is_known_here_is_offered(plane: Ground) -> None:
    assert await names(plane, "devices") == ["pi-1", "pi-2"]
    assert await names(plane, "scores") == []
    said = await plane.harmony("push-score", "pi-1", "-", "--no-wait", stdin=MOTD)
    assert said.status == 0, said.err
    assert await names(plane, "scores") == ["motd"]
    assert "FileScore" in await names(plane, "kinds")


@pytest.mark.parametrize(
    ("payload", "offered"),
    [
        (b"[" * 100_000, []),
        (b'{"scores": ' + b"[" * 100_000, []),
        (b'{"scores": 7}', []),
        (b"7", []),
        (
            b'{"scores": [7, {"id": [7]}, {"id": "$(reboot)"}, {"id": "a b"}, {"id": "web"}]}',
            ["web"],
        ),
    ],
)
async def test_what_cannot_be_a_score_is_never_offered_and_never_a_traceback(
    payload: bytes, offered: list[str], plane: Ground
) -> None:
    said = await plane.harmony("push-score", "pi-1", "-", "--no-wait", stdin=MOTD)
    assert said.status == 0, said.err
    envelope = json.dumps({"payload": base64.b64encode(payload).decode()})
    plane.home.manifest_json("pi-1").write_text(envelope)
    assert await names(plane, "scores") == offered


async def test_where_nothing_is_known_nothing_is_offered_and_nothing_complained_of(
    tmp_path: Path,
) -> None:
    said = await harmony(tmp_path / "none", "completion", "--list", "scores")
    assert (said.status, said.out, said.err) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
async def test_the_script_is_one_that_the_shell_takes(shell: str, tmp_path: Path) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell} here")
    said = await harmony(tmp_path, "completion", shell)
    assert said.status == 0, said.err
    script = tmp_path / "script"
    script.write_text(said.out)
    done = await asyncio.to_thread(
        subprocess.run, [program, "-n", str(script)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_bash_completes_a_device_by_what_the_command_lists(plane: Ground) -> None:
    script = (await plane.harmony("completion", "bash")).out
    asked = "harmony() { printf 'pi-1\\npi-2\\nattic\\n'; }\n" + script + "\n_harmony_devices pi-\n"
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/bash", "-c", asked], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["pi-1", "pi-2"], done.stderr
