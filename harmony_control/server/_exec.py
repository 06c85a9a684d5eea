"""Becomes the program given, which then ends when its parent does. Run as a script, by path.

``python _exec.py PARENT_PID PROGRAM ARG…``. In a process of its own rather than between fork and exec,
where Python must not run beside threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _end_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            # It died before we asked to be told.
            os._exit(1)


if __name__ == "__main__":
    _end_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's own program, no shell
