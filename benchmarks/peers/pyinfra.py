"""pyinfra, from PyPI, in an environment of its own in the cache.

At its best for a first run: one operation that copies the directory. To find that all is so already it is
asked file by file, as whoever names a hundred files has to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ._installed import installed
from ._prepared import Prepared, written_source

__all__ = ["prepare"]

_BULK = """
from pyinfra.operations import files
files.sync(src={source!r}, dest={target!r}, mode="644")
"""
_PER_FILE = """
from pathlib import Path
from pyinfra.operations import files
for path in sorted(Path({source!r}).iterdir()):
    files.put(src=str(path), dest={target!r} + "/" + path.name, mode="644")
"""


def prepare(root: Path, contents: Mapping[str, bytes]) -> Prepared:
    """Installed if it is not yet, with two deploys that copy *contents*."""
    program = installed("pyinfra", "pyinfra")
    here = root / "pyinfra"
    source, target = str(written_source(here, contents)), str(here / "target")
    (here / "bulk.py").write_text(_BULK.format(source=source, target=target))
    (here / "per_file.py").write_text(_PER_FILE.format(source=source, target=target))
    return Prepared(
        first=[program, "-y", "@local", str(here / "bulk.py")],
        again=[program, "-y", "@local", str(here / "per_file.py")],
        target=Path(target),
        contents=contents,
        environ=dict(os.environ),
        log=here / "log",
    )
