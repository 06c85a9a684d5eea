"""Directories beside a Score file: what is in them is listed, or all that cannot be is told by name."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harmony_control.assets import read_asset, read_tree, tree
from harmony_control.assets.tree import EXCLUDED, TREE_ENTRIES_MOST, TREE_INLINE_MOST_BYTES
from harmony_control.push.entries import Entry, serialize
from harmony_control.score_files.beside import NamedTree, find_content_fields
from harmony_control.score_files.read import read_score_files
from harmony_control.score_files.schema import score_file_schema
from harmony_core.errors import ScoreFileError
from harmony_core.plugins import Registry
from harmony_core.resources import Asset
from harmony_core.trees import TreeEntry
from harmony_core.wire import strict_json
from harmony_core.wire.assets import map_assets
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES
from harmony_scores import TreeScore

REGISTRY = Registry([TreeScore])
BINARY = bytes(range(256))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory of a few things."""
    top = tmp_path / "nginx"
    (top / "conf.d").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "nginx.conf").write_text("include conf.d/*.conf;\n")
    (top / "conf.d" / "site.conf").write_text("listen 80;\n")
    (top / "icon.png").write_bytes(BINARY)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o700)
    (top / "nothing").touch()
    (top / "now").symlink_to("conf.d/site.conf")
    (top / "conf.d" / "up").symlink_to("../empty")
    return top


LISTED = {
    "conf.d/site.conf": TreeEntry(content="listen 80;\n"),
    "conf.d/up": TreeEntry(link="../empty"),
    "empty": TreeEntry(directory=True),
    "icon.png": TreeEntry(content_base64=base64.b64encode(BINARY)),
    "nginx.conf": TreeEntry(content="include conf.d/*.conf;\n"),
    "nothing": TreeEntry(content=""),
    "now": TreeEntry(link="conf.d/site.conf"),
    "run": TreeEntry(content="#!/bin/sh\n", executable=True),
}


def read(folder: Path, files_from: object) -> TreeScore:
    file = folder / "scores.yaml"
    spec = json.dumps({"path": "/srv/nginx", "files_from": files_from})
    file.write_text(f"- id: one\n  kind: TreeScore\n  spec: {spec}\n")
    score = read_score_files([str(file)], REGISTRY)["one"].score
    assert isinstance(score, TreeScore)
    return score


def told(act: Callable[[], object]) -> str:
    with pytest.raises(ScoreFileError) as caught:
        act()
    return caught.value.message


def test_all_that_is_in_it_is_listed_by_its_name(top: Path) -> None:
    assert read_tree(top) == LISTED
    assert read(top.parent, "./nginx") == TreeScore(path="/srv/nginx", files=LISTED)
    assert read(top.parent, {"path": "nginx"}).files == LISTED


def test_it_is_listed_alike_whatever_the_order_on_the_disk(top: Path, tmp_path: Path) -> None:
    listed = [*read_tree(top)]
    assert listed == sorted(listed)
    for name in ("nothing", "icon.png"):
        content = (top / name).read_bytes()
        (top / name).unlink()
        (top / name).write_bytes(content)
    assert [*read_tree(top)] == listed


@pytest.mark.parametrize(
    ("left", "exclude"),
    [
        (".git/config", ()),
        ("conf.d/.git", ()),
        ("conf.d/.site.conf.swp", ()),
        ("nginx.conf~", ()),
        (".#nginx.conf", ()),
        ("#nginx.conf#", ()),
        ("a/__pycache__/b.pyc", ()),
        ("a/b.bak", ("*.bak",)),
        ("node_modules/a/b", ("node_modules",)),
        ("node_modules/a/b", ("node_modules/",)),
        ("conf.d/old/a", ("conf.d/old",)),
        ("conf.d/old/a", ("/conf.d/old/",)),
        ("old.conf", ("/old.*",)),
        ("key", ("./key",)),
        ("conf.d/key", ("./conf.d/key",)),
        (".ssh/key", (".ssh/key",)),
        ("conf.d/old/a", ("./conf.d/old/",)),
        ("a/b.bak", ("*.bak", "*.pem", ".git")),
    ],
    ids=str,
)
def test_what_is_excluded_is_left_out(top: Path, left: str, exclude: tuple[str, ...]) -> None:
    (top / left).parent.mkdir(parents=True, exist_ok=True)
    (top / left).write_text("x")
    kept = read_tree(top, exclude)
    assert LISTED.items() <= kept.items()
    gone = (left, left.removesuffix("/a"), left.removesuffix("/a/b"))
    assert not kept.keys() & {each for each in gone if each != "conf.d"}


