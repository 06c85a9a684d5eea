"""TreeScore: what it takes, what it makes of it, and with which modes."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Directory, File
from harmony_core.resources import Asset, DirectoryAt
from harmony_core.secret_values import secret_word
from harmony_core.testing import FakePi, interpret_twice
from harmony_core.trees import TreeEntry
from harmony_scores import TreeScore

ASSET = {"sha256": "ab" * 32, "size_bytes": 9, "name": "picture.png"}
FILES: dict[str, Any] = {
    "index.html": {"content": "hello\n"},
    "cgi/run": {"content": "#!/bin/sh\n", "executable": True},
    "icons/icon.png": {"content_base64": base64.b64encode(bytes(range(256)))},
    "cache": {"directory": True},
    "now": {"link": "icons"},
}


def tree(**fields: Any) -> TreeScore:
    return TreeScore.model_validate({"path": "/srv/nginx", "files": FILES, **fields})


def made(score: TreeScore) -> list[Directory | File]:
    return [*score._directories, *score._files]  # pyright: ignore[reportPrivateUsage] - before they are


def modes(score: TreeScore) -> dict[str, str]:
    """By path, of its directories and files, as they will be."""
    return {each.path.removeprefix("/srv/nginx"): f"{each.mode:04o}" for each in made(score)}


async def test_all_of_it_is_made_once() -> None:
    pi = FakePi()
    first, second = await interpret_twice(tree(), pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP"), first
    assert pi.files.read("/srv/nginx/index.html") == b"hello\n"
    assert pi.files.read("/srv/nginx/icons/icon.png") == bytes(range(256))
    assert pi.links.readlink("/srv/nginx/now") == "icons"
    assert pi.directories.mode("/srv/nginx/cache") == 0o755


async def test_a_directory_that_is_there_keeps_its_mode_and_owner_unless_it_is_said() -> None:
    pi = FakePi()
    for path, mode in (("", 0o700), ("/cgi", 0o2770), ("/cache", 0o777)):
        pi.directories.make_directory(f"/srv/nginx{path}")
        pi.directories.chmod(f"/srv/nginx{path}", mode)

    def modes_there() -> list[str]:
        paths = ("", "/cgi", "/cache", "/icons")
        return [f"{pi.directories.mode(f'/srv/nginx{each}'):04o}" for each in paths]

    for score in (tree(), tree(mode="0640", owner="pi", group="pi")):
        first, second = await interpret_twice(score, pi.offers)
        assert (first.status, second.status) == ("SUCCESS", "NOOP"), first
        assert modes_there() == ["0700", "2770", "0777", "0755"]
    first, second = await interpret_twice(tree(directory_mode="0750"), pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP"), first
    assert modes_there() == ["0750"] * 4


async def test_a_directory_that_it_makes_belongs_to_whom_it_says() -> None:
    pi = FakePi()
    await interpret_twice(tree(mode="0640", owner="pi", group="www-data"), pi.offers)
    found = await pi.directories.observe("/srv/nginx/cache")
    assert found == DirectoryAt(mode="0750", owner="pi", group="www-data")


@pytest.mark.parametrize(
    ("fields", "index", "program", "directory"),
    [
        ({}, "0644", "0755", "0755"),
        ({"mode": "0640"}, "0640", "0750", "0750"),
        ({"mode": "0600"}, "0600", "0700", "0700"),
        ({"mode": "0664"}, "0664", "0775", "0775"),
        ({"directory_mode": "2775"}, "0644", "0755", "2775"),
    ],
    ids=str,
)
def test_who_may_read_a_file_may_run_a_program_and_enter_a_directory(
    fields: dict[str, str], index: str, program: str, directory: str
) -> None:
    found = modes(tree(**fields))
    assert (found["/index.html"], found["/cgi/run"]) == (index, program)
    assert {found[each] for each in ("", "/cache", "/cgi", "/icons")} == {directory}


@pytest.mark.parametrize(
    ("fields", "mode"), [({}, "0600"), ({"mode": "0644"}, "0640"), ({"mode": "0600"}, "0600")]
)
def test_what_has_a_secret_is_not_for_all(fields: dict[str, str], mode: str) -> None:
    word = secret_word("site", "db", "0" * 16)
    score = tree(files={"a": {"content": f"password = {word}"}, "b": {"content": ""}}, **fields)
    assert modes(score)["/a"] == mode
    assert modes(score)["/b"] == fields.get("mode", "0644")


def test_all_of_it_belongs_to_whom_it_says() -> None:
    score = tree(owner="www-data", group="33")
    assert {(each.owner, each.group) for each in made(score)} == {("www-data", "33")}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "at least 1"),
        ({"a": {}}, "give exactly one of"),
        ({"a": {"content": "", "link": "b"}}, "give exactly one of"),
        ({"a": {"directory": False}}, "give exactly one of"),
        ({"a": {"link": "b", "executable": True}}, "executable is for a file"),
        ({"a": {"directory": True, "executable": True}}, "executable is for a file"),
        ({"a": {"content": "x", "mode": "0600"}}, "unknown field|Extra inputs"),
        ({"a": {"link": ""}}, "write a path"),
        ({"/etc/passwd": {"content": ""}}, "from the tree's own directory"),
        ({"../x": {"content": ""}}, r"contains '\.\.'"),
        ({"a/./b": {"content": ""}}, r"contains '\.'"),
        ({"a//b": {"content": ""}}, "empty part"),
        ({"a/": {"directory": True}}, "empty part"),
        ({"": {"content": ""}}, "root itself"),
        ({"a\nb": {"content": ""}}, "control character"),
        ({"e\u0301": {"content": ""}}, "normal form C"),
        ({"x" * 256: {"content": ""}}, "longer than 255"),
        ({"a/" * 127 + "b": {"content": ""}}, "deeper than"),
        ({"a": {"content": ""}, "a/b": {"content": ""}}, "a is a file, and a/b lies below it"),
        ({"a": {"link": "b"}, "a/b/c": {"content": ""}}, "a is a link, and a/b/c lies below it"),
    ],
    ids=str,
)
def test_what_can_be_no_tree_is_refused_with_the_reason(files: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        tree(files=files)
    assert re.search(why, str(refused.value))


def test_a_directory_may_be_listed_above_what_is_in_it() -> None:
    files = {"a": {"directory": True}, "a/b": {"content": ""}}
    assert [*modes(tree(files=files))] == ["", "/a", "/a/b"]


def test_what_is_not_set_takes_no_room_in_a_manifest() -> None:
    files = {
        "a": TreeEntry(content=""),
        "b": TreeEntry(asset=Asset.model_validate(ASSET), executable=True),
        "c": TreeEntry(directory=True),
    }
    assert tree(files=files).model_dump(mode="json")["files"] == {
        "a": {"content": ""},
        "b": {"asset": ASSET, "executable": True},
        "c": {"directory": True},
    }
