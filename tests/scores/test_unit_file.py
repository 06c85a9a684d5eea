"""The unit file that is written from fields: each field arrives as it was, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harmony_core.resources import first_problem
from harmony_scores import SystemdServiceScore
from harmony_scores._unit_file import ServiceFields, render

from .systemd_rules import command_of, environment_of, expanded, parse

MARKS = "\\\"'%$;#=[]{}@-:+!|`~ \tabnsxZ09éß"
"""What systemd might take in a sense of its own, within a line."""
LINE_ENDS = "\n\r\0\x0b\x1b\x7f\u0085\u2028\u2029\ud800"

marked = st.text(alphabet=MARKS, max_size=12)
nasty = marked | marked | marked | st.text(alphabet=MARKS + LINE_ENDS, max_size=12) | st.text()
plain_names = st.text(alphabet="ABC_", min_size=1, max_size=6)
names = plain_names | plain_names | plain_names | st.text(alphabet="abAB09_=. \n", max_size=6)


def rendered(score: SystemdServiceScore) -> str:
    """What the Score asks systemd for."""
    unit = score._unit()  # pyright: ignore[reportPrivateUsage] # what it sends, before it is sent
    assert unit.content is not None
    return unit.content


def accepted(**fields: object) -> SystemdServiceScore | None:
    """The Score of these fields; None when it is refused, as bad input should be."""
    try:
        return SystemdServiceScore.model_validate({"name": "x.service", **fields})
    except ValidationError:
        return None


@settings(max_examples=400, deadline=None)
@given(st.lists(nasty, max_size=4), st.dictionaries(names, nasty, max_size=3), nasty, nasty)
@example(["%n", "$HOME", "${HOME}", "$$", "%%"], {}, "%H", "/srv")
@example([";", "", " ", "\\", '"', "a\\"], {"A": '"; B=2'}, "\\", "/srv")
@example(["\t"], {"A": "\t"}, "x\t", "/srv")
def test_every_field_arrives_as_it_was_and_nothing_else_does(
    arguments: list[str], environment: dict[str, str], description: str, directory: str
) -> None:
    score = accepted(
        exec_start=["/usr/bin/run", *arguments],
        environment=environment,
        description=description,
        working_directory=directory,
    ) or accepted(exec_start=["/usr/bin/run", *arguments], environment=environment)
    if score is None:
        return
    unit = parse(rendered(score))
    service = unit["Service"]
    assert set(unit) == {"Unit", "Service", "Install"}
    assert set(unit["Unit"]) == {"Description"}
    assert set(service) <= {"Type", "ExecStart", "Restart", "WorkingDirectory", "Environment"}
    (command,) = service["ExecStart"]
    assert command_of(command) == ["/usr/bin/run", *arguments]
    assert environment_of(service.get("Environment", [])) == environment
    (told,) = unit["Unit"]["Description"]
    assert expanded(told) == (score.description if score.description is not None else "x")


@given(nasty)
@example("a\nExecStart=/bin/evil")
@example("a\\")
@example("a\u2028[Service]")
def test_no_description_ends_its_line(description: str) -> None:
    score = accepted(exec_start=["/bin/true"], description=description)
    if score is not None:
        assert set(parse(rendered(score))["Service"]) == {"Type", "ExecStart", "Restart"}


def test_the_whole_file_is_as_a_person_would_write_it() -> None:
    score = SystemdServiceScore(
        name="kiosk.service",
        exec_start=("/usr/bin/kiosk", "--url", "http://localhost/?a=1%20", "$5"),
        description="The screen at the door",
        user="pi",
        working_directory="/srv/kiosk",
        environment={"DISPLAY": ":0", "GREETING": 'say "hi"'},
        after_units=("network-online.target",),
        restart="always",
    )
    assert rendered(score) == (
        "[Unit]\n"
        "Description=The screen at the door\n"
        "Wants=network-online.target\n"
        "After=network-online.target\n"
        "\n"
        "[Service]\n"
        "Type=exec\n"
        'ExecStart=/usr/bin/kiosk "--url" "http://localhost/?a=1%%20" "$$5"\n'
        "Restart=always\n"
        "User=pi\n"
        "WorkingDirectory=/srv/kiosk\n"
        'Environment="DISPLAY=:0"\n'
        'Environment="GREETING=say \\"hi\\""\n'
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def test_equal_fields_give_equal_text_whatever_their_order() -> None:
    one = accepted(exec_start=["/bin/a"], environment={"A": "1", "B": "2"})
    other = accepted(exec_start=["/bin/a"], environment={"B": "2", "A": "1"})
    assert one
    assert other
    assert rendered(one) == rendered(other)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"exec_start": []}, "exec_start: "),
        ({"exec_start": "/usr/bin/sleep 5"}, "exec_start: "),
        ({"exec_start": ["sleep", "5"]}, "exec_start: "),
        ({"exec_start": ["-/usr/bin/sleep"]}, "exec_start: "),
        ({"exec_start": ["+/usr/bin/sleep"]}, "exec_start: "),
        ({"exec_start": ["@/usr/bin/sleep"]}, "exec_start: "),
        ({"exec_start": ["!!/usr/bin/sleep"]}, "exec_start: "),
        ({"exec_start": ["/usr/bin/%n"]}, "exec_start: "),
        ({"exec_start": ["/usr/bin/$X"]}, "exec_start: "),
        ({"exec_start": ["/usr/bin/a b"]}, "exec_start: "),
        ({"exec_start": ["/usr/../bin/a"]}, "exec_start: "),
        ({"exec_start": ["/bin/a", "x\nExecStart=/bin/evil"]}, "exec_start.1: "),
        ({"exec_start": ["/bin/a", "x\r"]}, "exec_start.1: "),
        ({"exec_start": ["/bin/a", "x\x85"]}, "exec_start.1: "),
        ({"exec_start": ["/bin/a", "x\u2028"]}, "exec_start.1: "),
        ({"exec_start": ["/bin/a", "\0"]}, "exec_start.1: "),
        ({"description": "a\nb"}, "description: "),
        ({"description": "a\\"}, "description: "),
        ({"description": " a"}, "description: "),
        ({"user": "root\n"}, "user: "),
        ({"user": "%u"}, "user: "),
        ({"working_directory": "srv"}, "working_directory: "),
        ({"working_directory": "/srv/%n"}, "working_directory: "),
        ({"working_directory": "/srv/a b"}, "working_directory: "),
        ({"working_directory": "-/srv"}, "working_directory: "),
        ({"environment": {"A": "b\nc"}}, "environment: A "),
        ({"environment": {"A B": "c"}}, "environment: 'A B' "),
        ({"environment": {"": "c"}}, "environment: '' "),
        ({"environment": {"A=B": "c"}}, "environment: 'A=B' "),
        ({"environment": {"LD_PRELOAD": "x"}}, "environment: LD_PRELOAD "),
        ({"environment": {"PATH": "x"}}, "environment: PATH "),
        ({"environment": {"PYTHONPATH": "x"}}, "environment: PYTHONPATH "),
        ({"environment": {"PYTHONHOME": "x"}}, "environment: PYTHONHOME "),
        ({"environment": {"PYTHONUSERBASE": "x"}}, "environment: PYTHONUSERBASE "),
        ({"environment": {"NOTIFY_SOCKET": "x"}}, "environment: NOTIFY_SOCKET "),
        ({"after_units": ["network"]}, "after_units.0: "),
        ({"after_units": ["a.service\nRequires=b.service"]}, "after_units.0: "),
        ({"after_units": ["a b.service"]}, "after_units.0: "),
        ({"restart": "sometimes"}, "restart: "),
        ({"type": "forking"}, "type: "),
        ({"type": "exec\nUser=root"}, "type: "),
    ],
    ids=lambda each: str(each)[:60],
)
def test_what_systemd_would_take_otherwise_is_refused_by_its_field(
    fields: dict[str, object], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        SystemdServiceScore.model_validate(
            {"name": "x.service", "exec_start": ["/bin/a"], **fields}
        )
    assert first_problem(caught.value).startswith(field)


@pytest.mark.parametrize("name", ["PYTHONUNBUFFERED", "PYTHONOPTIMIZE", "PYTHONIOENCODING"])
def test_a_variable_that_changes_nothing_that_is_loaded_is_taken(name: str) -> None:
    fields = {"name": "x.service", "exec_start": ["/bin/a"], "environment": {name: "1"}}
    assert SystemdServiceScore.model_validate(fields).environment == {name: "1"}


def test_the_renderer_itself_ends_every_line() -> None:
    fields = ServiceFields(
        description="x",
        exec_start=("/bin/a",),
        type="exec",
        restart="no",
        user=None,
        working_directory=None,
        environment={},
        after_units=(),
    )
    assert render(fields).endswith("\n")
