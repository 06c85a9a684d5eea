"""GreetingScore, on a Pi in memory."""

from __future__ import annotations

import pytest
from harmony_greeting import GreetingScore
from pydantic import ValidationError

from harmony_core import Failure, Noop, Success
from harmony_core.errors import WriteFailed
from harmony_core.testing import FakePi, interpret_once, interpret_twice

GREETING = GreetingScore(words="Hello.")


async def test_interpreted_twice_it_is_success_then_noop() -> None:
    pi = FakePi()
    first, second = await interpret_twice(GREETING, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    assert (pi.files.read("/etc/motd") or b"").startswith(b"Hello.\nThis is ")


async def test_a_disk_that_is_full_is_a_failure() -> None:
    pi = FakePi()
    pi.files.faults["/etc/motd"] = WriteFailed("the disk is full")
    outcome = (await interpret_once(GREETING, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "WriteFailed"


def test_no_words_are_refused() -> None:
    with pytest.raises(ValidationError, match="words"):
        GreetingScore(words="")
