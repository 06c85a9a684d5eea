"""What Scores have a device run reads the answers of programs: they are to be in one language everywhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import harmony_scores
from harmony_core.unit_text import script

STAT = """#!/bin/sh
[ "${LC_ALL-}" = C ] || { echo "reguläre Datei"; exit; }
exec /usr/bin/stat "$@"
"""
OF_THE_USER_S_OWN = {"shell_job.py"}


def test_a_script_is_answered_in_english_and_gets_its_words(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "stat").chmod(0o755)
    done = subprocess.run(
        script('stat -c %F /dev/null; echo "$1 $2"', "one", "%F $HOME"),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "character special file\none %F $HOME\n"


def test_every_script_of_a_score_is_such_a_one() -> None:
    (directory,) = harmony_scores.__path__
    with_a_shell = {
        path.name for path in Path(directory).glob("*.py") if '"/bin/sh"' in path.read_text()
    }
    assert with_a_shell == OF_THE_USER_S_OWN
