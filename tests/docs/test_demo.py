"""`make demo` goes as it must: it checks each of its own steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("bed")
def test_the_demo_runs_from_start_to_end_on_two_pis() -> None:
    """It has a bed of its own; that of the tests says that boxes can be had here."""
    command = [sys.executable, "-m", "examples.demo"]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Two Pis boot" in done.stdout
    assert "The secret is changed" in done.stdout
    assert "this is how things stand" in done.stdout
    assert "pi-1, pi-2: Online" in done.stdout
