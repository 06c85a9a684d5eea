"""Plug-ins: each package on its own, so that a broken one costs only itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harmony_core import FormerSpec, HasFiles, Inventory, Outcome, Score
from harmony_core.errors import InvalidScore, UnknownKind, UnsupportedVersion
from harmony_core.plugins import DeferredScore, Registry, load
from harmony_core.plugins.usable import versions_of
from harmony_core.wire.manifest import SerializedScore
from harmony_scores import FileScore, harmony_scores
from tests.core.installed import Site

TREE = Path(__file__).parents[2]
OURS = {score.kind for score in harmony_scores()}

SCORE = """
from harmony_core import HasFiles, Score, impl

class {kind}(Score[HasFiles]):
    colour: str = "red"

    async def interpret(self, inventory, topology):
        raise NotImplementedError

@impl
def harmony_scores():
    return [{kind}]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def reasons(registry: Registry) -> list[str]:
    return [error.reason for error in registry.errors]


def test_ours_come_in_through_the_entry_point_like_anybody_else_s() -> None:
    registry = load()
    assert set(registry.kinds) == OURS
    assert {each.kind for each in registry} == OURS
    assert {each.kind: versions_of(each) for each in registry} == registry.kinds
    assert {"FileScore", "SystemdServiceScore", "ContainerScore", "WebAppScore"} <= OURS
    assert registry.errors == ()


def test_a_stranger_s_kind_is_found_beside_ours(site: Site) -> None:
    site.install("lamps", SCORE.format(kind="LampScore"))
    registry = load()
    assert registry.kinds["LampScore"] == (1,)
    assert set(registry.kinds) > OURS


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no camera')", "RuntimeError: no camera"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def (", "SyntaxError: "),
        ("", "provides no Score"),
        (SCORE.format(kind="X").replace("[X]", "1 / 0"), "ZeroDivisionError: "),
        (SCORE.format(kind="X").replace("[X]", "None"), "provides no Score"),
        (SCORE.format(kind="X").replace("[X]", "['X']"), "not a class derived from Score"),
        (SCORE.format(kind="X").replace("interpret", "other"), "X is abstract"),
        (SCORE.format(kind="X_Y"), "its kind must be a name of letters and digits"),
        (SCORE.format(kind="X").replace("colour:", "version = 0\n    colour:"), "begin at 1"),
        (SCORE.format(kind="X").replace("HasFiles]", "int]"), "offers no capability"),
        (
            SCORE.format(kind="X").replace("def harmony_scores", "def harmony_score"),
            "harmony_score",
        ),
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_broken_package_is_named_and_costs_only_itself(
    site: Site, code: str, reason: str
) -> None:
    module = site.install("broken", code)
    site.install("lamps", SCORE.format(kind="LampScore"))
    registry = load()
    assert set(registry.kinds) == {*OURS, "LampScore"}
    (error,) = registry.errors
    assert error.entry_point == f"scores = {module} (broken 1.0)"
    assert reason in error.reason


FORMER = """
from harmony_core import FormerSpec

class Old(FormerSpec["X"]):
    version = 1

    def upgrade(self):
        raise NotImplementedError
"""


