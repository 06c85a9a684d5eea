"""Prometheus, and its own checker, promtool. ``python -m tests.prometheus`` fetches what is missing.

Not by installing Debian's package, which would start a server: the programs are taken out of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

__all__ = ["find_tool", "run_promtool"]

_TOOLS = ("promtool", "prometheus")
_KEPT = Path(__file__).parents[1] / ".venv" / "bin"


def find_tool(name: str) -> str:
    """Return where it is. Where it is missing the test is skipped, but fails in CI."""
    if (found := _find(name)) is not None:
        return found
    why = f"there is no {name} here; python -m tests.prometheus fetches it from Debian's package"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def _find(name: str) -> str | None:
    return shutil.which(name) or (str(_KEPT / name) if (_KEPT / name).exists() else None)


def run_promtool(*arguments: str, cwd: Path | None = None, given: bytes = b"") -> tuple[int, str]:
    """Return its exit code and all that it says; as `find_tool`."""
    done = subprocess.run(
        [find_tool("promtool"), *arguments],
        cwd=cwd,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def _fetch() -> None:
    with tempfile.TemporaryDirectory() as made:
        # apt reads what is downloaded here as a user of its own.
        Path(made).chmod(0o755)
        subprocess.run(["apt-get", "update", "-q"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=made, check=True)
        (package,) = Path(made).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), "taken-out"], cwd=made, check=True)
        _KEPT.mkdir(parents=True, exist_ok=True)
        for name in _TOOLS:
            shutil.copy2(Path(made) / "taken-out" / "usr" / "bin" / name, _KEPT / name)


if __name__ == "__main__":
    if not all(map(_find, _TOOLS)):
        _fetch()
    sys.stdout.write("\n".join(str(_find(name)) for name in _TOOLS) + "\n")
