"""Compose files where Score files are named: which they are, which are one project, and what is noted."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harmony_control.compose.read import ComposeSettings
from harmony_control.compose.recognise import looks_like_compose_file
from harmony_control.plan.folder import read_folder
from harmony_control.score_files.read import read_score_files
from harmony_core.errors import ComposeFileError, ScoreFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore, FileScore

from .ground import Ground

REGISTRY = Registry([ComposeScore, FileScore])
WEB = "services:\n  web:\n    image: nginx:1.29\n    restart: always\n"
MOTD = "- id: motd\n  kind: FileScore\n  spec: {path: /etc/motd, content: hello}\n"


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (WEB, True),
        (f"\ufeff{WEB}", True),
        ('"services" :\n  web: {}\n', True),
        ("include:\n  - other.yaml\n", True),
        ("networks: {back: {internal: true}}\n", True),
        ("x-a: &a {}\nx-b: *a\n", True),
        ("{x-a: [services], services: {web: {}}}", True),
        ("# nothing\n---\n---\nservices: {}\n", True),
        ("services:\n  web: [\n", True),
        ('{"services": {"web": {}}}', True),
        (MOTD, False),
        (f"\ufeff{MOTD}", False),
        ("- id: a\n  spec:\n    services: {}\n", False),
        ('[{"id": "a", "spec": {"services": {}}}]', False),
        ("id: a\nkind: ComposeScore\nspec: {services: {}}\n", False),
        ("web: {services: {}, networks: {}}\n", False),
        ("", False),
    ],
)
def test_a_mapping_with_a_section_of_one_is_a_compose_file(text: str, is_one: bool) -> None:
    assert looks_like_compose_file(text.encode()) is is_one


@pytest.mark.parametrize(("text", "known"), [(WEB, "shop"), (MOTD, "motd")])
def test_a_byte_order_mark_says_nothing(tmp_path: Path, text: str, known: str) -> None:
    file = written(tmp_path / "shop/compose.yaml", f"\ufeff{text}")
    assert [*read_score_files([file], REGISTRY)] == [known]


def test_an_override_with_networks_alone_is_merged(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "shop/compose.yaml", f"{WEB}networks: {{default: {{}}}}\n"),
        written(tmp_path / "shop/pi.yaml", "networks: {default: {internal: true}}\n"),
    ]
    score = read_score_files(files, REGISTRY)["shop"].score
    assert isinstance(score, ComposeScore)
    assert score.networks[0].internal


def test_an_override_elsewhere_is_told_where_to_lie(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "compose.yaml", WEB),
        written(tmp_path / "pi/compose.pi.yaml", "services: {web: {hostname: www}}\n"),
    ]
    with pytest.raises(ComposeFileError, match=r"another directory than .*put it beside it"):
        read_score_files(files, REGISTRY)


def test_files_of_two_names_are_not_made_one(tmp_path: Path) -> None:
    files = [
        written(tmp_path / f"{name}.yaml", f"name: {name}\n{WEB}") for name in ("shop", "blog")
    ]
    with pytest.raises(ComposeFileError, match="these say blog, shop; push them one by one"):
        read_score_files(files, REGISTRY)
    same = written(tmp_path / "more.yaml", "name: shop\n")
    assert [*read_score_files([files[0], same], REGISTRY)] == ["shop"]


def test_an_override_that_nobody_has_named_is_noted(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "shop/compose.yaml", WEB),
        written(tmp_path / "shop/compose.override.yml", "services: {web: {hostname: www}}\n"),
    ]
    for named, count in ((files[:1], 1), (files, 0)):
        notes: list[str] = []
        read_score_files(named, REGISTRY, ComposeSettings(tell=notes.append))
        assert len([each for each in notes if "would merge it" in each]) == count


def test_files_of_one_directory_are_one_project_and_stand_beside_score_files(
    tmp_path: Path,
) -> None:
    files = [
        written(tmp_path / "shop/compose.yaml", WEB),
        written(tmp_path / "shop/more.yaml", "services:\n  web:\n    hostname: www\n"),
        written(tmp_path / "blog/compose.yaml", WEB),
        written(tmp_path / "motd.yaml", MOTD),
    ]
    entries = read_score_files(files, REGISTRY)
    assert entries.keys() == {"motd", "shop", "blog"}
    shop = entries["shop"].score
    assert isinstance(shop, ComposeScore)
    assert shop.services["web"].hostname == "www"
    assert shop.services["web"].name == "shop-web-1"


def test_profiles_and_variables_of_the_command_line_count(tmp_path: Path) -> None:
    text = f"{WEB}  debug:\n    image: 'busybox:${{TAG}}'\n    profiles: [debug]\n"
    file = written(tmp_path / "shop/compose.yaml", text)
    variables = written(tmp_path / "pi.env", "TAG=1.37\n")
    notes: list[str] = []
    settings = ComposeSettings(profiles=["debug"], env_files=[variables], tell=notes.append)
    score = read_score_files([file], REGISTRY, settings)["shop"].score
    assert isinstance(score, ComposeScore)
    assert score.services["debug"].image == "docker.io/library/busybox:1.37"
    assert len([each for each in notes if "services.debug: has no restart" in each]) == 1


@pytest.mark.parametrize(
    ("first", "second", "error", "told"),
    [
        (
            "a/compose.yaml",
            "b/compose.yaml",
            ComposeFileError,
            "another project is called one, too",
        ),
        ("a/compose.yaml", "motd.yaml", ScoreFileError, "that of a compose project, too; rename"),
    ],
)
def test_one_id_is_one_thing(
    tmp_path: Path, first: str, second: str, error: type[Exception], told: str
) -> None:
    texts = {"motd.yaml": MOTD.replace("motd", "one", 1)}
    files = [
        written(tmp_path / each, texts.get(each, f"name: one\n{WEB}")) for each in (first, second)
    ]
    with pytest.raises(error, match=told):
        read_score_files(files, REGISTRY)


def test_standard_input_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(buffer=io.BytesIO(WEB.encode()))
    monkeypatch.setattr(sys, "stdin", given)
    with pytest.raises(ComposeFileError, match="name the file"):
        read_score_files(["-"], REGISTRY)


def test_a_fleet_s_folder_may_name_them(tmp_path: Path) -> None:
    written(tmp_path / "shop/compose.yaml", WEB)
    written(tmp_path / "fleet.yaml", "devices:\n  pi-1: {scores: [shop/compose.yaml]}\n")
    folder = read_folder(tmp_path, REGISTRY)
    assert [*folder.device_scores["pi-1"]] == ["shop"]


async def test_the_command_says_what_is_noted_once_and_pushes_the_project(
    plane: Ground, tmp_path: Path
) -> None:
    file = written(tmp_path / "shop/compose.yaml", f"{WEB}    volumes: ['./data:/data']\n")
    said = await plane.harmony(
        *("push-score", "pi-1", file, "--no-wait", "--force", "--no-resolve")
    )
    assert said.status == 0, said
    assert said.err.count("it is the volume shop_data, which stays") == 1
    again = await plane.fleet.device("pi-1").put_again()
    assert again.entries["shop"].kind == "ComposeScore"
    said = await plane.harmony(
        "push-score",
        "pi-1",
        written(tmp_path / "shop/x.yaml", "services:\n  a: {gpus: all, image: b}\n"),
    )
    assert said.status == 2
    assert "shop/x.yaml:2: services.a.gpus" in said.err
