"""Fixtures for the tests of power cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.powercuts.ground import Ground
from tests.topology.tracing import need_strace


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """One with nothing in it."""
    need_strace()
    for name in ("root", "copies"):
        (tmp_path / name).mkdir()
    return Ground(tmp_path / "root", tmp_path / "said", tmp_path / "log", tmp_path / "copies")
