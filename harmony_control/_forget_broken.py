"""Has pip install anew what is not whole. Run by path, before pip, on a machine that has Python alone.

``python3 _forget_broken.py ENVIRONMENT WHEEL…``. A package is whole if each file that its RECORD names has
the hash that stands there; a package of which a WHEEL is given must be what that would install. Of what is
not whole, the `.dist-info` is deleted: pip then takes it for not installed, and writes all of its files.

pip itself looks only whether a `.dist-info` is there. A power cut, or who ends pip, may leave one without the
rest.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path


def _forget_broken(environment: Path, wheels: list[Path]) -> None:
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    wanted = dict(_read_wheel(wheel) for wheel in wheels)
    for info in sorted(site.glob("*.dist-info")):
        rows = _read_record(info / "RECORD")
        # Until it has finished, pip has written no RECORD, or has the wheel's own, which does not name it.
        is_finished = f"{info.name}/INSTALLER" in dict(rows)
        # What has brought a file is told by RECORD alone: there must stand what would stand there.
        is_same = set(wanted.get(info.name, [])) <= set(rows)
        if not (is_finished and is_same and all(_is_as_recorded(site, *row) for row in rows)):
            sys.stdout.write(f"harmony: installing {info.stem} anew: it was not whole\n")
            shutil.rmtree(info)


def _read_wheel(wheel: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the `.dist-info` of *wheel*, and its files with their hashes."""
    with zipfile.ZipFile(wheel) as content:
        (record,) = (name for name in content.namelist() if name.endswith(".dist-info/RECORD"))
        return record.partition("/")[0], _parse(content.read(record))


def _read_record(path: Path) -> list[tuple[str, str]]:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return []


def _parse(record: bytes) -> list[tuple[str, str]]:
    rows = csv.reader(record.decode(errors="replace").splitlines())
    # What Python compiles, and RECORD itself, have no hash.
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[1]]


def _is_as_recorded(site: Path, name: str, recorded: str) -> bool:
    algorithm, _, wanted = recorded.partition("=")
    try:
        found = hashlib.new(algorithm, (site / name).read_bytes()).digest()
    except (OSError, ValueError):
        return False
    return base64.urlsafe_b64encode(found).decode().rstrip("=") == wanted


if __name__ == "__main__":
    _forget_broken(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
