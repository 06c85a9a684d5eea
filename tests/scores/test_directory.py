"""DirectoryScore: its mode, with the bits that only a directory has."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core.resources import Directory, first_problem
from harmony_core.testing import FakeDirectories, interpret_twice
from harmony_scores import DirectoryScore


def problem(mode: object) -> str:
    with pytest.raises(ValidationError) as error:
        DirectoryScore.model_validate({"path": "/srv/x", "mode": mode})
    return first_problem(error.value)


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("0755", 0o755),
        ("750", 0o750),
        ("2775", 0o2775),
        ("1777", 0o1777),
        ("0o3770", 0o3770),
        (0o2775, 0o2775),
        (0o1777, 0o1777),
    ],
)
def test_a_mode_may_have_set_group_id_and_sticky(written: Any, mode: int) -> None:
    score = DirectoryScore(path="/srv/x", mode=written)
    assert score.mode == mode
    assert DirectoryScore.model_validate(score.model_dump(mode="json")) == score


@pytest.mark.parametrize("mode", ["4755", "6775", "7777", 0o4755])
def test_set_user_id_is_refused_by_name(mode: object) -> None:
    assert "set-user-id" in problem(mode)
    with pytest.raises(ValidationError, match="write 0755"):
        Directory(path="/srv/x", mode=0o4755)


@pytest.mark.parametrize("mode", ["", "17777", "rwxrwxrwt", "0888", 2775, 1777, 1775, -1, True])
def test_what_could_mean_something_else_is_refused(mode: object) -> None:
    assert problem(mode).startswith("mode: ")


async def test_it_is_made_with_them_and_left_then() -> None:
    directories = FakeDirectories()
    score = DirectoryScore(path="/srv/x", mode=0o2775)
    first, second = await interpret_twice(score, {"DirectoryHost": directories})
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert directories.mode("/srv/x") == 0o2775


@pytest.mark.parametrize(
    "digits",
    [
        *(
            "400",
            "440",
            "444",
            "500",
            "550",
            "555",
            "600",
            "640",
            "644",
            "700",
            "711",
            "750",
            "755",
        ),
        *("770", "775", "777", "1755", "1770", "1777", "2750", "2755", "2770", "2775", "3775"),
    ],
)
def test_the_digits_of_a_mode_without_quotes_are_no_other_mode(digits: str) -> None:
    assert "in quotes" in problem(int(digits))
    assert DirectoryScore(path="/srv/x", mode=int(digits, 8)).mode == int(digits, 8)
