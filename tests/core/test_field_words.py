"""What a person reads who has filled in a field wrongly: its name, and what to write instead."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from harmony_core.resources import (
    ContainerName,
    File,
    HealthCheck,
    Probe,
    SecretName,
    UnitName,
    UserName,
    all_problems,
    first_problem,
)
from harmony_core.wire.model_fields import ScoreId


class Form(BaseModel, extra="forbid"):
    id: ScoreId = "a"
    unit: UnitName = "web.service"
    user: UserName = "root"
    container: ContainerName = "web"
    secret: SecretName = "password"


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("id", "Web_1", "use 1 to 63 lower-case letters, digits and inner hyphens"),
        ("unit", "../web.service", "write a unit's name with its type, as in web.service"),
        ("unit", "web", "write a unit's name with its type, as in web.service"),
        ("user", 33, "write a user's or group's name, or its number in quotes"),
        ("container", "a b", "write a name of letters, digits and _.-, as in web-1"),
        ("secret", "../x", "write a file's name of lower-case letters"),
    ],
)
def test_a_name_that_does_not_fit_is_answered_with_one_that_does(
    field: str, value: object, remedy: str
) -> None:
    told = problem({field: value})
    assert told.startswith(f"{field}: {remedy}")
    assert told.endswith(f", not {value!r}")
    assert "pattern" not in told


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    assert problem({"unt": "x"}) == "unt: unknown field; allowed: id, unit, user, container, secret"


class Letter(BaseModel, extra="forbid"):
    to: str
    street: str
    number: int


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({}, "to, street, number: are missing; add them"),
        ({"to": "Ada", "street": "Main"}, "number: is missing; add it"),
        ({"number": "x"}, "to, street: are missing; add them (and 1 more)"),
        ({"to": 3}, 'to: must be text; put it in quotes: "3", not 3 (and 2 more)'),
    ],
)
def test_all_that_is_missing_is_named_at_once(written: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Letter.model_validate(written)
    assert first_problem(caught.value) == told


def test_what_was_given_is_said_once() -> None:
    with pytest.raises(ValidationError) as caught:
        File(path="/srv/../etc", content=b"")
    assert first_problem(caught.value).count("/srv/../etc") == 1


def test_editors_still_know_the_pattern() -> None:
    assert "pattern" in Form.model_json_schema()["properties"]["unit"]


def problem(fields: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate(fields)
    return first_problem(caught.value, Form)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"port": 80}, "ready: add probe, which says of which kind it is"),
        (
            {"probe": "smtp", "port": 80},
            "ready: probe is one of 'http', 'tcp', not 'smtp'",
        ),
        ({"probe": "it's"}, "ready: probe is one of 'http', 'tcp', not 'it's'"),
    ],
)
def test_a_kind_that_is_left_out_or_unknown_is_asked_for(
    written: dict[str, object], told: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Watched.model_validate({"ready": written})
    assert first_problem(caught.value) == told


class Watched(BaseModel):
    ready: Probe


class Checked(BaseModel, extra="forbid"):
    name: str = ""
    check: HealthCheck | Literal["image"] | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> Checked:
        if not self.name:
            raise ValueError("write a name")
        return self


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (
            {"shell": "true", "retries": 0},
            "check.retries: Input should be greater than or equal to 1, not 0",
        ),
        ({"shell": "a", "command": ["b"]}, "check: write either command, as a list, or shell"),
        ("none", "check: write its fields by name"),
    ],
)
def test_what_may_be_either_is_called_by_its_field_alone(check: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Checked.model_validate({"check": check, "name": "a"})
    said = [words for _, words in all_problems(caught.value)]
    assert said[0].startswith(told)
    assert first_problem(caught.value).startswith(told)
    assert not [each for each in said if "HealthCheck]" in each or "literal[" in each]


def test_of_what_has_parts_no_value_is_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        Checked.model_validate({"check": {"shell": "hunter2", "command": ["hunter2"]}, "name": "a"})
    assert "hunter2" not in first_problem(caught.value)
    with pytest.raises(ValidationError) as caught:
        Checked.model_validate({"check": {"shell": "hunter2"}})
    assert first_problem(caught.value) == "write a name"
    with pytest.raises(ValidationError) as caught:
        Checked.model_validate({"name": ["hunter2"]})
    assert first_problem(caught.value) == "name: Input should be a valid string"
