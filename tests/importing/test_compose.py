"""``harmony import compose``: the parts that are printed are what a push of the compose file makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_control.assets.local import find_file
from harmony_control.cli import main
from harmony_control.compose.read import ComposeSettings
from harmony_control.compose.sources import INLINE_FILE_MOST_BYTES
from harmony_control.importing.compose import import_compose
from harmony_control.importing.draft import Imported
from harmony_control.importing.written import plain, write_python, write_yaml
from harmony_control.push.entries import AnyEntry, serialize
from harmony_control.score_files.read import read_score_files
from harmony_core import RegistryLogin
from harmony_core.errors import ComposeFileError, NotImportable
from harmony_core.interpretation import interpret
from harmony_core.plugins import Registry
from harmony_core.resources import Resource
from harmony_core.testing import AllowAll, FakePi, inventory, make_stage
from harmony_core.wire.ordering import graph_faults
from harmony_scores import ComposeScore, ContainerScore, FileScore, harmony_scores
from tests.docs.compose_tables import FILES, outcome_of_file

REGISTRY = Registry(harmony_scores())
APPLICATIONS = sorted(FILES.iterdir())
PUSHED = [each for each in APPLICATIONS if not outcome_of_file(each)]
REFUSED = [each for each in APPLICATIONS if outcome_of_file(each)]

SHOP = """\
services:
  web:
    image: nginx:1.29
    restart: always
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
      cache: {condition: service_started}
      tracker: {condition: service_started, required: false}
    volumes: [./conf:/etc/nginx/conf.d, ./a.conf:/a, data:/data, theirs:/theirs]
    configs: [{source: motd, target: /motd}]
  db:
    image: redis:8
    restart: always
    healthcheck: {test: redis-cli ping}
  cache: {image: redis:8, restart: always, container_name: the-cache}
  tracker: {image: redis:8, restart: always, network_mode: host}
  migrate: {image: redis:8}
