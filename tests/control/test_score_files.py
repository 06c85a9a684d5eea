"""Score files: what is read from each form, and what is said of those that are wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from harmony_control import Entry
from harmony_control.cli import main
from harmony_control.compose.read import ComposeSettings
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core import HasFiles, Inventory, Outcome, Score, plugins
from harmony_core.errors import (
    EntryRefused,
    InvalidScore,
    ScoreFileError,
    UnsupportedVersion,
    UsageError,
)
from harmony_core.plugins import Registry
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_core.wire.ordering import graph_faults
from harmony_scores import FileScore, SystemdServiceScore

REGISTRY = Registry([FileScore, SystemdServiceScore])
MOTD = FileScore(path="/etc/motd", content="hello")


def read(tmp_path: Path, name: str, content: str | bytes) -> dict[str, Entry[HasFiles]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_score_files([str(path)], REGISTRY)


YAML = """
# Comments, anchors and every default are allowed.
- &motd
  id: motd
  kind: FileScore
  spec: &spec {path: /etc/motd, content: hello}
- <<: *motd
  id: again
  version: 1
  after: [motd]
  policy: {drift: report, deadline_s: 60}
"""

PYTHON = """
from __future__ import annotations
from harmony_control import Entry
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from harmony_scores import FileScore

motd = FileScore(path="/etc/motd", content="hello")
scores = {
    "motd": motd,
    "again": Entry(motd, after=["motd"], policy=ScorePolicy(drift="report", deadline_s=60)),
}
"""

JSON = json.dumps(
    [
        {"id": "motd", "kind": "FileScore", "spec": {"path": "/etc/motd", "content": "hello"}},
        {
            "id": "again",
            "kind": "FileScore",
            "version": 1,
            "spec": {"path": "/etc/motd", "content": "hello"},
            "after": ["motd"],
            "policy": {"drift": "report", "deadline_s": 60},
        },
    ]
)


@pytest.mark.parametrize(
    ("name", "content"), [("a.yaml", YAML), ("a.YML", YAML), ("a.py", PYTHON), ("a.json", JSON)]
)
def test_every_form_says_the_same(name: str, content: str, tmp_path: Path) -> None:
    policy = ScorePolicy(drift="report", deadline_s=60)
    assert Entry(MOTD, policy={"drift": "report", "deadline_s": 60}).policy == policy
    assert read(tmp_path, name, content) == {
        "motd": Entry(MOTD),
        "again": Entry(MOTD, after=["motd"], policy=policy),
    }


@pytest.mark.parametrize("content", [YAML, JSON])
def test_standard_input_is_read_as_what_it_is(
    content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert set(read_score_files(["-"], REGISTRY)) == {"motd", "again"}


def test_one_id_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(JSON)
    read(tmp_path, "a.yaml", YAML)
    with pytest.raises(ScoreFileError, match=r"b\.json: the id 'motd' is also in .*a\.yaml"):
        read_score_files([str(tmp_path / "a.yaml"), str(tmp_path / "b.json")], REGISTRY)


@pytest.mark.parametrize("directive", ["", "%YAML 1.1\n---\n"])
def test_an_anchor_may_be_used_twice(directive: str, tmp_path: Path) -> None:
    """YAML allows it, and the library that reads it warns of it: on standard error, with its own line."""
    one = "- {id: a, kind: FileScore, spec: {path: /a, content: &x hello}}\n"
    other = "- {id: b, kind: FileScore, spec: {path: &x /b, content: there}}\n"
    assert list(read(tmp_path, "scores.yaml", directive + one + other)) == ["a", "b"]


def test_a_date_and_a_number_in_quotes_are_texts(tmp_path: Path) -> None:
    for written, meant in (("2026-01-31", "2026-01-31"), ("'007'", "007"), ("yes", "yes")):
        content = f"- {{id: a, kind: FileScore, spec: {{path: /a, content: {written}}}}}"
        (entry,) = read(tmp_path, "a.yaml", content).values()
        assert entry.score == FileScore(path="/a", content=meant)


def test_a_program_may_import_what_lies_beside_it_and_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside_it_lies.py").write_text("PATH = '/etc/motd'\n")
    program = PYTHON.replace('"/etc/motd"', "PATH").replace(
        "from harmony_control", "from beside_it_lies import PATH\nprint(PATH)\nfrom harmony_control"
    )
    before = list(sys.path)
    assert set(read(tmp_path, "a.py", program)) == {"motd", "again"}
    assert sys.path == before
    assert capsys.readouterr() == ("", "/etc/motd\n")


def test_a_program_may_have_a_score_and_a_loop_of_its_own(tmp_path: Path) -> None:
    program = """
