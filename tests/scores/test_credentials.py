"""Credentials of services: files for root alone, of which systemd gives what is in them to the program."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core import Container, Directory, Failure, File, Mount, Noop, Success
from harmony_core.credentials import CREDENTIALS_MAX_BYTES
from harmony_core.interpretation import interpret
from harmony_core.resources import SystemdUnit, first_problem
from harmony_core.secret_values import secret_word
from harmony_core.stage import Stage
from harmony_core.testing import (
    AllowAll,
    FakePi,
    ListAudit,
    NoClaims,
    interpret_once,
    interpret_twice,
    inventory,
    make_stage,
)
from harmony_scores import DirectoryScore, FileScore, SystemdServiceScore, TimerScore

PLACE = "/etc/harmony-credentials/api.service"
UNIT_FILE = "[Service]\nExecStart=/usr/bin/api \\\n  --all\n[Install]\nWantedBy=multi-user.target\n"
API = SystemdServiceScore(
    name="api.service",
    exec_start=("/usr/bin/api",),
    credentials={"db-password": "100 % of $HOME\n", "token": ""},
)
BY_FILE = SystemdServiceScore(
    name="api.service", unit_file=UNIT_FILE, credentials={"db-password": "x", "token": "y"}
)
REPORT = TimerScore(
    name="report", every_s=3600, exec_start=("/usr/bin/report",), credentials={"token": "y"}
)
LINES = [
    "LoadCredential=db-password:/etc/harmony-credentials/api.service/db-password",
    "LoadCredential=token:/etc/harmony-credentials/api.service/token",
]


async def converge(score: SystemdServiceScore | TimerScore, pi: FakePi) -> None:
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()


def stage_with(pi: FakePi, word: str, *, apply: bool = True) -> Stage:
    return Stage(
        offers=pi.offers,
        policy=AllowAll(),
        claims=NoClaims(),
        audit=ListAudit(),
        apply=apply,
        secret_words=[word],
    )


def text_of(pi: FakePi, unit: str) -> str:
    return (pi.systemd.read(f"/etc/systemd/system/{unit}") or b"").decode()


@pytest.mark.parametrize("score", [API, BY_FILE, REPORT], ids=["fields", "unit file", "timer"])
async def test_interpreted_twice_it_is_success_then_noop(
    score: SystemdServiceScore | TimerScore,
) -> None:
    await converge(score, FakePi())


async def test_each_is_a_file_of_root_s_and_the_unit_names_it_and_has_no_text_of_it() -> None:
    pi = FakePi()
    await interpret_once(API, pi.offers)
    assert pi.files.read(f"{PLACE}/db-password") == b"100 % of $HOME\n"
    assert pi.files.read(f"{PLACE}/token") == b""
    text = text_of(pi, "api.service")
    assert [each for each in text.splitlines() if "Credential" in each] == LINES
    assert "100" not in text
    found = await pi.files.observe(f"{PLACE}/db-password")
    where = await pi.directories.observe(PLACE)
    assert (getattr(found, "mode", ""), getattr(where, "mode", "")) == ("0600", "0700")


async def test_of_a_unit_file_that_is_given_the_last_section_names_them() -> None:
    pi = FakePi()
    await interpret_once(BY_FILE, pi.offers)
    text = text_of(pi, "api.service")
    assert text == f"{UNIT_FILE}\n[Service]\n{LINES[0]}\n{LINES[1]}\n"


async def test_without_any_a_service_asks_for_nothing_but_its_unit() -> None:
    pi = FakePi()
    score = SystemdServiceScore(name="api.service", exec_start=("/usr/bin/api",))
    stage = make_stage(pi.offers)
    await interpret(score, inventory(), stage)
    assert stage.wanted.keys() == {"unit:api.service"}
    assert "credentials" not in score.model_dump(mode="json")


async def test_another_value_starts_the_service_anew_and_one_less_too() -> None:
    pi = FakePi()
    await interpret_once(API, pi.offers)
    for credentials in ({"db-password": "another", "token": ""}, {"db-password": "another"}):
        before = await pi.systemd.identity("api.service")
        changed = API.model_copy(update={"credentials": credentials})
        planned = await interpret_once(changed, pi.offers, apply=False)
        assert isinstance(planned.outcome, Success)
        assert await pi.systemd.identity("api.service") == before
        await converge(changed, pi)
        assert await pi.systemd.identity("api.service") != before


async def test_a_file_that_is_changed_or_gone_is_put_right_and_the_service_not_left_with_it() -> (
    None
):
    pi = FakePi()
    await interpret_once(API, pi.offers)
    right = pi.files.read(f"{PLACE}/db-password")
    before = await pi.systemd.identity("api.service")
    pi.files.delete(f"{PLACE}/db-password")
    await converge(API, pi)
    assert pi.files.read(f"{PLACE}/db-password") == right
    assert await pi.systemd.identity("api.service") == before, "it has what it began with"
    pi.files.write(f"{PLACE}/db-password", b"mine")
    await pi.systemd.restart("api.service")
    begun_with_another = await pi.systemd.identity("api.service")
    await converge(API, pi)
    assert pi.files.read(f"{PLACE}/db-password") == right
    assert await pi.systemd.identity("api.service") != begun_with_another


async def test_a_secret_comes_into_the_file_alone() -> None:
    pi = FakePi()
    word = secret_word("api", "db", "00" * 8)
    pi.files.secret_values.put(word, "hunter2")
    score = API.model_copy(update={"credentials": {"db-password": f"pg://me:{word}@db"}})
    stage = stage_with(pi, word)
    assert isinstance((await interpret(score, inventory(), stage)).outcome, Success)
    assert pi.files.read(f"{PLACE}/db-password") == b"pg://me:hunter2@db"
    told = repr([stage.changes, stage.states, stage.wanted["unit:api.service"]])
    assert "hunter2" not in told
    assert "secret" not in text_of(pi, "api.service")


async def test_what_secrets_make_more_than_systemd_takes_is_refused_before_anything_is_done() -> (
    None
):
    pi = FakePi()
    word = secret_word("api", "db", "00" * 8)
    pi.files.secret_values.put(word, "x" * 16_384)
    many = {f"c{n}": word for n in range(64)}
    score = API.model_copy(update={"credentials": many})
    stage = stage_with(pi, word, apply=False)
    outcome = (await interpret(score, inventory(), stage)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "InvalidResource"
    assert "credentials: they take 1048758 bytes in all" in outcome.error.message
    assert outcome.error.resource == "unit:api.service"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"credentials": {"a/b": "x"}}, "credentials.a/b"),
        ({"credentials": {"a:b": "x"}}, "credentials.a:b"),
        ({"credentials": {"": "x"}}, "credentials."),
        ({"credentials": {"..": "x"}}, "credentials..."),
        ({"credentials": {".harmony.x.tmp": "x"}}, "credentials."),
        ({"credentials": {"a b": "x"}}, "credentials.a b"),
        ({"credentials": {"a%n": "x"}}, "credentials.a%n"),
        ({"credentials": {"x" * 256: "x"}}, "credentials.xxx"),
        ({"credentials": {"a": "\ud800"}}, "credentials.a: has half a character"),
        ({"credentials": {"a": 5}}, "credentials.a: must be text"),
        (
            {"credentials": {"a": "x" * 600_000, "b": "x" * 500_000}},
            "credentials: they take 1114112 bytes in all, each in whole blocks of 16384, and systemd has",
        ),
        (
            {"credentials": {f"c{n}": "x" for n in range(65)}},
            "credentials: they take 1064960 bytes in all",
        ),
        (
            {"credentials": {"a": "x" * CREDENTIALS_MAX_BYTES}},
            "credentials: they take 1048577 bytes in all",
        ),
        (
            {"credentials": {"a": "x"}, "exec_start": None},
            "credentials: the unit file of api.service is not written here",
        ),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SystemdServiceScore.model_validate(
            {"name": "api.service", "exec_start": ["/usr/bin/api"], **fields}
        )
    assert first_problem(caught.value, SystemdServiceScore).startswith(problem)


def test_a_name_and_a_value_may_be_as_long_as_systemd_takes_them() -> None:
    value = "x" * (CREDENTIALS_MAX_BYTES - 255)
    SystemdServiceScore(
        name="api.service", exec_start=("/usr/bin/api",), credentials={"x" * 255: value}
    )


@pytest.mark.parametrize("score", [API, BY_FILE, REPORT], ids=["fields", "unit file", "timer"])
def test_json_there_and_back_is_the_same_score(score: SystemdServiceScore | TimerScore) -> None:
    assert type(score).model_validate_json(score.model_dump_json()) == score


APPLIANCE = DevicePolicy(rules=PolicyTable(preset="appliance", units=("api.service",)))
OPEN = DevicePolicy(rules=PolicyTable(preset="open"))


async def asked_by(score: Any) -> list[Any]:
    stage = make_stage(FakePi().offers)
    await interpret(score, inventory(), stage)
    return list(stage.wanted.values())


async def test_an_appliance_that_lists_the_unit_needs_to_list_no_path_and_opens_none() -> None:
    for each in await asked_by(API):
        assert isinstance(each, Directory | File | SystemdUnit)
        assert APPLIANCE.refusal(each) is None
    other = API.model_copy(update={"name": "other.service"})
    for each in await asked_by(other):
        assert "units" in (APPLIANCE.refusal(each) or "")
    for path in (
        "/etc/harmony-credentials",
        "/etc/harmony-credentials-too/api.service/x",
        "/etc/harmony-credentials/other.service/x",
        "/etc/x",
    ):
        assert APPLIANCE.refusal(File(path=path, content=b"")) is not None
        assert APPLIANCE.refusal(Directory(path=path)) is not None


@pytest.mark.parametrize("source", [f"{PLACE}/token", PLACE, "/etc/harmony-credentials"])
def test_no_container_sees_them(source: str) -> None:
    mounts = (Mount(source=source, target="/data"),)
    container = Container(name="web", image="registry.example/web:1", mounts=mounts)
    assert "would hand out the device" in (OPEN.refusal(container) or "")


@pytest.mark.parametrize("unit", ["harmony-agent.service", "systemd-logind.service"])
async def test_nobody_writes_the_credentials_of_a_unit_that_may_not_be_managed(unit: str) -> None:
    path = f"/etc/harmony-credentials/{unit}"
    for each in await asked_by(FileScore(path=f"{path}/x", content="")):
        assert OPEN.refusal(each) is not None
    for each in await asked_by(DirectoryScore(path=path)):
        assert OPEN.refusal(each) is not None
