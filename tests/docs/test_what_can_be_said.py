"""docs/what-can-be-said.md: 32 wishes, each in one table, and each line of it is read as a push reads it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harmony_control.cli.parser import parser
from harmony_control.compose.read import ComposeSettings
from harmony_control.push.entries import serialize
from harmony_control.score_files.document import yaml_document
from harmony_control.score_files.read import read_score_files
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore, harmony_scores
from tests.archives import Archive, layer_of, write_tar

PAGE = Path(__file__).parents[2] / "docs/what-can-be-said.md"
REGISTRY = Registry(harmony_scores())
IMAGE = "docker.io/library/app:1"


def rows(section: str) -> list[list[str]]:
    """Return the cells of the table below the heading *section*."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code(cell: str) -> str:
    """Return what a cell begins with, in backticks."""
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


def yaml(text: str) -> dict[str, Any]:
    read = yaml_document("the page", text.encode())
    assert isinstance(read, dict)
    return cast("dict[str, Any]", read)


def wishes() -> Iterator[int]:
    for section in ("Of containers", "Of the device", "By a command", "Never", "Not yet"):
        for number, *_ in rows(section):
            if number:
                yield int(number)


def test_there_is_a_line_for_each_wish() -> None:
    assert {*wishes()} == {*range(1, 33)}


def test_every_kind_that_is_named_is_there_and_every_line_says_something() -> None:
    assert {*re.findall(r"\b\w+Score\b", PAGE.read_text())} <= {each.kind for each in REGISTRY}
    for section in ("Never", "Not yet"):
        for _, wanted, instead in rows(section):
            assert wanted
            assert instead


@pytest.mark.parametrize("row", rows("Of containers"), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_line_of_a_compose_file_and_that_of_a_score_make_the_same_container(
    tmp_path: Path, row: list[str]
) -> None:
    _, _, compose, score = row
    (tmp_path / "app.env").write_text("FROM_A_FILE=1\n")
    service = {"image": IMAGE, **yaml(code(compose))}
    project = {"services": {"app": service}, "volumes": {"data": None}, "networks": {"back": None}}
    spec = {"name": "app", "image": IMAGE, **yaml(code(score))}
    for name, content in (
        ("compose.yaml", {"name": "app", **project}),
        ("app.yaml", [{"id": "one", "kind": "ContainerScore", "spec": spec}]),
    ):
        (tmp_path / name).write_text(json.dumps(content))  # which is YAML, too
    files = [str(tmp_path / name) for name in ("compose.yaml", "app.yaml")]
    entries = read_score_files(files, REGISTRY, ComposeSettings())
    whole = entries["app"].score
    assert isinstance(whole, ComposeScore)
    ours = whole.services["app"].model_dump()
    theirs = entries["one"].score.model_dump()
    for field in yaml(code(score)):
        assert ours[field] == theirs[field], field


@pytest.mark.parametrize("row", rows("Of the device"), ids=lambda row: f"{row[0]} {row[1]}")
def test_each_entry_can_be_pushed(tmp_path: Path, row: list[str]) -> None:
    _, _, entry = row
    for name in ("app.conf", "model.bin", "site/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n")
    image = Archive()
    write_tar(tmp_path / "app.tar", image.members(image.add_image(layer_of({"bin/app": b"a\n"}))))
    (tmp_path / "all.yaml").write_text(f"- {{id: one, {code(entry).removeprefix('{')}\n")
    entries = read_score_files([str(tmp_path / "all.yaml")], REGISTRY)
    assert serialize("one", entries["one"]).kind == yaml(code(entry))["kind"]


@pytest.mark.parametrize("row", rows("By a command"), ids=lambda row: row[1])
def test_each_command_is_one(row: list[str]) -> None:
    words = shlex.split(code(row[2]))
    assert words[0] == "harmony"
    assert parser().parse_args(words[1:]).module
