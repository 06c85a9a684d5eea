"""docs/from-ansible.md, from-balena.md, compose.md: what is shown is read, and what is named is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core import plugins
from harmony_core.references import FACTS, find_secrets
from harmony_core.wire.ordering import graph_faults

from .fences import files_in, untested_in

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / name for name in ("from-ansible.md", "from-balena.md")]


def test_the_playbook_is_a_score_file_that_can_be_pushed(tmp_path: Path) -> None:
    for name, content in files_in(PAGES[0]).items():
        (tmp_path / name).write_text(content)
    (tmp_path / "index.html").write_text("<h1>Open</h1>")
    entries = read_score_files([str(tmp_path / "sign.yaml")], plugins.load())
    scores = [serialize(name, entry) for name, entry in entries.items()]
    assert graph_faults(scores) == {}
    assert len({each.kind for each in scores}) > 5
    assert untested_in(PAGES[0]) == []


def test_a_secret_of_a_compose_file_is_a_reference(tmp_path: Path) -> None:
    page = DOCS / "compose.md"
    for name, content in files_in(page).items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    entries = read_score_files([str(tmp_path / "with-a-secret/compose.yaml")], plugins.load())
    score = serialize("with-a-secret", entries["with-a-secret"])
    (file,) = score.spec["files"]
    assert (file["content"], file["mode"]) == ("ada:${secret.ada}\n", "0400")
    assert score.references
    entries = read_score_files([str(tmp_path / "with-secrets/compose.yaml")], plugins.load())
    score = serialize("with-secrets", entries["with-secrets"])
    assert find_secrets(score.spec) == ("db.password", "shop.tls-key")
    assert untested_in(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_kind_command_and_fact_that_is_named_is_there(page: Path) -> None:
    text = " ".join(page.read_text().split())
    kinds = {each.kind for each in plugins.load()}
    assert (named := set(re.findall(r"`(\w+Score)`", text)))
    assert named <= kinds
    assert set(re.findall(r"\$\{inventory\.(\w+)\}", text)) <= set(FACTS)
    for command in re.findall(r"`harmony ([^`]* [^`]*)`", text):
        assert parser().parse_args(shlex.split(command)).module