def test_a_pattern_with_a_slash_is_of_the_path_alone(top: Path) -> None:
    (top / "conf.d" / "old.conf").write_text("x")
    (top / "old.conf").write_text("x")
    assert "conf.d/old.conf" in read_tree(top, ["/old.conf"])
    assert {"old.conf", "conf.d/old.conf"} & read_tree(top, ["old.conf"]).keys() == set()


@pytest.mark.parametrize(
    "pattern",
    [
        *("kye", "nginx/key", "../nginx/key", "conf/key", "/conf.d/ssl", "././key", "Key", "key/x"),
        *("conf.d/*.pem", "./*.pem", "/", ".", "./"),
    ],
)
def test_what_is_to_be_left_out_and_is_not_there_is_told(top: Path, pattern: str) -> None:
    (top / "key").write_text("secret")
    said = told(lambda: read(top.parent, {"path": "nginx", "exclude": ["key", pattern]}))
    assert f"exclude: {pattern} is nothing in " in said


def test_a_path_from_the_directory_on_is_of_what_lies_there_alone(top: Path) -> None:
    for path in ("key", "conf.d/key"):
        (top / path).write_text("secret")
    assert [each for each in read_tree(top, ["./key"]) if each.endswith("key")] == ["conf.d/key"]


def _no_utf_8(top: Path) -> None:
    Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9")).write_text("x")


