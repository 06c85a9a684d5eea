"""What is said of jobs."""

from __future__ import annotations

import hashlib

from harmony_core.resources import Job
from harmony_pi_topology.jobs.words import script


def job(text: str) -> Job:
    return Job(name="it", command=("/bin/sh", "-c", text))


def test_a_script_is_told_line_by_line() -> None:
    assert script(job("a\nb\n")) == "+/bin/sh\n+-c\n+a\n+b\n+\n"


def test_one_that_is_too_long_says_so_with_its_size_and_hash() -> None:
    text = "".join(f"echo ä{number}\n" for number in range(1000))
    told = script(job(text))
    whole = f"/bin/sh\n-c\n{text}".encode()
    digest = hashlib.sha256(whole).hexdigest()
    *lines, last = told.splitlines()
    assert last == f"\\ Cut here: {len(whole)} bytes in all, of SHA-256 {digest}"
    assert whole.decode().startswith("\n".join(line.removeprefix("+") for line in lines))
    assert len(lines) > 200
    assert len(told) < 4 * 1024  # what an event keeps
