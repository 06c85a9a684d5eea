"""What an operator's home has lost, as by a power cut, is made again where nobody has relied on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.seen import SeenCounters, SignedMessage
from harmony_core.errors import UsageError


def message(counter: int) -> SignedMessage:
    return SignedMessage(
        agent_id="pi-1",
        kind="report",
        key="key",
        counter=counter,
        revision=counter,
        written_s=counter,
    )


def test_keygen_that_was_cut_off_is_ended_by_the_next_with_the_same_keys(tmp_path: Path) -> None:
    home = Home(tmp_path)
    key = operator_key.create(home)
    public = home.operator_pub.read_text()
    home.operator_pub.unlink()
    assert operator_key.create(home) == key
    assert home.operator_pub.read_text() == public
    with pytest.raises(UsageError, match="exists"):
        operator_key.create(home)


def overwrite(path: Path, offset: int, text: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(text)


@pytest.mark.parametrize("offset", [0, 4096])
def test_a_memory_of_what_was_read_that_is_spoiled_is_begun_anew(
    tmp_path: Path, offset: int
) -> None:
    seen = SeenCounters(tmp_path / "seen.db")
    assert seen.admit([message(8), message(7)]) == [True, False]
    overwrite(tmp_path / "seen.db", offset, bytes([255]) * 4096)
    assert seen.admit([message(7)]) == [True]
    assert seen.admit([message(6), message(8)]) == [False, True]


def test_where_nothing_can_be_remembered_all_is_admitted(tmp_path: Path) -> None:
    (tmp_path / "seen.db").mkdir()
    seen = SeenCounters(tmp_path / "seen.db")
    assert seen.admit([message(8), message(7)]) == [True, True]
