"""What is found when a record of changes is compared with what was seen of it, and what of that is kept."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from harmony_control.audit.verify import (
    AuditResult,
    ReportedHead,
    compare_heads,
    verify_chain,
)
from harmony_control.store import seen_heads
from harmony_control.store.seen import SeenCounters, SignedMessage
from harmony_control.store.seen_heads import SeenHead, note_head, read_heads
from harmony_core.wire.audit import (
    CHAIN_START,
    EVENTS_KEPT,
    AuditHead,
    event_to_text,
    hash_event,
)
from harmony_core.wire.replies import ChainedEvent

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
Chain = list[ChainedEvent]


def text_of(seq: int, what: str = "motd", why: str = "desired") -> str:
    at = f"2026-01-31T12:00:{seq % 60:02}.000Z"
    return event_to_text({"seq": seq, "at": at, "score": what, "actions": ["x"], "why": why})


def chained(texts: Sequence[tuple[int, str]], prior: str = CHAIN_START) -> Chain:
    """A chain of these events, as an agent makes it."""
    events: Chain = []
    for seq, text in texts:
        events.append(ChainedEvent(seq=seq, prior=prior, text=text))
        prior = hash_event(prior, text.encode())
    return events


def of(count: int) -> Chain:
    return chained([(seq, text_of(seq)) for seq in range(1, count + 1)])


def anew(events: Chain) -> Chain:
    """The same texts, chained again by somebody who knows how."""
    return chained([(each.seq, each.text) for each in events])


def head_of(event: ChainedEvent) -> AuditHead:
    return AuditHead(seq=event.seq, head=hash_event(event.prior, event.text.encode()))


def seen(*events: ChainedEvent) -> list[SeenHead]:
    """That these were the last when they were read, a day after the other."""
    return [
        SeenHead(head=head_of(each), at=NOON + timedelta(days=day))
        for day, each in enumerate(events)
    ]


def kinds(result: AuditResult) -> list[str]:
    return [each.kind for each in result.faults]


def rewrite(events: Chain, at: int) -> Chain:
    events[at] = attrs.evolve(events[at], text=text_of(events[at].seq, "other"))
    return events


def remove(events: Chain, at: int) -> Chain:
    del events[at]
    return events


def insert(events: Chain, at: int) -> Chain:
    """One more between two, which are numbered on."""
    texts = [each.text for each in events[:at]] + [text_of(0, "put in")]
    texts += [each.text for each in events[at:]]
    numbered = [
        (seq, event_to_text({**json.loads(text), "seq": seq})) for seq, text in enumerate(texts, 1)
    ]
    return chained(numbered)


def swap(events: Chain, at: int) -> Chain:
    """Two change places, and numbers."""
    first, second = events[at], events[at - 1]
    events[at] = attrs.evolve(first, text=text_of(first.seq, "swapped"))
    events[at - 1] = attrs.evolve(second, text=text_of(second.seq, "swapped"))
    return events


def cut(events: Chain, at: int) -> Chain:
    return events[:at]


def cut_oldest(events: Chain, at: int) -> Chain:
    return events[at + 1 :]


def unchain(events: Chain, at: int) -> Chain:
    events[at] = attrs.evolve(events[at], prior="")
    return events


DEEDS = (rewrite, remove, insert, swap, cut, cut_oldest, unchain)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("is_chained_anew", [False, True])
def test_whatever_is_done_to_a_chain_up_to_what_was_seen_is_found(
    deed: Callable[[Chain, int], Chain], is_chained_anew: bool
) -> None:
    whole = of(9)
    for at, last in itertools.product(range(9), range(9)):
        tampered = deed(list(whole), at)
        tampered = anew(tampered) if is_chained_anew else tampered
        result = verify_chain("pi-1", tampered, None, seen(whole[last]))
        # What is as it was up to there may be other from there on: nobody has seen that.
        is_same = [head_of(each) for each in tampered[: last + 1]] == [
            head_of(each) for each in whole[: last + 1]
        ]
        if not is_same:
            assert result.faults, (at, last)
        elif is_chained_anew:
            assert not result.faults, (at, last)
    assert not verify_chain("pi-1", whole, None, seen(*whole)).faults


def test_each_kind_says_what_was_done() -> None:
    whole = of(9)
    known = seen(whole[2], whole[6])

    def verify(events: Chain) -> list[str]:
        return kinds(verify_chain("pi-1", events, None, known))

    assert verify(anew(rewrite(list(whole), 4))) == ["Rewritten"]
    assert verify(whole[:5]) == ["Shortened"]
    assert verify(whole[4:]) == ["Shortened"]
    assert verify([]) == ["BegunAnew"]
    assert verify(chained([(1, text_of(1, "new"))])) == ["BegunAnew"]
    lost = [*whole[:5], *chained([(20, text_of(20, why="lost"))], head_of(whole[4]).head)]
    assert verify(lost) == ["Lost"]
    assert verify(chained([(1_000, text_of(1_000, why="lost"))])) == ["Lost"]
    later = chained([(1_000, text_of(1_000))])
    assert verify(later) == ["BegunAnew"]


def test_the_report_counts_as_what_was_seen_does() -> None:
    whole = of(5)
    reported = ReportedHead(head=head_of(whole[3]), at=NOON)
    assert not verify_chain("pi-1", whole, reported, []).faults  # it may know more by now
    assert kinds(verify_chain("pi-1", whole[:3], reported, [])) == ["Shortened"]
    assert kinds(verify_chain("pi-1", anew(rewrite(whole, 2)), reported, [])) == ["Rewritten"]


def test_what_is_no_longer_kept_is_compared_as_far_as_the_first_that_is() -> None:
    whole = of(EVENTS_KEPT + 10)
    kept, known = whole[10:], seen(whole[4], whole[9], whole[20])
    result = verify_chain("pi-1", kept, None, known)
    assert not result.faults
    assert [each.head.seq for each in result.not_kept] == [5]
    assert [each.head.seq for each in result.confirmed] == [10, 21]
    other = chained([(each.seq, each.text) for each in kept], "1" * 64)
    assert kinds(verify_chain("pi-1", other, None, known[:2])) == ["Rewritten"]
    # Whoever takes the oldest out shows less than a device keeps.
    assert kinds(verify_chain("pi-1", kept[1:], None, known[2:])) == ["Shortened"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"seq": "1"}', '{"seq": 2}', "[" * 10_000, '{"seq":1,"at":"\ud800"}'],
    ids=range(8),
)
def test_whatever_stands_for_an_event_is_told_of(text: str) -> None:
    events = [ChainedEvent(seq=1, prior=CHAIN_START, text=text)]
    result = verify_chain("pi-1", events, None, seen(of(1)[0]))
    assert kinds(result) == ["Rewritten"]


def test_without_the_device_what_it_has_told_must_agree_with_itself() -> None:
    whole = of(5)
    newest = ReportedHead(head=head_of(whole[4]), at=NOON + timedelta(days=9))
    assert not compare_heads("pi-1", newest, seen(*whole)).faults
    other = attrs.evolve(newest, head=AuditHead(seq=5, head="1" * 64))
    assert kinds(compare_heads("pi-1", other, seen(*whole))) == ["Rewritten"]
    fewer = attrs.evolve(newest, head=AuditHead(seq=3, head="1" * 64))
    assert kinds(compare_heads("pi-1", fewer, seen(*whole[3:]))) == ["Shortened"]
    assert not compare_heads("pi-1", None, []).faults


DAY_S = 86_400


def test_of_what_was_seen_the_newest_are_remembered_and_the_first_of_each_day_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seen_heads, "KEPT_ALL", 5)
    monkeypatch.setattr(seen_heads, "KEPT_DAYS", 4)
    with closing(sqlite3.connect(":memory:")) as database:
        for seq in range(1, 41):  # four a day, ten days
            head = AuditHead(seq=seq, head=f"{seq:064}")
            for _ in range(2):  # read again, it is the same
                note_head(database, "pi-1", "key", head, (seq - 1) * DAY_S / 4)
        note_head(database, "pi-2", "key", AuditHead(seq=1, head="0"), 0)
        kept = [each.head.seq for each in read_heads(database, "pi-1", "key")]
        assert kept == [25, 29, 33, 36, 37, 38, 39, 40]
        # Another one of the same number is kept beside it.
        note_head(database, "pi-1", "key", AuditHead(seq=40, head="1" * 64), 10 * DAY_S)
        heads = [each.head for each in read_heads(database, "pi-1", "key") if each.head.seq == 40]
        assert len(heads) == 2
        assert read_heads(database, "pi-1", "another key") == []
        note_head(database, "pi-1", "another key", AuditHead(seq=1, head="0"), 0)
        assert read_heads(database, "pi-1", "key") == []
        assert len(read_heads(database, "pi-2", "key")) == 1


def test_only_what_is_believed_is_remembered(tmp_path: Path) -> None:
    known = SeenCounters(tmp_path / "seen.db")
    told = [
        SignedMessage(
            agent_id="pi-1",
            kind="report",
            key="key",
            counter=counter,
            revision=counter,
            written_s=counter,
            audit=AuditHead(seq=seq, head=f"{seq:064}") if seq is not None else None,
        )
        for counter, seq in [(10, 7), (9, 8), (11, None), (12, 0), (13, 9)]
    ]
    assert known.admit(told) == [True, False, True, True, True]
    assert [each.head.seq for each in known.heads("pi-1", "key")] == [7, 9]
    (tmp_path / "seen.db").write_bytes(b"garbage" * 1000)
    assert known.heads("pi-1", "key") == []
    assert known.admit(told[:1]) == [True]
