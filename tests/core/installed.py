"""Packages that are installed, as far as Python can tell."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["Site"]

_numbers = itertools.count()


class Site:
    """A directory of installed packages, made by hand as an installer makes it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch

    def install(
        self,
        name: str,
        code: str,
        *,
        version: str = "1.0",
        called: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> str:
        """Install a module with an entry point; *called* is the name in its metadata, if it is another, and
        *files* are further ones there."""
        module = f"{name}_{next(_numbers)}"
        (self._directory / f"{module}.py").write_text(code)
        info = self._directory / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {called or name}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[harmony]\nscores = {module}\n")
        for file, text in (files or {}).items():
            (info / file).write_text(text)
        self._monkeypatch.setattr(sys, "path", [str(self._directory), *sys.path])
        importlib.invalidate_caches()
        return module
