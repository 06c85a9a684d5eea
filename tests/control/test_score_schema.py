"""The JSON Schema of a Score file: an editor accepts and refuses what `harmony push-score` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import jsonschema_rs
import pytest

from harmony_control.score_files.read import read_score_files
from harmony_control.score_files.schema import score_file_schema
from harmony_core import HasFiles, Inventory, Outcome, Score, plugins
from harmony_core.errors import HarmonyError
from harmony_core.former_spec import FormerSpec
from harmony_core.plugins import Registry

from .ground import harmony

MOTD: dict[str, Any] = {
    "id": "motd",
    "kind": "FileScore",
    "spec": {"path": "/etc/motd", "content": "x"},
}
WEB: dict[str, Any] = {
    "id": "web",
    "kind": "WebAppScore",
    "spec": {
        "name": "web",
        "image": "docker.io/library/nginx:1.29",
        "config": "",
        "config_path": "/etc/nginx.conf",
        "port": 80,
    },
}
WITHOUT_CONFIG = {name: value for name, value in WEB["spec"].items() if name != "config"}


class LampV1(FormerSpec["LampScore"]):
    version = 1
    watts: int

    def upgrade(self) -> LampScore:
        return LampScore(lumen=self.watts * 10)


class LampScore(Score[HasFiles]):
    """A kind whose fields have changed once."""

    version = 2
    formers: ClassVar[tuple[type[FormerSpec[Any]], ...]] = (LampV1,)
    lumen: int

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise NotImplementedError


REGISTRY = Registry([*plugins.load(), LampScore])


def both(tmp_path: Path, document: object) -> tuple[bool, bool]:
    """Whether the schema accepts *document*, and whether the reader of Score files does."""
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(document))
    try:
        read_score_files([str(file)], REGISTRY)
    except HarmonyError:
        reads = False
    else:
        reads = True
    schema = score_file_schema(REGISTRY)
    return jsonschema_rs.validator_for(schema).is_valid(document), reads


@pytest.mark.parametrize(
    "document",
    [
        [MOTD],
        [MOTD, WEB],
        [{**MOTD, "spec": {"path": "/etc/motd", "content_from": "scores.json"}}],
        [{**WEB, "spec": {**WITHOUT_CONFIG, "config_from": "scores.json"}}],
        [{**MOTD, "version": 1, "after": ["web"], "policy": {"drift": "report"}}],
        [{"id": "lamp", "kind": "LampScore", "spec": {"lumen": 400}}],
        [{"id": "lamp", "kind": "LampScore", "version": 1, "spec": {"watts": 40}}],
    ],
    ids=str,
)
def test_what_is_right_is_accepted(document: object, tmp_path: Path) -> None:
    assert both(tmp_path, document) == (True, True)


@pytest.mark.parametrize(
    "document",
    [
        [],
        MOTD,
        [{**MOTD, "id": "Mo td"}],
        [{**MOTD, "kind": "Unheard"}],
        [{**MOTD, "kind": "WebAppScore"}],
        [{**MOTD, "spec": {**MOTD["spec"], "mood": 1}}],
        [{**MOTD, "spec": {"path": "/etc/motd", "content": 7}}],
        [{**MOTD, "policy": {"drift": "foo"}}],
        [{**MOTD, "speck": {}}],
        [{"id": "motd", "kind": "FileScore"}],
        [{**MOTD, "spec": {**MOTD["spec"], "content_from": "scores.json"}}],
        [{**WEB, "spec": WITHOUT_CONFIG}],
        [{"id": "motd"}],
        [{**WEB, "spec": {**WEB["spec"], "port": 80_000}}],
        [{"id": "lamp", "kind": "LampScore", "version": 2, "spec": {"watts": 40}}],
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(document: object, tmp_path: Path) -> None:
    assert both(tmp_path, document) == (False, False)


async def test_the_command_prints_it_for_all_kinds_or_for_one(tmp_path: Path) -> None:
    said = await harmony(tmp_path, "kinds", "--schema")
    schema = json.loads(said.out)
    assert (said.status, schema) == (0, score_file_schema(plugins.load()))
    assert jsonschema_rs.validator_for(schema).is_valid([MOTD, WEB])
    only = json.loads((await harmony(tmp_path, "kinds", "FileScore", "--schema")).out)
    assert jsonschema_rs.validator_for(only).is_valid([MOTD])
    assert not jsonschema_rs.validator_for(only).is_valid([WEB])