from __future__ import annotations
import asyncio
from harmony_core import HasFiles, Inventory, Outcome, Score, plugins

class Note(Score[HasFiles]):
    text: str
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome: ...

async def text() -> str:
    return "hello"

scores = {"note": Note(text=asyncio.run(text()))}
if __name__ == "__main__":
    raise SystemExit("only read, not run as a program")
"""
    (entry,) = read(tmp_path, "a.py", program).values()
    assert serialize("note", entry).spec == {"text": "hello"}


class Renamed(Score[HasFiles]):
    """A Score whose field is called otherwise on the wire."""

    path: Annotated[str, Field(alias="filePath")]

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise NotImplementedError


def test_what_is_pushed_can_be_read_by_the_names_of_its_fields() -> None:
    score = Renamed.model_validate({"filePath": "/a"})
    entry = serialize("a", Entry(score))
    assert Registry([Renamed]).decode(entry) == score


def test_what_it_waits_for_is_a_list() -> None:
    with pytest.raises(UsageError, match=r"write a list of ids, such as after="):
        Entry(MOTD, after="motd")
    assert Entry(MOTD, after=(name for name in ("a", "b"))).after == ("a", "b")


WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "must be a list of entries"),
    "a text": ("hello", "must be a list of entries"),
    "an object": ("{id: a}", "must be a list of entries"),
    "no entry": ("[]", "must be a list of entries"),
    "not an entry": ("- hello", "entry 1 is not an object"),
    "a key twice": (
        "- {id: a, id: b, kind: FileScore}",
        "line 1, column 11: while constructing a mapping: found duplicate key",
    ),
    "a key twice inside": (
        "- {id: a, kind: FileScore, spec: {path: /a, path: /b}}",
        "found duplicate key",
    ),
    "NaN": (
        "- {id: a, kind: FileScore, spec: {path: .nan}}",
        "line 1, column 41: .nan is not a fin",
    ),
    "infinity": ("- {id: a, spec: {x: -.inf}}", "is not a finite number"),
    "a huge number": ("- {id: a, spec: {x: 99999999999999999999}}", "does not fit into 64 bits"),
    "bytes": ("- {id: a, spec: {x: !!binary aGk=}}", "has a tag"),
    "a set": ("- {id: a, spec: {x: !!set {a}}}", "has a tag"),
    "an object of Python's": ("- !!python/object/apply:os.system [ls]", "has a tag"),
    "a tag of one's own": ("- !mine {id: a}", "has a tag"),
    "an unknown anchor": ("- *nobody", "undefined alias"),
    "two documents": ("- {id: a}\n---\n- {id: b}", "line 2, column 1"),
    "cut off": ("- {id: a", "line 1"),
    "a tab": ("-\tid: a\n\tkind: x", "line 1, column 2"),
    "a NUL": ("- {id: a\0}", "special characters are not allowed"),
    "very deep": ("[" * 500 + "]" * 500, "nested too deep"),
    "deep": ("[" * 40 + "]" * 40, "nested deeper than 32 levels"),
    "unknown field": ("- {id: a, kind: FileScore, sepc: {}}", "entry 1: unknown field 'sepc'"),
    "no id": ("- {kind: FileScore, spec: {path: /a, content: x}}", "entry 1: id"),
    "no kind": ("- {id: a, spec: {}}", "entry 1 (a): kind"),
    "no text for id": ("- {id: 7, kind: FileScore}", "entry 1: id"),
    "no name for id": ("- {id: A b, kind: FileScore}", "entry 1 (A b): id"),
    "after a text": ("- {id: a, kind: FileScore, after: b}", "entry 1 (a): after"),
    "after twice": ("- {id: a, kind: FileScore, after: [b, b]}", "b stands here more than once"),
    "a policy unknown": ("- {id: a, kind: FileScore, policy: {drift: no}}", "policy.drift"),
    "an id twice": (
        "- {id: a, kind: FileScore, spec: {path: /a, content: x}}\n" * 2,
        "the id 'a' is used by two entries",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_document_is_refused_where_it_is_wrong(what: str, tmp_path: Path) -> None:
    content, says = WRONG[what]
    with pytest.raises(ScoreFileError) as refused:
        read(tmp_path, "a.yaml", content)
    message = refused.value.message
    assert message.startswith(f"{tmp_path}/a.yaml: ")
    assert says in message
    assert "\n" not in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.json"):
        for content in ("- {id: a}".encode("utf-16"), b"\xff", b"[\xed\xa0\x80]"):
            with pytest.raises(ScoreFileError, match=r"a\.(yaml|json).*UTF-8"):
                read(tmp_path, name, content)


JSON_WRONG = {
    "empty": (b"", "empty"),
    "cut off": (b'[{"id": "a"', "JSON document"),
    "a key twice": (b'[{"id": "a", "id": "b"}]', "'id' stands twice"),
    "NaN": (b'[{"id": NaN}]', "NaN is not JSON"),
    "deep": (b"[" * 100_000, "nested deeper"),
    "a comment": (b"[] // none", "JSON document"),
}


@pytest.mark.parametrize("what", JSON_WRONG)
def test_wrong_json_is_refused(what: str, tmp_path: Path) -> None:
    content, says = JSON_WRONG[what]
    with pytest.raises(ScoreFileError, match=r"a\.json") as refused:
        read(tmp_path, "a.json", content)
    assert says in refused.value.message


def test_what_is_wrong_inside_a_spec_is_the_kinds_own_error(tmp_path: Path) -> None:
    def refused(entry: str, error: type[EntryRefused]) -> str:
        with pytest.raises(error) as told:
            read(tmp_path, "a.yaml", f"- {{id: a, {entry}}}")
        return told.value.message

    said = refused("kind: FileScore, spec: {path: a, content: x}", InvalidScore)
    assert "a.yaml: entry 1 (a): FileScore: path" in said
    assert "version 9" in refused("kind: FileScore, version: 9, spec: {}", UnsupportedVersion)
    for entry in ("kind: Unheard", "kind: Unheard, version: 1, spec: {}"):
        assert "known: FileScore, Systemd" in refused(entry, EntryRefused)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.json"):
        with pytest.raises(ScoreFileError, match="is larger than 1048576 bytes; split it"):
            read(tmp_path, name, b" " * (1024 * 1024 + 1))


def test_anchors_that_would_be_written_out_to_gigabytes_are_refused(tmp_path: Path) -> None:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ScoreFileError, match="once its anchors are written out"):
        read(tmp_path, "a.yaml", "\n".join(lines))
    with pytest.raises(ScoreFileError, match="an anchor contains itself"):
        read(tmp_path, "a.yaml", "- &a {id: a, spec: {x: *a}}")


def _of(entry: str, says: str) -> tuple[str, str]:
    """A program in whose fourth line *entry* stands."""
    begin = "from harmony_control import Entry\nfrom harmony_scores import FileScore\n"
    motd = "MOTD = FileScore(path='/etc/motd', content='')\n"
    return f"{begin}{motd}scores = {{'web': {entry}}}", f"line 4: {says}"


BYTES = """
from harmony_core import HasFiles, Outcome, Score
class BytesScore(Score[HasFiles]):
    raw: bytes
    async def interpret(self, inventory, topology) -> Outcome: ...
