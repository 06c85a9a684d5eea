"""Which devices are meant by an expression, and what is said of one that means nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_control.cli.agents_view import agents_table
from harmony_control.fleet_view.fields import ALIASES, FIELDS
from harmony_control.fleet_view.row import DeviceRow
from harmony_control.fleet_view.where import parse_where
from harmony_core.errors import UsageError
from harmony_core.wire.vitals import Vitals

ROW = DeviceRow(
    id="pi-1",
    device="Online",
    update="UpToDate",
    workloads="Degraded",
    reason="",
    last_seen=datetime.now(UTC) - timedelta(minutes=5),
    labels={"site": "attic", "rack/row": "7", "name": "top floor"},
    wanted_generation=3,
    scores=2,
    agent_version="1.2.3",
    vitals=Vitals(temperature_c=71.5, memory_available_bytes=2**30, throttled=0x10000),
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("device == Online", True),
        ('device == "Online"', True),
        ("device != Online", False),
        ("device in (Silent, Online)", True),
        ("device not in (Silent, Offline)", True),
        ("not device == Silent", True),
        ("labels.site == attic", True),
        ("labels.site == 'attic'", True),
        ('labels.name == "top floor"', True),
        ("labels.rack/row == 7", True),
        ("labels.missing == x", False),
        ("labels.missing != x", True),
        ("labels.missing not in (x)", True),
        ("temperature > 71", True),
        ("temperature > 71.5C", False),
        ("temperature >= 71.5", True),
        ("temperature < 200 and scores == 2", True),
        ("memory_available < 1GiB", False),
        ("memory_available <= 1GiB", True),
        ("memory_available > 1GB", True),
        ("memory > 1GB and labels.site == attic", True),
        ('memory < 1GiB and labels.site == "attic"', False),
        ("heat > 71 and memory_free <= 1GiB and agent == pi-1", True),
        ("last_seen > 4m and last_seen < 2h", True),
        ("last_seen < 1h", True),
        ("disk_free < 1GiB", False),
        ("not disk_free < 1GiB", True),
        ("disk_free != 1GiB", True),
        ("under_voltage", False),
        ("under_voltage_since_boot", True),
        ("under_voltage == false", True),
        ("clock_synchronised", False),
        ("not clock_synchronised", True),
        ("clock_synchronised == false", False),
        ("device == Silent and id == x or id == pi-1", True),
        ("device == Silent and (id == x or id == pi-1)", False),
        ("wanted_generation in (2, 3)", True),
        ("agent_version == 1.2.3", True),
    ],
)
def test_an_expression_is_true_of_a_device_or_not(text: str, holds: bool) -> None:
    assert parse_where(text)(ROW) is holds


@pytest.mark.parametrize(
    ("text", "why", "at"),
    [
        ("", "the name of a field was expected", 0),
        ("temprature > 70", "did you mean 'temperature'", 0),
        ("labels. == x", "there is no field 'labels.'", 0),
        ("device == Slient", "it is one of Online, Silent", 10),
        ("temperature > hot", "a number was expected, with one of C, or none", 14),
        ("memory_available > 1GiG", "with one of B, kB", 19),
        ("scores > 3s", "without a unit", 9),
        ("device < Online", "neither more nor less", 7),
        ("under_voltage > true", "neither more nor less", 14),
        ("under_voltage == 1", "it is true or false", 17),
        ("temperature", "a comparison was expected", 11),
        ("(scores == 1", "')' was expected", 12),
        ("scores == 1)", "`and`, `or` or the end was expected", 11),
        ("scores == 1 and", "the name of a field was expected", 15),
        ("scores == 1 scores == 2", "`and`, `or` or the end was expected", 12),
        ("id in pi-1", "'(' was expected", 6),
        ("scores == $1", "this cannot be understood", 10),
        ("scores = 1", "this cannot be understood", 7),
        ("id == 'open", "this cannot be understood", 6),
        ("(" * 100, "nested deeper", 64),
    ],
)
def test_what_means_nothing_is_told_with_the_place(text: str, why: str, at: int) -> None:
    with pytest.raises(UsageError) as told:
        parse_where(text)
    first, shown, caret = told.value.message.split("\n")
    assert why in first
    assert shown == text
    assert caret == f"{' ' * at}^"


_WORDS = [
    *FIELDS,
    *ALIASES,
    "labels.a",
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    ",",
    "==",
    "<",
    "1GiB",
    '"x"',
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(_WORDS)).map(" ".join)))
def test_whatever_is_typed_is_understood_or_told(text: str) -> None:
    try:
        holds = parse_where(text)
    except UsageError:
        return
    for row in (ROW, attrs.evolve(ROW, vitals=None, labels={}, last_seen=None)):
        assert holds(row) in {True, False}


_TESTS = st.sampled_from(
    ["scores == 2", "scores > 7", "id == pi-1", "under_voltage", "labels.site in (attic)"]
)


@given(_TESTS, _TESTS)
def test_the_words_between_mean_what_they_mean(one: str, other: str) -> None:
    a, b = parse_where(one)(ROW), parse_where(other)(ROW)
    assert parse_where(f"{one} and {other}")(ROW) is (a and b)
    assert parse_where(f"{one} or {other}")(ROW) is (a or b)
    assert parse_where(f"not ({one} and {other})")(ROW) is (not a or not b)
    assert parse_where(f"not {one} or {other}")(ROW) is (not a or b)


def test_what_a_column_is_called_is_a_name_of_its_field() -> None:
    """But for those that are several fields: power, and labels, each of which is ``labels.NAME``."""
    shown = {
        title.lower().replace(" ", "_")
        for title in agents_table([], wide=True).titles
        if title not in {"POWER", "LABELS"}
    }
    assert shown - FIELDS.keys() - ALIASES.keys() == set()
    assert FIELDS.keys() >= set(ALIASES.values())
    assert not FIELDS.keys() & ALIASES.keys()
