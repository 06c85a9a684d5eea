"""Prometheus' own checker, ``promtool``. ``python -m tests.promtool`` fetches it where it is missing.

Not by installing Debian's package, which would start a server: the program is taken out of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

__all__ = ["find_promtool", "run_promtool"]

_KEPT = Path(__file__).parents[1] / ".venv" / "bin" / "promtool"


def find_promtool() -> str | None:
    """Return where it is; None where it is not."""
    return shutil.which("promtool") or (str(_KEPT) if _KEPT.exists() else None)


def run_promtool(*arguments: str, cwd: Path | None = None, given: bytes = b"") -> tuple[int, str]:
    """Return its exit code and all that it says. Where it is missing the test is skipped, but fails in CI."""
    found = find_promtool()
    if found is None:
        why = "there is no promtool here; python -m tests.promtool fetches it from Debian's package"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run(
        [found, *arguments],
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
        _KEPT.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(made) / "taken-out" / "usr" / "bin" / "promtool", _KEPT)


if __name__ == "__main__":
    if find_promtool() is None:
        _fetch()
    sys.stdout.write(f"{find_promtool()}\n")
