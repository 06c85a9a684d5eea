"""Variables of compose files, of .env and of env_file: as `docker compose` puts them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_control.compose.dotenv import WrongLine, read_dotenv, read_raw
from harmony_control.compose.faults import Wrong
from harmony_control.compose.interpolation import substitute
from harmony_control.compose.mapping import map_project
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore

from .compose_files import read, service

SET = {"A": "a", "EMPTY": "", "NAME": "ada"}


def put_in(text: str) -> str:
    return substitute(text, SET.get, lambda name: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "a"),
        ("${A}", "a"),
        ("x${A}y$A.", "xaya."),
        ("$NONE", ""),
        ("${NONE-b}", "b"),
        ("${EMPTY-b}", ""),
        ("${EMPTY:-b}", "b"),
        ("${A:-b}", "a"),
        ("${A-b}", "a"),
        ("${NONE:-}", ""),
        ("${A:+b}", "b"),
        ("${EMPTY:+b}", ""),
        ("${EMPTY+b}", "b"),
        ("${NONE+b}", ""),
        ("${A:?no}", "a"),
        ("${EMPTY?no}", ""),
        ("${NONE:-${A}}", "a"),
        ("${NONE:-${ALSO:-$NAME}}", "ada"),
        ("${NONE:-{}}", "{}"),
        ('${NONE:-{"a": "$A"}}', '{"a": "a"}'),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE-a}${A}", "aa"),
        ("$$A", "$A"),
        ("$$$A", "$a"),
        ("$${A}", "${A}"),
        ("5$", "5$"),
        ("{{{ ${NONE:-b} ${A:-c} }}}", "{{{ b a }}}"),
        ("${NONE-b} }}", "b }}"),
        ("${NONE:-/dev/null}:/tmp:ro", "/dev/null:/tmp:ro"),
        ("$1 $- $ a", "$1 $- $ a"),
        ("pg://${NAME}:${secret.db.password}@db", "pg://ada:${secret.db.password}@db"),
        ("${NONE:-${secret.db}}${labels.site}", "${secret.db}${labels.site}"),
        ("$$$${secret.db}", "$${secret.db}"),
        ("", ""),
    ],
)
def test_variables_are_put_in(text: str, expected: str) -> None:
    assert put_in(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${A", "no closing brace"),
        ("${}", "names no variable"),
        ("${1}", "names no variable"),
        ("${A!b}", "cannot be read"),
        ("${NONE?}", "the variable NONE is needed; set it"),
        ("${NONE?say $NAME}", "the variable NONE is needed: say ada; set it"),
        ("${EMPTY:?no}", "the variable EMPTY is needed: no; set it"),
        ("${N:-" * 30 + "}" * 30, "nested too deep"),
        ("${secret.DB}", "such as db.password; for the text itself, write $$$${secret.DB}"),
        ("${secrets.db}", "cannot be read"),
    ],
)
def test_what_cannot_be_put_in_is_told(text: str, told: str) -> None:
    with pytest.raises(Wrong) as raised:
        put_in(text)
    assert told in raised.value.told


def test_only_what_is_empty_for_lack_of_a_value_is_noted() -> None:
    noted: list[str] = []
    substitute("$A $NONE ${OTHER} ${X:-b} ${Y+c} ${EMPTY}", SET.get, noted.append)
    assert noted == ["NONE", "OTHER"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", {"A": "b"}),
        ("A = b ", {"A": "b"}),
        ("A: b", {"A": "b"}),
        ("export A=b", {"A": "b"}),
        ("A=", {"A": ""}),
        ("# A=b\n\n  B=c", {"B": "c"}),
        ("A=b # c", {"A": "b"}),
        ("A=b#c", {"A": "b#c"}),
        ("A='b # c'", {"A": "b # c"}),
        ('A="b # c" # d', {"A": "b # c"}),
        ("A='$NAME'", {"A": "$NAME"}),
        ('A="$NAME"', {"A": "ada"}),
        ("A=$NAME", {"A": "ada"}),
        ("B=x\nA=$B${B}", {"B": "x", "A": "xx"}),
        ("NAME=other\nA=$NAME", {"NAME": "other", "A": "ada"}),
        ('A="b\\nc"', {"A": "b\nc"}),
        ("A='b\\nc'", {"A": "b\\nc"}),
        ('A="b\\"c"', {"A": 'b"c'}),
        ("A='it\\'s'", {"A": "it's"}),
        ('A="\\$NAME"', {"A": "$NAME"}),
        ('A="b\nc"\nD=e', {"A": "b\nc", "D": "e"}),
        ("A=b\r\nC=d\r\n", {"A": "b", "C": "d"}),
        ("\ufeffA=b", {"A": "b"}),
        ("NAME\nNONE", {"NAME": "ada"}),
        ("A=${NONE:-d}", {"A": "d"}),
        ("a.b-c=1\nd[1].e=2", {"a.b-c": "1", "d[1].e": "2"}),
        ("A=break café\nB=ada@host b-c", {"A": "break café", "B": "ada@host b-c"}),
        ('A={"b": "c"}', {"A": '{"b": "c"}'}),
        ("A=${secret.db}\nB='${secret.db}'", {"A": "${secret.db}", "B": "${secret.db}"}),
    ],
)
def test_a_file_of_variables_is_read(text: str, expected: dict[str, str]) -> None:
    assert read_dotenv(text, SET.get, lambda name: None) == expected


@pytest.mark.parametrize(
    ("text", "line"), [("A=b\nC D=e", 2), ("\n\nA='b", 3), ("A=b\n\n=c", 3), ('A="\n\n"\n"x"=y', 4)]
)
def test_a_wrong_line_is_named(text: str, line: int) -> None:
    with pytest.raises(WrongLine) as raised:
        read_dotenv(text, SET.get, lambda name: None)
    assert raised.value.line == line


def test_nothing_has_a_meaning_in_a_raw_file() -> None:
    text = "A='b' # c\n# D=e\nF=$NAME\nNAME\nNONE\n"
    assert read_raw(text, SET.get) == {"A": "'b' # c", "F": "$NAME", "NAME": "ada"}


def test_the_environment_goes_before_env_beside_the_file(tmp_path: Path) -> None:
    files = {".env": "TAG=1\nPORT=80\n"}
    project = read(
        tmp_path,
        'services: {web: {image: "web:$TAG", ports: ["$PORT:80"]}}',
        files=files,
        environment={"TAG": "2"},
    )
    web = project.document["services"]["web"]
    assert web["image"] == "web:2"
    assert web["ports"][0]["published"] == "80"


def test_a_variable_that_is_not_set_is_said_once(tmp_path: Path) -> None:
    project = read(tmp_path, "services:\n  web:\n    image: web$TAG\n    hostname: h$TAG\n")
    told = f"{tmp_path}/compose.yaml:3: the variable TAG is not set, and is empty here"
    assert project.notes == (told,)
    assert project.document["services"]["web"]["image"] == "web"


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ("mem_limit: ${SIZE}", "$SIZE"),  # found as the file is read
        ('ports: ["$HOST:$PORT:80"]', "$HOST, $PORT"),  # and what no device can do
    ],
)
def test_what_is_wrong_where_a_variable_is_not_set_says_so(
    wrong: str, names: str, tmp_path: Path
) -> None:
    with pytest.raises(ComposeFileError) as refused:
        map_project(
            read(tmp_path, f"services:\n  web:\n    image: web\n    {wrong}\n"),
            Registry([ComposeScore]),
        )
    (line,) = [each for each in str(refused.value).splitlines() if each.startswith(str(tmp_path))]
    assert line.startswith(f"{tmp_path}/compose.yaml:4: ")
    assert line.endswith(f" (not set, and so empty here: {names}; set it in .env, or export it)")


def test_variables_of_a_service_come_from_files_the_environment_and_itself(tmp_path: Path) -> None:
    files = {
        "a.env": "A=file\nB=file\nREFERS=${OWN}-${GIVEN}\nGONE=file\n",
        "b.env": "B=$A\n'C'=d\n".replace("'", ""),
        "raw.env": "D='$A'\n",
    }
    found = service(
        tmp_path,
        """
        env_file:
          - a.env
          - {path: b.env}
          - {path: raw.env, format: raw}
          - {path: none.env, required: false}
        environment:
          OWN: own
          A: itself
          GIVEN:
          GONE:
          NUMBER: 1
          "TRUE": true
        """,
        files=files,
        environment={"GIVEN": "given"},
    )
    assert found["environment"] == {
        "A": "itself",
        "B": "itself",
        "REFERS": "own-given",
        "C": "d",
        "D": "'$A'",
        "OWN": "own",
        "GIVEN": "given",
        "NUMBER": "1",
        "TRUE": "true",
    }
    assert "env_file" not in found


def test_what_is_wrong_with_a_file_of_variables_has_its_line(tmp_path: Path) -> None:
    text = "services:\n  web:\n    image: web\n    env_file:\n      - a.env\n      - none.env\n"
    with pytest.raises(ComposeFileError) as raised:
        read(tmp_path, text, files={"a.env": "A=b\nwhat is this\n"})
    assert raised.value.message.splitlines() == [
        f"{tmp_path}/a.env:2: 'what is this' is no variable; write NAME=value",
        (
            f"{tmp_path}/compose.yaml:6: services.web.env_file[1]: {tmp_path}/none.env is not there; "
            "correct its name"
        ),
    ]


def test_variables_cannot_blow_up_a_file(tmp_path: Path) -> None:
    doubling = "".join(f"A{n}=$A{n - 1}$A{n - 1}\n" for n in range(1, 40))
    with pytest.raises(ComposeFileError, match="larger than"):
        read(tmp_path, "services: {web: {image: $A39}}", files={".env": f"A0=xxxxxxxx\n{doubling}"})


@pytest.mark.parametrize(
    ("environment", "text", "name"),
    [
        ({}, "name: shop\n", "shop"),
        ({}, "name: $X\n", "x"),
        ({}, "name: My.Shop\n", "myshop"),
        ({"COMPOSE_PROJECT_NAME": "given"}, "name: shop\n", "given"),
        ({}, "", "folder"),
    ],
)
def test_the_project_has_a_name(
    tmp_path: Path, environment: dict[str, str], text: str, name: str
) -> None:
    folder = tmp_path / "_Folder"
    says = f"{text}services:\n  web:\n    image: web:$COMPOSE_PROJECT_NAME\n"
    project = read(folder, says, environment={"X": "x", **environment})
    assert project.name == project.document["name"] == name
    assert project.document["services"]["web"]["image"] == f"web:{name}"
