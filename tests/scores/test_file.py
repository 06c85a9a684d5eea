"""FileScore: what a person writes, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harmony_core import Failure, Noop, Success
from harmony_core.resources import File, SecretRef, first_problem
from harmony_core.testing import FakeFiles, interpret_once, interpret_twice
from harmony_scores import FileScore


async def made_by(score: FileScore) -> tuple[FakeFiles, File]:
    files = Remembering()
    await interpret_once(score, {"FileSystemHost": files})
    return files, files.wishes[0]


class Remembering(FakeFiles):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes: list[File] = []

    async def converge(self, resources: Any, *, apply: bool) -> Any:
        self.wishes += resources
        return await super().converge(resources, apply=apply)


SCORES = [
    FileScore(path="/etc/motd", content="grüß Gott\n"),
    FileScore(path="/etc/motd", content=""),
    FileScore(path="/etc/blob", content_base64=b"AP8="),
    FileScore(path="/etc/wifi", secret="wifi"),
    FileScore(path="/etc/motd", content="x", mode=0o600, owner="pi", group="pi"),
]


@pytest.mark.parametrize("score", SCORES, ids=lambda each: each.path)
async def test_interpreted_twice_it_is_success_then_noop(score: FileScore) -> None:
    files = FakeFiles()
    files.put_secret("wifi", b"hunter2")
    first, second = await interpret_twice(score, {"FileSystemHost": files})
    assert isinstance(first, Success)
    assert second == Noop()


@pytest.mark.parametrize("score", SCORES, ids=lambda each: each.path)
def test_json_there_and_back_is_the_same_score(score: FileScore) -> None:
    assert FileScore.model_validate(score.model_dump(mode="json")) == score
    assert FileScore.model_validate_json(score.model_dump_json()) == score


@given(st.text())
def test_any_text_there_and_back_is_the_same(content: str) -> None:
    score = FileScore(path="/etc/motd", content=content)
    assert FileScore.model_validate(score.model_dump(mode="json")) == score


async def test_text_is_written_as_utf_8() -> None:
    files, _ = await made_by(FileScore(path="/etc/motd", content="grüß"))
    assert files.read("/etc/motd") == b"gr\xc3\xbc\xc3\x9f"


async def test_base64_is_written_as_its_bytes() -> None:
    files, _ = await made_by(FileScore(path="/etc/blob", content_base64=b"AP8="))
    assert files.read("/etc/blob") == b"\x00\xff"


async def test_a_file_is_world_readable_and_a_secret_is_not_unless_said_otherwise() -> None:
    _, text = await made_by(FileScore(path="/etc/motd", content=""))
    _, secret = await made_by(FileScore(path="/etc/wifi", secret="wifi"))
    _, open_secret = await made_by(FileScore(path="/etc/wifi", secret="wifi", mode=0o644))
    assert (text.mode, secret.mode, open_secret.mode) == (0o644, 0o600, 0o644)
    assert secret.content == SecretRef(secret="wifi")


async def test_a_secret_that_is_not_on_the_device_is_a_failure() -> None:
    score = FileScore(path="/etc/wifi", secret="wifi")
    verdict = await interpret_once(score, {"FileSystemHost": FakeFiles()})
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.error.code == "SecretMissing"


@pytest.mark.parametrize(
    ("written", "mode"),
    [("0644", 0o644), ("644", 0o644), ("0o600", 0o600), ("0000", 0), (0o755, 0o755), (0, 0)],
)
def test_a_mode_is_octal_in_quotes_or_a_number(written: Any, mode: int) -> None:
    assert FileScore(path="/etc/motd", content="", mode=written).mode == mode


@pytest.mark.parametrize("mode", range(0o1000))
def test_every_mode_survives_json(mode: int) -> None:
    score = FileScore.model_validate({"path": "/x", "content": "", "mode": f"{mode:04o}"})
    assert score.mode == mode
    assert FileScore.model_validate(score.model_dump(mode="json")) == score


@pytest.mark.parametrize(
    "mode",
    [
        "",
        "rw-r--r--",
        "0888",
        "4755",
        "01777",
        "-644",
        "٠٦٤٤",
        "0644\n",
        True,
        420.0,
        1000,
        -1,
        # What 0400, 0440, 0444 and 0500 without quotes are in YAML:
        400,
        440,
        444,
        500,
    ],
)
def test_a_mode_that_could_mean_something_else_is_refused(mode: object) -> None:
    assert problem(path="/etc/motd", content="", mode=mode).startswith("mode: ")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"path": "motd", "content": ""}, "path: "),
        ({"path": "/etc/../motd", "content": ""}, "path: "),
        ({"path": "/etc/motd\n", "content": ""}, "path: "),
        ({"content": ""}, "path: is missing"),
        ({"path": "/etc/motd"}, "give exactly one of content"),
        ({"path": "/etc/motd", "content": "", "secret": "x"}, "give exactly one of content"),
        ({"path": "/etc/motd", "content": 7}, "content: "),
        ({"path": "/etc/motd", "content": "\ud800"}, "content: "),
        ({"path": "/etc/motd", "content_base64": "*"}, "content_base64: not base64"),
        ({"path": "/etc/motd", "content_base64": "AP8"}, "content_base64: not base64"),
        ({"path": "/etc/motd", "content_base64": "A P8="}, "content_base64: not base64"),
        ({"path": "/etc/motd", "secret": "../shadow"}, "secret: "),
        ({"path": "/etc/motd", "secret": ""}, "secret: "),
        ({"path": "/etc/motd", "content": "", "owner": "root:root"}, "owner: "),
        ({"path": "/etc/motd", "content": "", "owner": "-1"}, "owner: "),
        ({"path": "/etc/motd", "content": "", "group": "a b"}, "group: "),
        ({"path": "/etc/motd", "content": "", "colour": "red"}, "colour: "),
    ],
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, object], field: str) -> None:
    assert problem(**fields).startswith(field)


def test_a_mode_without_its_quotes_is_answered_with_them() -> None:
    assert 'in quotes, as in "0644", not 644' in problem(path="/etc/motd", content="", mode=644)


def test_an_editor_is_told_what_every_field_is_for() -> None:
    schema = FileScore.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    assert schema["required"] == ["path"]


def problem(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        FileScore.model_validate(fields)
    return first_problem(caught.value)
