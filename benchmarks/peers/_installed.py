"""A peer from PyPI, in an environment of its own in the cache."""

from __future__ import annotations

import subprocess
import venv

from benchmarks.cache import cache
from benchmarks.figures import Unmeasurable

__all__ = ["installed"]


def installed(package: str, program: str) -> str:
    """Return the path of *program*, and install it first if needed. Raise `Unmeasurable` where that fails."""
    directory = cache() / package
    path = directory / "bin" / program
    whole = directory / "whole"
    if not whole.exists():
        try:
            venv.create(directory, with_pip=True, clear=True)
            python = str(directory / "bin" / "python")
            command = [python, "-m", "pip", "install", "--quiet", package]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            whole.touch()
        except subprocess.CalledProcessError as error:
            said = str(error.stderr).strip().splitlines() or ["nothing"]
            raise Unmeasurable(f"{package} is not to be had here: {said[-1]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unmeasurable(f"{package} is not to be had here: {error}") from error
    return str(path)
