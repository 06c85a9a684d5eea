"""docs/score-files.md: every kind is shown, in YAML and in Python, and both say the same."""

from __future__ import annotations

from pathlib import Path

from harmony_control.cli.parser import parser
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core.plugins import Registry
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_core.wire.ordering import graph_faults
from harmony_scores import harmony_scores

from .fences import files_in, untested_in

PAGE = Path(__file__).parents[2] / "docs" / "score-files.md"


def read(tmp_path: Path, name: str) -> dict[str, SerializedScore]:
    (tmp_path / name).write_text(files_in(PAGE)[name])
    entries = read_score_files([str(tmp_path / name)], Registry(harmony_scores()))
    return {score_id: serialize(score_id, entry) for score_id, entry in entries.items()}


def test_yaml_and_python_say_the_same_of_every_kind(tmp_path: Path) -> None:
    yaml, python = read(tmp_path, "all.yaml"), read(tmp_path, "all.py")
    assert yaml == python
    assert graph_faults(list(yaml.values())) == {}
    assert {each.kind for each in yaml.values()} == {score.kind for score in harmony_scores()}
    assert untested_in(PAGE) == []


def test_every_field_of_a_policy_is_told() -> None:
    page = PAGE.read_text()
    for name in ScorePolicy.model_fields:
        assert f"`policy.{name}`" in page
    for name in SerializedScore.model_fields.keys() - {"policy", "references", "secrets"}:
        assert f"| `{name}` |" in page
    assert parser().parse_args(["push-score", "pi-1", "a.yaml", "--prune"]).whole
