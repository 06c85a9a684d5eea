"""Where `harmony volume save` writes: what somebody has put there before is left as it is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from harmony_control.cli.volumes import open_for_writing
from harmony_core.errors import NoAnswer, UsageError


@pytest.mark.parametrize("is_link", [False, True])
def test_what_lies_in_wait_for_an_archive_gets_nothing_of_it(tmp_path: Path, is_link: bool) -> None:
    waits, victim, file = (tmp_path / name for name in ("data.tar.part", "victim", "data.tar"))
    victim.write_text("theirs")
    if is_link:
        waits.symlink_to(victim)
    else:
        waits.write_text("theirs")
        waits.chmod(0o666)
    with open_for_writing(str(file)) as archive:
        archive.write(b"secret")
        assert not file.exists()
    assert file.read_bytes() == b"secret"
    assert stat.S_IMODE(file.lstat().st_mode) == 0o600
    assert victim.read_text() == waits.read_text() == "theirs"
    assert {each.name for each in tmp_path.iterdir()} == {"data.tar.part", "victim", "data.tar"}


def test_what_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    def break_off() -> None:
        with open_for_writing(str(tmp_path / "data.tar")) as archive:
            archive.write(b"secret")
            raise NoAnswer("lost")

    with pytest.raises(NoAnswer):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "data.tar").symlink_to("nowhere")
    with (
        pytest.raises(UsageError, match="already"),
        open_for_writing(str(tmp_path / "data.tar")),
    ):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_where_nothing_can_be_written_it_says_so_before_anything_is_asked(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="another place"),
        open_for_writing(str(tmp_path / "no" / "f")),
    ):
        pass
