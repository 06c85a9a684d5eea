"""The board: what has changed since when, and how much it costs to know."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_control.fleet import DeviceRow
from harmony_control.web.board import STATES, Board, matches


def row(name: str, **fields: Any) -> DeviceRow:
    return attrs.evolve(
        DeviceRow(id=name, device="Online", update="UpToDate", workloads="Healthy", reason=""),
        **fields,
    )


def changed_ids(board: Board, since: int) -> list[str]:
    found = board.changes_since(since)
    assert found is not None
    return sorted(each[0] for each in json.loads(found)["rows"])


def test_a_heartbeat_is_no_news() -> None:
    board, now = Board(), datetime.now(UTC)
    assert board.take([row("pi-1", last_seen=now)])
    assert not board.take([row("pi-1", last_seen=now + timedelta(seconds=30))])
    assert board.number == 1
    found = board.find("pi-1")
    assert found is not None
    assert found.last_seen == now + timedelta(seconds=30)


def test_what_came_after_a_change_is_told_and_nothing_else() -> None:
    board = Board()
    board.take([row(f"pi-{each}") for each in range(3)])
    board.take([row("pi-0", workloads="Error", reason="broken")])
    board.take([row("pi-2", device="Silent")])
    assert changed_ids(board, 1) == ["pi-0", "pi-2"]
    assert changed_ids(board, 2) == ["pi-2"]
    assert changed_ids(board, 3) == []


def test_the_newest_change_is_made_once_for_all_who_ask() -> None:
    board = Board()
    board.take([row("pi-0")])
    board.take([row("pi-0", device="Silent")])
    assert board.changes_since(1) is board.changes_since(1)
    assert board.columns() is board.columns()


def test_a_tag_of_another_server_or_of_the_future_is_not_read() -> None:
    board, other = Board(), Board()
    for each in (board, other):
        each.take([row("pi-0")])
    assert board.read_tag(board.tag) == 1
    epoch = board.tag.partition("-")[0]
    for tag in (
        other.tag,
        f"{epoch}-2",
        f"{epoch}--1",
        f"{epoch}-x",
        f"{epoch}-²",
        "",
        "-1",
        epoch,
    ):
        assert board.read_tag(tag) is None


def test_who_has_missed_more_than_is_remembered_of_the_gone_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harmony_control.web.board._GONE_MOST", 2)
    board = Board()
    board.take([row(f"pi-{each}") for each in range(4)])
    for each in range(3):
        board.take([], [f"pi-{each}"])
    assert board.changes_since(1) is None
    assert board.changes_since(2) is not None
    assert board.ids == {"pi-3"}


def test_a_label_that_few_have_costs_little() -> None:
    board = Board()
    board.take([row(f"pi-{each:04}", labels={f"l{each}": "x"}) for each in range(1000)])
    assert len(board.columns().data) < 100_000
    assert json.loads(board.columns().data)["labels"]["l7"] == {"7": "x"}


def test_ten_thousand_devices_in_columns_are_small_and_cheap_to_keep() -> None:
    def fleet(workloads: str) -> list[DeviceRow]:
        return [
            row(
                f"pi-{each:05}",
                workloads=workloads,
                labels={"site": f"s{each % 50}", "ring": str(each % 4)},
            )
            for each in range(10_000)
        ]

    board = Board()
    tracemalloc.start()
    try:
        board.take(fleet("Healthy"))
        board.take(fleet("Degraded"))
        board.columns()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / 10_000 < 4096
    assert len(board.columns().gzipped) < 50_000


_STATES = {axis: st.sampled_from(sorted(each)) for axis, each in STATES.items()}
_ROWS = st.builds(
    row,
    st.sampled_from([f"pi-{each}" for each in range(4)]),
    **_STATES,
    labels=st.dictionaries(st.sampled_from("ab"), st.text(max_size=3), max_size=2),
    reason=st.text(max_size=5),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.lists(_ROWS, max_size=3), st.sets(st.integers(0, 3), max_size=2))))
def test_whoever_applies_what_came_after_has_the_whole(
    steps: list[tuple[list[DeviceRow], set[int]]],
) -> None:
    board = Board()
    seen: list[tuple[int, dict[str, list[Any]]]] = [(0, {})]
    for rows, gone in steps:
        board.take(rows, [f"pi-{each}" for each in gone])
        whole = {each[0]: each for each in json.loads(board.changes_since(0) or "")["rows"]}
        for number, before in seen:
            changes = json.loads(board.changes_since(number) or "")
            after = {**before, **{each[0]: each for each in changes["rows"]}}
            for name in changes["gone"]:
                after.pop(name, None)
            assert after == whole
        seen.append((board.number, whole))


def test_the_search_is_for_words_anywhere_in_what_is_said() -> None:
    found = row("pi-1", workloads="Error", reason="web: ImageNotFound", labels={"site": "attic"})
    assert matches(found, ["attic", "error"])
    assert matches(found, ["site=attic", "imagenot"])
    assert not matches(found, ["attic", "barn"])
