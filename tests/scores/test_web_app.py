"""WebAppScore: configuration, container, port, and whether it serves."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Failure, Noop, Running, Success
from harmony_core.resources import first_problem
from harmony_core.testing import FakePi, Program, interpret_once, interpret_twice
from harmony_scores import WebAppScore

FIELDS: dict[str, Any] = {
    "name": "web",
    "image": "registry.local/web:1",
    "config": "greeting = hello\n",
    "config_path": "/etc/web/web.conf",
    "port": 80,
    "published_port": 8080,
    "command": ("serve",),
}


def web(**fields: object) -> WebAppScore:
    return WebAppScore.model_validate({**FIELDS, **fields})


WEB = web()


def pi_whose_app(program: Program) -> FakePi:
    pi = FakePi()
    pi.containers.programs["serve",] = program
    return pi


async def test_interpreted_twice_it_is_success_then_noop() -> None:
    pi = FakePi()
    first, second = await interpret_twice(WEB, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    assert pi.files.read("/etc/harmony-apps/web/web.conf") == b"greeting = hello\n"


async def test_a_second_pass_touches_neither_file_nor_container() -> None:
    pi = FakePi()
    await interpret_once(WEB, pi.offers)
    file = pi.files.identity("/etc/harmony-apps/web/web.conf")
    container = await pi.containers.identity("web")
    await interpret_once(WEB, pi.offers)
    assert pi.files.identity("/etc/harmony-apps/web/web.conf") == file
    assert await pi.containers.identity("web") == container


async def test_another_configuration_makes_the_container_anew() -> None:
    pi = FakePi()
    await interpret_once(WEB, pi.offers)
    before = await pi.containers.identity("web")
    changed = web(config="greeting = moin\n")
    assert isinstance((await interpret_once(changed, pi.offers)).outcome, Success)
    assert await pi.containers.identity("web") != before


async def test_it_is_running_until_it_answers_and_then_success() -> None:
    pi = pi_whose_app(Program(ready_after_s=30))
    verdict = await interpret_once(WEB, pi.offers)
    assert isinstance(verdict.outcome, Running)
    assert verdict.look_again_s is not None
    await pi.containers.pass_time(31)
    # The container was made by the pass before, so this one changes nothing itself.
    assert (await interpret_once(WEB, pi.offers)).outcome == Noop()


async def test_that_it_does_not_answer_in_time_is_a_failure_with_its_last_words() -> None:
    pi = pi_whose_app(Program(ready_after_s=math.inf, log=("the database is away",)))
    await interpret_once(WEB, pi.offers)
    await pi.containers.pass_time(61)
    outcome = (await interpret_once(WEB, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NotReadyInTime"
    assert "the database is away" in outcome.error.message


async def test_that_it_ends_is_a_failure_with_its_last_words() -> None:
    pi = pi_whose_app(Program(exit_code=3, log=("no such table",)))
    outcome = (await interpret_once(WEB, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "ContainerFailed"
    assert "no such table" in outcome.error.message


async def test_a_dry_run_touches_nothing_and_foresees_success() -> None:
    pi = FakePi()
    verdict = await interpret_once(WEB, pi.offers, apply=False)
    assert isinstance(verdict.outcome, Success)
    assert not pi.files.exists("/etc")
    assert await pi.containers.observe("web") is None


async def test_the_port_inside_is_published_under_its_own_number_unless_said_otherwise() -> None:
    pi = FakePi()
    await pi.containers.hold_port(8081)
    outcome = (await interpret_once(web(port=8081, published_port=None), pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "PortTaken"
    assert "8081" in outcome.error.message


def test_json_there_and_back_is_the_same_score() -> None:
    assert WebAppScore.model_validate(WEB.model_dump(mode="json")) == WEB


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "../etc"}, "name: "),
        ({"name": "."}, "name: "),
        ({"image": "web"}, "image: "),
        ({"config": b"\xff"}, "config: "),
        ({"config": "\ud800"}, "config: "),
        ({"config_path": "web.conf"}, "config_path: "),
        ({"config_path": "/etc/web.conf:rw"}, "config_path: "),
        ({"config_path": "/etc/../web.conf"}, "config_path: "),
        ({"config_path": "/etc/"}, "config_path: "),
        ({"port": 0}, "port: "),
        ({"published_port": 65536}, "published_port: "),
        ({"ready_path": "health"}, "ready_path: "),
        ({"ready_path": "/a b"}, "ready_path: "),
        ({"within_s": 0}, "within_s: "),
        ({"within_s": math.inf}, "within_s: "),
        ({"environment": {"LD_PRELOAD": "x"}}, "environment: "),
        ({"colour": "red"}, "colour: "),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WebAppScore.model_validate({**FIELDS, **fields})
    assert first_problem(caught.value).startswith(field)


def test_an_editor_is_told_what_every_field_is_for() -> None:
    properties = WebAppScore.model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())
