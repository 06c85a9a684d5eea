"""BlinkerScore on fakes: what it asks of a device, and that it asks once."""

from __future__ import annotations

import json

import pytest
from harmony_blinker import BlinkerScore
from pydantic import ValidationError

from harmony_core import Noop, Success
from harmony_core.plugins import load
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_core.wire.manifest import SerializedScore

CONFIG = "/etc/harmony-blinker/ACT.json"


async def test_interpreted_twice_it_is_success_then_noop() -> None:
    first, second = await interpret_twice(BlinkerScore(), FakePi().offers)
    assert isinstance(first, Success)
    assert second == Noop()


async def test_the_period_is_in_the_configuration() -> None:
    pi = FakePi()
    await interpret_once(BlinkerScore(period_s=0.5), pi.offers)
    config = pi.files.read(CONFIG)
    assert config is not None
    assert json.loads(config) == {"led": "ACT", "period_s": 0.5}


async def test_another_period_starts_the_program_again() -> None:
    pi = FakePi()
    await interpret_once(BlinkerScore(), pi.offers)
    before = await pi.systemd.identity("harmony-blinker-ACT.service")
    outcome = (await interpret_once(BlinkerScore(period_s=5), pi.offers)).outcome
    assert isinstance(outcome, Success)
    assert await pi.systemd.identity("harmony-blinker-ACT.service") != before


def test_it_needs_two_capabilities() -> None:
    assert BlinkerScore.requires == {"FileSystemHost", "SystemdHost"}


@pytest.mark.parametrize("led", ["", "../brightness", "a b", "%n", "a\nb"])
def test_a_name_that_is_no_led_s_is_refused(led: str) -> None:
    with pytest.raises(ValidationError, match="led"):
        BlinkerScore(led=led)


def test_harmony_finds_it_by_its_entry_point() -> None:
    entry = SerializedScore(id="led", kind="BlinkerScore", version=1, spec={"period_s": 2})
    assert load().decode(entry) == BlinkerScore(period_s=2)