scores = {"a": BytesScore(raw=b"\\xff")}
"""

PROGRAMS = {
    "syntax": ("scores = {", "line 1: SyntaxError"),
    "an error": ("\n\n1/0", "line 3: ZeroDivisionError: division by zero"),
    "an error below": (
        "def f():\n    raise KeyError('x')\n\nf()",
        "line 2: KeyError: 'x'",
    ),
    "a missing import": ("\nimport no_such_package", "line 2: ModuleNotFoundError"),
    "its end": ("import sys\nsys.exit(0)", "line 2: it ends the program"),
    "no scores": ("x = 1", "must define scores"),
    "empty scores": ("scores = {}", "must define scores"),
    "a list": ("scores = []", "must define scores"),
    "no Score": ("scores = {'a': 3}", "scores['a'] is of type int, not a Score"),
    "a class": (
        "from harmony_scores import FileScore\nscores = {'a': FileScore}",
        "scores['a'] is the class FileScore itself; call it: FileScore(…)",
    ),
    "no text for id": (
        "from harmony_scores import FileScore\nscores = {1: FileScore(path='/a', content='')}",
        "scores[1]",
    ),
    "no name for id": (
        "from harmony_scores import FileScore\nscores = {'A': FileScore(path='/a', content='')}",
        "scores['A']: 'A' cannot be a Score's id",
    ),
    "a wrong field": (
        "from harmony_scores import FileScore\nscores = {'a': FileScore(path='x', content='')}",
        "line 2: FileScore: path",
    ),
    "a text as after": _of("Entry(MOTD, after='motd')", "after='motd': write a list of ids"),
    "no list as after": _of("Entry(MOTD, after=3)", "after=3: write a list of ids"),
    "no texts in after": _of("Entry(MOTD, after=[3])", "after=[3]: write a list of ids"),
    "a wrong policy": _of("Entry(MOTD, policy={'drift': 'foo'})", "policy: drift: Input should be"),
    "an unknown policy": _of(
        "Entry(MOTD, policy={'x': 1})", "policy: x: unknown field; allowed: drift"
    ),
    "no policy": _of("Entry(MOTD, policy=3)", "policy: "),
    "no Score in an Entry": _of(
        "Entry('foo')", "the score of this Entry is of type str, not a Score"
    ),
    "a class in an Entry": _of(
        "Entry(FileScore)", "the score of this Entry is the class FileScore"
    ),
    "a field that is no JSON": (
        BYTES,
        "scores['a']: a field of this BytesScore cannot be written as JSON",
    ),
    "a NUL": ("x = 1\0", "SyntaxError: source code string cannot contain null bytes"),
    "endless recursion": ("def f(): f()\nf()", "line 1: RecursionError"),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_wrong_program_is_told_at_its_own_line(what: str, tmp_path: Path) -> None:
    content, says = PROGRAMS[what]
    before = list(sys.path)
    with pytest.raises(ScoreFileError) as refused:
        read(tmp_path, "a.py", content)
    assert says in refused.value.message
    assert refused.value.message.startswith(f"{tmp_path}/a.py")
    assert sys.path == before


def test_an_interrupted_program_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, "a.py", "raise KeyboardInterrupt")


@pytest.mark.parametrize(
    "name", ["none.yaml", "none.json", "none.py", "directory.yaml", "directory.py"]
)
def test_what_is_not_there_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "directory.py").mkdir()
    with pytest.raises(
        ScoreFileError, match=rf"{name} (cannot be read|does not exist|is a directory)"
    ):
        read_score_files([str(tmp_path / name)], REGISTRY)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200), name=st.sampled_from(["a.yaml", "a.json"]))
def test_no_bytes_at_all_are_more_than_a_wrong_file(
    content: bytes, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoreFileError):
        read(tmp_path, name, content)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("- {id: a, kind: FileScore, spec: {path: a, content: x}}", 2),
        ("- {id: a", 2),
        ("- {id: a, kind: Unheard}", 3),
        ("- {id: a, kind: FileScore, version: 9}", 3),
    ],
)
def test_the_command_says_it_in_one_line_and_its_exit_code(
    content: str, status: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(content)
    arguments = ["push-score", "pi-1", str(tmp_path / "a.yaml"), "--home", str(tmp_path)]
    assert main(arguments) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"harmony: {tmp_path}/a.yaml: ")
    assert err.count("\n") == 1


MANY = """
- id: conf
  kind: FileScore
  spec:
    pth: /etc/conf
    content: 7