def with_line(line: str, before: str = "") -> str:
    """A package of one Score, X, whose class has *line* in it, and *before* stands before it."""
    return before + SCORE.format(kind="X").replace("    colour:", f"    {line}\n    colour:")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (with_line("kind = 5"), "X: its kind must be a name of letters and digits, not 5"),
        (with_line("kind = None"), "its kind must be a name of letters and digits, not None"),
        (with_line("version = '2'"), "X: its version is '2'; write 1 or a whole number above"),
        (with_line("version = 1.5"), "its version is 1.5; write"),
        (with_line("version = True"), "its version is True; write"),
        (with_line("version = None"), "X has no version; add a line"),
        (with_line("formers = None"), "X: its formers are None; write a tuple of classes derived"),
        (with_line("formers = 1"), "its formers are 1; write"),
        (with_line("formers = (int,)"), "<class 'int'> in formers is not a class derived from"),
        (
            with_line("version = 2\n    formers = (Old,)", FORMER.replace("version = 1", "x: int")),
            "X: Old has no version; add a line such as version = 1",
        ),
        (
            with_line("version = 2\n    formers = (Old,)", FORMER.replace("= 1", "= '1'")),
            "X: Old: its version is '1'; write another whole number below 2",
        ),
        (
            with_line("version = 2\n    formers = (Old,)", FORMER.replace("upgrade", "others")),
            "Old is abstract; it needs an upgrade",
        ),
        (with_line("model_config = {'extra': 'ignore'}"), "X: X ignores a field that it does not"),
        (with_line("formers = (Old,)", FORMER), "formers have the versions [1]; each must be"),
    ],
    ids=lambda each: str(each)[-60:],
)
def test_a_class_with_a_wrong_word_about_itself_costs_itself_alone(
    site: Site, code: str, reason: str
) -> None:
    lamp = SCORE.format(kind="LampScore").replace("[LampScore]", "[X, LampScore]")
    site.install("mixed", code.partition("@impl")[0] + lamp)
    registry = load()
    assert set(registry.kinds) == {*OURS, "LampScore"}
    (error,) = registry.errors
    assert reason in error.reason


ROUTE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, TypedDict
from pydantic import BaseModel, ConfigDict, Field
from harmony_core import Spec

class Tls({base}):
    {config}
    name: str = ""

class Route(Spec):
    tls: Annotated[Tls | None, Field()] = None
