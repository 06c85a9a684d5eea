"""Packages that are installed, as far as Python can tell."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest

__all__ = ["Site"]

_numbers = itertools.count()


class Site:
    """A directory of installed packages, made by hand as an installer makes it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch

    def install(self, name: str, code: str, *, version: str = "1.0") -> str:
        module = f"{name}_{next(_numbers)}"
        (self._directory / f"{module}.py").write_text(code)
        info = self._directory / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[harmony]\nscores = {module}\n")
        self._monkeypatch.setattr(sys, "path", [str(self._directory), *sys.path])
        importlib.invalidate_caches()
        return module
