"""By what a container is recognised, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from harmony_core.resources import Container, HttpProbe
from harmony_core.steps import Created, KeptVolume, Pulled, Recreated, Started, Step
from harmony_pi_topology.common.log_tail import log_tail
from harmony_pi_topology.containers.spec import (
    ABSENT,
    FIELDS_LABEL,
    MAX_HOLD_LABEL,
    RESOURCE_LABEL,
    RUNS_LABEL,
    SPEC_LABEL,
    resolve_desired,
)

DIGEST = f"sha256:{'1' * 64}"
WEB = Container(name="web", image=f"registry.test/web:1@{DIGEST}")


def labels(**fields: Any) -> dict[str, str]:
    return resolve_desired(WEB.model_copy(update=fields), {}).labels


def test_equal_wishes_have_equal_labels() -> None:
    assert labels(environment={"A": "1", "B": "2"}) == labels(environment={"B": "2", "A": "1"})


def test_labels_name_the_resource_and_nobody_else() -> None:
    # The last two say nothing here: else an image could say it.
    ours = {RESOURCE_LABEL, SPEC_LABEL, FIELDS_LABEL, RUNS_LABEL, MAX_HOLD_LABEL}
    assert set(labels()) == ours
    assert labels()[RUNS_LABEL] == labels()[MAX_HOLD_LABEL] == ""
    assert labels()[RESOURCE_LABEL] == "container:web"


def test_a_field_s_value_is_not_in_the_labels() -> None:
    assert "hunter2" not in str(labels(environment={"PASSWORD": "hunter2"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"ready": HttpProbe(port=80)},
        {"settle_s": 30.0},
        {"pull_timeout_s": 1.0},
        {"image": f"registry.test/web:latest@{DIGEST}"},
        {"image": f"registry.test/web@{DIGEST}"},
        {"restart": "always"},
    ],
    ids=["readiness", "settling", "time to pull", "tag", "no tag", "a default"],
)
def test_what_does_not_make_the_container_is_no_change(fields: dict[str, Any]) -> None:
    assert resolve_desired(WEB.model_copy(update=fields), {}).differences_from(labels()) == ()


def test_every_changed_field_is_named() -> None:
    wish = resolve_desired(WEB.model_copy(update={"user": "1000", "command": ("a",)}), {})
    assert wish.differences_from(labels(environment={"A": "1"})) == (
        "command",
        "environment",
        "user",
    )


def test_a_used_file_is_named_when_its_content_changes() -> None:
    web = WEB.model_copy(update={"uses": ("/etc/a", "/etc/b")})
    before = resolve_desired(web, {"/etc/a": "1" * 64, "/etc/b": ABSENT}).labels
    after = resolve_desired(web, {"/etc/a": "2" * 64, "/etc/b": ABSENT})
    assert after.differences_from(before) == ("/etc/a",)
    assert resolve_desired(WEB, {}).differences_from(before) == ("/etc/a", "/etc/b")


DATA = KeptVolume(name="harmony-web-data-1", target="/data")


@pytest.mark.parametrize(
    ("steps", "actions"),
    [
        ((), ("recreated: /etc/a, or b changed", "started")),
        ((Started(),), ("recreated: /etc/a, or b changed", "started")),
        (
            (Pulled(), Recreated(fields=["user", "image"]), Started()),
            ("pulled", "recreated: /etc/a, or b, image, user changed", "started"),
        ),
        (
            (Recreated(is_removal_cut_short=True), Started(), DATA),
            ("recreated: /etc/a, or b changed", "started", str(DATA)),
        ),
        ((Created(), Started()), ("created", "started")),
    ],
)
def test_a_file_that_will_be_rewritten_by_then_is_one_more_reason(
    steps: tuple[Step, ...], actions: tuple[str, ...]
) -> None:
    web = WEB.model_copy(update={"uses": ("/etc/a, or b", "/etc/c")})
    previewed = web.preview_steps(steps, None, {"/etc/a, or b", "/etc/d"})
    assert tuple(map(str, previewed)) == actions
    assert web.preview_steps(steps, None, {"/etc/d"}) == steps


@pytest.mark.parametrize(
    "fields", [None, "", "garbage", "[1]", '{"a": 1}', "{}"], ids=lambda each: str(each) or "empty"
)
def test_labels_that_cannot_be_read_are_a_change(fields: str | None) -> None:
    found = {} if fields is None else {FIELDS_LABEL: fields}
    assert resolve_desired(WEB, {}).differences_from({**found, SPEC_LABEL: "other"})


def test_a_change_of_nothing_that_is_known_is_a_change_all_the_same() -> None:
    assert resolve_desired(WEB, {}).differences_from({**labels(), SPEC_LABEL: "0"}) == (
        "specification",
    )


def test_the_last_lines_are_at_most_twenty_and_two_kibibytes() -> None:
    log = b"".join(b"%d\n" % n for n in range(100))
    assert log_tail(log) == "; its last lines:\n" + "\n".join(str(n) for n in range(80, 100))
    assert len(log_tail(b"x" * 10_000)) <= 2048 + len("; its last lines:\n")


@pytest.mark.parametrize(
    "log", [b"\xff" * 4000, b"\x00" * 4000, "€".encode() * 4000, b"a\xff" * 2000]
)
def test_the_last_lines_are_no_longer_than_two_kibibytes_whatever_was_logged(log: bytes) -> None:
    told = log_tail(log).removeprefix("; its last lines:\n").encode()
    assert 2040 < len(told) <= 2048


def test_a_log_of_other_bytes_than_text_is_told_as_far_as_it_can_be() -> None:
    assert log_tail(b"\xff\xfe ok\n") == "; its last lines:\n\ufffd\ufffd ok"


def test_a_log_does_not_act_on_the_terminal_that_shows_it() -> None:
    assert log_tail(b"\x1b[2Jgone\r\tok\n") == "; its last lines:\n\ufffd[2Jgone\ufffd\tok"


@pytest.mark.parametrize("log", [b"", b"\n", b"\n\n"])
def test_an_empty_log_is_said_to_be_so(log: bytes) -> None:
    assert log_tail(log) == "; it has logged nothing"