- id: typo
  kind: FielScore
  spec: {}
- id: web
  kind: SystemdServiceScore
  afer: [conf]
  spec: {name: web.service}
- id: conf
  kind: FileScore
  spec: {path: /a, content: ""}
"""


def test_all_that_is_wrong_with_a_file_is_told_at_once_with_its_lines(tmp_path: Path) -> None:
    with pytest.raises(ScoreFileError) as refused:
        read(tmp_path, "a.yaml", MANY)
    told = [
        line.removeprefix(f"{tmp_path}/a.yaml: ") for line in refused.value.message.splitlines()
    ]
    assert told[0] == "entry 1 (conf): FileScore: path: is missing; add it (line 4)"
    assert 'content: must be text; put it in quotes: "7"' in told[1]
    assert told[1].endswith("(line 6)")
    assert told[2].startswith("entry 1 (conf): FileScore: pth: unknown field; did you mean 'path'?")
    assert told[2].endswith("(line 5)")
    assert "the kind 'FielScore'; did you mean 'FileScore'?" in told[3]
    assert told[3].endswith("(line 8)")
    assert "entry 3: unknown field 'afer'; did you mean 'after'?" in told[4]
    assert len(told) == 5


def test_json_has_lines_too_and_an_anchor_is_told_where_it_stands(tmp_path: Path) -> None:
    document = '[\n {"id": "a",\n  "kind": "FileScore",\n  "spec": {"path": "a", "content": ""}}]'
    with pytest.raises(InvalidScore, match=r"path: .*\(line 4\)"):
        read(tmp_path, "a.json", document)
    anchored = "- &a {id: a, kind: FileScore, spec: {path: a, content: ''}}\n- <<: *a\n  id: b\n"
    with pytest.raises(InvalidScore, match=r"entry 2 \(b\): .*\(line 2\)"):
        read(tmp_path, "a.yaml", anchored)


def test_a_device_in_the_place_of_a_file_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(ScoreFileError, match="if it is a device, name all devices in one word"):
        read_score_files(["pi-2"], REGISTRY)


def test_a_mistyped_name_in_after_is_told() -> None:
    entries = [serialize(name, Entry(MOTD, after=after)) for name, after in AFTER.items()]
    assert "did you mean 'motd'?" in graph_faults(entries)["web"].message


AFTER: dict[str, tuple[str, ...]] = {"motd": (), "web": ("modt",)}


def refer(tmp_path: Path, spec: str, kind: str = "FileScore") -> SerializedScore:
    yaml = f"- {{id: a, kind: {kind}, spec: {{{spec}}}}}\n"
    (entry,) = read_score_files([str(_written(tmp_path, yaml))], plugins.load()).values()
    return serialize("a", entry)


def _written(tmp_path: Path, yaml: str) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(yaml)
    return path


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("FileScore", {"path": "/etc/${labels.site}", "mode": "${labels.mode}", "content": "x"}),
        ("ContainerScore", {"name": "web", "image": "docker.io/library/nginx:${labels.channel}"}),
        (
            "ContainerScore",
            {
                "name": "web-${labels.site}",
                "image": "docker.io/library/nginx:1",
                "ports": [{"host": "${labels.port}", "container": 80}],
                "memory_bytes": "${labels.memory}",
            },
        ),
        (
            "SystemdServiceScore",
            {"name": "${labels.unit}", "user": "${labels.user}", "exec_start": ["/bin/a"]},
        ),
        (
            "TimerScore",
            {"name": "a.timer", "exec_start": ["/bin/true"], "on_calendar": "${labels.when}"},
        ),
    ],
)
def test_a_reference_passes_where_it_is_judged_only_on_the_device(
    kind: str, spec: dict[str, object], tmp_path: Path
) -> None:
    entry = refer(tmp_path, json.dumps(spec)[1:-1], kind)
    assert entry.references
    assert {name: entry.spec[name] for name in spec} == spec | (
        {"ports": [{"host": "${labels.port}", "container": 80, "protocol": "tcp", "address": ""}]}
        if "ports" in spec
        else {}
    )


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            'path: /a, content: "${inventory.hostnam}"',
            "did you mean 'hostname'?; for the text itself, write $${inventory.hostnam} (line 1)",
        ),
        ('path: /a, content: "${labels.Site!}"', "did you mean ${labels.Site}?"),
        ('path: /a, content: "${labels.site}", mode: "9999"', "mode: must be three or four octal"),
        ('path: /a, content: "${labels.site}", moed: 1', "unknown field; did you mean 'mode'?"),
    ],
)
def test_what_is_wrong_with_or_beside_a_reference_is_told_with_its_line(
    spec: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidScore) as refused:
        refer(tmp_path, spec)
    assert told in refused.value.message


def test_a_field_that_takes_nothing_of_the_kind_is_refused_as_it_stands(tmp_path: Path) -> None:
    with pytest.raises(InvalidScore, match=r"restart: .*\$\{labels.how\}"):
        refer(
            tmp_path,
            'name: a.service, exec_start: [/bin/a], restart: "${labels.how}"',
            "SystemdServiceScore",
        )


def test_a_python_score_refers_too_and_is_refused_alike() -> None:
    entry = serialize("a", Entry(FileScore(path="/a", content="${labels.site}")))
    assert entry.references
    with pytest.raises(InvalidScore, match="did you mean 'hostname'"):
        serialize("a", Entry(FileScore(path="/a", content="${inventory.hostnam}")))


def test_what_is_nearly_a_reference_is_noted_and_stays(tmp_path: Path) -> None:
    entry = "- {id: db, kind: FileScore, spec: {path: /etc/db, content: 'pw ${secrets.db}'}}\n"
    noted: list[str] = []

    found = read_score_files(
        [str(_written(tmp_path, entry))], plugins.load(), ComposeSettings(tell=noted.append)
    )

    assert serialize("db", found["db"]).spec["content"] == "pw ${secrets.db}"
    assert noted == [
        "db: ${secrets.db} is no reference, and stays as it is; did you mean 'secret'?"
    ]
