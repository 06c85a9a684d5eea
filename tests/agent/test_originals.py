"""What stood there before: kept whole, for root's eyes alone, and within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_agent.store.backups import DirectoryBackups
from harmony_core.errors import PriorTooLarge, WriteFailed

ONE, OTHER = "network:office", "network:office#trial"


async def test_what_was_kept_is_there_for_the_next_agent(tmp_path: Path) -> None:
    await DirectoryBackups(tmp_path / "originals").keep(ONE, b"psk=correct horse\n")
    again = DirectoryBackups(tmp_path / "originals")
    assert await again.get(ONE) == b"psk=correct horse\n"
    assert await again.get(OTHER) is None


async def test_the_newest_is_kept_and_forgetting_forgets(tmp_path: Path) -> None:
    originals = DirectoryBackups(tmp_path / "originals")
    await originals.keep(ONE, b"older")
    await originals.keep(ONE, b"newer")
    await originals.keep(OTHER, b"other")
    assert await originals.get(ONE) == b"newer"
    for _ in range(2):
        await originals.forget(ONE)
    assert await originals.get(ONE) is None
    assert await originals.get(OTHER) == b"other"


async def test_nobody_else_may_read_it_or_tell_what_it_is_of(tmp_path: Path) -> None:
    await DirectoryBackups(tmp_path / "originals").keep(ONE, b"secret")
    (path,) = (tmp_path / "originals").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "originals").stat().st_mode & 0o777 == 0o700
    assert "office" not in path.name


async def test_what_a_killed_agent_left_half_written_is_in_nobody_s_way(tmp_path: Path) -> None:
    originals = DirectoryBackups(tmp_path)
    await originals.keep(ONE, b"whole")
    (path,) = tmp_path.iterdir()
    path.with_suffix(".new").write_bytes(b"ha")
    assert await originals.get(ONE) == b"whole"
    await originals.keep(ONE, b"newer")
    assert await originals.get(ONE) == b"newer"
    assert list(tmp_path.iterdir()) == [path]
    path.with_suffix(".new").write_bytes(b"ha")
    await originals.forget(ONE)
    assert list(tmp_path.iterdir()) == []


async def test_too_much_is_refused_and_what_was_kept_stays(tmp_path: Path) -> None:
    originals = DirectoryBackups(tmp_path)
    await originals.keep(ONE, b"small")
    with pytest.raises(PriorTooLarge):
        await originals.keep(ONE, bytes(1024 * 1024 + 1))
    for n in range(64):
        (tmp_path / f"{n}").write_bytes(bytes(1024 * 1024))
    with pytest.raises(PriorTooLarge):
        await originals.keep(ONE, b"one more")
    assert await originals.get(ONE) == b"small"


async def test_a_disk_that_refuses_is_a_failure_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "originals").write_text("in the way")
    with pytest.raises(WriteFailed) as raised:
        await DirectoryBackups(tmp_path / "originals").keep(ONE, b"x")
    assert raised.value.resource == ONE