configs: {motd: {content: "Hello from $${labels.site}"}}
volumes: {data: {}, theirs: {external: true}}
"""


@attrs.define
class Asked(AllowAll):
    """A policy that notes what it is asked for."""

    resources: list[Resource] = attrs.field(factory=list[Resource])

    def refusal(self, resource: Resource) -> str | None:
        self.resources.append(resource)
        return None


async def resources_of(*entries: AnyEntry) -> dict[str, Resource]:
    """Return what *entries* want of a device, each as if nothing kept it waiting."""
    asked = Asked()
    for each in entries:
        score = each.score
        if isinstance(score, ComposeScore):
            alone = {
                name: service.model_copy(update={"depends_on": {}})
                for name, service in score.services.items()
            }
            score = score.model_copy(update={"services": alone})
        await interpret(score, inventory(), make_stage(FakePi().offers, apply=False, policy=asked))
    return {each.id: each for each in asked.resources}


def write(folder: Path, compose: str, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_conf", ".conf")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (folder / "compose.yaml").write_text(compose)
    return str(folder / "compose.yaml")


def shop(folder: Path) -> Imported:
    file = write(folder / "shop", SHOP, conf__site_conf="server", a_conf="1")
    return import_compose([file], REGISTRY, ComposeSettings())


@pytest.mark.parametrize("folder", PUSHED, ids=lambda each: each.name)
async def test_the_scores_plan_to_what_the_compose_file_plans_to(
    tmp_path: Path, folder: Path
) -> None:
    file, told = str(folder / "compose.yaml"), ComposeSettings()
    imported = import_compose([file], REGISTRY, told)
    serialized = [serialize(name, each) for name, each in imported.entries.items()]
    assert graph_faults(serialized) == {}
    whole = await resources_of(*read_score_files([file], REGISTRY, told).values())
    assert whole
    for name, write_as in (("a.yaml", write_yaml), ("a.py", write_python)):
        (tmp_path / name).write_text(write_as(imported.entries))
        again = read_score_files([str(tmp_path / name)], REGISTRY)
        assert [serialize(name, each) for name, each in again.items()] == serialized
        assert await resources_of(*again.values()) == whole


@pytest.mark.parametrize("folder", REFUSED, ids=lambda each: each.name)
def test_what_no_push_takes_is_named_key_by_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "compose", str(folder / "compose.yaml")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for told in outcome_of_file(folder):
        assert told in said.err


def test_parts_wait_for_what_they_name_and_for_whom_they_depend_on(tmp_path: Path) -> None:
    found = {each["id"]: each.get("after") for each in plain(shop(tmp_path).entries)}
    network = "shop-default"
    assert found == {
        **dict.fromkeys((network, "shop-data", "shop-configs-motd")),
        **dict.fromkeys(("shop-files-a-conf", "shop-files-conf-site-conf")),
        "shop-web": [
            *(network, "shop-data", "shop-files-conf-site-conf", "shop-files-a-conf"),
            *("shop-configs-motd", "shop-db", "shop-migrate", "the-cache"),
        ],
        "shop-db": [network],
        "the-cache": [network],
        "shop-tracker": None,
        "shop-migrate": [network],
    }


def test_a_reference_stays_one(tmp_path: Path) -> None:
    imported = shop(tmp_path)
    (tmp_path / "a.yaml").write_text(write_yaml(imported.entries))
    entry = read_score_files([str(tmp_path / "a.yaml")], REGISTRY)["shop-configs-motd"]
    assert serialize("motd", entry).references
    assert serialize("motd", entry).spec["content"] == "Hello from ${labels.site}"


def test_what_after_cannot_say_is_told_once_with_its_place(tmp_path: Path) -> None:
    assert {each.split(".")[-1] for each in shop(tmp_path).notes} == {
        "cache: the one waits until the other is in order, and not only started",
        "tracker: `after` has no required: false, so the one does not wait for the other",
    }


def test_a_login_goes_with_each_container_of_its_registry(tmp_path: Path) -> None:
    text = 'x-harmony-login: {ghcr.io: {username: me, password: "${secret.ghcr}"}}\n'
    services = "services: {own: {image: 'ghcr.io/me/own:1'}, hub: {image: nginx}}\n"
    entries = import_compose(
        [write(tmp_path / "x", text + services)], REGISTRY, ComposeSettings()
    ).entries
    scores = {
        each.score.name: each.score
        for each in entries.values()
        if isinstance(each.score, ContainerScore)
    }
    assert scores["x-own-1"].login == RegistryLogin(username="me", password="${secret.ghcr}")
    assert scores["x-hub-1"].login is None


def test_ids_that_would_be_one_are_told_apart(tmp_path: Path) -> None:
    services = "{a_b: {image: b}, a.b: {image: b}, a-b: {image: b, volumes: ['a-b:/data']}}"
    file = write(tmp_path / "x", f"services: {services}\nvolumes: {{a-b: {{name: x-a-b}}}}\n")
    entries = import_compose([file], REGISTRY, ComposeSettings()).entries
    assert set(entries) == {"x-default", "x-a-b-volume", "x-a-b", "x-a-b-2", "x-a-b-3"}
    names = [each.score.name for each in entries.values() if isinstance(each.score, ContainerScore)]
    assert names == ["x-a_b-1", "x-a.b-1", "x-a-b-1"]


def test_projects_of_several_directories_are_printed_together(tmp_path: Path) -> None:
    service = "services: {{web: {{image: b, restart: always, container_name: {}}}}}\n"
    first = write(tmp_path / "one", service.format("one-web"))
    second = write(tmp_path / "two", service.format("two-web"))
    entries = import_compose([first, second], REGISTRY, ComposeSettings()).entries
    assert set(entries) == {"one-default", "two-default", "one-web", "two-web"}
    write(tmp_path / "two", service.format("one-web"))
    with pytest.raises(NotImportable, match=r"^two: services\.web: the name one-web is used twice"):
        import_compose([first, second], REGISTRY, ComposeSettings())


def test_profiles_and_variables_are_chosen_as_for_a_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = (
        "services:\n  web: {image: 'b:${TAG}', restart: always}\n"
        "  debug: {image: b, restart: always, profiles: [debug]}\n"
    )
    file = write(tmp_path / "x", compose)
    (tmp_path / "my.env").write_text("TAG=7\n")
    chosen = ["--profile", "debug", "--env-file", str(tmp_path / "my.env")]
    assert main(["import", "compose", file, *chosen]) == 0
    said = capsys.readouterr()
    assert "image: docker.io/library/b:7" in said.out
    assert "id: x-debug" in said.out
    assert said.err == ""
    with pytest.raises(ComposeFileError, match="is not there; correct its name"):
        import_compose([str(tmp_path / "nowhere.yaml")], REGISTRY, ComposeSettings())


def test_what_is_no_compose_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("- id: a\n", "", "services: [", "a: 1\n", "\x00"):
        file: Any = tmp_path / "a.yaml"
        file.write_text(content)
        assert main(["import", "compose", str(file)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "a.yaml" in said.err


@pytest.mark.parametrize("language", ["yaml", "py"])
def test_a_large_file_is_named_so_that_another_process_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    path = write(
        tmp_path / "shop", "services: {web: {image: nginx, volumes: ['./page.conf:/p']}}\n"
    )
    page = tmp_path / "shop" / "page.conf"
    page.write_bytes(b"x" * (INLINE_FILE_MOST_BYTES + 1))
    entries = import_compose([path], REGISTRY, ComposeSettings()).entries
    (asset,) = (each.score.asset for each in entries.values() if isinstance(each.score, FileScore))
    assert asset is not None
    text = write_yaml(entries) if language == "yaml" else write_python(entries)
    assert asset.sha256 not in text
    monkeypatch.setattr("harmony_control.assets.local._FILES", {})
    elsewhere = tmp_path / f"scores.{language}"
    elsewhere.write_text(text)
    again = read_score_files([str(elsewhere)], REGISTRY)
    assert {name: serialize(name, each) for name, each in again.items()} == {
        name: serialize(name, each) for name, each in entries.items()
    }
    assert find_file(asset) == page