def _socket(top: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(top)
        try:
            listening.bind("web.sock")
        finally:
            os.chdir(here)


def _huge(top: Path) -> None:
    for name in ("film.mp4", "song.mp3"):
        with (top / name).open("wb") as file:
            file.truncate(40 * 1024**2)


def _many(top: Path) -> None:
    for number in range(TREE_ENTRIES_MOST):
        (top / f"n{number}").touch()


def all_of(*acts: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda top: [act(top) for act in acts]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda top: os.mkfifo(top / "pipe"), "nginx/pipe is no file, directory or link"),
    "socket": (_socket, "nginx/web.sock is no file"),
    "device": (lambda top: os.mknod(top / "zero", 0o20600, 0x105), "nginx/zero is no file"),
    "link to a path": (
        lambda top: (top / "away").symlink_to("/etc/hosts"),
        "nginx/away leads to /etc/hosts, which is not in the tree",
    ),
    "absolute link into it": (
        lambda top: (top / "away").symlink_to(top / "run"),
        "which is not in the tree",
    ),
    "link that climbs out": (
        lambda top: (top / "conf.d" / "away").symlink_to("../../nginx/run"),
        "nginx/conf.d/away leads to ../../nginx/run, which is not in the tree",
    ),
    "link by way of a link": (
        all_of(
            lambda top: (top / "d").symlink_to("conf.d"),
            lambda top: (top / "x").symlink_to("d/../../outside"),
        ),
        "nginx/x leads to d/../../outside",
    ),
    "link that leads nowhere": (lambda top: (top / "away").symlink_to("gone"), "nginx/away leads"),
    "link to itself": (lambda top: (top / "round").symlink_to("round"), "nginx/round leads"),
    "link to what is excluded": (
        all_of(lambda top: (top / "a~").touch(), lambda top: (top / "b").symlink_to("a~")),
        "nginx/b leads to a~, which is not in the tree",
    ),
    "link of a strange target": (
        all_of(
            lambda top: (top / "a\x07~").mkdir(),
            lambda top: (top / "x").symlink_to("a\x07~/../run"),
        ),
        "nginx/x: link: write a path",
    ),
    "no UTF-8": (_no_utf_8, "nginx/caf\\udce9: its name is not UTF-8; rename it"),
    "line end": (lambda top: (top / "a\nb").touch(), "a\\nb: contains a control character"),
    "direction": (lambda top: (top / "a\u202eb").touch(), "invisible or direction-changing"),
    "not normal": (lambda top: (top / "e\u0301").touch(), "not in Unicode normal form C"),
    "of a directory": (
        all_of(lambda top: (top / "a\tb").mkdir(), lambda top: (top / "a\tb/c").touch()),
        "a\\tb: contains a control character",
    ),
    "huge": (_huge, "nginx is more than 64 MiB, most of it "),
    "many": (_many, "nginx has more than 500 files, directories and links in it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_pushed_is_told_by_its_name_and_may_be_excluded(
    top: Path, fault: str
) -> None:
    act, problem = FAULTS[fault]
    there = {each.name for each in top.iterdir()}
    act(top)
    said = told(lambda: read(top.parent, "./nginx"))
    assert problem in said
    assert "(line 3)" in said
    assert "entry 1 (one): files_from: " in said
    named = {each.name for each in top.iterdir()} - there
    if fault != "link that climbs out":
        assert read_tree(top, [os.fsdecode(each).replace("[", "[[]") for each in named]) == LISTED


def test_all_faults_are_told_at_once(top: Path) -> None:
    for number in range(12):
        os.mkfifo(top / f"pipe{number:02}")
    said = told(lambda: read_tree(top))
    assert "pipe00" in said
    assert "pipe09" in said
    assert "; and 2 more" in said


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        (
            "./gone",
            "gone cannot be read: No such file or directory; name a directory that is there",
        ),
        ("./nginx/run", "run cannot be read: Not a directory"),
        ("./nginx/empty", "empty has nothing in it that is pushed"),
        ("", "write the path of a directory"),
        (7, "write the path of a directory"),
        (["nginx"], "write the path of a directory"),
        ({"exclude": ["a"]}, "path: is missing"),
        ({"path": "nginx", "exclude": "*.bak"}, "exclude: "),
        ({"path": "nginx", "exclude": [""]}, "exclude.0: "),
        ({"path": "nginx", "excludes": ["a"]}, "excludes: unknown field"),
    ],
    ids=str,
)
def test_what_names_no_directory_is_told(top: Path, named: object, problem: str) -> None:
    said = told(lambda: read(top.parent, named))
    assert problem in said
    assert "files_from: " in said


