"""Salt, from PyPI, without a master: its own files, its own work directory, nothing resident.

At its best: one state that copies the directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ._installed import installed
from ._prepared import Prepared, written_source

__all__ = ["prepare"]

_MINION = """
id: benchmark
file_client: local
root_dir: {work}
file_roots:
  base: [{here}]
"""
_STATE = """
{target}:
  file.recurse:
    - source: salt://source
    - file_mode: '0644'
"""


def prepare(root: Path, contents: Mapping[str, bytes]) -> Prepared:
    """Installed if it is not yet, with a state that copies *contents*."""
    program = installed("salt", "salt-call")
    here = root / "salt"
    work, target = here / "work", here / "target"
    written_source(here, contents)
    work.mkdir()
    (here / "minion").write_text(_MINION.format(work=work, here=here))
    (here / "files.sls").write_text(_STATE.format(target=target))
    command = [program, "--local", f"--config-dir={here}", "--log-level=error"]
    command += ["--retcode-passthrough", "state.apply", "files"]
    return Prepared(
        first=command,
        again=command,
        target=target,
        contents=contents,
        environ=dict(os.environ),
        log=here / "log",
    )