"""


@pytest.mark.parametrize(
    ("base", "config", "what"),
    [
        ("BaseModel", "", "ignores a field that it does not know"),
        ("BaseModel", "model_config = ConfigDict(extra='allow')", "ignores a field that it"),
        ("BaseModel", "model_config = ConfigDict(extra='forbid')", "can be changed after it was"),
        ("Spec", "model_config = ConfigDict(extra='ignore')", "ignores a field that it does not"),
        ("", "a: int = 1", ""),
        ("TypedDict", "", "is no pydantic model, so a field that it does not know is ignored"),
    ],
)
def test_a_part_of_a_score_that_lets_a_misspelt_field_pass_is_refused_by_name(
    site: Site, base: str, config: str, what: str
) -> None:
    before = ROUTE.format(base=base, config=config)
    if not base:
        before = before.replace("class Tls", "@dataclass(frozen=True)\nclass Tls")
        what = "is no pydantic model"
    elif base == "TypedDict":
        before = before.replace('name: str = ""', "name: str")
    site.install("proxy", with_line("routes: tuple[Route, ...] = ()", before))
    registry = load()
    assert set(registry.kinds) == OURS
    (error,) = registry.errors
    assert f"X.routes.tls: Tls {what}" in error.reason
    assert "derive it from harmony_core.Spec" in error.reason


def test_a_part_that_is_a_spec_refuses_a_misspelt_field(site: Site) -> None:
    site.install(
        "proxy",
        with_line("routes: dict[str, list[Route]] = {}", ROUTE.format(base="Spec", config="")),
    )
    registry = load()
    assert registry.errors == ()
    spec = {"routes": {"a": [{"tls": {"nam": "x"}}]}}
    with pytest.raises(InvalidScore, match=r"routes.a.0.tls.nam: unknown field; remove it"):
        registry.decode(SerializedScore(id="x", kind="X", version=1, spec=spec))


def test_one_bad_class_does_not_cost_its_package_the_others(site: Site) -> None:
    site.install("mixed", SCORE.format(kind="LampScore").replace("[LampScore]", "[LampScore, 42]"))
    registry = load()
    assert "LampScore" in registry.kinds
    assert len(registry.errors) == 1


def test_of_two_packages_that_claim_one_kind_the_first_keeps_it_and_the_second_is_listed(
    site: Site,
) -> None:
    first = site.install("aaa", SCORE.format(kind="LampScore"))
    second = site.install("bbb", SCORE.format(kind="LampScore"))
    registry = load()
    assert registry.find("LampScore").__module__ == first
    (error,) = registry.errors
    assert error.entry_point.startswith(f"scores = {second}")
    assert f"already provided by scores = {first} (aaa 1.0)" in error.reason


def test_nobody_takes_the_place_of_one_of_ours(site: Site) -> None:
    site.install("aaa", SCORE.format(kind="FileScore"))
    registry = load()
    assert registry.find("FileScore") is FileScore
    assert len(registry.errors) == 1


@pytest.mark.parametrize("called", ["harmony", "Harmony", "HARMONY"])
@pytest.mark.parametrize("directory", ["aaa", "harmony", "zzz"])
def test_nobody_is_harmony_by_calling_itself_so(site: Site, called: str, directory: str) -> None:
    code = "print('it was imported'); " + SCORE.format(kind="FileScore").lstrip()
    module = site.install(directory, code, called=called)
    registry = load()
    assert registry.find("FileScore") is FileScore
    assert set(registry.kinds) == OURS
    (error,) = registry.errors
    assert error.entry_point == f"scores = {module} ({called} 1.0)"
    assert f"calls itself {called}, and Harmony itself was loaded from" in error.reason
    assert "uninstall that package" in error.reason
    assert module not in sys.modules


def test_a_list_of_files_that_names_another_file_makes_nobody_harmony(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "harmony_core").mkdir()
    # Not what is loaded: that was loaded before.
    (tmp_path / "harmony_core" / "__init__.py").write_text("")
    files = {"RECORD": "harmony_core/__init__.py,,\n"}
    site.install("harmony", SCORE.format(kind="FileScore"), files=files)
    registry = load()
    assert registry.find("FileScore") is FileScore
    assert len(registry.errors) == 1


@pytest.mark.parametrize("called", ["har-mony", "harmony-too", "harmony.core"])
def test_a_name_that_is_only_like_harmony_s_is_anybody_s(site: Site, called: str) -> None:
    site.install("like", SCORE.format(kind="LampScore"), called=called)
    registry = load()
    assert "LampScore" in registry.kinds
    assert registry.errors == ()


def test_what_is_left_of_an_update_is_told_with_what_to_do(site: Site) -> None:
    here = {"url": TREE.as_uri(), "dir_info": {"editable": True}}
    of_ours = "[harmony]\nscores = harmony_scores\n"
    files = {"direct_url.json": json.dumps(here), "entry_points.txt": of_ours}
    site.install("harmony", "", version="0.0.9", files=files)
    registry = load()
    assert set(registry.kinds) == OURS
    (error,) = registry.errors
    assert error.entry_point.startswith("scores = harmony_scores (harmony ")
    assert "Harmony is installed twice" in error.reason
    assert "0.0.9" in error.reason
    assert "delete the .dist-info directory of the one that was replaced" in error.reason


class Lamp(Score[HasFiles]):
    watts: int
    version = 2

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise NotImplementedError

    def model_post_init(self, context: object, /) -> None:
        if self.watts == 13:
            raise RuntimeError("unlucky")


def lamp(**spec: object) -> SerializedScore:
    return SerializedScore(id="lamp", kind="Lamp", version=2, spec=spec)


def test_an_entry_is_decoded_by_its_kind() -> None:
    assert Registry([Lamp]).decode(lamp(watts=40)) == Lamp(watts=40)


def test_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownKind, match=r"'Lamp' \(known: FileScore\); install"):
        Registry([FileScore]).decode(lamp(watts=40))


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_refused_with_the_one_that_is_known(version: int) -> None:
    entry = lamp(watts=40).model_copy(update={"version": version})
    with pytest.raises(UnsupportedVersion, match=f"version {version} is not known here, only 2"):
        Registry([Lamp]).decode(entry)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, "Lamp: watts: is missing; add it"),
        ({"watts": "many"}, "Lamp: watts: must be a whole number, not 'many'"),
        ({"watts": 1, "colour": "red"}, "Lamp: colour: unknown field; allowed: watts"),
        ({"watts": 13}, "Lamp: RuntimeError: unlucky"),
        ({"wats": 1}, "Lamp: wats: unknown field; allowed: watts (and 1 more)"),
    ],
)
def test_what_is_wrong_inside_is_named_by_its_field(spec: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidScore) as caught:
        Registry([Lamp]).decode(lamp(**spec))
    assert caught.value.message.startswith(problem)


class BulbV1(FormerSpec["BulbV2"]):
    version = 1
    watts: int

    def upgrade(self) -> BulbV2:
        return BulbV2(lumens=self.watts * 80)


class BulbV2(FormerSpec["Bulb"]):
    version = 2
    lumens: int

    def upgrade(self) -> Bulb:
        return Bulb(lumens=self.lumens, colour="white")


class Bulb(Score[HasFiles]):
    version = 3
    formers = (BulbV1, BulbV2)
    lumens: int
    colour: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise NotImplementedError


def bulb(version: int, **spec: object) -> SerializedScore:
    return SerializedScore(id="bulb", kind="Bulb", version=version, spec=spec)


def test_what_was_signed_as_an_earlier_version_is_upgraded_step_by_step() -> None:
    registry = Registry([Bulb])
    assert registry.decode(bulb(1, watts=10)) == Bulb(lumens=800, colour="white")
    assert registry.decode(bulb(2, lumens=5)) == Bulb(lumens=5, colour="white")
    assert registry.decode(bulb(3, lumens=5, colour="red")) == Bulb(lumens=5, colour="red")
    assert registry.kinds == {"Bulb": (1, 2, 3)}


def test_a_version_that_is_not_listed_is_refused_with_all_that_are() -> None:
    with pytest.raises(UnsupportedVersion, match="version 4 is not known here, only 1 and 2 and 3"):
        Registry([Bulb]).decode(bulb(4))


def test_what_is_wrong_in_an_earlier_version_is_named_by_its_field_there() -> None:
    with pytest.raises(InvalidScore, match="Bulb: lumens: unknown field; allowed: watts"):
        Registry([Bulb]).decode(bulb(1, watts=10, lumens=5))


def test_an_upgrade_that_ends_elsewhere_is_the_package_s_fault_and_said_so() -> None:
    class Strays(FormerSpec[Lamp]):
        version = 1

        def upgrade(self) -> Lamp:
            return Lamp(watts=1)

    class Torch(Score[HasFiles]):
        version = 2
        formers = (Strays,)

        async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
            raise NotImplementedError

    with pytest.raises(InvalidScore, match="Torch version 1 is upgraded to a Lamp"):
        Registry([Torch]).decode(SerializedScore(id="torch", kind="Torch", version=1, spec={}))


def test_a_kind_is_imported_once_a_score_of_it_is_read() -> None:
    program = (
        "import sys; from harmony_core.plugins import load; registry = load();"
        "print(len(registry.kinds), [each for each in sys.modules if each.startswith('harmony_scores.')]);"
        "registry.find('LinkScore'); print('harmony_scores.link' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [f"{len(OURS)} []", "True"]


@pytest.mark.parametrize(
    ("deferred", "problem"),
    [
        (DeferredScore(kind="FileScore", module="harmony_scores.none"), "ModuleNotFoundError: No"),
        (DeferredScore(kind="FielScore", module="harmony_scores.file"), "AttributeError: module"),
        (DeferredScore(kind="annotations", module="harmony_scores.file"), "not a class derived"),
        (
            DeferredScore(kind="FileScore", module="harmony_scores.file", versions=(1, 2)),
            r"it is FileScore of the versions \(1,\)",
        ),
    ],
)
def test_a_deferred_kind_that_is_not_what_was_said_is_refused_and_costs_itself_alone(
    deferred: DeferredScore, problem: str
) -> None:
    registry = Registry([deferred, Lamp])
    assert registry.kinds[deferred.kind] == deferred.versions
    with pytest.raises(UnknownKind, match=f"cannot be loaded from harmony_scores.*{problem}"):
        registry.decode(SerializedScore(id="x", kind=deferred.kind, version=1, spec={}))
    assert registry.find(Lamp.kind) is Lamp


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "no kind"}, {"kind": 5}, {"module": None}, {"versions": 1}, {"versions": ("1",)}],
)
def test_what_is_deferred_has_a_kind_a_module_and_versions(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"kind": "FileScore", "module": "harmony_scores.file", **wrong}
    with pytest.raises((TypeError, ValueError)):
        DeferredScore(**fields)
