"""Two agents with one memory: the second ends at once, and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harmony_agent.single_instance import alone
from harmony_core.errors import ConfigError

HOLD = """
import sys, time
from pathlib import Path
from harmony_agent.single_instance import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


def test_the_second_is_told_who_the_first_is_and_goes_on_once_that_was_killed(
    tmp_path: Path,
) -> None:
    state = tmp_path / "not" / "there" / "yet"
    command = [sys.executable, "-c", HOLD, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"as process {first.pid};"), alone(state):
            raise AssertionError("there were two")
        first.kill()
    with alone(state):
        pass


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"), alone(tmp_path / "file"):
        raise AssertionError("there is no directory")
