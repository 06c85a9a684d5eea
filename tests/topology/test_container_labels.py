"""The labels by which what runs is known: all are ours, and none are its image's."""

from __future__ import annotations

from typing import cast

import pytest

from harmony_core.resources import HOLD_MOST_S, Container
from harmony_pi_topology.containers.request import build_request
from harmony_pi_topology.containers.secret_store import SECRETS_LABEL
from harmony_pi_topology.containers.spec import (
    MAX_HOLD_LABEL,
    RUNS_LABEL,
    max_hold_s,
    resolve_desired,
    runs_once,
)

OURS = (MAX_HOLD_LABEL, RUNS_LABEL, SECRETS_LABEL)
WEB = Container(name="web", image="registry.test/web:1")


def labels_of(container: Container, secrets: dict[str, str]) -> dict[str, str]:
    request = build_request(resolve_desired(container, {}), {}, secrets)
    return cast("dict[str, str]", request["labels"])


def test_each_of_ours_is_sent_and_is_empty_where_there_is_nothing_to_say() -> None:
    plain = labels_of(WEB, {})
    assert [plain[name] for name in OURS] == ["", "", ""]
    assert max_hold_s(plain) is None
    assert not runs_once(plain)
    said = WEB.model_copy(update={"max_hold_s": 60, "runs": "once", "restart": "no"})
    told = labels_of(said, {"harmony-web-0": "1"})
    assert [told[name] for name in OURS] == ["60", "once", '{"harmony-web-0":"1"}']
    assert plain.keys() == told.keys()
    assert max_hold_s(told) == 60
    assert runs_once(told)


def test_what_an_older_agent_made_without_them_is_not_made_anew() -> None:
    older = {name: text for name, text in labels_of(WEB, {}).items() if text}
    assert not older.keys() & {*OURS}
    assert resolve_desired(WEB, {}).differences_from(older) == ()


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "604801", "9" * 15, "9" * 5000, "\u0663"])
def test_for_how_long_it_may_hold_is_nothing_that_no_score_could_say(text: str) -> None:
    assert max_hold_s({MAX_HOLD_LABEL: text}) is None
    assert max_hold_s({MAX_HOLD_LABEL: str(HOLD_MOST_S)}) == HOLD_MOST_S
