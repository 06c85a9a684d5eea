"""Replies: what a frame says survives the wire, and what is none is an error of one kind."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core.errors import InvalidReply
from harmony_core.outcome import ErrorInfo
from harmony_core.wire.replies import (
    FRAME_MAX_BYTES,
    Alive,
    End,
    Failed,
    Frame,
    Item,
    LoggedLine,
    Planned,
    PlannedChange,
    Reconciled,
    cut_for_wire,
    from_frame,
    item_as,
    to_frame,
    to_item,
)

FRAMES: list[Frame] = [
    Alive(seq=0, at="2026-01-31T12:00:00.000Z"),
    Item(seq=1, item={"text": "grüezi", "n": [1, None]}),
    End(seq=2),
    Failed(seq=3, error=ErrorInfo(code="UnknownScore", message="no", resource=None)),
]
ITEMS: list[LoggedLine | Reconciled | Planned | PlannedChange] = [
    LoggedLine(resource="unit:web.service", at="now", stream="out", text="hi", cursor="s=1"),
    Reconciled(score="web", state={"kind": "FileScore"}),
    Reconciled(score="web", state=None),
    Planned(score="web", status="NOOP"),
    Planned(score="web", status="FAILURE", error=ErrorInfo(code="UnknownKind", message="no")),
    PlannedChange(score="web", resource="file:/a", actions=("written",), diff="+a\n"),
    PlannedChange(
        score="web",
        resource="container:web",
        actions=("stopped", "removed"),
        removed=True,
        before={"state": "Exited", "exit_code": 1},
    ),
]


@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_a_frame_survives_the_wire(frame: Frame) -> None:
    assert from_frame(to_frame(frame)) == frame


@pytest.mark.parametrize("item", ITEMS, ids=repr)
def test_an_item_survives_the_wire(item: LoggedLine | Reconciled | Planned | PlannedChange) -> None:
    sent = from_frame(to_frame(Item(seq=0, item=to_item(item))))
    assert isinstance(sent, Item)
    assert item_as(type(item), sent.item) == item


def test_unknown_fields_are_ignored() -> None:
    fields = json.loads(to_frame(End(seq=4))) | {"mood": "fine"}
    assert from_frame(json.dumps(fields).encode()) == End(seq=4)
    line = dict(to_item(ITEMS[0])) | {"colour": "red"}
    assert item_as(LoggedLine, line) == ITEMS[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"kind": "bye", "seq": 0}',
        b'{"kind": "end"}',
        b'{"kind": "end", "seq": "x"}',
        b'{"kind": [], "seq": 0}',
        b'{"kind": "item", "seq": 0, "item": [1]}',
        b'{"kind": "error", "seq": 0, "error": null}',
        b"\xff",
        b"[" * 10_000,
        b'"' + b"x" * FRAME_MAX_BYTES + b'"',
    ],
)
def test_what_is_no_frame_is_told_as_that(data: bytes) -> None:
    with pytest.raises(InvalidReply):
        from_frame(data)


def test_an_item_of_another_form_is_told_as_that() -> None:
    with pytest.raises(InvalidReply, match="not a LoggedLine"):
        item_as(LoggedLine, {"score": "web"})


def test_half_a_character_becomes_a_question_mark() -> None:
    frame = from_frame(to_frame(Item(seq=0, item={"text": "a\ud83db"})))
    assert frame == Item(seq=0, item={"text": "a?b"})


@given(st.text(), st.integers(16, 400))
def test_what_is_cut_fits_and_begins_as_it_did(text: str, most_bytes: int) -> None:
    cut = cut_for_wire(text, most_bytes)
    assert len(json.dumps(cut, ensure_ascii=False).encode(errors="replace")) <= most_bytes
    assert cut == text or text.startswith(cut.removesuffix("…").removesuffix("\n"))


def test_it_is_cut_at_the_end_of_a_line_where_there_is_one() -> None:
    assert cut_for_wire("one\ntwo\nthree\n", 20) == "one\ntwo\nthree\n"
    assert cut_for_wire("one\ntwo\nthree and more\n", 24) == "one\ntwo\n…"
    assert cut_for_wire("x" * 100, 20) == "xxxxxxxxxx…"
