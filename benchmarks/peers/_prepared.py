"""A peer that is ready to put files into a directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.figures import Unmeasurable
from benchmarks.processes import Ran, run_once

__all__ = ["Peer", "Prepared", "written_source"]


@attrs.frozen(kw_only=True)
class Prepared:
    """Commands that make *target* hold what was asked for."""

    first: Sequence[str]
    """The fastest way to fill an empty directory."""
    again: Sequence[str]
    """To find that all is so already."""
    target: Path
    contents: Mapping[str, bytes]
    environ: Mapping[str, str]
    log: Path

    def run_first(self) -> Ran:
        """Fill the directory, empty before."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()
        ran = self._run(self.first)
        for name, content in self.contents.items():
            if (self.target / name).read_bytes() != content:
                raise Unmeasurable(f"{self.first[0]} did not write {name}")
        return ran

    def run_again(self) -> Ran:
        """Find all as it should be."""
        return self._run(self.again)

    def _run(self, command: Sequence[str]) -> Ran:
        ran = run_once(command, environ=self.environ, output=str(self.log))
        if ran.status != 0:
            said = self.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise Unmeasurable(f"{command[0]} ended with {ran.status} and said: {said[-1]}")
        return ran


@attrs.frozen(kw_only=True)
class Peer:
    """A tool, and how often it is worth the wait."""

    rounds: int
    prepare: Callable[[Path, Mapping[str, bytes]], Prepared]
    """Make it ready below a directory to write these files. `Unmeasurable` where it cannot be had."""


def written_source(directory: Path, contents: Mapping[str, bytes]) -> Path:
    """Return a directory with the files to copy."""
    source = directory / "source"
    source.mkdir(parents=True)
    for name, content in contents.items():
        (source / name).write_bytes(content)
    return source
