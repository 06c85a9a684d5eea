"""SystemdServiceScore: from a few fields, from a unit file, or one that is there already."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harmony_core import Failure, HttpProbe, Noop, Success
from harmony_core.resources import Active, Inactive, first_problem
from harmony_core.testing import FakePi, ServiceProgram, interpret_once, interpret_twice
from harmony_scores import SystemdServiceScore

UNIT_FILE = """\
[Service]
Type=exec
ExecStart=/usr/bin/kiosk

[Install]
WantedBy=multi-user.target
"""
RENDERED = SystemdServiceScore(
    name="kiosk.service",
    exec_start=("/usr/bin/kiosk", "--url", "http://localhost/"),
    description="The screen at the door",
    environment={"DISPLAY": ":0"},
    after_units=("network-online.target",),
    user="pi",
    uses=("/etc/kiosk.conf",),
    settle_s=5,
    ready=HttpProbe(port=8080),
)
WRITTEN = SystemdServiceScore(name="kiosk.service", unit_file=UNIT_FILE)
INSTALLED = SystemdServiceScore(name="ssh.service")


def a_pi() -> FakePi:
    """With ssh installed, as Debian does it, and neither enabled nor running."""
    pi = FakePi()
    pi.files.write("/etc/kiosk.conf", b"red")
    pi.files.write("/usr/lib/systemd/system/ssh.service", UNIT_FILE.encode())
    return pi


@pytest.mark.parametrize(
    "score", [RENDERED, WRITTEN, INSTALLED], ids=["rendered", "written", "installed"]
)
async def test_interpreted_twice_it_is_success_then_noop(score: SystemdServiceScore) -> None:
    pi = a_pi()
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    state = await pi.systemd.observe(score.name)
    assert isinstance(state, Active)
    assert state.enabled


async def test_a_second_pass_starts_nothing_again() -> None:
    pi = a_pi()
    await interpret_once(RENDERED, pi.offers)
    before = await pi.systemd.identity("kiosk.service")
    await interpret_once(RENDERED, pi.offers)
    assert await pi.systemd.identity("kiosk.service") == before


@pytest.mark.parametrize("field", ["uses", "environment"])
async def test_a_changed_file_or_field_starts_it_again(field: str) -> None:
    pi = a_pi()
    await interpret_once(RENDERED, pi.offers)
    before = await pi.systemd.identity("kiosk.service")
    changed = RENDERED
    if field == "uses":
        pi.files.write("/etc/kiosk.conf", b"blue")
    else:
        changed = RENDERED.model_copy(update={"environment": {"DISPLAY": ":1"}})
    assert isinstance((await interpret_once(changed, pi.offers)).outcome, Success)
    assert await pi.systemd.identity("kiosk.service") != before


async def test_it_can_be_stopped_and_disabled() -> None:
    pi = a_pi()
    await interpret_once(WRITTEN, pi.offers)
    stopped = WRITTEN.model_copy(update={"state": "stopped", "enabled": False})
    first, second = await interpret_twice(stopped, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    state = await pi.systemd.observe("kiosk.service")
    assert isinstance(state, Inactive)
    assert not state.enabled


async def test_a_service_that_does_not_start_is_a_failure_with_its_last_lines() -> None:
    pi = a_pi()
    pi.systemd.programs["/usr/bin/kiosk"] = ServiceProgram(exit_code=3, log=("no display",))
    outcome = (await interpret_once(WRITTEN, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "UnitFailed"
    assert "no display" in outcome.error.message


async def test_a_service_that_is_not_installed_is_a_failure_that_names_it() -> None:
    absent = SystemdServiceScore(name="absent.service")
    outcome = (await interpret_once(absent, FakePi().offers)).outcome
    assert isinstance(outcome, Failure)
    assert "absent.service" in outcome.error.message


@pytest.mark.parametrize("score", [RENDERED, WRITTEN, INSTALLED], ids=lambda each: each.name)
def test_json_there_and_back_is_the_same_score(score: SystemdServiceScore) -> None:
    assert SystemdServiceScore.model_validate(score.model_dump(mode="json")) == score
    assert SystemdServiceScore.model_validate_json(score.model_dump_json()) == score


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "kiosk"}, "name: "),
        ({"name": "kiosk.timer"}, "name: must end in .service"),
        ({"name": "a/b.service"}, "name: "),
        ({"name": "-.service"}, "name: "),
        ({"name": "-h.service"}, "name: "),
        ({"name": "a\\x2eb.service"}, "name: "),
        ({"name": "getty@.service"}, "name: "),
        ({"unit_file": UNIT_FILE, "exec_start": ["/bin/a"]}, "give unit_file or exec_start"),
        ({"unit_file": "[Service]"}, "unit_file: must end with a newline"),
        ({"unit_file": "[Service]\r\n"}, "unit_file: "),
        ({"unit_file": UNIT_FILE, "user": "pi"}, "user: "),
        ({"unit_file": UNIT_FILE, "environment": {"A": "1"}}, "environment: "),
        ({"description": "mine"}, "description: "),
        ({"type": "notify"}, "type: "),
        ({"state": "restarted"}, "state: "),
        ({"uses": ["kiosk.conf"]}, "uses.0: "),
        ({"settle_s": -1}, "settle_s: "),
        ({"ready": {"probe": "http", "port": 0}}, "ready.http.port: "),
        ({"colour": "red"}, "colour: "),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SystemdServiceScore.model_validate({"name": "kiosk.service", **fields})
    assert first_problem(caught.value).startswith(field)


def test_an_editor_is_told_what_every_field_is_for() -> None:
    properties = SystemdServiceScore.model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())
