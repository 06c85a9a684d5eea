"""docs/wire.md has every code, reason and cause that a device may say, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from harmony_agent.apply import reboots
from harmony_agent.store import conditions
from harmony_agent.store.events import Cause
from harmony_core.errors import (
    EntryRefused,
    HarmonyError,
    LedgerUnusable,
    PermanentError,
    RequestError,
    RequestReplayed,
    TransientError,
)

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()


def section(begin: str, end: str) -> str:
    return PAGE[PAGE.index(begin) : PAGE.index(end, PAGE.index(begin))]


def codes(*bases: type[HarmonyError]) -> set[str]:
    return {each.code for base in bases for each in base.__subclasses__()}


def test_every_code_of_a_failure_is_told_with_whether_it_is_tried_again() -> None:
    told = section("**Codes** of `error`.", "`since` is when")
    rows = re.findall(r"^\| `(\w+)` \| (transient|permanent) \|", told, re.MULTILINE)
    assert len(dict(rows)) == len(rows)
    assert {code for code, which in rows if which == "transient"} == {
        *codes(TransientError),
        LedgerUnusable.code,
    }
    assert {code for code, which in rows if which == "permanent"} == codes(
        PermanentError, EntryRefused
    )


def test_every_code_of_an_answer_is_told() -> None:
    told = section("**Codes** of an answer's", "## 8. Holds")
    rows = re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)
    assert {*rows} - {"code"} == codes(RequestError) - {RequestReplayed.code}


def test_every_reason_of_a_condition_is_told() -> None:
    told = section("**Conditions** are about", "**Size.**")
    rows = re.findall(r"^\| `([A-Z]\w+)` \| (.*?) \|", told, re.MULTILINE)
    found = {(kind, reason) for kind, cell in rows for reason in re.findall(r"`(\w+)`", cell)}
    source = Path(conditions.__file__).read_text()
    said = {
        (kind, reason)
        for kind, rest in re.findall(r'_condition\("(\w+)", (.*)\)', source)
        for reason in re.findall(r'"(\w+)"', rest)
    }
    said |= {("Degraded", reason) for reason in re.findall(r'yield \(?\s*"(\w+)"', source)}
    waits = re.findall(r'_Wait\(\s*"(\w+)"', Path(reboots.__file__).read_text())
    said |= {("RebootRequired", reason) for reason in waits}
    assert len(said) > 15
    assert found == said


def test_every_cause_of_a_change_is_told() -> None:
    told = section("| `why` |", "`generation` is the manifest")
    assert re.findall(r"^\| `(\w+)` \| (?!the change)", told, re.MULTILINE) == [*get_args(Cause)]
