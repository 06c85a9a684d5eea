"""Writes, beside the wheel that was built, the locks to install it from. ``python -m deploy.locks dist``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from harmony_control.package import lock_with_wheel

_REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def _write_locks(directory: Path) -> None:
    (wheel,) = directory.glob("harmony-*.whl")
    for name in ("agent.lock", "control.lock", "serve.lock", "pkcs11.lock"):
        lock = (_REQUIREMENTS / name).read_bytes()
        (directory / name).write_bytes(lock_with_wheel(wheel.name, wheel.read_bytes(), lock))
    shutil.copyfile(_REQUIREMENTS / "build.lock", directory / "build.lock")


if __name__ == "__main__":
    _write_locks(Path(sys.argv[1]))
