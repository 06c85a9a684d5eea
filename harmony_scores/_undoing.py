"""What a Score takes back when it goes, whatever became of the units that it is made of.

systemd runs ``ExecStop`` of a unit that is active, and of no other: one that has failed, or that somebody
has stopped, leaves what it did. So a job's ``undo`` takes it back: it is run until it has succeeded.
"""

from __future__ import annotations

import hashlib
import re

from harmony_core import Job

__all__ = ["DOES_NOTHING", "job_name", "undone_by"]

DOES_NOTHING = ("/bin/true",)
"""As what is run, and as what takes back what leaves nothing."""
_NAME_MOST = 63


def undone_by(name: str, command: tuple[str, ...]) -> Job:
    """Return a job that only runs *command*, as root, once nobody wants the Score any more.

    Ensure it before all else of the Score: what was made first is removed last. It must be possible to run
    *command* again, also where there is nothing to undo, and it must fail where anything is left.
    """
    return Job(name=job_name(name), command=DOES_NOTHING, undo=command, privileged=True, retry=True)


def job_name(name: str) -> str:
    """Return a job's name for *name*; two names never become one."""
    plain = re.sub(r"[^a-z0-9-]", "-", name)
    if plain == name and len(name) <= _NAME_MOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{plain[: _NAME_MOST - 13]}-{digest}"
