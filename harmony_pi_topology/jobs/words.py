"""What is said of jobs: what is run, how it ended, and what it said itself."""

from __future__ import annotations

import hashlib

from harmony_core.errors import CapabilityError, JobAttemptFailed, JobFailed
from harmony_core.reasons import reasons_in
from harmony_core.resources import Finished, Job, JobState

__all__ = ["failure", "has_answered", "has_succeeded", "how", "script", "tails"]

_SCRIPT_MOST = 3 * 1024
"""In characters: an event keeps 4 KiB."""
_FIRST_EXIT_CODE_OF_SYSTEMD = 200


def failure(job: Job, state: JobState | None) -> CapabilityError:
    """Return the error of a job that ended as *state* says: the reasons that it gives, else how it ended."""
    assert isinstance(state, Finished)
    reasons = reasons_in(state.stderr)
    message = (
        f"job {job.name}: {reasons}" if reasons else f"job {job.name} {how(state)}{tails(state)}"
    )
    return JobAttemptFailed(message) if job.retry else JobFailed(message)


def has_succeeded(end: Finished) -> bool:
    """Return whether the job ended with success."""
    return end.result == "success" and end.exit_code == 0


def has_answered(end: Finished) -> bool:
    """Return whether its program was run, and its exit code is its own."""
    return end.result in {"success", "exit-code"} and end.exit_code < _FIRST_EXIT_CODE_OF_SYSTEMD


def how(end: Finished) -> str:
    """Return the words that follow its name, as in "exited with code 3"."""
    match end.result:
        case "success" | "exit-code" if end.exit_code >= _FIRST_EXIT_CODE_OF_SYSTEMD:
            return f"could not be run (exit code {end.exit_code}: see systemd.exec(5))"
        case "success" | "exit-code":
            return f"exited with code {end.exit_code}"
        case "timeout":
            return "was ended: it took longer than its time limit"
        case word:
            return f"was ended ({word}, {end.exit_code})"


def tails(end: Finished) -> str:
    """Return the end of what it said, to follow that."""
    said = "".join(
        f"; the end of its {name}:\n{text}"
        for name, text in (("output", end.stdout), ("errors", end.stderr))
        if text
    )
    return said or "; it has said nothing"


def script(job: Job) -> str:
    """Return the job's program and arguments for the audit trail, as lines that are new.

    Where they are too long for it, the end says so, with the size and hash of the whole.
    """
    words = "\n".join(job.command)
    lines = "".join(f"+{line}\n" for line in words.split("\n"))
    if len(lines) <= _SCRIPT_MOST:
        return lines
    whole = words.encode()
    cut = lines[:_SCRIPT_MOST].rpartition("\n")[0]
    told = f"{len(whole)} bytes in all, of SHA-256 {hashlib.sha256(whole).hexdigest()}"
    return f"{cut}\n\\ Cut here: {told}\n"
