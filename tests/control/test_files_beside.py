"""Content that is in a file beside the Score file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from harmony_control.assets import read_asset
from harmony_control.score_files.beside import INLINE_MOST_BYTES, find_content_fields
from harmony_control.score_files.document import MAX_BYTES
from harmony_control.score_files.read import read_score_files
from harmony_core import plugins
from harmony_core.errors import InvalidScore, ScoreFileError
from harmony_core.resources import ASSET_MAX_BYTES, Asset
from harmony_scores import FileScore, ShellJobScore, WebAppScore

REGISTRY = plugins.load()
BINARY = bytes(range(256))


def read(folder: Path, spec: dict[str, Any], kind: str = "FileScore") -> Any:
    file = folder / "scores.json"
    file.write_text(json.dumps([{"id": "one", "kind": kind, "spec": spec}]))
    return read_score_files([str(file)], REGISTRY)["one"].score


def told(folder: Path, spec: dict[str, Any]) -> str:
    with pytest.raises(ScoreFileError) as caught:
        read(folder, spec)
    return caught.value.message


def test_content_is_read_from_a_file_beside_the_score_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "motd").write_text("grüß dich\n")
    score = read(tmp_path, {"path": "/etc/motd", "content_from": "./conf/motd"})
    assert score == FileScore(path="/etc/motd", content="grüß dich\n")


def test_it_is_found_from_wherever_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "motd").write_text("here")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "motd").write_text("there")
    monkeypatch.chdir(elsewhere)
    assert read(tmp_path, {"path": "/etc/motd", "content_from": "motd"}).content == "here"


def test_what_is_no_text_goes_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "icon").write_bytes(BINARY)
    score = read(tmp_path, {"path": "/srv/icon", "content_base64_from": "icon"})
    assert score == FileScore(path="/srv/icon", content_base64=base64.b64encode(BINARY))


def test_every_kind_says_which_of_its_fields_are_content() -> None:
    assert {*find_content_fields(WebAppScore)} == {"config_from"}
    assert {*find_content_fields(ShellJobScore)} == {"script_from", "unless_from"}
    names = {"content_from", "content_base64_from", "asset_from"}
    assert {*find_content_fields(FileScore)} == names


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"content_from": "gone"}, "gone cannot be read: No such file or directory; is it there?"),
        ({"content_from": "."}, "cannot be read: Is a directory"),
        ({"content_from": ""}, "content_from: write the path of a file, as in ./nginx.conf"),
        ({"content_from": 7}, "content_from: write the path of a file"),
        ({"content_from": "motd", "content": "x"}, "content is given, too; remove one of them"),
        ({"content_from": "icon"}, "is no text in UTF-8; use content_base64_from"),
        ({"content_from": "referring"}, "if it is to go as it is, write asset_from"),
        ({"asset_from": "gone"}, "gone cannot be read: No such file or directory"),
        ({"asset_from": "empty"}, 'empty is empty; write content: ""'),
        ({"asset_from": "pipe"}, "pipe is no file that can be pushed"),
        ({"asset_from": "huge"}, "huge is larger than 64 MiB"),
        ({"asset_from": "motd", "content_from": "large"}, "asset is given, too"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_told_with_the_field_and_its_line(
    tmp_path: Path, spec: dict[str, Any], problem: str
) -> None:
    (tmp_path / "motd").write_text("hello")
    (tmp_path / "icon").write_bytes(BINARY)
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "referring").write_bytes(b"x" * MAX_BYTES + b"${labels.site}")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(ASSET_MAX_BYTES + 1)
    said = told(tmp_path, {"path": "/etc/motd", **spec})
    assert problem in said
    assert "(line 1)" in said


@pytest.mark.parametrize("field", ["content_from", "content_base64_from"])
def test_what_is_too_large_for_a_manifest_is_an_asset(tmp_path: Path, field: str) -> None:
    content = b"x" * INLINE_MOST_BYTES
    (tmp_path / "fits").write_bytes(content)
    (tmp_path / "large").write_bytes(content + b"y")
    assert read(tmp_path, {"path": "/srv/model", field: "fits"}).asset is None
    score = read(tmp_path, {"path": "/srv/model", field: "large"})
    sha256 = hashlib.sha256(content + b"y").hexdigest()
    asset = Asset(sha256=sha256, size_bytes=len(content) + 1, name="large")
    assert score == FileScore(path="/srv/model", asset=asset)
    assert read_asset(tmp_path / "large") == asset
    assert "xxx" not in score.model_dump_json()


def test_a_text_with_references_stays_in_the_manifest(tmp_path: Path) -> None:
    text = "x" * INLINE_MOST_BYTES + "${labels.site}"
    (tmp_path / "text").write_text(text)
    assert read(tmp_path, {"path": "/srv/text", "content_from": "text"}).content == text
    score = read(tmp_path, {"path": "/srv/text", "asset_from": "text"})
    assert score.asset.size_bytes == len(text)


def test_what_is_no_asset_writes_nothing_of_one() -> None:
    spec = FileScore(path="/etc/motd", content="hello").model_dump(mode="json")
    assert "asset" not in spec  # else an earlier agent would refuse it


def test_what_is_no_content_is_in_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidScore, match="mode_from: unknown field; did you mean 'mode'"):
        read(tmp_path, {"path": "/etc/motd", "content": "hello", "mode_from": "mode"})


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    said = told(tmp_path, {"path": "/etc/motd", "content_from": "a", "content_base64_from": "b"})
    assert "content_from: " in said
    assert "content_base64_from: " in said