def test_files_and_where_they_are_from_are_not_both_given(top: Path) -> None:
    file = top.parent / "scores.yaml"
    spec = "{path: /srv/nginx, files_from: ./nginx, files: {a: {content: x}}}"
    file.write_text(f"- id: one\n  kind: TreeScore\n  spec: {spec}\n")
    assert "files is given, too" in told(lambda: read_score_files([str(file)], REGISTRY))


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": lambda top: (top / "nginx.conf").write_text("another\n"),
    "added": lambda top: (top / "conf.d/new").write_text("x"),
    "removed": lambda top: (top / "nothing").unlink(),
    "mode": lambda top: (top / "run").chmod(0o600),
    "link": all_of(lambda top: (top / "now").unlink(), lambda top: (top / "now").symlink_to("run")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_while_it_is_read_is_told(
    top: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = tree._read_entries  # pyright: ignore[reportPrivateUsage] - between the two looks

    def read_and_change(*given: Any) -> object:
        entries = reading(*given)
        CHANGES[change](top)
        return entries

    monkeypatch.setattr(tree, "_read_entries", read_and_change)
    assert "was changed while it was read" in told(lambda: read_tree(top))


def test_what_is_gone_before_it_is_read_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = tree._find_faults  # pyright: ignore[reportPrivateUsage] - before the first is read

    def find_and_remove(*given: Any) -> object:
        (top / "nginx.conf").unlink(missing_ok=True)
        return finding(*given)

    monkeypatch.setattr(tree, "_find_faults", find_and_remove)
    assert "nginx.conf cannot be read" in told(lambda: read_tree(top))


def inline_bytes(files: dict[str, TreeEntry]) -> int:
    kept = [each.content or each.content_base64 for each in files.values()]
    return sum(len(each) for each in kept if each)


def test_as_much_as_has_room_stands_in_the_manifest_and_all_else_is_an_asset(top: Path) -> None:
    for number in range(200):
        (top / f"{number:03}.html").write_text(f"{number:03}" * 1024)
    files = read_tree(top)
    assert LISTED.items() <= files.items()  # the smallest first
    assets = [path for path, each in files.items() if each.asset is not None]
    assert TREE_INLINE_MOST_BYTES - 3 * 1024 - 20 < inline_bytes(files) <= TREE_INLINE_MOST_BYTES
    assert 170 < len(assets) < 200
    assert files["199.html"].asset == read_asset(top / "199.html")
    spec = serialize("one", Entry(TreeScore(path="/srv/nginx", files=files))).spec
    with_keys = map_assets(spec, lambda asset: asset.model_copy(update={"key": "ab" * 32}))
    assert len(strict_json.dumps(with_keys)) < PAYLOAD_MAX_BYTES // 2


def test_the_largest_tree_that_there_may_be_fits_into_a_manifest(top: Path) -> None:
    for number in range(TREE_ENTRIES_MOST - len(LISTED) - 1):
        (top / f"picture-of-the-front-door-{number:06}.jpeg").write_bytes(BINARY * 12)
    spec = serialize("one", Entry(TreeScore(path="/srv/nginx", files=read_tree(top)))).spec
    with_keys = map_assets(spec, lambda asset: asset.model_copy(update={"key": "ab" * 32}))
    assert len(strict_json.dumps(with_keys)) < PAYLOAD_MAX_BYTES * 3 // 4


def test_files_may_be_full_of_what_json_writes_out(top: Path) -> None:
    (top / "bells").write_text("\x07" * 20_000)  # six times as long in JSON
    (top / "zeros").write_bytes(b"\0" * 100)
    files = read_tree(top)
    assert files["bells"].asset is not None
    assert files["zeros"].content_base64 == b"\0" * 100


def test_a_text_with_references_stays_in_the_manifest_whatever_else_is_there(top: Path) -> None:
    text = "site = ${labels.site}\n" + "x" * (TREE_INLINE_MOST_BYTES - 100)
    (top / "site").write_text(text)
    (top / "script").write_text("${HOME}" + "x" * 1000)
    files = read_tree(top)
    assert files["site"].content == text
    assert files["script"].asset is not None
    assert files["nothing"].content == ""
    (top / "more").write_text("${inventory.hostname}" + "x" * 1000)
    assert "nginx/site has ${…} in it" in told(lambda: read_tree(top))


def test_a_large_text_with_references_is_told(top: Path) -> None:
    (top / "app.js").write_text("x" * 2_000_000 + "$${labels.x}")
    said = told(lambda: read_tree(top))
    assert "nginx/app.js has ${…} in it" in said
    assert "exclude it, and write a FileScore with asset_from" in said


def test_bytes_go_as_they_are_whatever_they_look_like(top: Path) -> None:
    (top / "bytes").write_bytes(b"${labels.x}\xff")
    files = read_tree(top)
    assert files["bytes"].asset is not None
    serialize("one", Entry(TreeScore(path="/srv/nginx", files=files)))


def test_one_content_under_two_names_is_one_asset(top: Path) -> None:
    for name in ("a", "b"):
        (top / name).write_bytes(BINARY * 400)
    files = read_tree(top)
    first, second = files["a"].asset, files["b"].asset
    assert isinstance(first, Asset)
    assert isinstance(second, Asset)
    assert first.sha256 == second.sha256
    assert (first.name, second.name) == ("a", "b")


def test_an_editor_knows_both_ways_to_name_a_directory() -> None:
    assert {*find_content_fields(TreeScore)} == {"files_from"}
    schema = score_file_schema([TreeScore])
    path, named = schema["$defs"]["TreeScore"]["properties"]["files_from"]["anyOf"]
    assert path["type"] == "string"
    assert named == NamedTree.model_json_schema()
    assert {*named["properties"]} == {"path", "exclude"}


def test_what_is_never_pushed_is_as_the_documentation_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "large-files.md").read_text()
    assert ", ".join(f"`{each}`" for each in EXCLUDED) in page
